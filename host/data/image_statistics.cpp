#include "host/data/image_statistics.h"

#include <algorithm>
#include <cmath>

namespace bracket {

DataStatistics image_statistics(const ImageSet& set, std::int64_t count,
                                const std::function<std::int64_t(std::int64_t)>& row) {
  const auto cols = static_cast<std::size_t>(set.shape.size());
  const auto pixels_of = [&](std::int64_t i) { return set.pixels.data() + static_cast<std::size_t>(row(i)) * cols; };
  std::vector<std::int64_t> sums(cols), squares(cols);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint8_t* const pixels = pixels_of(i);
    for (std::size_t j = 0; j < cols; ++j) {
      sums[j] += pixels[j];
      squares[j] += pixels[j] * pixels[j];
    }
  }
  DataStatistics result;
  const auto n = static_cast<double>(count);
  std::vector<double> mean(cols), inverse(cols);
  for (std::size_t j = 0; j < cols; ++j) {
    // Exact, so that it is 0 for constant columns alone: squares are below 2^16, and their sum times count below 2^62.
    const std::int64_t spread = squares[j] * count - sums[j] * sums[j];
    mean[j] = static_cast<double>(sums[j]) / n;
    const double deviation = spread == 0 ? 0 : std::sqrt(static_cast<double>(spread)) / n;
    result.mean.push_back(kPixelScale * mean[j] + kPixelShift);
    result.deviation.push_back(spread == 0 ? 1 : kPixelScale * deviation);
    inverse[j] = spread == 0 ? 0 : 1 / deviation;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint8_t* const pixels = pixels_of(i);
    double radius = 0;
    for (std::size_t j = 0; j < cols; ++j) {
      const double u = (pixels[j] - mean[j]) * inverse[j];
      radius += u * u;
    }
    result.standardised_radius = std::max(result.standardised_radius, std::sqrt(radius));
  }
  return result;
}

}  // namespace bracket
