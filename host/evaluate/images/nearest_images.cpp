#include "host/evaluate/images/nearest_images.h"

#include <algorithm>
#include <cmath>
#include <string>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>

#include "bracket/error.h"
#include "host/evaluate/images/image_classifier.h"

namespace bracket {
namespace {

constexpr std::int64_t kPanelValues = std::int64_t{1} << 18;  // of the data as doubles at a time: 2 MiB

bool nearer(const Neighbour& a, const Neighbour& b) {
  return a.distance != b.distance ? a.distance < b.distance : a.row < b.row;
}

}  // namespace

std::vector<Neighbour> nearest_images(const Dataset& data, std::span<const double> images, std::int64_t rows,
                                      std::int64_t neighbours) {
  if (!data.is_images()) throw InvalidArgument("nearest_images: " + data.name() + " holds no images");
  const std::int64_t cols = data.cols();
  if (rows < 0 || static_cast<std::int64_t>(images.size()) != rows * cols)
    throw InvalidArgument("nearest_images: " + std::to_string(images.size()) + " values are not " +
                          std::to_string(rows) + " images of " + std::to_string(cols));
  if (neighbours < 1 || neighbours > data.rows())
    throw InvalidArgument("nearest_images: cannot find " + std::to_string(neighbours) + " neighbours among " +
                          std::to_string(data.rows()) + " images");
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using View = Eigen::Map<const Matrix>;
  const View wanted(images.data(), rows, cols);
  std::vector<std::vector<Neighbour>> best(static_cast<std::size_t>(rows));
  const std::int64_t panel = std::max<std::int64_t>(1, kPanelValues / cols);
  for (std::int64_t first = 0; first < data.rows(); first += panel) {
    const std::int64_t count = std::min(panel, data.rows() - first);
    const std::vector<double> values = image_values(data, first, count);
    const View candidates(values.data(), count, cols);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::vector<Neighbour>& list = best[static_cast<std::size_t>(i)];
      for (std::int64_t k = 0; k < count; ++k) list.push_back({first + k, (candidates.row(k) - wanted.row(i)).norm()});
      const auto kept = std::min<std::size_t>(list.size(), static_cast<std::size_t>(neighbours));
      std::partial_sort(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(kept), list.end(), nearer);
      list.resize(kept);
    }
  }
  std::vector<Neighbour> result;
  for (const std::vector<Neighbour>& list : best) result.insert(result.end(), list.begin(), list.end());
  return result;
}

}  // namespace bracket
