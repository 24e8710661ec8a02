// Deterministic estimates from a Jacobian's singular values s_1 <= ... <= s_d, per sample, d <= D: with d > D the
// smallest is 0 whatever J is, and every estimate here throws InvalidArgument.
//
// The log-volume h = 1/2 log det(J^T J) = sum_k log s_k (nats). d log s_1 <= h, and every |J v| / |v| is between s_1
// and s_d. A residual r = |J^T u - mu v| of a unit vector v with mu = |J v|, u = J v / mu tells how near the NEAREST
// singular value is: min_k |s_k - mu| <= min(r / sqrt 2, mu - sqrt(mu^2 - mu r), mu). It says nothing about which one
// that is, hence nothing about s_1. It is the residual of v as stored: rounding the elements of v to u, the unit
// roundoff of the operator's dtype, alone makes it u s_d^2 / mu; computing it adds as much again, for J^T J v is as
// good as u s_d^2: in single precision at condition 1e4 distances below some 1e-3 s_d are rounding.
//
// Rank. Of a J of rank below d an iteration finds some u s_d, never 0. Every estimator, those of trace_estimators.h
// included, counts as zero what is at most
//   2 max((4 + sqrt d) u, sqrt(D d) 2^-53)
// times the largest singular value, of all or of those it has seen: a log-volume is -inf then, C = 0, and `deficient`
// tells. mu is left as it was found. A full rank whose condition is above that goes the same way, with D = d = 128
// above 5e5 in single and 3.5e13 in double precision: rounding of the products leaves little of such an s_1. What an
// iteration has seen is <= s_d, by few steps less than by many: what is short of rank may pass for full rank by it.
// What has not converged to s_1 has no word on the rank.
#pragma once

#include <cstdint>

#include "bracket/jacobian.h"

namespace bracket {

struct ExactOptions {
  bool spectrum = false;   ///< all singular values
  bool derivative = true;  ///< V and C
  /// A sample goes from the Cholesky factor of its Gram matrix to the Householder QR of J where |L|_F |L^-1|_F, between
  /// the condition number s_d / s_1 and d times it, exceeds this, 2^26 or 1 / rank_tolerance, where the factorisation
  /// fails, or where |J|_F leaves [2^-450, 2^500], whose squares a Gram matrix holds. 0: all samples.
  double qr_condition = 1e6;
  /// s_k <= rank_tolerance s_d counts as zero (QR samples only). Negative: the tolerance of all estimators, see above.
  double rank_tolerance = -1;
  /// Doubles that the test of conditions and the QR path hold at a time, but never fewer than one sample's.
  std::int64_t working_bytes = std::int64_t{256} << 20;
};

struct ExactEstimate : JacobianEstimate {
  Tensor spectrum;              ///< f64[n, d] ascending; absent where not asked for
  std::int64_t by_qr = 0;       ///< samples that took the QR path
  std::int64_t deficient = 0;   ///< samples of rank below d: value -inf, no derivative (C = 0)
  std::int64_t not_finite = 0;  ///< samples with a NaN or infinity in J: value NaN
};

/// h by d products, the Gram matrix in double and its Cholesky factor L, J^T J = L L^T; V = I, C = J (J^T J)^-1 from
/// two triangular solves. Error of h up to about d cond^2 2^-53, of the QR path (L Q = J^T, C^T = L^-T Q) d cond 2^-53;
/// singular values are those of L by one-sided Jacobi (Demmel and Veselic 1992). All of it is relative to the columns
/// that the products return: those of a network in precision u are good to about u s_d, which adds sum_k u s_d / s_k <=
/// d u cond. J of any size whose elements are normal numbers. Memory: 2 n d D elements and some 3 n d^2 doubles, of
/// which n d D stay with the derivative and none without, and twice `working_bytes`. Waits, to learn which samples need
/// QR. Throws InvalidArgument for d > D (J^T J is singular), d > 4096, or an option out of range.
ExactEstimate exact_log_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                               const ExactOptions& options = {});

/// d log s_1 <= h, certified; V = v_1, C = d J v_1 / s_1^2 (v_1 needs no derivative where s_1 is simple). As
/// exact_log_volume otherwise; the value is d log |J v_1| of one more product, which corrects s_1 to second order.
ExactEstimate exact_smallest_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                    const ExactOptions& options = {});

/// Of golub_kahan_extremes.
struct IterationOptions {
  std::int64_t steps = 2;  ///< at most; no more than d are taken
  /// 0: exactly `steps`, nothing waits. Else the iteration ends when distance <= tolerance mu for every sample, which
  /// is read from the device every 5 steps.
  double tolerance = 0;
};

struct SingularEstimate : JacobianEstimate {
  Tensor singular_value;  ///< mu f64[n] >= s_1
  Tensor distance;        ///< f64[n], upper bound of min_k |s_k - mu|
  Tensor deficient;       ///< f64[n]: singular values found that count as zero
  Tensor largest;         ///< f64[n] <= s_d: the largest that was seen
  std::int64_t steps = 0;
};

struct LobpcgOptions {
  /// The value after few of them depends on how v was found, which its derivative with v held does not know: of LOBPCG
  /// on 64 operators of 8 inputs and condition 10 it misses, in the median, 52, 65 and 60 % of the derivative of the
  /// value after 1, 2 and 4 steps, 0.015 % after 32 (kernels/README.md, "Derivatives").
  std::int64_t steps = 2;
  /// 0: exactly `steps`, nothing waits. Else the iteration ends when distance <= tolerance mu for every value of every
  /// sample, which is read from the device before every step. Where a step gains less of mu^2 than rounding of J v, 4 u
  /// mu s_d, the iteration stands still: at a distance of up to 2 sqrt(u) (s_d / mu)^1.5 mu, below which no tolerance
  /// is reached. What counts as zero has converged.
  double tolerance = 0;
  /// Directions per sample b: 1 to 4 and d at most. One direction finds a multiple singular value once, and where s_2
  /// is close to s_1 it converges as slowly as they are close; with b of them (s_1^2, s_{b+1}^2) takes the place of
  /// (s_1^2, s_2^2) in its rate. b products per step go through J together.
  std::int64_t block = 1;
  /// Symmetric positive definite [d, d] of the operator's dtype, for all samples; see shared_preconditioner. Absent:
  /// none.
  Tensor preconditioner = {};
};

struct LobpcgEstimate : SingularEstimate {
  Tensor ritz_values;     ///< f64[n, b] ascending, the first singular_value: value k >= s_k
  Tensor ritz_distances;  ///< f64[n, b] to the singular value nearest to each
};

/// value = d log mu, optimistic as an estimate of d log s_1, and with few steps on an ill-conditioned J even above h. V
/// = v, C = d J v / |J v|^2: v is held constant in the derivative. mu that counts as zero: value -inf, C = 0; an
/// element that is not finite: NaN. `largest` is the largest |J x| / |x| in the spans of v, residual and update that
/// the steps have searched. mu and value hold for singular values of any size; distance is NaN where s_d^2 overflows in
/// storage, C where d / mu^2 is no normal number of the dtype. Steps work on squares, J^T J v in storage and <J x, J y>
/// in double: with every s_k between 1e-145 and 1e150 in double precision, 1e-18 and 1e18 in single, they owe nothing
/// to the size; below they gain nothing where s_d^2 underflows, and end in NaN where it overflows.
///
/// LOBPCG (Knyazev 2001; kernels/formula/rayleigh_ritz.h, block_ritz.h). direction [n b, d], row i b + k direction k of
/// sample i: where it starts (random normals, or where the last batch ended; of a length whose square and inverse
/// square are numbers of the dtype where b = 1), and on return v, orthonormal and by
/// ascending mu for b > 1. With b > 1 or a preconditioner the start is made orthonormal first (3 launches); what
/// depends on directions before it is then replaced. V and C are those of the first.
///
/// Columns sent through J: b (1 + steps), through J^T: b steps, then b of each for mu and the residuals; b more through
/// J^T where a tolerance ends the iteration, which looks at a product of the step that is not taken. 2 launches of
/// vector algebra per step, with a preconditioner 4 (the residuals times it, made orthogonal to the v of their sample);
/// one more with a tolerance. Throws InvalidArgument for shapes, steps, a tolerance or a block out of range.
LobpcgEstimate lobpcg_smallest(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                               const LobpcgOptions& options = {});

/// T = (M + r I)^-1 [d, d], M = mean_i J_i^T J_i, computed in double, stored in the operator's dtype: the residuals r^T
/// T instead of r^T for every sample. Samples with an element that is not finite are left out. r is `ridge`, but at
/// least
///   (max(10, 2 sqrt d) u + 2 d 2^-53) |M|_F,
/// which keeps the condition of T below 0.1 / u, and T positive definite where its elements are rounded: those
/// roundings are u |T|_F <= u sqrt(d) / r at most, the least eigenvalue of T 1 / (|M| + r). In single precision
/// directions below some 1e-3 s_d are then turned like those of 1e-3 s_d.
///
/// It helps where the J_i^T J_i are alike, singular vectors included: T makes one matrix of a small condition of all of
/// them, and the steps no longer grow with s_d / s_1. With d = 64, condition 1e3, eight samples whose s_k differ by
/// tenths, T of the first two and s_1^2 as the ridge it takes 27 to 29 steps to a tolerance of 1e-3, where 6,000
/// without T do not get there. Where samples share their singular values only, the mean knows nothing of anyone's small
/// ones. It costs d products per sample, as much as the exact estimate: make it of a few samples, or once for the many
/// batches of parameters that change slowly (any positive definite T is right, a poor one is only slower). ridge (the
/// unit of s^2) keeps directions that the mean hardly stretches, by chance of the few samples, from drowning the
/// others.
///
/// Memory: n d D elements and n d^2 doubles meanwhile. Waits. Throws InvalidArgument for a ridge that is negative or
/// not finite, where no sample is finite, where M + r I is not positive definite (M = 0 and no ridge), and where a
/// J_i^T J_i or the eigenvalues of T leave the range of their type (s_k of 1e20 in single precision).
Tensor shared_preconditioner(Ops& ops, Arena& arena, const JacobianOperator& jacobian, double ridge);

struct GolubKahanEstimate : SingularEstimate {
  Tensor largest_distance;  ///< f64[n], from `largest` to the singular value nearest to it
};

/// As lobpcg_smallest, from the singular values of the bidiagonal B of k Golub-Kahan steps: the extreme Ritz vectors of
/// the whole Krylov space of J^T J, without squaring its condition number. Directions are reorthogonalised in full,
/// twice, images not at all (Simon and Zha 2000; Barlow 2013). Where the Krylov space ends early the iteration goes on
/// with a coordinate direction orthogonal to it, so that k = d steps find every singular value, multiple ones included.
/// k products with J and k - 1 with J^T, then two of each. 2 launches per step: one behind each product. `largest` is
/// |J v| of the Ritz vector of the largest value. Singular values of any size are found; distances are NaN where s_d^2
/// overflows in storage. Memory: n k d elements for the directions, 2 n k^2 doubles for the Ritz vectors at the end,
/// and at every test of a tolerance.
GolubKahanEstimate golub_kahan_extremes(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                                        const IterationOptions& options = {});

}  // namespace bracket
