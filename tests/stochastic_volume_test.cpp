// Stochastic log-determinants, their derivatives and the roulette; samples that have none.
#include "bracket/singular_values.h"
#include "kernels/plan_ops.h"
#include "tests/trace_fixture.h"

namespace bracket::test {
namespace {

class StochasticVolumeTest : public TraceTest {};

// All probes, all steps: sum C V^T = J (J^T J)^-1. Few iterations: rows stop where their residual says so.
TEST_P(StochasticVolumeTest, DerivativeVectorsSolveTheNormalEquations) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t d = 6, D = 9;
    std::vector<MatrixXd> matrices = matrices_with(2, D, geometric_spectrum(d, 0.5, 6), 6);
    for (MatrixXd& j : matrices) j = rounded(j, dtype);
    const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
    const double u = unit_roundoff(dtype);
    StochasticVolumeOptions options;
    options.tolerance = 100 * u;
    options.iterations = 60;
    const Estimate got = volume(jacobian, {ProbeKind::orthogonal, d, 8}, options);
    EXPECT_LT(got.iterations, 60);
    for (std::int64_t i = 0; i < 2; ++i) {
      const MatrixXd& j = matrices[static_cast<std::size_t>(i)];
      // d logarithms of nodes that are good to d u cond.
      EXPECT_NEAR(got.value(i, 0), trace_of(j, half_log), 6 * 6 * 6 * u);
      const MatrixXd product = block_rows(got.cotangents, i * d, d).transpose() * block_rows(got.tangents, i * d, d);
      const MatrixXd expected = j * inverse_of(j.transpose() * j);
      // Residuals of 100 u |v|, and where rounding stalls the true ones, cond^2 u |v|, twice; |v|^2 = d, |J A^-1| is
      // 1 / s_1.
      EXPECT_LE((product - expected).norm(), 6 * (100 + 2 * 6 * 6) * u * expected.norm());
    }
    // Rows that are done stay as they are: 60 iterations give what 8 do, and less than the tolerance asks for.
    options.tolerance = 0.3;
    options.stop_early = false;
    const Estimate loose = volume(jacobian, {ProbeKind::rademacher, 3, 8}, options);
    EXPECT_EQ(loose.iterations, 60);
    EXPECT_EQ(loose.passes.apply, 3 * (6 + 60 + 1));
    EXPECT_EQ(loose.passes.transpose, 3 * (5 + 60 + 1));
    double largest = 0;
    for (const double residual : loose.residual.values) largest = std::max(largest, residual / std::sqrt(6.0));
    EXPECT_LE(largest, 0.3);
    EXPECT_GT(largest, 1e-3);
    options.iterations = 8;
    EXPECT_MATRICES_IDENTICAL(volume(jacobian, {ProbeKind::rademacher, 3, 8}, options).cotangents, loose.cotangents);
  }
}

// <C, dJ V> of few probes is an unbiased estimate of tr(J^+ dJ), with a preconditioner or without: 300 samples within 4
// standard errors of their mean.
TEST_P(StochasticVolumeTest, DerivativesAreUnbiased) {
  const std::int64_t n = 300, d = 5, D = 8, P = 2;
  auto engine = test_engine(9);
  const MatrixXd j = with_singular_values(D, geometric_spectrum(d, 0.5, 6), engine), dj = normal_matrix(D, d, engine);
  const CallbackJacobian jacobian = matrix_jacobian(std::vector<MatrixXd>(static_cast<std::size_t>(n), j));
  const MatrixXd turn = normal_matrix(d, d, engine);
  const MatrixXd positive = MatrixXd::Identity(d, d) + turn * turn.transpose();
  for (const MatrixXd& t : {MatrixXd(0, 0), positive}) {
    StochasticVolumeOptions options;
    options.quadrature.steps = 2;
    options.tolerance = 1e-10;
    const Estimate got = volume(jacobian, {ProbeKind::gaussian, P, 10}, options, host_matrix(t));
    EXPECT_EQ(got.certificate, Certificate::optimistic);
    const double expected = (pseudo_inverse_of(j) * dj).trace();
    double mean = 0, squares = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double one = (block_rows(got.cotangents, i * P, P)
                              .transpose()
                              .cwiseProduct(dj * block_rows(got.tangents, i * P, P).transpose()))
                             .sum();
      mean += one / static_cast<double>(n);
      squares += one * one / static_cast<double>(n);
    }
    EXPECT_NEAR(mean, expected, 4 * std::sqrt((squares - mean * mean) / static_cast<double>(n)));
  }
}

// Samples that share the singular vectors and, but for tenths, the spectrum, as in APreconditionerCutsTheSteps: the
// same x_p in a fraction of the iterations. Both residuals are below 1e-6 |v|, so that J x_p = J A^-1 (v - residual)
// agree to 2e-6 |v| / s_1.
TEST_P(StochasticVolumeTest, APreconditionerCutsTheIterations) {
  const bool slow = GetParam().name() == "simt";
  const std::int64_t d = slow ? 12 : 64, D = d + 16, n = slow ? 2 : 8, P = 2;
  const double condition = slow ? 30 : 1e3;
  auto engine = test_engine(13);
  const MatrixXd v = orthonormal_columns(d, d, engine);
  std::vector<MatrixXd> matrices;
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<double> s = geometric_spectrum(d, 1 / condition, condition);
    std::uniform_real_distribution<double> tenths(0.9, 1.1);
    for (double& value : s) value *= tenths(engine);
    const MatrixXd turn = MatrixXd::Identity(d, d) + 1e-4 * normal_matrix(d, d, engine);
    matrices.push_back(orthonormal_columns(D, d, engine) * Eigen::Map<const VectorXd>(s.data(), d).asDiagonal() *
                       v.transpose() * turn);
  }
  const CallbackJacobian jacobian = matrix_jacobian(matrices), two = matrix_jacobian({matrices[0], matrices[1]});
  const HostMatrix t = planned<HostMatrix>(context(), [&](Ops& o, Arena& arena) {
    return download_from(context(), o, shared_preconditioner(o, arena, two, 1 / (condition * condition)));
  });
  StochasticVolumeOptions options;
  options.quadrature.steps = 3;
  options.iterations = 5000;
  const ProbeOptions probes{ProbeKind::rademacher, P, 3};
  const Estimate plain = volume(jacobian, probes, options), with = volume(jacobian, probes, options, t);
  RecordProperty("iterations", std::to_string(with.iterations) + " of " + std::to_string(plain.iterations));
  EXPECT_LT(slow ? with.iterations : 4 * with.iterations, plain.iterations);
  EXPECT_EQ(with.passes.apply, P * (3 + with.iterations + 1));
  EXPECT_MATRICES_IDENTICAL(with.value, plain.value);
  const double length = std::sqrt(static_cast<double>(d));
  for (std::int64_t i = 0; i < n * P; ++i) {
    // Rounding of a product keeps the true residual cond 2^-53 |x| |A| from the recurrence's.
    EXPECT_LE(with.residual(i, 0), 1.1e-6 * length);
    const VectorXd s = singular_values_of(matrices[static_cast<std::size_t>(i / P)]);
    const VectorXd difference = (block_rows(with.cotangents, i, 1) - block_rows(plain.cotangents, i, 1)).transpose();
    EXPECT_LE(difference.norm(), 2.5e-6 * length / s(0) / static_cast<double>(P));
  }
}

// Steps that no probe has drawn change nothing but the work.
TEST_P(StochasticVolumeTest, RouletteRunsWhatIsDrawn) {
  const std::int64_t d = 12, P = 3;
  const CallbackJacobian jacobian = matrix_jacobian(matrices_with(2, 13, geometric_spectrum(d, 0.4, 5), 16));
  RouletteOptions options{2, 100, 0.4, true, 3};
  const ProbeOptions probes{ProbeKind::rademacher, P, 3};
  const Estimate all = roulette(jacobian, probes, options);
  EXPECT_EQ(all.passes.apply, P * d);
  options.all_steps = false;
  const Estimate drawn = roulette(jacobian, probes, options);
  EXPECT_LT(drawn.passes.apply, P * d);
  EXPECT_GE(drawn.passes.apply, P * 2);
  EXPECT_MATRICES_IDENTICAL(drawn.value, all.value);
  EXPECT_MATRICES_IDENTICAL(drawn.error, all.error);
  EXPECT_EQ(drawn.certificate, Certificate::unbiased);
  // A complete set of probes leaves the numbers of steps to chance.
  EXPECT_GT(roulette(jacobian, {ProbeKind::orthogonal, d, 3}, options).error(0, 0), 1e-6);
  options.maximum = 4;
  EXPECT_EQ(roulette(jacobian, probes, options).certificate, Certificate::optimistic);
  options.survival = 1;
  const Estimate gauss = function(jacobian, kLogarithm, probes, 4), certain = roulette(jacobian, probes, options);
  for (std::int64_t i = 0; i < 2; ++i) EXPECT_NEAR(certain.value(i, 0), gauss.value(i, 0) / 2, 1e-12);
}

// Steps too improbable for 64 random bits are left out, and the certificate says so.
TEST_P(StochasticVolumeTest, RouletteIsUnbiasedWhereEveryStepCanBeDrawn) {
  const std::int64_t d = 70;
  const CallbackJacobian jacobian = matrix_jacobian({MatrixXd::Identity(d, d)});
  const ProbeOptions probes{ProbeKind::rademacher, 1, 3};
  for (const auto& [certain, survival, expected] : {std::tuple{1, 0.5, Certificate::optimistic},
                                                    {10, 0.5, Certificate::unbiased},
                                                    {9, 0.5, Certificate::optimistic},
                                                    {1, 0.9, Certificate::unbiased}}) {
    const Estimate got = roulette(jacobian, probes, {certain, 100, survival, false, 3});
    EXPECT_EQ(got.certificate, expected) << certain << " certain, survival " << survival;
    EXPECT_NEAR(got.value(0, 0), 0, 1e-12);
  }
}

// Both precisions, rank d - 1: rules of d steps report it, and rules of a certified end do not, which claim that there
// is none; the roulette where d steps were taken. Full rank a factor of 10 above the threshold is full.
TEST_P(StochasticVolumeTest, MissingRankIsReported) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t d = 8, n = 3;
    auto engine = test_engine(15);
    const double threshold = documented_tolerance(d + 2, d, dtype);
    std::vector<double> missing = geometric_spectrum(d, 1, 4), narrow = missing;
    missing[0] = 0;
    narrow[0] = 40 * threshold;
    std::vector<MatrixXd> matrices;
    for (const std::vector<double>* s : {&missing, &narrow, &missing})
      matrices.push_back(rounded(with_singular_values(d + 2, *s, engine), dtype));
    const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
    StochasticVolumeOptions options;
    options.iterations = 3;
    const Estimate got = volume(jacobian, {ProbeKind::rademacher, 2, 3}, options);
    EXPECT_MATRICES_CLOSE(got.deficient, host_vector({1, 0, 1}), absolute_limit(0));
    for (const std::int64_t i : {0, 2}) {
      EXPECT_EQ(got.value(i, 0), -kInfinity);
      EXPECT_EQ(block_rows(got.cotangents, 2 * i, 2).norm(), 0);
    }
    EXPECT_TRUE(std::isfinite(got.value(1, 0)) && block_rows(got.cotangents, 2, 2).norm() > 0);
    const Estimate all = roulette(jacobian, {ProbeKind::rademacher, 2, 3}, {d, d, 0.5, false, 2});
    const Estimate inverse = function(jacobian, kInverse, {ProbeKind::rademacher, 2, 3}, d);
    for (std::int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(all.value(i, 0) == -kInfinity, i != 1);
      EXPECT_EQ(all.deficient(i, 0) > 0, i != 1);
      EXPECT_EQ(inverse.value(i, 0) == kInfinity, i != 1);
    }
    // 4 steps with a node at an end far below the threshold.
    const double end = std::pow(0.1 * threshold, 2);
    const Estimate below = function(jacobian, kLogarithm, {ProbeKind::rademacher, 2, 3}, 4, {end, end, end});
    EXPECT_MATRICES_CLOSE(below.deficient, host_vector({0, 0, 0}), absolute_limit(0));
    for (std::int64_t i = 0; i < n; ++i) EXPECT_TRUE(std::isfinite(below.value(i, 0)));
  }
}

// Zero, rank-deficient, NaN and no samples at all.
TEST_P(StochasticVolumeTest, SpecialSamples) {
  auto engine = test_engine(14);
  const std::int64_t d = 3;
  std::vector<MatrixXd> matrices(4, with_singular_values(5, {1, 2, 3}, engine));
  matrices[0].setZero();
  matrices[1] = with_singular_values(5, {0, 2, 3}, engine);
  matrices[2](1, 1) = kNaN;
  const CallbackJacobian jacobian = matrix_jacobian(matrices);
  const Estimate logs = volume(jacobian, {ProbeKind::orthogonal, d, 1});
  EXPECT_EQ(logs.value(0, 0), -kInfinity);
  EXPECT_EQ(logs.value(1, 0), -kInfinity);
  EXPECT_MATRICES_CLOSE(logs.deficient, host_vector({1, 1, 0, 0}), absolute_limit(0));
  EXPECT_TRUE(std::isnan(logs.value(2, 0)));
  EXPECT_NEAR(logs.value(3, 0), std::log(6), 1e-13);
  EXPECT_EQ(block_rows(logs.cotangents, 0, 2 * d).norm(), 0);
  for (const bool exchangeable : {false, true}) {
    const Estimate low = low_rank(jacobian, {2, 2, 1}, exchangeable);
    EXPECT_EQ(low.value(0, 0), 0);
    EXPECT_TRUE(std::isnan(low.value(2, 0)) && std::isfinite(low.value(3, 0)));
  }
  const Estimate drawn = roulette(jacobian, {ProbeKind::rademacher, 4, 1}, {1, 3, 0.5, false, 2});
  EXPECT_EQ(drawn.value(0, 0), -kInfinity);
  EXPECT_FALSE(std::isnan(drawn.value(1, 0)));
  EXPECT_EQ(drawn.deficient(0, 0), 1);
  EXPECT_EQ(drawn.deficient(3, 0), 0);
  EXPECT_TRUE(std::isfinite(drawn.value(3, 0)));
  const CallbackJacobian none = matrix_jacobian({}, DType::f32, 3, 5);
  for (const ProbeKind kind : {ProbeKind::rademacher, ProbeKind::gaussian, ProbeKind::orthogonal}) {
    EXPECT_EQ(volume(none, {kind, 2, 1}).value.rows, 0);
    EXPECT_EQ(roulette(none, {kind, 2, 1}, {}).value.rows, 0);
  }
  EXPECT_EQ(low_rank(none, {2, 2, 1}, false).value.rows, 0);
  EXPECT_EQ(low_rank(none, {2, 2, 1}, true).value.rows, 0);
  EXPECT_EQ(trace(matrix_jacobian({MatrixXd::Identity(2, 1)}), {ProbeKind::rademacher, 1, 1}).error(0, 0), kInfinity);
}

INSTANTIATE_TEST_SUITE_P(Devices, StochasticVolumeTest, ::testing::ValuesIn(test_devices()), device_name);

// Two ops per step of the quadrature, one per iteration of conjugate gradients, beside four copies of two callbacks.
TEST(TraceLaunches, AreCounted) {
  const CallbackJacobian jacobian = matrix_jacobian({MatrixXd::Identity(40, 30)});
  const auto calls = [&](std::int64_t steps, std::int64_t iterations, bool preconditioned = false) {
    PlanOps plan;
    Arena arena;
    StochasticVolumeOptions options;
    options.quadrature.steps = steps;
    options.iterations = iterations;
    options.stop_early = false;
    if (preconditioned) options.preconditioner = arena.allocate(DType::f64, {30, 30});
    stochastic_log_volume(plan, arena, jacobian, make_probes(plan, arena, jacobian, {ProbeKind::rademacher, 3, 1}),
                          options);
    return plan.total_calls();
  };
  constexpr std::int64_t kCopies = 4;
  EXPECT_EQ(calls(12, 5) - calls(11, 5), 2 + kCopies);
  EXPECT_EQ(calls(12, 5) - calls(12, 4), 1 + kCopies);
  EXPECT_EQ(calls(12, 5, true) - calls(12, 4, true), 3 + kCopies);  // the product with T, and the direction
}

}  // namespace
}  // namespace bracket::test
