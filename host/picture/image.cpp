#include "host/picture/image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "bracket/error.h"
#include "host/files/pixel_file.h"
#include "host/picture/coverage.h"

namespace bracket {
namespace {

std::string size_text(std::int64_t width, std::int64_t height) {
  return std::to_string(width) + " x " + std::to_string(height);
}

std::uint8_t mix(std::uint8_t below, std::uint8_t above, double opacity) {
  return static_cast<std::uint8_t>(std::lround(below + (above - below) * opacity));
}

}  // namespace

Image::Image(std::int64_t width, std::int64_t height, Color fill) : width_(width), height_(height) {
  if (width < 0 || height < 0 || (height > 0 && width > kMaxPixels / height)) {
    throw InvalidArgument("image size " + size_text(width, height) + " is not between 0 and " +
                          std::to_string(kMaxPixels) + " pixels; draw fewer or smaller panels");
  }
  bytes_.resize(static_cast<std::size_t>(3 * width * height));
  fill_rectangle({0, 0, width, height}, fill);
}

Color Image::at(std::int64_t x, std::int64_t y) const {
  if (!contains(x, y)) {
    throw InvalidArgument("pixel (" + std::to_string(x) + ", " + std::to_string(y) + ") lies outside the " +
                          size_text(width_, height_) + " image");
  }
  const std::size_t i = offset(x, y);
  return {bytes_[i], bytes_[i + 1], bytes_[i + 2]};
}

void Image::set(std::int64_t x, std::int64_t y, Color color) noexcept {
  if (!contains(x, y)) return;
  const std::size_t i = offset(x, y);
  bytes_[i] = color.red;
  bytes_[i + 1] = color.green;
  bytes_[i + 2] = color.blue;
}

void Image::blend(std::int64_t x, std::int64_t y, Color color, double opacity) noexcept {
  if (!contains(x, y) || !(opacity > 0)) return;
  opacity = std::min(opacity, 1.0);
  const std::size_t i = offset(x, y);
  bytes_[i] = mix(bytes_[i], color.red, opacity);
  bytes_[i + 1] = mix(bytes_[i + 1], color.green, opacity);
  bytes_[i + 2] = mix(bytes_[i + 2], color.blue, opacity);
}

void Image::blit(const Image& source, std::int64_t left, std::int64_t top) noexcept {
  const std::int64_t x_begin = std::max<std::int64_t>(0, -left);
  const std::int64_t x_end = std::min(source.width_, width_ - left);
  if (x_begin >= x_end) return;
  const std::int64_t y_end = std::min(source.height_, height_ - top);
  for (std::int64_t y = std::max<std::int64_t>(0, -top); y < y_end; ++y) {
    std::memmove(&bytes_[offset(left + x_begin, top + y)], &source.bytes_[source.offset(x_begin, y)],
                 static_cast<std::size_t>(3 * (x_end - x_begin)));
  }
}

void Image::fill_rectangle(const Rect& rect, Color color) noexcept {
  const std::int64_t x_begin = std::max<std::int64_t>(0, rect.left);
  const std::int64_t x_end = std::min(width_, rect.right());
  const std::int64_t y_end = std::min(height_, rect.bottom());
  for (std::int64_t y = std::max<std::int64_t>(0, rect.top); y < y_end; ++y) {
    for (std::int64_t x = x_begin; x < x_end; ++x) set(x, y, color);
  }
}

void Image::draw_frame(const Rect& rect, std::int64_t thickness, Color color) noexcept {
  const std::int64_t outer_width = rect.width + 2 * thickness;
  fill_rectangle({rect.left - thickness, rect.top - thickness, outer_width, thickness}, color);
  fill_rectangle({rect.left - thickness, rect.bottom(), outer_width, thickness}, color);
  fill_rectangle({rect.left - thickness, rect.top, thickness, rect.height}, color);
  fill_rectangle({rect.right(), rect.top, thickness, rect.height}, color);
}

void Image::draw_line(double x0, double y0, double x1, double y1, double thickness, Color color) noexcept {
  visit_capsule({x0, y0, x1, y1, thickness / 2}, width_, height_,
                [&](std::int64_t x, std::int64_t y, double coverage) { blend(x, y, color, coverage); });
}

void Image::fill_disc(double x, double y, double radius, Color color, double opacity) noexcept {
  visit_capsule({x, y, x, y, radius}, width_, height_,
                [&](std::int64_t px, std::int64_t py, double coverage) { blend(px, py, color, opacity * coverage); });
}

std::vector<std::byte> encode_png(const Image& image) {
  if (image.width() == 0 || image.height() == 0) {
    throw DataError("cannot write a PNG of size " + size_text(image.width(), image.height()) +
                    "; a PNG has at least one pixel");
  }
  return serialize_png(image.bytes(), {.channels = 3, .height = image.height(), .width = image.width()});
}

Image decode_png(std::span<const std::byte> file) {
  const PixelArray picture = parse_picture(file, "picture");
  Image image(picture.shape.width, picture.shape.height);
  const std::span<std::uint8_t> colours = image.bytes();
  // A gray value stands for all three colours.
  const std::size_t repeats = 3 / static_cast<std::size_t>(picture.shape.channels);
  for (std::size_t i = 0; i < colours.size(); ++i) colours[i] = picture.values[i / repeats];
  return image;
}

}  // namespace bracket
