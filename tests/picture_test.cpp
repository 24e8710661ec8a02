// Pictures: pixels are compared exactly wherever geometry fixes them; no stored picture is needed.
#include <gtest/gtest.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <numbers>
#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bracket/error.h"
#include "host/picture/axes.h"
#include "host/picture/colormap.h"
#include "host/picture/font.h"
#include "host/picture/image.h"
#include "host/picture/plots.h"

namespace bracket {

void PrintTo(const Color& color, std::ostream* out) {
  *out << "rgb(" << int{color.red} << ", " << int{color.green} << ", " << int{color.blue} << ")";
}

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr Color kRed{255, 0, 0};

bool same(const Image& a, const Image& b) {
  return a.width() == b.width() && a.height() == b.height() &&
         std::equal(a.bytes().begin(), a.bytes().end(), b.bytes().begin());
}

std::int64_t count_color(const Image& image, Color color) {
  std::int64_t count = 0;
  for (std::int64_t y = 0; y < image.height(); ++y) {
    for (std::int64_t x = 0; x < image.width(); ++x) count += image.at(x, y) == color ? 1 : 0;
  }
  return count;
}

/// CIE L* of an sRGB colour, 0 to 100. A difference of about 2.3 is just noticeable.
double lightness(Color color) {
  const auto linear = [](int byte) {
    const double v = byte / 255.0;
    return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
  };
  const double y = 0.2126 * linear(color.red) + 0.7152 * linear(color.green) + 0.0722 * linear(color.blue);
  return y > 0.008856 ? 116 * std::cbrt(y) - 16 : 903.3 * y;
}
constexpr double kJustNoticeable = 2.3;

// ---------------------------------------------------------------------------------------------------------- Image

TEST(Image, RefusesImpossibleSizes) {
  EXPECT_THROW(Image(-1, 4), InvalidArgument);
  EXPECT_THROW(Image(4, -1), InvalidArgument);
  EXPECT_THROW(Image(std::int64_t{1} << 40, std::int64_t{1} << 40), InvalidArgument);
  EXPECT_EQ(Image(0, 5).bytes().size(), 0U);
}

TEST(Image, EveryShapeIsClipped) {
  Image image(8, 6);
  image.set(-1, 0, kRed);
  image.set(8, 0, kRed);
  image.blend(0, 6, kRed, 1);
  image.fill_rectangle({-10, -10, 10, 40}, kRed);
  image.draw_frame({-1, -1, 10, 8}, 1, kRed);
  image.fill_disc(kNaN, 2, 3, kRed);
  image.fill_disc(1e300, 1e300, 3, kRed);
  image.draw_line(0, 0, kInf, 3, 2, kRed);
  image.blit(Image(4, 4, kRed), 8, 0);
  image.blit(Image(4, 4, kRed), -4, 0);
  EXPECT_EQ(count_color(image, kWhite), 48);
  EXPECT_THROW(image.at(8, 0), InvalidArgument);
  EXPECT_THROW(image.at(0, -1), InvalidArgument);
}

TEST(Image, BlendRoundsToTheNearestByte) {
  Image image(4, 1, {0, 100, 200});
  image.blend(0, 0, {255, 0, 200}, 0.5);
  image.blend(1, 0, kRed, 0);
  image.blend(2, 0, kRed, 7);
  image.blend(3, 0, kRed, kNaN);
  EXPECT_EQ(image.at(0, 0), (Color{128, 50, 200}));
  EXPECT_EQ(image.at(1, 0), (Color{0, 100, 200}));
  EXPECT_EQ(image.at(2, 0), kRed);
  EXPECT_EQ(image.at(3, 0), (Color{0, 100, 200}));
}

TEST(Image, BlitAndFrameTouchExactlyTheirPixels) {
  Image source(3, 2);
  source.set(2, 1, kRed);
  Image image(8, 8);
  image.blit(source, -1, 5);
  EXPECT_EQ(image.at(1, 6), kRed);
  EXPECT_EQ(count_color(image, kRed), 1);
  Image framed(10, 9);
  framed.draw_frame({3, 3, 4, 3}, 2, kRed);
  EXPECT_EQ(count_color(framed, kRed), 8 * 7 - 4 * 3);
  for (std::int64_t y = 3; y < 6; ++y) {
    for (std::int64_t x = 3; x < 7; ++x) EXPECT_EQ(framed.at(x, y), kWhite);
  }
}

TEST(Image, AxisParallelLinesAreCrisp) {
  Image image(20, 20);
  image.draw_line(10, -5, 10, 30, 2, kRed);  // covers columns 9 and 10 exactly
  EXPECT_EQ(count_color(image, kRed), 40);
  EXPECT_EQ(count_color(image, kWhite), 360);
  EXPECT_EQ(image.at(9, 0), kRed);
  EXPECT_EQ(image.at(10, 19), kRed);
}

TEST(Image, DiscIsFullInsideEmptyOutsideAndFadesWhenTiny) {
  constexpr double kRadius = 6.3;
  Image image(20, 20);
  image.fill_disc(9.7, 10.2, kRadius, kBlack);
  for (std::int64_t y = 0; y < 20; ++y) {
    for (std::int64_t x = 0; x < 20; ++x) {
      const double distance = std::hypot(static_cast<double>(x) + 0.5 - 9.7, static_cast<double>(y) + 0.5 - 10.2);
      if (distance < kRadius - 0.5) {
        EXPECT_EQ(image.at(x, y), kBlack);
      }
      if (distance > kRadius + 0.5) {
        EXPECT_EQ(image.at(x, y), kWhite);
      }
    }
  }
  Image tiny(3, 3);
  tiny.fill_disc(1.5, 1.5, 0.1, kBlack);  // area pi / 100: 255 (1 - 0.0314) = 246.99
  EXPECT_EQ(tiny.at(1, 1), (Color{247, 247, 247}));
  EXPECT_EQ(count_color(tiny, kWhite), 8);
}

TEST(Image, SlopedLineCoversItsLengthTimesItsThickness) {
  Image image(200, 120);
  image.draw_line(20, 15, 180, 100, 3, kBlack);
  double ink = 0;
  for (const std::uint8_t byte : image.bytes()) ink += (255 - byte) / (3 * 255.0);
  // A ramp of one pixel across an edge keeps the area of the body; a round end adds pi (r^2 + 1/12) / 2 instead of
  // pi r^2 / 2. Sampling at pixel centres errs by less than 1/8 pixel per unit of perimeter that is not axis-parallel,
  // with alternating sign; 1 % leaves that room and is far below one row of pixels more or less (33 %).
  const double length = std::hypot(160.0, 85.0);
  const double area = 3 * length + std::numbers::pi * (1.5 * 1.5 + 1.0 / 12);
  EXPECT_NEAR(ink, area, 0.01 * area);
}

// ------------------------------------------------------------------------------------------------------------ PNG

Image noise(std::int64_t width, std::int64_t height) {
  std::mt19937 random(7);
  Image image(width, height);
  for (std::uint8_t& byte : image.bytes()) byte = static_cast<std::uint8_t>(random());
  return image;
}

std::vector<std::byte> encode_with_libpng(png_uint_32 format, png_uint_32 width, png_uint_32 height, const void* pixels,
                                          const void* palette) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = format;
  image.colormap_entries = palette == nullptr ? 0 : 2;
  png_alloc_size_t size = 1 << 20;
  std::vector<std::byte> file(size);
  EXPECT_NE(png_image_write_to_memory(&image, file.data(), &size, 0, pixels, 0, palette), 0) << image.message;
  file.resize(size);
  return file;
}

TEST(Png, RoundTripKeepsEveryByte) {
  for (const auto& [width, height] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {1, 7}, {7, 1}, {37, 23}, {640, 3}}) {
    const Image image = noise(width, height);
    const std::vector<std::byte> file = encode_png(image);
    EXPECT_EQ(file[1], std::byte{'P'});
    EXPECT_TRUE(same(decode_png(file), image)) << width << " x " << height;
  }
}

TEST(Png, RefusesEmptyAndOverlongImages) {
  EXPECT_THROW(encode_png(Image(0, 0)), DataError);
  EXPECT_THROW(encode_png(Image(5, 0)), DataError);
  EXPECT_THROW(encode_png(Image(1000001, 1)), DataError);  // libpng's limit on a side
}

TEST(Png, ReadsGrayAndNamesWhatItDoesNotRead) {
  const std::array<std::uint8_t, 3> gray{0, 77, 255};
  const Image image = decode_png(encode_with_libpng(PNG_FORMAT_GRAY, 3, 1, gray.data(), nullptr));
  EXPECT_EQ(image.at(0, 0), kBlack);
  EXPECT_EQ(image.at(1, 0), (Color{77, 77, 77}));
  EXPECT_EQ(image.at(2, 0), kWhite);
  const std::array<std::uint16_t, 3> deep{1, 2, 3};
  EXPECT_THROW(decode_png(encode_with_libpng(PNG_FORMAT_LINEAR_Y, 3, 1, deep.data(), nullptr)), DataError);
  const std::array<std::uint8_t, 6> palette{1, 2, 3, 4, 5, 6};
  const std::array<std::uint8_t, 3> indices{0, 1, 0};
  const Image mapped = decode_png(encode_with_libpng(PNG_FORMAT_RGB_COLORMAP, 3, 1, indices.data(), palette.data()));
  EXPECT_EQ(mapped.at(0, 0), (Color{1, 2, 3}));
  EXPECT_EQ(mapped.at(1, 0), (Color{4, 5, 6}));
  EXPECT_EQ(mapped.at(2, 0), (Color{1, 2, 3}));
  const std::array<std::uint8_t, 4> rgba{1, 2, 3, 128};
  EXPECT_THROW(decode_png(encode_with_libpng(PNG_FORMAT_RGBA, 1, 1, rgba.data(), nullptr)), DataError);
}

TEST(Png, EveryTruncationIsAnErrorAndNoFlippedBitCrashes) {
  const std::vector<std::byte> file = encode_png(noise(9, 5));
  // The last 12 bytes are the empty IEND chunk; the pixels are complete without it.
  for (std::size_t size = 0; size + 12 < file.size(); ++size) {
    EXPECT_THROW(decode_png(std::span(file).first(size)), DataError) << size << " of " << file.size() << " bytes";
  }
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < 8 * file.size(); ++bit) {
    std::vector<std::byte> damaged = file;
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    try {
      EXPECT_EQ(decode_png(damaged).height(), 5) << "bit " << bit;
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 7 * file.size());  // only bits of ancillary chunks and of IEND may pass
}

TEST(Png, RefusesASmallFileThatClaimsAHugeImageBeforeAllocating) {
  std::vector<std::byte> file = encode_png(noise(2, 2));
  constexpr std::size_t kHeader = 12;  // "IHDR" and its 13 bytes are checksummed
  file[kHeader + 4 + 1] = std::byte{0x0F};
  file[kHeader + 8 + 1] = std::byte{0x0F};  // about 983,000 x 983,000
  std::uint32_t crc = 0xFFFFFFFFU;
  for (std::size_t i = kHeader; i < kHeader + 17; ++i) {
    crc ^= std::to_integer<std::uint32_t>(file[i]);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
  }
  crc = ~crc;
  for (std::size_t i = 0; i < 4; ++i) file[kHeader + 17 + i] = static_cast<std::byte>(crc >> (24 - 8 * i));
  try {
    decode_png(file);
    FAIL() << "accepted";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("claims"), std::string::npos) << error.what();
  }
}

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

// ------------------------------------------------------------------------------------------------- Density figures

/// The data areas: found by their frames, which are longer than anything else of that colour.
std::vector<Rect> frames(const Image& image) {
  const auto is_frame = [&](std::int64_t x, std::int64_t y) {
    return x < image.width() && y < image.height() && image.at(x, y) == kInkColor;
  };
  std::vector<Rect> found;
  for (std::int64_t y = 0; y < image.height(); ++y) {
    for (std::int64_t x = 0; x < image.width(); ++x) {
      std::int64_t end = x;
      while (is_frame(end, y)) ++end;
      if (end - x >= 150) {
        std::int64_t bottom = y;
        while (is_frame(x, bottom)) ++bottom;
        found.push_back({x + 1, y + 1, end - x - 2, bottom - y - 2});
      }
      x = std::max(x, end);
    }
    if (!found.empty()) return found;
  }
  return found;
}

Color color_at(const Image& image, const Rect& area, double across, double up) {
  return image.at(area.left + static_cast<std::int64_t>(across * static_cast<double>(area.width)),
                  area.bottom() - 1 - static_cast<std::int64_t>(up * static_cast<double>(area.height)));
}

std::int64_t count_in(const Image& image, const Rect& area, Color color) {
  std::int64_t count = 0;
  for (std::int64_t y = area.top; y < area.bottom(); ++y) {
    for (std::int64_t x = area.left; x < area.right(); ++x) count += image.at(x, y) == color ? 1 : 0;
  }
  return count;
}

DensityFigure small_figure() { return {"caption", {{-4, 4}, {-4, 4}}, {}, {}, {2, 2, {0, -1, -2, -3}}, 12}; }

TEST(DensityFigures, FourPanelsOf400PixelsAndTwoForTheDemo) {
  const Image four = density_figure(small_figure());
  ASSERT_EQ(frames(four).size(), 4U);
  for (const Rect& area : frames(four)) {
    EXPECT_EQ(area.width, 400);
    EXPECT_EQ(area.height, 400);
  }
  const Image two = two_panel_figure(small_figure());
  ASSERT_EQ(frames(two).size(), 2U);
  // Empty point sets leave their panels white, and the density panel is the same picture in both figures.
  EXPECT_EQ(count_in(four, frames(four)[0], kWhite), 400 * 400);
  EXPECT_EQ(count_in(four, frames(four)[1], kWhite), 400 * 400);
  EXPECT_EQ(count_in(two, frames(two)[0], kWhite), 400 * 400);
  const Color top = viridis()(1);
  EXPECT_EQ(count_in(four, frames(four)[2], top), 200 * 200);
  EXPECT_EQ(count_in(two, frames(two)[1], top), 200 * 200);
}

TEST(DensityFigures, RowZeroOfTheGridIsAtTheBottom) {
  const Image image = density_figure(small_figure());
  const Rect density = frames(image)[2];
  const Rect log_density = frames(image)[3];
  const std::array<std::array<double, 3>, 4> cells{
      {{0.02, 0.02, 0}, {0.98, 0.02, -1}, {0.02, 0.98, -2}, {0.98, 0.98, -3}}};
  for (const auto& [across, up, value] : cells) {
    EXPECT_EQ(color_at(image, density, across, up), viridis_root()(std::exp(value)));
    EXPECT_EQ(color_at(image, log_density, across, up), viridis()(1 + value / 12));
  }
}

TEST(DensityFigures, FloorClipsAndNonFiniteCellsAreMarked) {
  DensityFigure figure = small_figure();
  figure.log_floor = 2;
  figure.grid.log_density = {-5, -7.5, -kInf, kNaN};
  const Image image = density_figure(figure);
  const Rect log_density = frames(image)[3];
  EXPECT_EQ(color_at(image, log_density, 0.2, 0.2), viridis()(1));
  EXPECT_EQ(color_at(image, log_density, 0.8, 0.2), viridis()(0));
  EXPECT_EQ(color_at(image, log_density, 0.2, 0.8), viridis()(0));
  EXPECT_EQ(color_at(image, log_density, 0.8, 0.8), kNotANumberColor);
  EXPECT_EQ(color_at(image, frames(image)[2], 0.2, 0.8), viridis()(0));
  EXPECT_EQ(color_at(image, frames(image)[2], 0.8, 0.8), kNotANumberColor);
}

TEST(DensityFigures, DrawsWhateverAnEnergyMayReturn) {
  for (const std::vector<double>& values : std::vector<std::vector<double>>{{kNaN, kNaN, kNaN, kNaN},
                                                                            {-kInf, -kInf, -kInf, -kInf},
                                                                            {kInf, kInf, 0, -1},
                                                                            {1e9, 0, -1e9, 1},
                                                                            {-1e300, 1e300, 0, 0},
                                                                            {-2000, -2001, -2002, -2003},
                                                                            {3, 3, 3, 3}}) {
    DensityFigure figure = small_figure();
    figure.grid.log_density = values;
    const Image image = density_figure(figure);
    ASSERT_EQ(frames(image).size(), 4U) << values[0];
    for (const std::size_t panel : {2U, 3U}) {
      const double largest = *std::max_element(values.begin(), values.end());
      const Color expected = std::isnan(values[0]) ? kNotANumberColor : viridis()(largest == -kInf ? 0 : 1);
      EXPECT_GE(count_in(image, frames(image)[panel], expected), 200 * 200) << values[0];
    }
  }
}

TEST(DensityFigures, FinerGridsShowTheMeanDensityOfTheirCells) {
  constexpr std::int64_t kCells = 800;
  DensityFigure figure = small_figure();
  figure.grid = {kCells, kCells, {}};
  for (std::int64_t row = 0; row < kCells; ++row) {
    for (std::int64_t column = 0; column < kCells; ++column) {
      const double checkerboard = (row + column) % 2 == 0 ? 0 : -kInf;  // mean 1/2 over the 2 x 2 cells of a pixel
      figure.grid.log_density.push_back(column < kCells / 2 ? checkerboard : std::log(0.25));
    }
  }
  const Image image = density_figure(figure);
  EXPECT_EQ(count_in(image, frames(image)[2], viridis_root()(1)), 200 * 400);
  const Color half = color_at(image, frames(image)[2], 0.75, 0.5);
  EXPECT_NEAR(half.green, viridis_root()(0.5).green, 1);  // exp and log may round the level across a half byte
  EXPECT_EQ(count_in(image, frames(image)[2], half), 200 * 400);
}

TEST(DensityFigures, AnyGridSizeCoversThePanel) {
  for (const std::int64_t columns : {1, 3, 399, 401, 1000}) {
    DensityFigure figure = small_figure();
    figure.grid = {columns, 7, std::vector<double>(static_cast<std::size_t>(columns * 7), -1.5)};
    const Image image = density_figure(figure);
    // All cells are equal; weights that sum to 1 within rounding keep the level above 1 - 1e-12.
    EXPECT_EQ(count_in(image, frames(image)[2], viridis()(1)), 400 * 400) << columns;
  }
}

TEST(DensityFigures, PointsLandOnTheirPixels) {
  DensityFigure figure = small_figure();
  figure.data = {{0.01, 0.01}};  // the centre of pixel (200, 199) of the panel: 8 / 400 data units per pixel
  figure.samples = {{-4, -4}, {4, 4}, {4.001, 0}, {0, -9}, {kNaN, 0}, {0, kInf}};
  const Image image = density_figure(figure);
  const Rect data = frames(image)[0];
  const Rect samples = frames(image)[1];
  EXPECT_EQ(image.at(data.left + 200, data.top + 199), ink()(1));
  EXPECT_GT(count_in(image, data, kWhite), 400 * 400 - 36) << "a disc of radius 2.2 stays within 6 x 6 pixels";
  EXPECT_NE(image.at(samples.left, samples.bottom() - 1), kWhite);
  EXPECT_NE(image.at(samples.right() - 1, samples.top), kWhite);
  EXPECT_EQ(image.at(samples.left, samples.top), kWhite);
  EXPECT_GT(count_in(image, samples, kWhite), 400 * 400 - 2 * 9) << "points outside leave no ink at the edges";
}

TEST(DensityFigures, OnePointStaysVisibleBesideAMillion) {
  DensityFigure figure = small_figure();
  figure.data.assign(1'000'000, {-2, -2});
  figure.data.push_back({2.01, 2.01});
  const Image image = density_figure(figure);
  const Rect data = frames(image)[0];
  const Color lone = image.at(data.left + 300, data.top + 99);
  EXPECT_LT(lightness(lone), 100 - kJustNoticeable);
  EXPECT_GT(lightness(lone), lightness(color_at(image, data, 0.25, 0.25)) + 50);
}

TEST(DensityFigures, KeepTheAspectRatioOfTheBoxUpToTwo) {
  DensityFigure figure = small_figure();
  figure.box = {{0, 8}, {0, 4}};
  const Image flat = density_figure(figure);
  EXPECT_EQ(frames(flat)[3].width, 400);
  EXPECT_EQ(frames(flat)[3].height, 200);
  figure.box = {{0, 3}, {0, 4}};
  const Image tall = density_figure(figure);
  EXPECT_EQ(frames(tall)[3].width, 300);
  EXPECT_EQ(frames(tall)[3].height, 400);
  figure.box = {{0, 100}, {0, 1}};
  const Image stretched = density_figure(figure);
  EXPECT_EQ(frames(stretched)[3].height, 400);
}

TEST(DensityFigures, LongCaptionsWrapAndEmptyOnesTakeNoRoom) {
  DensityFigure figure = small_figure();
  const Image once = density_figure(figure);
  figure.caption.clear();
  EXPECT_EQ(density_figure(figure).height(), once.height() - line_height(3));
  for (int i = 0; i < 200; ++i) figure.caption += "caption ";
  const Image wrapped = density_figure(figure);
  EXPECT_EQ(wrapped.width(), once.width());
  EXPECT_GT(wrapped.height(), once.height());
}

TEST(DensityFigures, BadInputIsAnError) {
  const auto refused = [](auto&& change) {
    DensityFigure figure = small_figure();
    change(figure);
    EXPECT_THROW(density_figure(figure), InvalidArgument);
  };
  refused([](DensityFigure& f) { f.box.x = {1, 1}; });
  refused([](DensityFigure& f) { f.box.y = {4, -4}; });
  refused([](DensityFigure& f) { f.box.y = {0, kNaN}; });
  refused([](DensityFigure& f) { f.grid = {}; });
  refused([](DensityFigure& f) { f.grid.columns = 3; });
  refused([](DensityFigure& f) { f.grid.rows = std::int64_t{1} << 62; });
  refused([](DensityFigure& f) { f.grid.columns = -2, f.grid.rows = -2; });
  refused([](DensityFigure& f) { f.log_floor = 0; });
  refused([](DensityFigure& f) { f.log_floor = kNaN; });
}

// ------------------------------------------------------------------------------------------------------ Image grids

TEST(SampleGrids, PlacesMagnifiesAndClamps) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values{0, 1, -3, 7, 0.2F, nan};  // three images of one row of two pixels
  const Image image = sample_grid({3, 1, 2, 1, values, 2, 3, 2});
  ASSERT_EQ(image.width(), 2 + 2 * (2 * 3 + 2));
  ASSERT_EQ(image.height(), 2 + 2 * (3 + 2));
  const Color gap = image.at(0, 0);
  EXPECT_EQ(image.at(2, 2), kBlack);
  EXPECT_EQ(image.at(4, 4), kBlack);
  EXPECT_EQ(image.at(5, 2), kWhite);
  EXPECT_EQ(image.at(8, 2), gap);
  EXPECT_EQ(image.at(10, 2), kBlack);
  EXPECT_EQ(image.at(13, 2), kWhite);
  EXPECT_EQ(image.at(2, 7), (Color{51, 51, 51}));
  EXPECT_EQ(image.at(5, 7), (Color{255, 0, 255}));
  EXPECT_EQ(count_color(image, gap), 18 * 12 - 6 * 9) << "the place of the missing fourth image shows the gap colour";
}

TEST(SampleGrids, ColourImagesAreChannelLastAndNearlySquare) {
  const std::vector<float> values{1, 0, 0, 0, 1, 0, 0, 0, 1, 0.2F, 0.4F, 0.6F, 1, 1, 1};
  const Image image = sample_grid({5, 1, 1, 3, values, 0, 1, 0});
  ASSERT_EQ(image.width(), 3);
  ASSERT_EQ(image.height(), 2);
  EXPECT_EQ(image.at(0, 0), kRed);
  EXPECT_EQ(image.at(1, 0), (Color{0, 255, 0}));
  EXPECT_EQ(image.at(2, 0), (Color{0, 0, 255}));
  EXPECT_EQ(image.at(0, 1), (Color{51, 102, 153}));
}

TEST(SampleGrids, BadInputIsAnError) {
  const std::vector<float> values(12);
  const std::int64_t huge = std::int64_t{1} << 62;
  for (const SampleGrid& grid : std::vector<SampleGrid>{{0, 2, 2, 1, {}, 0, 2, 2},
                                                        {3, 0, 2, 1, values, 0, 2, 2},
                                                        {3, 2, 2, 2, values, 0, 2, 2},
                                                        {4, 2, 2, 1, values, 0, 2, 2},
                                                        {3, 2, 2, 1, values, -1, 2, 2},
                                                        {3, 2, 2, 1, values, 0, 0, 2},
                                                        {3, 2, 2, 1, values, 0, 2, -1},
                                                        {huge, huge, 4, 1, values, 0, 2, 2},
                                                        {3, 2, 2, 1, values, 0, huge, 2},
                                                        {3, 2, 2, 1, values, 0, 2, huge},
                                                        {3, 2, 2, 1, values, 0, 1 << 20, 2}}) {
    EXPECT_THROW(sample_grid(grid), InvalidArgument);
  }
}

// ----------------------------------------------------------------------------------------------------- Line charts

constexpr Color kFirstLine{0, 114, 178};

TEST(LineCharts, ADiagonalJoinsTheCorners) {
  const Image image = line_chart({"", "", "", {{"s", {0, 10}, {0, 5}}}, Range{0, 5}});
  const Rect area = frames(image).at(0);
  EXPECT_EQ(image.at(area.left, area.bottom() - 1), kFirstLine);
  EXPECT_EQ(image.at(area.right() - 1, area.top), kFirstLine);
  EXPECT_EQ(color_at(image, area, 0.5, 0.5), kFirstLine);
  EXPECT_NE(color_at(image, area, 0.25, 0.75), kFirstLine);
}

TEST(LineCharts, NonFiniteValuesInterruptTheLineAndLonePointsAreDots) {
  const Image image = line_chart({"", "", "", {{"s", {0, 4, 5, 6, 10}, {1, 1, kNaN, kInf, 1}}}, Range{0, 2}});
  const Rect area = frames(image).at(0);
  EXPECT_EQ(color_at(image, area, 0.2, 0.5), kFirstLine);
  EXPECT_NE(color_at(image, area, 0.7, 0.5), kFirstLine);
  EXPECT_EQ(image.at(area.right() - 1, area.top + area.height / 2), kFirstLine);
}

TEST(LineCharts, AMillionPointsKeepTheirExtremes) {
  Series line{"s", {}, {}};
  for (int i = 0; i < 1'000'000; ++i) {
    line.x.push_back(i);
    line.y.push_back(i == 612'345 ? 1 : i == 250'000 ? -1 : 0);
  }
  const Image image = line_chart({"", "", "", {line}, Range{-1.1, 1.1}});
  const Rect area = frames(image).at(0);
  EXPECT_EQ(color_at(image, area, 0.612345, 1.9 / 2.2), kFirstLine);
  EXPECT_EQ(color_at(image, area, 0.25, 0.3 / 2.2), kFirstLine);
  EXPECT_NE(color_at(image, area, 0.4, 1.9 / 2.2), kFirstLine);
}

TEST(LineCharts, RiseAndFallWithinOneColumnAreDrawn) {
  const Image image = line_chart({"", "", "", {{"s", {0, 0, 10, 10}, {0, 2, 2, 0}}}, Range{0, 2}});
  const Rect area = frames(image).at(0);
  for (std::int64_t y = area.top; y < area.bottom(); ++y) {
    ASSERT_EQ(image.at(area.left, y), kFirstLine) << y;
    ASSERT_EQ(image.at(area.right() - 1, y), kFirstLine) << y;
  }
}

TEST(LineCharts, ValuesFarOutsideTheGivenRangeAreClipped) {
  const Image image = line_chart({"", "", "", {{"s", {0, 1, 2, 3}, {1, 1e300, -1e300, 1}}}, Range{0, 2}});
  const Rect area = frames(image).at(0);
  // Each stroke crosses the panel within a fraction of a pixel: upwards at x = 0, downwards at 1.5, upwards at 3.
  for (const double up : {0.6, 0.9}) {
    EXPECT_EQ(image.at(area.left, area.bottom() - 1 - std::llround(up * static_cast<double>(area.height))), kFirstLine);
    EXPECT_EQ(color_at(image, area, 0.5, up), kFirstLine);
    EXPECT_EQ(color_at(image, area, 0.5, 1 - up), kFirstLine);
    EXPECT_NE(color_at(image, area, 0.3, up), kFirstLine);
  }
  EXPECT_GT(count_in(image, area, kWhite), area.width * area.height / 2);
}

TEST(LineCharts, EmptySingleConstantAndManySeries) {
  for (const std::vector<Series>& series :
       std::vector<std::vector<Series>>{{}, {{"s", {}, {}}}, {{"s", {kNaN}, {1}}}, {{"s", {3}, {kInf}}}}) {
    const Image image = line_chart({"title", "x", "y", series, std::nullopt});
    EXPECT_EQ(count_in(image, frames(image).at(0), kFirstLine), 0);
  }
  const Image single = line_chart({"title", "x", "y", {{"s", {3}, {-2}}}, std::nullopt});
  EXPECT_EQ(color_at(single, frames(single).at(0), 0.5, 0.5), kFirstLine);
  const Image constant = line_chart({"title", "x", "y", {{"s", {0, 1}, {7, 7}}}, std::nullopt});
  EXPECT_EQ(color_at(constant, frames(constant).at(0), 0.5, 0.5), kFirstLine);
  std::vector<Series> many;
  for (int i = 0; i < 20; ++i) many.push_back({"series number " + std::to_string(i), {0, 1}, {i * 1.0, i * 1.0}});
  const Image image = line_chart({"title", "x", "y", many, Range{-1, 20}});
  const Rect area = frames(image).at(0);
  EXPECT_GT(area.top, frames(constant).at(0).top) << "the legend takes more rows";
  std::set<std::array<int, 3>> colors;
  for (int i = 0; i < 20; ++i) {
    const Color color = color_at(image, area, 0.5, (i + 1) / 21.0);
    colors.insert({color.red, color.green, color.blue});
  }
  EXPECT_EQ(colors.size(), 20U);
}

TEST(LineCharts, BadInputIsAnError) {
  EXPECT_THROW(line_chart({"", "", "", {{"s", {1, 2}, {1}}}, std::nullopt}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, Range{2, 1}}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, 50, 400}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, 400, 90}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, std::numeric_limits<std::int64_t>::min(), 400}),
               InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, std::int64_t{1} << 60, 400}), InvalidArgument);
  EXPECT_THROW(line_chart({std::string(20000, 'm'), "", "", {}, std::nullopt}), InvalidArgument);
}

}  // namespace
}  // namespace bracket
