// A trained run, brought back for the commands that only look at it.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "bracket/dataset.h"
#include "bracket/device.h"
#include "bracket/run.h"
#include "bracket/trainer.h"

namespace bracket {

/// The options that those commands share.
struct ModelOptions {
  std::string path;  ///< a run folder, or one of its checkpoints
  std::string weights = "ema";
  std::string device = "auto";
  std::string data;      ///< where the run's data is now; empty: where it was
  std::string data_dir;  ///< the same for the folder of named image sets
  int threads = 0;

  Weights chosen_weights() const { return weights == "raw" ? Weights::raw : Weights::average; }
};

enum class DataUse { none, required };

void add_model_options(CLI::App& command, ModelOptions& options, DataUse use);

struct Model {
  RunDescription description;
  std::filesystem::path checkpoint;
  std::unique_ptr<Context> context;
  Dataset data;  ///< without DataUse::required: one row of zeros, or one black image, of the right size
  std::unique_ptr<Trainer> trainer;
};

/// Newest valid checkpoint of a run, or the one given. Damaged newer ones are named on standard error.
Model load_model(const ModelOptions& options, DataUse use);

/// "bracket: warning: ..." on standard error, one line each.
void warn_about(const std::vector<RefusedCheckpoint>& refused);

}  // namespace bracket
