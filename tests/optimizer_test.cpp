// Adam, the moving average and the rules of a step's scalars against plain loops in double.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>

#include "ops_fixture.h"
#ifdef BRACKET_TEST_SIMT
#include "simt/scoped_options.h"
#endif

namespace bracket::test {
namespace {

constexpr std::array<std::int64_t, 9> kSizes{0, 1, 31, 32, 33, 127, 129, 1009, 20011};

class OptimizerTest : public OpsTest {
 protected:
  DeviceTensor vector(const HostMatrix& values, DType dtype) const { return upload_vector(context(), values, dtype); }
};
INSTANTIATE_TEST_SUITE_P(Devices, OptimizerTest, ::testing::ValuesIn(test_devices()), device_name);

/// PyTorch's Adam (AdamW with weight decay), written from its documentation, in double.
struct ReferenceAdam {
  HostMatrix p, m, v;
  void step(const HostMatrix& gradient, const Adam& rule, double rate, double clip, std::int64_t t) {
    for (std::size_t i = 0; i < p.values.size(); ++i) {
      const double g = clip * gradient.values[i];
      p.values[i] -= rate * rule.weight_decay * p.values[i];
      m.values[i] = rule.beta1 * m.values[i] + (1 - rule.beta1) * g;
      v.values[i] = rule.beta2 * v.values[i] + (1 - rule.beta2) * g * g;
      const double m_hat = m.values[i] / (1 - std::pow(rule.beta1, static_cast<double>(t)));
      const double v_hat = v.values[i] / (1 - std::pow(rule.beta2, static_cast<double>(t)));
      p.values[i] -= rate * m_hat / (std::sqrt(v_hat) + rule.epsilon);
    }
  }
};

/// Five updates. Per update an entry of m or v gains at most 4 roundings of its magnitude (<= 1), p at most 4 of its
/// own (<= 3) and 12 of the update's, which is below 4 rates (|m_hat| <= sqrt(v_hat) up to the ratio of the
/// corrections): 5 (4 + 12 + 48 rate) u < 100 u.
TEST_P(OptimizerTest, AdamFollowsItsDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Adam& rule : {Adam{}, Adam{0.5, 0.99, 1e-8, 0}, Adam{0, 0.9, 1e-6, 0}, Adam{0.9, 0.999, 1e-3, 0.1}}) {
      for (const bool first_moment : {true, false}) {
        if (!first_moment && rule.beta1 != 0) continue;
        for (const std::int64_t n : kSizes) {
          ReferenceAdam reference{random_matrix(n, 1, 51, -2, 2).rounded(dtype), HostMatrix(n, 1), HostMatrix(n, 1)};
          const DeviceTensor p = vector(reference.p, dtype), m = vector(reference.m, dtype),
                             v = vector(reference.v, dtype);
          StepState host;
          host.learning_rate[1] = 0.01;
          host.clip_scale[1] = 0.75;
          host.updates[0] = 99;  // of the other player
          const DeviceArray<StepState> state(context(), host);
          for (std::int64_t t = 1; t <= 5; ++t) {
            const HostMatrix gradient = random_matrix(n, 1, 52 + static_cast<std::uint64_t>(t)).rounded(dtype);
            ops().adam(p, first_moment ? m.tensor() : Tensor(), v, vector(gradient, dtype), rule, state.address(),
                       Player::generator);
            ops().count_update(state.address(), Player::generator);
            reference.step(gradient, rule, 0.01, 0.75, t);
          }
          const Limit limit = absolute_limit(100 * unit_roundoff(dtype));
          EXPECT_MATRICES_CLOSE(download(context(), p), reference.p, limit);
          EXPECT_MATRICES_CLOSE(download(context(), v), reference.v, limit);
          if (first_moment) {
            EXPECT_MATRICES_CLOSE(download(context(), m), reference.m, limit);
          }
          EXPECT_EQ(state.read().updates[1], 5);
          EXPECT_EQ(state.read().updates[0], 99);
        }
      }
    }
  }
}

TEST_P(OptimizerTest, FirstUpdateOfAdamIsTheRateInTheGradientsDirection) {
  // m / sqrt(v) = sign(g) exactly up to epsilon at t = 1.
  const HostMatrix gradient = host_vector({1e-3, -20, 0, 5e5});
  const DeviceTensor p = vector(HostMatrix(4, 1), DType::f64), m = vector(HostMatrix(4, 1), DType::f64),
                     v = vector(HostMatrix(4, 1), DType::f64);
  StepState host;
  host.learning_rate[0] = 0.125;
  const DeviceArray<StepState> state(context(), host);
  ops().adam(p, m, v, vector(gradient, DType::f64), Adam{0.9, 0.999, 1e-12, 0}, state.address(), Player::energy);
  EXPECT_MATRICES_CLOSE(download(context(), p), host_vector({-0.125, 0.125, 0, -0.125}), absolute_limit(1e-9));
}

TEST_P(OptimizerTest, MovingAverage) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : kSizes) {
      // The ramp (t + 1) / (t + 10) rules early, the decay later.
      for (const auto& [step, keep] : {std::pair<std::int64_t, double>{0, 0.1}, {8, 0.5}, {1000000, 0.999}}) {
        const HostMatrix average = random_matrix(n, 1, 61).rounded(dtype), p = random_matrix(n, 1, 62).rounded(dtype);
        StepState host;
        host.step = step;
        const DeviceArray<StepState> state(context(), host);
        const DeviceTensor a = vector(average, dtype);
        ops().ema(a, vector(p, dtype), 0.999, state.address());
        HostMatrix expected = average;
        for (std::size_t i = 0; i < expected.values.size(); ++i) {
          expected.values[i] = keep * average.values[i] + (1 - keep) * p.values[i];
        }
        // Three roundings of numbers below 2.
        EXPECT_MATRICES_CLOSE(download(context(), a), expected, absolute_limit(6 * unit_roundoff(dtype)));
      }
    }
  }
}

TEST_P(OptimizerTest, SchedulesOfRatesAndWeights) {
  Schedule schedule;
  schedule.base_rate[0] = 3e-3;
  schedule.base_rate[1] = 2e-4;
  schedule.total_steps = 1000;
  schedule.warmup_steps = 200;
  schedule.cosine = true;
  schedule.final_fraction = 0.02;
  schedule.weight_rule = Schedule::Weight::power;
  schedule.weight = 0.7;
  schedule.weight_offset = 2307;
  schedule.weight_exponent = -0.55;
  for (const std::int64_t t : {0, 1, 99, 198, 199, 200, 500, 999, 1000, 5000}) {
    StepState host;
    host.step = t;
    host.clip_scale[0] = 0.3;
    host.record.loss_energy = 5;
    host.penalty_weight = 123;
    DeviceArray<StepState> state(context(), host);
    const double progress = std::min(1.0, static_cast<double>(t) / 1000);
    const double factor = std::min(1.0, static_cast<double>(t + 1) / 200) *
                          (0.02 + 0.98 * (1 + std::cos(std::numbers::pi * progress)) / 2);
    // A few roundings, and two of the device's functions.
    const auto check = [&](double weight) {
      const StepState got = state.read();
      EXPECT_NEAR(got.learning_rate[0], 3e-3 * factor, 1e-14 * 3e-3);
      EXPECT_NEAR(got.learning_rate[1], 2e-4 * factor, 1e-14 * 2e-4);
      EXPECT_NEAR(got.penalty_weight, weight, 1e-14 * weight);
      EXPECT_EQ(got.record.penalty_weight, got.penalty_weight);
      EXPECT_EQ(got.record.step, t + 1);
      EXPECT_EQ(got.record.loss_energy, 0);
      EXPECT_EQ(got.clip_scale[0], 1);
      EXPECT_EQ(got.step, t);
    };
    ops().begin_step(state.address(), schedule);
    check(0.7 * std::pow(2307.0 + static_cast<double>(t), -0.55));
    Schedule adaptive = schedule;
    adaptive.weight_rule = Schedule::Weight::adaptive;
    state.write({host});
    ops().begin_step(state.address(), adaptive);
    check(123);
    Schedule constant = schedule;
    constant.weight_rule = Schedule::Weight::constant;
    ops().begin_step(state.address(), constant);
    check(0.7);
    constant.cosine = false;
    constant.warmup_steps = 0;
    ops().begin_step(state.address(), constant);
    EXPECT_EQ(state.read().learning_rate[0], 3e-3);
  }
}

TEST_P(OptimizerTest, ClippingByTheNorm) {
  const DeviceArray<StepState> state(context(), StepState{});
  const DeviceTensor squared = vector(host_vector({25}), DType::f64);
  ops().clip_gradient(state.address(), squared, 2, Player::energy);
  ops().clip_gradient(state.address(), squared, 0, Player::generator);
  StepState got = state.read();
  EXPECT_EQ(got.clip_scale[0], 0.4);
  EXPECT_EQ(got.clip_scale[1], 1);
  EXPECT_EQ(got.record.grad_norm_energy, 5);
  EXPECT_EQ(got.record.grad_norm_generator, 5);
  ops().clip_gradient(state.address(), squared, 7, Player::energy);
  EXPECT_EQ(state.read().clip_scale[0], 1);
}

TEST_P(OptimizerTest, TheRingKeepsTheLastRecords) {
  const DeviceArray<StepState> state(context(), StepState{});
  const DeviceArray<StepRecord> ring(context(), std::vector<StepRecord>(3));
  Schedule schedule;
  for (int t = 0; t < 5; ++t) {
    schedule.weight = t;
    ops().begin_step(state.address(), schedule);
    ops().end_step(state.address(), ring.address(), 3);
  }
  EXPECT_EQ(state.read().step, 5);
  const std::vector<StepRecord> records = ring.read_all();
  EXPECT_EQ(records[0].step, 4);
  EXPECT_EQ(records[1].step, 5);
  EXPECT_EQ(records[2].step, 3);
  EXPECT_EQ(records[1].penalty_weight, 4);
}

TEST_P(OptimizerTest, ANonFiniteMarkFreezesEverything) {
  StepState host;
  host.step = 7;
  host.updates[0] = 3;
  host.learning_rate[0] = 0.5;
  host.penalty_weight = 2;
  host.gap_average = 0.25;
  host.nonfinite_tensor = 4;
  host.nonfinite_element = 9;
  host.record.step = 8;
  host.record.half_variance = 3;
  const DeviceArray<StepState> state(context(), host);
  const DeviceArray<StepRecord> ring(context(), std::vector<StepRecord>(2));
  const HostMatrix before = random_matrix(129, 1, 71), gradient = random_matrix(129, 1, 72);
  const DeviceTensor p = vector(before, DType::f64), m = vector(before, DType::f64), v = vector(before, DType::f64),
                     a = vector(before, DType::f64), g = vector(gradient, DType::f64);
  Schedule schedule;
  schedule.base_rate[0] = 1;
  schedule.weight = 9;
  ops().begin_step(state.address(), schedule);
  ops().clip_gradient(state.address(), vector(host_vector({4}), DType::f64), 1, Player::energy);
  ops().adam(p, m, v, g, Adam{}, state.address(), Player::energy);
  ops().count_update(state.address(), Player::energy);
  ops().ema(a, g, 0.9, state.address());
  ops().adapt_penalty_weight(state.address(), {0.5, 0.1, 0.9, 0, 10, 0});
  ops().end_step(state.address(), ring.address(), 2);
  for (const DeviceTensor* tensor : {&p, &m, &v, &a}) {
    EXPECT_MATRICES_IDENTICAL(download(context(), *tensor), before);
  }
  const StepState got = state.read();
  EXPECT_EQ(got.step, 7);
  EXPECT_EQ(got.updates[0], 3);
  EXPECT_EQ(got.learning_rate[0], 0.5);
  EXPECT_EQ(got.clip_scale[0], 1);
  EXPECT_EQ(got.penalty_weight, 2);
  EXPECT_EQ(got.gap_average, 0.25);
  EXPECT_EQ(got.record.step, 8);
  EXPECT_EQ(got.record.grad_norm_energy, 0);
  EXPECT_EQ(ring.read_all()[1].step, 0);
}

TEST(OptimizerCpuTest, SameBitsForAnyNumberOfThreads) {
  const TestDevice cpu("cpu");
  std::vector<HostMatrix> results;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    const std::unique_ptr<Context> context = cpu.make_context(options);
    const std::int64_t n = 100003;
    StepState host;
    host.learning_rate[0] = 0.01;
    const DeviceArray<StepState> state(*context, host);
    const DeviceTensor p = upload_vector(*context, random_matrix(n, 1, 81), DType::f32),
                       m = upload_vector(*context, random_matrix(n, 1, 82), DType::f32),
                       v = upload_vector(*context, random_matrix(n, 1, 83, 0, 1), DType::f32),
                       g = upload_vector(*context, random_matrix(n, 1, 84), DType::f32);
    context->ops().adam(p, m, v, g, Adam{}, state.address(), Player::energy);
    context->ops().ema(m, p, 0.9, state.address());
    results.push_back(download(*context, p));
    results.push_back(download(*context, m));
  }
  for (std::size_t i = 2; i < results.size(); ++i) EXPECT_MATRICES_IDENTICAL(results[i], results[i % 2]);
}

#ifdef BRACKET_TEST_SIMT
// The factors of a block are one thread's, which the others wait for.
TEST(OptimizerOnTheExecutor, DoesNotDependOnTheOrderOfThreads) {
  const std::int64_t n = 1009;
  StepState start;
  start.learning_rate[0] = 0.25;
  const auto updated = [&](::simt::Order order) {
    const ::simt::ScopedOptions options(order, 3);
    Context context(ContextOptions{}, simt::make_cuda_ops(0, nullptr, {}));
    const DeviceArray<StepState> state(context, start);
    const DeviceTensor p = upload_vector(context, random_matrix(n, 1, 1), DType::f32);
    const DeviceTensor v = upload_vector(context, random_matrix(n, 1, 2, 0, 1), DType::f32);
    const DeviceTensor g = upload_vector(context, random_matrix(n, 1, 3), DType::f32);
    context.ops().adam(p, {}, v, g, {0, 0.9, 1e-8, 0.1}, state.address(), Player::energy);
    return download(context, p);
  };
  const HostMatrix want = updated(::simt::Order::forward);
  for (const ::simt::Order order : {::simt::Order::reverse, ::simt::Order::random})
    EXPECT_MATRICES_IDENTICAL(updated(order), want);
}
#endif

}  // namespace
}  // namespace bracket::test
