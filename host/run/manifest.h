// manifest.json of a checkpoint: the size and SHA-256 of every other file in it.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "host/files/posix_file.h"

namespace bracket {

inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kStateName = "state.json";
inline constexpr const char* kEnergyName = "energy.safetensors";
inline constexpr const char* kGeneratorName = "generator.safetensors";
inline constexpr const char* kEnergyAverageName = "energy_ema.safetensors";
inline constexpr const char* kGeneratorAverageName = "generator_ema.safetensors";
inline constexpr const char* kOptimizerName = "optimizer.safetensors";

/// The files that a manifest lists, in its order.
inline constexpr std::array<const char*, 6> kCheckpointFiles = {
    kEnergyName, kGeneratorName, kEnergyAverageName, kGeneratorAverageName, kOptimizerName, kStateName};

/// File content by name, one entry per element of kCheckpointFiles.
using CheckpointBytes = std::map<std::string, std::vector<std::byte>>;

std::string manifest_text(const CheckpointBytes& files);

/// Reads the manifest of `folder` and every file it lists, each verified before anything interprets it. The manifest
/// has one valid spelling only, so that a change of any byte of any file is found. Throws CheckpointError naming file
/// and reason, DataError when the system refuses to read.
CheckpointBytes read_verified_files(const std::filesystem::path& folder, FileCalls& calls = FileCalls::kernel());

}  // namespace bracket
