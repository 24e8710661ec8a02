// The math modes of a configuration, in words.
#pragma once

#include <string>

#include "bracket/device.h"
#include "bracket/trainer.h"

namespace bracket {

/// "fp32" where all passes share a mode; else every network's, passes before Jacobian: "energy tf32, generator tf32 and
/// fp32 for its Jacobian".
std::string math_text(const TrainerConfig& config);

/// Whether any pass asks for less than fp32 where that has no effect: on a CPU, and in f64.
bool math_is_idle(const TrainerConfig& config, const Device& device);

}  // namespace bracket
