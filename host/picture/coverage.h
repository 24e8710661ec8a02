// Anti-aliasing: the share of each pixel that a stroke covers. Strokes and discs are one shape, the capsule.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace bracket {

/// All points within `radius` of the segment (x0, y0)-(x1, y1); a disc when both ends agree.
struct Capsule {
  double x0 = 0, y0 = 0;
  double x1 = 0, y1 = 0;
  double radius = 0;
};

/// Calls visit(x, y, coverage) with 0 < coverage <= 1 for every pixel of a width x height raster that `shape` touches.
/// coverage = clamp(radius + 1/2 - distance of the pixel centre from the segment): exact for axis-parallel edges.
/// Discs smaller than a pixel are limited to their area, so that they fade instead of staying one pixel wide.
template <class Visit>
void visit_capsule(const Capsule& shape, std::int64_t width, std::int64_t height, Visit&& visit) {
  const double dx = shape.x1 - shape.x0;
  const double dy = shape.y1 - shape.y0;
  const double length_squared = dx * dx + dy * dy;
  if (!std::isfinite(length_squared) || !std::isfinite(shape.x0 + shape.y0) || !(shape.radius > 0)) return;
  const double ceiling =
      std::min(1.0, length_squared > 0 ? 2 * shape.radius : std::numbers::pi * shape.radius * shape.radius);
  const double reach = shape.radius + 0.5;
  const auto first_pixel = [](double low, std::int64_t limit) {
    return static_cast<std::int64_t>(std::clamp(std::floor(low - 0.5), 0.0, static_cast<double>(limit)));
  };
  const auto end_pixel = [](double high, std::int64_t limit) {
    return static_cast<std::int64_t>(std::clamp(std::ceil(high + 0.5), 0.0, static_cast<double>(limit)));
  };
  const double left = std::min(shape.x0, shape.x1) - reach;
  const double right = std::max(shape.x0, shape.x1) + reach;
  const std::int64_t y_begin = first_pixel(std::min(shape.y0, shape.y1) - reach, height);
  const std::int64_t y_end = end_pixel(std::max(shape.y0, shape.y1) + reach, height);
  // Per row only the strip around the infinite line: the work follows the length of a stroke, not its bounding box.
  const bool sloped = std::abs(dy) > 0;
  const double x_per_y = sloped ? dx / dy : 0;
  const double half_strip = sloped ? reach * std::sqrt(length_squared) / std::abs(dy) : 0;
  for (std::int64_t y = y_begin; y < y_end; ++y) {
    const double cy = static_cast<double>(y) + 0.5;
    const double on_line = shape.x0 + (cy - shape.y0) * x_per_y;
    const double row_left = sloped ? std::max(left, on_line - half_strip) : left;
    const double row_right = sloped ? std::min(right, on_line + half_strip) : right;
    const std::int64_t x_end = end_pixel(row_right, width);
    for (std::int64_t x = first_pixel(row_left, width); x < x_end; ++x) {
      const double cx = static_cast<double>(x) + 0.5;
      const double along = length_squared > 0
                               ? std::clamp(((cx - shape.x0) * dx + (cy - shape.y0) * dy) / length_squared, 0.0, 1.0)
                               : 0.0;
      const double distance = std::hypot(cx - shape.x0 - along * dx, cy - shape.y0 - along * dy);
      const double coverage = std::min(ceiling, reach - distance);
      if (coverage > 0) visit(x, y, coverage);
    }
  }
}

/// Coverage of a shape made of overlapping strokes: the largest one counts, so that joints are not painted twice.
class Mask {
 public:
  Mask(std::int64_t width, std::int64_t height)
      : width_(width), height_(height), values_(static_cast<std::size_t>(width * height), 0.0F) {}

  std::int64_t width() const noexcept { return width_; }
  std::int64_t height() const noexcept { return height_; }
  double at(std::int64_t x, std::int64_t y) const { return values_[static_cast<std::size_t>(y * width_ + x)]; }
  void add(const Capsule& shape) {
    visit_capsule(shape, width_, height_, [this](std::int64_t x, std::int64_t y, double coverage) {
      float& value = values_[static_cast<std::size_t>(y * width_ + x)];
      value = std::max(value, static_cast<float>(coverage));
    });
  }

 private:
  std::int64_t width_;
  std::int64_t height_;
  std::vector<float> values_;
};

}  // namespace bracket
