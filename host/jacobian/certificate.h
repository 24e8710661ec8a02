// What a direction v per sample proves about the singular values of J.
#pragma once

#include "bracket/jacobian.h"
#include "host/jacobian/requirements.h"
#include "kernels/ops.h"

namespace bracket {

struct SingularPair {
  Tensor volume;      ///< dimension log mu, f64[n]
  Tensor value;       ///< mu = |J v| / |v|, f64[n]
  Tensor distance;    ///< f64[n], upper bound of min_k |s_k - mu|
  Tensor cotangents;  ///< [n, D]: dimension J v / |J v|^2
  Tensor deficient;   ///< f64[n]: 1 where mu counts as zero; absent without `largest`
};

/// One product with J, one with J^T: the value owes nothing to the rounding of the iteration that found v. With
/// `largest` f64[n], mu counts as zero where rounding hides what is so much smaller: volume -inf, cotangents 0.
inline SingularPair certify(Ops& ops, Arena& arena, JacobianPasses& passes, const JacobianOperator& jacobian,
                            const Tensor& v, double dimension, const Tensor& largest = {}) {
  const std::int64_t n = jacobian.samples();
  SingularPair pair;
  pair.volume = arena.allocate(DType::f64, {n});
  pair.value = arena.allocate(DType::f64, {n});
  pair.distance = arena.allocate(DType::f64, {n});
  if (!largest.absent()) pair.deficient = arena.allocate(DType::f64, {n});
  pair.cotangents = arena.allocate(jacobian.dtype(), {n, jacobian.outputs()});
  const std::int64_t mark = arena.mark();
  const Tensor w = arena.allocate(jacobian.dtype(), {n, jacobian.inputs()});
  const Tensor scale = arena.allocate(jacobian.dtype(), {n});
  jacobian.apply(ops, arena, pair.cotangents, v);
  jacobian.apply_transpose(ops, arena, w, pair.cotangents);
  ++passes.apply;
  ++passes.transpose;
  ops.singular_certificate(pair.volume, scale, pair.value, pair.distance, w, v, pair.cotangents, dimension);
  if (!largest.absent())
    ops.rank_threshold(pair.volume, scale, pair.deficient, pair.value, largest, rank_tolerance(jacobian));
  ops.scale_rows(pair.cotangents, pair.cotangents, scale, 1);
  arena.rewind(mark);
  return pair;
}

}  // namespace bracket
