// Stochastic traces and log-determinants against matrices that are known.
#include "bracket/trace_estimators.h"

#include "bracket/singular_values.h"
#include "kernels/plan_ops.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

struct Estimate {
  Certificate certificate = Certificate::exact;
  HostMatrix value, error, tangents, cotangents, residual;
  JacobianPasses passes;
  std::int64_t iterations = 0;
};

class TraceTest : public OpsTest {
 protected:
  using Estimator = std::function<JacobianEstimate(Ops&, Arena&, const Probes&)>;

  Estimate with_probes(const CallbackJacobian& jacobian, const ProbeOptions& options, const Estimator& estimator) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      return read(o, estimator(o, arena, make_probes(o, arena, jacobian, options)));
    });
  }
  Estimate trace(const CallbackJacobian& jacobian, const ProbeOptions& options) {
    return with_probes(jacobian, options, [&](Ops& o, Arena& arena, const Probes& probes) {
      return hutchinson_trace(o, arena, jacobian, probes);
    });
  }
  Estimate function(const CallbackJacobian& jacobian, const SpectralFunction& f, const ProbeOptions& options,
                    std::int64_t steps, const std::vector<double>& lower = {}) {
    return with_probes(jacobian, options, [&](Ops& o, Arena& arena, const Probes& probes) {
      QuadratureOptions quadrature{steps, {}};
      if (!lower.empty()) {
        quadrature.lower_end = arena.allocate(DType::f64, {jacobian.samples()});
        write_values(o, quadrature.lower_end, lower);
      }
      return trace_of_function(o, arena, jacobian, f, probes, quadrature);
    });
  }
  Estimate volume(const CallbackJacobian& jacobian, const ProbeOptions& options,
                  const StochasticVolumeOptions& rest = {}) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      const StochasticVolumeEstimate e =
          stochastic_log_volume(o, arena, jacobian, make_probes(o, arena, jacobian, options), rest);
      Estimate result = read(o, e);
      result.residual = download_from(context(), o, e.residual);
      result.iterations = e.iterations;
      return result;
    });
  }
  Estimate roulette(const CallbackJacobian& jacobian, const ProbeOptions& options, const RouletteOptions& rest) {
    return with_probes(jacobian, options, [&](Ops& o, Arena& arena, const Probes& probes) {
      return roulette_log_volume(o, arena, jacobian, probes, rest);
    });
  }
  Estimate low_rank(const CallbackJacobian& jacobian, const LowRankOptions& options, bool exchangeable) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      return read(o, exchangeable ? exchangeable_trace(o, arena, jacobian, options)
                                  : hutch_plus_plus_trace(o, arena, jacobian, options));
    });
  }

 private:
  Estimate read(Ops& o, const JacobianEstimate& e) {
    const auto down = [&](const Tensor& x) { return download_from(context(), o, x); };
    return {
        e.certificate, down(e.value), down(e.standard_error), down(e.tangents), down(e.cotangents), {}, e.passes, 0};
  }
};

double trace_of(const MatrixXd& j, const std::function<double(double)>& f) {
  double sum = 0;
  const VectorXd s = singular_values_of(j);
  for (std::int64_t k = 0; k < s.size(); ++k) sum += f(s(k) * s(k));
  return sum;
}

std::vector<MatrixXd> matrices_with(std::int64_t n, std::int64_t D, const std::vector<double>& s, std::uint64_t salt) {
  auto engine = test_engine(salt);
  std::vector<MatrixXd> matrices;
  for (std::int64_t i = 0; i < n; ++i) matrices.push_back(with_singular_values(D, s, engine));
  return matrices;
}

double half_log(double x) { return 0.5 * std::log(x); }

// d orthogonal probes: the trace itself, standard error 0, whatever the number of steps beyond d.
TEST_P(TraceTest, CompleteProbesAreExact) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t d : {1, 2, 7}) {
      std::vector<MatrixXd> matrices = matrices_with(3, d + 2, geometric_spectrum(d, 0.5, 8), 1);
      for (MatrixXd& j : matrices) j = rounded(j, dtype);
      const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
      const ProbeOptions complete{ProbeKind::orthogonal, d, 5};
      const Estimate plain = trace(jacobian, complete);
      EXPECT_EQ(plain.certificate, Certificate::exact);
      EXPECT_EQ(plain.passes.apply, d);
      struct Function {
        SpectralFunction f;
        std::function<double(double)> value;
      };
      const Function functions[] = {{kLogarithm, [](double x) { return std::log(x); }},
                                    {kInverse, [](double x) { return 1 / x; }},
                                    {power_function(0.5), [](double x) { return std::sqrt(x); }}};
      // Condition 8: the inverse is sensitive to 64 roundings of J's norm.
      const double limit = 4e3 * static_cast<double>(d) * unit_roundoff(dtype);
      for (std::int64_t i = 0; i < 3; ++i) {
        const MatrixXd& j = matrices[static_cast<std::size_t>(i)];
        EXPECT_NEAR(plain.value(i, 0), j.squaredNorm(), limit * j.squaredNorm());
        EXPECT_EQ(plain.error(i, 0), 0);
        for (const Function& f : functions) {
          const Estimate got = function(jacobian, f.f, complete, d + 3);
          EXPECT_EQ(got.certificate, Certificate::exact);
          EXPECT_EQ(got.passes.apply, d * d);
          EXPECT_EQ(got.passes.transpose, d * (d - 1));
          EXPECT_NEAR(got.value(i, 0), trace_of(j, f.value), limit * std::max(1.0, trace_of(j, f.value))) << d;
        }
      }
    }
  }
}

// Means over n samples of the same operator, each with probes of its own, within 4 standard errors; the squares of the
// reported standard errors against the variance of those estimates, known to sqrt(2 / n) relative where they are
// normal: six of these, as they are not quite.
TEST_P(TraceTest, UnbiasedWithTheStandardErrorItReports) {
  const std::int64_t n = GetParam().name() == "simt" ? 24 : 400, d = 6, P = 4;
  const MatrixXd j = matrices_with(1, 8, geometric_spectrum(d, 0.4, 5), 2)[0];
  const CallbackJacobian jacobian = matrix_jacobian(std::vector<MatrixXd>(static_cast<std::size_t>(n), j));
  const auto judge = [&](const Estimate& got, double expected, Certificate certificate, const std::string& what,
                         double error_factor = 1) {
    EXPECT_EQ(got.certificate, certificate) << what;
    double mean = 0, squares = 0, reported = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      mean += got.value(i, 0) / static_cast<double>(n);
      reported += got.error(i, 0) * got.error(i, 0) / static_cast<double>(n);
    }
    for (std::int64_t i = 0; i < n; ++i) squares += std::pow(got.value(i, 0) - mean, 2) / static_cast<double>(n - 1);
    EXPECT_NEAR(mean, expected, 4 * std::sqrt(squares / static_cast<double>(n))) << what;
    if (error_factor > 0) {
      EXPECT_NEAR(std::log(reported / squares), 0, 6 * std::sqrt(2 / static_cast<double>(n))) << what;
    }
  };
  const double logs = trace_of(j, [](double x) { return std::log(x); });
  for (const ProbeKind kind : {ProbeKind::rademacher, ProbeKind::gaussian, ProbeKind::orthogonal}) {
    const ProbeOptions probes{kind, P, 3};
    const std::string name = std::to_string(static_cast<int>(kind));
    judge(trace(jacobian, probes), j.squaredNorm(), Certificate::unbiased, "trace, probes " + name);
    judge(function(jacobian, kLogarithm, probes, d), logs, Certificate::unbiased, "log, probes " + name);
    const RouletteOptions drawn{2, d, 0.5, false, 9};
    judge(roulette(jacobian, probes, drawn), logs / 2, Certificate::unbiased, "roulette, probes " + name, 0);
  }
  judge(low_rank(jacobian, {2, 4, 5}, false), j.squaredNorm(), Certificate::unbiased, "Hutch++");
  judge(low_rank(jacobian, {3, 1, 6}, true), j.squaredNorm(), Certificate::unbiased, "XTrace", 0);
  // The roulette repairs what is wrong by many standard errors without it.
  const Estimate biased = function(jacobian, kLogarithm, {ProbeKind::orthogonal, d, 3}, 2);
  EXPECT_EQ(biased.certificate, Certificate::certified_upper);
  EXPECT_GT(biased.value(0, 0), logs + 0.05);
}

// Rademacher: 2 sum_{i != j} A_ij^2, Gaussian: 2 |A|_F^2 per probe; the variance of 4000 probes is known to 3 kurtosis-
// dependent per cent, four of them allowed.
TEST_P(TraceTest, VariancesFollowTheFormulas) {
  const std::int64_t d = 5, P = 4000;
  const MatrixXd j = matrices_with(1, 6, geometric_spectrum(d, 1, 2), 4)[0], a = j.transpose() * j;
  const CallbackJacobian jacobian = matrix_jacobian({j});
  const double gaussian = 2 * a.squaredNorm(), rademacher = gaussian - 2 * a.diagonal().squaredNorm();
  for (const auto& [kind, variance] : {std::pair{ProbeKind::rademacher, rademacher}, {ProbeKind::gaussian, gaussian}}) {
    const Estimate got = trace(jacobian, {kind, P, 7});
    EXPECT_NEAR(got.error(0, 0) * got.error(0, 0) * static_cast<double>(P) / variance, 1, 0.16);
  }
}

// The sides of Gauss and Gauss-Radau with few steps, and what happens when the certified end is none.
TEST_P(TraceTest, RulesErrToTheirSides) {
  const std::int64_t d = 9;
  const std::vector<double> s = geometric_spectrum(d, 0.1, 50);
  const MatrixXd j = matrices_with(1, 12, s, 5)[0];
  const CallbackJacobian jacobian = matrix_jacobian({j});
  const ProbeOptions complete{ProbeKind::orthogonal, d, 5}, some{ProbeKind::rademacher, 3, 5};
  const double logs = trace_of(j, [](double x) { return std::log(x); });
  const double inverses = trace_of(j, [](double x) { return 1 / x; });
  const double end = 0.99 * 0.01;
  for (const std::int64_t steps : {1, 2, 4, 8}) {
    const Estimate above = function(jacobian, kLogarithm, complete, steps);
    const Estimate below = function(jacobian, kLogarithm, complete, steps, {end});
    EXPECT_EQ(above.certificate, Certificate::certified_upper);
    EXPECT_EQ(below.certificate, Certificate::certified_lower);
    EXPECT_GT(above.value(0, 0), logs);
    EXPECT_LT(below.value(0, 0), logs);
    EXPECT_EQ(below.passes.transpose, d * steps);
    const Estimate under = function(jacobian, kInverse, complete, steps);
    const Estimate over = function(jacobian, kInverse, complete, steps, {end});
    EXPECT_EQ(under.certificate, Certificate::certified_lower);
    EXPECT_EQ(over.certificate, Certificate::certified_upper);
    EXPECT_LT(under.value(0, 0), inverses);
    EXPECT_GT(over.value(0, 0), inverses);
    EXPECT_EQ(function(jacobian, kLogarithm, some, steps).certificate, Certificate::optimistic);
    EXPECT_EQ(function(jacobian, kLogarithm, some, steps, {end}).certificate, Certificate::pessimistic);
    EXPECT_EQ(function(jacobian, power_function(2), complete, steps).certificate,
              steps == 1 ? Certificate::certified_lower : Certificate::exact);
  }
  EXPECT_EQ(function(jacobian, kLogarithm, complete, 4, {1e3}).value(0, 0), -kInfinity);
}

// All probes, all steps: sum C V^T = J (J^T J)^-1. Few iterations: rows stop where their residual says so.
TEST_P(TraceTest, DerivativeVectorsSolveTheNormalEquations) {
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
      EXPECT_NEAR(got.value(i, 0), trace_of(j, half_log), 1e4 * u);
      const MatrixXd product = block_rows(got.cotangents, i * d, d).transpose() * block_rows(got.tangents, i * d, d);
      const MatrixXd expected = j * (j.transpose() * j).inverse();
      // Residuals of 100 u and rounding, times 1 / s_1^2 |J|.
      EXPECT_LE((product - expected).norm(), 1e4 * u * expected.norm());
    }
    // Rows that are done stay as they are: 60 iterations give what 8 do, and less than the tolerance asks for.
    options.tolerance = 0.3;
    options.stop_early = false;
    const Estimate loose = volume(jacobian, {ProbeKind::rademacher, 3, 8}, options);
    EXPECT_EQ(loose.iterations, 60);
    EXPECT_EQ(loose.passes.apply, 3 * (6 + 60 + 1));
    double largest = 0;
    for (const double residual : loose.residual.values) largest = std::max(largest, residual / std::sqrt(6.0));
    EXPECT_LE(largest, 0.3);
    EXPECT_GT(largest, 1e-3);
    options.iterations = 8;
    EXPECT_MATRICES_IDENTICAL(volume(jacobian, {ProbeKind::rademacher, 3, 8}, options).cotangents, loose.cotangents);
  }
}

// <C, dJ V> of few probes is an unbiased estimate of tr(J^+ dJ): 300 samples within 4 standard errors of their mean.
TEST_P(TraceTest, DerivativesAreUnbiased) {
  const std::int64_t n = 300, d = 5, D = 8, P = 2;
  auto engine = test_engine(9);
  const MatrixXd j = with_singular_values(D, geometric_spectrum(d, 0.5, 6), engine), dj = normal_matrix(D, d, engine);
  const CallbackJacobian jacobian = matrix_jacobian(std::vector<MatrixXd>(static_cast<std::size_t>(n), j));
  StochasticVolumeOptions options;
  options.quadrature.steps = 2;
  options.tolerance = 1e-10;
  const Estimate got = volume(jacobian, {ProbeKind::gaussian, P, 10}, options);
  EXPECT_EQ(got.certificate, Certificate::optimistic);
  const double expected = (j.completeOrthogonalDecomposition().pseudoInverse() * dj).trace();
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

// The range of a Jacobian of rank 3 is caught by 3 directions.
TEST_P(TraceTest, LowRankTracesAreExactForLowRank) {
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
TEST_P(TraceTest, ExchangeableTraceFollowsItsDefinition) {
  const std::int64_t d = 8, R = 4;
  const MatrixXd j = matrices_with(1, 10, geometric_spectrum(d, 0.3, 10), 12)[0], a = j.transpose() * j;
  const CallbackJacobian jacobian = matrix_jacobian({j});
  const Estimate got = low_rank(jacobian, {R, 1, 13}, true);
  const DeviceTensor x = empty(context(), DType::f64, {R * d});
  ops().random_signs(x, {13, RandomStream::jacobian_probe, 0}, nullptr);
  const HostMatrix signs = download(context(), x);
  const MatrixXd probes = Eigen::Map<const RowMatrix>(signs.values.data(), R, d).transpose();
  VectorXd estimates(R);
  for (std::int64_t i = 0; i < R; ++i) {
    MatrixXd others(d, R - 1);
    for (std::int64_t k = 0, c = 0; k < R; ++k)
      if (k != i) others.col(c++) = a * probes.col(k);
    const Eigen::HouseholderQR<MatrixXd> qr(others);
    const MatrixXd q = qr.householderQ() * MatrixXd::Identity(d, R - 1);
    const VectorXd rest = probes.col(i) - q * (q.transpose() * probes.col(i));
    estimates(i) = (q.transpose() * a * q).trace() + rest.dot(a * rest);
  }
  const double deviation =
      std::sqrt((estimates.array() - estimates.mean()).square().sum() / static_cast<double>((R - 1) * R));
  EXPECT_NEAR(got.value(0, 0), estimates.mean(), 1e-9);
  EXPECT_NEAR(got.error(0, 0), deviation, 1e-9);
}

// Steps that no probe has drawn change nothing but the work.
TEST_P(TraceTest, RouletteRunsWhatIsDrawn) {
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
  options.maximum = 4;
  EXPECT_EQ(roulette(jacobian, probes, options).certificate, Certificate::optimistic);
  options.survival = 1;
  const Estimate gauss = function(jacobian, kLogarithm, probes, 4), certain = roulette(jacobian, probes, options);
  for (std::int64_t i = 0; i < 2; ++i) EXPECT_NEAR(certain.value(i, 0), gauss.value(i, 0) / 2, 1e-12);
}

// Zero, rank-deficient, NaN and no samples at all.
TEST_P(TraceTest, SpecialSamples) {
  auto engine = test_engine(14);
  const std::int64_t d = 3;
  std::vector<MatrixXd> matrices(4, with_singular_values(5, {1, 2, 3}, engine));
  matrices[0].setZero();
  matrices[1] = with_singular_values(5, {0, 2, 3}, engine);
  matrices[2](1, 1) = kNaN;
  const CallbackJacobian jacobian = matrix_jacobian(matrices);
  const Estimate logs = volume(jacobian, {ProbeKind::orthogonal, d, 1});
  EXPECT_EQ(logs.value(0, 0), -kInfinity);
  EXPECT_LT(logs.value(1, 0), -10);  // an eigenvalue of rounding, or none
  EXPECT_FALSE(std::isnan(logs.value(1, 0)));
  EXPECT_TRUE(std::isnan(logs.value(2, 0)));
  EXPECT_NEAR(logs.value(3, 0), std::log(6), 1e-13);
  EXPECT_EQ(block_rows(logs.cotangents, 0, d).norm(), 0);
  for (const bool exchangeable : {false, true}) {
    const Estimate low = low_rank(jacobian, {2, 2, 1}, exchangeable);
    EXPECT_EQ(low.value(0, 0), 0);
    EXPECT_TRUE(std::isnan(low.value(2, 0)) && std::isfinite(low.value(3, 0)));
  }
  const Estimate drawn = roulette(jacobian, {ProbeKind::rademacher, 4, 1}, {1, 3, 0.5, false, 2});
  EXPECT_EQ(drawn.value(0, 0), -kInfinity);
  EXPECT_FALSE(std::isnan(drawn.value(1, 0)));
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

INSTANTIATE_TEST_SUITE_P(Devices, TraceTest, ::testing::ValuesIn(test_devices()), device_name);

TEST(TraceErrors, AreTyped) {
  const TestDevice device("cpu");
  Context& context = device.context();
  Ops& ops = context.ops();
  Arena arena(context.pool(), 1 << 20);
  auto engine = test_engine(15);
  const CallbackJacobian tall = matrix_jacobian({normal_matrix(4, 3, engine)}),
                         wide = matrix_jacobian({normal_matrix(2, 3, engine)});
  EXPECT_THROW(make_probes(ops, arena, tall, {ProbeKind::gaussian, 0}), InvalidArgument);
  EXPECT_THROW(make_probes(ops, arena, tall, {ProbeKind::orthogonal, 4}), InvalidArgument);
  const Probes probes = make_probes(ops, arena, tall, {ProbeKind::gaussian, 2, 1});
  Probes wrong = probes;
  wrong.count = 3;
  EXPECT_THROW(hutchinson_trace(ops, arena, tall, wrong), InvalidArgument);
  EXPECT_THROW(trace_of_function(ops, arena, tall, kLogarithm, probes, {0, {}}), InvalidArgument);
  EXPECT_THROW(trace_of_function(ops, arena, tall, kLogarithm, probes, {2, probes.directions}), InvalidArgument);
  EXPECT_THROW(stochastic_log_volume(ops, arena, wide, probes), InvalidArgument);
  StochasticVolumeOptions options;
  options.tolerance = 1;
  EXPECT_THROW(stochastic_log_volume(ops, arena, tall, probes, options), InvalidArgument);
  options.tolerance = 0.1;
  options.iterations = -1;
  EXPECT_THROW(stochastic_log_volume(ops, arena, tall, probes, options), InvalidArgument);
  EXPECT_THROW(roulette_log_volume(ops, arena, tall, probes, {0, 3}), InvalidArgument);
  EXPECT_THROW(roulette_log_volume(ops, arena, tall, probes, {3, 2}), InvalidArgument);
  EXPECT_THROW(roulette_log_volume(ops, arena, tall, probes, {1, 3, 0}), InvalidArgument);
  EXPECT_THROW(hutch_plus_plus_trace(ops, arena, tall, {4, 1}), InvalidArgument);
  EXPECT_THROW(hutch_plus_plus_trace(ops, arena, tall, {2, 0}), InvalidArgument);
  EXPECT_THROW(exchangeable_trace(ops, arena, tall, {0, 1}), InvalidArgument);
}

// Two ops per step of the quadrature, one per iteration of conjugate gradients, beside four copies of two callbacks.
TEST(TraceLaunches, AreCounted) {
  const CallbackJacobian jacobian = matrix_jacobian({MatrixXd::Identity(40, 30)});
  const auto calls = [&](std::int64_t steps, std::int64_t iterations) {
    PlanOps plan;
    Arena arena;
    StochasticVolumeOptions options;
    options.quadrature.steps = steps;
    options.iterations = iterations;
    options.stop_early = false;
    stochastic_log_volume(plan, arena, jacobian, make_probes(plan, arena, jacobian, {ProbeKind::rademacher, 3, 1}),
                          options);
    return plan.total_calls();
  };
  constexpr std::int64_t kCopies = 4;
  EXPECT_EQ(calls(12, 5) - calls(11, 5), 2 + kCopies);
  EXPECT_EQ(calls(12, 5) - calls(12, 4), 1 + kCopies);
}

}  // namespace
}  // namespace bracket::test
