// Multiples of tensors by the ops that there are.
#pragma once

#include "kernels/ops.h"

namespace bracket {

/// y = alpha x
inline void scale_into(Ops& ops, const Tensor& y, double alpha, const Tensor& x) {
  ops.fill(y, 0);
  ops.axpy(y, alpha, x);
}

/// alpha x of a matrix: x itself for alpha = 1, else new memory.
inline Tensor scaled(Ops& ops, Arena& arena, double alpha, const Tensor& x) {
  if (alpha == 1) return x;
  const Tensor y = arena.allocate(x.dtype(), {x.rows(), x.cols()});
  scale_into(ops, y, alpha, x);
  return y;
}

}  // namespace bracket
