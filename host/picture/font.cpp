#include "host/picture/font.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "bracket/error.h"
#include "host/picture/coverage.h"

namespace bracket {
namespace {

constexpr int kColumns = 5;
constexpr int kRows = 9;
constexpr std::size_t kGlyphs = 96;
constexpr std::size_t kGlyphsPerBlock = 16;
constexpr unsigned char kFirst = 32;
constexpr unsigned char kBox = 127;
constexpr std::int64_t kSpaceDots = 3;
constexpr std::int64_t kGapDots = 1;

// Six blocks of 16 glyphs side by side, nine rows each.
constexpr std::array<const char*, kRows * kGlyphs / kGlyphsPerBlock> kSheet{
    // space ! " # $ % & ' ( ) * + , - . /
    "..... ..#.. .#.#. ..... ..#.. ##..# .##.. ..#.. ..#.. #.... ..... ..... ..... ..... ..... ...#.",
    "..... ..#.. .#.#. .#.#. .#### ##.#. #..#. ..#.. .#... .#... ..#.. ..#.. ..... ..... ..... ...#.",
    "..... ..#.. ..... ##### #.#.. ...#. #.#.. ..... #.... ..#.. #.#.# ..#.. ..... ..... ..... ..#..",
    "..... ..#.. ..... .#.#. .###. ..#.. .#... ..... #.... ..#.. .###. ##### ..... ####. ..... ..#..",
    "..... ..#.. ..... ##### ..#.# .#... #.#.# ..... #.... ..#.. #.#.# ..#.. ..... ..... ..... ..#..",
    "..... ..... ..... .#.#. ####. .#.## #..#. ..... .#... .#... ..#.. ..#.. ..... ..... ..... .#...",
    "..... ..#.. ..... ..... ..#.. #..## .##.# ..... ..#.. #.... ..... ..... .#... ..... #.... .#...",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... #.... ..... ..... .....",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....",
    // 0 1 2 3 4 5 6 7 8 9 : ; < = > ?
    ".###. .#... .###. .###. ...#. ##### ..##. ##### .###. .###. ..... ..... ...#. ..... #.... .###.",
    "#...# ##... #...# #...# ..##. #.... .#... ....# #...# #...# ..... ..... ..#.. ..... .#... #...#",
    "#...# .#... ....# ....# .#.#. ####. #.... ...#. #...# #...# #.... .#... .#... ####. ..#.. ....#",
    "#...# .#... ...#. ..##. #..#. ....# ####. ...#. .###. .#### ..... ..... #.... ..... ...#. ...#.",
    "#...# .#... ..#.. ....# ##### ....# #...# ..#.. #...# ....# ..... ..... .#... ####. ..#.. ..#..",
    "#...# .#... .#... #...# ...#. #...# #...# ..#.. #...# ...#. ..... ..... ..#.. ..... .#... .....",
    ".###. ###.. ##### .###. ...#. .###. .###. ..#.. .###. .##.. #.... .#... ...#. ..... #.... ..#..",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... #.... ..... ..... ..... .....",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....",
    // @ A B C D E F G H I J K L M N O
    ".###. ..#.. ####. .###. ####. ##### ##### .###. #...# ###.. ....# #...# #.... #...# #...# .###.",
    "#...# .#.#. #...# #...# #...# #.... #.... #...# #...# .#... ....# #..#. #.... ##.## #...# #...#",
    "#.### #...# #...# #.... #...# #.... #.... #.... #...# .#... ....# #.#.. #.... #.#.# ##..# #...#",
    "#.#.# #...# ####. #.... #...# ####. ####. #..## ##### .#... ....# ##... #.... #.#.# #.#.# #...#",
    "#.##. ##### #...# #.... #...# #.... #.... #...# #...# .#... ....# #.#.. #.... #...# #..## #...#",
    "#.... #...# #...# #...# #...# #.... #.... #...# #...# .#... #...# #..#. #.... #...# #...# #...#",
    ".#### #...# ####. .###. ####. ##### #.... .###. #...# ###.. .###. #...# ##### #...# #...# .###.",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....",
    // P Q R S T U V W X Y Z [ \ ] ^ _
    "####. .###. ####. .###. ##### #...# #...# #...# #...# #...# ##### ###.. .#... ###.. ..#.. .....",
    "#...# #...# #...# #...# ..#.. #...# #...# #...# #...# #...# ....# #.... .#... ..#.. .#.#. .....",
    "#...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#. #.... ..#.. ..#.. #...# .....",
    "####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#.. #.... ..#.. ..#.. ..... .....",
    "#.... #.#.# #.#.. ....# ..#.. #...# .#.#. #.#.# .#.#. ..#.. .#... #.... ..#.. ..#.. ..... .....",
    "#.... #..#. #..#. #...# ..#.. #...# .#.#. #.#.# #...# ..#.. #.... #.... ...#. ..#.. ..... .....",
    "#.... .##.# #...# .###. ..#.. .###. ..#.. .#.#. #...# ..#.. ##### ###.. ...#. ###.. ..... .....",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... #####",
    "..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....",
    // ` a b c d e f g h i j k l m n o
    "#.... ..... #.... ..... ....# ..... ..##. ..... #.... #.... ..#.. #.... #.... ..... ..... .....",
    ".#... ..... #.... ..... ....# ..... .#... ..... #.... ..... ..... #.... #.... ..... ..... .....",
    "..... .###. ####. .###. .#### .###. ####. .#### ####. #.... ..#.. #..#. #.... ##.#. ####. .###.",
    "..... ....# #...# #...# #...# #...# .#... #...# #...# #.... ..#.. #.#.. #.... #.#.# #...# #...#",
    "..... .#### #...# #.... #...# ##### .#... #...# #...# #.... ..#.. ##... #.... #.#.# #...# #...#",
    "..... #...# #...# #...# #...# #.... .#... #...# #...# #.... ..#.. #.#.. #.... #.#.# #...# #...#",
    "..... .#### ####. .###. .#### .#### .#... .#### #...# #.... ..#.. #..#. .#... #.#.# #...# .###.",
    "..... ..... ..... ..... ..... ..... ..... ....# ..... ..... ..#.. ..... ..... ..... ..... .....",
    "..... ..... ..... ..... ..... ..... ..... .###. ..... ..... ##... ..... ..... ..... ..... .....",
    // p q r s t u v w x y z { | } ~ and the box of any other character
    "..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ..#.. #.... #.... ..... #####",
    "..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... .#... #.... .#... ..... #...#",
    "####. .#### #.##. .#### ####. #...# #...# #...# #...# #...# ##### .#... #.... .#... .##.# #...#",
    "#...# #...# ##... #.... .#... #...# #...# #...# .#.#. #...# ...#. #.... #.... ..#.. #..#. #...#",
    "#...# #...# #.... .###. .#... #...# .#.#. #.#.# ..#.. #...# ..#.. .#... #.... .#... ..... #...#",
    "#...# #...# #.... ....# .#... #...# .#.#. #.#.# .#.#. #...# .#... .#... #.... .#... ..... #...#",
    "####. .#### #.... ####. ..##. .#### ..#.. .#.#. #...# .#### ##### ..#.. #.... #.... ..... #####",
    "#.... ....# ..... ..... ..... ..... ..... ..... ..... ....# ..... ..... #.... ..... ..... .....",
    "#.... ....# ..... ..... ..... ..... ..... ..... ..... .###. ..... ..... ..... ..... ..... .....",
};

struct Glyph {
  std::array<std::array<bool, kColumns>, kRows> dots{};
  std::int64_t width = kSpaceDots;  ///< inked columns, which start at column 0
};

constexpr std::array<Glyph, kGlyphs> parse_sheet() {
  std::array<Glyph, kGlyphs> glyphs{};
  for (std::size_t i = 0; i < kGlyphs; ++i) {
    const std::size_t sheet_row = i / kGlyphsPerBlock * kRows;
    const std::size_t sheet_column = i % kGlyphsPerBlock * (kColumns + 1);
    const auto inked = [&](std::size_t row, std::size_t column) {
      return kSheet[sheet_row + row][sheet_column + column] == '#';
    };
    std::size_t first = kColumns;
    std::size_t end = 0;
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t column = 0; column < kColumns; ++column) {
        if (!inked(row, column)) continue;
        first = std::min(first, column);
        end = std::max(end, column + 1);
      }
    }
    if (end == 0) continue;
    glyphs[i].width = static_cast<std::int64_t>(end - first);
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t column = first; column < end; ++column) glyphs[i].dots[row][column - first] = inked(row, column);
    }
  }
  return glyphs;
}

constexpr std::array<Glyph, kGlyphs> kTypeface = parse_sheet();

/// Length in bytes of the character that starts at `at`: a whole UTF-8 sequence if it is one, else a single byte.
std::size_t character_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t length = byte(at) >= 0xF0 ? 4 : byte(at) >= 0xE0 ? 3 : byte(at) >= 0xC0 ? 2 : 1;
  if (at + length > text.size()) return 1;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return 1;
  }
  return length;
}

const Glyph& glyph_at(std::string_view text, std::size_t at) {
  const auto code = static_cast<unsigned char>(text[at]);
  return kTypeface[(code >= kFirst && code < kBox ? code : kBox) - kFirst];
}

/// Calls visit(glyph, first column in dots) for each character and returns the width in dots.
template <class Visit>
std::int64_t lay_out(std::string_view text, Visit&& visit) {
  std::int64_t pen = 0;
  for (std::size_t at = 0; at < text.size(); at += character_length(text, at)) {
    const Glyph& glyph = glyph_at(text, at);
    visit(glyph, pen);
    pen += glyph.width + kGapDots;
  }
  return std::max<std::int64_t>(0, pen - kGapDots);
}

/// Joins each dot to its neighbours. A diagonal is drawn only where no dot completes the corner, else bends would fill.
void add_glyph(Mask& mask, const Glyph& glyph, std::int64_t pen, std::int64_t scale) {
  const auto dot = [&](int row, int column) {
    return row < kRows && column >= 0 && column < kColumns &&
           glyph.dots[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)];
  };
  const double unit = static_cast<double>(scale);
  const auto join = [&](int row, int column, int to_row, int to_column) {
    const auto centre = [unit](double dots) { return (dots + 0.5) * unit; };
    const double left = static_cast<double>(pen);
    mask.add({centre(left + column), centre(row), centre(left + to_column), centre(to_row), unit / 2});
  };
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      if (!dot(row, column)) continue;
      join(row, column, row, column);
      if (dot(row, column + 1)) join(row, column, row, column + 1);
      if (dot(row + 1, column)) join(row, column, row + 1, column);
      for (const int side : {-1, 1}) {
        const bool corner = dot(row, column + side) || dot(row + 1, column);
        if (!corner && dot(row + 1, column + side)) join(row, column, row + 1, column + side);
      }
    }
  }
}

}  // namespace

std::int64_t text_width(std::string_view text, std::int64_t scale) {
  return scale * lay_out(text, [](const Glyph&, std::int64_t) {});
}

void draw_text(Image& image, std::int64_t x, std::int64_t y, std::string_view text, const TextStyle& style) {
  if (style.scale < 1) {
    throw InvalidArgument("text scale " + std::to_string(style.scale) + " must be a positive number of pixels per dot");
  }
  Mask mask(text_width(text, style.scale), text_height(style.scale));
  lay_out(text, [&](const Glyph& glyph, std::int64_t pen) { add_glyph(mask, glyph, pen, style.scale); });
  const std::int64_t before = style.align == Align::start    ? 0
                              : style.align == Align::centre ? mask.width() / 2
                                                             : mask.width();
  for (std::int64_t row = 0; row < mask.height(); ++row) {
    for (std::int64_t column = 0; column < mask.width(); ++column) {
      const double coverage = mask.at(column, row);
      if (style.direction == Direction::upright) {
        image.blend(x - before + column, y + row, style.color, coverage);
      } else {
        image.blend(x + row, y + before - 1 - column, style.color, coverage);
      }
    }
  }
}

std::vector<std::string> wrap_text(std::string_view text, std::int64_t scale, std::int64_t max_width) {
  std::vector<std::string> lines;
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t end = begin;
    std::size_t last_space = std::string_view::npos;
    while (end < text.size() && text[end] != '\n') {
      const std::size_t next = end + character_length(text, end);
      if (end > begin && text[end] != ' ' && text_width(text.substr(begin, next - begin), scale) > max_width) break;
      if (text[end] == ' ') last_space = end;
      end = next;
    }
    const bool whole = end == text.size() || text[end] == '\n';
    const bool at_space = !whole && last_space != std::string_view::npos && last_space > begin;
    if (at_space) end = last_space;
    std::string_view line = text.substr(begin, end - begin);
    while (!line.empty() && line.back() == ' ') line.remove_suffix(1);
    lines.emplace_back(line);
    begin = end;
    if (whole) {
      ++begin;
    } else {
      while (begin < text.size() && text[begin] == ' ') ++begin;
    }
  }
  return lines;
}

}  // namespace bracket
