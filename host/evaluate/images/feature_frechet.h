// Frechet distance between two sets of features: of real and of generated images, as a classifier sees them.
//
// Each set is summed up as a Gaussian N(m, S); the distance (Dowson and Landau, 1982) is
//   |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).
// Figures depend on the features: they compare models seen by the same classifier, and nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bracket {

/// Mean [features] and covariance [features, features], divisor rows - 1.
struct FeatureMoments {
  std::vector<double> mean;
  std::vector<double> covariance;
};

/// Of `features` [rows, cols], row-major. Throws InvalidArgument for fewer than 2 rows, no columns, a size that
/// disagrees or a value that is not finite.
FeatureMoments feature_moments(std::span<const double> features, std::int64_t rows, std::int64_t cols);

/// The squared distance above; zero for equal moments up to rounding, and never negative. Throws InvalidArgument for
/// moments of different sizes.
double feature_frechet(const FeatureMoments& a, const FeatureMoments& b);

}  // namespace bracket
