// Stochastic estimates of traces and log-determinants of A = J^T J, per sample, by products with J and J^T only.
//
// With probes v, E[v v^T] = I, tr f(A) = E[v^T f(A) v] (Girard 1989; Hutchinson 1990). v^T f(A) v comes from k steps of
// Golub-Kahan started with v: k-point Gauss quadrature of the spectral measure of v (Golub and Meurant 2010; stochastic
// Lanczos quadrature: Ubaru, Chen and Saad 2017), exact for k = d. The error of the rule has the sign of the 2k-th
// derivative of f: for log and powers in (0, 1) Gauss never is below v^T f(A) v, for negative powers never above. The
// Gauss-Radau rule that also has a node at 0 < a <= s_1^2 errs to the other side. All of it holds in exact arithmetic,
// and up to a relative rounding of about d u cond in floating point, u the unit roundoff of the operator's dtype.
//
// Rank. Of a J of rank below d rounding leaves a node at some u s_d. One of at most 2 max((4 + sqrt d) u, sqrt(D d)
// 2^-53) times the largest of its rule, the tolerance of all estimators (singular_values.h), counts as zero: log is
// -inf there, a negative power infinite, and `deficient` tells. A full rank whose condition is above that goes the same
// way, with D = d = 128 above 5e5 in single and 3.5e13 in double precision. Rules of few steps whose nodes have not
// come down to s_1 see nothing of it: -inf is over-estimated by something finite then.
//
// Random numbers are functions of (seed, step) and of the place in the block alone, the same on every device.
#pragma once

#include <cstdint>

#include "bracket/jacobian.h"
#include "bracket/spectral_function.h"

namespace bracket {

enum class ProbeKind : std::uint8_t {
  rademacher,  ///< +-1: the least variance of independent entries, 2 sum_{i != j} f(A)_ij^2 per probe
  gaussian,    ///< N(0, I): variance 2 |f(A)|_F^2
  orthogonal,  ///< sqrt(d) times P <= d orthonormal directions, Haar distributed; P = d gives the trace exactly
};

struct ProbeOptions {
  ProbeKind kind = ProbeKind::rademacher;
  std::int64_t count = 8;  ///< P per sample
  std::uint64_t seed = 0;
  std::uint64_t step = 0;  ///< below 2^48; a step of its own for every estimate that should be independent
  /// Device address of a number that is added to `step` when the work runs: what a captured graph counts up between
  /// replays, so that each draws anew.
  const std::int64_t* counter = nullptr;
};

struct Probes {
  ProbeKind kind = ProbeKind::rademacher;
  std::int64_t count = 0;
  Tensor directions;  ///< [n P, d]
};

/// Throws InvalidArgument for count < 1, count > d with orthogonal probes, or a step of 2^48 or more.
Probes make_probes(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const ProbeOptions& options);

/// tr(J^T J) = mean |J v|^2: P products with J. Unbiased; exact for d orthogonal probes. The standard error is s /
/// sqrt(P), s^2 the variance of the probes' values with divisor P - 1, infinite for P = 1; orthogonal probes: times
/// sqrt(1 - P / d), exchangeable as they are with a sum that is no longer random at P = d. So below too, but that the
/// factor is 1 where fewer than d steps leave the sum random.
JacobianEstimate hutchinson_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Probes& probes);

struct TraceEstimate : JacobianEstimate {
  /// f64[n], positive where a singular value that counts as zero was met, 0 elsewhere: the share of the probes, or of
  /// the directions and that of the probes, which met one.
  Tensor deficient;
};

struct QuadratureOptions {
  std::int64_t steps = 20;  ///< k; min(k, d) are taken
  /// f64[n], certified: 0 < a_i <= s_1^2 of sample i. Present: Gauss-Radau with that node, and no other node counts as
  /// zero, however small. Where a_i is found to lie inside the spectrum the rule gets a node at 0 instead (log: -inf,
  /// still a lower bound), which is reported in `deficient`.
  Tensor lower_end = {};
};

/// tr f(J^T J) by k products with J and k - 1 (Gauss-Radau: k) with J^T per probe, 2 launches of vector algebra per
/// step. Certificate: exact for k >= d with d orthogonal probes; unbiased for k >= d; with d orthogonal probes the
/// certified side of the rule; else optimistic or pessimistic, biased to the side of the rule. Nodes and their weights
/// cost some k^2 operations per probe (kernels/formula/bidiagonal_qr.h), nodes of B to 30 k 2^-53 of themselves; NaN
/// where that does not converge. Memory: n P k d elements for the directions, 3 n P k doubles at the end.
TraceEstimate trace_of_function(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const SpectralFunction& f,
                                const Probes& probes, const QuadratureOptions& options = {});

struct StochasticVolumeOptions {
  QuadratureOptions quadrature = {};
  double tolerance = 1e-6;       ///< of conjugate gradients: |v - A x| <= tolerance |v|, in [0, 1)
  std::int64_t iterations = 50;  ///< at most, each one product with J and one with J^T a probe; 0: no derivative
  /// Asks the device after every iteration whether all are done, and waits for it. Otherwise all iterations run, those
  /// of a probe that is done without effect.
  bool stop_early = true;
  /// Symmetric positive definite [d, d] of the operator's dtype, for all samples; see shared_preconditioner in
  /// singular_values.h. Absent: none.
  Tensor preconditioner = {};
};

struct StochasticVolumeEstimate : TraceEstimate {
  Tensor residual;              ///< |v - A x| f64[n P], computed from x; |v| = sqrt(d) or so
  std::int64_t iterations = 0;  ///< that ran
};

/// h = 1/2 log det(J^T J) = 1/2 tr log(J^T J) by trace_of_function, and its derivative with the same probes: V = v_p, C
/// = J x_p / P, x_p = (J^T J)^-1 v_p by conjugate gradients (Hestenes and Stiefel 1952; curvature |J p|^2), one launch
/// per iteration behind one product with J and one with J^T; with a preconditioner T a product with T and a second
/// launch. Convergence then goes by the condition of T A, to the same x_p. <C, d(J V)> is an unbiased estimate of dh
/// where x_p has converged, whatever the bias of the value. The tolerance is asked of |v - A x|, with a preconditioner
/// too, as the recurrence knows it; that falls on where rounding stalls the true one (in f32 near cond^2 2^-24): read
/// `residual`, for which one more product with J^T is made. C = 0 for samples with `deficient` > 0. A probe with
/// r^T T r <= 0, which no positive definite T has, stays where it is. Throws InvalidArgument for d > D, and for shapes
/// or options out of range.
StochasticVolumeEstimate stochastic_log_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                               const Probes& probes, const StochasticVolumeOptions& options = {});

struct RouletteOptions {
  std::int64_t certain = 4;        ///< steps that every probe takes
  std::int64_t maximum = 1 << 20;  ///< steps at most; never more than d, nor any of probability below 2^-60
  double survival = 0.5;           ///< probability of every further step, in [2^-20, 1]
  /// Runs min(maximum, d) steps whatever is drawn, so that the work is the same for every seed. Otherwise the largest
  /// number drawn for any probe of the batch; values differ by nothing.
  bool all_steps = false;
  std::uint64_t seed = 0;
  std::uint64_t step = 0;                 ///< below 2^48
  const std::int64_t* counter = nullptr;  ///< as of ProbeOptions; needs all_steps, for the host does not know it
};

/// h without the bias of few steps: with h_k the Gauss estimate of k steps and N = certain + a geometric number,
///   h_certain + sum_{k = certain + 1}^{min(N, maximum)} (h_k - h_{k-1}) / P(N >= k)
/// has the expectation of h_maximum (Russian roulette: Forsythe and Leibler 1950; Lyne et al. 2015), which is v^T
/// log(A) v / 2 for maximum >= d: unbiased (where d steps can be drawn: survival^(d - certain) >= 2^-60). The variance
/// grows with the bias that is left at `certain` steps, and what corrects a large one comes in few, large draws: the
/// mean of few stays near h_certain, outside its standard error. All probes take the same number of steps, those that
/// need fewer without effect. The rules of all T numbers of steps up to k are computed at once, in O(T k^2) operations
/// and 3 n P T k doubles. No derivative: take that of stochastic_log_volume. Throws InvalidArgument for d > D, and for
/// options out of range.
TraceEstimate roulette_log_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Probes& probes,
                                  const RouletteOptions& options = {});

struct LowRankOptions {
  std::int64_t directions = 8;  ///< R <= d, of the range that is traced exactly
  std::int64_t probes = 8;      ///< of the rest (Hutch++)
  std::uint64_t seed = 0;
  std::uint64_t step = 0;                         ///< below 2^48
  const std::int64_t* counter = nullptr;          ///< as of ProbeOptions
  SpectralFunction function = power_function(1);  ///< f
  std::int64_t steps = 20;                        ///< k, for f(A) x; min(k, d) are taken, none for f(A) = A
};

/// tr f(A), A = J^T J, Hutch++ (Meyer, Musco, Musco and Woodruff 2021): Q = orth(f(A) X), X of R signs, tr(Q^T f(A) Q)
/// exactly and the trace of (I - Q Q^T) f(A) (I - Q Q^T) by `probes` Rademacher probes. f(A) = A: 2 R + probes products
/// with J, R with J^T. Else f(A) x ~ |x| V_k f(B^T B) e_1 by k Golub-Kahan steps and quadratic forms by their Gauss
/// rules: k (2 R + probes) products with J, k - 1 for every k of them with J^T. Memory: k n R d elements, 2 n R k^2
/// doubles.
///
/// Unbiased for f(A) = A and for k >= d; exact where f(A) has rank R or less besides. Any Q is as right as another, so
/// that f(A) X of few steps costs variance only; quadratic forms of few steps bias the estimate to the side of their
/// rule, as trace_of_function. Q of a J short of rank leaves out where f is infinite; the quadratic forms do not.
/// Throws InvalidArgument for R outside [1, d], probes < 1 or steps < 1.
TraceEstimate hutch_plus_plus_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                    const LowRankOptions& options = {});

/// tr f(A), XTrace (Epperly, Tropp and Webber 2024): as Hutch++ with X of R normal probes (signs of few dimensions may
/// depend on one another, which would bias it), every probe in turn playing the rest for the range of the R - 1 others;
/// the mean of these R exchangeable estimates. The standard error s / sqrt(R) treats them
/// as independent, which they are not: it tends to be too small as R nears d. f(A) = A: 2 R products with J, R with
/// J^T. Else 2 R k and 2 R (k - 1).
///
/// Unbiased for f(A) = A and for k >= d; exact where f(A) has rank R - 1 or less besides. With few steps the products
/// <q, f(A) x> have errors of either sign (`biased`); the forms <x, f(A) x> are those of the Gauss rule.
TraceEstimate exchangeable_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                 const LowRankOptions& options = {});

}  // namespace bracket
