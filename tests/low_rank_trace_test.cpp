// Hutch++ and XTrace: of J^T J by products, and of functions of it by few steps.
#include "kernels/plan_ops.h"
#include "tests/trace_fixture.h"

namespace bracket::test {
namespace {

class LowRankTest : public TraceTest {
 protected:
  static LowRankOptions of(const SpectralFunction& f, std::int64_t directions, std::int64_t probes, std::int64_t steps,
                           std::uint64_t seed = 1) {
    LowRankOptions options{directions, probes, seed};
    options.function = f;
    options.steps = steps;
    return options;
  }
};

struct Function {
  SpectralFunction f;
  std::function<double(double)> value;
};
const Function kFunctions[] = {{kLogarithm, [](double x) { return std::log(x); }},
                               {kInverse, [](double x) { return 1 / x; }},
                               {power_function(0.5), [](double x) { return std::sqrt(x); }}};

// The range of a Jacobian of rank 3 is caught by 3 directions.
TEST_P(LowRankTest, LowRankTracesAreExactForLowRank) {
  auto engine = test_engine(11);
  const MatrixXd j = normal_matrix(10, 3, engine) * normal_matrix(3, 8, engine);
  const CallbackJacobian jacobian = matrix_jacobian({j, j});
  const Estimate plus = low_rank(jacobian, {3, 2, 1}, false), exchangeable = low_rank(jacobian, {4, 1, 1}, true);
  EXPECT_EQ(plus.passes.apply, 8);
  EXPECT_EQ(plus.passes.transpose, 3);
  EXPECT_EQ(exchangeable.passes.apply, 8);
  for (std::int64_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(plus.value(i, 0), j.squaredNorm(), 1e-10 * j.squaredNorm());
    EXPECT_LE(plus.error(i, 0), 1e-10 * j.squaredNorm());
    EXPECT_NEAR(exchangeable.value(i, 0), j.squaredNorm(), 1e-8 * j.squaredNorm());
  }
}

// XTrace by its definition: Q_i from a QR without column i, one probe left out.
TEST_P(LowRankTest, ExchangeableTraceFollowsItsDefinition) {
  const std::int64_t d = 8, R = 4;
  const MatrixXd j = matrices_with(1, 10, geometric_spectrum(d, 0.3, 10), 12)[0], a = j.transpose() * j;
  const CallbackJacobian jacobian = matrix_jacobian({j});
  const Estimate got = low_rank(jacobian, {R, 1, 13}, true);
  const DeviceTensor x = empty(context(), DType::f64, {R * d});
  ops().random_normal(x, {13, RandomStream::jacobian_probe, 0}, nullptr);
  const HostMatrix normals = download(context(), x);
  const MatrixXd probes = Eigen::Map<const RowMatrix>(normals.values.data(), R, d).transpose();
  VectorXd estimates(R);
  for (std::int64_t i = 0; i < R; ++i) {
    MatrixXd others(d, R - 1);
    for (std::int64_t k = 0, c = 0; k < R; ++k)
      if (k != i) others.col(c++) = a * probes.col(k);
    const MatrixXd q = orthonormal_factor(others);
    const VectorXd rest = probes.col(i) - q * (q.transpose() * probes.col(i));
    estimates(i) = (q.transpose() * a * q).trace() + rest.dot(a * rest);
  }
  const double deviation =
      std::sqrt((estimates.array() - estimates.mean()).square().sum() / static_cast<double>((R - 1) * R));
  EXPECT_NEAR(got.value(0, 0), estimates.mean(), 1e-9);
  EXPECT_NEAR(got.error(0, 0), deviation, 1e-9);
}

// All directions and all steps: Q spans everything, and the rules are exact. Condition 8: the inverse is sensitive to
// 64 roundings of J's norm, as in CompleteProbesAreExact.
TEST_P(LowRankTest, HutchPlusPlusOfFunctionsIsExactForAllDirections) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t d : {1, 2, 6}) {
      std::vector<MatrixXd> matrices = matrices_with(2, d + 2, geometric_spectrum(d, 0.5, 8), 1);
      for (MatrixXd& j : matrices) j = rounded(j, dtype);
      const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
      const double limit = 4e3 * static_cast<double>(d) * unit_roundoff(dtype);
      for (const Function& f : kFunctions) {
        const Estimate got = low_rank(jacobian, of(f.f, d, 2, d), false);
        EXPECT_EQ(got.certificate, Certificate::unbiased);
        EXPECT_EQ(got.passes.apply, d * (2 * d + 2));
        EXPECT_EQ(got.passes.transpose, (d - 1) * (2 * d + 2));
        for (std::int64_t i = 0; i < 2; ++i) {
          const double want = trace_of(matrices[static_cast<std::size_t>(i)], f.value);
          EXPECT_NEAR(got.value(i, 0), want, limit * std::max(1.0, std::abs(want))) << "d " << d;
          EXPECT_EQ(got.deficient(i, 0), 0);
        }
      }
    }
  }
}

// f(A) of rank R - 1, or R for Hutch++: f(0) = 0, and what rounding leaves of it to these powers is less than rounding.
TEST_P(LowRankTest, FunctionsOfLowRankAreExact) {
  auto engine = test_engine(11);
  const MatrixXd j = normal_matrix(10, 3, engine) * normal_matrix(3, 8, engine);
  const CallbackJacobian jacobian = matrix_jacobian({j});
  for (const double exponent : {1.5, 2.0}) {
    const double want = trace_of(j, [&](double x) { return std::pow(x, exponent); });
    const Estimate plus = low_rank(jacobian, of(power_function(exponent), 3, 2, 8), false);
    const Estimate exchangeable = low_rank(jacobian, of(power_function(exponent), 4, 1, 8), true);
    EXPECT_NEAR(plus.value(0, 0), want, 1e-10 * want);
    EXPECT_NEAR(exchangeable.value(0, 0), want, 1e-8 * want);
    EXPECT_EQ(exchangeable.certificate, Certificate::unbiased);
    EXPECT_EQ(exchangeable.passes.apply, 8 * 8);
    EXPECT_EQ(exchangeable.passes.transpose, 8 * 7);
    EXPECT_GT(plus.deficient(0, 0), 0);
  }
}

// Samples of the same operator with probes of their own, within 4 standard errors of the trace, with d steps; few steps
// say that they are biased, Hutch++ to the side of the Gauss rule.
TEST_P(LowRankTest, FunctionsAreUnbiased) {
  const std::int64_t n = GetParam().name() == "simt" ? 16 : 400, d = 6;
  const MatrixXd j = matrices_with(1, 8, geometric_spectrum(d, 0.4, 5), 2)[0];
  const CallbackJacobian jacobian = matrix_jacobian(std::vector<MatrixXd>(static_cast<std::size_t>(n), j));
  for (const Function& f : kFunctions) {
    const double want = trace_of(j, f.value);
    for (const bool exchangeable : {false, true}) {
      const Estimate got = low_rank(jacobian, of(f.f, 3, 3, d, 5), exchangeable);
      EXPECT_EQ(got.certificate, Certificate::unbiased);
      double mean = 0, squares = 0;
      for (const double value : got.value.values) mean += value / static_cast<double>(n);
      for (const double value : got.value.values) squares += std::pow(value - mean, 2) / static_cast<double>(n - 1);
      EXPECT_NEAR(mean, want, 4 * std::sqrt(squares / static_cast<double>(n))) << exchangeable;
    }
    EXPECT_EQ(low_rank(jacobian, of(f.f, 3, 3, 2), true).certificate, Certificate::biased);
    EXPECT_EQ(low_rank(jacobian, of(f.f, 3, 3, 2), false).certificate,
              f.f.kind == SpectralFunction::Kind::power && f.f.exponent < 0 ? Certificate::pessimistic
                                                                            : Certificate::optimistic);
  }
}

// At equal products with J: s_k^-2 falls like k^-2, so that R directions leave little of the inverse to chance. All
// forms are those of d steps, exact: what is compared is the variance, known to sqrt(2 / n) = 10 %.
TEST_P(LowRankTest, DecayingSpectraLeaveLittleToChance) {
  if (GetParam().name() == "simt") GTEST_SKIP() << "statistics of the same kernels";
  const std::int64_t n = 200, d = 30, P = 24;
  std::vector<double> s;
  for (std::int64_t k = 0; k < d; ++k) s.push_back(static_cast<double>(k + 1));
  const MatrixXd j = matrices_with(1, d, s, 3)[0];
  const CallbackJacobian jacobian = matrix_jacobian(std::vector<MatrixXd>(static_cast<std::size_t>(n), j));
  const double want = trace_of(j, [](double x) { return 1 / x; });
  const auto variance = [&](const Estimate& e) {
    double squares = 0;
    for (const double value : e.value.values) squares += std::pow(value - want, 2) / static_cast<double>(n);
    return squares;
  };
  const double hutchinson = variance(function(jacobian, kInverse, {ProbeKind::rademacher, P, 4}, d));
  const double plus = variance(low_rank(jacobian, of(kInverse, P / 3, P / 3, d, 4), false));
  const double exchangeable = variance(low_rank(jacobian, of(kInverse, P / 2, 1, d, 4), true));
  RecordProperty("hutch_plus_plus_over_hutchinson", std::to_string(plus / hutchinson));
  RecordProperty("xtrace_over_hutchinson", std::to_string(exchangeable / hutchinson));
  EXPECT_LT(plus, 0.1 * hutchinson);
  EXPECT_LT(exchangeable, 0.1 * hutchinson);
}

// A singular value of 0 makes log -inf and the inverse infinite, and is reported; NaN stays NaN.
TEST_P(LowRankTest, MissingRankIsReported) {
  auto engine = test_engine(14);
  const std::int64_t d = 5;
  std::vector<MatrixXd> matrices(3, with_singular_values(d, {1, 1.5, 2, 2.5, 3}, engine));
  matrices[1] = with_singular_values(d, {0, 1.5, 2, 2.5, 3}, engine);
  matrices[2](0, 1) = kNaN;
  const CallbackJacobian jacobian = matrix_jacobian(matrices);
  for (const bool exchangeable : {false, true}) {
    const Estimate logs = low_rank(jacobian, of(kLogarithm, 3, 2, d), exchangeable);
    const Estimate inverses = low_rank(jacobian, of(kInverse, 3, 2, d), exchangeable);
    EXPECT_EQ(logs.value(1, 0), -kInfinity);
    EXPECT_EQ(inverses.value(1, 0), kInfinity);
    EXPECT_GT(logs.deficient(1, 0), 0);
    EXPECT_EQ(logs.deficient(0, 0), 0);
    EXPECT_TRUE(std::isfinite(logs.value(0, 0)) && std::isnan(logs.value(2, 0)));
  }
}

TEST_P(LowRankTest, ATraceOfNothingIsZero) {
  for (const bool exchangeable : {false, true}) {
    const Estimate none = low_rank(matrix_jacobian({MatrixXd::Zero(6, 4)}), {3, 2, 1}, exchangeable);
    EXPECT_EQ(none.value(0, 0), 0);
    EXPECT_EQ(none.error(0, 0), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, LowRankTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
