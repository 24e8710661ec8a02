#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "bracket/sampler.h"
#include "host/core/text.h"
#include "host/training/inference.h"
#include "host/training/row_chunks.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kPassValues = std::int64_t{1} << 26;  // activations of one pass: 256 MB of floats
constexpr double kAdaptationPower = 0.6;                     // in (1/2, 1]: steps that sum to infinity and vanish
constexpr std::int64_t kMostSteps = std::int64_t{1} << 24;
constexpr std::int64_t kMostChains = kChainsPerBlock << 22;  // first_chain included: blocks x steps stay below 2^48

void require(bool holds, const std::string& what) {
  if (!holds) throw InvalidArgument("sample_mala: " + what);
}

void check(const SamplerTarget& target, std::span<const double> start, std::int64_t rows, const MalaOptions& o) {
  require(target.energy.output_size() == 1,
          "the energy must end in one column, got " + std::to_string(target.energy.output_size()));
  if (target.generator != nullptr) {
    require(target.generator->output_size() == target.energy.input_size() &&
                target.generator->dtype() == target.energy.dtype(),
            "the generator makes " + std::to_string(target.generator->output_size()) + " columns of " +
                dtype_name(target.generator->dtype()) + ", the energy reads " +
                std::to_string(target.energy.input_size()) + " of " + dtype_name(target.energy.dtype()));
  }
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

// Chains at one place each: states, U and grad U on the device, U on the host.
struct Places {
  Tensor states, gradient;
  std::vector<double> potential;
};

struct Block {
  const SamplerTarget& target;
  const MalaOptions& options;
  Ops& ops;
  Arena& arena;
  std::int64_t rows;
  double step_size;

  Places places() const {
    const DType dtype = target.energy.dtype();
    const std::int64_t cols = target.dimension();
    return {arena.allocate(dtype, {rows, cols}), arena.allocate(dtype, {rows, cols}), {}};
  }

  // U and its gradient at the states. The activations are given up again.
  void evaluate(Places& at) const {
    std::int64_t values = target.energy.values_per_row();
    if (target.generator != nullptr) values += target.generator->values_per_row();
    const std::int64_t portion = std::clamp<std::int64_t>(kPassValues / values, 1, rows);
    at.potential.clear();
    for (std::int64_t first = 0; first < rows; first += portion) {
      const std::int64_t mark = arena.mark(), count = std::min(portion, rows - first);
      append_pass(at.potential, at.states.slice_rows(first, count), at.gradient.slice_rows(first, count));
      arena.rewind(mark);
    }
    if (target.generator == nullptr) return;
    ops.axpy(at.gradient, 1, at.states);
    const std::vector<double> squares = squared_norms(at.states);
    for (std::size_t i = 0; i < squares.size(); ++i) at.potential[i] += 0.5 * squares[i];
  }

  // Appends E to `potential` and writes its gradient in the states.
  void append_pass(std::vector<double>& potential, const Tensor& states, const Tensor& gradient) const {
    const bool latent = target.generator != nullptr;
    const DType dtype = target.energy.dtype();
    PrimalPass generated, energy;
    if (latent)
      target.generator->forward(ops, arena, generated, target.generator_parameters, states, PassMode::inference);
    target.energy.forward(ops, arena, energy, target.energy_parameters, latent ? generated.output() : states,
                          PassMode::inference);
    append_to_host(potential, ops, energy.output());
    const Tensor seed = arena.allocate(dtype, {states.rows(), 1});
    ops.fill(seed, 1);
    ReverseRequest of_energy;
    of_energy.grad_input = latent ? arena.allocate(dtype, {states.rows(), target.energy.input_size()}) : gradient;
    target.energy.reverse(ops, arena, energy, nullptr, seed, {}, of_energy);
    if (!latent) return;
    ReverseRequest of_generator;
    of_generator.grad_input = gradient;
    target.generator->reverse(ops, arena, generated, nullptr, of_energy.grad_input, {}, of_generator);
  }

  std::vector<double> squared_norms(const Tensor& x) const {
    const std::int64_t mark = arena.mark();
    const Tensor norm = arena.allocate(x.dtype(), {x.rows()});
    ops.row_norm(norm, x);
    std::vector<double> values;
    append_to_host(values, ops, norm);
    for (double& value : values) value *= value;
    arena.rewind(mark);
    return values;
  }

  // The acceptance probability of every chain's move from `from` to `to`, which `noise` proposed.
  std::vector<double> acceptance(const Places& from, const Places& to, const Tensor& noise) const {
    const std::int64_t mark = arena.mark();
    const double half_square = 0.5 * step_size * step_size;
    const Tensor way_back = arena.allocate(noise.dtype(), {rows, target.dimension()});
    ops.copy(way_back, from.states);
    ops.axpy(way_back, -1, to.states);
    ops.axpy(way_back, half_square, to.gradient);
    const std::vector<double> back = squared_norms(way_back), forth = squared_norms(noise);
    arena.rewind(mark);
    std::vector<double> probability(back.size());
    for (std::size_t i = 0; i < back.size(); ++i) {
      const double log_ratio = from.potential[i] - to.potential[i] - back[i] / (4 * half_square) + 0.5 * forth[i];
      // Not finite: the energy or, through the way back, its gradient overflowed at the proposal.
      probability[i] = std::isfinite(log_ratio) ? std::min(1.0, std::exp(log_ratio)) : 0;
    }
    return probability;
  }

  // Copies the accepted rows, neighbours in one piece.
  void move(Places& from, const Places& to, const std::vector<bool>& accepted) const {
    for (std::size_t i = 0; i < accepted.size(); ++i) {
      if (!accepted[i]) continue;
      std::size_t end = i;
      for (; end < accepted.size() && accepted[end]; ++end) from.potential[end] = to.potential[end];
      const auto first = static_cast<std::int64_t>(i), count = static_cast<std::int64_t>(end - i);
      ops.copy(from.states.slice_rows(first, count), to.states.slice_rows(first, count));
      ops.copy(from.gradient.slice_rows(first, count), to.gradient.slice_rows(first, count));
      i = end;
    }
  }
};

void require_finite_start(const Places& at, const std::vector<double>& gradient_norms, std::int64_t first) {
  for (std::size_t i = 0; i < at.potential.size(); ++i) {
    if (std::isfinite(at.potential[i]) && std::isfinite(gradient_norms[i])) continue;
    throw Diverged("sample_mala: chain " + std::to_string(first + static_cast<std::int64_t>(i)) +
                       " starts where the energy is " + format_number(at.potential[i]) +
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
  MalaResult result;
  double acceptance = 0;
  std::int64_t blocks = 0, counted = 0;
  for_row_chunks(context, rows, kChainsPerBlock, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
    Block block{target, options, ops, arena, count, options.step_size};
    Places now = block.places(), proposed = block.places();
    const Tensor noise = arena.allocate(target.energy.dtype(), {count, cols});
    to_device(ops, now.states,
              start.subspan(static_cast<std::size_t>(first * cols), static_cast<std::size_t>(count * cols)));
    block.evaluate(now);
    require_finite_start(now, block.squared_norms(now.gradient), first);
    for (std::int64_t t = 0; t < options.steps; ++t) {
      const auto step = static_cast<std::uint64_t>((options.first_chain + first) / kChainsPerBlock * options.steps + t);
      ops.random_normal(noise, {options.seed, RandomStream::markov_proposal, step}, nullptr);
      ops.copy(proposed.states, now.states);
      ops.axpy(proposed.states, -0.5 * block.step_size * block.step_size, now.gradient);
      ops.axpy(proposed.states, block.step_size, noise);
      block.evaluate(proposed);
      const std::vector<double> probability = block.acceptance(now, proposed, noise);
      if (ops.planning()) return;
      std::vector<bool> accepted(probability.size());
      double mean = 0;
      for (std::size_t i = 0; i < probability.size(); ++i) {
        accepted[i] = random_uniform({options.seed, RandomStream::markov_acceptance, step}, i) < probability[i];
        mean += probability[i] / static_cast<double>(count);
      }
      block.move(now, proposed, accepted);
      const bool adapting = t < options.adaptation_steps;
      if (adapting)
        block.step_size *=
            std::exp(std::pow(static_cast<double>(t + 1), -kAdaptationPower) * (mean - options.target_acceptance));
      if (adapting && options.adaptation_steps < options.steps) continue;
      acceptance += mean * static_cast<double>(count);
      counted += count;
    }
    append_to_host(result.states, ops, now.states);
    if (ops.planning()) return;
    result.potential.insert(result.potential.end(), now.potential.begin(), now.potential.end());
    result.step_size += block.step_size;
    ++blocks;
  });
  if (counted > 0) result.acceptance = acceptance / static_cast<double>(counted);
  if (blocks > 0) result.step_size /= static_cast<double>(blocks);
  return result;
}

}  // namespace bracket
