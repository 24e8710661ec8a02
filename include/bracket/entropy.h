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
  exact,         ///< h itself: fp64 Gram matrix of all d tangents and its Cholesky factor
  min_singular,  ///< d log s_1 <= h from the smallest singular value s_1 of J, by a dense symmetric eigen-solve
};

const char* entropy_estimator_name(EntropyEstimator estimator) noexcept;  ///< "exact", "min_singular"
EntropyEstimator entropy_estimator_from_name(
    const std::string& name);  ///< throws InvalidArgument with the nearest name

/// One batch sent through a generator in inference mode. For any parameter or latent coordinate a,
/// dh/da = <C, d(J V)/da>: V are the tangents of `tangents`, C = `cotangents`. Valid until the arena is rewound.
struct EntropyPass {
  PrimalPass primal;     ///< G(z): primal.output() [n, D]
  TangentPass basis;     ///< the d coordinate directions; basis.output() [n d, D], row i d + k = column k of J_i
  TangentPass singular;  ///< min_singular: the direction v_1 per sample
  EntropyEstimator estimator = EntropyEstimator::exact;
  Tensor value;       ///< h or its lower bound [n]
  Tensor cotangents;  ///< C [n K, D]
  const TangentPass& tangents() const { return estimator == EntropyEstimator::exact ? basis : singular; }
};

/// Computes G(z), J and the estimate for z [n, d]; d <= D is required (InvalidArgument).
void entropy_forward(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                     const ParameterSet& parameters, Tensor z, EntropyEstimator estimator);

/// score [n, d] = grad_z (|z|^2 / 2 + h(z)), the negative gradient of the pulled-back log-density of generated points.
void entropy_score(Ops& ops, Arena& arena, Tensor score, const EntropyPass& pass, const Network& generator);

}  // namespace bracket
