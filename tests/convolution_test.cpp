// conv2d_forward, conv2d_reverse_data, conv2d_reverse_weights against loops in double.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>

#include "convolution_fixture.h"

namespace bracket::test {
namespace {

using Shape = ConvolutionShape;
using Layer = ConvolutionLayer;
using Reference = ConvolutionReference;
using Runner = ConvolutionRunner;

/// Every kernel from 1 to 5 with every stride from 1 to 3 and padding from 0 to 2, on images that are not square and
/// mostly no multiple of the stride, with channel counts and rows in turn.
std::vector<Shape> small_shapes() {
  constexpr std::array<std::int64_t, 5> kChannels{1, 3, 17, 2, 64};
  constexpr std::array<std::int64_t, 4> kRows{1, 3, 2, 1};
  std::vector<Shape> shapes;
  for (std::int64_t kernel = 1; kernel <= 5; ++kernel) {
    for (std::int64_t stride = 1; stride <= 3; ++stride) {
      for (std::int64_t padding = 0; padding <= 2; ++padding) {
        const std::size_t n = shapes.size();
        shapes.push_back({kRows[n % 4],
                          {static_cast<std::int64_t>(5 + n % 3), static_cast<std::int64_t>(6 + n % 5), kChannels[n % 5],
                           kChannels[n / 2 % 5], kernel, stride, padding}});
      }
    }
  }
  return shapes;
}

/// No rows; a kernel as large as the padded image; one far outside it; single pixels and rows of pixels; pixels that
/// no kernel reaches; around the sizes of tiles, panels and chunks; few channels on one side; more taps of x, then of
/// grad_y, than are gathered at a time.
const std::vector<Shape>& special_shapes() {
  static const std::vector<Shape> shapes = {
      {0, {5, 6, 3, 4, 3, 2, 1}},    {2, {3, 4, 2, 3, 5, 1, 1}},    {2, {3, 2, 4, 3, 2, 3, 4}},
      {2, {3, 2, 4, 2, 2, 1, 4}},    {2, {3, 4, 2, 5, 2, 3, 4}},    {3, {1, 1, 5, 7, 1, 1, 0}},
      {2, {1, 37, 3, 5, 3, 2, 1}},   {2, {41, 1, 3, 5, 3, 3, 1}},   {2, {8, 9, 3, 2, 2, 4, 0}},
      {3, {7, 5, 65, 33, 3, 1, 1}},  {2, {9, 8, 33, 70, 4, 2, 1}},  {5, {4, 4, 70, 130, 4, 2, 1}},
      {2, {17, 19, 3, 64, 3, 1, 1}}, {2, {17, 19, 64, 3, 3, 1, 1}}, {2, {14, 14, 40, 36, 5, 2, 2}},
      {3, {28, 28, 1, 32, 5, 2, 2}}, {70, {5, 3, 35, 34, 3, 1, 1}}, {33, {2, 2, 33, 40, 4, 2, 1}},
      {2, {7, 6, 33, 20, 1, 2, 0}},  {3, {8, 7, 40, 17, 2, 3, 1}},  {9, {11, 9, 40, 5, 3, 1, 1}},
      {2, {19, 17, 2, 9, 3, 2, 0}},  {2, {4, 4, 230, 20, 3, 1, 1}}, {2, {4, 4, 20, 230, 3, 1, 1}}};
  return shapes;
}

/// The limit of linear_test.cpp: a sum of K products in any order is within min(K + 1, 8 sqrt(K + 1)) u sum |a b| but
/// for a probability of 2 K exp(-32), and 2 u covers the reference's own error. Zeros that padding adds are exact.
void expect_close(const HostMatrix& actual, const ProductReference& expected, DType dtype, const std::string& what) {
  ASSERT_EQ(actual.rows, expected.value.rows) << what;
  ASSERT_EQ(actual.cols, expected.value.cols) << what;
  for (std::int64_t i = 0; i < actual.rows; ++i) {
    for (std::int64_t j = 0; j < actual.cols; ++j) {
      const double k = expected.terms(i, j) + 1;
      const double limit = 2 * std::min(k, 8 * std::sqrt(k)) * unit_roundoff(dtype) * expected.magnitude(i, j);
      ASSERT_TRUE(std::abs(actual(i, j) - expected.value(i, j)) <= limit)
          << what << " at [" << i << ", " << j << "]: " << actual(i, j) << ", expected " << expected.value(i, j)
          << " within " << limit;
    }
  }
}

class ConvolutionTest : public OpsTest {
 protected:
  Runner runner(const Convolution& map, DType dtype, std::int64_t padding = 0) const {
    return {context(), map, dtype, padding};
  }

  void expect_reference(const Shape& s) const {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Layer layer(s, dtype);
      for (const bool accumulate : {false, true}) {
        const Reference expected(s, layer, accumulate);
        const Runner run = runner(s.map, dtype, accumulate ? 3 : 0);
        const std::string what = text(s) + ", " + dtype_name(dtype) + (accumulate ? ", accumulate" : ", overwrite");
        expect_close(run.forward(layer.x, layer.w), expected.y, dtype, "forward " + what);
        expect_close(run.reverse_data(layer.grad_y, layer.w, accumulate ? &layer.start_x : nullptr), expected.grad_x,
                     dtype, "reverse data " + what);
        expect_close(run.reverse_weights(layer.grad_y, layer.x, accumulate ? &layer.start_w : nullptr), expected.grad_w,
                     dtype, "reverse weights " + what);
      }
    }
  }
};

TEST_P(ConvolutionTest, KernelsStridesAndPaddingsMatchReference) {
  for (const Shape& s : small_shapes()) expect_reference(s);
}

TEST_P(ConvolutionTest, SpecialShapesMatchReference) {
  for (const Shape& s : special_shapes()) expect_reference(s);
}

double inner(const HostMatrix& a, const HostMatrix& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.values.size(); ++k) sum += a.values[k] * b.values[k];
  return sum;
}

double norm(const HostMatrix& a) { return std::sqrt(inner(a, a)); }

TEST_P(ConvolutionTest, AdjointIdentity) {
  for (const Shape& s : {Shape{3, {13, 11, 17, 20, 4, 2, 1}}, Shape{2, {9, 12, 64, 3, 3, 1, 1}},
                         Shape{2, {12, 9, 3, 64, 5, 3, 2}}, Shape{2, {7, 7, 1, 1, 2, 1, 0}}}) {
    const Layer layer(s, DType::f64);
    const Runner run = runner(s.map, DType::f64);
    const HostMatrix y = run.forward(layer.x, layer.w);
    // |<y, u>| <= |y| |u|: the scale of the identity.
    const double limit = 1e-12 * norm(y) * norm(layer.grad_y);
    const double expected = inner(y, layer.grad_y);
    EXPECT_NEAR(inner(layer.x, run.reverse_data(layer.grad_y, layer.w)), expected, limit) << text(s);
    EXPECT_NEAR(inner(layer.w, run.reverse_weights(layer.grad_y, layer.x)), expected, limit) << text(s);
  }
}

/// A transposed convolution by its own definition: every pixel of z lays its kernel, at its position times the stride,
/// into an output that `output_padding` makes wider at the far ends. weights [z channels, k k output channels].
ProductReference transposed_reference(const HostMatrix& z, const HostMatrix& weights, std::int64_t height,
                                      std::int64_t width, const Convolution& m) {
  ProductReference result(z.rows, m.in_columns(), nullptr);
  for (std::int64_t i = 0; i < z.rows; ++i) {
    for (std::int64_t pixel = 0; pixel < height * width; ++pixel) {
      for (std::int64_t tap = 0; tap < m.kernel * m.kernel; ++tap) {
        const std::int64_t y = pixel / width * m.stride - m.padding + tap / m.kernel;
        const std::int64_t x = pixel % width * m.stride - m.padding + tap % m.kernel;
        if (y < 0 || y >= m.in_height || x < 0 || x >= m.in_width) continue;
        for (std::int64_t c = 0; c < m.out_channels; ++c) {
          for (std::int64_t o = 0; o < m.in_channels; ++o) {
            result.add(i, (y * m.in_width + x) * m.in_channels + o,
                       z(i, pixel * m.out_channels + c) * weights(c, tap * m.in_channels + o));
          }
        }
      }
    }
  }
  return result;
}

TEST_P(ConvolutionTest, ReverseDataIsTransposedConvolutionWithOutputPadding) {
  struct Transposed {
    std::int64_t height, width, from, to, kernel, stride, padding, output_padding;
  };
  // The layers of the MNIST and DCGAN generators at reduced width, and a padding that no kernel reaches.
  for (const Transposed& t :
       {Transposed{2, 2, 40, 33, 5, 2, 2, 1}, Transposed{4, 4, 33, 20, 5, 2, 2, 0}, Transposed{7, 7, 20, 3, 5, 2, 2, 1},
        Transposed{4, 5, 36, 18, 4, 2, 1, 0}, Transposed{3, 4, 18, 17, 2, 3, 0, 2}}) {
    const auto size = [&](std::int64_t extent) {
      return (extent - 1) * t.stride - 2 * t.padding + t.kernel + t.output_padding;
    };
    const Convolution map{size(t.height), size(t.width), t.to, t.from, t.kernel, t.stride, t.padding};
    ASSERT_EQ(map.out_height(), t.height);
    ASSERT_EQ(map.out_width(), t.width);
    for (const DType dtype : {DType::f32, DType::f64}) {
      const HostMatrix z = random_matrix(3, t.height * t.width * t.from, 6).rounded(dtype);
      const HostMatrix weights = random_matrix(t.from, t.kernel * t.kernel * t.to, 7).rounded(dtype);
      expect_close(runner(map, dtype).reverse_data(z, weights),
                   transposed_reference(z, weights, t.height, t.width, map), dtype, "transposed " + text({3, map}));
    }
  }
}

TEST_P(ConvolutionTest, NotANumberSpreadsToWhatDependsOnItAndNoFurther) {
  // Gathered patches, folded taps, and weights with few channels on either side.
  for (const Shape& s :
       {Shape{3, {9, 8, 20, 24, 3, 2, 1}}, Shape{3, {16, 14, 20, 2, 3, 1, 1}}, Shape{3, {16, 14, 2, 20, 3, 1, 1}}}) {
    const Convolution& m = s.map;
    Layer layer(s, DType::f32);
    const std::int64_t in_y = 3, in_x = 4, out_y = 2, out_x = 3;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    layer.x(1, (in_y * m.in_width + in_x) * m.in_channels + 1) = nan;
    const HostMatrix y = runner(m, DType::f32).forward(layer.x, layer.w);
    layer.grad_y(1, (out_y * m.out_width() + out_x) * m.out_channels + 1) = nan;
    const HostMatrix grad_x = runner(m, DType::f32).reverse_data(layer.grad_y, layer.w);
    const auto reaches = [&](std::int64_t out, std::int64_t in) {
      const std::int64_t tap = in - out * m.stride + m.padding;
      return tap >= 0 && tap < m.kernel;
    };
    for (std::int64_t i = 0; i < s.rows; ++i) {
      for (std::int64_t j = 0; j < y.cols; ++j) {
        const std::int64_t pixel = j / m.out_channels;
        const bool reads = reaches(pixel / m.out_width(), in_y) && reaches(pixel % m.out_width(), in_x);
        ASSERT_EQ(std::isnan(y(i, j)), i == 1 && reads) << text(s) << " at " << i << ", " << j;
      }
      for (std::int64_t j = 0; j < grad_x.cols; ++j) {
        const std::int64_t pixel = j / m.in_channels;
        const bool read = reaches(out_y, pixel / m.in_width) && reaches(out_x, pixel % m.in_width);
        ASSERT_EQ(std::isnan(grad_x(i, j)), i == 1 && read) << text(s) << " at " << i << ", " << j;
      }
    }
    Layer clean(s, DType::f32);
    clean.grad_y(1, (out_y * m.out_width() + out_x) * m.out_channels + 1) = nan;
    const HostMatrix grad_w = runner(m, DType::f32).reverse_weights(clean.grad_y, clean.x);
    for (std::int64_t o = 0; o < grad_w.rows; ++o) {
      for (std::int64_t j = 0; j < grad_w.cols; ++j) {
        ASSERT_EQ(std::isnan(grad_w(o, j)), o == 1) << text(s) << " at " << o << ", " << j;
      }
    }
  }
}

TEST_P(ConvolutionTest, SameBitsOnEveryRun) {
  const Shape s{5, {13, 12, 33, 40, 4, 2, 1}};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Layer layer(s, dtype);
    const Runner run = runner(s.map, dtype);
    EXPECT_MATRICES_IDENTICAL(run.forward(layer.x, layer.w), run.forward(layer.x, layer.w));
    EXPECT_MATRICES_IDENTICAL(run.reverse_data(layer.grad_y, layer.w), run.reverse_data(layer.grad_y, layer.w));
    EXPECT_MATRICES_IDENTICAL(run.reverse_weights(layer.grad_y, layer.x), run.reverse_weights(layer.grad_y, layer.x));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ConvolutionTest, ::testing::ValuesIn(test_devices()), device_name);

/// y, grad_x, grad_w of one layer, gradients accumulated.
std::array<HostMatrix, 3> on_threads(const Shape& s, DType dtype, int threads) {
  ContextOptions options;
  options.threads = threads;
  const std::unique_ptr<Context> context = TestDevice("cpu").make_context(options);
  const Layer layer(s, dtype);
  const Runner run{*context, s.map, dtype};
  return {run.forward(layer.x, layer.w), run.reverse_data(layer.grad_y, layer.w, &layer.start_x),
          run.reverse_weights(layer.grad_y, layer.x, &layer.start_w)};
}

TEST(ConvolutionThreadsTest, SameBitsForEveryNumberOfThreads) {
  // Several panels, classes, bands and chunks, and enough work for the parallel path.
  for (const Shape& s : {Shape{9, {15, 14, 33, 40, 3, 1, 1}}, Shape{8, {17, 16, 40, 33, 4, 2, 1}},
                         Shape{8, {25, 24, 3, 40, 3, 1, 1}}, Shape{8, {25, 24, 40, 3, 3, 1, 1}}}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const auto one = on_threads(s, dtype, 1);
      for (const int threads : {2, 3, 8}) {
        const auto many = on_threads(s, dtype, threads);
        for (std::size_t k = 0; k < one.size(); ++k) EXPECT_MATRICES_IDENTICAL(many[k], one[k]) << text(s);
      }
    }
  }
}

}  // namespace
}  // namespace bracket::test
