// Convolutions in every math mode against loops in double, with the limits of math_mode_fixture.h.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>

#include "convolution_fixture.h"
#ifdef BRACKET_TEST_SIMT
#include "simt/scoped_options.h"
#endif

namespace bracket::test {
namespace {

using Shape = ConvolutionShape;

/// Kernels, strides and paddings on images that are not square and mostly no multiple of the stride; channels for
/// copies of 16, 8 and 4 bytes, around half a tile and more than a tile.
std::vector<Shape> ragged_shapes() {
  constexpr std::array<std::int64_t, 6> kChannels{32, 36, 33, 66, 40, 34};
  std::vector<Shape> shapes;
  for (const std::int64_t kernel : {1, 2, 3, 4, 5}) {
    for (std::int64_t stride = 1; stride <= 3; ++stride) {
      for (std::int64_t padding = 0; padding <= 2; padding += 1 + kernel % 2) {
        const std::size_t n = shapes.size();
        const auto size = [&](std::size_t m) { return static_cast<std::int64_t>(5 + n % m) * (stride > 1 ? 2 : 1); };
        shapes.push_back({static_cast<std::int64_t>(2 + n % 3),
                          {size(3), size(5), kChannels[n % 6], kChannels[(n / 2 + 3) % 6], kernel, stride, padding}});
      }
    }
  }
  return shapes;
}

/// Large tiles; several chunks of pixels, the last one short; a kernel far outside the image; pixels that no kernel
/// reaches; many taps; few channels on one side, which are for fp32 kernels.
const std::vector<Shape>& special_shapes() {
  static const std::vector<Shape> shapes = {
      {3, {8, 9, 36, 132, 3, 1, 1}}, {2, {8, 9, 132, 36, 2, 1, 1}}, {13, {11, 9, 36, 40, 3, 1, 1}},
      {40, {3, 2, 36, 33, 2, 3, 4}}, {9, {8, 9, 34, 35, 2, 4, 0}},  {2, {14, 14, 40, 36, 5, 2, 2}},
      {40, {1, 1, 35, 37, 1, 1, 0}}, {2, {17, 19, 3, 64, 3, 1, 1}}, {2, {17, 19, 64, 3, 3, 1, 1}},
      {0, {5, 6, 32, 32, 3, 2, 1}},  {33, {2, 2, 33, 40, 4, 2, 1}}, {140, {1, 3, 129, 33, 1, 2, 0}},
      {5, {4, 4, 70, 130, 4, 2, 1}}};
  return shapes;
}

/// y, grad_x, grad_w.
using Results = std::array<HostMatrix, 3>;

class ConvolutionMathModeTest : public OpsTest {
 protected:
  Results run(const Shape& s, const ConvolutionLayer& layer, MathMode mode, std::int64_t padding,
              bool accumulate) const {
    const MathScope scope(ops(), mode);
    const ConvolutionRunner runner{context(), s.map, DType::f32, padding};
    return {runner.forward(layer.x, layer.w),
            runner.reverse_data(layer.grad_y, layer.w, accumulate ? &layer.start_x : nullptr),
            runner.reverse_weights(layer.grad_y, layer.x, accumulate ? &layer.start_w : nullptr)};
  }

  void expect_limits(const Shape& s, std::int64_t padding, bool accumulate) const {
    const ConvolutionLayer layer(s, DType::f32);
    const ConvolutionReference reference(s, layer, accumulate);
    for (const MathMode mode : kTensorModes) {
      const Results actual = run(s, layer, mode, padding, accumulate);
      const std::string what = text(s) + ", " + math_mode_name(mode) + ", padding " + std::to_string(padding);
      EXPECT_TRUE(within_limits(actual[0], reference.y, mode)) << "forward " << what;
      EXPECT_TRUE(within_limits(actual[1], reference.grad_x, mode)) << "reverse data " << what;
      EXPECT_TRUE(within_limits(actual[2], reference.grad_w, mode)) << "reverse weights " << what;
    }
  }

  bool on_cpu() const { return GetParam().name() == "cpu"; }
};

TEST_P(ConvolutionMathModeTest, KernelsStridesAndPaddingsMatchReference) {
  std::int64_t n = 0;
  for (const Shape& s : ragged_shapes()) {
    expect_limits(s, n % 4, n % 2 == 0);
    ++n;
  }
}

TEST_P(ConvolutionMathModeTest, SpecialShapesMatchReference) {
  std::int64_t n = 0;
  for (const Shape& s : special_shapes()) {
    expect_limits(s, n % 2 * 4, n % 2 == 0);
    ++n;
  }
}

TEST_P(ConvolutionMathModeTest, TensorCoresTakeWhatIsLargeEnoughAndNothingElse) {
  const struct {
    Shape shape;
    std::array<bool, 3> tensor;
  } cases[] = {{{4, {8, 8, 40, 36, 3, 1, 1}}, {true, true, true}},
               {{4, {8, 8, 3, 36, 4, 2, 1}}, {true, false, true}},
               {{4, {8, 8, 36, 5, 4, 2, 1}}, {false, true, false}},
               {{1, {5, 5, 40, 36, 3, 1, 1}}, {false, false, true}}};
  for (const auto& one : cases) {
    const ConvolutionLayer layer(one.shape, DType::f32);
    const Results plain = run(one.shape, layer, MathMode::fp32, 0, true);
    for (const MathMode mode : kTensorModes) {
      const Results actual = run(one.shape, layer, mode, 0, true);
      for (std::size_t k = 0; k < 3; ++k) {
        const bool same = static_cast<bool>(matrices_identical(actual[k], plain[k]));
        EXPECT_EQ(same, on_cpu() || !one.tensor[k]) << text(one.shape) << ", " << math_mode_name(mode) << " " << k;
      }
    }
  }
}

TEST_P(ConvolutionMathModeTest, NotANumberStaysWithinReach) {
  const Shape s{3, {9, 8, 36, 40, 3, 2, 1}};
  const Convolution& m = s.map;
  ConvolutionLayer layer(s, DType::f32);
  layer.x(1, (3 * m.in_width + 4) * m.in_channels + 1) = std::numeric_limits<double>::quiet_NaN();
  for (const MathMode mode : kTensorModes) {
    const HostMatrix y = run(s, layer, mode, 0, false)[0];
    for (std::int64_t i = 0; i < s.rows; ++i) {
      for (std::int64_t j = 0; j < y.cols; ++j) {
        const std::int64_t tap_y = 3 - j / m.out_channels / m.out_width() * m.stride + m.padding;
        const std::int64_t tap_x = 4 - j / m.out_channels % m.out_width() * m.stride + m.padding;
        const bool reads = tap_y >= 0 && tap_y < m.kernel && tap_x >= 0 && tap_x < m.kernel;
        ASSERT_EQ(std::isnan(y(i, j)), i == 1 && reads) << i << ", " << j;
      }
    }
  }
}

TEST_P(ConvolutionMathModeTest, SameBitsOnEveryRunAndInEveryOrder) {
  const Shape s{7, {13, 12, 36, 40, 4, 2, 1}};
  const ConvolutionLayer layer(s, DType::f32);
  for (const MathMode mode : kTensorModes) {
    const Results first = run(s, layer, mode, 1, true);
    const auto expect_same = [&] {
      const Results again = run(s, layer, mode, 1, true);
      for (std::size_t k = 0; k < 3; ++k) EXPECT_MATRICES_IDENTICAL(again[k], first[k]) << math_mode_name(mode);
    };
    expect_same();
#ifdef BRACKET_TEST_SIMT
    if (GetParam().name() != "simt") continue;
    for (const int seed : {0, 2, 3}) {
      const ::simt::ScopedOptions options(seed == 0 ? ::simt::Order::reverse : ::simt::Order::random,
                                          static_cast<std::uint64_t>(seed), 2);
      expect_same();
    }
#endif
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ConvolutionMathModeTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
