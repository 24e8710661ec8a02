// Where the program finds image sets.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "bracket/run.h"

namespace bracket {

/// Adds --data-dir.
CLI::Option* add_data_dir(CLI::App& command, std::string& data_dir);

/// An option's value, or the environment's BRACKET_DATA_DIR; absolute. Empty where neither is given.
std::filesystem::path data_folder(const std::string& data_dir);

/// The data of a run: from `data` where that is given, else from where it was in training; named image sets from
/// `data_dir` where that is given, else from the folder of the training.
Dataset open_run_data(const RunDescription& run, const std::string& data, const std::string& data_dir);

}  // namespace bracket
