// How well samples cover the modes of a mixture of equal, isotropic Gaussians in the plane.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace bracket {

struct ModeCoverage {
  std::int64_t found = 0;            ///< modes with at least one in kSamplesPerMode samples within kModeRadius
  double high_quality_fraction = 0;  ///< share of the samples within kModeRadius of a mode
  double histogram_kl = 0;  ///< sum_k p_k log(p_k M), p_k: share of the samples whose nearest of the M modes is k
};

inline constexpr double kModeRadius = 4;               ///< deviations
inline constexpr std::int64_t kSamplesPerMode = 1000;  ///< 20 of 20,000

/// `samples`: rows of two values. Throws InvalidArgument for no samples, no centres or a deviation that is not
/// positive.
ModeCoverage mode_coverage(std::span<const double> samples, std::span<const std::array<double, 2>> centres,
                           double deviation);

}  // namespace bracket
