// Checkpoints: folders that hold everything a trainer needs to go on with the same bits.
//
// FOLDER/energy.safetensors, generator.safetensors          weights and buffers under PyTorch's names
//        energy_ema.safetensors, generator_ema.safetensors  the averaged ones
//        optimizer.safetensors                              Adam's moments
//        state.json                                         counters, controller state and the configuration
//        manifest.json                                      size and SHA-256 of the six files above
// Equal training states give equal bytes. BatchNorm layers have "num_batches_tracked" (I64) as PyTorch's do; it follows
// from the update counts and is ignored when a checkpoint is read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "bracket/trainer.h"

namespace bracket {

/// Writes a checkpoint that is there completely or not at all, even after a power cut: all files, forced to the disk,
/// in a temporary folder beside `folder`, which is renamed last. A checkpoint that already stands there is replaced (a
/// crash between removing it and the renaming loses it, so give every step a folder of its own); missing parents are
/// made. Waits for the device. Throws Diverged when a tensor holds a non-finite value (nothing is written), DataError
/// when the disk refuses or `folder` holds anything but a checkpoint.
void save_checkpoint(const std::filesystem::path& folder, Trainer& trainer);

struct Checkpoint {
  TrainerSnapshot snapshot;
  TrainerConfig config;  ///< of the trainer that was saved
};

/// Reads a checkpoint and verifies every byte of it. Throws CheckpointError naming file and reason when one is absent,
/// damaged or of another format version, DataError when the system refuses to read.
Checkpoint read_checkpoint(const std::filesystem::path& folder);

/// Puts a checkpoint into a trainer. Throws CheckpointError, naming the differing keys, when the trainer has other
/// networks or another precision than the one that was saved.
void restore_checkpoint(Trainer& trainer, const Checkpoint& checkpoint);

/// PARENT/step_00012345.
std::filesystem::path checkpoint_folder(const std::filesystem::path& parent, std::int64_t step);

struct CheckpointEntry {
  std::filesystem::path folder;
  std::int64_t step = 0;
};

/// Folders named like checkpoints, newest first, valid or not; none when `parent` is absent.
std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& parent);

}  // namespace bracket
