// Log Z of a trained energy by annealed importance sampling, from whichever base suits the pair.
#pragma once

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

/// Where D = d and G is injective by construction: in latent space from N(0, I), f_1(z) = exp(-E(G(z))) |det J(z)|,
/// whose log is log N(z) - phi(z); as close to the base as the pair is calibrated. Else in data space, from a Gaussian
/// of the data's and the generated points' mean and covariance (diagonal above 64 columns), deviations widened by a
/// quarter.
///
/// Back chains start where chains of the target ended that began at the data and at generated points (in latent space:
/// at N(0, I)). They are no exact points of the model: `above` and `upper` are approximate, never proved.
struct AnnealedPartition {
  bool latent = false;
  std::int64_t chains = 0;
  std::int64_t temperatures = 0;
  double acceptance = 0;    ///< of the forward chains
  LogMeanInterval forward;  ///< of log Z; its expectation is no more than that
  double above = 0;         ///< -log mean (1 / w) of the back chains
  double above_standard_error = 0;
  double back_ess = 0;
  double lower = 0;  ///< interval of log Z: of the forward chains, ...
  double upper = 0;  ///< ... up to the larger of both upper ends
};

/// `data` [data_rows, D], generated points from latents of the seed. Waits. Throws as annealed_importance.h does.
AnnealedPartition annealed_partition(const NetworkPair& pair, std::span<const double> data, std::int64_t data_rows,
                                     const PartitionOptions& options);

/// U(z) = -log f_1(z) of the latent route. The pair must outlive the function.
PotentialFunction latent_potential(const NetworkPair& pair);

/// N(mean, covariance) of points [rows, cols] with deviations times `widening`; diagonal where asked for. A column
/// without variance counts as one of a thousandth of the others' mean deviation (1 if all are constant).
GaussianBase gaussian_of(std::span<const double> points, std::int64_t rows, std::int64_t cols, double widening,
                         bool diagonal);

}  // namespace bracket
