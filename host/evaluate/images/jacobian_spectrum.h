// Singular values of a generator's Jacobian, sample by sample.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

/// Of J(z) [D, d] for each latent, by exact_log_volume (bracket/singular_values.h): a sample of which rounding hides
/// the rank has the log-volume -infinity.
struct JacobianSpectrum {
  std::vector<double> smallest;    ///< s_1 [rows]
  std::vector<double> largest;     ///< s_d [rows]
  std::vector<double> values;      ///< s_1 <= ... <= s_d [rows, d]
  std::vector<double> log_volume;  ///< sum log s_i = 1/2 log det(J^T J) [rows]
};

/// Latents z [rows, d], inference mode; the d tangents of a sample go through the generator in portions, so that memory
/// follows the portion. Waits. Throws InvalidArgument for sizes that disagree or d > D, Diverged for a Jacobian that is
/// not finite.
JacobianSpectrum jacobian_spectrum(Context& context, const Network& generator, const ParameterSet& parameters,
                                   std::span<const double> z, std::int64_t rows);

}  // namespace bracket
