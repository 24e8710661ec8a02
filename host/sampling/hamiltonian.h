// One transition of a block of Markov chains: Hamiltonian Monte Carlo (Duane, Kennedy, Pendleton, Roweth 1987).
//
// With momenta p ~ N(0, I) and H = U(x) + |p|^2 / 2 a chain takes L leapfrog steps of size e,
//   p <- p - e/2 grad U(x),   x <- x + e p,   p <- p - e/2 grad U(x),
// and moves to where they end with probability min(1, exp(H - H')), which leaves exp(-U) invariant and is reversible.
// L = 1 is the Metropolis-adjusted Langevin algorithm: x' = x - e^2/2 grad U(x) + e p.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bracket/sampler.h"
#include "kernels/ops.h"

namespace bracket {

/// A function of the states of chains, and its gradient.
class ChainPotential {
 public:
  virtual ~ChainPotential() = default;
  virtual DType dtype() const = 0;  ///< of the states
  virtual std::int64_t dimension() const = 0;
  /// Appends the values at `states` [rows, dimension] and writes the gradient. Activations are given up again.
  virtual void evaluate(Ops& ops, Arena& arena, std::vector<double>& values, const Tensor& gradient,
                        const Tensor& states) const = 0;
};

/// E(x), or E(G(z)), of networks in inference mode.
/// Throws InvalidArgument, beginning with `caller`, unless the networks fit each other and their parameters them.
void check_target(const SamplerTarget& target, const std::string& caller);

class NetworkPotential final : public ChainPotential {
 public:
  explicit NetworkPotential(const SamplerTarget& target) : target_(target) {}
  DType dtype() const override { return target_.energy.dtype(); }
  std::int64_t dimension() const override { return target_.dimension(); }
  void evaluate(Ops& ops, Arena& arena, std::vector<double>& values, const Tensor& gradient,
                const Tensor& states) const override;

 private:
  void append_pass(Ops& ops, Arena& arena, std::vector<double>& values, const Tensor& gradient,
                   const Tensor& states) const;

  SamplerTarget target_;
};

/// U(x) = quadratic |x|^2 / 2 + target T(x), T a ChainPotential. A factor of 0 leaves its term out, whatever its value.
struct PotentialMixture {
  double quadratic = 0;
  double target = 1;
};

/// Chains at one place each: states and grad T on the device, T and |x|^2 / 2 on the host.
struct ChainPlaces {
  Tensor states, gradient;
  std::vector<double> target, half_square;
  double potential(const PotentialMixture& mixture, std::size_t chain) const;
};

/// Chains that share step sizes and random numbers. Memory is the arena's.
class ChainBlock {
 public:
  ChainBlock(const ChainPotential& potential, Ops& ops, Arena& arena, std::int64_t rows);

  /// Where the chains are. After writing `states` call `arrive`.
  ChainPlaces& now() noexcept { return now_; }
  void arrive() { evaluate(now_); }
  std::vector<double> gradient_norms() const;  ///< |grad T|^2 of every chain; empty in a dry run
  /// One transition with the numbers of (seed, step), of the streams `markov_proposal` and `markov_acceptance`. Returns
  /// the acceptance probability of every chain, 0 where a proposal is not finite; empty in a dry run.
  std::vector<double> transition(const PotentialMixture& mixture, double step_size, std::int64_t leapfrog_steps,
                                 std::uint64_t seed, std::uint64_t step);

 private:
  void evaluate(ChainPlaces& at) const;
  void kick(const ChainPlaces& at, const PotentialMixture& mixture, double time) const;
  std::vector<double> half_squares(const Tensor& x) const;
  void move(const std::vector<bool>& accepted);

  const ChainPotential& potential_;
  Ops& ops_;
  Arena& arena_;
  ChainPlaces now_, proposed_;
  Tensor momentum_;
};

}  // namespace bracket
