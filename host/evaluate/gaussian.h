// The one case where an upper bound is proved: E(G(z)) is a quadratic with positive definite Hessian B.
//
// Then the model pulled back to latent space is Gaussian with precision B and satisfies a log-Sobolev inequality with
// rho = lambda_min(B) (Bakry and Emery, 1985): KL(p_g || p) <= P / rho, so L <= L_low + P / rho. For linear G and
// E = x^T A x / 2 this is rho = lambda_min(J^T A J).
#pragma once

#include <optional>

#include "host/evaluate/generated_points.h"

namespace bracket {

/// Exact latent means of a Gaussian pair: phi and |grad phi|^2 are quadratics in z, and the 2 d points +-sqrt(d) e_i
/// have the mean of every quadratic under N(0, I).
struct GaussianPair {
  double mean_phi = 0;
  double penalty = 0;
  double log_sobolev_constant = 0;  ///< rho, less an allowance for the rounding of B
};

/// Absent unless the layers prove it: D = d, a generator of affine layers only (linear, affine, identity, batch_norm in
/// inference mode), an energy of affine layers and confinements without wall whose inputs are affine in x, and
/// numerically rho > 0. Throws Diverged for non-finite parameters. Waits.
std::optional<GaussianPair> gaussian_pair(const NetworkPair& pair);

}  // namespace bracket
