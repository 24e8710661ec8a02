// A trainer's snapshot as the bytes of a checkpoint's files, and back.
#pragma once

#include <filesystem>

#include "bracket/checkpoint.h"
#include "host/run/manifest.h"

namespace bracket {

/// Throws Diverged naming the tensor and the step when a value is not finite.
CheckpointBytes checkpoint_bytes(const TrainerSnapshot& snapshot, const TrainerConfig& config);

/// `folder` is for messages. Throws CheckpointError.
Checkpoint checkpoint_from_bytes(const CheckpointBytes& files, const std::filesystem::path& folder);

}  // namespace bracket
