#include <algorithm>
#include <cmath>

#include "bracket/singular_values.h"
#include "host/jacobian/bidiagonalization.h"
#include "host/jacobian/certificate.h"
#include "host/jacobian/iteration.h"
#include "kernels/formula/bidiagonal.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// The singular values of B cost k^3 per sample and a wait: not after every step.
constexpr std::int64_t kStepsPerTest = 5;

/// v = the combination of the first k directions by row `which` of the right singular vectors of B.
void combine(Ops& ops, Arena& arena, const Tensor& v, const Bidiagonalization& b, const SmallFactors& factors,
             std::int64_t which) {
  const std::int64_t mark = arena.mark(), n = v.rows(), k = factors.values.cols(), capacity = b.alpha.cols();
  const Tensor weights = arena.allocate(v.dtype(), {n, capacity});
  ops.fill(weights, 0);
  ops.copy(weights.slice_cols(0, k), factors.vectors.reshaped({n, k * k}).slice_cols(which * k, k));
  ops.combine_tangents(v, b.basis, weights);
  arena.rewind(mark);
}

/// The residual of the smallest Ritz triplet of k steps is beta_{k-1} times the last component of its left vector,
/// alpha_{k-1} x_{k-1} / s (Golub and Kahan 1965).
bool ritz_pairs_near(Ops& ops, Arena& arena, const Bidiagonalization& b, double tolerance) {
  const std::int64_t mark = arena.mark(), k = b.steps;
  const auto capacity = static_cast<std::size_t>(b.alpha.cols()), size = static_cast<std::size_t>(k);
  const SmallFactors factors = factor_bidiagonal(ops, arena, b, k);
  const std::vector<double> values = read_values(ops, factors.values), vectors = read_values(ops, factors.vectors);
  const std::vector<double> alpha = read_values(ops, b.alpha), beta = read_values(ops, b.beta);
  arena.rewind(mark);
  std::vector<double> distance, smallest;
  for (std::size_t i = 0; i * size < values.size(); ++i) {
    const double s = values[i * size], last = vectors[i * size * size + size - 1];
    const std::size_t at = i * capacity + size - 1;
    const double residual = s == 0 ? 0 : std::abs(beta[at] * alpha[at] * last) / s;
    smallest.push_back(s);
    distance.push_back(formula::nearest_distance(s, residual));
  }
  return !ops.planning() && all_near(distance, smallest, tolerance);
}

}  // namespace

GolubKahanEstimate golub_kahan_extremes(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                                        const IterationOptions& options) {
  check_iteration("golub_kahan_extremes", jacobian, direction, 1, options.steps, options.tolerance);
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  GolubKahanEstimate estimate;
  const Tensor top = arena.allocate(jacobian.dtype(), {n, d});
  estimate.largest = arena.allocate(DType::f64, {n});
  estimate.largest_distance = arena.allocate(DType::f64, {n});
  const std::int64_t mark = arena.mark();
  const auto done = [&](const Bidiagonalization& b) {
    return options.tolerance > 0 && b.steps % kStepsPerTest == 0 && ritz_pairs_near(ops, arena, b, options.tolerance);
  };
  const Bidiagonalization b =
      bidiagonalize(ops, arena, estimate.passes, jacobian, direction, std::min(options.steps, d), false, done);
  estimate.steps = b.steps;
  const SmallFactors factors = factor_bidiagonal(ops, arena, b, b.steps);
  combine(ops, arena, direction, b, factors, 0);
  combine(ops, arena, top, b, factors, b.steps - 1);
  arena.rewind(mark);
  finish_estimate(ops, arena, jacobian, direction, estimate);
  const std::int64_t behind = arena.mark();
  const SingularPair pair = certify(ops, arena, estimate.passes, jacobian, top, 1);
  ops.copy(estimate.largest, pair.value);
  ops.copy(estimate.largest_distance, pair.distance);
  arena.rewind(behind);
  return estimate;
}

}  // namespace bracket
