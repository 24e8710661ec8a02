// Named configurations.
#pragma once

#include <string>
#include <vector>

#include "bracket/trainer.h"

namespace bracket {

/// "calibrated-2d" (the default: likelihoods that are right in two dimensions), "calibrated" (its recipe for 2 to 128
/// columns, untuned beyond two), "toy-a", "toy-b" (the paper's settings
/// on 2-D data), "toy-zero-gp" (its baseline), "vectors" (MLP pair for rows of any dimension); for images "cifar10-i",
/// "cifar10-ii", "cifar10-iii" (32 x 32 pixels), "mnist", "fashion-mnist", "stacked-mnist" (28 x 28), "faces-64"
/// (64 x 64), of any number of channels, each with its baseline "<name>-zero-gp".
const std::vector<std::string>& preset_names();

struct PresetOptions {
  double width = 1;  ///< presets for images: factor on the channels of hidden layers
};

/// The configuration of a preset for a data set: its dimension, and for presets that standardise, its measured location
/// and scale; for images their channels, and where a recipe counts epochs their number. Throws InvalidArgument for an
/// unknown name (with the nearest), a preset that cannot serve the dimension or image size, or a width for a preset
/// without one.
TrainerConfig make_preset(const std::string& name, const Dataset& data, std::uint64_t seed,
                          const PresetOptions& options = {});

/// Every field of a configuration as JSON; `trainer_config_from_json` is its inverse and rejects unknown keys.
std::string to_json(const TrainerConfig& config);
TrainerConfig trainer_config_from_json(const std::string& text);

}  // namespace bracket
