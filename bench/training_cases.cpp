// One training iteration (an energy and a generator update, with everything around them) of each preset, on a GPU in
// every math mode; of a small pair also as one kernel of one block. Counters: milliseconds of its parts, which are
// launched and waited for one by one and so take longer together than the iteration, whose launches are one graph.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "bench/checked_trainer.h"
#include "bench/op_case.h"
#include "bracket/preset.h"
#include "bracket/trainer.h"

namespace bracket::bench {
namespace {

struct TrainingCase {
  const char* preset;
  const char* data;            ///< name of a data set; null: rows or images of random numbers
  std::int64_t side = 0;       ///< of images of three channels; 0: normal rows of the shape of the 8 x 8 digits
  std::int64_t cpu_batch = 0;  ///< 0: the preset's, as on a GPU
  const char* variant = "";    ///< data, or which saving is off
  NetworkExecution execution = {};
  /// Not for the paper's recipes: their J has singular values below its rounding, and a figure of toy-a's first step
  /// was off by 0.995 of 1 + its size (on the SIMT executor).
  bool bf16 = true;
  bool exact = false;  ///< log-volume from the Jacobian instead of layer by layer
  /// On a GPU, in fp32: of so many samples, as a graph and as one kernel.
  std::int64_t small_batch = 0;
  bool one_kernel = false;
};
constexpr std::array kCases = {
    TrainingCase{.preset = "toy-a", .data = "25gaussians", .bf16 = false},
    TrainingCase{.preset = "toy-b", .data = "25gaussians", .bf16 = false},
    TrainingCase{.preset = "calibrated-2d", .data = "25gaussians"},
    TrainingCase{.preset = "calibrated", .data = "mixture-8", .variant = "/mixture-8"},
    TrainingCase{.preset = "calibrated", .data = "mixture-8", .variant = "/mixture-8/exact", .exact = true},
    TrainingCase{.preset = "calibrated", .data = "mixture-32", .variant = "/mixture-32"},
    TrainingCase{.preset = "calibrated", .data = "mixture-32", .variant = "/mixture-32/exact", .exact = true},
    TrainingCase{.preset = "calibrated", .data = "mixture-64", .variant = "/mixture-64"},
    TrainingCase{.preset = "vectors", .data = nullptr},
    TrainingCase{"cifar10-ii", nullptr, 32, 8},
    TrainingCase{"cifar10-ii", nullptr, 32, 8, "/without_norm", {.fold_batch_norm = false}},
    TrainingCase{"faces-64", nullptr, 64, 2},
    TrainingCase{"faces-64", nullptr, 64, 2, "/without_resampling", {.merge_resampling = false}},
    TrainingCase{"faces-64", nullptr, 64, 2, "/without_norm", {.fold_batch_norm = false}},
};
/// A graph has all multiprocessors at work and waits between kernels, one block neither: which is quicker depends on
/// the batch.
constexpr std::array kSmallBatches = {8, 32, 200};
constexpr std::uint64_t kSeed = 0;

constexpr int kStepsPerEventPair = 10;
constexpr int kProgramSteps = 64;  // as many as a trainer's one kernel plays per launch
constexpr int kReplayedSteps = 3;  // that are compared with launches
constexpr int kWarmUpSteps = 100;
constexpr int kImageWarmUpSteps = 2;
constexpr int kPhaseSteps = 5;

Dataset dataset_of(const TrainingCase& training) {
  if (training.data != nullptr) return Dataset::open(training.data);
  std::mt19937_64 engine(7);
  if (training.side > 0) {
    constexpr std::int64_t kImages = 256;
    const ImageShape shape{3, training.side, training.side};
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(kImages * shape.size()));
    for (std::uint8_t& pixel : pixels) pixel = static_cast<std::uint8_t>(engine() >> 56);
    return Dataset::from_images(pixels, shape, kImages);
  }
  constexpr std::int64_t rows = 1797, cols = 64;
  std::normal_distribution<double> distribution;
  std::vector<double> values(static_cast<std::size_t>(rows * cols));
  for (double& value : values) value = static_cast<double>(static_cast<float>(distribution(engine)));
  return Dataset::from_rows(values, rows, cols);
}

/// The step that is compared with double precision is one of the batch that is timed: a smaller batch may take passes
/// of another form. In double it is computed once for each preset and batch.
CheckedTrainer prepare(const TrainingCase& training, MathMode math, Context& context) {
  static std::map<std::pair<std::string, std::int64_t>, StepRecord> steps;
  const Dataset data = dataset_of(training);
  TrainerConfig config = make_preset(training.preset, data, kSeed);
  config.energy.execution = config.generator.execution = training.execution;
  config.energy.math = config.generator.math = {math, math};
  if (training.exact) config.entropy.estimator = EntropyEstimator::exact;
  if (training.cpu_batch > 0 && context.device().kind == DeviceKind::cpu) config.batch_size = training.cpu_batch;
  if (training.small_batch > 0) config.batch_size = training.small_batch;
  const auto key = std::pair(std::string(training.preset) + (training.data ? training.data : ""), config.batch_size);
  if (steps.count(key) == 0) steps.emplace(key, first_step_in_double(config, data));
  CheckedTrainer checked = checked_trainer(context, config, data, &steps.at(key));
  if (context.graphs() && context.device().kind == DeviceKind::cuda) {  // the step that is timed is a recorded one
    ContextOptions options;
    options.device = context.device();
    options.graphs = false;
    Context launching(options);
    checked.error = std::max(checked.error, replay_error(*checked.trainer, launching, data, kReplayedSteps));
  }
  checked.trainer->run(training.side > 0 ? kImageWarmUpSteps : kWarmUpSteps);
  checked.trainer->reports();
  return checked;
}

/// A trainer with the context it needs where that is not the device's.
struct KeptTrainer {
  std::unique_ptr<Context> context;
  CheckedTrainer checked;
};

std::shared_ptr<KeptTrainer> make_kept(const TrainingCase& training, MathMode math, BenchDevice& device) {
  auto kept = std::make_shared<KeptTrainer>();
  if (training.one_kernel) {
    ContextOptions options;
    options.device = device.context->device();
    options.stream = device.stopwatch->stream();
    options.one_kernel = true;
    kept->context = std::make_unique<Context>(options);
  }
  kept->checked = prepare(training, math, kept->context ? *kept->context : *device.context);
  return kept;
}

void run_case(benchmark::State& state, const TrainingCase& training, MathMode math, BenchDevice& device,
              std::shared_ptr<KeptTrainer>& owner) {
  if (!owner) owner = make_kept(training, math, device);
  CheckedTrainer* const kept = &owner->checked;
  const double allowed = allowed_first_step_error(math);
  if (!(kept->error <= allowed)) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "wrong first steps: error %.3g, allowed %.3g", kept->error, allowed);
    report_failure(std::string(training.preset) + " on " + device.name + ": " + text.data());
    state.SkipWithError(text.data());
    return;
  }
  Trainer& trainer = *kept->trainer;
  if (training.one_kernel && trainer.step_form() != StepForm::one_kernel) {
    const char* const text = "this step does not become one kernel";
    report_failure(std::string(training.preset) + " on " + device.name + ": " + text);
    state.SkipWithError(text);
    return;
  }
  if (device.stopwatch) {
    const int steps = training.small_batch > 0 ? kProgramSteps : kStepsPerEventPair;
    while (state.KeepRunningBatch(steps)) {
      state.SetIterationTime(device.stopwatch->seconds([&] { trainer.run(steps); }));
    }
  } else {
    for ([[maybe_unused]] auto _ : state) trainer.run(1);
  }
  trainer.reports();  // throws Diverged: a time of steps that did nothing is no time
  state.counters["error"] = kept->error;
  for (const PhaseTime& phase : trainer.time_phases(kPhaseSteps))
    state.counters[phase.name + " ms"] = phase.milliseconds;
  state.counters["batch"] = static_cast<double>(trainer.config().batch_size);
  state.counters["arena_KiB"] = static_cast<double>(trainer.memory_plan().step) / 1024;
}

void register_case(const TrainingCase& training, MathMode math, BenchDevice& device, const std::string& name) {
  auto kept = std::make_shared<std::shared_ptr<KeptTrainer>>();
  auto* const bench =
      benchmark::RegisterBenchmark(name.c_str(), [training, math, &device, kept](benchmark::State& state) {
        try {
          run_case(state, training, math, device, *kept);
        } catch (const std::exception& error) {
          report_failure(std::string(training.preset) + " on " + device.name + ": " + error.what());
          state.SkipWithError(error.what());
        }
      });
  bench->Unit(benchmark::kMicrosecond);
  if (device.gpu)
    bench->UseManualTime();
  else
    bench->MeasureProcessCPUTime()->UseRealTime();
}

}  // namespace

void register_training_cases(std::vector<BenchDevice>& devices) {
  for (const TrainingCase& training : kCases) {
    for (BenchDevice& device : devices) {
      for (const MathMode math : {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
        if (math != MathMode::fp32 && !device.gpu) continue;
        if (math == MathMode::bf16 && !training.bf16) continue;
        const std::string precision = math == MathMode::fp32 ? "f32" : math_mode_name(math);
        register_case(training, math, device,
                      std::string("training_iteration/") + training.preset + training.variant + "/" + precision + "/" +
                          device.name);
      }
    }
  }
  for (BenchDevice& device : devices) {
    if (!device.gpu) continue;
    for (const std::int64_t batch : kSmallBatches) {
      for (const bool one_kernel : {false, true}) {
        TrainingCase training{.preset = "toy-a", .data = "25gaussians"};
        training.small_batch = batch;
        training.one_kernel = one_kernel;
        register_case(training, MathMode::fp32, device,
                      "training_iteration/toy-a/batch_" + std::to_string(batch) +
                          (one_kernel ? "/one_kernel/f32/" : "/graph/f32/") + device.name);
      }
    }
  }
}

}  // namespace bracket::bench
