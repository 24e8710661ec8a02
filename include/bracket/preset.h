// Named configurations.
#pragma once

#include <string>
#include <vector>

#include "bracket/trainer.h"

namespace bracket {

/// "calibrated-2d" (the default: likelihoods that are right in two dimensions), "toy-a", "toy-b" (the paper's settings
/// on 2-D data), "toy-zero-gp" (its baseline), "vectors" (MLP pair for rows of any dimension).
const std::vector<std::string>& preset_names();

/// The configuration of a preset for a data set: its dimension, and for presets that standardise, its measured location
/// and scale. Throws InvalidArgument for an unknown name (with the nearest) or a preset that cannot serve the
/// dimension.
TrainerConfig make_preset(const std::string& name, const Dataset& data, std::uint64_t seed);

/// Every field of a configuration as JSON; `trainer_config_from_json` is its inverse and rejects unknown keys.
std::string to_json(const TrainerConfig& config);
TrainerConfig trainer_config_from_json(const std::string& text);

}  // namespace bracket
