// Golub-Kahan bidiagonalisation of a Jacobian from several directions per sample.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bracket/jacobian.h"
#include "kernels/ops.h"

namespace bracket {

/// J V = U B per row of the start; see kernels/ops.h. K = the capacity.
struct Bidiagonalization {
  Tensor basis;  ///< [m K, d]
  Tensor alpha;  ///< f64[m, K]
  Tensor beta;   ///< f64[m, K]; the last column only where it was asked for
  Tensor norm;   ///< f64[m], of the start
  std::int64_t steps = 0;
};

/// Direction `step` of every row.
inline Tensor basis_rows(const Bidiagonalization& b, std::int64_t step) {
  const std::int64_t k = b.alpha.cols(), d = b.basis.cols();
  auto* const first = static_cast<std::byte*>(b.basis.data()) + step * d * dtype_bytes(b.basis.dtype());
  return Tensor::matrix(first, b.basis.dtype(), b.alpha.rows(), d, k * d);
}

/// `capacity` steps (1 to d) from the rows of start [n P, d]; ends early when done(steps so far) is true. With `last`
/// the superdiagonal element behind the last step is computed too, which costs one more product with J^T.
template <class Done>
Bidiagonalization bidiagonalize(Ops& ops, Arena& arena, JacobianPasses& passes, const JacobianOperator& jacobian,
                                const Tensor& start, std::int64_t capacity, bool last, const Done& done) {
  const DType dtype = jacobian.dtype();
  const std::int64_t m = start.rows(), d = jacobian.inputs(), columns = m == 0 ? 0 : m / jacobian.samples();
  Bidiagonalization b;
  b.basis = arena.allocate(dtype, {m * capacity, d});
  b.alpha = arena.allocate(DType::f64, {m, capacity});
  b.beta = arena.allocate(DType::f64, {m, capacity});
  b.norm = arena.allocate(DType::f64, {m});
  ops.fill(b.basis, 0);
  ops.fill(b.beta, 0);
  ops.normalize_rows(basis_rows(b, 0), b.norm, start);
  const std::int64_t mark = arena.mark();
  const Tensor u = arena.allocate(dtype, {m, jacobian.outputs()}), jv = arena.allocate(dtype, {m, jacobian.outputs()});
  const Tensor w = arena.allocate(dtype, {m, d});
  while (b.steps < capacity) {
    const std::int64_t k = b.steps++;
    jacobian.apply(ops, arena, jv, basis_rows(b, k));
    passes.apply += columns;
    ops.golub_kahan_left(u, b.alpha, jv, b.beta, k);
    if (k + 1 == capacity && !last) break;
    jacobian.apply_transpose(ops, arena, w, u);
    passes.transpose += columns;
    ops.golub_kahan_right(b.basis, b.beta, w, b.alpha, k);
    if (done(b)) break;
  }
  arena.rewind(mark);
  return b;
}

/// Singular values f64[m, k] of the leading k x k block of B, ascending, and its right singular vectors f64[m, k, k].
struct SmallFactors {
  Tensor values;
  Tensor vectors;
};

inline SmallFactors factor_bidiagonal(Ops& ops, Arena& arena, const Bidiagonalization& b, std::int64_t k) {
  const std::int64_t m = b.alpha.rows();
  SmallFactors factors;
  factors.values = arena.allocate(DType::f64, {m, k});
  factors.vectors = arena.allocate(DType::f64, {m, k, k});
  const std::int64_t mark = arena.mark();
  const Tensor a = arena.allocate(DType::f64, {m, k, k});
  ops.bidiagonal(a, b.alpha, b.beta);
  ops.singular_values(factors.values, factors.vectors, a);
  arena.rewind(mark);
  return factors;
}

}  // namespace bracket
