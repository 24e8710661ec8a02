// The smallest singular value of every sample's Jacobian, by the dense spectrum of its Gram matrix.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace bracket {

struct SmallestSingular {
  Tensor volume;     ///< d log s_1 [n]
  Tensor direction;  ///< its right singular vector v_1 [n, d]
  Tensor scale;      ///< d / s_1^2 [n]
};

/// jacobian [n d, D]: row i d + k is column k of sample i's Jacobian.
inline SmallestSingular smallest_singular(Ops& ops, Arena& arena, const Tensor& jacobian, std::int64_t n,
                                          std::int64_t d) {
  const DType dtype = jacobian.dtype();
  const SmallestSingular result{arena.allocate(dtype, {n}), arena.allocate(dtype, {n, d}), arena.allocate(dtype, {n})};
  const Tensor gram = arena.allocate(DType::f64, {n, d, d});
  const Tensor values = arena.allocate(DType::f64, {n, d});
  const Tensor vectors = arena.allocate(DType::f64, {n, d, d});
  ops.gram(gram, jacobian);
  ops.symmetric_eigen(values, vectors, gram);
  ops.min_singular(result.volume, result.direction, result.scale, values, vectors);
  return result;
}

}  // namespace bracket
