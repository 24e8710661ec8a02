// RGB images in memory, clipped anti-aliased drawing on them, and PNG encoding. Files are the caller's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bracket {

struct Color {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
  friend bool operator==(const Color&, const Color&) = default;
};

inline constexpr Color kWhite{255, 255, 255};
inline constexpr Color kBlack{0, 0, 0};

/// A block of whole pixels: columns [left, left + width), rows [top, top + height).
struct Rect {
  std::int64_t left = 0;
  std::int64_t top = 0;
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::int64_t right() const noexcept { return left + width; }
  std::int64_t bottom() const noexcept { return top + height; }
};

/// An 8-bit RGB image, rows from top to bottom. Continuous coordinates put pixel (i, j) on the square
/// [i, i+1) x [j, j+1). Everything that draws is clipped to the image; shapes with non-finite coordinates draw nothing.
class Image {
 public:
  /// Throws InvalidArgument for a negative side or for more than kMaxPixels pixels.
  Image(std::int64_t width, std::int64_t height, Color fill = kWhite);

  /// Three bytes each: 3 GiB, above any picture meant to be looked at and below what a typing error asks for.
  static constexpr std::int64_t kMaxPixels = std::int64_t{1} << 30;

  std::int64_t width() const noexcept { return width_; }
  std::int64_t height() const noexcept { return height_; }
  /// Interleaved RGB, row-major from the top: 3 * width * height bytes.
  std::span<const std::uint8_t> bytes() const noexcept { return bytes_; }
  std::span<std::uint8_t> bytes() noexcept { return bytes_; }

  /// Throws InvalidArgument outside the image.
  Color at(std::int64_t x, std::int64_t y) const;
  void set(std::int64_t x, std::int64_t y, Color color) noexcept;
  /// Mixes `color` in: 0 leaves the pixel, 1 replaces it; `opacity` is clamped, NaN counts as 0.
  void blend(std::int64_t x, std::int64_t y, Color color, double opacity) noexcept;
  /// Copies `source` with its top left corner at (left, top).
  void blit(const Image& source, std::int64_t left, std::int64_t top) noexcept;

  void fill_rectangle(const Rect& rect, Color color) noexcept;
  /// The outline, `thickness` pixels wide, lies outside `rect`, so that the content of `rect` stays uncovered.
  void draw_frame(const Rect& rect, std::int64_t thickness, Color color) noexcept;
  /// A straight stroke with round ends.
  void draw_line(double x0, double y0, double x1, double y1, double thickness, Color color) noexcept;
  void fill_disc(double x, double y, double radius, Color color, double opacity = 1.0) noexcept;

 private:
  std::size_t offset(std::int64_t x, std::int64_t y) const noexcept {
    return static_cast<std::size_t>(3 * (y * width_ + x));
  }
  bool contains(std::int64_t x, std::int64_t y) const noexcept { return x >= 0 && x < width_ && y >= 0 && y < height_; }

  std::int64_t width_ = 0;
  std::int64_t height_ = 0;
  std::vector<std::uint8_t> bytes_;
};

/// A complete 8-bit RGB PNG file. Throws DataError when the image is empty or libpng refuses it.
std::vector<std::byte> encode_png(const Image& image);

/// Reads what host/files/pixel_file.h reads, gray as three equal colours. Throws DataError as it does.
Image decode_png(std::span<const std::byte> file);

}  // namespace bracket
