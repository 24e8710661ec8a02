// Data sets: named 2-D densities sampled afresh, or tables of rows from memory or files.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bracket {

/// Location, scale and extent of a data set, measured on up to 100,000 rows.
struct DataStatistics {
  std::vector<double> mean;
  std::vector<double> deviation;   ///< per column; 1 where a column is constant
  double standardised_radius = 0;  ///< largest |u|, u = (x - mean) / deviation
};

/// Rows of real numbers, or a named density with an unlimited supply of them. Copyable value.
class Dataset {
 public:
  /// "25gaussians", "8gaussians", "swiss_roll", "swiss_roll_thin", "two_moons", "rings", "circles", "pinwheel",
  /// "checkerboard", "two_spirals"; or, with a slash or ending in .npy or .csv, a file of shape (N, D).
  /// Throws InvalidArgument for an unknown name (with the nearest) and DataError for a bad or absent file.
  static Dataset open(const std::string& name_or_path);
  /// Rows of the caller, copied. Throws DataError for no rows or a non-finite value (row and column named).
  static Dataset from_rows(std::span<const double> values, std::int64_t rows, std::int64_t cols);
  static const std::vector<std::string>& names();

  const std::string& name() const noexcept { return name_; }  ///< as given to `open`; "rows" for from_rows
  bool is_density() const noexcept { return toy_.has_value(); }
  std::int64_t rows() const noexcept { return rows_; }  ///< 0 for a density
  std::int64_t cols() const noexcept { return cols_; }
  std::span<const double> values() const noexcept { return values_; }
  /// Index of the density in the order of names().
  int density_index() const { return toy_.value(); }
  /// `count` rows: fresh samples of (seed, stream `evaluation`), or rows of the table in a shuffled order.
  std::vector<double> sample(std::int64_t count, std::uint64_t seed) const;
  DataStatistics statistics(std::uint64_t seed) const;

 private:
  std::string name_;
  std::optional<int> toy_;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::vector<double> values_;
};

}  // namespace bracket
