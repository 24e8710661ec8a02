#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "bracket/sampler.h"
#include "host/core/text.h"
#include "host/sampling/hamiltonian.h"
#include "host/training/inference.h"
#include "host/training/row_chunks.h"

namespace bracket {
namespace {

constexpr double kAdaptationPower = 0.6;  // in (1/2, 1]: steps that sum to infinity and vanish
constexpr std::int64_t kMostSteps = std::int64_t{1} << 24;
constexpr std::int64_t kMostChains = kChainsPerBlock << 22;  // first_chain included: blocks x steps stay below 2^48

void require(bool holds, const std::string& what) {
  if (!holds) throw InvalidArgument("sample_mala: " + what);
}

void check(const SamplerTarget& target, std::span<const double> start, std::int64_t rows, const MalaOptions& o) {
  check_target(target, "sample_mala");
  const std::int64_t cols = target.dimension();
  const auto size = static_cast<std::int64_t>(start.size());
  require(rows >= 0 && size % cols == 0 && size / cols == rows && rows <= kMostChains,
          std::to_string(size) + " values do not start " + std::to_string(rows) + " chains of " + std::to_string(cols) +
              " values");
  require(o.first_chain >= 0 && o.first_chain <= kMostChains && o.first_chain % kChainsPerBlock == 0,
          "first_chain is " + std::to_string(o.first_chain) + ", must be a multiple of " +
              std::to_string(kChainsPerBlock) + " in [0, " + std::to_string(kMostChains) + "]");
  require(o.steps >= 0 && o.steps <= kMostSteps,
          "steps is " + std::to_string(o.steps) + ", must lie in [0, " + std::to_string(kMostSteps) + "]");
  require(o.adaptation_steps >= 0 && o.adaptation_steps <= o.steps,
          "adaptation_steps is " + std::to_string(o.adaptation_steps) +
              ", must lie in [0, steps = " + std::to_string(o.steps) + "]");
  require(o.step_size > 0 && std::isfinite(o.step_size),
          "step_size is " + format_number(o.step_size) + ", must be positive and finite");
  require(o.target_acceptance > 0 && o.target_acceptance < 1,
          "target_acceptance is " + format_number(o.target_acceptance) + ", must lie in (0, 1)");
}

void require_finite_start(const ChainPlaces& at, const PotentialMixture& mixture,
                          const std::vector<double>& gradient_norms, std::int64_t first) {
  for (std::size_t i = 0; i < gradient_norms.size(); ++i) {
    const double potential = at.potential(mixture, i);
    if (std::isfinite(potential) && std::isfinite(gradient_norms[i])) continue;
    throw Diverged("sample_mala: chain " + std::to_string(first + static_cast<std::int64_t>(i)) +
                       " starts where the energy is " + format_number(potential) +
                       " and the squared norm of its gradient " + format_number(gradient_norms[i]) +
                       "; start from finite points, or use an earlier checkpoint",
                   "energy", 0);
  }
}

}  // namespace

std::int64_t SamplerTarget::dimension() const {
  return generator != nullptr ? generator->input_size() : energy.input_size();
}

MalaResult sample_mala(Context& context, const SamplerTarget& target, std::span<const double> start, std::int64_t rows,
                       const MalaOptions& options) {
  check(target, start, rows, options);
  const std::int64_t cols = target.dimension();
  const NetworkPotential potential(target);
  const PotentialMixture mixture{target.generator != nullptr ? 1.0 : 0.0, 1.0};
  MalaResult result;
  double acceptance = 0;
  std::int64_t blocks = 0, counted = 0;
  for_row_chunks(context, rows, kChainsPerBlock, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
    ChainBlock block(potential, ops, arena, count);
    double step_size = options.step_size;
    to_device(ops, block.now().states,
              start.subspan(static_cast<std::size_t>(first * cols), static_cast<std::size_t>(count * cols)));
    block.arrive();
    require_finite_start(block.now(), mixture, block.gradient_norms(), first);
    for (std::int64_t t = 0; t < options.steps; ++t) {
      const auto step = static_cast<std::uint64_t>((options.first_chain + first) / kChainsPerBlock * options.steps + t);
      const std::vector<double> probability = block.transition(mixture, step_size, 1, options.seed, step);
      if (ops.planning()) return;
      double mean = 0;
      for (const double p : probability) mean += p / static_cast<double>(count);
      const bool adapting = t < options.adaptation_steps;
      if (adapting)
        step_size *=
            std::exp(std::pow(static_cast<double>(t + 1), -kAdaptationPower) * (mean - options.target_acceptance));
      if (adapting && options.adaptation_steps < options.steps) continue;
      acceptance += mean * static_cast<double>(count);
      counted += count;
    }
    append_to_host(result.states, ops, block.now().states);
    if (ops.planning()) return;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
      result.potential.push_back(block.now().potential(mixture, i));
    result.step_size += step_size;
    ++blocks;
  });
  if (counted > 0) result.acceptance = acceptance / static_cast<double>(counted);
  if (blocks > 0) result.step_size /= static_cast<double>(blocks);
  return result;
}

}  // namespace bracket
