// linear_forward, linear_reverse_data, linear_reverse_weights against loops in double.
#include <gtest/gtest.h>

#include <array>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

struct Shape {
  std::int64_t rows;
  std::int64_t in;
  std::int64_t out;
};

/// Empty in each direction, single elements, around the sizes of warps, tiles and panels, primes, tall and wide; the
/// last one is beyond what the CPU multiplies on register tiles.
constexpr std::array<Shape, 20> kShapes{{{0, 3, 4},
                                         {3, 0, 4},
                                         {3, 4, 0},
                                         {0, 0, 0},
                                         {1, 1, 1},
                                         {31, 32, 33},
                                         {33, 31, 32},
                                         {32, 33, 31},
                                         {64, 64, 64},
                                         {127, 129, 31},
                                         {129, 33, 65},
                                         {101, 2, 100},
                                         {67, 100, 1},
                                         {53, 1, 48},
                                         {1, 97, 130},
                                         {263, 5, 40},
                                         {1031, 36, 34},
                                         {131, 100, 300},
                                         {41, 97, 2},
                                         {260, 270, 260}}};

/// What an op computed, what it should be, and sum |a| |b| (+ |c| when accumulating) per element.
struct Expected {
  HostMatrix value;
  HostMatrix magnitude;
};

/// c (+)= a b with a(m, p), b(p, n) as functions.
template <class A, class B>
Expected product(std::int64_t m, std::int64_t n, std::int64_t p, A a, B b, const HostMatrix* initial) {
  Expected result{HostMatrix(m, n), HostMatrix(m, n)};
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = initial ? (*initial)(i, j) : 0;
      double magnitude = std::abs(sum);
      for (std::int64_t k = 0; k < p; ++k) {
        sum += a(i, k) * b(k, j);
        magnitude += std::abs(a(i, k) * b(k, j));
      }
      result.value(i, j) = sum;
      result.magnitude(i, j) = magnitude;
    }
  }
  return result;
}

/// A sum of K products in any order, with or without fused multiply-adds, differs from the exact one by at most
/// (K + 1) u sum |a b| (u the unit round-off, to first order); rounding errors of mean zero by 8 sqrt(K + 1) u sum |a
/// b| but for a probability of 2 K exp(-32) (Higham and Mary 2019, theorem 2.4 with lambda = 8). The reference in
/// double adds its own error, which counts for f64 only: hence 2 u.
void expect_product(const HostMatrix& actual, const Expected& expected, std::int64_t terms, DType dtype,
                    const std::string& what) {
  ASSERT_EQ(actual.rows, expected.value.rows) << what;
  ASSERT_EQ(actual.cols, expected.value.cols) << what;
  const auto k = static_cast<double>(terms + 1);
  const double factor = 2 * std::min(k, 8 * std::sqrt(k)) * unit_roundoff(dtype);
  for (std::int64_t i = 0; i < actual.rows; ++i) {
    for (std::int64_t j = 0; j < actual.cols; ++j) {
      const double error = std::abs(actual(i, j) - expected.value(i, j));
      ASSERT_TRUE(error <= factor * expected.magnitude(i, j))
          << what << " at [" << i << ", " << j << "]: " << actual(i, j) << ", expected " << expected.value(i, j)
          << " within " << factor * expected.magnitude(i, j);
    }
  }
}

/// Operands of one layer on the host, rounded to the dtype.
struct Layer {
  HostMatrix x, w, grad_y;
  Layer(const Shape& s, DType dtype)
      : x(random_matrix(s.rows, s.in, 1).rounded(dtype)),
        w(random_matrix(s.out, s.in, 2).rounded(dtype)),
        grad_y(random_matrix(s.rows, s.out, 3).rounded(dtype)) {}
};

class LinearTest : public OpsTest {
 protected:
  HostMatrix forward(const HostMatrix& x, const HostMatrix& w, DType dtype, std::int64_t padding = 0) const {
    const DeviceTensor dx = upload(context(), x, dtype, padding);
    const DeviceTensor dw = upload(context(), w, dtype, padding);
    const DeviceTensor y = empty_matrix(context(), dtype, x.rows, w.rows, padding);
    ops().linear_forward(y, dx, dw);
    return download(context(), y);
  }
  /// `initial` null: overwrite NaN.
  HostMatrix reverse_data(const HostMatrix& grad_y, const HostMatrix& w, DType dtype, std::int64_t padding = 0,
                          const HostMatrix* initial = nullptr) const {
    const DeviceTensor dy = upload(context(), grad_y, dtype, padding);
    const DeviceTensor dw = upload(context(), w, dtype, padding);
    const DeviceTensor grad_x = initial ? upload(context(), *initial, dtype, padding)
                                        : empty_matrix(context(), dtype, grad_y.rows, w.cols, padding);
    ops().linear_reverse_data(grad_x, dy, dw, initial ? Update::accumulate : Update::overwrite);
    return download(context(), grad_x);
  }
  HostMatrix reverse_weights(const HostMatrix& grad_y, const HostMatrix& x, DType dtype, std::int64_t padding = 0,
                             const HostMatrix* initial = nullptr) const {
    const DeviceTensor dy = upload(context(), grad_y, dtype, padding);
    const DeviceTensor dx = upload(context(), x, dtype, padding);
    const DeviceTensor grad_w = initial ? upload(context(), *initial, dtype, padding)
                                        : empty_matrix(context(), dtype, grad_y.cols, x.cols, padding);
    ops().linear_reverse_weights(grad_w, dy, dx, initial ? Update::accumulate : Update::overwrite);
    return download(context(), grad_w);
  }
};

std::string text(const char* op, const Shape& s, DType dtype, std::int64_t padding, bool accumulate) {
  return std::string(op) + " " + std::to_string(s.rows) + " x " + std::to_string(s.in) + " -> " +
         std::to_string(s.out) + " " + dtype_name(dtype) + ", padding " + std::to_string(padding) +
         (accumulate ? ", accumulate" : ", overwrite");
}

TEST_P(LinearTest, MatchesReference) {
  for (const Shape& s : kShapes) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Layer layer(s, dtype);
      const auto x = [&](std::int64_t i, std::int64_t k) { return layer.x(i, k); };
      const auto w = [&](std::int64_t o, std::int64_t k) { return layer.w(o, k); };
      const auto w_transposed = [&](std::int64_t k, std::int64_t o) { return layer.w(o, k); };
      const auto grad_y = [&](std::int64_t i, std::int64_t o) { return layer.grad_y(i, o); };
      const auto grad_y_transposed = [&](std::int64_t o, std::int64_t i) { return layer.grad_y(i, o); };
      for (const bool accumulate : {false, true}) {
        const std::int64_t padding = accumulate ? 3 : 0;
        const HostMatrix start_x = random_matrix(s.rows, s.in, 4).rounded(dtype);
        const HostMatrix start_w = random_matrix(s.out, s.in, 5).rounded(dtype);
        const HostMatrix* initial_x = accumulate ? &start_x : nullptr;
        const HostMatrix* initial_w = accumulate ? &start_w : nullptr;
        expect_product(forward(layer.x, layer.w, dtype, padding),
                       product(s.rows, s.out, s.in, x, w_transposed, nullptr), s.in, dtype,
                       text("forward", s, dtype, padding, false));
        expect_product(reverse_data(layer.grad_y, layer.w, dtype, padding, initial_x),
                       product(s.rows, s.in, s.out, grad_y, w, initial_x), s.out, dtype,
                       text("reverse data", s, dtype, padding, accumulate));
        expect_product(reverse_weights(layer.grad_y, layer.x, dtype, padding, initial_w),
                       product(s.out, s.in, s.rows, grad_y_transposed, x, initial_w), s.rows, dtype,
                       text("reverse weights", s, dtype, padding, accumulate));
      }
    }
  }
}

TEST_P(LinearTest, ColumnSlicesAreOperandsAndResults) {
  const Shape s{70, 41, 39};
  const Layer layer(s, DType::f32);
  // Each operand is the middle of a matrix with one column more on the left, so it starts at an odd element.
  const auto embedded = [&](const HostMatrix& m) {
    HostMatrix wide(m.rows, m.cols + 2, std::numeric_limits<double>::quiet_NaN());
    for (std::int64_t i = 0; i < m.rows; ++i) {
      for (std::int64_t j = 0; j < m.cols; ++j) wide(i, j + 1) = m(i, j);
    }
    return upload(context(), wide, DType::f32);
  };
  const DeviceTensor x = embedded(layer.x);
  const DeviceTensor w = embedded(layer.w);
  const DeviceTensor y = embedded(layer.grad_y);
  ops().linear_forward(y.tensor().slice_cols(1, s.out), x.tensor().slice_cols(1, s.in), w.tensor().slice_cols(1, s.in));
  const HostMatrix wide = download(context(), y);
  const HostMatrix plain = forward(layer.x, layer.w, DType::f32);
  for (std::int64_t i = 0; i < s.rows; ++i) {
    EXPECT_TRUE(std::isnan(wide(i, 0)) && std::isnan(wide(i, s.out + 1))) << "row " << i;
    for (std::int64_t o = 0; o < s.out; ++o) EXPECT_EQ(wide(i, o + 1), plain(i, o)) << i << ", " << o;
  }
}

double inner(const HostMatrix& a, const HostMatrix& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.values.size(); ++k) sum += a.values[k] * b.values[k];
  return sum;
}

double norm(const HostMatrix& a) { return std::sqrt(inner(a, a)); }

TEST_P(LinearTest, AdjointIdentity) {
  for (const Shape& s : {Shape{37, 29, 43}, Shape{300, 2, 100}, Shape{40, 100, 1}}) {
    const Layer layer(s, DType::f64);
    const HostMatrix y = forward(layer.x, layer.w, DType::f64);
    // |<y, u>| <= |y| |u|: the scale of the identity.
    const double limit = 1e-12 * norm(y) * norm(layer.grad_y);
    const double expected = inner(y, layer.grad_y);
    EXPECT_NEAR(inner(layer.x, reverse_data(layer.grad_y, layer.w, DType::f64)), expected, limit);
    EXPECT_NEAR(inner(layer.w, reverse_weights(layer.grad_y, layer.x, DType::f64)), expected, limit);
  }
}

TEST_P(LinearTest, GradientsMatchCentralDifferences) {
  const Shape s{5, 3, 4};
  const Layer layer(s, DType::f64);
  const HostMatrix grad_x = reverse_data(layer.grad_y, layer.w, DType::f64);
  const HostMatrix grad_w = reverse_weights(layer.grad_y, layer.x, DType::f64);
  // The map is linear in each operand: central differences have no truncation error at any step, and with a step of
  // 1/4 and |loss| < 100 their rounding error is below 100 * 4 * 100 u = 5e-12.
  const double step = 0.25;
  const double limit = 5e-12;
  for (std::size_t k = 0; k < grad_x.values.size(); ++k) {
    HostMatrix up = layer.x, down = layer.x;
    up.values[k] += step;
    down.values[k] -= step;
    const double slope = (inner(forward(up, layer.w, DType::f64), layer.grad_y) -
                          inner(forward(down, layer.w, DType::f64), layer.grad_y)) /
                         (2 * step);
    EXPECT_NEAR(grad_x.values[k], slope, limit) << "x " << k;
  }
  for (std::size_t k = 0; k < grad_w.values.size(); ++k) {
    HostMatrix up = layer.w, down = layer.w;
    up.values[k] += step;
    down.values[k] -= step;
    const double slope = (inner(forward(layer.x, up, DType::f64), layer.grad_y) -
                          inner(forward(layer.x, down, DType::f64), layer.grad_y)) /
                         (2 * step);
    EXPECT_NEAR(grad_w.values[k], slope, limit) << "w " << k;
  }
}

TEST_P(LinearTest, NotANumberSpreadsToWhatDependsOnItAndNoFurther) {
  for (const Shape& s : {Shape{70, 40, 50}, Shape{5, 3, 2}}) {
    Layer layer(s, DType::f32);
    layer.x(2, 1) = std::numeric_limits<double>::quiet_NaN();
    const HostMatrix y = forward(layer.x, layer.w, DType::f32);
    const HostMatrix grad_w = reverse_weights(layer.grad_y, layer.x, DType::f32);
    for (std::int64_t i = 0; i < s.rows; ++i) {
      for (std::int64_t o = 0; o < s.out; ++o) EXPECT_EQ(std::isnan(y(i, o)), i == 2) << i << ", " << o;
    }
    for (std::int64_t o = 0; o < s.out; ++o) {
      for (std::int64_t k = 0; k < s.in; ++k) EXPECT_EQ(std::isnan(grad_w(o, k)), k == 1) << o << ", " << k;
    }
    layer.w(1, 0) = std::numeric_limits<double>::quiet_NaN();
    const HostMatrix grad_x = reverse_data(layer.grad_y, layer.w, DType::f32);
    for (std::int64_t i = 0; i < s.rows; ++i) {
      for (std::int64_t k = 0; k < s.in; ++k) EXPECT_EQ(std::isnan(grad_x(i, k)), k == 0) << i << ", " << k;
    }
  }
}

TEST_P(LinearTest, SameBitsOnEveryRun) {
  const Shape s{263, 70, 66};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Layer layer(s, dtype);
    EXPECT_MATRICES_IDENTICAL(forward(layer.x, layer.w, dtype), forward(layer.x, layer.w, dtype));
    EXPECT_MATRICES_IDENTICAL(reverse_data(layer.grad_y, layer.w, dtype), reverse_data(layer.grad_y, layer.w, dtype));
    EXPECT_MATRICES_IDENTICAL(reverse_weights(layer.grad_y, layer.x, dtype),
                              reverse_weights(layer.grad_y, layer.x, dtype));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, LinearTest, ::testing::ValuesIn(test_devices()), device_name);

/// y, grad_x, grad_w of one layer, all accumulated onto 1.
std::array<HostMatrix, 3> on_threads(const Shape& s, DType dtype, int threads) {
  ContextOptions options;
  options.threads = threads;
  const std::unique_ptr<Context> context = TestDevice("cpu").make_context(options);
  const Layer layer(s, dtype);
  const DeviceTensor x = upload(*context, layer.x, dtype);
  const DeviceTensor w = upload(*context, layer.w, dtype);
  const DeviceTensor grad_y = upload(*context, layer.grad_y, dtype);
  const DeviceTensor y = empty_matrix(*context, dtype, s.rows, s.out);
  const DeviceTensor grad_x = upload(*context, HostMatrix(s.rows, s.in, 1), dtype);
  const DeviceTensor grad_w = upload(*context, HostMatrix(s.out, s.in, 1), dtype);
  context->ops().linear_forward(y, x, w);
  context->ops().linear_reverse_data(grad_x, grad_y, w, Update::accumulate);
  context->ops().linear_reverse_weights(grad_w, grad_y, x, Update::accumulate);
  return {download(*context, y), download(*context, grad_x), download(*context, grad_w)};
}

TEST(LinearThreadsTest, SameBitsForEveryNumberOfThreads) {
  // Large enough for several panels and chunks and for the parallel path.
  for (const Shape& s : {Shape{801, 100, 99}, Shape{1031, 33, 130}}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const auto one = on_threads(s, dtype, 1);
      for (const int threads : {2, 3, 8}) {
        const auto many = on_threads(s, dtype, threads);
        for (std::size_t k = 0; k < one.size(); ++k) EXPECT_MATRICES_IDENTICAL(many[k], one[k]);
      }
    }
  }
}

}  // namespace
}  // namespace bracket::test
