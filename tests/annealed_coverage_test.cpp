// How often the intervals of annealed importance sampling hold the truth, and what is asked of those that are printed.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bracket/annealed_importance.h"
#include "host/evaluate/audit/annealed_partition.h"
#include "tests/gaussian_mixtures.h"

namespace bracket {
namespace {

using test::gaussian;
using test::GaussianMixture;
using test::mixture;

ContextOptions one_thread() {
  ContextOptions options;
  options.threads = 1;
  return options;
}

// The largest count that Bin(n, p) stays below with a probability of at most `level`: nominal coverage passes with
// probability 1 - level.
int binomial_limit(int n, double p, double level) {
  double below = 0;
  for (int k = 0; k <= n; ++k) {
    below += std::exp(std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0) + k * std::log(p) +
                      (n - k) * std::log1p(-p));
    if (below > level) return k;
  }
  return n;
}

constexpr double kConfidence = 0.95;
constexpr double kLevel = 1e-4;  // of a failure by chance
constexpr int kCases = 6;

struct Case {
  std::string name;
  GaussianMixture truth;
  GaussianBase base;
};

Case case_of(int i) {
  const std::int64_t d = std::array{2, 8, 32}[static_cast<std::size_t>(i % 3)];
  const bool round = i >= 3;
  Case c{(round ? "mixture" : "gaussian") + std::to_string(d), round ? mixture(d) : gaussian(d), {}};
  c.base = c.truth.base(1.25, round);
  return c;
}

// A coarse schedule (ess 0.9 down to 0.45), so that the normal theory has something to do.
AnnealingOptions coarse(std::uint64_t seed) {
  AnnealingOptions options;
  options.relative_variance = 0.01;
  options.pilot_chains = 128;
  options.seed = seed;
  return options;
}

struct Held {
  int runs = 0, forward = 0, back = 0, markov = 0;
};

// Every case, two at a time.
std::array<Held, kCases> all_cases(const std::function<Held(const Case&)>& of_case) {
  std::array<Held, kCases> held;
  const auto run = [&](int first) {
    for (int i = first; i < kCases; i += 2) held[static_cast<std::size_t>(i)] = of_case(case_of(i));
  };
  std::thread odd(run, 1);
  run(0);
  odd.join();
  return held;
}

// The whole of it, pilot included, with few chains. 1,200 runs tell 95 % from 92.
TEST(Coverage, IsThatOfTheConfidence) {
  constexpr int kSeeds = 200;
  constexpr std::int64_t kChains = 256;
  const auto held = all_cases([](const Case& c) {
    const PotentialFunction target = c.truth.potential();
    Context context(one_thread());
    Held h;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed, ++h.runs) {
      const AnnealingOptions options = coarse(seed);
      const AnnealingSchedule schedule = plan_annealing(context, c.base, target, options);
      const LogMeanInterval forward = log_mean_interval(
          anneal_forward(context, c.base, target, schedule, kChains, options).log_weight, kConfidence);
      const std::vector<double> start = c.truth.sample(kChains, 1000 + seed);
      const LogMeanInterval back = log_mean_interval(
          anneal_back(context, c.base, target, schedule, start, kChains, options).log_weight, kConfidence);
      h.forward += forward.lower <= c.truth.log_z && c.truth.log_z <= forward.upper;
      h.back += -back.upper <= c.truth.log_z && c.truth.log_z <= -back.lower;
      h.markov += forward.markov_lower <= c.truth.log_z;
    }
    return h;
  });
  int forward = 0, back = 0;
  for (int i = 0; i < kCases; ++i) {
    const Held& h = held[static_cast<std::size_t>(i)];
    const std::string name = case_of(i).name;
    RecordProperty(name, std::to_string(h.forward) + " and " + std::to_string(h.back));
    // By itself only against gross failure: 190 are to be expected, four deviations of 3.1 below.
    EXPECT_GE(h.forward, 177) << name;
    EXPECT_GE(h.back, 177) << name;
    EXPECT_EQ(h.markov, kSeeds) << name;  // 3 nats below the estimate: twenty times its deviation and more
    forward += h.forward;
    back += h.back;
  }
  RecordProperty("forward", forward);
  RecordProperty("back", back);
  const int limit = binomial_limit(kCases * kSeeds, kConfidence, kLevel);
  EXPECT_EQ(limit, 1110);  // 92.5 %: a mean of 1,140 and four deviations of 7.5
  EXPECT_GE(forward, limit);
  EXPECT_GE(back, limit);
}

// The interval that an audit prints, where it prints one: back chains start where chains ended that began in turn at
// points of the truth, as an audit has data, and at points half as far out again, as a generator's may be.
TEST(Coverage, OfWhatAnAuditPrints) {
  constexpr int kSeeds = 100;
  const auto held = all_cases([](const Case& c) {
    const PotentialFunction target = c.truth.potential();
    Context context(one_thread());
    PartitionOptions options;
    options.chains = 512;
    options.temperatures = std::ssize(plan_annealing(context, c.base, target, coarse(0)).temperature);
    options.confidence = kConfidence;
    Held h;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      options.seed = seed;
      const std::size_t cols = c.base.mean.size();
      std::vector<double> start = c.truth.sample(options.chains, 1000 + seed);
      for (std::size_t i = 0; i < start.size(); ++i)
        if (i / cols % 2 == 0) start[i] += 0.5 * (start[i] - c.base.mean[i % cols]);
      const AnnealedPartition audit = annealed_partition(context, c.base, target, start, options);
      if (!audit.interval_holds) continue;
      ++h.runs;
      h.forward += audit.lower <= c.truth.log_z && c.truth.log_z <= audit.upper;
    }
    return h;
  });
  Held all;
  for (int i = 0; i < kCases; ++i) {
    const Held& h = held[static_cast<std::size_t>(i)];
    RecordProperty(case_of(i).name, std::to_string(h.forward) + " of " + std::to_string(h.runs));
    all.runs += h.runs;
    all.forward += h.forward;
  }
  RecordProperty("held", std::to_string(all.forward) + " of " + std::to_string(all.runs));
  EXPECT_GE(all.runs, kCases * kSeeds * 3 / 4);
  EXPECT_GE(all.forward, binomial_limit(all.runs, kConfidence, kLevel));
}

// Weights exp(s N(0, 1) - s^2 / 2), whose mean is 1 and whose effective share is exp(-s^2): an interval that is
// printed, as enough chains are effective by the sample, and wrong. The figures beside kLeastEffectiveChains are these.
TEST(LogMean, GateOfEffectiveChains) {
  constexpr int kChains = 1024, kRuns = 4000;
  std::mt19937_64 engine(0);
  std::normal_distribution<double> normal;
  std::vector<double> log_weight(kChains);
  double worst_below = 0;
  for (const double share : {0.008, 0.0275, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5}) {
    const double s = std::sqrt(-std::log(share));
    int printed_and_wrong = 0, passed_30_and_wrong = 0;
    for (int run = 0; run < kRuns; ++run) {
      for (double& w : log_weight) w = s * normal(engine) - 0.5 * s * s;
      const LogMeanInterval i = log_mean_interval(log_weight, 0.95);
      const bool wrong = i.lower > 0 || i.upper < 0;
      printed_and_wrong += wrong && i.ess * kChains >= kLeastEffectiveChains;
      passed_30_and_wrong += wrong && i.ess * kChains >= 30;
      // exceeds its expectation by k nats with probability exp(-k) at most, so never in 4,000 runs of such weights
      EXPECT_LE(i.markov_lower, 0);
    }
    const std::string name = "effective " + std::to_string(share * kChains);
    RecordProperty(name, std::to_string(printed_and_wrong) + " and " + std::to_string(passed_30_and_wrong));
    // 5 % and what the normal theory of skewed weights loses, at most 1; four deviations sqrt(0.06 0.94 / 4000).
    EXPECT_LE(printed_and_wrong, (0.06 + 4 * 0.00376) * kRuns) << name;
    worst_below = std::max(worst_below, static_cast<double>(passed_30_and_wrong) / kRuns);
  }
  EXPECT_GT(worst_below, 0.1);  // what a threshold of 30 lets through
}

}  // namespace
}  // namespace bracket
