// The safetensors file format: named tensors that PyTorch, JAX and NumPy load, and nothing that executes.
//
// Layout: u64 little-endian header length n <= 100,000,000; n bytes of JSON starting with '{', padded with spaces so
// that the buffer begins at a multiple of 8; the buffer. The JSON maps each name to
// {"dtype", "shape", "data_offsets": [begin, end)} with offsets into the buffer, and "__metadata__" to strings.
// The tensors cover the buffer without hole or overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/files/posix_file.h"

namespace bracket {

/// Element types that Bracket stores.
enum class StoredType { f32, f64, i64, u64, u8 };

/// The format's name of a type: "F32", "F64", "I64", "U64", "U8".
std::string_view stored_type_name(StoredType type);
std::int64_t stored_type_bytes(StoredType type);

/// Row-major (C order) elements, each little-endian. A shape without dimensions is one scalar.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
};

struct SafetensorsFile {
  std::vector<StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Bytes of a file holding the tensors ordered by falling element size, then by name. Equal content gives equal bytes.
/// Throws InvalidArgument: a name twice, or "__metadata__", or not UTF-8; a shape that does not match its bytes; a
/// header above the format's limit.
std::vector<std::byte> serialize_safetensors(const SafetensorsFile& file);

/// The tensors in the order of the buffer. Accepts any bytes; throws CheckpointError with `file_name` and the reason
/// for everything that is not a valid file of the types above.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& file_name);

/// Throws DataError when the file cannot be read, CheckpointError when it is damaged.
SafetensorsFile read_safetensors(const std::filesystem::path& path, FileCalls& calls = FileCalls::kernel());

}  // namespace bracket
