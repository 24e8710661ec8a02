#include "host/data/pixel_values.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"

namespace bracket {

std::vector<std::uint8_t> pixels_of_values(std::span<const double> values, std::int64_t cols, std::int64_t first) {
  const auto bad = std::find_if(values.begin(), values.end(), [](double value) { return std::isnan(value); });
  if (bad != values.end()) {
    const std::int64_t index = bad - values.begin();
    throw Diverged("value " + std::to_string(index % cols) + " of image " + std::to_string(first + index / cols) +
                       " (counted from 0) is NaN; use an earlier checkpoint",
                   "samples", 0);
  }
  std::vector<std::uint8_t> pixels(values.size());
  std::transform(values.begin(), values.end(), pixels.begin(), [](double value) {
    return static_cast<std::uint8_t>(std::floor(std::clamp(255 * (value + 1) / 2, 0.0, 255.0) + 0.5));
  });
  return pixels;
}

}  // namespace bracket
