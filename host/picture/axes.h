// Two-dimensional panels: tick positions and labels, the map from data to pixels, frame, title, colour bar.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host/picture/colormap.h"
#include "host/picture/image.h"

namespace bracket {

struct Range {
  double low = 0;
  double high = 1;
  double width() const noexcept { return high - low; }
};

/// Throws InvalidArgument naming `what` unless both ends are finite, at most 1e300 in size, low < high, and the width
/// is at least 1e-9 of the larger end: below that, ten digits no longer tell neighbouring tick labels apart.
void check_range(const Range& range, std::string_view what);

/// `range` grown by `share` of its width on each side. A single value gets a tenth of its size around it (1 for zero),
/// so that the result always passes check_range for ends below 1e299.
Range padded(const Range& range, double share);

struct Tick {
  double value = 0;
  std::string label;
};

/// The finest multiples of 1, 2 or 5 times a power of ten with at most max_ticks (>= 2) of them in the range, ends
/// included; there is always at least one. Values are the doubles nearest to the labels; zero is never "-0".
std::vector<Tick> nice_ticks(const Range& range, std::int64_t max_ticks);

/// Width in pixels of the widest label.
std::int64_t label_extent(const std::vector<Tick>& ticks, std::int64_t scale);

inline constexpr Color kInkColor{38, 38, 38};
inline constexpr Color kNoteColor{110, 110, 110};
inline constexpr Color kGridColor{226, 226, 226};

/// A panel whose data area covers exactly the pixels of `area`; frame, ticks and texts lie outside of it.
class Axes {
 public:
  /// Ticks are chosen here so that labels at text scale `scale` do not touch. Throws InvalidArgument for a bad range
  /// or an area without pixels.
  Axes(const Rect& area, const Range& x, const Range& y, std::int64_t scale);

  const Rect& area() const noexcept { return area_; }
  const std::vector<Tick>& x_ticks() const noexcept { return x_ticks_; }
  const std::vector<Tick>& y_ticks() const noexcept { return y_ticks_; }

  /// Continuous pixel coordinates: x.low is the left edge of the area, y.low its bottom edge (y points up).
  double pixel_x(double x) const noexcept;
  double pixel_y(double y) const noexcept;

  void draw_grid(Image& image) const;
  void draw_frame(Image& image) const;
  /// `title` at the left above the frame, `note` in gray at the right of the same line, smaller if both do not fit.
  void draw_title(Image& image, std::string_view title, std::string_view note) const;
  /// Texts along the axes, empty for none.
  void draw_axis_names(Image& image, std::string_view x_name, std::string_view y_name) const;

  /// Space in pixels that ticks and labels need on each side, given the widest label of the y axis.
  static std::int64_t left_margin(std::int64_t y_label_extent, std::int64_t scale);
  static std::int64_t bottom_margin(std::int64_t scale);
  static std::int64_t title_margin(std::int64_t scale);

 private:
  Rect area_;
  Range x_;
  Range y_;
  std::int64_t scale_;
  std::vector<Tick> x_ticks_;
  std::vector<Tick> y_ticks_;
};

/// Ticks for a vertical axis `height` pixels high.
std::vector<Tick> vertical_ticks(const Range& range, std::int64_t height, std::int64_t scale);

/// A vertical bar over the pixels of `area`, range.low at the bottom, with frame, ticks and labels to its right.
void draw_color_bar(Image& image, const Rect& area, const Range& range, const ColorMap& map, std::int64_t scale);

/// Space in pixels that the ticks and labels of a colour bar need to its right.
std::int64_t color_bar_margin(std::int64_t label_extent, std::int64_t scale);

}  // namespace bracket
