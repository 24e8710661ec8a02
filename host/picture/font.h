// A small built-in typeface: ASCII 32-126 drawn on a 5 x 9 grid (7 rows above the baseline, 2 below), proportional.
// At draw time neighbouring dots are joined by anti-aliased strokes, so that diagonals and bowls stay smooth when
// scaled.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host/picture/image.h"

namespace bracket {

/// Where the given point lies along the text.
enum class Align { start, centre, end };

/// Upright reads left to right; upward is turned by 90 degrees and reads from bottom to top.
enum class Direction { upright, upward };

struct TextStyle {
  Color color = kBlack;
  std::int64_t scale = 2;  ///< pixels per dot of the typeface; capitals are 7 * scale pixels high
  Align align = Align::start;
  Direction direction = Direction::upright;
};

/// Height of capitals and digits in pixels.
constexpr std::int64_t cap_height(std::int64_t scale) noexcept { return 7 * scale; }
/// Height from the top of capitals to the bottom of descenders.
constexpr std::int64_t text_height(std::int64_t scale) noexcept { return 9 * scale; }
/// Distance between the tops of successive lines.
constexpr std::int64_t line_height(std::int64_t scale) noexcept { return 13 * scale; }

/// Width of the inked box in pixels, 0 for an empty text. Each UTF-8 character or byte outside ASCII 32-126 counts as
/// one box.
std::int64_t text_width(std::string_view text, std::int64_t scale);

/// Upright: y is the top of the capitals and x the start, centre or end. Upward: x is the top (left edge) of the
/// capitals and y the start (lowest pixel row edge), centre or end. A scale below 1 throws InvalidArgument.
void draw_text(Image& image, std::int64_t x, std::int64_t y, std::string_view text, const TextStyle& style);

/// Breaks at spaces so that no line is wider than max_width; a word that is too wide is split, '\n' starts a new line.
/// A line holds at least one character however small max_width is. An empty text gives no line.
std::vector<std::string> wrap_text(std::string_view text, std::int64_t scale, std::int64_t max_width);

}  // namespace bracket
