// The pilot of annealed importance sampling.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "bracket/error.h"
#include "host/core/host_values.h"
#include "host/sampling/annealing.h"
#include "host/training/row_chunks.h"

namespace bracket {
namespace {

constexpr std::int64_t kPilotTransitions = 4;   // per temperature at least: chains must forget the resampling
constexpr std::int64_t kFirstTransitions = 30;  // the step size is found at the first temperature ...
constexpr double kAdaptationGain = 0.5;         // ... and then follows the acceptance's mean
constexpr int kBisections = 60;
constexpr double kVarianceGrowth = 4;  // the number of temperatures falls with the root of the variance: by a half
constexpr std::uint64_t kResamplingElement = std::uint64_t{1} << 40;  // of stream markov_acceptance, beyond all chains

// Relative variance of exp(step r) over the chains that have mass.
double relative_variance(const std::vector<double>& log_ratio, double step) {
  double largest = -std::numeric_limits<double>::infinity(), sum = 0, squares = 0, n = 0;
  for (const double r : log_ratio) largest = std::max(largest, r);
  for (const double r : log_ratio) {
    if (std::isinf(r)) continue;
    const double w = std::exp(step * (r - largest));
    sum += w;
    squares += w * w;
    n += 1;
  }
  return n * squares / (sum * sum) - 1;
}

// The largest step up to `most` within the variance, to a part in 2^60 of `most`.
double next_step(const std::vector<double>& log_ratio, double most, double variance) {
  if (relative_variance(log_ratio, most) <= variance) return most;
  double low = 0, high = most;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = 0.5 * (low + high);
    (relative_variance(log_ratio, middle) <= variance ? low : high) = middle;
  }
  return high;  // above zero
}

// Systematic resampling by exp(step r): who takes each place.
std::vector<std::size_t> resampled(const std::vector<double>& log_ratio, double step, double uniform) {
  const double largest = *std::max_element(log_ratio.begin(), log_ratio.end());
  std::vector<double> sums;
  double sum = 0;
  for (const double r : log_ratio) sums.push_back(sum += std::exp(step * (r - largest)));
  std::vector<std::size_t> source(log_ratio.size());
  std::size_t k = 0;
  for (std::size_t i = 0; i < source.size(); ++i) {
    const double place = (static_cast<double>(i) + uniform) / static_cast<double>(source.size()) * sum;
    while (k + 1 < sums.size() && sums[k] <= place) ++k;
    source[i] = k;
  }
  return source;
}

void permute(Ops& ops, ChainPlaces& at, const std::vector<std::size_t>& source) {
  for (const Tensor& tensor : {at.states, at.gradient}) {
    const std::vector<double> old = to_host(ops, tensor);
    std::vector<double> values(old.size());
    const std::size_t cols = old.size() / source.size();
    for (std::size_t i = 0; i < source.size(); ++i)
      std::copy_n(old.begin() + static_cast<std::ptrdiff_t>(source[i] * cols), cols,
                  values.begin() + static_cast<std::ptrdiff_t>(i * cols));
    to_device(ops, tensor, values);
  }
  for (std::vector<double>* values : {&at.target, &at.half_square}) {
    const std::vector<double> old = *values;
    for (std::size_t i = 0; i < source.size(); ++i) (*values)[i] = old[source[i]];
  }
}

class Pilot {
 public:
  Pilot(const WhitenedPotential& potential, const AnnealingOptions& options)
      : potential_(potential), options_(options) {}

  /// Absent: more temperatures than allowed. `attempt` parts the random numbers.
  std::optional<AnnealingSchedule> run(Context& context, double variance, std::int64_t attempt) {
    AnnealingSchedule schedule;
    bool complete = false;
    const std::int64_t chains = options_.pilot_chains;
    step_ = attempt << 32;
    for_row_chunks(context, chains, chains, [&](Ops& ops, Arena& arena, std::int64_t, std::int64_t count) {
      ChainBlock block(potential_, ops, arena, count);
      ops.random_normal(block.now().states,
                        {options_.seed, RandomStream::markov_proposal, annealing_step(AnnealingPhase::pilot, step_++)},
                        nullptr);
      block.arrive();
      if (ops.planning()) {
        move(block, 1, 1);
        return;
      }
      complete = climb(ops, block, schedule, variance);
    });
    return complete ? std::optional(schedule) : std::nullopt;
  }

 private:
  bool climb(Ops& ops, ChainBlock& block, AnnealingSchedule& schedule, double variance) {
    double at = 0, step_size = std::pow(static_cast<double>(potential_.dimension()), -0.25);
    for (std::int64_t t = 0; t < options_.most_temperatures; ++t) {
      const std::vector<double> log_ratio = log_ratios(block.now(), potential_.dimension());
      if (std::all_of(log_ratio.begin(), log_ratio.end(), [](double r) { return std::isinf(r); }))
        throw Diverged("annealing: the target has no mass at any of " + std::to_string(log_ratio.size()) +
                           " points of the base; take a base that covers it",
                       "energy", 0);
      // No less than to the next number: a schedule has no temperature twice.
      const double step = std::max(next_step(log_ratio, 1 - at, variance), std::nextafter(at, 1.0) - at);
      const bool last = step >= 1 - at;
      at = last ? 1 : at + step;
      const std::uint64_t key = annealing_step(AnnealingPhase::pilot, step_++);
      permute(ops, block.now(),
              resampled(log_ratio, step,
                        random_uniform({options_.seed, RandomStream::markov_acceptance, key}, kResamplingElement)));
      const std::int64_t transitions = std::max(options_.transitions, kPilotTransitions);
      for (std::int64_t i = 0; i < (t == 0 ? kFirstTransitions : transitions); ++i) {
        const double acceptance = move(block, at, step_size);
        step_size *= std::exp(kAdaptationGain * (acceptance - options_.target_acceptance));
      }
      schedule.temperature.push_back(at);
      schedule.step_size.push_back(step_size);
      if (last) return true;
    }
    return false;
  }

  double move(ChainBlock& block, double temperature, double step_size) {
    const std::uint64_t key = annealing_step(AnnealingPhase::pilot, step_++);
    const std::vector<double> probability = block.transition(
        mixture_at(temperature), jittered(step_size, options_.seed, key), options_.leapfrog_steps, options_.seed, key);
    double mean = 0;
    for (const double p : probability) mean += p / static_cast<double>(probability.size());
    return mean;
  }

  const WhitenedPotential& potential_;
  const AnnealingOptions& options_;
  std::int64_t step_ = 0;
};

// `count` temperatures at equal distances along a schedule, which starts at 0 and ends at 1.
AnnealingSchedule resized(const AnnealingSchedule& found, std::int64_t count) {
  AnnealingSchedule schedule;
  const auto size = static_cast<double>(found.temperature.size());
  for (std::int64_t i = 1; i <= count; ++i) {
    const double place = static_cast<double>(i) * size / static_cast<double>(count);
    const auto next = std::min(static_cast<std::size_t>(place), found.temperature.size() - 1);
    const double share = place - static_cast<double>(next), low = next == 0 ? 0 : found.temperature[next - 1];
    const double at = i == count ? 1 : low + share * (found.temperature[next] - low);
    // Between neighbouring numbers there is none: fewer temperatures, then.
    if (at <= (schedule.temperature.empty() ? 0 : schedule.temperature.back())) continue;
    schedule.temperature.push_back(at);
    schedule.step_size.push_back(found.step_size[next]);
  }
  return schedule;
}

}  // namespace

AnnealingSchedule plan_annealing(Context& context, const GaussianBase& base, const PotentialFunction& target,
                                 const AnnealingOptions& options) {
  check_annealing(options, "plan_annealing");
  const WhitenedPotential potential(base, target);
  Pilot pilot(potential, options);
  double variance = options.relative_variance;
  std::optional<AnnealingSchedule> found;
  for (std::int64_t attempt = 0; !found; ++attempt, variance *= kVarianceGrowth)
    found = pilot.run(context, variance, attempt);  // ends: one step fits any variance in the end
  AnnealingSchedule schedule = options.temperatures > 0 ? resized(*found, options.temperatures) : *found;
  schedule.leapfrog_steps = options.leapfrog_steps;
  schedule.transitions = options.transitions;
  return schedule;
}

}  // namespace bracket
