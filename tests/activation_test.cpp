// bias_activation_forward and bias_activation_reverse against their formulas in double.
#include <gtest/gtest.h>

#include <array>
#include <optional>

#include "activation_fixture.h"

namespace bracket::test {
namespace {

class ActivationTest : public OpsTest {
 protected:
  Runner runner() const { return Runner(context()); }

  void check(const Case& c) const {
    const Results y = runner().forward(c);
    expect_within(y.x, expected_forward(c), "forward primal, " + c.text());
    expect_within(y.tan_x, expected_tangent(c, c.tan_x), "forward tangent, " + c.text());
    for (const bool accumulate : {false, true}) {
      Parts parts;
      parts.accumulate = accumulate;
      const double start = accumulate ? 0.5 : 0;
      const Gradients expected = expected_reverse(c, true, true, start);
      const Results actual = runner().reverse(c, parts, start);
      expect_within(actual.x, expected.x, "grad_x, " + c.text());
      expect_within(actual.tan_x, expected.tan_x, "grad_x', " + c.text());
      expect_within(actual.bias, expected.bias, "grad_bias, " + c.text());
      if (c.slope) expect_within(actual.slope, expected.slope, "grad_slope, " + c.text());
    }
  }
};

struct Size {
  Rows rows;
  std::int64_t cols;
};

TEST_P(ActivationTest, MatchesReference) {
  // No tangents, one for all rows (runs over several rows on the CPU), some for a range; empty, ragged, wide.
  const std::array<Size, 15> sizes{{{{0, 0, 0, 0}, 3},
                                    {{3, 0, 3, 1}, 0},
                                    {{1, 0, 1, 1}, 1},
                                    {{31, 0, 0, 0}, 33},
                                    {{33, 0, 33, 1}, 31},
                                    {{127, 5, 100, 1}, 2},
                                    {{129, 0, 129, 1}, 1},
                                    {{32, 3, 7, 3}, 32},
                                    {{17, 16, 1, 5}, 64},
                                    {{19, 0, 19, 2}, 1},
                                    {{7, 2, 0, 4}, 9},
                                    {{9, 2, 5, 0}, 9},
                                    {{5, 1, 3, 2}, 300},
                                    {{211, 11, 101, 1}, 7},
                                    {{41, 2, 37, 1}, 10}}};
  for (const Activation function : kFunctions) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (std::size_t k = 0; k < sizes.size(); ++k) {
        Case c(function, dtype, sizes[k].rows, sizes[k].cols, k % 3 != 0, k % 2 == 0);
        c.padding = k % 4 == 1 ? 3 : 0;
        check(c);
      }
    }
  }
}

TEST_P(ActivationTest, ColumnsRepeatTheChannels) {
  // Pixels that fill runs on the CPU, leave them ragged, or do not fit one; few channels and many on the GPU's blocks.
  struct Image {
    Rows rows;
    std::int64_t pixels;
    std::int64_t channels;
  };
  const std::array<Image, 11> images{{{{3, 0, 3, 1}, 49, 1},
                                      {{5, 1, 3, 2}, 100, 3},
                                      {{4, 0, 4, 1}, 9, 17},
                                      {{3, 0, 0, 0}, 64, 64},
                                      {{2, 0, 2, 3}, 5, 100},
                                      {{3, 1, 2, 1}, 3, 300},
                                      {{9, 2, 5, 1}, 4, 8},
                                      {{0, 0, 0, 0}, 4, 3},
                                      {{70, 0, 70, 1}, 33, 2},
                                      {{33, 0, 0, 0}, 1, 257},
                                      {{600, 0, 0, 0}, 4, 3}}};
  for (const Activation function :
       {Activation::identity, Activation::tanh, Activation::prelu, Activation::leaky_relu}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (std::size_t k = 0; k < images.size(); ++k) {
        const Image& image = images[k];
        Case c(function, dtype, image.rows, image.pixels * image.channels, k % 4 != 3, k % 2 == 0, 6, image.pixels);
        c.padding = k % 3 == 1 ? 5 : 0;
        check(c);
      }
    }
  }
}

TEST_P(ActivationTest, OptionalParts) {
  const Rows rows{37, 4, 20, 2};
  for (const Activation function : kFunctions) {
    const Case c(function, DType::f64, rows, 35, true, true);
    const Results only_primal = runner().forward(c, true, false);
    expect_within(only_primal.x, expected_forward(c), "forward without tangents");
    const Results only_tangents = runner().forward(c, false, true);
    expect_within(only_tangents.tan_x, expected_tangent(c, c.tan_x), "forward of tangents only");

    Parts parts;
    parts.grad_y = false;
    Gradients expected = expected_reverse(c, false, true, 0);
    Results actual = runner().reverse(c, parts);
    expect_within(actual.x, expected.x, "no grad_y.primal, " + c.text());
    expect_within(actual.bias, expected.bias, "no grad_y.primal, " + c.text());

    parts = Parts();
    parts.grad_tan_y = parts.grad_tan_x = false;
    expected = expected_reverse(c, true, false, 0);
    actual = runner().reverse(c, parts);
    expect_within(actual.x, expected.x, "no grad_y', " + c.text());
    if (c.slope) expect_within(actual.slope, expected.slope, "no grad_y', " + c.text());

    parts = Parts();
    parts.grad_tan_x = parts.parameters = false;
    expected = expected_reverse(c, true, true, 0);
    expect_within(runner().reverse(c, parts).x, expected.x, "no grad_x', " + c.text());

    parts = Parts();
    parts.grad_x = false;
    actual = runner().reverse(c, parts);
    expect_within(actual.tan_x, expected.tan_x, "no grad_x.primal, " + c.text());
    if (c.slope) expect_within(actual.slope, expected.slope, "no grad_x.primal, " + c.text());
  }
}

TEST_P(ActivationTest, InPlaceGivesTheSameBits) {
  for (const Activation function : kFunctions) {
    for (const Rows& rows : {Rows{40, 0, 40, 1}, Rows{40, 10, 21, 3}}) {
      const Case c(function, DType::f32, rows, 33, true, false);
      const Results y = runner().forward(c);
      const Results y_in_place = runner().forward(c, true, true, true);
      EXPECT_MATRICES_IDENTICAL(y_in_place.x, y.x) << c.text();
      EXPECT_MATRICES_IDENTICAL(y_in_place.tan_x, y.tan_x) << c.text();
      Parts parts;
      const Results grad = runner().reverse(c, parts);
      parts.in_place = true;
      const Results grad_in_place = runner().reverse(c, parts);
      EXPECT_MATRICES_IDENTICAL(grad_in_place.x, grad.x) << c.text();
      EXPECT_MATRICES_IDENTICAL(grad_in_place.tan_x, grad.tan_x) << c.text();
      EXPECT_MATRICES_IDENTICAL(grad_in_place.bias, grad.bias) << c.text();
      EXPECT_MATRICES_IDENTICAL(grad_in_place.slope, grad.slope) << c.text();
    }
  }
}

double inner(const HostMatrix& a, const HostMatrix& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.values.size(); ++k) sum += a.values[k] * b.values[k];
  return sum;
}

double norm(const HostMatrix& a) { return std::sqrt(inner(a, a)); }

TEST_P(ActivationTest, AdjointIdentity) {
  for (const Activation function : kFunctions) {
    const Case c(function, DType::f64, {23, 3, 17, 2}, 19, true, true);
    const Results y = runner().forward(c);
    const Results grad = runner().reverse(c, {});
    EXPECT_NEAR(inner(y.tan_x, c.grad_tan_y), inner(c.tan_x, grad.tan_x), 1e-12 * norm(y.tan_x) * norm(c.grad_tan_y))
        << c.text();
  }
}

/// <grad_y, y> + <grad_tan_y, y'>: its gradient is what reverse computes, second-order terms included.
double loss(Runner runner, const Case& c) {
  const Results y = runner.forward(c);
  return inner(y.x, c.grad_y) + inner(y.tan_x, c.grad_tan_y);
}

/// Central difference with step h: truncation h^2 / 6 times a third derivative of order 1 to 10, rounding u / h times a
/// loss of order 10; with h = 1e-5 both are below 2e-10, far under the 1e-6 asked for (relative to gradients of order
/// 1). The distance of every v from a kink is checked to exceed h.
constexpr double kStep = 1e-5;

template <class Change>
double central_difference(const Runner& runner, const Case& c, Change change) {
  Case up = c, down = c;
  change(up, kStep);
  change(down, -kStep);
  return (loss(runner, up) - loss(runner, down)) / (2 * kStep);
}

TEST_P(ActivationTest, GradientsMatchCentralDifferences) {
  for (const Activation function : kFunctions) {
    const Case c(function, DType::f64, {4, 1, 2, 2}, 3, true, true, 2);
    for (std::int64_t i = 0; i < 4; ++i) {
      for (std::int64_t j = 0; j < 3; ++j) ASSERT_GT(std::abs(c.shifted(i, j)), 2 * kStep) << "choose another seed";
    }
    const Results grad = runner().reverse(c, {});
    const auto compare = [&](double actual, const std::string& what, std::size_t k, auto change) {
      const double expected = central_difference(runner(), c, change);
      EXPECT_NEAR(actual, expected, 1e-6 * std::max(1.0, std::abs(expected))) << name_of(function) << " " << what << k;
    };
    for (std::size_t k = 0; k < c.x.values.size(); ++k) {
      compare(grad.x.values[k], "x ", k, [k](Case& changed, double h) { changed.x.values[k] += h; });
    }
    for (std::size_t k = 0; k < c.tan_x.values.size(); ++k) {
      compare(grad.tan_x.values[k], "x' ", k, [k](Case& changed, double h) { changed.tan_x.values[k] += h; });
    }
    for (std::size_t k = 0; k < 3; ++k) {
      compare(grad.bias.values[k], "bias ", k, [k](Case& changed, double h) { changed.bias->values[k] += h; });
    }
    for (std::size_t k = 0; c.slope && k < 3; ++k) {
      compare(grad.slope.values[k], "slope ", k, [k](Case& changed, double h) { changed.slope->values[k] += h; });
    }
  }
}

/// A case of one column that applies `function` to `values`, every tangent and adjoint 1.
Case on_values(Activation function, DType dtype, const std::vector<double>& values) {
  const auto n = static_cast<std::int64_t>(values.size());
  Case c(function, dtype, {n, 0, n, 1}, 1, false, false);
  c.x = host_vector(values).rounded(dtype);
  c.tan_x = c.grad_y = c.grad_tan_y = HostMatrix(n, 1, 1);
  return c;
}

TEST_P(ActivationTest, ValuesAreAccurateToFourUlp) {
  // 4 ulp are at most 8 u relative to the value.
  std::vector<double> values;
  for (int k = -4000; k <= 4000; ++k) values.push_back(std::pow(k / 4000.0, 3) * 80);
  for (const Activation function : kFunctions) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Case c = on_values(function, dtype, values);
      const HostMatrix y = runner().forward(c).x;
      for (std::int64_t i = 0; i < y.rows; ++i) {
        const auto v = static_cast<long double>(c.x(i, 0));
        long double exact = 0;
        switch (function) {
          case Activation::tanh:
            exact = std::tanh(v);
            break;
          case Activation::sigmoid:
            exact = 1 / (1 + std::exp(-v));
            break;
          case Activation::silu:
            exact = v / (1 + std::exp(-v));
            break;
          case Activation::softplus:
            exact = std::max(v, 0.0L) + std::log1p(std::exp(-std::abs(v)));
            break;
          default:
            exact = static_cast<long double>(reference(function, c.x(i, 0), c.slope_of(0)).value);
        }
        const double error = static_cast<double>(std::abs(static_cast<long double>(y(i, 0)) - exact));
        ASSERT_LE(error, 8 * unit_roundoff(dtype) * std::abs(static_cast<double>(exact)))
            << name_of(function) << " " << dtype_name(dtype) << " of " << c.x(i, 0) << " is " << y(i, 0);
      }
    }
  }
}

TEST_P(ActivationTest, KinksTakeTheDerivativeOfTheNegativeSide) {
  const std::vector<double> zeros{0.0, -0.0};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::array<std::pair<Activation, double>, 3> kinks{
        {{Activation::relu, 0}, {Activation::leaky_relu, kNegativeSlope}, {Activation::prelu, -1}}};
    for (const auto& [function, slope] : kinks) {
      const Case c = on_values(function, dtype, zeros);
      const double expected = function == Activation::prelu ? c.slope_of(0) : slope;
      const Results y = runner().forward(c);
      const Results grad = runner().reverse(c, {});
      for (std::int64_t i = 0; i < 2; ++i) {
        EXPECT_EQ(y.x(i, 0), 0) << name_of(function);
        EXPECT_EQ(y.tan_x(i, 0), expected) << name_of(function);
        EXPECT_EQ(grad.x(i, 0), expected) << name_of(function);
        EXPECT_EQ(grad.tan_x(i, 0), expected) << name_of(function);
      }
      // d y' / d slope = x' on the negative side, so 1 for each of the two rows; v = 0 adds nothing.
      if (c.slope) {
        EXPECT_EQ(grad.slope(0, 0), 2);
      }
    }
  }
}

TEST_P(ActivationTest, LargeArgumentsReachTheirLimits) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const double huge = dtype == DType::f32 ? 3e38 : 1e308;
    for (const double v : {800.0, 1e5, huge}) {
      // [function][v, -v]: value, f', f''
      const std::array<std::array<std::array<double, 3>, 2>, 8> limits{{{{{v, 1, 0}, {-v, 1, 0}}},
                                                                        {{{v, 1, 0}, {0, 0, 0}}},
                                                                        {{{v, 1, 0}, {}}},
                                                                        {{{v, 1, 0}, {}}},
                                                                        {{{1, 0, 0}, {-1, 0, 0}}},
                                                                        {{{1, 0, 0}, {0, 0, 0}}},
                                                                        {{{v, 1, 0}, {0, 0, 0}}},
                                                                        {{{v, 1, 0}, {0, 0, 0}}}}};
      for (const Activation function : kFunctions) {
        Case c = on_values(function, dtype, {v, -v});
        const Results y = runner().forward(c);
        c.grad_y = HostMatrix(2, 1, 0);
        const Results grad = runner().reverse(c, {});
        for (std::int64_t i = 0; i < 2; ++i) {
          std::array<double, 3> limit = limits[static_cast<std::size_t>(function)][static_cast<std::size_t>(i)];
          if (i == 1 && (function == Activation::leaky_relu || function == Activation::prelu)) {
            limit = {static_cast<double>(dtype == DType::f32 ? static_cast<float>(c.slope_of(0) * c.x(1, 0))
                                                             : c.slope_of(0) * c.x(1, 0)),
                     c.slope_of(0), 0};
          }
          EXPECT_EQ(y.x(i, 0), dtype == DType::f32 ? static_cast<double>(static_cast<float>(limit[0])) : limit[0])
              << name_of(function) << " " << v << " " << i;
          EXPECT_EQ(y.tan_x(i, 0), limit[1]) << name_of(function) << " " << v << " " << i;
          EXPECT_EQ(grad.x(i, 0), limit[2]) << name_of(function) << " " << v << " " << i;
        }
      }
    }
  }
}

TEST_P(ActivationTest, NotANumberStaysWhereItIs) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Activation function : kFunctions) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      Case c(function, dtype, {9, 0, 9, 1}, 11, true, true);
      c.x(4, 5) = nan;
      c.grad_y(6, 7) = nan;
      const Results y = runner().forward(c);
      const Results grad = runner().reverse(c, {});
      const bool piecewise_linear = static_cast<int>(function) < static_cast<int>(Activation::tanh);
      for (std::int64_t i = 0; i < 9; ++i) {
        for (std::int64_t j = 0; j < 11; ++j) {
          const bool from_x = i == 4 && j == 5;
          EXPECT_EQ(std::isnan(y.x(i, j)), from_x) << name_of(function) << " " << i << " " << j;
          EXPECT_EQ(std::isnan(y.tan_x(i, j)), from_x && !piecewise_linear)
              << name_of(function) << " " << i << " " << j;
          EXPECT_EQ(std::isnan(grad.x(i, j)), (from_x && !piecewise_linear) || (i == 6 && j == 7))
              << name_of(function) << " " << i << " " << j;
        }
      }
      EXPECT_TRUE(std::isnan(grad.bias(7, 0))) << name_of(function);
      EXPECT_FALSE(std::isnan(grad.bias(6, 0))) << name_of(function);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ActivationTest, ::testing::ValuesIn(test_devices()), device_name);

TEST(ActivationThreadsTest, SameBitsForEveryNumberOfThreads) {
  for (const Activation function : {Activation::prelu, Activation::silu}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      // Beyond the size from which threads are used, with runs of several rows (one tangent) and of one row (three).
      for (const Rows& rows : {Rows{1003, 100, 800, 1}, Rows{801, 7, 701, 3}}) {
        const Case c(function, dtype, rows, 97, true, true);
        std::optional<Results> y, grad;
        for (const int threads : {1, 2, 8}) {
          ContextOptions options;
          options.threads = threads;
          const std::unique_ptr<Context> context = TestDevice("cpu").make_context(options);
          Runner runner(*context);
          const Results forward = runner.forward(c);
          const Results reverse = runner.reverse(c, {});
          if (!y) {
            y = forward;
            grad = reverse;
            continue;
          }
          EXPECT_MATRICES_IDENTICAL(forward.x, y->x) << c.text();
          EXPECT_MATRICES_IDENTICAL(forward.tan_x, y->tan_x) << c.text();
          EXPECT_MATRICES_IDENTICAL(reverse.x, grad->x) << c.text();
          EXPECT_MATRICES_IDENTICAL(reverse.tan_x, grad->tan_x) << c.text();
          EXPECT_MATRICES_IDENTICAL(reverse.bias, grad->bias) << c.text();
          EXPECT_MATRICES_IDENTICAL(reverse.slope, grad->slope) << c.text();
        }
      }
    }
  }
}

}  // namespace
}  // namespace bracket::test
