// Generated points with everything the bounds need of them, from one pass over the latents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

/// An energy and a generator with the parameters to use.
struct NetworkPair {
  Context& context;
  const Network& energy;
  ParameterSet energy_parameters;
  const Network& generator;
  ParameterSet generator_parameters;
};

/// Per latent z [rows, d]: x = G(z), E(x), phi = E(x) + log N(z; 0, I) - h(z), phi with d log s_1 in place of h, and
/// grad_z phi = J^T grad E - s. The penalty is P = 1/2 mean |grad_z phi|^2. h is `triangular` where the generator knows
/// it, else `exact`; beyond 16 latents the former forms no Jacobian, and phi with s_1 is NaN.
struct GeneratedPoints {
  std::vector<double> x;                 ///< [rows, D]
  std::vector<double> energy;            ///< [rows]
  std::vector<double> log_volume;        ///< h [rows]
  std::vector<double> phi;               ///< [rows]
  std::vector<double> phi_min_singular;  ///< [rows]
  std::vector<double> phi_gradient;      ///< [rows, d]
  double penalty() const;
};

/// Inference mode. Waits. Throws InvalidArgument when z does not have rows x d values or d > D.
GeneratedPoints generated_points(const NetworkPair& pair, std::span<const double> z, std::int64_t rows);

/// Means, and the standard error of `mean`: deviation / sqrt(n).
struct SampleMoments {
  double mean = 0;
  double variance = 0;  ///< divisor n - 1; 0 for n < 2
  double standard_error = 0;
};
SampleMoments sample_moments(std::span<const double> values);

}  // namespace bracket
