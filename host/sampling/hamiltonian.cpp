#include "host/sampling/hamiltonian.h"

#include <algorithm>
#include <cmath>

#include "bracket/error.h"
#include "host/core/host_values.h"

namespace bracket {
namespace {

constexpr std::int64_t kPassValues = std::int64_t{1} << 26;  // activations of one pass: 256 MB of floats

}  // namespace

void check_target(const SamplerTarget& target, const std::string& caller) {
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) throw InvalidArgument(caller + ": " + what);
  };
  const auto parameters = [&](const char* name, const Network& network, const ParameterSet& set) {
    const auto fits = [&](const Tensor& block, std::int64_t elements) {
      return block.size() == elements && (elements == 0 || block.dtype() == network.dtype());
    };
    require(fits(set.values, network.value_elements()) && fits(set.buffers, network.buffer_elements()),
            std::string("the ") + name + "'s parameters are blocks of " + std::to_string(set.values.size()) + " and " +
                std::to_string(set.buffers.size()) + " elements, the network has " +
                std::to_string(network.value_elements()) + " and " + std::to_string(network.buffer_elements()) +
                " of " + dtype_name(network.dtype()));
  };
  require(target.energy.output_size() == 1,
          "the energy must end in one column, got " + std::to_string(target.energy.output_size()));
  parameters("energy", target.energy, target.energy_parameters);
  if (target.generator == nullptr) return;
  require(target.generator->output_size() == target.energy.input_size() &&
              target.generator->dtype() == target.energy.dtype(),
          "the generator makes " + std::to_string(target.generator->output_size()) + " columns of " +
              dtype_name(target.generator->dtype()) + ", the energy reads " +
              std::to_string(target.energy.input_size()) + " of " + dtype_name(target.energy.dtype()));
  parameters("generator", *target.generator, target.generator_parameters);
}

void NetworkPotential::evaluate(Ops& ops, Arena& arena, std::vector<double>& values, const Tensor& gradient,
                                const Tensor& states) const {
  std::int64_t values_per_row = target_.energy.values_per_row();
  if (target_.generator != nullptr) values_per_row += target_.generator->values_per_row();
  const std::int64_t rows = states.rows(), portion = std::clamp<std::int64_t>(kPassValues / values_per_row, 1, rows);
  for (std::int64_t first = 0; first < rows; first += portion) {
    const std::int64_t mark = arena.mark(), count = std::min(portion, rows - first);
    append_pass(ops, arena, values, gradient.slice_rows(first, count), states.slice_rows(first, count));
    arena.rewind(mark);
  }
}

void NetworkPotential::append_pass(Ops& ops, Arena& arena, std::vector<double>& values, const Tensor& gradient,
                                   const Tensor& states) const {
  const bool latent = target_.generator != nullptr;
  PrimalPass generated, energy;
  if (latent)
    target_.generator->forward(ops, arena, generated, target_.generator_parameters, states, PassMode::inference);
  target_.energy.forward(ops, arena, energy, target_.energy_parameters, latent ? generated.output() : states,
                         PassMode::inference);
  append_to_host(values, ops, energy.output());
  const Tensor seed = arena.allocate(dtype(), {states.rows(), 1});
  ops.fill(seed, 1);
  ReverseRequest of_energy;
  of_energy.grad_input = latent ? arena.allocate(dtype(), {states.rows(), target_.energy.input_size()}) : gradient;
  target_.energy.reverse(ops, arena, energy, nullptr, seed, {}, of_energy);
  if (!latent) return;
  ReverseRequest of_generator;
  of_generator.grad_input = gradient;
  target_.generator->reverse(ops, arena, generated, nullptr, of_energy.grad_input, {}, of_generator);
}

double ChainPlaces::potential(const PotentialMixture& mixture, std::size_t chain) const {
  double value = 0;
  if (mixture.quadratic != 0) value += mixture.quadratic * half_square[chain];
  if (mixture.target != 0) value += mixture.target * target[chain];
  return value;
}

ChainBlock::ChainBlock(const ChainPotential& potential, Ops& ops, Arena& arena, std::int64_t rows)
    : potential_(potential), ops_(ops), arena_(arena) {
  const auto matrix = [&] { return arena.allocate(potential.dtype(), {rows, potential.dimension()}); };
  for (ChainPlaces* places : {&now_, &proposed_}) {
    places->states = matrix();
    places->gradient = matrix();
  }
  momentum_ = matrix();
}

void ChainBlock::evaluate(ChainPlaces& at) const {
  at.target.clear();
  potential_.evaluate(ops_, arena_, at.target, at.gradient, at.states);
  at.half_square = half_squares(at.states);
}

std::vector<double> ChainBlock::half_squares(const Tensor& x) const {
  const std::int64_t mark = arena_.mark();
  const Tensor norm = arena_.allocate(x.dtype(), {x.rows()});
  ops_.row_norm(norm, x);
  std::vector<double> values;
  append_to_host(values, ops_, norm);
  for (double& value : values) value *= 0.5 * value;
  arena_.rewind(mark);
  return values;
}

std::vector<double> ChainBlock::gradient_norms() const {
  std::vector<double> values = half_squares(now_.gradient);
  for (double& value : values) value *= 2;
  return values;
}

// p -= time grad U.
void ChainBlock::kick(const ChainPlaces& at, const PotentialMixture& mixture, double time) const {
  if (mixture.quadratic != 0) ops_.axpy(momentum_, -time * mixture.quadratic, at.states);
  if (mixture.target != 0) ops_.axpy(momentum_, -time * mixture.target, at.gradient);
}

std::vector<double> ChainBlock::transition(const PotentialMixture& mixture, double step_size,
                                           std::int64_t leapfrog_steps, std::uint64_t seed, std::uint64_t step) {
  ops_.random_normal(momentum_, {seed, RandomStream::markov_proposal, step}, nullptr);
  const std::vector<double> before = half_squares(momentum_);
  ops_.copy(proposed_.states, now_.states);
  kick(now_, mixture, 0.5 * step_size);
  for (std::int64_t i = 1; i <= leapfrog_steps; ++i) {
    ops_.axpy(proposed_.states, step_size, momentum_);
    evaluate(proposed_);
    kick(proposed_, mixture, i < leapfrog_steps ? step_size : 0.5 * step_size);
  }
  const std::vector<double> after = half_squares(momentum_);
  std::vector<double> probability(before.size());
  std::vector<bool> accepted(before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double log_ratio = now_.potential(mixture, i) + before[i] - proposed_.potential(mixture, i) - after[i];
    // Not finite: the energy or, through the momentum, its gradient overflowed on the way.
    probability[i] = std::isfinite(log_ratio) ? std::min(1.0, std::exp(log_ratio)) : 0;
    accepted[i] = random_uniform({seed, RandomStream::markov_acceptance, step}, i) < probability[i];
  }
  move(accepted);
  return probability;
}

// Copies the accepted rows, neighbours in one piece.
void ChainBlock::move(const std::vector<bool>& accepted) {
  for (std::size_t i = 0; i < accepted.size(); ++i) {
    if (!accepted[i]) continue;
    std::size_t end = i;
    for (; end < accepted.size() && accepted[end]; ++end) {
      now_.target[end] = proposed_.target[end];
      now_.half_square[end] = proposed_.half_square[end];
    }
    const auto first = static_cast<std::int64_t>(i), count = static_cast<std::int64_t>(end - i);
    ops_.copy(now_.states.slice_rows(first, count), proposed_.states.slice_rows(first, count));
    ops_.copy(now_.gradient.slice_rows(first, count), proposed_.gradient.slice_rows(first, count));
    i = end;
  }
}

}  // namespace bracket
