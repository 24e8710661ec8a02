// NumPy's .npy format: versions 1.0, 2.0 and 3.0 read, 1.0 written. Rows of numbers, image sets and labels.
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

/// Whether a .npy file holds unsigned bytes, the type of image sets. Throws DataError for a damaged signature or
/// header.
bool is_npy_of_bytes(std::span<const std::byte> bytes, const std::string& file_name);

/// An array of unsigned bytes in C order.
struct NpyBytes {
  std::vector<std::int64_t> shape;
  std::span<const std::byte> values;  ///< of the bytes that were parsed
};
NpyBytes parse_npy_bytes(std::span<const std::byte> bytes, const std::string& file_name);

/// An array of rank 1 of integers of any width and byte order, for labels. Throws DataError for one of 2^63 or more.
std::vector<std::int64_t> parse_npy_integers(std::span<const std::byte> bytes, const std::string& file_name);

/// Bytes of a little-endian C-order array of rank 1 or 2. Values may be anything, NaN included.
/// Throws InvalidArgument when the shape is not of rank 1 or 2 or does not have values.size() elements.
std::vector<std::byte> serialize_npy(std::span<const float> values, std::span<const std::int64_t> shape);
std::vector<std::byte> serialize_npy(std::span<const double> values, std::span<const std::int64_t> shape);
/// The same for unsigned bytes of rank 1 to 4.
std::vector<std::byte> serialize_npy(std::span<const std::uint8_t> values, std::span<const std::int64_t> shape);

}  // namespace bracket
