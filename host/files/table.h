// A matrix of finite numbers read from a file that a user gives.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace bracket {

struct Table {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<double> values;  ///< row-major, rows * cols, all finite
};

/// Reads a .npy or .csv file, chosen by the ending of its name (upper or lower case). At least one row and column.
/// Throws DataError: absent, other ending, malformed, truncated, empty, wrong dtype or rank, NaN or infinity.
Table read_table(const std::filesystem::path& path);

}  // namespace bracket
