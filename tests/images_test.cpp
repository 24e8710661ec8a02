// Batches of stored pixels: which image, mirrored or not, and the numbers they become.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "kernels/formula/image_noise.h"
#include "ops_fixture.h"

namespace bracket::test {
namespace {

/// Random pixels.
HostMatrix pixel_table(std::int64_t images, std::int64_t cols) {
  std::mt19937_64 engine(test_seed());
  HostMatrix table(images, cols);
  for (double& value : table.values) value = static_cast<double>(engine() % 256);
  return table;
}

struct ImageCase {
  std::int64_t images;
  std::int64_t batch;
  std::int64_t height, width, channels;
};

/// Widths of one and odd, groups of 128 columns that are full, ragged and single, batches beyond an epoch.
constexpr std::array<ImageCase, 7> kCases{{{1, 3, 1, 1, 1},
                                           {50, 17, 4, 4, 3},
                                           {9, 33, 5, 7, 1},
                                           {7, 4, 8, 16, 1},
                                           {6, 5, 32, 32, 3},
                                           {300, 100, 3, 1, 43},
                                           {3, 0, 4, 4, 3}}};

class ImagesTest : public OpsTest {
 protected:
  static constexpr std::uint64_t kBatch = 5;
  RandomKey key() const { return {test_seed(), RandomStream::data, 2}; }

  HostMatrix gather(const ImageCase& c, const HostMatrix& table, const ImageTransform& t, DType dtype) const {
    const DeviceTensor stored = upload(context(), table, DType::u8, 3);
    const DeviceTensor y = empty_matrix(context(), dtype, c.batch, t.cols(), 1);
    const DeviceArray<std::int64_t> counter(context(), std::int64_t{kBatch - 2});
    ops().gather_images(y, stored, key(), counter.address(), t);
    return download(context(), y);
  }
  /// The rows that gather_batch takes.
  HostMatrix rows_of(const ImageCase& c, const HostMatrix& table) const {
    const DeviceTensor stored = upload(context(), table, DType::f64);
    const DeviceTensor y = empty_matrix(context(), DType::f64, c.batch, table.cols);
    const DeviceArray<std::int64_t> counter(context(), std::int64_t{kBatch - 2});
    ops().gather_batch(y, stored, key(), counter.address());
    return download(context(), y);
  }
  bool mirrored(std::int64_t row) const {
    return random_word({key().seed, key().stream, kBatch}, 16 + static_cast<std::uint64_t>(row)) < 0x80000000U;
  }
};

double as_stored(double value, DType dtype) {
  return dtype == DType::f32 ? static_cast<double>(static_cast<float>(value)) : value;
}

TEST_P(ImagesTest, ShowsTheRowsOfGatherBatch) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const ImageCase& c : kCases) {
      const ImageTransform t{c.height, c.width, c.channels};
      const HostMatrix table = pixel_table(c.images, t.cols());
      HostMatrix expected = rows_of(c, table);
      for (double& value : expected.values) value = as_stored(std::fma(t.scale, value, t.shift), dtype);
      EXPECT_MATRICES_IDENTICAL(gather(c, table, t, dtype), expected);
    }
  }
}

// A table that holds the batch already gives the bits of the table it was gathered from, mirrors and noise included.
TEST_P(ImagesTest, ATableInOrderShowsItsImagesAsTheyStand) {
  for (const ImageCase& c : kCases) {
    ImageTransform t{c.height, c.width, c.channels, true, true};
    const HostMatrix table = pixel_table(c.images, t.cols());
    const HostMatrix expected = gather(c, table, t, DType::f32);
    t.in_order = true;
    EXPECT_MATRICES_IDENTICAL(gather(c, rows_of(c, table), t, DType::f32), expected);
  }
}

TEST_P(ImagesTest, PixelsSpanMinusOneToOne) {
  HostMatrix table(1, 2);
  table.values = {0, 255};
  const HostMatrix y = gather({1, 1, 1, 2, 1}, table, {1, 2, 1}, DType::f32);
  EXPECT_EQ(y(0, 0), -1);
  EXPECT_EQ(y(0, 1), 1);
}

TEST_P(ImagesTest, MirrorsWholeImagesByTheirWord) {
  for (const ImageCase& c : kCases) {
    ImageTransform t{c.height, c.width, c.channels, true};
    t.scale = 1;
    t.shift = 0;
    const HostMatrix table = pixel_table(c.images, t.cols());
    const HostMatrix plain = rows_of(c, table);
    HostMatrix expected = plain;
    for (std::int64_t i = 0; i < c.batch; ++i) {
      if (!mirrored(i)) continue;
      for (std::int64_t y = 0; y < c.height; ++y) {
        for (std::int64_t x = 0; x < c.width; ++x) {
          for (std::int64_t k = 0; k < c.channels; ++k) {
            expected(i, (y * c.width + x) * c.channels + k) =
                plain(i, (y * c.width + c.width - 1 - x) * c.channels + k);
          }
        }
      }
    }
    EXPECT_MATRICES_IDENTICAL(gather(c, table, t, DType::f32), expected);
  }
}

TEST_P(ImagesTest, NoiseIsTheWordOfTheColumn) {
  for (const bool flip : {false, true}) {
    for (const ImageCase& c : kCases) {
      ImageTransform t{c.height, c.width, c.channels, flip, true};
      t.scale = 2.0 / 256;
      const HostMatrix table = pixel_table(c.images, t.cols());
      ImageTransform plain = t;
      plain.dequantise = false;
      plain.scale = 1;
      plain.shift = 0;
      HostMatrix expected = gather(c, table, plain, DType::f64);
      const RandomKey words{key().seed, key().stream, kBatch};
      const std::int64_t groups = (t.cols() + 127) / 128;
      for (std::int64_t i = 0; i < c.batch; ++i) {
        for (std::int64_t j = 0; j < t.cols(); ++j) {
          const std::int64_t block = (std::int64_t{1} << 38) + (i * groups + j / 128) * 32 + j % 32;
          const std::uint64_t element = static_cast<std::uint64_t>(4 * block + j / 32 % 4);
          expected(i, j) = std::fma(t.scale, expected(i, j) + random_uniform(words, element), t.shift);
        }
      }
      EXPECT_MATRICES_IDENTICAL(gather(c, table, t, DType::f64), expected);
      EXPECT_MATRICES_IDENTICAL(gather(c, table, t, DType::f32), expected.rounded(DType::f32));
    }
  }
}

TEST_P(ImagesTest, HalfOfTheImagesAreMirroredAndNoiseIsUniform) {
  // Images of two different pixels, 0 and 100: the first column tells whether an image is mirrored.
  constexpr std::int64_t kImages = 4000;
  HostMatrix table(1, 2);
  table.values = {0, 100};
  ImageTransform t{1, 2, 1, true, true};
  t.scale = 1;
  t.shift = 0;
  const HostMatrix y = gather({1, kImages, 1, 2, 1}, table, t, DType::f64);
  std::int64_t mirrored_count = 0;
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < kImages; ++i) {
    const bool mirror = y(i, 0) >= 100;
    mirrored_count += mirror ? 1 : 0;
    const double noise = y(i, 0) - (mirror ? 100 : 0);
    ASSERT_GT(noise, 0);
    ASSERT_LT(noise, 1);
    ASSERT_EQ(y(i, 1) >= 100, !mirror);
    sum += noise;
    squares += noise * noise;
  }
  // Five standard errors: of a fraction sqrt(1/4 / n); of the mean of a uniform sqrt(1/12 / n), of its square
  // sqrt(4/45 / n).
  const double n = kImages;
  EXPECT_NEAR(static_cast<double>(mirrored_count) / n, 0.5, 5 * std::sqrt(0.25 / n));
  EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
}

INSTANTIATE_TEST_SUITE_P(Devices, ImagesTest, ::testing::ValuesIn(test_devices()), device_name);

TEST(ImagesCpuTest, SameBitsForAnyNumberOfThreads) {
  const ImageTransform t{32, 32, 3, true, true};
  const HostMatrix pixels = pixel_table(77, t.cols());
  std::optional<HostMatrix> first;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    const std::unique_ptr<Context> context = TestDevice("cpu").make_context(options);
    const DeviceTensor table = upload(*context, pixels, DType::u8);
    const DeviceTensor y = empty(*context, DType::f32, {200, t.cols()});
    context->ops().gather_images(y, table, {test_seed(), RandomStream::data, 3}, nullptr, t);
    const HostMatrix result = download(*context, y);
    if (!first) first = result;
    EXPECT_MATRICES_IDENTICAL(result, *first);
  }
}

}  // namespace
}  // namespace bracket::test
