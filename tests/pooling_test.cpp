// Windows that tile images, against loops in double over pixels: sums, spreads, largest elements.
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

/// Whole-image windows, single pixels, one and many channels (more than are compared at once), no rows, no pixels, no
/// channels.
const std::array<PoolCase, 13> kCases{{{3, {4, 6, 3, 2, 0.25}},
                                       {2, {8, 8, 17, 8, 1}},
                                       {5, {1, 1, 1, 1, 2}},
                                       {1, {28, 28, 1, 2, 0.25}, 3},
                                       {33, {2, 2, 64, 2, 1}},
                                       {2, {2, 4, 300, 2, 1}},
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

/// Values that repeat, so that windows hold equal elements, and the first of them is chosen.
HostMatrix coarse(const HostMatrix& x) {
  HostMatrix result = x;
  for (double& value : result.values) value = std::round(2 * value) / 2;
  return result;
}

TEST_P(PoolingTest, MaxPoolChoosesTheFirstOfTheLargest) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (PoolCase c : kCases) {
      c.map.scale = 1;
      const HostMatrix x = coarse(random_matrix(c.rows, c.map.large_cols(), 1));
      const HostMatrix seed = random_matrix(c.rows, c.map.small_cols(), 2).rounded(dtype);
      HostMatrix best(c.rows, c.map.small_cols(), -1e9), place(c.rows, c.map.small_cols());
      for (std::int64_t i = 0; i < c.rows; ++i) {
        // Row by row of pixels is the order of places in each window.
        for_each_element(c.map, [&](std::int64_t large, std::int64_t small, std::int64_t k) {
          if (x(i, large) <= best(i, small)) return;
          best(i, small) = x(i, large);
          place(i, small) = static_cast<double>(k);
        });
      }
      HostMatrix grad(c.rows, c.map.large_cols());
      for (std::int64_t i = 0; i < c.rows; ++i) {
        for_each_element(c.map, [&](std::int64_t large, std::int64_t small, std::int64_t k) {
          grad(i, large) = static_cast<double>(k) == place(i, small) ? seed(i, small) : 0;
        });
      }
      const DeviceTensor in = upload(context(), x, dtype, c.padding),
                         grad_y = upload(context(), seed, dtype, c.padding);
      const DeviceTensor y = empty_matrix(context(), dtype, c.rows, c.map.small_cols(), c.padding);
      const DeviceTensor choice = empty_matrix(context(), DType::u8, c.rows, c.map.small_cols(), c.padding);
      const DeviceTensor grad_x = empty_matrix(context(), dtype, c.rows, c.map.large_cols(), c.padding);
      ops().max_pool_forward(y, choice, in, c.map);
      ops().max_pool_reverse(grad_x, grad_y, choice, c.map);
      EXPECT_MATRICES_IDENTICAL(download(context(), y), best) << c.text();
      EXPECT_MATRICES_IDENTICAL(download(context(), choice), place) << c.text();
      EXPECT_MATRICES_IDENTICAL(download(context(), grad_x), grad) << c.text();
    }
  }
}

TEST_P(PoolingTest, MaxPoolKeepsNotANumber) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  HostMatrix x(3, 4);
  x.values = {1, nan, 5, 2, nan, 1, 2, 3, -1, -2, -3, -4};
  const DeviceTensor in = upload(context(), x, DType::f32);
  const DeviceTensor y = empty(context(), DType::f32, {3, 1}), choice = empty(context(), DType::u8, {3, 1});
  ops().max_pool_forward(y, choice, in, {2, 2, 1, 2});
  const HostMatrix best = download(context(), y), place = download(context(), choice);
  EXPECT_TRUE(std::isnan(best(0, 0)));
  EXPECT_TRUE(std::isnan(best(1, 0)));
  EXPECT_EQ(best(2, 0), -1);
  EXPECT_EQ(place(0, 0), 1);
  EXPECT_EQ(place(1, 0), 0);
  EXPECT_EQ(place(2, 0), 0);
}

TEST_P(PoolingTest, MaxPoolOfTheLargestWindow) {
  const Window map{16, 16, 2, 16};
  const HostMatrix x = random_matrix(2, map.large_cols(), 3);
  const DeviceTensor in = upload(context(), x);
  const DeviceTensor y = empty(context(), DType::f64, {2, 2}), choice = empty(context(), DType::u8, {2, 2});
  ops().max_pool_forward(y, choice, in, map);
  const HostMatrix best = download(context(), y), place = download(context(), choice);
  for (std::int64_t i = 0; i < 2; ++i) {
    for (std::int64_t c = 0; c < 2; ++c) {
      EXPECT_EQ(x(i, 2 * static_cast<std::int64_t>(place(i, c)) + c), best(i, c));
      for (std::int64_t k = 0; k < 256; ++k) EXPECT_LE(x(i, 2 * k + c), best(i, c));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, PoolingTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
