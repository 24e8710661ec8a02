// Markov chain Monte Carlo on a trained energy: the Metropolis-adjusted Langevin algorithm.
//
// With g = grad U a chain at x proposes y = x - e^2/2 g(x) + e n, n ~ N(0, I), and moves there with probability
//   min(1, exp(U(x) - U(y) - (|x - y + e^2/2 g(y)|^2 - |e n|^2) / (2 e^2))),
// which leaves exp(-U) invariant (Roberts and Tweedie, 1996). The step size e follows log e += t^-0.6 (a - target)
// during the first `adaptation_steps`, a the mean acceptance probability of step t: the changes die out, so the
// adaptation does not spoil the limit (Roberts and Rosenthal, 2007). 0.574 is the optimal rate in many dimensions
// (Roberts and Rosenthal, 1998).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

/// What is sampled: U(x) = E(x) in data space, or with a generator U(z) = E(G(z)) + |z|^2 / 2 in latent space. The
/// latter is the prior of z weighted by exp(-E), whose image under G is concentrated where the energy is low; it is not
/// the model exp(-E) / Z, as the volume of G is left out.
struct SamplerTarget {
  const Network& energy;
  ParameterSet energy_parameters;
  const Network* generator = nullptr;  ///< null: data space
  ParameterSet generator_parameters = {};
  std::int64_t dimension() const;  ///< of a chain's state
};

/// Chains that share one step size.
inline constexpr std::int64_t kChainsPerBlock = 128;

struct MalaOptions {
  std::int64_t steps = 100;
  std::int64_t adaptation_steps = 50;  ///< the first so many of them
  double step_size = 0.05;             ///< e of the first step
  double target_acceptance = 0.574;
  std::uint64_t seed = 0;
  /// Number of the first chain, a multiple of kChainsPerBlock: many chains can run in portions and come out the same.
  std::int64_t first_chain = 0;
};

struct MalaResult {
  std::vector<double> states;     ///< [rows, dimension] at the end
  std::vector<double> potential;  ///< U of the states [rows]
  double acceptance = 0;          ///< mean acceptance probability of the steps without adaptation, or of all if none is
  double step_size = 0;           ///< e at the end, mean over the blocks
};

/// Runs one chain from each row of `start` [rows, dimension], networks in inference mode. Deterministic in the seed and
/// the device. A proposal whose energy or gradient is not finite is refused. In precision f32 the acceptance
/// probability is as exact as energies are: about |U| 1e-7. Waits. Throws InvalidArgument for sizes that disagree or
/// an option out of range, Diverged where U or its gradient is not finite at the start.
MalaResult sample_mala(Context& context, const SamplerTarget& target, std::span<const double> start, std::int64_t rows,
                       const MalaOptions& options = {});

}  // namespace bracket
