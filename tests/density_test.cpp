// Fourier features, monotone staircase, confinement and affine columns against dual-number references, central
// differences and the adjoint identity.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <memory>

#include "density_problems.h"

namespace bracket::test {
namespace {

class DensityTest : public OpsTest {};
INSTANTIATE_TEST_SUITE_P(Devices, DensityTest, ::testing::ValuesIn(test_devices()), device_name);

TEST_P(DensityTest, AgreesWithDualNumbersInEveryDirection) {
  for (const auto& [name, layer] : all_layers()) {
    SCOPED_TRACE(name);
    for (const DType dtype : {DType::f32, DType::f64}) {
      check_layer(context(), layer, {7, 2, 4, 2}, dtype, 3);
    }
  }
}

TEST_P(DensityTest, AnyNumberOfRows) {
  const std::array<Layer, 9> layers{fourier_features(2, 5),
                                    staircase(2, {0, 1, 3, 3, 2}),
                                    staircase(2, {0, 1, 3, 3, 2, true}),
                                    staircase(2, {0, 1, 0, 3, 2}, true),
                                    staircase(2, {0, 1, 3, 3, 2, true}, true),
                                    spline(2, kSpline, true),
                                    spline(2, {0, 1, 3, 2.5, 0.02, 0.03, 0.1, true}, true),
                                    confinement(2, kWall),
                                    affine_columns(2)};
  for (const Layer& layer : layers) {
    for (const std::int64_t n : {0, 1, 31, 32, 33, 127, 129, 211}) {
      check_layer(context(), layer, {n, 0, n, 1}, DType::f32, 0);
    }
    check_layer(context(), layer, {5, 5, 0, 3}, DType::f64, 1);
    check_layer(context(), layer, {5, 1, 3, 0}, DType::f64, 1);
    check_layer(context(), layer, {6, 0, 2, 5}, DType::f64, 0);
  }
}

/// Tangents against (y(x + h x') - y(x - h x')) / 2h, and the full reverse pass against the same difference of
/// <grad_y, y> + <grad_y', y'> along a random direction of the primal inputs. With h = 1e-5 the difference is off by
/// h^2/6 times a third derivative (1e-11 times 10 to 10^3 here) and by 1e-16 / h times the value (1e-11 times 10 to
/// 100): 1e-7 relative to the largest entry leaves a factor of ten.
TEST_P(DensityTest, AgreesWithCentralDifferences) {
  constexpr double kStep = 1e-5, kLimit = 1e-7;
  const Rows rows{6, 1, 4, 2};
  for (const auto& [name, layer] : all_layers()) {
    SCOPED_TRACE(name);
    const Problem problem = make_problem(layer, rows, DType::f64);
    DeviceProblem device(context(), layer, problem, DType::f64, 0);
    device.forward();
    device.reverse(Update::overwrite);

    const auto moved = [&](const HostStacked& direction_x, const HostStacked& direction_theta, double step) {
      Problem other = problem;
      for (std::size_t e = 0; e < other.x.primal.values.size(); ++e) {
        other.x.primal.values[e] += step * direction_x.primal.values[e];
      }
      for (std::size_t e = 0; e < other.theta.primal.values.size(); ++e) {
        other.theta.primal.values[e] += step * direction_theta.primal.values[e];
      }
      DeviceProblem there(context(), layer, other, DType::f64, 0);
      there.forward();
      return there.y();
    };
    const auto magnitude = [](const HostMatrix& m) {
      double largest = 1;
      for (const double value : m.values) largest = std::max(largest, std::abs(value));
      return largest;
    };

    for (std::int64_t k = 0; k < rows.tangents; ++k) {
      HostStacked dx{HostMatrix(rows.primal, layer.x_cols), {}}, dt{HostMatrix(rows.primal, layer.theta_cols), {}};
      for (std::int64_t i = 0; i < rows.count; ++i) {
        for (std::int64_t j = 0; j < layer.x_cols; ++j) {
          dx.primal(rows.first + i, j) = problem.x.tangent(i * rows.tangents + k, j);
        }
        const std::vector<Rounded> theta = theta_tangent(layer, problem, i, k);
        for (std::int64_t j = 0; j < layer.theta_cols; ++j) {
          dt.primal(rows.first + i, j) = theta[static_cast<std::size_t>(j)].value;
        }
      }
      const HostMatrix up = moved(dx, dt, kStep).primal, down = moved(dx, dt, -kStep).primal;
      const HostMatrix tangent = device.y().tangent;
      for (std::int64_t i = 0; i < rows.count; ++i) {
        for (std::int64_t j = 0; j < layer.y_cols; ++j) {
          const double difference = (up(rows.first + i, j) - down(rows.first + i, j)) / (2 * kStep);
          EXPECT_NEAR(tangent(i * rows.tangents + k, j), difference, kLimit * magnitude(tangent));
        }
      }
    }

    const HostStacked dx{random_matrix(rows.primal, layer.x_cols, 41), {}};
    HostStacked dt{random_matrix(rows.primal, layer.theta_cols, 42), {}};
    if (!layer.theta_has_gradient) dt.primal = HostMatrix(rows.primal, layer.theta_cols);
    const auto objective = [&](const HostStacked& y) {
      double sum = 0;
      for (std::size_t e = 0; e < y.primal.values.size(); ++e) {
        sum += y.primal.values[e] * problem.grad_y.primal.values[e];
      }
      for (std::size_t e = 0; e < y.tangent.values.size(); ++e) {
        sum += y.tangent.values[e] * problem.grad_y.tangent.values[e];
      }
      return sum;
    };
    const double difference = (objective(moved(dx, dt, kStep)) - objective(moved(dx, dt, -kStep))) / (2 * kStep);
    double along = 0;
    const HostMatrix grad_x = device.grad_x().primal, grad_theta = device.grad_theta().primal;
    for (std::size_t e = 0; e < grad_x.values.size(); ++e) along += grad_x.values[e] * dx.primal.values[e];
    for (std::size_t e = 0; layer.theta_has_gradient && e < grad_theta.values.size(); ++e) {
      along += grad_theta.values[e] * dt.primal.values[e];
    }
    EXPECT_NEAR(along, difference, kLimit * std::max(magnitude(grad_x), magnitude(grad_theta)) * 10);
  }
}

/// <J v, u> = <v, J^T u> on tangent rows, relative to the sum of the magnitudes of the products.
TEST_P(DensityTest, TangentAndReverseAreAdjoint) {
  const Rows rows{33, 3, 30, 2};
  for (const auto& [name, layer] : all_layers()) {
    SCOPED_TRACE(name);
    const Problem problem = make_problem(layer, rows, DType::f64);
    DeviceProblem device(context(), layer, problem, DType::f64, 0);
    device.forward();
    device.reverse(Update::overwrite);
    double pushed = 0, pulled = 0, magnitude = 0;
    const auto inner = [&magnitude](const HostMatrix& a, const HostMatrix& b, double& sum) {
      for (std::size_t e = 0; e < a.values.size(); ++e) {
        sum += a.values[e] * b.values[e];
        magnitude += std::abs(a.values[e] * b.values[e]);
      }
    };
    inner(device.y().tangent, problem.grad_y.tangent, pushed);
    inner(device.grad_x().tangent, problem.x.tangent, pulled);
    if (layer.theta_has_gradient) {
      // With a Jacobian, tangents of x are all that y' is linear in.
      if (!layer.jacobian_columns) inner(device.grad_theta().tangent, problem.theta.tangent, pulled);
    } else {
      // The energy passes through a confinement unchanged: its adjoint is grad_y itself.
      if (layer.theta_cols > 0) inner(problem.grad_y.tangent, problem.theta.tangent, pulled);
    }
    EXPECT_NEAR(pushed, pulled, 1e-12 * magnitude);
  }
}

TEST_P(DensityTest, PartsThatAreNotWantedChangeNothingElse) {
  const Rows rows{9, 2, 5, 2};
  for (const auto& [name, layer] : all_layers()) {
    SCOPED_TRACE(name);
    const Problem problem = make_problem(layer, rows, DType::f64);
    DeviceProblem both(context(), layer, problem, DType::f64, 1);
    both.forward();
    both.reverse(Update::overwrite);
    DeviceProblem parts(context(), layer, problem, DType::f64, 1);
    parts.forward(true, false);
    parts.forward(false, true);
    EXPECT_MATRICES_IDENTICAL(parts.y().primal, both.y().primal);
    EXPECT_MATRICES_IDENTICAL(parts.y().tangent, both.y().tangent);
    parts.reverse(Update::overwrite, true, false);
    parts.reverse(Update::overwrite, false, true, false);
    EXPECT_MATRICES_IDENTICAL(parts.grad_x().primal, both.grad_x().primal);
    EXPECT_MATRICES_IDENTICAL(parts.grad_x().tangent, both.grad_x().tangent);
    if (!layer.theta_has_gradient) continue;
    EXPECT_MATRICES_IDENTICAL(parts.grad_theta().primal, both.grad_theta().primal);
    EXPECT_MATRICES_IDENTICAL(parts.grad_theta().tangent, both.grad_theta().tangent);
  }
}

TEST_P(DensityTest, ConfinementInPlace) {
  const Layer layer = confinement(3, kWall);
  const Rows rows{33, 0, 33, 1};
  const Problem problem = make_problem(layer, rows, DType::f64);
  const Expected expected = solve(layer, problem, DType::f64, false);
  const DeviceStacked x{upload(context(), problem.x.primal), upload(context(), problem.x.tangent)};
  const DeviceStacked e{upload(context(), problem.theta.primal), upload(context(), problem.theta.tangent)};
  ops().confinement_forward(e.stacked(), e.stacked(), x.stacked(), kWall, rows);
  EXPECT_TRUE(within_bounds(download(context(), e.primal), expected.y));
  EXPECT_TRUE(within_bounds(download(context(), e.tangent), expected.tan_y));
}

TEST_P(DensityTest, ConfinementIsSmoothAtTheOriginAndOneSidedAtTheWall) {
  // Origin (where |x| has no derivative), a point on the wall's edge, one far outside.
  HostMatrix points(3, 2);
  points(1, 0) = 1.5;
  points(2, 1) = -1e6;
  const DeviceTensor x = upload(context(), points), e = upload(context(), HostMatrix(3, 1));
  const DeviceTensor y = empty(context(), DType::f64, {3, 1}), grad = empty(context(), DType::f64, {3, 2});
  const DeviceTensor seed = upload(context(), HostMatrix(3, 1, 1.0));
  const Rows rows{3, 0, 0, 0};
  ops().confinement_forward({y, {}}, {e, {}}, {x, {}}, kWall, rows);
  ops().confinement_reverse({grad, {}}, {seed, {}}, {x, {}}, kWall, rows, Update::overwrite);
  const HostMatrix value = download(context(), y), slope = download(context(), grad);
  EXPECT_EQ(value(0, 0), 0);
  EXPECT_EQ(value(1, 0), 1.5 * 1.5 / 2);
  EXPECT_DOUBLE_EQ(value(2, 0), 0.5e12 + 25 * (1e6 - 1.5) * (1e6 - 1.5));
  EXPECT_EQ(slope(0, 0), 0);
  EXPECT_EQ(slope(1, 0), 1.5);
  EXPECT_DOUBLE_EQ(slope(2, 1), -(1e6 + 50 * (1e6 - 1.5)));
}

/// Angles beyond the range of the vectorised reduction take the library's functions; the limit is that of the angle
/// itself: two roundings of |f x|.
TEST_P(DensityTest, FourierFeaturesOfHugeAngles) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Layer layer = fourier_features(1, 40, 1);
    layer.x_scale = dtype == DType::f32 ? 1e5 : 1e9;
    for (double& frequency : layer.constants.values) frequency = std::round(8 * frequency) / 8;
    Problem problem = make_problem(layer, {33, 0, 0, 0}, dtype);
    for (double& value : problem.x.primal.values) value = std::round(value);  // f x is exact then
    DeviceProblem device(context(), layer, problem, dtype, 0);
    device.forward();
    const HostMatrix y = device.y().primal;
    for (std::int64_t i = 0; i < 33; ++i) {
      for (std::int64_t j = 0; j < 40; ++j) {
        const double angle = problem.x.primal(i, 0) * layer.constants(j, 0);
        EXPECT_NEAR(y(i, 1 + j), std::sin(angle), 4 * unit_roundoff(dtype));
        EXPECT_NEAR(y(i, 41 + j), std::cos(angle), 4 * unit_roundoff(dtype));
      }
    }
  }
}

/// Saturated parameters: finite values, and a slope that keeps its relative accuracy where it is as small as
/// max_slope sigmoid(-60), since its logarithm enters the entropy.
TEST_P(DensityTest, StaircaseStaysStrictlyIncreasingWhenSaturated) {
  const Staircase map{0, 1, 2, 3, 2};
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const double extreme : {-60.0, 60.0}) {
      HostMatrix theta(1, map.parameters(), extreme);
      theta(0, 0) = -60;
      const DeviceTensor x = upload(context(), HostMatrix(1, 1, -extreme), dtype);
      const DeviceTensor dx = upload(context(), HostMatrix(1, 1, 1.0), dtype);
      const DeviceTensor t = upload(context(), theta, dtype);
      const DeviceTensor dt = upload(context(), HostMatrix(1, map.parameters()), dtype);
      const DeviceTensor y = empty(context(), dtype, {1, 1}), dy = empty(context(), dtype, {1, 1});
      ops().monotone_staircase_forward({y, dy}, {}, {x, dx}, {t, dt}, map, {1, 0, 1, 1});
      const double slope = download(context(), dy)(0, 0);
      EXPECT_TRUE(std::isfinite(download(context(), y)(0, 0)));
      const double smallest = 3 * std::exp(-60.0) / (1 + std::exp(-60.0));
      // Knots at c = b = -60 lie in reach of a = 60; those at c = b = 60 are e^4 68 away from a = -60.
      const double beta = std::exp(4 * std::tanh(extreme / 4));
      const double z = beta * (-extreme - 8 * std::tanh(extreme / 8));
      const double knots = 2 * 2 / (1 + std::exp(-extreme)) * beta / ((1 + std::exp(z)) * (1 + std::exp(-z)));
      EXPECT_NEAR(slope, smallest + knots, 60 * unit_roundoff(dtype) * (smallest + knots));
    }
  }
}

/// Parameters of any size: the slope stays above s^2 e^3 of formula/rational_quadratic.h, the spline is increasing, and
/// it meets the identity at its ends.
TEST_P(DensityTest, SplinesAreStrictlyIncreasingWhateverTheirParameters) {
  constexpr double kLeast = 1e-2;
  constexpr std::int64_t kPoints = 257;
  const RationalQuadratic map{0, 1, 6, 2, kLeast, kLeast, kLeast};
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const double scale : {0.0, 1.0, 5.0, 60.0}) {
      const HostMatrix one = random_matrix(1, map.parameters(), 61, -scale, scale);
      HostMatrix theta(kPoints, map.parameters()), x(kPoints, 1);
      for (std::int64_t i = 0; i < kPoints; ++i) {
        for (std::int64_t j = 0; j < theta.cols; ++j) theta(i, j) = one(0, j);
        x(i, 0) = -2.1 + 4.2 * static_cast<double>(i) / static_cast<double>(kPoints - 1);
      }
      const DeviceTensor device_x = upload(context(), x, dtype), device_theta = upload(context(), theta, dtype);
      const DeviceTensor y = empty(context(), dtype, {kPoints, 1}), slope = empty(context(), dtype, {kPoints, 1});
      ops().rational_quadratic_forward({y, {}}, {slope, {}}, {device_x, {}}, {device_theta, {}}, map,
                                       {kPoints, 0, 0, 0});
      const HostMatrix values = download(context(), y), logarithms = download(context(), slope);
      // A few roundings of numbers up to 2, which the slope of a bin (1 / least at most) multiplies.
      const double rounding = 20 / kLeast * unit_roundoff(dtype);
      for (std::int64_t i = 0; i < kPoints; ++i) {
        EXPECT_GE(logarithms(i, 0), std::log(std::pow(kLeast, 5)) - rounding) << "point " << i << ", " << scale;
        if (scale == 0) {
          EXPECT_NEAR(values(i, 0), x(i, 0), rounding);
          EXPECT_NEAR(logarithms(i, 0), 0, rounding);
        }
        if (std::abs(x(i, 0)) >= 2) {
          EXPECT_NEAR(values(i, 0), x(i, 0), 3 * unit_roundoff(dtype));
          EXPECT_EQ(logarithms(i, 0), 0);
        }
        if (i == 0) continue;
        EXPECT_GT(values(i, 0), values(i - 1, 0) - rounding) << "point " << i << ", " << scale;
      }
    }
  }
}

TEST_P(DensityTest, NanStaysInItsRow) {
  const Rows rows{5, 0, 5, 1};
  for (const auto& [name, layer] : all_layers()) {
    SCOPED_TRACE(name);
    Problem problem = make_problem(layer, rows, DType::f32);
    for (std::int64_t j = 0; j < layer.x_cols; ++j) problem.x.primal(2, j) = std::nan("");
    DeviceProblem device(context(), layer, problem, DType::f32, 0);
    device.forward();
    const HostMatrix y = device.y().primal;
    for (std::int64_t i = 0; i < rows.primal; ++i) {
      for (std::int64_t j = 0; j < layer.y_cols; ++j) EXPECT_EQ(std::isnan(y(i, j)), i == 2) << i << ", " << j;
    }
  }
}

TEST(DensityCpuTest, SameBitsForAnyNumberOfThreads) {
  const TestDevice cpu("cpu");
  for (const auto& [name, layer] : all_layers()) {
    SCOPED_TRACE(name);
    const Problem problem = make_problem(layer, {1500, 100, 1300, 2}, DType::f32);
    std::vector<HostStacked> results;
    for (const int threads : {1, 2, 8}) {
      ContextOptions options;
      options.threads = threads;
      const std::unique_ptr<Context> context = cpu.make_context(options);
      DeviceProblem device(*context, layer, problem, DType::f32, 0);
      device.forward();
      device.reverse(Update::overwrite);
      results.push_back(device.y());
      results.push_back(device.grad_x());
      results.push_back(device.grad_theta());
    }
    for (std::size_t r = 3; r < results.size(); ++r) {
      EXPECT_MATRICES_IDENTICAL(results[r].primal, results[r % 3].primal);
      EXPECT_MATRICES_IDENTICAL(results[r].tangent, results[r % 3].tangent);
    }
  }
}

}  // namespace
}  // namespace bracket::test
