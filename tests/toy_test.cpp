// The samplers: same bits on every device, a sample is a function of its number, and labels are what the definitions
// say. That samples follow the densities is tested in toy_density_test.cpp.
#include "kernels/formula/toy.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

constexpr int kToyData = static_cast<int>(ToyData::swiss_roll_thin) + 1;

class ToyTest : public OpsTest {};
INSTANTIATE_TEST_SUITE_P(Devices, ToyTest, ::testing::ValuesIn(test_devices()), device_name);

TEST_P(ToyTest, SameBitsAsTheFormula) {
  const RandomKey key{test_seed(), RandomStream::data, 31};
  for (int d = 0; d < kToyData; ++d) {
    const auto data = static_cast<ToyData>(d);
    for (const std::int64_t n : {0, 1, 31, 32, 33, 127, 129, 1009}) {
      for (const DType dtype : {DType::f32, DType::f64}) {
        const DeviceTensor y = empty_matrix(context(), dtype, n, 2, n % 2 == 0 ? 0 : 3);
        ops().toy_samples(y, data, key, nullptr);
        HostMatrix expected(n, 2);
        for (std::int64_t i = 0; i < n; ++i) {
          const auto point =
              formula::toy_point(data, formula::philox_key(key, key.step), static_cast<std::uint64_t>(i));
          expected(i, 0) = point.x;
          expected(i, 1) = point.y;
        }
        ASSERT_TRUE(matrices_identical(download(context(), y), expected.rounded(dtype))) << "data " << d << ", n " << n;
      }
    }
  }
}

TEST_P(ToyTest, TheCounterAddsToTheStep) {
  const DeviceArray<std::int64_t> counter(context(), std::int64_t{11});
  const DeviceTensor a = empty(context(), DType::f64, {33, 2}), b = empty(context(), DType::f64, {33, 2});
  ops().toy_samples(a, ToyData::pinwheel, {3, RandomStream::data, 4}, counter.address());
  ops().toy_samples(b, ToyData::pinwheel, {3, RandomStream::data, 15}, nullptr);
  EXPECT_MATRICES_IDENTICAL(download(context(), a), download(context(), b));
}

/// Words of one sample do not overlap with the next one's: neighbours are uncorrelated to 5 standard errors.
TEST(ToySampleTest, NeighboursAreIndependent) {
  constexpr std::int64_t kCount = 100000;
  Context context;
  for (int d = 0; d < kToyData; ++d) {
    const DeviceTensor y = empty(context, DType::f64, {kCount, 2});
    context.ops().toy_samples(y, static_cast<ToyData>(d), {test_seed(), RandomStream::data, 8}, nullptr);
    const HostMatrix x = download(context, y);
    std::array<double, 2> mean{}, square{}, product{};
    for (std::int64_t i = 0; i < kCount; ++i) {
      for (std::size_t j = 0; j < 2; ++j) mean[j] += x(i, static_cast<std::int64_t>(j)) / kCount;
    }
    for (std::int64_t i = 0; i + 1 < kCount; ++i) {
      for (std::size_t j = 0; j < 2; ++j) {
        const double here = x(i, static_cast<std::int64_t>(j)) - mean[j];
        square[j] += here * here;
        product[j] += here * (x(i + 1, static_cast<std::int64_t>(j)) - mean[j]);
      }
    }
    for (std::size_t j = 0; j < 2; ++j) EXPECT_NEAR(product[j] / square[j], 0, 5 / std::sqrt(kCount)) << "data " << d;
  }
}

/// Fixed points of the definitions: u = 1/2 and no noise would put samples on these curves, so the noise must be all
/// that separates a sample from its curve.
TEST(ToySampleTest, SamplesLieWithinTheNoiseOfTheirCurves) {
  const formula::PhiloxKey key = formula::philox_key({test_seed(), RandomStream::data, 9}, 9);
  // The largest normal is 6.77 deviations, of two coordinates together less than 10.
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const auto rings = formula::toy_point(ToyData::rings, key, i);
    const double ring = std::hypot(rings.x, rings.y) / 0.75;
    EXPECT_LT(0.75 * std::abs(ring - std::clamp(std::rint(ring), 1.0, 4.0)), 10 * 0.08);
    const auto thin = formula::toy_point(ToyData::swiss_roll_thin, key, i);
    const double radius = 7.5 * std::hypot(thin.x, thin.y);
    EXPECT_GT(radius, 1.5 * std::numbers::pi - 10 * 0.25);
    EXPECT_LT(radius, 4.5 * std::numbers::pi + 10 * 0.25);
    const auto checker = formula::toy_point(ToyData::checkerboard, key, i);
    EXPECT_EQ((static_cast<int>(std::floor(checker.x / 2)) + static_cast<int>(std::floor(checker.y / 2))) % 2, 0);
    EXPECT_LT(std::max(std::abs(checker.x), std::abs(checker.y)), 4);
    const auto eight = formula::toy_point(ToyData::gaussians8, key, i);
    EXPECT_NEAR(std::hypot(eight.x, eight.y), 2 / 1.414, 10 * 0.02 / 1.414);
  }
}

}  // namespace
}  // namespace bracket::test
