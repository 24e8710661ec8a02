#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/core/text.h"
#include "host/jacobian/requirements.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// |x_i| of `n` rows, or of what makes up so many: of any size as long as they are finite.
std::vector<double> lengths(Ops& ops, Arena& arena, const Tensor& x, std::int64_t n) {
  const std::int64_t mark = arena.mark();
  const Tensor length = arena.allocate(x.dtype(), {n});
  ops.row_norm(length, x.reshaped({n, n == 0 ? 0 : x.size() / n}));
  std::vector<double> result = read_values(ops, length);
  arena.rewind(mark);
  return result;
}

/// Which J_i are finite, by the columns and the Gram matrices of all.
std::vector<bool> finite_samples(Ops& ops, Arena& arena, const Tensor& columns, const Tensor& grams) {
  const std::int64_t n = grams.extent(0);
  const std::vector<double> sizes = lengths(ops, arena, columns, n), squares = lengths(ops, arena, grams, n);
  std::vector<bool> result;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    result.push_back(std::isfinite(squares[i]));
    if (!result.back() && std::isfinite(sizes[i]))
      throw InvalidArgument("shared_preconditioner: J^T J of sample " + std::to_string(i) +
                            " is not finite, though J is: |J| is " + format_number(sizes[i]) + "; scale J");
  }
  return result;
}

/// mean [1, d d] = that of the rows of grams [n, d d] that are `usable`.
void usable_mean(Ops& ops, Arena& arena, const Tensor& mean, const Tensor& grams, const std::vector<bool>& usable) {
  const std::int64_t mark = arena.mark(), n = grams.rows();
  const auto count = std::count(usable.begin(), usable.end(), true);
  const Tensor weights = arena.allocate(DType::f64, {1, n});
  ops.fill(mean, 0);
  ops.fill(weights, 1 / static_cast<double>(std::max<std::ptrdiff_t>(count, 1)));
  for (std::int64_t first = 0; first < n;) {
    std::int64_t end = first;
    while (end < n && usable[static_cast<std::size_t>(end)]) ++end;
    if (end > first)
      ops.linear_reverse_data(mean, weights.slice_cols(first, end - first), grams.slice_rows(first, end - first),
                              Update::accumulate);
    first = end > first ? end : first + 1;
  }
  arena.rewind(mark);
}

double least_normal(DType dtype) { return dtype == DType::f32 ? 0x1p-126 : 0x1p-1022; }
double largest_number(DType dtype) { return dtype == DType::f32 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023; }

/// Of |mean|_F: what keeps T positive definite through the roundings of its elements, u |T|_F <= u sqrt(d) |T|, and of
/// the sums that make it; see the header.
double least_ridge(const JacobianOperator& jacobian) {
  const auto d = static_cast<double>(jacobian.inputs());
  return std::max(10.0, 2 * std::sqrt(d)) * storage_roundoff(jacobian) + 2 * d * 0x1p-53;
}

}  // namespace

Tensor shared_preconditioner(Ops& ops, Arena& arena, const JacobianOperator& jacobian, double ridge) {
  if (!(ridge >= 0) || !std::isfinite(ridge))
    throw InvalidArgument("shared_preconditioner: ridge is " + format_number(ridge) +
                          ", must be finite and not negative");
  const DType dtype = jacobian.dtype();
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  const Tensor result = arena.allocate(dtype, {d, d});
  const std::int64_t mark = arena.mark();
  const Tensor grams = arena.allocate(DType::f64, {n, d, d}), mean = arena.allocate(DType::f64, {1, d, d});
  const Tensor identity = arena.allocate(DType::f64, {d, d}), inverse = arena.allocate(DType::f64, {1, d, d});
  const Tensor number = arena.allocate(DType::f64, {1}), square = mean.reshaped({d, d});
  const std::int64_t made = arena.mark();
  const Tensor columns = arena.allocate(dtype, {n * d, jacobian.outputs()});
  jacobian_columns(ops, arena, columns, jacobian);
  ops.gram(grams, columns);
  const std::vector<bool> usable = finite_samples(ops, arena, columns, grams);
  arena.rewind(made);
  usable_mean(ops, arena, mean.reshaped({1, d * d}), grams.reshaped({n, d * d}), usable);
  ops.row_norm(number, mean.reshaped({1, d * d}));
  const double size = read_values(ops, number)[0], used = std::max(ridge, least_ridge(jacobian) * size);
  ops.tile_identity(identity, 1);
  ops.axpy(square, used, identity);
  ops.cholesky(mean);
  ops.log_diagonal_sum(number, mean);
  if (!ops.planning()) {
    if (std::count(usable.begin(), usable.end(), true) == 0)
      throw InvalidArgument("shared_preconditioner: none of " + std::to_string(n) +
                            " Jacobians has finite elements only; it needs one");
    if (!std::isfinite(read_values(ops, number)[0]))
      throw InvalidArgument("shared_preconditioner: the mean of J^T J and ridge " + format_number(ridge) +
                            " is not positive definite; raise the ridge");
    // Of the eigenvalues of T the least is at least, the largest at most:
    const double least = 1 / (size + used), most = 1 / used;
    if (!(least >= least_normal(dtype) && most <= largest_number(dtype)))
      throw InvalidArgument("shared_preconditioner: (J^T J)^-1 of " + format_number(least) + " to " +
                            format_number(most) + " leaves the range of " + dtype_name(dtype) + "; scale J");
  }
  // T = L^-T L^-1, symmetric and without the rounding of a second solve.
  ops.triangular_solve(identity, mean, identity, true);
  ops.gram(inverse, identity);
  ops.copy(result, inverse.reshaped({d, d}));
  arena.rewind(mark);
  return result;
}

}  // namespace bracket
