// Data sets: named 2-D densities sampled afresh, tables of rows from memory or files, sets of images.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bracket/image_shape.h"

namespace bracket {

struct ImageSet;

/// Location, scale and extent of a data set, measured on up to 100,000 rows.
struct DataStatistics {
  std::vector<double> mean;
  std::vector<double> deviation;   ///< per column; 1 where a column is constant
  double standardised_radius = 0;  ///< largest |u|, u = (x - mean) / deviation
};

enum class Split : std::uint8_t { train, test };

/// How image sets are found. Densities and tables of numbers have no use for it.
struct DatasetOptions {
  std::filesystem::path data_dir;  ///< where the folders of the named image sets lie
  Split split = Split::train;
  std::uint64_t seed = 0;  ///< stacked-mnist: which triples of digits
};

/// A pixel p, 0 to 255, is kPixelScale p + kPixelShift to a network: -1 to 1.
inline constexpr double kPixelScale = 2.0 / 255;
inline constexpr double kPixelShift = -1;

/// Rows of real numbers, a named density with an unlimited supply of them, or images. A value; copies share images.
class Dataset {
 public:
  /// A density: "25gaussians", "8gaussians", "swiss_roll", "swiss_roll_thin", "two_moons", "rings", "circles",
  /// "pinwheel", "checkerboard", "two_spirals".
  /// A table: "mixture-8", "mixture-32", "mixture-64", 50,000 rows of 8, 32 or 64 columns (10,000 others as the test
  /// split) of 16 round Gaussians, the same whenever and wherever it is opened.
  /// An image set of the data folder: "mnist", "fashion-mnist", "cifar10", "cifar100", "stacked-mnist" (128,000 triples
  /// of MNIST's training digits, or 26,000 of its test digits, as the channels of an image of class 100 a + 10 b + c).
  /// With a slash, or ending in .npy, .npz, .csv, .bin or .gz: a file or a folder.
  /// - .npy or .csv of shape (N, D): a table of numbers
  /// - .npy of unsigned bytes of shape (N, H, W) or (N, H, W, C): images; .npz: its array "x_train" or "x_test" by the
  ///   split, "images", "arr_0", or the only one of that kind; labels in "y_train" or "y_test", "labels"
  /// - an IDX file of images, with the labels of the like-named file beside it where there is one
  /// - a binary file of CIFAR-10 or CIFAR-100; each of these may be a .gz file
  /// - a folder of IDX files (train-images-..., t10k-images-...), of CIFAR batches, or of PNG and JPEG pictures, where
  ///   folders in it are classes, numbered in the order of their names, or the splits "train" and "test"
  /// Throws InvalidArgument for an unknown name (with the nearest) or no data folder, and DataError for a bad or absent
  /// file and for a split that is not there.
  static Dataset open(const std::string& name_or_path, const DatasetOptions& options = {});
  /// Rows of the caller, copied. Throws DataError for no rows or a non-finite value (row and column named).
  static Dataset from_rows(std::span<const double> values, std::int64_t rows, std::int64_t cols);
  /// Images of the caller, copied: `count` rows as ImageShape describes them, and no label or one for each, at least 0.
  /// Throws DataError for no image and InvalidArgument for sizes that do not agree or a negative label.
  static Dataset from_images(std::span<const std::uint8_t> pixels, const ImageShape& shape, std::int64_t count,
                             std::span<const std::int32_t> labels = {});
  static const std::vector<std::string>& names();  ///< of the densities
  static const std::vector<std::string>& mixture_names();
  static const std::vector<std::string>& image_names();  ///< of the image sets

  const std::string& name() const noexcept { return name_; }           ///< as given to `open`; else "rows" or "images"
  const DatasetOptions& options() const noexcept { return options_; }  ///< as given to `open`
  bool is_density() const noexcept { return toy_.has_value(); }
  bool is_images() const noexcept { return images_ != nullptr; }
  std::int64_t rows() const noexcept { return rows_; }  ///< 0 for a density
  std::int64_t cols() const noexcept { return cols_; }
  /// The values of a table, row-major; none for a density. Throws InvalidArgument for images, which are not kept so.
  std::span<const double> values() const;
  /// Index of the density in the order of names().
  int density_index() const { return toy_.value(); }
  const ImageShape& image() const;                        ///< throws InvalidArgument unless is_images()
  std::span<const std::uint8_t> pixels() const noexcept;  ///< of images, row after row
  std::span<const std::int32_t> labels() const noexcept;  ///< of images: one each, or none
  /// `count` rows: fresh samples of (seed, stream `evaluation`), or rows of the table in a shuffled order. Pixels are
  /// in the units of networks.
  std::vector<double> sample(std::int64_t count, std::uint64_t seed) const;
  DataStatistics statistics(std::uint64_t seed) const;

 private:
  std::string name_;
  DatasetOptions options_;
  std::optional<int> toy_;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::vector<double> values_;
  std::shared_ptr<const ImageSet> images_;
};

}  // namespace bracket
