// Changes to a configuration before it is read: single values from the command line, and partial files.
#pragma once

#include <string>

namespace bracket {

/// The configuration with one value replaced: "energy.lr=1e-3", "penalty.rule=power", "energy.network.layers.0.features
/// = 64". The value is JSON; what is no JSON counts as a word. The path must exist, arrays are entered by index.
/// Throws InvalidArgument without '=', for an unknown path (with the nearest) or an index out of range. Types and
/// ranges are left to trainer_config_from_json.
std::string with_override(const std::string& config_json, const std::string& assignment);

/// The configuration with every value of `overlay_json` replaced: objects are merged, anything else takes the place
/// of what was there. Keys need not exist; trainer_config_from_json rejects those that it does not know.
std::string with_overlay(const std::string& config_json, const std::string& overlay_json);

}  // namespace bracket
