#include "tools/program/model.h"

#include <system_error>
#include <utility>
#include <vector>

#include "bracket/error.h"
#include "host/files/in_quotes.h"
#include "host/run/manifest.h"
#include "tools/program/command_line.h"
#include "tools/program/data_options.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

struct Found {
  RunDescription description;
  Checkpoint checkpoint;
  fs::path folder;
};

Found find_checkpoint(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path / kManifestName, error)) {
    const fs::path run_folder = fs::absolute(path / "..").lexically_normal().parent_path().parent_path();
    return {read_run_description(run_folder), read_checkpoint(path), path};
  }
  RunDescription description = read_run_description(path);
  NewestCheckpoint newest = read_newest_checkpoint(path);
  warn_about(newest.refused);
  if (!newest.checkpoint) {
    throw CheckpointError("run " + path_in_quotes(path) +
                          " has no checkpoint yet; resume it with 'bracket train --resume'");
  }
  return {std::move(description), std::move(*newest.checkpoint), newest.folder};
}

Dataset placeholder(const RunDescription& run) {
  const auto cols = static_cast<std::size_t>(run.data_cols);
  if (run.image) return Dataset::from_images(std::vector<std::uint8_t>(cols), *run.image, 1);
  return Dataset::from_rows(std::vector<double>(cols), 1, run.data_cols);
}

}  // namespace

void warn_about(const std::vector<RefusedCheckpoint>& refused) {
  for (const RefusedCheckpoint& checkpoint : refused) {
    warn("damaged checkpoint passed over: " + checkpoint.reason);
  }
}

void add_model_options(CLI::App& command, ModelOptions& options, DataUse use) {
  command.add_option("run", options.path, "Run folder (its newest valid checkpoint) or checkpoint folder")->required();
  command.add_option("--weights", options.weights, "ema: averaged weights; raw: those of the last step")
      ->check(CLI::IsMember({"raw", "ema"}))
      ->capture_default_str();
  command.add_option("--device", options.device, "cpu, cuda, cuda:N or auto")
      ->check(not_empty())
      ->capture_default_str();
  command.add_option("--threads", options.threads, "CPU threads; 0: one per processor")
      ->check(whole_number(0, kMostThreads))
      ->capture_default_str();
  if (use == DataUse::required) {
    command.add_option("--data", options.data, "Where the run's data file is now; default: where it was in training");
    add_data_dir(command, options.data_dir);
  }
}

Model load_model(const ModelOptions& options, DataUse use) {
  Found found = find_checkpoint(options.path);
  Dataset data = use == DataUse::none ? placeholder(found.description)
                                      : open_run_data(found.description, options.data, options.data_dir);
  if (use == DataUse::required) require_same_data(found.description, data);
  ContextOptions context_options;
  context_options.device = Device::parse(options.device);
  context_options.threads = options.threads;
  auto context = std::make_unique<Context>(context_options);
  // However it was trained: what is said of a model should not hold the roundings of a tensor core.
  TrainerConfig& config = found.checkpoint.config;
  config.energy.math = config.generator.math = {MathMode::fp32, MathMode::fp32};
  auto trainer = std::make_unique<Trainer>(*context, config, data);
  restore_checkpoint(*trainer, found.checkpoint);
  return {std::move(found.description), std::move(found.folder), std::move(context), std::move(data),
          std::move(trainer)};
}

}  // namespace bracket
