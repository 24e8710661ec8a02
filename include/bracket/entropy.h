// Entropy of a generator: the log-volume of its Jacobian, per sample, with what its derivatives need.
//
// h(z) = 1/2 log det(J^T J), J = dG/dz [D, d]; the entropy of the generated density is d/2 log(2 pi e) + E[h] (nats;
// for D > d with respect to d-dimensional volume on the image of G).
#pragma once

#include <cstdint>
#include <string>

#include "bracket/network.h"

namespace bracket {

enum class EntropyEstimator : std::uint8_t {
  exact,         ///< h: fp64 Gram matrix of all d tangents and its Cholesky factor
  min_singular,  ///< d log s_1 <= h from the smallest singular value s_1 of J, by a dense symmetric eigen-solve
  lobpcg,        ///< d log mu, mu >= s_1 after a few steps of LOBPCG, without J (the estimator of the paper)
  triangular,    ///< h: sum over layers of log |det|, of generators with Network::has_log_volume(); no tangents
};

/// "exact", "min_singular", "lobpcg", "triangular"
const char* entropy_estimator_name(EntropyEstimator estimator) noexcept;
EntropyEstimator entropy_estimator_from_name(
    const std::string& name);  ///< throws InvalidArgument with the nearest name

/// What a reported value is worth: "exact" (h itself), "certified" (never above h) or "optimistic" (above d log s_1,
/// and with few steps on an ill-conditioned J even above h: bounds made of it do not hold). The first two but for
/// rounding: training never waits to see whether a sample needs QR, so both are relative to the Gram matrix of columns
/// in the network's precision u, errors of some d cond^2 2^-53 + d u cond; NaN, and training stops, where that matrix
/// is not positive definite. singular_values.h has what knows better. triangular never forms J: its error is that of the
/// layers' sums, and of a square linear layer of condition c some d c 2^-53.
const char* entropy_certificate(EntropyEstimator estimator) noexcept;

struct EntropyConfig {
  EntropyEstimator estimator = EntropyEstimator::exact;
  std::int64_t iterations = 2;  ///< lobpcg: steps, each one J r and one J^T w
  /// lobpcg: steps of one batch start where those of the batch before ended, row by row; false: from fresh normals.
  bool warm_start = false;
  /// exact, min_singular: samples whose d tangents are sent through the generator at a time. The activations of the
  /// others need no memory, the derivative sends them again. 0: as many tangents as fit in 256 MiB, all if they do.
  std::int64_t chunk = 0;
};

/// Products with J and with J^T per sample for the estimate and its derivative, d latents: exact 2 d, min_singular d +
/// 2, lobpcg 2 K + 3, triangular 0 (they come with the passes of the samples themselves). Where `chunk` leaves samples
/// out, exact sends its d tangents once more.
std::int64_t entropy_passes(const EntropyConfig& config, std::int64_t d) noexcept;

/// One batch sent through a generator in inference mode, and the estimate. Valid until the arena is rewound.
struct EntropyPass {
  PrimalPass primal;  ///< G(z): primal.output() [n, D]
  Tensor value;       ///< h or what stands for it [n]
  Tensor jacobian;    ///< exact, min_singular: [n d, D], row i d + k = column k of J_i

  // Not of triangular, whose log-volume the primal pass carries. For any parameter or latent coordinate a,
  // dh/da = <C, d(J V)/da> with the tangents V of `tangents` and C =
  // `cotangents` [n K, D]. Where the tangents went through in portions V are the coordinate directions, sent again.
  TangentPass tangents;
  Tensor cotangents;
  std::int64_t tangent_bytes = 0;  ///< of a portion; 0: `tangents` holds all
};

/// Computes G(z) and the estimate for z [n, d]; d <= D is required (InvalidArgument). `direction` [n, d]: where lobpcg
/// starts, and on return the direction it ended with; other estimators do not use it.
void entropy_forward(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                     const ParameterSet& parameters, Tensor z, const EntropyConfig& config, Tensor direction = {});

/// The derivative of <cotangent, G(z)> + factor sum_i h_i in what `request` names of parameters and latents
/// (grad_tangent_input is refused). `cotangent` [n, D] may be absent (zero); it may be overwritten.
void entropy_reverse(Ops& ops, Arena& arena, const EntropyPass& pass, const Network& generator, Tensor cotangent,
                     double factor, const ReverseRequest& request);

/// y_i = J_i v_i; y [n, D], v [n, d].
void jacobian_product(Ops& ops, Arena& arena, Tensor y, const EntropyPass& pass, const Network& generator, Tensor v);

/// y_i = J_i v_i and score_dot_i = <s(z_i), v_i> with the score s of entropy_score; y [n, D], score_dot [n], v [n, d].
/// Triangular: one tangent per sample, no reverse pass.
void entropy_probe(Ops& ops, Arena& arena, Tensor y, Tensor score_dot, const EntropyPass& pass,
                   const Network& generator, Tensor v);

/// score [n, d] = grad_z (|z|^2 / 2 + h(z)), the negative gradient of the pulled-back log-density of generated points.
void entropy_score(Ops& ops, Arena& arena, Tensor score, const EntropyPass& pass, const Network& generator);

}  // namespace bracket
