// Stochastic traces against matrices that are known.
#include "tests/trace_fixture.h"

namespace bracket::test {
namespace {

// d orthogonal probes: the trace itself, standard error 0, whatever the number of steps beyond d.
TEST_P(TraceTest, CompleteProbesAreExact) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t d : {1, 2, 5}) {
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

// Of a J whose squares leave the range of a double: logarithms do not.
TEST_P(TraceTest, LogarithmsDoNotOverflow) {
  const std::int64_t d = 5;
  const MatrixXd j = matrices_with(1, 7, geometric_spectrum(d, 0.5, 8), 22)[0];
  const double logs = trace_of(j, [](double x) { return std::log(x); });
  for (const double size : {1e200, 1e-200}) {
    const Estimate got = function(matrix_jacobian({size * j}), kLogarithm, {ProbeKind::orthogonal, d, 5}, d);
    EXPECT_NEAR(got.value(0, 0), logs + 10 * std::log(size), 1e-11);
    EXPECT_EQ(got.deficient(0, 0), 0);
  }
}

// A number on the device that a captured graph counts up stands for the step: 5 + 2 draws what step 7 draws.
TEST_P(TraceTest, ACounterOnTheDeviceIsAddedToTheStep) {
  const std::int64_t d = 5;
  const CallbackJacobian jacobian = matrix_jacobian(matrices_with(2, 6, geometric_spectrum(d, 0.5, 4), 21));
  const DeviceArray<std::int64_t> memory(context(), std::int64_t{2});
  const std::int64_t* const counter = memory.address();
  const auto same = [](const Estimate& a, const Estimate& b) {
    EXPECT_MATRICES_IDENTICAL(a.value, b.value);
    EXPECT_MATRICES_IDENTICAL(a.error, b.error);
  };
  for (const ProbeKind kind : {ProbeKind::rademacher, ProbeKind::gaussian, ProbeKind::orthogonal})
    same(trace(jacobian, {kind, 2, 1, 5, counter}), trace(jacobian, {kind, 2, 1, 7}));
  for (const bool exchangeable : {false, true})
    same(low_rank(jacobian, {2, 2, 1, 5, counter}, exchangeable), low_rank(jacobian, {2, 2, 1, 7}, exchangeable));
  const ProbeOptions probes{ProbeKind::rademacher, 2, 1};
  same(roulette(jacobian, probes, {1, 5, 0.7, true, 1, 5, counter}),
       roulette(jacobian, probes, {1, 5, 0.7, true, 1, 7}));
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
  const std::int64_t counter = 0;
  EXPECT_THROW(roulette_log_volume(ops, arena, tall, probes, {1, 3, 0.5, false, 0, 0, &counter}), InvalidArgument);
  EXPECT_THROW(
      trace_of_function(ops, arena, tall, kLogarithm, probes, {2, arena.allocate(DType::f64, {tall.samples() + 1})}),
      InvalidArgument);
  EXPECT_THROW(roulette_log_volume(ops, arena, tall, probes, {3, 2}), InvalidArgument);
  EXPECT_THROW(roulette_log_volume(ops, arena, tall, probes, {1, 3, 0}), InvalidArgument);
  EXPECT_THROW(hutch_plus_plus_trace(ops, arena, tall, {4, 1}), InvalidArgument);
  EXPECT_THROW(hutch_plus_plus_trace(ops, arena, tall, {2, 0}), InvalidArgument);
  EXPECT_THROW(exchangeable_trace(ops, arena, tall, {0, 1}), InvalidArgument);
  LowRankOptions none;
  none.directions = 2;
  none.steps = 0;
  EXPECT_THROW(hutch_plus_plus_trace(ops, arena, tall, none), InvalidArgument);
  EXPECT_THROW(roulette_log_volume(ops, arena, wide, probes), InvalidArgument);
  options.iterations = 1;
  options.preconditioner = arena.allocate(DType::f64, {4, 4});
  EXPECT_THROW(stochastic_log_volume(ops, arena, tall, probes, options), InvalidArgument);
}

}  // namespace
}  // namespace bracket::test
