// The bounds on L = E_data[E(x)] + log Z, the negative log-likelihood per sample in nats.
// Sources: Geng, Wang, Gao, Frellsen, Hauberg, "Bounds all around", NeurIPS 2021; derivations in kernels/README.md.
#pragma once

#include <cstdint>

namespace bracket {

/// d/2 log(2 pi e): the entropy of N(0, I_d).
double normal_entropy(std::int64_t d);

/// L_low = energy_data - energy_samples + d/2 log(2 pi e) + log_volume. A lower bound of L when D = d and the generator
/// is injective; its gap is KL(p_g || p). For D > d it bounds the likelihood on the generator's image only.
double lower_bound(double energy_data, double energy_samples, double log_volume, std::int64_t d);

/// L_low + P / rho >= L, where P = 1/2 E|J^T grad E - s|^2 and rho is a proved log-Sobolev constant of the model pulled
/// back to latent space (for a linear generator and E = x^T A x / 2: rho = lambda_min(J^T A J)). Throws InvalidArgument
/// for rho <= 0 or P < 0. Without a proof of rho there is no upper bound; report `upper_estimate`.
double upper_bound(double lower_bound, double penalty, double log_sobolev_constant);

/// L_low + 1/2 Var(phi), phi = E(G(z)) + log p_g(G(z)): second-order accurate, can lie below L.
double upper_estimate(double lower_bound, double variance_phi);

}  // namespace bracket
