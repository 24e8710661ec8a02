#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "host/picture/plots.h"

namespace bracket {
namespace {

constexpr Color kGapColor{200, 200, 200};
constexpr Color kNotANumberPixel{255, 0, 255};

std::uint8_t to_byte(float value) {
  return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0F, 1.0F) * 255));
}

Color pixel_color(std::span<const float> channels) {
  if (std::any_of(channels.begin(), channels.end(), [](float value) { return std::isnan(value); })) {
    return kNotANumberPixel;
  }
  return {to_byte(channels.front()), to_byte(channels[channels.size() / 2]), to_byte(channels.back())};
}

void check(const SampleGrid& grid) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw InvalidArgument("image grid: " + what);
  };
  require(grid.count > 0, "there are " + std::to_string(grid.count) + " images; give at least one");
  require(grid.height > 0 && grid.width > 0, "images of " + std::to_string(grid.height) + " x " +
                                                 std::to_string(grid.width) + " pixels; give at least 1 x 1");
  require(grid.channels == 1 || grid.channels == 3,
          std::to_string(grid.channels) + " channels; only 1 (gray) and 3 (RGB) can be drawn");
  require(grid.columns >= 0, std::to_string(grid.columns) + " columns; give 0 (automatic) or more");
  require(grid.magnification > 0, "magnification " + std::to_string(grid.magnification) + "; give at least 1");
  require(grid.gap >= 0, "gap of " + std::to_string(grid.gap) + " pixels; give 0 or more");
  const auto values = static_cast<std::int64_t>(grid.values.size());
  // Successive quotients instead of a product that could overflow.
  const bool agrees = values % grid.channels == 0 && values / grid.channels % grid.width == 0 &&
                      values / grid.channels / grid.width % grid.height == 0 &&
                      values / grid.channels / grid.width / grid.height == grid.count;
  require(agrees, std::to_string(grid.count) + " images of " + std::to_string(grid.height) + " x " +
                      std::to_string(grid.width) + " x " + std::to_string(grid.channels) + " come with " +
                      std::to_string(values) + " values; the product must equal the number of values");
  require(grid.magnification <= Image::kMaxPixels / std::max(grid.width, grid.height) && grid.gap <= Image::kMaxPixels,
          "magnification " + std::to_string(grid.magnification) + " and gap " + std::to_string(grid.gap) +
              " make the picture too large; use smaller ones");
}

}  // namespace

Image sample_grid(const SampleGrid& grid) {
  check(grid);
  const auto square = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(grid.count))));
  const std::int64_t columns = std::min(grid.count, grid.columns > 0 ? grid.columns : square);
  const std::int64_t rows = (grid.count + columns - 1) / columns;
  const std::int64_t step_x = grid.width * grid.magnification + grid.gap;
  const std::int64_t step_y = grid.height * grid.magnification + grid.gap;
  if (columns > Image::kMaxPixels / step_x || rows > Image::kMaxPixels / step_y) {
    throw InvalidArgument("image grid of " + std::to_string(rows) + " x " + std::to_string(columns) + " images of " +
                          std::to_string(step_y) + " x " + std::to_string(step_x) +
                          " pixels is too large; draw fewer images or magnify less");
  }
  Image image(columns * step_x + grid.gap, rows * step_y + grid.gap, kGapColor);
  const auto channels = static_cast<std::size_t>(grid.channels);
  std::size_t at = 0;
  for (std::int64_t i = 0; i < grid.count; ++i) {
    const std::int64_t left = grid.gap + i % columns * step_x;
    const std::int64_t top = grid.gap + i / columns * step_y;
    for (std::int64_t y = 0; y < grid.height; ++y) {
      for (std::int64_t x = 0; x < grid.width; ++x, at += channels) {
        image.fill_rectangle(
            {left + x * grid.magnification, top + y * grid.magnification, grid.magnification, grid.magnification},
            pixel_color(grid.values.subspan(at, channels)));
      }
    }
  }
  return image;
}

}  // namespace bracket
