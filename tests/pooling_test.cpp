// Windows that tile images, against loops in double over pixels.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

struct PoolCase {
  std::int64_t rows;
  Window map;
  std::int64_t padding = 0;
  std::string text() const {
    return std::to_string(rows) + " images " + std::to_string(map.height) + " x " + std::to_string(map.width) + " x " +
           std::to_string(map.channels) + ", window " + std::to_string(map.window);
  }
};

/// Whole-image windows, single pixels, one and many channels, no rows, no pixels, no channels.
const std::array<PoolCase, 12> kCases{{{3, {4, 6, 3, 2, 0.25}},
                                       {2, {8, 8, 17, 8, 1}},
                                       {5, {1, 1, 1, 1, 2}},
                                       {1, {28, 28, 1, 2, 0.25}, 3},
                                       {33, {2, 2, 64, 2, 1}},
                                       {17, {3, 9, 33, 3, 1.0 / 9}, 1},
                                       {4, {15, 5, 2, 5, 1}},
                                       {130, {4, 4, 8, 1, -0.5}},
                                       {0, {4, 4, 8, 2, 1}},
                                       {3, {0, 4, 8, 2, 1}},
                                       {3, {4, 4, 0, 2, 1}},
                                       {2, {32, 32, 3, 4, 1.0 / 16}}}};

std::int64_t large_column(const Window& map, std::int64_t y, std::int64_t x, std::int64_t c) {
  return (y * map.width + x) * map.channels + c;
}
std::int64_t small_column(const Window& map, std::int64_t y, std::int64_t x, std::int64_t c) {
  return (y / map.window * (map.width / map.window) + x / map.window) * map.channels + c;
}

/// f(large column, small column, position in the window) for all elements.
template <class F>
void for_each_element(const Window& map, F&& f) {
  for (std::int64_t y = 0; y < map.height; ++y) {
    for (std::int64_t x = 0; x < map.width; ++x) {
      for (std::int64_t c = 0; c < map.channels; ++c) {
        f(large_column(map, y, x, c), small_column(map, y, x, c), y % map.window * map.window + x % map.window);
      }
    }
  }
}

class PoolingTest : public OpsTest {};

TEST_P(PoolingTest, WindowSumMatchesReference) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const PoolCase& c : kCases) {
      const HostMatrix x = random_matrix(c.rows, c.map.large_cols(), 1).rounded(dtype);
      for (const Update update : {Update::overwrite, Update::accumulate}) {
        const double start = update == Update::accumulate ? 0.5 : std::numeric_limits<double>::quiet_NaN();
        HostMatrix expected(c.rows, c.map.small_cols(), update == Update::accumulate ? 0.5 : 0);
        for (std::int64_t i = 0; i < c.rows; ++i) {
          for_each_element(c.map, [&](std::int64_t large, std::int64_t small, std::int64_t) {
            expected(i, small) += c.map.scale * x(i, large);
          });
        }
        const DeviceTensor in = upload(context(), x, dtype, c.padding);
        const DeviceTensor out = upload(context(), HostMatrix(c.rows, c.map.small_cols(), start), dtype, c.padding);
        ops().window_sum(out, in, c.map, update);
        // |x| <= 1: w^2 products, w^2 sums and the rounding of the scale, each within u of a partial sum.
        const auto terms = static_cast<double>(c.map.window * c.map.window);
        const double magnitude = 0.5 + std::abs(c.map.scale) * terms;
        EXPECT_MATRICES_CLOSE(download(context(), out), expected,
                              absolute_limit((terms + 3) * unit_roundoff(dtype) * magnitude))
            << c.text();
      }
    }
  }
}

TEST_P(PoolingTest, WindowSpreadMatchesReference) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const PoolCase& c : kCases) {
      const HostMatrix x = random_matrix(c.rows, c.map.small_cols(), 1).rounded(dtype);
      for (const Update update : {Update::overwrite, Update::accumulate}) {
        const double start = update == Update::accumulate ? 0.5 : std::numeric_limits<double>::quiet_NaN();
        HostMatrix expected(c.rows, c.map.large_cols(), update == Update::accumulate ? 0.5 : 0);
        for (std::int64_t i = 0; i < c.rows; ++i) {
          for_each_element(c.map, [&](std::int64_t large, std::int64_t small, std::int64_t) {
            expected(i, large) += c.map.scale * x(i, small);
          });
        }
        const DeviceTensor in = upload(context(), x, dtype, c.padding);
        const DeviceTensor out = upload(context(), HostMatrix(c.rows, c.map.large_cols(), start), dtype, c.padding);
        ops().window_spread(out, in, c.map, update);
        // One product, one sum, the rounding of the scale.
        EXPECT_MATRICES_CLOSE(download(context(), out), expected,
                              absolute_limit(3 * unit_roundoff(dtype) * (0.5 + std::abs(c.map.scale))))
            << c.text();
      }
    }
  }
}

TEST_P(PoolingTest, SumAndSpreadAreAdjoint) {
  for (const PoolCase& c : kCases) {
    const HostMatrix x = random_matrix(c.rows, c.map.large_cols(), 1), v = random_matrix(c.rows, c.map.small_cols(), 2);
    const DeviceTensor in = upload(context(), x), seed = upload(context(), v);
    const DeviceTensor out = empty_matrix(context(), DType::f64, c.rows, c.map.small_cols());
    const DeviceTensor back = empty_matrix(context(), DType::f64, c.rows, c.map.large_cols());
    ops().window_sum(out, in, c.map, Update::overwrite);
    ops().window_spread(back, seed, c.map, Update::overwrite);
    const HostMatrix y = download(context(), out), grad = download(context(), back);
    double left = 0, right = 0;
    for (std::size_t k = 0; k < y.values.size(); ++k) left += y.values[k] * v.values[k];
    for (std::size_t k = 0; k < x.values.size(); ++k) right += x.values[k] * grad.values[k];
    // All factors are at most 1 in magnitude but the scale: n terms, at most n roundings of partial sums up to n.
    const auto n = static_cast<double>(x.size());
    EXPECT_NEAR(left, right, 1e-13 * std::abs(c.map.scale) * std::sqrt(n) * std::max(1.0, std::sqrt(n))) << c.text();
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, PoolingTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
