// Log Z of a trained energy by annealed importance sampling, from the generator's base and from the data's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "bracket/annealed_importance.h"
#include "host/evaluate/generated_points.h"

namespace bracket {

struct PartitionOptions {
  std::int64_t chains = 1024;     ///< forward, and as many back
  std::int64_t temperatures = 0;  ///< 0: as many as the pilot finds
  double confidence = 0.95;
  std::uint64_t seed = 0;
};

/// Fewer effective chains than these, either way, give no interval. The sample's own effective share is what can be
/// asked, and a sample that missed the tail of its weights has a good one: no threshold makes the interval right given
/// that it passes. It can make it rare that an interval is printed and wrong. Lognormal weights, 1,024 chains, nominal
/// 5 %, share of samples that pass and whose interval misses Z (4,000 samples; test LogMean.GateOfEffectiveChains):
///   true n ess      8      28      61     102     154     205     307     512
///   30 or more   12.2     8.6     6.7     5.6     4.6     5.5     4.4     4.2 %
///   200 or more   0.0     0.0     0.4     2.9     3.8     5.0     4.4     4.2 %
inline constexpr double kLeastEffectiveChains = 200;

/// A run forward and back from one base. Both ends hold if chains reach all mass of the target: what neither base nor
/// the start of the back chains sees is missing from all of it.
///
/// Back chains start where chains of the target ended, which are no exact points of the model: `above` and `upper` are
/// approximate, never proved.
struct AnnealedPartition {
  bool latent = false;  ///< which base
  std::int64_t chains = 0;
  std::int64_t temperatures = 0;
  double acceptance = 0;    ///< of the forward chains
  LogMeanInterval forward;  ///< of log Z; its expectation is no more than that
  double above = 0;         ///< -log mean (1 / w) of the back chains
  double above_standard_error = 0;
  double back_ess = 0;
  bool interval_holds = false;  ///< effective_chains() reach kLeastEffectiveChains
  double lower = 0;             ///< interval of log Z: of the forward chains, ... (else forward.markov_lower)
  double upper = 0;             ///< ... up to the larger of both upper ends (else infinity)

  /// The smaller number of both ways.
  double effective_chains() const { return std::min(forward.ess, back_ess) * static_cast<double>(chains); }
};

/// Back chains from where chains of the target end that begin at `start` [chains, D]. Waits. Throws as
/// annealed_importance.h does, and so do those below.
AnnealedPartition annealed_partition(Context& context, const GaussianBase& base, const PotentialFunction& target,
                                     std::span<const double> start, const PartitionOptions& options);

/// For a bijective G, D = d: from N(0, I), f_1(z) = exp(-E(G(z))) |det J(z)|, whose log is log N(z) - phi(z); as close
/// to the base as the pair is calibrated. Its Z is the integral of exp(-E) over G(R^d), so G must be onto as well.
/// Chains back begin at points of the base: this run shares the blind spots of the generator.
AnnealedPartition annealed_in_latent_space(const NetworkPair& pair, const PartitionOptions& options);

/// From a Gaussian of the data's and the generated points' mean and covariance (diagonal above 64 columns), deviations
/// widened by a quarter; `data` [data_rows, D], generated points from latents of the seed. Chains back begin in turn at
/// a generated point and at a row of the data, each row at most once.
AnnealedPartition annealed_in_data_space(const NetworkPair& pair, std::span<const double> data, std::int64_t data_rows,
                                         const PartitionOptions& options);

/// Whether a chain of layers that is injective and ends with as many columns as it starts with is onto, too: no
/// tanh, sigmoid or softplus, whose values are bounded.
bool onto_if_injective(const std::vector<LayerSpec>& layers);

/// U(z) = -log f_1(z) of the latent route. The pair must outlive the function.
PotentialFunction latent_potential(const NetworkPair& pair);

/// N(mean, covariance) of points [rows, cols] with deviations times `widening`; diagonal where asked for. A column
/// without variance counts as one of a thousandth of the others' mean deviation (1 if all are constant).
GaussianBase gaussian_of(std::span<const double> points, std::int64_t rows, std::int64_t cols, double widening,
                         bool diagonal);

}  // namespace bracket
