// Writing and rotating checkpoint folders, with the system calls as a seam for tests.
#pragma once

#include <cstdint>
#include <filesystem>

#include "bracket/checkpoint.h"
#include "host/files/posix_file.h"

namespace bracket {

/// save_checkpoint for a snapshot that is already on the host.
void write_checkpoint(const std::filesystem::path& folder, const TrainerSnapshot& snapshot, const TrainerConfig& config,
                      FileCalls& calls = FileCalls::kernel());

/// Removes what a run at `step`, whose checkpoint is valid, no longer needs: all but the `keep` newest up to `step`,
/// and those above it, which are damaged or belong to a course that was given up.
void rotate_checkpoints(const std::filesystem::path& parent, std::int64_t step, std::int64_t keep,
                        FileCalls& calls = FileCalls::kernel());

}  // namespace bracket
