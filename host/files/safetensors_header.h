// The JSON header of a safetensors file as untrusted input.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "host/files/safetensors.h"

namespace bracket {

inline constexpr std::string_view kSafetensorsMetadataKey = "__metadata__";
inline constexpr std::uint64_t kSafetensorsMaxHeaderBytes = 100'000'000;

struct SafetensorsHeader {
  struct Entry {
    std::string name;
    StoredType type = StoredType::f32;
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0;  ///< first byte in the buffer
    std::uint64_t end = 0;    ///< one past the last byte
  };
  std::vector<Entry> entries;  ///< in the order of the JSON text
  std::map<std::string, std::string> metadata;
};

/// Throws CheckpointError: the file name, the reason and the remedy.
[[noreturn]] void throw_bad_safetensors(const std::string& file_name, const std::string& reason);

/// Reads exactly this grammar: an object of tensor entries and at most one "__metadata__" object of strings, no key
/// twice, no key missing, none unknown, integers only. Nesting is bounded by the grammar. Offsets are not judged.
/// Throws CheckpointError with `file_name` and the reason.
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file_name);

}  // namespace bracket
