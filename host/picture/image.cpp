#include "host/picture/image.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "bracket/error.h"
#include "host/picture/coverage.h"

namespace bracket {
namespace {

std::string size_text(std::int64_t width, std::int64_t height) {
  return std::to_string(width) + " x " + std::to_string(height);
}

std::uint8_t mix(std::uint8_t below, std::uint8_t above, double opacity) {
  return static_cast<std::uint8_t>(std::lround(below + (above - below) * opacity));
}

/// Owns the state of libpng's simplified interface, which reports errors by value instead of longjmp.
class PngState {
 public:
  PngState() {
    std::memset(&image_, 0, sizeof image_);
    image_.version = PNG_IMAGE_VERSION;
  }
  ~PngState() { png_image_free(&image_); }
  PngState(const PngState&) = delete;
  PngState& operator=(const PngState&) = delete;
  png_image& get() noexcept { return image_; }

 private:
  png_image image_;
};

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
  PngState state;
  state.get().width = static_cast<png_uint_32>(image.width());
  state.get().height = static_cast<png_uint_32>(image.height());
  state.get().format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(state.get());
  std::vector<std::byte> file(size);
  if (png_image_write_to_memory(&state.get(), file.data(), &size, 0, image.bytes().data(), 0, nullptr) == 0) {
    throw DataError("libpng cannot encode the " + size_text(image.width(), image.height()) +
                    " image: " + state.get().message);
  }
  file.resize(size);
  file.shrink_to_fit();
  return file;
}

Image decode_png(std::span<const std::byte> file) {
  PngState state;
  if (png_image_begin_read_from_memory(&state.get(), file.data(), file.size()) == 0) {
    throw DataError("not a readable PNG of " + std::to_string(file.size()) + " bytes: " + state.get().message);
  }
  // IHDR is the first chunk by the PNG standard, so its fields have fixed places; libpng has just validated it.
  constexpr std::size_t kBitDepthAt = 24;
  constexpr std::size_t kColorTypeAt = 25;
  const int bit_depth = std::to_integer<int>(file[kBitDepthAt]);
  const int color_type = std::to_integer<int>(file[kColorTypeAt]);
  if (bit_depth != 8 || (color_type != PNG_COLOR_TYPE_GRAY && color_type != PNG_COLOR_TYPE_RGB)) {
    throw DataError("PNG has bit depth " + std::to_string(bit_depth) + " and colour type " +
                    std::to_string(color_type) + "; only 8-bit gray (0) and RGB (2) are read, convert it first");
  }
  const std::int64_t width = state.get().width;
  const std::int64_t height = state.get().height;
  // Deflate expands at most 1032 : 1, so a small file that claims a huge image is damaged; refuse before allocating.
  constexpr std::int64_t kDeflateExpansion = 1032;
  const std::int64_t channels = color_type == PNG_COLOR_TYPE_RGB ? 3 : 1;
  const std::int64_t file_bytes = static_cast<std::int64_t>(file.size());
  if (width > Image::kMaxPixels / height || height * (width * channels + 1) > kDeflateExpansion * file_bytes) {
    throw DataError("PNG of " + std::to_string(file_bytes) + " bytes claims " + size_text(width, height) +
                    " pixels; the file is damaged or truncated");
  }
  Image image(width, height);
  state.get().format = PNG_FORMAT_RGB;
  if (png_image_finish_read(&state.get(), nullptr, image.bytes().data(), 0, nullptr) == 0) {
    throw DataError("PNG of " + size_text(width, height) + " pixels is damaged: " + state.get().message);
  }
  return image;
}

}  // namespace bracket
