// Drawing on images and PNG files: pixels are compared exactly wherever geometry fixes them; no stored picture is
// needed.
#include <gtest/gtest.h>
#include <png.h>

#include <array>
#include <cmath>
#include <numbers>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bracket/error.h"
#include "tests/picture_fixture.h"

namespace bracket {
namespace {

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

}  // namespace
}  // namespace bracket
