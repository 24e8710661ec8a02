// NumPy's .npy format: versions 1.0, 2.0 and 3.0 read, 1.0 written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "host/files/table.h"

namespace bracket {

/// Reads float32 or float64 of either byte order, C or Fortran order, shape (N, D) or (N) (taken as N rows of one).
/// Accepts any bytes; throws DataError with `file_name` and the reason.
Table parse_npy(std::span<const std::byte> bytes, const std::string& file_name);
Table read_npy(const std::filesystem::path& path);

/// Bytes of a little-endian C-order array of rank 1 or 2. Values may be anything, NaN included.
/// Throws InvalidArgument when the shape is not of rank 1 or 2 or does not have values.size() elements.
std::vector<std::byte> serialize_npy(std::span<const float> values, std::span<const std::int64_t> shape);
std::vector<std::byte> serialize_npy(std::span<const double> values, std::span<const std::int64_t> shape);

}  // namespace bracket
