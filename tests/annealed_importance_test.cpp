// Annealed importance sampling where log Z is known: Gaussians of any covariance and mixtures of them.
#include "bracket/annealed_importance.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "tests/gaussian_mixtures.h"
#include "tests/network_fixture.h"

namespace bracket {
namespace {

using test::gaussian;
using test::GaussianMixture;
using test::mixture;
using test::NetworkOnDevice;
using Rows = test::RowMatrix;

TEST(AnnealedImportance, IsNarrowIn32Dimensions) {
  Context context;
  for (const bool round : {false, true}) {
    const GaussianMixture truth = round ? mixture(32) : gaussian(32);
    const GaussianBase base = truth.base(1.25, round);
    const PotentialFunction target = truth.potential();
    std::vector<double> widths;
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      AnnealingOptions options;
      options.seed = seed;
      const AnnealingSchedule schedule = plan_annealing(context, base, target, options);
      const AnnealedChains forward = anneal_forward(context, base, target, schedule, 1024, options);
      const LogMeanInterval below = log_mean_interval(forward.log_weight, 0.95);
      const LogMeanInterval sure = log_mean_interval(forward.log_weight, 0.9999);
      widths.push_back(below.upper - below.lower);
      EXPECT_LE(sure.lower, truth.log_z);
      EXPECT_GE(sure.upper, truth.log_z);
      EXPECT_GT(forward.acceptance, 0.6);
      EXPECT_LT(forward.acceptance, 0.95);
      if (seed > 0) continue;
      // Both sides of one number: no further apart than their errors.
      const AnnealedChains back = anneal_back(context, base, target, schedule, truth.sample(1024, 1), 1024, options);
      const LogMeanInterval above = log_mean_interval(back.log_weight, 0.95);
      EXPECT_NEAR(below.estimate, -above.estimate, 4 * (below.standard_error + above.standard_error));
    }
    std::sort(widths.begin(), widths.end());
    EXPECT_LT(widths[2], 0.1) << "half of the runs: a weight from the tail widens some";
  }
}

TEST(AnnealedImportance, OneTemperatureIsImportanceSampling) {
  Context context;
  const GaussianMixture truth = mixture(3);
  const GaussianBase base = truth.base(1.5, false);
  const PotentialFunction target = truth.potential();
  const AnnealingSchedule schedule{{1}, {1}, 1, 1};
  const AnnealedChains chains = anneal_forward(context, base, target, schedule, 300);
  std::vector<double> potential(300), gradient(900);
  target(chains.states, 300, potential, gradient);
  for (std::size_t i = 0; i < 300; ++i) {
    double log_base = -1.5 * std::log(2 * std::numbers::pi);
    std::array<double, 3> u{};
    for (std::size_t j = 0; j < 3; ++j) {
      double rest = chains.states[3 * i + j] - base.mean[j];
      for (std::size_t k = 0; k < j; ++k) rest -= base.factor[3 * j + k] * u[k];
      u[j] = rest / base.factor[4 * j];
      log_base -= std::log(base.factor[4 * j]) + 0.5 * u[j] * u[j];
    }
    EXPECT_NEAR(chains.log_weight[i], -potential[i] - log_base, 1e-12);
  }
  EXPECT_EQ(chains.acceptance, 1);
}

TEST(AnnealedImportance, OfItsOwnBaseItIsExact) {
  Context context;
  const GaussianMixture truth = gaussian(5);
  const GaussianBase base = truth.base(1, false);
  const PotentialFunction target = truth.potential();
  AnnealingOptions options;
  EXPECT_EQ(plan_annealing(context, base, target, options).temperature, std::vector<double>{1});
  options.temperatures = 7;
  const AnnealingSchedule schedule = plan_annealing(context, base, target, options);
  ASSERT_EQ(schedule.temperature.size(), 7u);
  for (std::size_t t = 0; t < 7; ++t) EXPECT_NEAR(schedule.temperature[t], static_cast<double>(t + 1) / 7, 1e-12);
  const AnnealedChains chains = anneal_forward(context, base, target, schedule, 130, options);
  for (const double w : chains.log_weight) EXPECT_NEAR(w, truth.log_z, 1e-10);
  const AnnealedChains back = anneal_back(context, base, target, schedule, chains.states, 130, options);
  for (const double w : back.log_weight) EXPECT_NEAR(w, -truth.log_z, 1e-10);
}

TEST(AnnealedImportance, HalfOfASpace) {
  // exp(-|x|^2 / 2) for x_0 > 0, no density elsewhere.
  const PotentialFunction target = [](std::span<const double> x, std::int64_t rows, std::span<double> value,
                                      std::span<double> gradient) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
      const double a = x[2 * i], b = x[2 * i + 1];
      value[i] = a > 0 ? 0.5 * (a * a + b * b) : HUGE_VAL;
      gradient[2 * i] = a;
      gradient[2 * i + 1] = b;
    }
  };
  Context context;
  const GaussianBase base{{0.2, -0.3}, {1.5, 1.25}};
  const AnnealingSchedule schedule = plan_annealing(context, base, target);
  const AnnealedChains chains = anneal_forward(context, base, target, schedule, 4096);
  const LogMeanInterval interval = log_mean_interval(chains.log_weight, 0.9999);
  const double log_z = std::log(std::numbers::pi);
  EXPECT_LE(interval.lower, log_z);
  EXPECT_GE(interval.upper, log_z);
  EXPECT_LT(interval.upper - interval.lower, 0.2);
  EXPECT_TRUE(std::count(chains.log_weight.begin(), chains.log_weight.end(), -HUGE_VAL) > 1500);
  const std::vector<double> outside = {-1, 0};
  EXPECT_THROW(anneal_back(context, base, target, schedule, outside, 1), Diverged);
  EXPECT_THROW(plan_annealing(context, {{-40, 0}, {1, 1}}, target), Diverged);
}

TEST(AnnealedImportance, ScheduleFitsWhatIsAllowed) {
  Context context;
  const GaussianMixture truth = gaussian(8);
  const GaussianBase base = truth.base(3, true);
  AnnealingOptions options;
  options.most_temperatures = 12;
  const AnnealingSchedule schedule = plan_annealing(context, base, truth.potential(), options);
  EXPECT_LE(schedule.temperature.size(), 12u);
  EXPECT_GT(schedule.temperature.size(), 5u);  // a variance 4 times too large halves their number
  options.most_temperatures = 1;
  EXPECT_EQ(plan_annealing(context, base, truth.potential(), options).temperature, std::vector<double>{1});
  options.most_temperatures = 1000;
  const AnnealingSchedule fine = plan_annealing(context, base, truth.potential(), options);
  for (const std::int64_t count : {1, 3, 100, 500}) {
    options.temperatures = count;
    const AnnealingSchedule sized = plan_annealing(context, base, truth.potential(), options);
    ASSERT_EQ(sized.temperature.size(), static_cast<std::size_t>(count));
    EXPECT_EQ(sized.temperature.back(), 1);
    EXPECT_TRUE(std::is_sorted(sized.temperature.begin(), sized.temperature.end(), std::less_equal<>()) || count == 1);
    EXPECT_NO_THROW(anneal_forward(context, base, truth.potential(), sized, 2, options));
  }
  EXPECT_GT(fine.temperature.size(), schedule.temperature.size());
}

// On its way, for a few calls, the pilot meets a potential whose spread leaves no step that a double can tell from
// none: temperatures rise all the same, and between neighbouring numbers fewer fit than were asked for.
TEST(AnnealedImportance, TemperaturesRiseByAtLeastOneRounding) {
  Context context;
  const GaussianBase base{{0}, {1}};
  for (const std::int64_t count : {0, 500}) {
    int calls = 0;
    const PotentialFunction target = [&calls](std::span<const double> x, std::int64_t rows, std::span<double> value,
                                              std::span<double> gradient) {
      const bool steep = ++calls > 100 && calls <= 108;
      for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
        value[i] = steep ? -1e19 * std::abs(x[i]) : 8 * x[i] * x[i];
        gradient[i] = steep ? 0 : 16 * x[i];
      }
    };
    AnnealingOptions options;
    options.temperatures = count;
    const AnnealingSchedule schedule = plan_annealing(context, base, target, options);
    ASSERT_GT(calls, 100);
    ASSERT_GT(schedule.temperature.size(), 3u);
    if (count > 0) {
      EXPECT_LT(schedule.temperature.size(), static_cast<std::size_t>(count));
    }
    EXPECT_EQ(schedule.temperature.back(), 1);
    EXPECT_EQ(std::adjacent_find(schedule.temperature.begin(), schedule.temperature.end(), std::greater_equal<>()),
              schedule.temperature.end());
  }
}

TEST(AnnealedImportance, SameBitsForAnyThreadsAndPortions) {
  const GaussianMixture truth = mixture(2);
  const GaussianBase base = truth.base(1.3, false);
  const PotentialFunction target = truth.potential();
  AnnealingOptions options;
  options.seed = 4;
  std::vector<double> weights[2], back[2];
  for (int run = 0; run < 2; ++run) {
    ContextOptions threads;
    threads.threads = run + 1;
    Context context(threads);
    const AnnealingSchedule schedule = plan_annealing(context, base, target, options);
    weights[run] = anneal_forward(context, base, target, schedule, 300, options).log_weight;
    back[run] = anneal_back(context, base, target, schedule, truth.sample(300, 2), 300, options).log_weight;
    AnnealingOptions tail = options;
    tail.first_chain = 128;
    const AnnealedChains rest = anneal_forward(context, base, target, schedule, 172, tail);
    EXPECT_EQ(rest.log_weight, std::vector<double>(weights[run].begin() + 128, weights[run].end()));
    options.seed = 5;
    EXPECT_NE(anneal_forward(context, base, target, schedule, 300, options).log_weight, weights[run]);
    options.seed = 4;
  }
  EXPECT_EQ(weights[0], weights[1]);
  EXPECT_EQ(back[0], back[1]);
}

TEST(AnnealedImportance, ChainsStayWithTheTarget) {
  Context context;
  const GaussianMixture truth = gaussian(2);
  const GaussianBase base = truth.base(1.2, false);
  const PotentialFunction target = truth.potential();
  const AnnealingSchedule schedule = plan_annealing(context, base, target);
  constexpr std::int64_t kChains = 4000;
  const std::vector<double> start = truth.sample(kChains, 3);
  const AnnealedChains end = run_target_chains(context, base, target, schedule, start, kChains, 10);
  const Eigen::Map<const Rows> x(end.states.data(), kChains, 2);
  const Eigen::MatrixXd covariance = truth.root[0] * truth.root[0].transpose();
  // Independent chains: a mean has deviation sqrt(S_jj / n), a mean square sqrt(2 / n) S_jj; 4.5 of them.
  for (std::int64_t j = 0; j < 2; ++j) {
    const Eigen::VectorXd centred = x.col(j).array() - truth.mean[0](j);
    EXPECT_NEAR(centred.mean(), 0, 4.5 * std::sqrt(covariance(j, j) / kChains));
    EXPECT_NEAR(centred.squaredNorm() / kChains, covariance(j, j), 4.5 * std::sqrt(2.0 / kChains) * covariance(j, j));
  }
  EXPECT_NE(end.states, start);
  std::vector<double> potential(kChains), gradient(2 * kChains);
  target(end.states, kChains, potential, gradient);
  // log |det C| has been taken off and is added again.
  for (std::size_t i = 0; i < potential.size(); ++i) EXPECT_NEAR(end.log_weight[i], potential[i], 1e-12);
  const AnnealedChains nowhere = run_target_chains(context, base, target, schedule, start, kChains, 0);
  for (std::size_t i = 0; i < start.size(); ++i) EXPECT_NEAR(nowhere.states[i], start[i], 1e-12);
}

// E = a . x + c + q / 2 |x|^2, whose log Z is D/2 log(2 pi / q) + |a|^2 / (2 q) - c.
TEST(AnnealedImportance, OfNetworks) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Context context;
    const double q = 2.5;
    NetworkSpec spec, generator_spec;
    spec.input_size = 3;
    spec.layers = {LinearSpec{.features = 1}, ConfinementSpec{.quadratic = q}};
    generator_spec.input_size = 2;
    generator_spec.layers = {LinearSpec{.features = 3, .bias = false}};
    NetworkOnDevice energy(context, spec, dtype), generator(context, generator_spec, dtype);
    double log_z = 1.5 * std::log(2 * std::numbers::pi / q) - energy.values_of("layers.0.bias")[0];
    for (const double a : energy.values_of("layers.0.weight")) log_z += a * a / (2 * q);
    const PotentialFunction target = network_potential(context, {energy.network(), energy.parameters()});
    const GaussianBase base{{0, 0, 0}, {1, 1, 1}};
    const AnnealingSchedule schedule = plan_annealing(context, base, target);
    const LogMeanInterval interval =
        log_mean_interval(anneal_forward(context, base, target, schedule, 1000).log_weight, 0.9999);
    EXPECT_LE(interval.lower, log_z);
    EXPECT_GE(interval.upper, log_z);
    EXPECT_LT(interval.upper - interval.lower, 0.2);
    const GaussianBase narrow{{0, 0}, {1, 1}}, wide{{0, 0, 0, 0}, {1, 1, 1, 1}};
    EXPECT_THROW(plan_annealing(context, narrow, target), InvalidArgument);
    EXPECT_THROW(anneal_forward(context, wide, target, schedule, 5), InvalidArgument);
    const Network& e = energy.network();
    EXPECT_THROW(network_potential(context, {generator.network(), generator.parameters()}), InvalidArgument);
    EXPECT_THROW(network_potential(context, {e, generator.parameters()}), InvalidArgument);
    EXPECT_THROW(network_potential(context, {e, {}}), InvalidArgument);
    EXPECT_THROW(network_potential(context, {e, energy.parameters(), &e, energy.parameters()}), InvalidArgument);
    EXPECT_THROW(network_potential(context, {e, energy.parameters(), &generator.network(), energy.parameters()}),
                 InvalidArgument);
    // U in latent space and its gradient, by differences.
    const PotentialFunction latent = network_potential(
        context, {energy.network(), energy.parameters(), &generator.network(), generator.parameters()});
    const std::vector<double> z = {0.5, -0.25, 1.5, 0.75};
    std::vector<double> value(2), slope(4), above(2), below(2), unused(4);
    latent(z, 2, value, slope);
    for (std::size_t i = 0; i < 4; ++i) {
      const double h = 0x1p-6;  // the potential is quadratic: only rounding, 1e-6 / h in f32
      std::vector<double> up = z, down = z;
      up[i] += h;
      down[i] -= h;
      latent(up, 2, above, unused);
      latent(down, 2, below, unused);
      EXPECT_NEAR(slope[i], (above[i / 2] - below[i / 2]) / (2 * h), dtype == DType::f32 ? 1e-3 : 1e-11);
    }
  }
}

TEST(LogMean, InClosedForm) {
  const std::vector<double> weights = {std::log(1.0), std::log(3.0)};
  const LogMeanInterval i = log_mean_interval(weights, 0.5);
  EXPECT_NEAR(i.estimate, std::log(2.0), 1e-14);
  EXPECT_NEAR(i.ess, 16.0 / 20, 1e-14);
  EXPECT_NEAR(i.standard_error, 0.5, 1e-14);  // sd sqrt(2), mean 2, n 2
  EXPECT_NEAR(i.skewness, 0, 1e-12);
  EXPECT_NEAR(i.markov_lower, 0, 1e-14);
  EXPECT_LT(i.lower, i.estimate);
  EXPECT_GT(i.upper, i.estimate);
  // Many weights: Student's quantile is the normal one, 1.959964 at 95 %, and the shift takes skewness 3 of a tail.
  std::vector<double> many(100000, 0);
  for (std::size_t k = 0; k < many.size(); k += 10) many[k] = std::log(2.0);
  const LogMeanInterval wide = log_mean_interval(many, 0.95);
  const double s = 0.3 / 1.1 / std::sqrt(100000.0 - 1), g = 0.09 * 0.8 / std::pow(0.09, 1.5);
  EXPECT_NEAR(wide.standard_error, s, 1e-12);
  EXPECT_NEAR(wide.skewness, g, 1e-10);
  EXPECT_NEAR(wide.lower, wide.estimate + std::log1p(-1.959964 * s), 1e-4 * s);
  EXPECT_NEAR(wide.upper,
              wide.estimate + std::log1p(s * (1.959964 + g * (1 + 2 * 1.959964 * 1.959964) / 6 / std::sqrt(1e5))),
              1e-4 * s);
  // Shifts of the weights shift everything.
  for (double& w : many) w += 1000;
  EXPECT_NEAR(log_mean_interval(many, 0.95).estimate, wide.estimate + 1000, 1e-9);
  EXPECT_EQ(log_mean_interval(std::vector<double>{0, -HUGE_VAL, -HUGE_VAL}, 0.95).lower, -HUGE_VAL);
  EXPECT_THROW(log_mean_interval(std::vector<double>{0}, 0.95), InvalidArgument);
  EXPECT_THROW(log_mean_interval(std::vector<double>{0, std::nan("")}, 0.95), InvalidArgument);
  EXPECT_THROW(log_mean_interval(std::vector<double>{0, HUGE_VAL}, 0.95), InvalidArgument);
  EXPECT_THROW(log_mean_interval(std::vector<double>{-HUGE_VAL, -HUGE_VAL}, 0.95), InvalidArgument);
  for (const double confidence : {0.0, 1.0, std::nan("")})
    EXPECT_THROW(log_mean_interval(weights, confidence), InvalidArgument);
}

TEST(AnnealedImportance, EmptyAndBadInput) {
  Context context;
  const GaussianMixture truth = gaussian(2);
  const PotentialFunction target = truth.potential();
  const GaussianBase base = truth.base(1.2, false);
  const AnnealingSchedule schedule{{0.5, 1}, {0.5, 0.5}, 2, 1};
  EXPECT_TRUE(anneal_forward(context, base, target, schedule, 0).log_weight.empty());
  EXPECT_TRUE(anneal_back(context, base, target, schedule, {}, 0).states.empty());
  const std::vector<double> point = {0, 0};
  EXPECT_THROW(anneal_forward(context, base, target, schedule, -1), InvalidArgument);
  EXPECT_THROW(anneal_back(context, base, target, schedule, point, 2), InvalidArgument);
  EXPECT_THROW(run_target_chains(context, base, target, schedule, point, 1, -1), InvalidArgument);
  EXPECT_THROW(anneal_forward(context, base, {}, schedule, 1), InvalidArgument);
  AnnealingOptions odd;
  odd.first_chain = 5;
  EXPECT_THROW(anneal_forward(context, base, target, schedule, 1, odd), InvalidArgument);
  for (const GaussianBase& bad : {GaussianBase{{}, {}}, GaussianBase{{0, 0}, {1, 0, 0}}, GaussianBase{{0, 0}, {1, 0}},
                                  GaussianBase{{0, std::nan("")}, {1, 1}}, GaussianBase{{0, 0}, {1, 2, 0, 1}}})
    EXPECT_THROW(plan_annealing(context, bad, target), InvalidArgument);
  for (const AnnealingSchedule& bad :
       {AnnealingSchedule{}, AnnealingSchedule{{0.5}, {1}, 1, 1}, AnnealingSchedule{{0.5, 0.5, 1}, {1, 1, 1}, 1, 1},
        AnnealingSchedule{{0.5, 1}, {1}, 1, 1}, AnnealingSchedule{{1}, {1}, 0, 1}, AnnealingSchedule{{1}, {1}, 1, 0}})
    EXPECT_THROW(anneal_forward(context, base, target, bad, 1), InvalidArgument);
  const auto refused = [&](auto change) {
    AnnealingOptions options;
    change(options);
    EXPECT_THROW(plan_annealing(context, base, target, options), InvalidArgument);
  };
  refused([](AnnealingOptions& o) { o.temperatures = -1; });
  refused([](AnnealingOptions& o) { o.relative_variance = 0; });
  refused([](AnnealingOptions& o) { o.most_temperatures = 0; });
  refused([](AnnealingOptions& o) { o.transitions = 0; });
  refused([](AnnealingOptions& o) { o.leapfrog_steps = 0; });
  refused([](AnnealingOptions& o) { o.pilot_chains = 1; });
  refused([](AnnealingOptions& o) { o.target_acceptance = 1; });
  for (const double bad : {std::nan(""), -HUGE_VAL}) {
    const PotentialFunction broken = [bad](std::span<const double>, std::int64_t, std::span<double> value,
                                           std::span<double> gradient) {
      std::fill(value.begin(), value.end(), bad);
      std::fill(gradient.begin(), gradient.end(), 0.0);
    };
    EXPECT_THROW(plan_annealing(context, base, broken), Diverged);
    EXPECT_THROW(anneal_forward(context, base, broken, schedule, 3), Diverged);
  }
}

}  // namespace
}  // namespace bracket
