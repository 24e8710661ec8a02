// Whether a training run fits into memory, before anything of it is allocated.
#pragma once

#include "bracket/memory.h"
#include "bracket/trainer.h"

namespace bracket {

/// The plan of the run. Throws OutOfMemory when `pool` cannot hold it: with the numbers, and the largest batch size
/// whose plan would fit.
MemoryPlan require_memory(const MemoryPool& pool, const TrainerConfig& config, const Dataset& data);

}  // namespace bracket
