#include "bracket/annealed_importance.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <string>

#include "bracket/error.h"
#include "host/core/host_values.h"
#include "host/core/text.h"
#include "host/sampling/annealing.h"
#include "host/training/row_chunks.h"

namespace bracket {
namespace {

constexpr std::int64_t kMostTemperatures = 1 << 16;
constexpr std::int64_t kMostTransitions = 1 << 8;            // per temperature
constexpr std::int64_t kMostChains = kChainsPerBlock << 19;  // blocks x transitions stay below 2^45
// Of the step size, in turn: a chain that starts where the target is steep is refused every step of the usual size.
constexpr double kShrinking[] = {1, 0.25, 1, 1.0 / 16};

void require(bool holds, const std::string& what) {
  if (!holds) throw InvalidArgument("annealing: " + what);
}

void check_schedule(const AnnealingSchedule& s, std::int64_t rows, const AnnealingOptions& options) {
  const std::size_t size = s.temperature.size();
  require(size > 0 && size <= static_cast<std::size_t>(kMostTemperatures) && s.step_size.size() == size &&
              s.temperature.back() == 1 && s.temperature.front() > 0,
          "a schedule of " + std::to_string(size) + " temperatures and " + std::to_string(s.step_size.size()) +
              " step sizes does not end at 1");
  require(std::adjacent_find(s.temperature.begin(), s.temperature.end(), std::greater_equal<>()) == s.temperature.end(),
          "the temperatures of the schedule do not rise");
  require(s.leapfrog_steps > 0 && s.transitions > 0 && s.transitions <= kMostTransitions,
          "the schedule has " + std::to_string(s.transitions) + " transitions of " + std::to_string(s.leapfrog_steps) +
              " leapfrog steps");
  require(rows >= 0 && rows <= kMostChains,
          std::to_string(rows) + " chains, must lie in [0, " + std::to_string(kMostChains) + "]");
  require(options.first_chain >= 0 && options.first_chain <= kMostChains && options.first_chain % kChainsPerBlock == 0,
          "first_chain is " + std::to_string(options.first_chain) + ", must be a multiple of " +
              std::to_string(kChainsPerBlock) + " in [0, " + std::to_string(kMostChains) + "]");
}

// One block of chains on its way through a schedule.
class Walk {
 public:
  Walk(const WhitenedPotential& potential, const AnnealingSchedule& schedule, const AnnealingOptions& options,
       AnnealingPhase phase, std::int64_t moves, Ops& ops, Arena& arena, std::int64_t first, std::int64_t count)
      : schedule_(schedule),
        options_(options),
        phase_(phase),
        dimension_(potential.dimension()),
        block_(potential, ops, arena, count),
        log_weight_(static_cast<std::size_t>(count)) {
    step_ = (options.first_chain + first) / kChainsPerBlock * (moves + 1);  // one for the start
  }

  ChainBlock& block() noexcept { return block_; }
  const std::vector<double>& log_weight() const noexcept { return log_weight_; }
  /// U of x where the chains are.
  void keep_potential(double log_determinant) {
    log_weight_ = block_.now().target;
    for (double& value : log_weight_) value += log_determinant;
  }
  double acceptance() const noexcept { return acceptance_; }  ///< summed over chains and transitions

  void start_from_base(Ops& ops) {
    ops.random_normal(block_.now().states, {options_.seed, RandomStream::markov_proposal, next_key()}, nullptr);
    block_.arrive();
  }

  /// The factor of w between temperatures t - 1 and t, counted from 0, where 0 follows the base.
  void weigh(std::size_t t, double sign) {
    const double step = schedule_.temperature[t] - (t == 0 ? 0 : schedule_.temperature[t - 1]);
    const std::vector<double> ratio = log_ratios(block_.now(), dimension_);
    for (std::size_t i = 0; i < ratio.size(); ++i) log_weight_[i] += sign * step * ratio[i];
  }

  void move(std::size_t t, std::int64_t transitions, double shrink = 1) {
    for (std::int64_t k = 0; k < transitions; ++k) {
      const std::uint64_t key = next_key();
      for (const double p : block_.transition(mixture_at(schedule_.temperature[t]),
                                              jittered(shrink * schedule_.step_size[t], options_.seed, key),
                                              schedule_.leapfrog_steps, options_.seed, key))
        acceptance_ += p;
    }
  }

 private:
  std::uint64_t next_key() { return annealing_step(phase_, step_++); }

  const AnnealingSchedule& schedule_;
  const AnnealingOptions& options_;
  AnnealingPhase phase_;
  std::int64_t dimension_, step_ = 0;
  ChainBlock block_;
  std::vector<double> log_weight_;
  double acceptance_ = 0;
};

// Runs `walk_through` on every block of chains and gathers what it leaves.
template <class Body>
AnnealedChains run_blocks(Context& context, const WhitenedPotential& potential, const AnnealingSchedule& schedule,
                          const AnnealingOptions& options, AnnealingPhase phase, std::int64_t rows, std::int64_t moves,
                          const Body& walk_through) {
  AnnealedChains result;
  double acceptance = 0;
  std::vector<double> u;
  for_row_chunks(context, rows, kChainsPerBlock, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
    Walk walk(potential, schedule, options, phase, moves, ops, arena, first, count);
    walk_through(ops, walk, first, count);
    if (ops.planning()) return;
    append_to_host(u, ops, walk.block().now().states);
    result.log_weight.insert(result.log_weight.end(), walk.log_weight().begin(), walk.log_weight().end());
    acceptance += walk.acceptance();
  });
  result.states = potential.points(u);
  result.acceptance = rows * moves > 0 ? acceptance / static_cast<double>(rows * moves) : 1;
  return result;
}

// Chains at points of the target, which have mass there.
void start_at(Ops& ops, Walk& walk, const std::vector<double>& u, std::int64_t first, std::int64_t count,
              std::int64_t cols) {
  to_device(ops, walk.block().now().states,
            std::span(u).subspan(static_cast<std::size_t>(first * cols), static_cast<std::size_t>(count * cols)));
  walk.block().arrive();
  const std::vector<double>& potential = walk.block().now().target;
  for (std::size_t i = 0; i < potential.size(); ++i)
    if (!std::isfinite(potential[i]))
      throw Diverged("annealing: chain " + std::to_string(first + static_cast<std::int64_t>(i)) +
                         " starts where the potential is " + format_number(potential[i]) +
                         "; start from points where the target has mass",
                     "energy", 0);
}

void check_start(std::span<const double> start, std::int64_t rows, std::int64_t cols) {
  require(static_cast<std::int64_t>(start.size()) == rows * cols, std::to_string(start.size()) +
                                                                      " values do not start " + std::to_string(rows) +
                                                                      " chains of " + std::to_string(cols) + " values");
}

}  // namespace

void check_annealing(const AnnealingOptions& o, const char* caller) {
  const auto check = [caller](bool holds, const std::string& name, const std::string& value, const std::string& range) {
    if (!holds) throw InvalidArgument(std::string(caller) + ": " + name + " is " + value + ", must lie in " + range);
  };
  const auto whole = [&](const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
    check(value >= low && value <= high, name, std::to_string(value),
          formatted("[%lld, %lld]", static_cast<long long>(low), static_cast<long long>(high)));
  };
  whole("temperatures", o.temperatures, 0, kMostTemperatures);
  whole("most_temperatures", o.most_temperatures, 1, kMostTemperatures);
  whole("transitions", o.transitions, 1, kMostTransitions);
  whole("leapfrog_steps", o.leapfrog_steps, 1, 1 << 16);
  whole("pilot_chains", o.pilot_chains, 2, 1 << 20);
  check(o.relative_variance > 0 && std::isfinite(o.relative_variance), "relative_variance",
        format_number(o.relative_variance), "(0, inf)");
  check(o.target_acceptance > 0 && o.target_acceptance < 1, "target_acceptance", format_number(o.target_acceptance),
        "(0, 1)");
}

AnnealedChains anneal_forward(Context& context, const GaussianBase& base, const PotentialFunction& target,
                              const AnnealingSchedule& schedule, std::int64_t rows, const AnnealingOptions& options) {
  check_schedule(schedule, rows, options);
  const WhitenedPotential potential(base, target);
  const std::size_t size = schedule.temperature.size();
  return run_blocks(context, potential, schedule, options, AnnealingPhase::forward, rows,
                    static_cast<std::int64_t>(size - 1) * schedule.transitions,
                    [&](Ops& ops, Walk& walk, std::int64_t, std::int64_t) {
                      walk.start_from_base(ops);
                      for (std::size_t t = 0; t < size; ++t) {
                        walk.weigh(t, 1);
                        if (t + 1 < size || ops.planning()) walk.move(t, schedule.transitions);
                        if (ops.planning()) return;
                      }
                    });
}

AnnealedChains anneal_back(Context& context, const GaussianBase& base, const PotentialFunction& target,
                           const AnnealingSchedule& schedule, std::span<const double> start, std::int64_t rows,
                           const AnnealingOptions& options) {
  check_schedule(schedule, rows, options);
  const WhitenedPotential potential(base, target);
  const std::int64_t cols = potential.dimension();
  check_start(start, rows, cols);
  const std::vector<double> u = potential.coordinates(start);
  const std::size_t size = schedule.temperature.size();
  return run_blocks(context, potential, schedule, options, AnnealingPhase::back, rows,
                    static_cast<std::int64_t>(size - 1) * schedule.transitions,
                    [&](Ops& ops, Walk& walk, std::int64_t first, std::int64_t count) {
                      start_at(ops, walk, u, first, count, cols);
                      for (std::size_t t = size; t-- > 0;) {
                        walk.weigh(t, -1);
                        if (t > 0 || ops.planning()) walk.move(t > 0 ? t - 1 : 0, schedule.transitions);
                        if (ops.planning()) return;
                      }
                    });
}

AnnealedChains run_target_chains(Context& context, const GaussianBase& base, const PotentialFunction& target,
                                 const AnnealingSchedule& schedule, std::span<const double> start, std::int64_t rows,
                                 std::int64_t steps, const AnnealingOptions& options) {
  require(steps >= 0 && steps <= kMostTemperatures,
          "steps is " + std::to_string(steps) + ", must lie in [0, " + std::to_string(kMostTemperatures) + "]");
  AnnealingSchedule at_target = schedule;
  if (!schedule.temperature.empty()) {
    at_target.temperature = {1};
    at_target.step_size = {schedule.step_size.empty() ? 0 : schedule.step_size.back()};
  }
  check_schedule(at_target, rows, options);
  const WhitenedPotential potential(base, target);
  const std::int64_t cols = potential.dimension();
  check_start(start, rows, cols);
  const std::vector<double> u = potential.coordinates(start);
  return run_blocks(context, potential, at_target, options, AnnealingPhase::target, rows, steps,
                    [&](Ops& ops, Walk& walk, std::int64_t first, std::int64_t count) {
                      start_at(ops, walk, u, first, count, cols);
                      for (std::int64_t k = 0; k < (ops.planning() ? 1 : steps); ++k)
                        walk.move(0, 1, kShrinking[k % std::ssize(kShrinking)]);
                      if (!ops.planning()) walk.keep_potential(potential.log_determinant());
                    });
}

}  // namespace bracket
