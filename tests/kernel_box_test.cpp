// Kernels summed over boxes: against loops in double, adjoint to one another, and in the place of what they stand for,
// upsampling in front of a convolution and sums over windows behind it.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

std::string text_of(const KernelBox& map) {
  return std::to_string(map.in_channels) + " -> " + std::to_string(map.out_channels) + " channels, kernel " +
         std::to_string(map.kernel) + ", window " + std::to_string(map.window) + (map.transposed ? ", transposed" : "");
}

struct BoxCase {
  KernelBox map;
  std::int64_t padding = 0;  ///< between rows
};

/// Single channels and taps, windows wider than the kernel, tiles of 32 x 32 channels with and without ragged edges.
const std::array<BoxCase, 10> kCases{{{{4, 3, 3, 2, 0.25}},
                                      {{1, 1, 1, 1, 2}},
                                      {{5, 2, 1, 3, 1}, 3},
                                      {{2, 7, 2, 5, -0.5}},
                                      {{33, 40, 3, 2, 0.25}, 1},
                                      {{3, 5, 3, 2, 1, true}, 2},
                                      {{1, 9, 5, 1, 1, true}},
                                      {{32, 64, 3, 2, 1, true}},
                                      {{33, 41, 3, 2, 0.5, true}, 1},
                                      {{8, 70, 2, 3, 1, true}}}};

std::int64_t wide_row(const KernelBox& map, std::int64_t co, std::int64_t ci) { return map.transposed ? ci : co; }
std::int64_t wide_column(const KernelBox& map, std::int64_t y, std::int64_t x, std::int64_t co, std::int64_t ci) {
  const std::int64_t wide = map.wide_kernel();
  if (!map.transposed) return (y * wide + x) * map.in_channels + ci;
  return ((wide - 1 - y) * wide + wide - 1 - x) * map.out_channels + co;
}

/// f(wide row, wide column, row, column) for every pair of elements of which one is a term of the other.
template <class F>
void for_each_term(const KernelBox& map, F&& f) {
  const std::int64_t k = map.kernel;
  for (std::int64_t co = 0; co < map.out_channels; ++co)
    for (std::int64_t ky = 0; ky < k; ++ky)
      for (std::int64_t kx = 0; kx < k; ++kx)
        for (std::int64_t ci = 0; ci < map.in_channels; ++ci)
          for (std::int64_t qy = 0; qy < map.window; ++qy)
            for (std::int64_t qx = 0; qx < map.window; ++qx)
              f(wide_row(map, co, ci), wide_column(map, ky + qy, kx + qx, co, ci), co,
                (ky * k + kx) * map.in_channels + ci);
}

/// At most window^2 terms of at most 1: as many roundings of their sum, those of the scale, its product and the start.
double sum_limit(const KernelBox& map, DType dtype) {
  const auto terms = static_cast<double>(map.window * map.window);
  return (terms + 3) * unit_roundoff(dtype) * (0.5 + std::abs(map.scale) * terms);
}

class KernelBoxTest : public OpsTest {};

TEST_P(KernelBoxTest, ForwardMatchesReference) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const BoxCase& c : kCases) {
      const HostMatrix w = random_matrix(c.map.out_channels, c.map.weight_columns(), 1).rounded(dtype);
      HostMatrix expected(c.map.rows(), c.map.cols());
      for_each_term(c.map, [&](std::int64_t row, std::int64_t column, std::int64_t co, std::int64_t j) {
        expected(row, column) += c.map.scale * w(co, j);
      });
      const DeviceTensor in = upload(context(), w, dtype, c.padding);
      const DeviceTensor out = empty_matrix(context(), dtype, c.map.rows(), c.map.cols(), c.padding);
      ops().kernel_box_forward(out, in, c.map);
      EXPECT_MATRICES_CLOSE(download(context(), out), expected, absolute_limit(sum_limit(c.map, dtype)))
          << text_of(c.map);
    }
  }
}

TEST_P(KernelBoxTest, ReverseMatchesReference) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const BoxCase& c : kCases) {
      const HostMatrix seed = random_matrix(c.map.rows(), c.map.cols(), 2).rounded(dtype);
      for (const Update update : {Update::overwrite, Update::accumulate}) {
        const bool add = update == Update::accumulate;
        HostMatrix expected(c.map.out_channels, c.map.weight_columns(), add ? 0.5 : 0);
        for_each_term(c.map, [&](std::int64_t row, std::int64_t column, std::int64_t co, std::int64_t j) {
          expected(co, j) += c.map.scale * seed(row, column);
        });
        const DeviceTensor in = upload(context(), seed, dtype, c.padding);
        const HostMatrix start(expected.rows, expected.cols, add ? 0.5 : std::numeric_limits<double>::quiet_NaN());
        const DeviceTensor out = upload(context(), start, dtype, c.padding);
        ops().kernel_box_reverse(out, in, c.map, update);
        EXPECT_MATRICES_CLOSE(download(context(), out), expected, absolute_limit(sum_limit(c.map, dtype)))
            << text_of(c.map);
      }
    }
  }
}

TEST_P(KernelBoxTest, ForwardAndReverseAreAdjoint) {
  for (const BoxCase& c : kCases) {
    const HostMatrix w = random_matrix(c.map.out_channels, c.map.weight_columns(), 1);
    const HostMatrix v = random_matrix(c.map.rows(), c.map.cols(), 2);
    const DeviceTensor in = upload(context(), w), seed = upload(context(), v);
    const DeviceTensor out = empty_matrix(context(), DType::f64, c.map.rows(), c.map.cols());
    const DeviceTensor back = empty_matrix(context(), DType::f64, w.rows, w.cols);
    ops().kernel_box_forward(out, in, c.map);
    ops().kernel_box_reverse(back, seed, c.map, Update::overwrite);
    const HostMatrix y = download(context(), out), grad = download(context(), back);
    double left = 0, right = 0;
    for (std::size_t k = 0; k < y.values.size(); ++k) left += y.values[k] * v.values[k];
    for (std::size_t k = 0; k < w.values.size(); ++k) right += w.values[k] * grad.values[k];
    // Sums of the same n products of at most |scale|, n roundings of partial sums each way.
    const auto n = static_cast<double>(w.size() * c.map.window * c.map.window);
    EXPECT_NEAR(left, right, 2 * n * unit_roundoff(DType::f64) * n * std::abs(c.map.scale)) << text_of(c.map);
  }
}

/// A convolution of stride 1 and what stands beside it, on small images of odd and even sides.
struct Place {
  std::int64_t height, width;  ///< of the small image
  std::int64_t in_channels, out_channels, kernel, padding, window;
};
constexpr std::array<Place, 7> kPlaces{{{3, 5, 3, 4, 3, 1, 2},
                                        {1, 1, 2, 3, 3, 1, 2},
                                        {4, 2, 33, 34, 3, 1, 2},
                                        {2, 3, 1, 2, 3, 0, 3},
                                        {3, 2, 2, 1, 5, 2, 2},
                                        {2, 2, 3, 3, 2, 1, 4},
                                        {3, 3, 2, 2, 4, 3, 2}}};

// Both ways sum the same products of numbers of at most 1, `terms` of them, in at most `terms` and a few roundings.
double place_limit(double terms, DType dtype) { return 2 * (terms + 8) * unit_roundoff(dtype) * terms; }

TEST_P(KernelBoxTest, ATransposedConvolutionStandsForUpsamplingAndAConvolution) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Place& p : kPlaces) {
      const std::int64_t rows = 3, height = p.height * p.window, width = p.width * p.window;
      const Convolution plain{height, width, p.in_channels, p.out_channels, p.kernel, 1, p.padding};
      const KernelBox box{p.out_channels, p.in_channels, p.kernel, p.window, 1, true};
      const Convolution wide{plain.out_height(), plain.out_width(), p.out_channels,          p.in_channels,
                             box.wide_kernel(),  p.window,          p.kernel - 1 - p.padding};
      ASSERT_EQ(wide.out_height(), p.height);
      ASSERT_EQ(wide.out_width(), p.width);
      const DeviceTensor x = upload(context(), random_matrix(rows, p.height * p.width * p.in_channels, 1), dtype);
      const DeviceTensor w = upload(context(), random_matrix(p.out_channels, plain.weight_columns(), 2), dtype);
      const DeviceTensor large = empty(context(), dtype, {rows, plain.in_columns()});
      const DeviceTensor expected = empty(context(), dtype, {rows, plain.out_columns()});
      ops().window_spread(large, x, {height, width, p.in_channels, p.window, 1}, Update::overwrite);
      ops().conv2d_forward(expected, large, w, plain);
      const DeviceTensor sums = empty(context(), dtype, {box.rows(), box.cols()});
      const DeviceTensor y = empty(context(), dtype, {rows, plain.out_columns()});
      ops().kernel_box_forward(sums, w, box);
      ops().conv2d_reverse_data(y, x, sums, wide, Update::overwrite);
      EXPECT_MATRICES_CLOSE(download(context(), y), download(context(), expected),
                            absolute_limit(place_limit(static_cast<double>(plain.weight_columns()), dtype)))
          << text_of(box) << " to " << height << " x " << width << " pixels, padding " << p.padding;
    }
  }
}

TEST_P(KernelBoxTest, AStridedConvolutionStandsForAConvolutionAndAPool) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Place& p : kPlaces) {
      for (const double scale : {1.0, 1.0 / static_cast<double>(p.window * p.window)}) {
        // The image whose convolution the windows tile.
        const std::int64_t rows = 3, margin = p.kernel - 1 - 2 * p.padding;
        const std::int64_t height = p.height * p.window + margin, width = p.width * p.window + margin;
        if (height < 1 || width < 1) continue;
        const Convolution plain{height, width, p.in_channels, p.out_channels, p.kernel, 1, p.padding};
        const KernelBox box{p.out_channels, p.in_channels, p.kernel, p.window, scale, false};
        const Convolution wide{height, width, p.in_channels, p.out_channels, box.wide_kernel(), p.window, p.padding};
        ASSERT_EQ(wide.out_height(), p.height);
        ASSERT_EQ(wide.out_width(), p.width);
        const DeviceTensor x = upload(context(), random_matrix(rows, plain.in_columns(), 1), dtype);
        const DeviceTensor w = upload(context(), random_matrix(p.out_channels, plain.weight_columns(), 2), dtype);
        const DeviceTensor between = empty(context(), dtype, {rows, plain.out_columns()});
        const DeviceTensor expected = empty(context(), dtype, {rows, wide.out_columns()});
        ops().conv2d_forward(between, x, w, plain);
        ops().window_sum(expected, between, {plain.out_height(), plain.out_width(), p.out_channels, p.window, scale},
                         Update::overwrite);
        const DeviceTensor sums = empty(context(), dtype, {box.rows(), box.cols()});
        const DeviceTensor y = empty(context(), dtype, {rows, wide.out_columns()});
        ops().kernel_box_forward(sums, w, box);
        ops().conv2d_forward(y, x, sums, wide);
        const auto terms = static_cast<double>(plain.weight_columns() * p.window * p.window);
        EXPECT_MATRICES_CLOSE(download(context(), y), download(context(), expected),
                              absolute_limit(scale * place_limit(terms, dtype)))
            << text_of(box) << " of " << height << " x " << width << " pixels, padding " << p.padding;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, KernelBoxTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
