// Losses, seeds and records against loops in long double; seeds also against differences of the recorded loss.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

constexpr std::array<std::int64_t, 9> kSizes{1, 2, 31, 32, 33, 127, 129, 257, 1009};

class LossesTest : public OpsTest {
 protected:
  struct Energies {
    HostMatrix data, fake, tangent, score;
  };
  struct Result {
    HostMatrix seed_data, seed_fake, seed_tangent;
    StepRecord record;
  };

  static Energies energies(std::int64_t n, DType dtype) {
    return {random_matrix(n, 1, 91, -3, 3).rounded(dtype), random_matrix(n, 1, 92, -3, 3).rounded(dtype),
            random_matrix(n, 1, 93, -2, 2).rounded(dtype), random_matrix(n, 1, 94, -2, 2).rounded(dtype)};
  }

  Result energy_loss(const Energies& e, const PenaltyRule& rule, double weight, DType dtype) const {
    const std::int64_t n = e.data.size();
    StepState host;
    host.penalty_weight = weight;
    const DeviceArray<StepState> state(context(), host);
    const DeviceTensor data = empty(context(), dtype, {n}), fake = empty(context(), dtype, {n}),
                       tangent = empty(context(), dtype, {n});
    const DeviceTensor score = upload_vector(context(), e.score, dtype);
    ops().energy_loss(data, fake, tangent, state.address(), upload_vector(context(), e.data, dtype),
                      upload_vector(context(), e.fake, dtype), upload_vector(context(), e.tangent, dtype),
                      rule.data_gradient ? Tensor() : score.tensor(), rule);
    return {download(context(), data), download(context(), fake), download(context(), tangent), state.read().record};
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, LossesTest, ::testing::ValuesIn(test_devices()), device_name);

long double mean(const HostMatrix& x) {
  long double sum = 0;
  for (const double value : x.values) sum += value;
  return sum / static_cast<long double>(x.values.size());
}

/// Sums of n terms below 16 in double: n roundings of a partial mean below 16, n <= 1009: 1009 * 16 * 2^-53 < 2e-12.
constexpr double kSumLimit = 2e-12;

TEST_P(LossesTest, EnergyLossAndItsSeeds) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : kSizes) {
      const Energies e = energies(n, dtype);
      for (const bool data_gradient : {false, true}) {
        long double penalty = 0;
        for (std::size_t i = 0; i < e.data.values.size(); ++i) {
          const long double residual = e.tangent.values[i] - static_cast<long double>(e.score.values[i]);
          penalty += (data_gradient ? e.tangent.values[i] : residual * residual / 2) / static_cast<long double>(n);
        }
        const double weight = 0.3;
        // Open by far, closed by far.
        for (const double threshold : {0.0, 50.0}) {
          SCOPED_TRACE(::testing::Message() << dtype_name(dtype) << ", n " << n << ", threshold " << threshold
                                            << ", data_gradient " << data_gradient);
          const Result got = energy_loss(e, {threshold, data_gradient}, weight, dtype);
          const double excess = weight * static_cast<double>(penalty) - threshold;
          const bool open = excess > 0;
          EXPECT_NEAR(got.record.energy_data, static_cast<double>(mean(e.data)), kSumLimit);
          EXPECT_NEAR(got.record.energy_samples, static_cast<double>(mean(e.fake)), kSumLimit);
          EXPECT_NEAR(got.record.penalty, static_cast<double>(penalty), kSumLimit);
          EXPECT_EQ(got.record.penalty_weight, weight);
          EXPECT_NEAR(got.record.loss_energy, static_cast<double>(mean(e.data) - mean(e.fake)) + std::max(0.0, excess),
                      3 * kSumLimit);
          const double inverse = 1 / static_cast<double>(n);
          HostMatrix seed(n, 1);
          for (std::int64_t i = 0; i < n; ++i) {
            seed(i, 0) = !open           ? 0
                         : data_gradient ? 2 * weight * inverse
                                         : weight * (e.tangent(i, 0) - e.score(i, 0)) * inverse;
          }
          // One rounding to the dtype, four of double before it.
          const Limit limit = mixed_limit(0, 2 * unit_roundoff(dtype) + 4 * unit_roundoff(DType::f64));
          EXPECT_MATRICES_CLOSE(got.seed_data, HostMatrix(n, 1, inverse), limit);
          EXPECT_MATRICES_CLOSE(got.seed_fake, HostMatrix(n, 1, -inverse), limit);
          EXPECT_MATRICES_CLOSE(got.seed_tangent, seed, limit);
        }
      }
    }
  }
}

/// The loss is quadratic in each energy: central differences are exact up to 2 n 2^-53 |loss| / (2 h), with h = 1/64,
/// n = 7 and a loss below 10 less than 1e-12. (zero_gp's tangent is |grad E|^2, whose seed counts it twice.)
TEST_P(LossesTest, SeedsAreDerivativesOfTheLoss) {
  constexpr double kStep = 1.0 / 64;
  const Energies e = energies(7, DType::f64);
  const PenaltyRule rule{0.05, false};
  const Result at = energy_loss(e, rule, 0.8, DType::f64);
  ASSERT_GT(at.record.penalty * 0.8, rule.threshold + 0.1) << "the hinge must be open on both sides";
  const auto difference = [&](HostMatrix Energies::*which, std::int64_t i) {
    Energies up = e, down = e;
    (up.*which)(i, 0) += kStep;
    (down.*which)(i, 0) -= kStep;
    return (energy_loss(up, rule, 0.8, DType::f64).record.loss_energy -
            energy_loss(down, rule, 0.8, DType::f64).record.loss_energy) /
           (2 * kStep);
  };
  for (std::int64_t i = 0; i < 7; ++i) {
    EXPECT_NEAR(at.seed_data(i, 0), difference(&Energies::data, i), 1e-12);
    EXPECT_NEAR(at.seed_fake(i, 0), difference(&Energies::fake, i), 1e-12);
    EXPECT_NEAR(at.seed_tangent(i, 0), difference(&Energies::tangent, i), 1e-12);
  }
}

TEST_P(LossesTest, TheHingeOpensStrictlyAboveTheThreshold) {
  // residuals 2 and 2: P = 2, w P = 1 exactly.
  const Energies e{HostMatrix(2, 1), HostMatrix(2, 1), HostMatrix(2, 1, 3), HostMatrix(2, 1, 1)};
  EXPECT_EQ(energy_loss(e, {1, false}, 0.5, DType::f64).seed_tangent(0, 0), 0);
  EXPECT_EQ(energy_loss(e, {1, false}, 0.5, DType::f64).record.loss_energy, 0);
  const double below = std::nextafter(1.0, 0.0);
  EXPECT_EQ(energy_loss(e, {below, false}, 0.5, DType::f64).seed_tangent(0, 0), 0.5);
  EXPECT_EQ(energy_loss(e, {below, false}, 0.5, DType::f64).record.loss_energy, 1 - below);
}

TEST_P(LossesTest, NanIsNotHiddenByTheHinge) {
  Energies e = energies(33, DType::f32);
  e.tangent(5, 0) = std::nan("");
  const Result got = energy_loss(e, {1000, false}, 0.5, DType::f32);
  EXPECT_TRUE(std::isnan(got.record.penalty));
  EXPECT_TRUE(std::isnan(got.record.loss_energy));
  EXPECT_TRUE(std::isnan(got.seed_tangent(5, 0)));
}

TEST_P(LossesTest, SeedsAreWrittenButTheRecordKeptOnceMarked) {
  StepState host;
  host.nonfinite_tensor = 2;
  host.record.energy_data = 7;
  const DeviceArray<StepState> state(context(), host);
  const DeviceTensor zero = upload_vector(context(), HostMatrix(3, 1)), data = empty(context(), DType::f64, {3}),
                     fake = empty(context(), DType::f64, {3}), tangent = empty(context(), DType::f64, {3});
  ops().energy_loss(data, fake, tangent, state.address(), zero, zero, zero, zero, {});
  EXPECT_MATRICES_CLOSE(download(context(), data), HostMatrix(3, 1, 1.0 / 3), absolute_limit(1e-16));
  ops().generator_loss(state.address(), zero, zero, 1);
  ops().bound_record(state.address(), zero, zero, upload(context(), HostMatrix(3, 2)));
  EXPECT_EQ(state.read().record.energy_data, 7);
  EXPECT_EQ(state.read().record.lower_bound, 0);
}

TEST_P(LossesTest, GeneratorLossAndBound) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : kSizes) {
      for (const std::int64_t d : {1, 2, 37}) {
        const HostMatrix e = random_matrix(n, 1, 95, -3, 3).rounded(dtype), h = random_matrix(n, 1, 96).rounded(dtype),
                         z = random_matrix(n, d, 97).rounded(dtype);
        StepState host;
        host.record.energy_data = 1.25;
        host.record.energy_samples = 99;
        const DeviceArray<StepState> state(context(), host);
        const DeviceTensor e_fake = upload_vector(context(), e, dtype), log_volume = upload_vector(context(), h, dtype);
        ops().generator_loss(state.address(), e_fake, log_volume, 0.5);
        ops().bound_record(state.address(), e_fake, log_volume, upload(context(), z, dtype, 3));
        HostMatrix phi = e;
        for (std::int64_t i = 0; i < n; ++i) {
          long double squares = 0;
          for (std::int64_t j = 0; j < d; ++j) squares += static_cast<long double>(z(i, j)) * z(i, j);
          phi(i, 0) = static_cast<double>(e(i, 0) - squares / 2 - h(i, 0));
        }
        const long double mean_phi = mean(phi);
        long double variance = 0;
        for (const double value : phi.values) variance += (value - mean_phi) * (value - mean_phi);
        variance /= static_cast<long double>(n);
        const StepRecord got = state.read().record;
        const double constant = static_cast<double>(d) / 2 * std::log(2 * std::numbers::pi * std::numbers::e);
        EXPECT_NEAR(got.loss_generator, static_cast<double>(mean(e) - mean(h) / 2), 2 * kSumLimit);
        EXPECT_NEAR(got.log_volume, static_cast<double>(mean(h)), kSumLimit);
        EXPECT_NEAR(got.lower_bound, static_cast<double>(1.25L - mean(e) + mean(h)) + constant, 4 * kSumLimit);
        // Squares of deviations below 24: the sum's rounding grows with their size.
        EXPECT_NEAR(got.half_variance, static_cast<double>(variance / 2), 40 * kSumLimit);
        EXPECT_EQ(got.energy_samples, 99);
      }
    }
  }
}

/// A variance of 1/4 on top of energies near 1e9: a one-pass formula would lose it.
TEST_P(LossesTest, VarianceDoesNotCancel) {
  HostMatrix e(128, 1);
  for (std::int64_t i = 0; i < 128; ++i) e(i, 0) = 1e9 + static_cast<double>(i % 2);
  const DeviceArray<StepState> state(context(), StepState{});
  const DeviceTensor zero = upload_vector(context(), HostMatrix(128, 1));
  ops().bound_record(state.address(), upload_vector(context(), e), zero, upload(context(), HostMatrix(128, 1)));
  EXPECT_DOUBLE_EQ(state.read().record.half_variance, 0.125);
}

TEST_P(LossesTest, PenaltyWeightFollowsTheTrustRegion) {
  const WeightController rule{0.6, 0.005, 0.98, 0.003, 2, 3};
  StepState start_state;
  start_state.penalty_weight = 0.1;
  DeviceArray<StepState> device(context(), start_state);
  double average = 0, weight = 0.1;
  for (std::int64_t t = 0; t < 400; ++t) {
    // Far above the cap of 10, far below the target, around it.
    const double half_variance = t < 100 ? 500.0 : (t < 300 ? 1e-6 : 0.7);
    StepState now = device.read();
    now.step = t;
    now.record.half_variance = half_variance;
    device.write({now});
    ops().adapt_penalty_weight(device.address(), rule);
    average = 0.98 * average + 0.02 * std::min(half_variance, 10.0);
    if (t >= 3) {
      weight = std::clamp(weight * std::exp(0.005 * std::clamp(std::log(average / 0.6), -2.0, 2.0)), 0.003, 2.0);
    } else {
      EXPECT_EQ(device.read().penalty_weight, 0.1);
    }
    // A few roundings a step.
    ASSERT_NEAR(device.read().penalty_weight, weight, 1e-12 * weight) << "step " << t;
    ASSERT_NEAR(device.read().gap_average, average, 1e-12 * average);
  }
  for (const auto& [start, gap, expected] :
       {std::array<double, 3>{1.9999, 1e9, 2}, {0.00300001, 0, 0.003}, {1.9999, std::nan(""), 2}}) {
    StepState now;
    now.step = 3;
    now.penalty_weight = start;
    now.record.half_variance = gap;
    device.write({now});
    ops().adapt_penalty_weight(device.address(), {0.01, 0.5, 0, 0.003, 2, 0});
    EXPECT_EQ(device.read().penalty_weight, expected);
  }
}

}  // namespace
}  // namespace bracket::test
