// Text, colour maps, ticks and axes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "bracket/error.h"
#include "host/picture/axes.h"
#include "host/picture/colormap.h"
#include "host/picture/font.h"
#include "tests/picture_fixture.h"

namespace bracket {
namespace {

// ----------------------------------------------------------------------------------------------------------- Font

Image rendered(std::string_view text, const TextStyle& style = {}) {
  Image image(text_width(text, style.scale) + 4, text_height(style.scale) + 4);
  draw_text(image, 2, 2, text, style);
  return image;
}

TEST(Font, EveryCharacterHasItsOwnInkedGlyph) {
  std::set<std::string> seen;
  for (char code = 33; code < 127; ++code) {
    const Image image = rendered(std::string(1, code));
    EXPECT_LT(count_color(image, kWhite), image.width() * image.height()) << code;
    seen.insert(std::to_string(image.width()) + std::string(image.bytes().begin(), image.bytes().end()));
  }
  EXPECT_EQ(seen.size(), 94U - 1U) << "0 and O share a shape, all others differ";
  EXPECT_EQ(text_width(" ", 2), 6);
}

TEST(Font, StrokesFillWholePixelsWithRoundEnds) {
  const Image image = rendered("|");  // 8 dots high, one wide, 2 pixels per dot, drawn at (2, 2)
  for (std::int64_t y = 3; y < 17; ++y) {
    EXPECT_EQ(image.at(1, y), kWhite);
    EXPECT_EQ(image.at(2, y), kBlack);
    EXPECT_EQ(image.at(3, y), kBlack);
    EXPECT_EQ(image.at(4, y), kWhite);
  }
  // The corner pixel's centre is sqrt(1/2) from the end of the stroke's axis: coverage 3/2 - 0.7071, gray 52.8.
  EXPECT_EQ(image.at(2, 2), (Color{53, 53, 53}));
  EXPECT_EQ(image.at(2, 18), kWhite);
}

TEST(Font, DiagonalDotsAreJoinedAndCornersStayOpen) {
  const TextStyle style{kBlack, 8};
  // '^' steps from dot (2, 0) to dot (1, 1); their common corner is the pixel corner (16, 8), drawn at (2, 2).
  EXPECT_EQ(rendered("^", style).at(2 + 16, 2 + 8), kBlack);
  // 'L': this pixel is 5.5 from the axes of both strokes (radius 4) but 2.1 from a diagonal across the corner.
  EXPECT_EQ(rendered("L", style).at(2 + 9, 2 + 46), kWhite);
}

TEST(Font, WidthsAddUpAndScale) {
  EXPECT_EQ(text_width("", 2), 0);
  EXPECT_EQ(text_width("A1-", 1), 5 + 1 + 3 + 1 + 4);
  EXPECT_EQ(text_width("A1-", 7), 7 * text_width("A1-", 1));
  EXPECT_EQ(text_width("\xC3\xA9", 1), text_width("\x01", 1)) << "one box for one two-byte character";
  EXPECT_EQ(text_width("\xC3", 1), text_width("\x01", 1)) << "a cut sequence is one box";
  EXPECT_EQ(text_width("\xFF\xE2\x82", 1), 3 * text_width("\x01", 1) + 2);
  Image image(3, 3);
  EXPECT_THROW(draw_text(image, 0, 0, "x", {kBlack, 0}), InvalidArgument);
}

TEST(Font, AlignmentShiftsAndUpwardTextIsTheSameTurned) {
  const std::string text = "Lq 7%";
  const std::int64_t width = text_width(text, 2);
  Image start(200, 60), centre(200, 60), end(200, 60), upward(60, 200);
  draw_text(start, 100, 20, text, {kBlack, 2, Align::start});
  draw_text(centre, 100 + width / 2, 20, text, {kBlack, 2, Align::centre});
  draw_text(end, 100 + width, 20, text, {kBlack, 2, Align::end});
  draw_text(upward, 20, 100, text, {kBlack, 2, Align::start, Direction::upward});
  EXPECT_TRUE(same(start, centre));
  EXPECT_TRUE(same(start, end));
  EXPECT_LT(count_color(start, kWhite), 200 * 60);
  for (std::int64_t y = 0; y < 60; ++y) {
    for (std::int64_t x = 0; x < 200; ++x) ASSERT_EQ(upward.at(y, 199 - x), start.at(x, y)) << x << ", " << y;
  }
}

TEST(Font, WrappingKeepsEveryWordAndTheWidth) {
  const std::string text = "one two  three four-hundred five";
  for (std::int64_t width = 40; width < 700; width += 33) {
    std::string joined;
    for (const std::string& line : wrap_text(text, 2, width)) {
      EXPECT_LE(text_width(line, 2), width);
      joined += line;
    }
    std::string letters;
    std::copy_if(text.begin(), text.end(), std::back_inserter(letters), [](char c) { return c != ' '; });
    joined.erase(std::remove(joined.begin(), joined.end(), ' '), joined.end());
    EXPECT_EQ(joined, letters) << "at " << width;
  }
  EXPECT_EQ(wrap_text("one two", 2, 1000), (std::vector<std::string>{"one two"}));
  EXPECT_EQ(wrap_text("one two", 2, text_width("one two", 2) - 1), (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(wrap_text("a\n\nb", 2, 1000), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(wrap_text("ab", 2, 0), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(wrap_text("", 2, 100).empty());
}

// ----------------------------------------------------------------------------------------------------- Colour maps

TEST(ColorMaps, EndpointsClampingAndNotANumber) {
  EXPECT_EQ(viridis()(0), (Color{68, 1, 84}));
  EXPECT_EQ(viridis()(1), (Color{253, 231, 37}));
  EXPECT_EQ(viridis()(0.5), (Color{33, 145, 140}));
  EXPECT_EQ(ink()(0), kWhite);
  EXPECT_EQ(ink()(-kInf), kWhite);
  EXPECT_EQ(viridis()(kInf), viridis()(1));
  EXPECT_EQ(viridis_root()(0.25), viridis()(0.5));
  EXPECT_EQ(viridis_root()(1), viridis()(1));
  EXPECT_EQ(viridis_root()(kNaN), kNotANumberColor);
  EXPECT_EQ(viridis()(-3), viridis()(0));
  EXPECT_EQ(viridis()(kNaN), kNotANumberColor);
  for (int i = 0; i <= 1000; ++i) EXPECT_NE(viridis()(i / 1000.0), kNotANumberColor);
}

TEST(ColorMaps, LightnessIsEvenToTheEye) {
  for (const ColorMap* map : {&viridis(), &ink()}) {
    const double first = lightness((*map)(0));
    const double last = lightness((*map)(1));
    for (int i = 0; i <= 100; ++i) {
      const double line = first + (last - first) * i / 100;
      EXPECT_NEAR(lightness((*map)(i / 100.0)), line, kJustNoticeable) << "at " << i << " %";
    }
  }
}

// ------------------------------------------------------------------------------------------------------------ Axes

std::string labels(const Range& range, std::int64_t max_ticks) {
  std::string all;
  for (const Tick& tick : nice_ticks(range, max_ticks)) all += (all.empty() ? "" : " ") + tick.label;
  return all;
}

TEST(Ticks, AreTheExpectedNumbers) {
  EXPECT_EQ(labels({-4, 4}, 9), "-4 -3 -2 -1 0 1 2 3 4");
  EXPECT_EQ(labels({-4, 4}, 8), "-4 -2 0 2 4");
  EXPECT_EQ(labels({0, 1}, 6), "0.0 0.2 0.4 0.6 0.8 1.0");
  EXPECT_EQ(labels({-0.1, 0.3}, 5), "-0.1 0.0 0.1 0.2 0.3");
  EXPECT_FALSE(std::signbit(nice_ticks({-0.3, 5}, 6).front().value)) << "zero is positive";
  EXPECT_EQ(labels({-12.3, -0.3}, 5), "-10 -5");
  EXPECT_EQ(labels({0, 20000}, 5), "0 5000 10000 15000 20000");
  EXPECT_EQ(labels({0, 2.5e6}, 6), "0 5e5 1e6 1.5e6 2e6 2.5e6");
  EXPECT_EQ(labels({0, 3e-9}, 4), "0 1e-9 2e-9 3e-9");
  EXPECT_EQ(labels({1000.0, 1000.5}, 6), "1000.0 1000.1 1000.2 1000.3 1000.4 1000.5");
  EXPECT_EQ(labels({1e7, 1e7 + 1}, 3), "1e7 1.00000005e7 1.0000001e7");
}

TEST(Ticks, AreTheFinestRoundStepThatFitsForAnyRange) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> exponent(-15, 15), centre(-2, 2);
  std::uniform_int_distribution<std::int64_t> most(2, 12);
  for (int trial = 0; trial < 3000; ++trial) {
    const double width = std::pow(10, exponent(random));
    const double low = centre(random) * width * std::pow(10, exponent(random) / 5);
    const Range range{low, low + width};
    const std::int64_t max_ticks = most(random);
    const std::vector<Tick> ticks = nice_ticks(range, max_ticks);
    const std::string where = std::to_string(trial) + ": " + labels(range, max_ticks);
    ASSERT_GE(ticks.size(), 1U) << where;
    ASSERT_LE(ticks.size(), static_cast<std::size_t>(max_ticks)) << where;
    std::set<std::string> distinct;
    for (const Tick& tick : ticks) {
      EXPECT_GE(tick.value, range.low - 1e-8 * width) << where;
      EXPECT_LE(tick.value, range.high + 1e-8 * width) << where;
      EXPECT_EQ(std::strtod(tick.label.c_str(), nullptr), tick.value) << where;
      EXPECT_EQ(tick.label.starts_with("-"), tick.value < 0) << where;
      distinct.insert(tick.label);
    }
    EXPECT_EQ(distinct.size(), ticks.size()) << where;
    // An independent search over all round steps: none that is finer fits.
    double finest = kInf;
    for (int e = -20; e <= 20; ++e) {
      for (const double mantissa : {1.0, 2.0, 5.0}) {
        const double step = mantissa * std::pow(10, e);
        const double count = std::floor(range.high / step + 1e-9) - std::ceil(range.low / step - 1e-9) + 1;
        if (count <= static_cast<double>(max_ticks)) finest = std::min(finest, step);
      }
    }
    if (ticks.size() > 1) {
      EXPECT_NEAR(ticks[1].value - ticks[0].value, finest, 1e-6 * finest) << where;
    }
  }
}

TEST(Ticks, BadRangesAreErrorsWithTheValues) {
  for (const Range& range :
       std::vector<Range>{{1, 1}, {2, 1}, {kNaN, 1}, {0, kInf}, {-1e308, 1e308}, {1e9, 1e9 + 0.1}, {0, 1e-300}}) {
    EXPECT_THROW(nice_ticks(range, 5), InvalidArgument) << range.low << " .. " << range.high;
  }
  EXPECT_THROW(nice_ticks({0, 1}, 1), InvalidArgument);
  try {
    nice_ticks({3, 3}, 5);
    FAIL();
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("from 3 to 3"), std::string::npos) << error.what();
  }
}

TEST(Ticks, PaddingAlwaysGivesADrawableRange) {
  EXPECT_EQ(padded({0, 10}, 0.1).low, -1);
  EXPECT_EQ(padded({0, 10}, 0.1).high, 11);
  for (const double value : {0.0, 5.0, -5.0, 1e-250, 1e250, 123456789.0}) {
    const Range range = padded({value, value}, 0.05);
    EXPECT_NO_THROW(check_range(range, "padded"));
    EXPECT_LT(range.low, value);
    EXPECT_GT(range.high, value);
  }
}

TEST(Axes, CornersMapToTheEdgesOfTheArea) {
  const Axes axes({30, 20, 400, 300}, {-4, 4}, {10, 40}, 2);
  EXPECT_EQ(axes.pixel_x(-4), 30);
  EXPECT_EQ(axes.pixel_x(4), 430);
  EXPECT_EQ(axes.pixel_x(0), 230);
  EXPECT_EQ(axes.pixel_y(10), 320);
  EXPECT_EQ(axes.pixel_y(40), 20);
  EXPECT_THROW(Axes({0, 0, 0, 10}, {0, 1}, {0, 1}, 2), InvalidArgument);
  EXPECT_THROW(Axes({0, 0, 10, 10}, {1, 1}, {0, 1}, 2), InvalidArgument);
}

TEST(Axes, HorizontalLabelsNeverTouchHoweverLong) {
  for (const Range& range : std::vector<Range>{{0, 1}, {1e5, 1e5 + 1e-3}, {-3e-8, 5e-8}, {1e7, 1e7 + 1}}) {
    for (const std::int64_t width : {60, 150, 400, 900}) {
      const Axes axes({0, 0, width, 100}, range, {0, 1}, 2);
      double free_from = -kInf;
      for (const Tick& tick : axes.x_ticks()) {
        const double half = static_cast<double>(text_width(tick.label, 2)) / 2;
        EXPECT_GT(axes.pixel_x(tick.value) - half, free_from + 4) << tick.label << " in " << width;
        free_from = axes.pixel_x(tick.value) + half;
      }
      EXPECT_GE(axes.x_ticks().size(), 1U);
    }
  }
}

TEST(Axes, FrameTicksAndTitleStayOutsideTheArea) {
  Image image(500, 400);
  const Rect area{60, 40, 400, 300};
  image.fill_rectangle(area, kRed);
  const Axes axes(area, {0, 4}, {0, 3}, 2);
  axes.draw_frame(image);
  axes.draw_title(image, "density", "a note that is far too long to stand beside the title at full size");
  axes.draw_axis_names(image, "x", "y");
  EXPECT_EQ(count_color(image, kRed), 400 * 300);
  EXPECT_EQ(image.at(59, 39), kInkColor);
  EXPECT_EQ(image.at(460, 340), kInkColor);
  EXPECT_EQ(image.at(160, 345), kInkColor) << "tick of x = 1 at 60 + 100";
  EXPECT_EQ(image.at(55, 240), kInkColor) << "tick of y = 1 at 340 - 100";
}

TEST(Axes, ColorBarRunsFromBottomToTop) {
  Image image(120, 220);
  draw_color_bar(image, {10, 10, 18, 200}, {-12, 0}, viridis(), 2);
  for (const std::int64_t x : {10, 27}) {
    EXPECT_EQ(image.at(x, 10), viridis()(1));
    EXPECT_EQ(image.at(x, 209), viridis()(0));
  }
  EXPECT_EQ(image.at(30, 209 + 1), kInkColor) << "tick of -12 at the lower edge";
}

}  // namespace
}  // namespace bracket
