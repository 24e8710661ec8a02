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

/// Column `which` of x [n, c], contiguous.
Tensor column(Ops& ops, Arena& arena, const Tensor& x, std::int64_t which) {
  const Tensor y = arena.allocate(x.dtype(), {x.rows()});
  ops.copy(y.reshaped({x.rows(), 1}), x.slice_cols(which, 1));
  return y;
}

/// The residual of the smallest Ritz triplet of k steps is beta_{k-1} times the last component of its left vector,
/// alpha_{k-1} x_{k-1} / s (Golub and Kahan 1965).
bool ritz_pairs_near(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Bidiagonalization& b,
                     double tolerance) {
  const std::int64_t mark = arena.mark(), n = b.alpha.rows(), k = b.steps;
  const SmallFactors factors = factor_bidiagonal(ops, arena, b, k);
  const auto read = [&](const Tensor& x, std::int64_t which) { return read_values(ops, column(ops, arena, x, which)); };
  const std::vector<double> smallest = read(factors.values, 0), largest = read(factors.values, k - 1);
  const std::vector<double> last = read(factors.vectors.reshaped({n, k * k}), k - 1);
  const std::vector<double> alpha = read(b.alpha, k - 1), beta = read(b.beta, k - 1);
  arena.rewind(mark);
  std::vector<double> distance;
  for (std::size_t i = 0; i < smallest.size(); ++i) {
    const double s = smallest[i], residual = s == 0 ? 0 : std::abs(beta[i] * alpha[i] * last[i]) / s;
    distance.push_back(formula::nearest_distance(s, residual));
  }
  return !ops.planning() && all_near(jacobian, distance, smallest, largest, tolerance);
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
    return options.tolerance > 0 && b.steps % kStepsPerTest == 0 &&
           ritz_pairs_near(ops, arena, jacobian, b, options.tolerance);
  };
  const Bidiagonalization b =
      bidiagonalize(ops, arena, estimate.passes, jacobian, direction, std::min(options.steps, d), false, done);
  estimate.steps = b.steps;
  const SmallFactors factors = factor_bidiagonal(ops, arena, b, b.steps);
  combine(ops, arena, direction, b, factors, 0);
  combine(ops, arena, top, b, factors, b.steps - 1);
  arena.rewind(mark);
  const SingularPair pair = certify(ops, arena, estimate.passes, jacobian, top, 1);
  ops.copy(estimate.largest, pair.value);
  ops.copy(estimate.largest_distance, pair.distance);
  arena.rewind(mark);
  finish_estimate(ops, arena, jacobian, direction, estimate);
  return estimate;
}

}  // namespace bracket
