// IDX, the format of MNIST: a magic number 0, 0, type, rank; the extents as big-endian 32-bit integers; the values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bracket {

struct IdxArray {
  std::vector<std::int64_t> shape;
  std::span<const std::byte> values;  ///< of the bytes that were parsed, row-major
};

/// Whether the bytes start as an IDX file of bytes with `rank` dimensions does.
bool is_idx(std::span<const std::byte> bytes, int rank) noexcept;

/// Unsigned bytes only, of the rank given. Accepts any bytes; throws DataError with `file_name` and the reason.
IdxArray parse_idx(std::span<const std::byte> bytes, int rank, const std::string& file_name);

}  // namespace bracket
