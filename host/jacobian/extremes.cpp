#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/core/text.h"
#include "host/jacobian/bidiagonalization.h"
#include "host/jacobian/certificate.h"
#include "kernels/formula/bidiagonal.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// The singular values of B cost k^3 per sample and a wait: not after every step.
constexpr std::int64_t kStepsPerTest = 5;

void check(const char* what, const JacobianOperator& jacobian, const Tensor& direction,
           const IterationOptions& options) {
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  if (direction.rank() != 2 || direction.rows() != n || direction.cols() != d || direction.dtype() != jacobian.dtype())
    throw InvalidArgument(std::string(what) + ": direction is " +
                          (direction.absent() ? "absent" : direction.describe()) + "; must be " +
                          dtype_name(jacobian.dtype()) + "[" + std::to_string(n) + ", " + std::to_string(d) + "]");
  if (options.steps < 1)
    throw InvalidArgument(std::string(what) + ": steps is " + std::to_string(options.steps) + ", must be at least 1");
  if (!(options.tolerance >= 0 && options.tolerance < 1))
    throw InvalidArgument(std::string(what) + ": tolerance is " + format_number(options.tolerance) +
                          ", must lie in [0, 1)");
}

/// Whether no sample is further than `tolerance` mu from a singular value; one that is not finite never will be nearer.
bool all_near(const std::vector<double>& distance, const std::vector<double>& value, double tolerance) {
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (distance[i] > tolerance * value[i]) return false;
  }
  return true;
}

void finish(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Tensor& direction,
            SingularEstimate& estimate) {
  const SingularPair pair =
      certify(ops, arena, estimate.passes, jacobian, direction, static_cast<double>(jacobian.inputs()));
  estimate.certificate = Certificate::optimistic;
  estimate.value = pair.volume;
  estimate.singular_value = pair.value;
  estimate.distance = pair.distance;
  estimate.tangents = direction;
  estimate.cotangents = pair.cotangents;
}

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

SingularEstimate lobpcg_smallest(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                                 const IterationOptions& options) {
  check("lobpcg_smallest", jacobian, direction, options);
  const DType dtype = jacobian.dtype();
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs(), outputs = jacobian.outputs();
  SingularEstimate estimate;
  const std::int64_t mark = arena.mark();
  const Tensor p = arena.allocate(dtype, {n, d}), r = arena.allocate(dtype, {n, d});
  const Tensor jv = arena.allocate(dtype, {n, outputs}), jp = arena.allocate(dtype, {n, outputs});
  const Tensor jr = arena.allocate(dtype, {n, outputs}), scale = arena.allocate(dtype, {n});
  const Tensor h = arena.allocate(DType::f64, {n}), mu = arena.allocate(DType::f64, {n});
  const Tensor distance = arena.allocate(DType::f64, {n});
  ops.fill(p, 0);
  ops.fill(jp, 0);
  jacobian.apply(ops, arena, jv, direction);
  ++estimate.passes.apply;
  while (estimate.steps < options.steps) {
    jacobian.apply_transpose(ops, arena, r, jv);
    ++estimate.passes.transpose;
    if (options.tolerance > 0) {
      ops.singular_certificate(h, scale, mu, distance, r, direction, jv, static_cast<double>(d));
      if (!ops.planning() && all_near(read_values(ops, distance), read_values(ops, mu), options.tolerance)) break;
    }
    ops.lobpcg_residual(r, r, direction, jv);
    jacobian.apply(ops, arena, jr, r);
    ++estimate.passes.apply;
    ops.lobpcg_update(direction, p, jv, jp, r, jr);
    ++estimate.steps;
  }
  arena.rewind(mark);
  finish(ops, arena, jacobian, direction, estimate);
  return estimate;
}

GolubKahanEstimate golub_kahan_extremes(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                                        const IterationOptions& options) {
  check("golub_kahan_extremes", jacobian, direction, options);
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
  finish(ops, arena, jacobian, direction, estimate);
  const std::int64_t behind = arena.mark();
  const SingularPair pair = certify(ops, arena, estimate.passes, jacobian, top, 1);
  ops.copy(estimate.largest, pair.value);
  ops.copy(estimate.largest_distance, pair.distance);
  arena.rewind(behind);
  return estimate;
}

}  // namespace bracket
