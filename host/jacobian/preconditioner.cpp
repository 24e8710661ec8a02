#include <cmath>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/core/text.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// sum [1, d d] = the mean of the Gram matrices [n, d d] that are finite; their number.
std::int64_t finite_mean(Ops& ops, Arena& arena, const Tensor& mean, const Tensor& grams) {
  const std::int64_t mark = arena.mark(), n = grams.rows();
  const Tensor norms = arena.allocate(DType::f64, {n}), weights = arena.allocate(DType::f64, {1, n});
  ops.fill(mean, 0);
  ops.row_norm(norms, grams);
  const std::vector<double> sizes = read_values(ops, norms);
  const auto usable = [&](std::int64_t i) { return std::isfinite(sizes[static_cast<std::size_t>(i)]); };
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) count += usable(i) ? 1 : 0;
  ops.fill(weights, 1 / static_cast<double>(count == 0 ? 1 : count));
  for (std::int64_t first = 0; first < n;) {
    std::int64_t end = first;
    while (end < n && usable(end)) ++end;
    if (end > first)
      ops.linear_reverse_data(mean, weights.slice_cols(first, end - first), grams.slice_rows(first, end - first),
                              Update::accumulate);
    first = end > first ? end : first + 1;
  }
  arena.rewind(mark);
  return count;
}

}  // namespace

Tensor shared_preconditioner(Ops& ops, Arena& arena, const JacobianOperator& jacobian, double ridge) {
  if (!(ridge >= 0) || !std::isfinite(ridge))
    throw InvalidArgument("shared_preconditioner: ridge is " + format_number(ridge) +
                          ", must be finite and not negative");
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  const Tensor result = arena.allocate(jacobian.dtype(), {d, d});
  const std::int64_t mark = arena.mark();
  const Tensor grams = arena.allocate(DType::f64, {n, d, d}), mean = arena.allocate(DType::f64, {1, d, d});
  const Tensor inverse = arena.allocate(DType::f64, {d, d}), volume = arena.allocate(DType::f64, {1});
  jacobian_gram(ops, arena, grams, jacobian);
  const std::int64_t used = finite_mean(ops, arena, mean.reshaped({1, d * d}), grams.reshaped({n, d * d}));
  ops.tile_identity(inverse, 1);
  ops.axpy(mean.reshaped({d, d}), ridge, inverse);
  ops.cholesky(mean);
  ops.log_diagonal_sum(volume, mean);
  if (!ops.planning()) {
    if (used == 0)
      throw Diverged(
          "shared_preconditioner: none of " + std::to_string(n) + " Jacobians has finite elements only; it needs one",
          "jacobian", 0);
    if (!std::isfinite(read_values(ops, volume)[0]))
      throw Diverged("shared_preconditioner: the mean of J^T J over " + std::to_string(used) + " Jacobians and ridge " +
                         format_number(ridge) + " is not positive definite; raise the ridge",
                     "jacobian", 0);
  }
  ops.triangular_solve(inverse, mean, inverse, false);
  ops.triangular_solve(inverse, mean, inverse, true);
  ops.copy(result, inverse);
  arena.rewind(mark);
  return result;
}

}  // namespace bracket
