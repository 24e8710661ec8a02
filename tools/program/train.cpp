// bracket train: a new run, or one that goes on.
#include <filesystem>
#include <memory>
#include <optional>

#include "bracket/entropy_choice.h"
#include "bracket/error.h"
#include "bracket/preset.h"
#include "bracket/run.h"
#include "host/config/override.h"
#include "host/core/byte_count.h"
#include "host/core/text.h"
#include "host/data/data_file.h"
#include "host/files/in_quotes.h"
#include "host/files/posix_file.h"
#include "host/run/run_pictures.h"
#include "tools/program/command_line.h"
#include "tools/program/data_options.h"
#include "tools/program/math_text.h"
#include "tools/program/model.h"
#include "tools/program/output.h"
#include "tools/program/progress.h"
#include "tools/program/stop_signals.h"
#include "tools/program/version.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

struct TrainOptions {
  std::string preset = "calibrated-2d";
  double width = 1;
  std::string data;
  std::string data_dir;
  std::optional<std::int64_t> steps;
  std::optional<std::int64_t> stop_after;
  std::optional<std::uint64_t> seed;
  std::string device;
  int threads = 0;
  std::string out;
  std::vector<std::string> settings;
  std::string config;
  bool print_config = false;
  std::string math;
  bool no_graphs = false;
  bool one_kernel = false;
  std::string on_divergence = "stop";
  std::string entropy;
  std::optional<double> entropy_error;
  bool force = false;
  std::string resume;
  std::vector<std::string> command;
};

std::string text_of_file(const std::string& path) {
  const std::vector<std::byte> bytes = read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

constexpr int kMostRollbacks = 10;
constexpr const char* kMathSettings[] = {"energy.math", "energy.jacobian_math", "generator.math",
                                         "generator.jacobian_math"};

// Preset, then file, then --math, --set, and --steps and --seed: the later the stronger.
RunSettings settings_for(const TrainOptions& options, const Dataset& data, std::uint64_t seed) {
  RunSettings settings;
  settings.trainer = make_preset(options.preset, data, seed, {.width = options.width});
  // The contexts of this program are fp32: what a run records says so.
  settings.trainer.energy.math = settings.trainer.generator.math = {MathMode::fp32, MathMode::fp32};
  std::string json = to_json(settings);
  if (!options.config.empty()) {
    try {
      json = with_overlay(json, text_of_file(options.config));
      run_settings_from_json(json);
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(path_in_quotes(options.config) + ": " + error.what());
    }
  }
  if (!options.math.empty())
    for (const char* const setting : kMathSettings) json = with_override(json, setting + ("=" + options.math));
  for (const std::string& setting : options.settings) json = with_override(json, setting);
  settings = run_settings_from_json(json);
  if (options.steps) settings.trainer.total_steps = *options.steps;
  if (options.seed) settings.trainer.seed = *options.seed;
  if (!options.entropy.empty() && options.entropy != "auto")
    settings.trainer.entropy.estimator = entropy_estimator_from_name(options.entropy);
  return settings;
}

// A preset measures the data with the run's seed, which a file or --set may name.
RunSettings settings_for(const TrainOptions& options, const Dataset& data) {
  const std::uint64_t guess = options.seed.value_or(0);
  RunSettings settings = settings_for(options, data, guess);
  if (settings.trainer.seed != guess) settings = settings_for(options, data, settings.trainer.seed);
  return settings;
}

Device chosen_device(const std::string& text) {
  const Device device = Device::parse(text);
  std::string reason;
  if (text == "auto" && device.kind == DeviceKind::cpu) {
    cuda_device_count(&reason);
    announce("device auto: cpu (" + reason + ")\n");
  }
  return device;
}

// Before the first step: what the run will take, how it multiplies, and what its bounds are worth.
void announce_plan(const Trainer& trainer, const Device& device) {
  if (math_text(trainer.config()) != math_mode_name(MathMode::fp32))
    announce("math: " + math_text(trainer.config()) + "\n");
  if (math_is_idle(trainer.config(), device))
    warn("math modes have no effect on a CPU and in f64: products are in the precision of their operands");

  const MemoryPlan& plan = trainer.memory_plan();
  announce("memory planned, in whole blocks: " + byte_count(plan.reserved) + ": step " + byte_count(plan.step) +
           ", state " + byte_count(plan.state) + (plan.data > 0 ? ", data " + byte_count(plan.data) : "") + "\n");
  const Network& generator = trainer.generator_network();
  if (generator.output_size() > generator.input_size())
    announce("lower bounds: on the generator's " + std::to_string(generator.input_size()) +
             "-dimensional image alone, not comparable with the likelihood of the data\n");
  if (!generator.injective_by_construction())
    announce(
        "lower bounds: the generator is not certified injective, so they need not hold; bracket eval and audit look at "
        "it\n");
  const EntropyEstimator estimator = trainer.config().entropy.estimator;
  if (entropy_certificate(estimator) == std::string("optimistic"))
    warn(std::string("entropy estimator ") + entropy_estimator_name(estimator) +
         " is optimistic: it over-estimates d log s_1, so the lower bound in progress and reports need not hold");
}

Context make_context(const Device& device, const TrainOptions& options) {
  ContextOptions context_options;
  context_options.device = device;
  context_options.threads = options.threads;
  context_options.graphs = !options.no_graphs;
  context_options.one_kernel = options.one_kernel;
  return Context(context_options);
}

std::string file_named_absolutely(const std::string& data) {
  if (!is_data_file(data)) return data;
  std::error_code error;
  return fs::absolute(data, error).lexically_normal().string();
}

RunSession session_on(const Device& device, const std::vector<std::string>& command) {
  return {version(), revision(), device.name(), device_description(device), command};
}

// One attempt: to the end, a stop, or Diverged.
int train_on(Run& run, Trainer& trainer, const Dataset& data, const TrainOptions& options) {
  const std::int64_t total_steps = trainer.config().total_steps;
  const std::int64_t first_step = trainer.step();
  const std::int64_t last_step = options.stop_after.value_or(total_steps);
  ProgressDisplay display(first_step);
  RunObserver observer;
  observer.stop_requested = [] { return stop_signal() != 0; };
  observer.progress = [&](const RunProgress& progress) { display.update(progress); };
  try {
    run.train(trainer, data, last_step, observer);
  } catch (...) {
    display.close();
    throw;
  }
  display.close();
  const std::string folder = run.folder().string(), word = shell_word(folder);
  const std::int64_t step = trainer.step();
  if (step < total_steps) {
    const int signal = stop_signal();
    const std::string cause = signal != 0 ? std::string("stopped by ") + name_of_signal(signal) : "stopped";
    announce(cause + " after step " + std::to_string(step) + " of " + std::to_string(total_steps) +
             "; resume with: bracket train --resume " + word + "\n");
    return signal != 0 ? exit_code_of(signal) : 0;
  }
  std::error_code error;
  if (data.cols() == 2 && !fs::exists(picture_path(run.folder(), "density", step), error)) {
    warn("no density picture of step " + std::to_string(step) + " could be drawn; bracket density " + word +
         " -o FILE.png says why");
  }
  announce("run complete: " + std::to_string(step) + " steps in " + folder + "; next: bracket eval " + word + "\n");
  return 0;
}

// With --on-divergence rollback as many attempts as it takes, up to kMostRollbacks more.
int train_to_the_end(Run& run, std::unique_ptr<Trainer> trainer, const Dataset& data, const TrainOptions& options,
                     const RunSession& session) {
  Context& context = trainer->context();
  for (int rollbacks = 0;; ++rollbacks) {
    TrainerConfig config;
    try {
      return train_on(run, *trainer, data, options);
    } catch (const Diverged& problem) {
      if (options.on_divergence != "rollback") throw;
      if (rollbacks == kMostRollbacks)
        throw Diverged("after " + std::to_string(rollbacks) + " rollbacks: " + problem.what(), problem.tensor(),
                       problem.step());
      warn(problem.what());
      config = run.roll_back(problem);
    }
    trainer.reset();  // its memory serves the next one
    trainer = std::make_unique<Trainer>(context, config, data);
    warn_about(run.resume(*trainer, data, session));
    announce("rolled back to step " + std::to_string(trainer->step()) + "; seed " + std::to_string(config.seed) +
             ", learning rates " + format_number(config.energy.optimizer.lr) + " (energy) and " +
             format_number(config.generator.optimizer.lr) + " (generator)\n");
  }
}

void choose_estimator(Context& context, TrainerConfig& config, const TrainOptions& options) {
  EntropyRequest request{.least = config.dtype, .seed = config.seed, .math = config.generator.math};
  if (options.entropy_error) request.target = *options.entropy_error;
  const EntropyChoice choice = choose_entropy(context, config.generator.network, request);
  announce(summary(choice));
  config.entropy.estimator = choice.chosen.config.estimator;
  config.entropy.iterations = choice.chosen.config.iterations;
  config.dtype = choice.chosen.dtype;
}

Dataset open_data(const TrainOptions& options) {
  DatasetOptions data_options;
  data_options.data_dir = data_folder(options.data_dir);
  data_options.seed = options.seed.value_or(0);
  return Dataset::open(file_named_absolutely(options.data), data_options);
}

int train_new(const TrainOptions& options) {
  if (options.entropy_error && options.entropy != "auto")
    throw InvalidArgument("--entropy-error is for --entropy auto");
  if (options.entropy_error && !(*options.entropy_error > 0))
    throw InvalidArgument("--entropy-error " + format_number(*options.entropy_error) + " must be positive");
  if (options.data.empty()) throw InvalidArgument("a new run needs data; give --data NAME or --data FILE");
  if (options.print_config) {
    print(to_json(settings_for(options, open_data(options))) + "\n");
    return 0;
  }
  const Run::Existing existing = options.force ? Run::Existing::replace : Run::Existing::refuse;
  Run::require_creatable(options.out, existing);
  const Dataset data = open_data(options);
  RunSettings settings = settings_for(options, data);
  const Device device = chosen_device(options.device.empty() ? "auto" : options.device);
  Context context = make_context(device, options);
  if (options.entropy == "auto") choose_estimator(context, settings.trainer, options);
  auto trainer = std::make_unique<Trainer>(context, settings.trainer, data);
  const RunSession session = session_on(device, options.command);
  Run run = Run::create(options.out, options.preset, settings, data, session, existing);
  announce("training " + options.preset + " on " + options.data + " (" + device.name() + ", seed " +
           std::to_string(settings.trainer.seed) + ") into " + options.out + "\n");
  announce_plan(*trainer, device);
  return train_to_the_end(run, std::move(trainer), data, options, session);
}

int resume(const TrainOptions& options) {
  Run run = Run::open(options.resume);
  const Dataset data = open_run_data(run.description(), "", options.data_dir);
  TrainerConfig config = run.description().settings.trainer;
  if (options.steps) config.total_steps = *options.steps;
  const Device device = chosen_device(options.device.empty() ? run.description().created.device : options.device);
  Context context = make_context(device, options);
  auto trainer = std::make_unique<Trainer>(context, config, data);
  const RunSession session = session_on(device, options.command);
  warn_about(run.resume(*trainer, data, session));
  announce("resuming " + options.resume + " after step " + std::to_string(trainer->step()) + " of " +
           std::to_string(config.total_steps) + " (" + device.name() + ")\n");
  announce_plan(*trainer, device);
  return train_to_the_end(run, std::move(trainer), data, options, session);
}

int train(const TrainOptions& options) {
  install_stop_signals();
  if (options.resume.empty() && options.out.empty() && !options.print_config) {
    throw InvalidArgument("train needs --out RUN for a new run, or --resume RUN");
  }
  return options.resume.empty() ? train_new(options) : resume(options);
}

}  // namespace

void add_train(CLI::App& program, Action& action, const std::vector<std::string>& command_line) {
  auto options = std::make_shared<TrainOptions>();
  options->command = command_line;
  CLI::App* command = program.add_subcommand("train", "Train a new run, or resume one");
  std::vector<CLI::Option*> of_new_runs;
  const auto only_new = [&](CLI::Option* option) {
    of_new_runs.push_back(option);
    return option;
  };
  std::string presets;
  for (const std::string& name : preset_names()) presets += (presets.empty() ? "" : ", ") + name;
  std::string data_names;
  for (const std::string& name : Dataset::names()) data_names += (data_names.empty() ? "" : ", ") + name;
  std::string mixture_names;
  for (const std::string& name : Dataset::mixture_names()) mixture_names += (mixture_names.empty() ? "" : ", ") + name;
  std::string image_names;
  for (const std::string& name : Dataset::image_names()) image_names += (image_names.empty() ? "" : ", ") + name;
  only_new(command->add_option("--preset", options->preset, "Start of the settings: " + presets))
      ->capture_default_str();
  only_new(command->add_option("--width", options->width,
                               "Presets for images: factor on the channels of hidden layers, e.g. 0.25 on a CPU"))
      ->capture_default_str();
  only_new(command->add_option("--data", options->data,
                               "A density (" + data_names + "); a mixture of 16 Gaussians (" + mixture_names +
                                   "); a .npy or .csv file of shape (N, D); an image set (" + image_names +
                                   "), or a folder or file of images: IDX, CIFAR .bin, PNG, JPEG, .npy or .npz of "
                                   "unsigned bytes"));
  add_data_dir(*command, options->data_dir);
  only_new(command->add_option("--out", options->out, "Folder of the new run"));
  only_new(command->add_option("--config", options->config,
                               "JSON file with settings that differ from the preset's (keys as in a run's config.json, "
                               "object \"config\")"));
  only_new(command->add_option("--set", options->settings,
                               "One setting, e.g. energy.lr=1e-3 or log_every=10; may be repeated"))
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  only_new(command->add_flag("--print-config", options->print_config,
                             "Print every setting as JSON, with the names that --set and --config take, and stop"));
  only_new(command->add_option("--math", options->math,
                               "How f32 networks multiply on a GPU: fp32, or on its tensor cores tf32x3, tf32 or bf16; "
                               "without effect on a CPU. One mode for all passes: for some, --set energy.math=, "
                               "energy.jacobian_math=, generator.math= or generator.jacobian_math="))
      ->check(not_empty());
  only_new(command->add_option("--entropy", options->entropy,
                               "Estimator of the generator's log-volume: exact, min_singular, lobpcg, triangular, or "
                               "auto: the "
                               "cheapest one, and precision, that keeps --entropy-error where training starts"));
  only_new(command->add_option("--entropy-error", options->entropy_error,
                               "Nats by which --entropy auto may miss the exact log-volume; default 0.01"));
  only_new(command->add_option("--seed", options->seed, "Seed of everything random; default 0"))
      ->check(whole_number(0, kLargestSeed));
  only_new(command->add_flag("--force", options->force, "Replace a run that exists in --out"));
  const CLI::Option* resume = command->add_option(
      "--resume", options->resume, "Go on with a run from its newest valid checkpoint, with its settings");
  const CLI::Validator steps = whole_number(0, kMostSteps);
  command
      ->add_option(
          "--steps", options->steps,
          "Steps of the whole run, which the schedule spans; on --resume a changed total is recorded, and ends "
          "bit-identity unless the schedule is constant")
      ->check(steps);
  command->add_option("--stop-after", options->stop_after, "Stop, with a checkpoint, once this many steps are done")
      ->check(steps);
  command
      ->add_option("--device", options->device,
                   "cpu, cuda, cuda:N or auto (a usable GPU, else the CPU); default: auto, on --resume as before")
      ->check(not_empty());
  command->add_option("--threads", options->threads, "CPU threads; 0: one per processor. Changes no result")
      ->check(whole_number(0, kMostThreads))
      ->capture_default_str();
  command
      ->add_option(
          "--on-divergence", options->on_divergence,
          "Where a value becomes non-finite: stop, or rollback to the newest checkpoint with the next seed and "
          "half the learning rates, " +
              std::to_string(kMostRollbacks) + " times at most")
      ->check(CLI::IsMember({"stop", "rollback"}))
      ->capture_default_str();
  CLI::Option* const no_graphs =
      command->add_flag("--no-graphs", options->no_graphs,
                        "On a GPU: launch every kernel by itself, as profilers want it, instead of replaying the step "
                        "as one CUDA graph. Changes no result");
  command
      ->add_flag("--one-kernel", options->one_kernel,
                 "On a GPU: replay many steps of two small dense networks as one kernel of one block, which saves the "
                 "time between kernels; any other step is a graph. The same arithmetic in the same order")
      ->excludes(no_graphs);
  command->callback([=, &action] {
    for (const CLI::Option* option : of_new_runs) {
      if (resume->count() == 0 || option->count() == 0) continue;
      throw InvalidArgument(
          option->get_name() +
          " is for new runs: --resume goes on with the settings of the run, and takes only --steps, "
          "--stop-after, --data-dir, --device, --threads, --on-divergence, --no-graphs and --one-kernel");
    }
    action = [options] { return train(*options); };
  });
}

}  // namespace bracket
