#include "host/jacobian/lobpcg.h"

#include <algorithm>
#include <string>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/jacobian/certificate.h"
#include "host/jacobian/iteration.h"
#include "host/jacobian/requirements.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

void check(const JacobianOperator& jacobian, const Tensor& direction, const LobpcgOptions& options) {
  const std::int64_t d = jacobian.inputs(), most = std::min(kMaxLobpcgBlock, d);
  if (options.block < 1 || options.block > most)
    throw InvalidArgument("lobpcg_smallest: block is " + std::to_string(options.block) + " for Jacobians of " +
                          std::to_string(d) + " inputs, must lie in 1 .. " + std::to_string(most));
  check_iteration("lobpcg_smallest", jacobian, direction, options.block, options.steps, options.tolerance);
  check_preconditioner("lobpcg_smallest", jacobian, options.preconditioner);
}

/// The rows of every sample become orthonormal, those that depend on others replaced: the factor Q of Householder
/// reflections is orthonormal whatever they reflect.
void orthonormalize(Ops& ops, Arena& arena, const Tensor& v, std::int64_t block) {
  const std::int64_t mark = arena.mark();
  const std::int64_t samples = v.rows() / block;
  const Tensor q = arena.allocate(DType::f64, {v.rows(), v.cols()});
  const Tensor l = arena.allocate(DType::f64, {samples, block, block});
  ops.copy(q, v);
  ops.lq_factor(l, q);
  ops.copy(v, q);
  arena.rewind(mark);
}

/// First of `block` rows or elements of every sample.
Tensor first_rows(const Tensor& x, std::int64_t block) {
  return x.reshaped({x.rows() / block, block * x.cols()}).slice_cols(0, x.cols());
}

void finish_block(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Tensor& direction, std::int64_t block,
                  LobpcgEstimate& estimate) {
  const DType dtype = jacobian.dtype();
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs(), outputs = jacobian.outputs(), rows = n * block;
  estimate.certificate = Certificate::optimistic;
  estimate.ritz_values = arena.allocate(DType::f64, {n, block});
  estimate.ritz_distances = arena.allocate(DType::f64, {n, block});
  estimate.value = arena.allocate(DType::f64, {n});
  estimate.singular_value = arena.allocate(DType::f64, {n});
  estimate.distance = arena.allocate(DType::f64, {n});
  estimate.deficient = arena.allocate(DType::f64, {n});
  estimate.tangents = arena.allocate(dtype, {n, d});
  estimate.cotangents = arena.allocate(dtype, {n, outputs});
  const std::int64_t mark = arena.mark();
  const Tensor mu = estimate.ritz_values.reshaped({rows}), distance = estimate.ritz_distances.reshaped({rows});
  const Tensor w = arena.allocate(dtype, {rows, d}), jv = arena.allocate(dtype, {rows, outputs});
  const Tensor h = arena.allocate(DType::f64, {rows}), scale = arena.allocate(dtype, {rows});
  // Value k >= s_k is Cauchy's theorem on Ritz values of orthonormal directions, which the steps leave so up to what
  // they count as independent: once more, in the span of V alone.
  const Tensor none = arena.allocate(dtype, {2 * rows, d}), no_image = arena.allocate(dtype, {2 * rows, outputs});
  ops.fill(none, 0);
  ops.fill(no_image, 0);
  orthonormalize(ops, arena, direction, block);
  jacobian.apply(ops, arena, jv, direction);
  ops.lobpcg_block_update(direction, none.slice_rows(0, rows), jv, no_image.slice_rows(0, rows),
                          none.slice_rows(rows, rows), no_image.slice_rows(rows, rows), block);
  jacobian.apply_transpose(ops, arena, w, jv);
  estimate.passes.apply += block;
  estimate.passes.transpose += block;
  ops.singular_certificate(h, scale, mu, distance, w, direction, jv, static_cast<double>(d));
  ops.lobpcg_block_order(direction, jv, scale, h, mu, distance, block);
  ops.rank_threshold(h, scale, estimate.deficient, mu, estimate.largest, rank_tolerance(jacobian));
  ops.scale_rows(jv, jv, scale, 1);
  ops.copy(estimate.value.reshaped({n, 1}), h.reshaped({n, block}).slice_cols(0, 1));
  ops.copy(estimate.singular_value.reshaped({n, 1}), estimate.ritz_values.slice_cols(0, 1));
  ops.copy(estimate.distance.reshaped({n, 1}), estimate.ritz_distances.slice_cols(0, 1));
  ops.copy(estimate.tangents, first_rows(direction, block));
  ops.copy(estimate.cotangents, first_rows(jv, block));
  arena.rewind(mark);
}

}  // namespace

void lobpcg_iterate(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                    const LobpcgOptions& options, LobpcgEstimate& estimate) {
  const DType dtype = jacobian.dtype();
  const bool preconditioned = !options.preconditioner.absent(), blocked = options.block > 1 || preconditioned;
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs(), outputs = jacobian.outputs();
  const std::int64_t block = options.block, rows = n * block;
  const std::int64_t mark = arena.mark();
  const Tensor p = arena.allocate(dtype, {rows, d}), r = arena.allocate(dtype, {rows, d});
  const Tensor jv = arena.allocate(dtype, {rows, outputs}), jp = arena.allocate(dtype, {rows, outputs});
  const Tensor jr = arena.allocate(dtype, {rows, outputs}), scale = arena.allocate(dtype, {rows});
  const Tensor h = arena.allocate(DType::f64, {rows}), mu = arena.allocate(DType::f64, {rows});
  const Tensor distance = arena.allocate(DType::f64, {rows});
  const Tensor turned = preconditioned ? arena.allocate(dtype, {rows, d}) : r;
  if (blocked) orthonormalize(ops, arena, direction, block);
  ops.fill(p, 0);
  ops.fill(jp, 0);
  jacobian.apply(ops, arena, jv, direction);
  estimate.passes.apply += block;
  while (estimate.steps < options.steps) {
    jacobian.apply_transpose(ops, arena, r, jv);
    estimate.passes.transpose += block;
    if (options.tolerance > 0) {
      ops.singular_certificate(h, scale, mu, distance, r, direction, jv, static_cast<double>(d));
      if (!ops.planning() && all_near(jacobian, read_values(ops, distance), read_values(ops, mu),
                                      read_values(ops, estimate.largest), options.tolerance))
        break;
    }
    ops.lobpcg_residual(r, r, direction, jv);
    if (preconditioned) {
      const MathScope exact(ops, MathMode::fp32);  // no tensor cores in algebra
      ops.linear_forward(turned, r, options.preconditioner);
      ops.project_rows(turned, direction, n);  // its images then owe nothing to a difference of long vectors
    }
    jacobian.apply(ops, arena, jr, turned);
    estimate.passes.apply += block;
    if (blocked) {
      ops.lobpcg_block_update(direction, p, jv, jp, turned, jr, block, estimate.largest);
    } else {
      ops.lobpcg_update(direction, p, jv, jp, r, jr, estimate.largest);
    }
    ++estimate.steps;
  }
  arena.rewind(mark);
}

LobpcgEstimate lobpcg_smallest(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                               const LobpcgOptions& options) {
  check(jacobian, direction, options);
  const std::int64_t n = jacobian.samples();
  LobpcgEstimate estimate;
  estimate.largest = arena.allocate(DType::f64, {n});
  ops.fill(estimate.largest, 0);
  lobpcg_iterate(ops, arena, jacobian, direction, options, estimate);
  if (options.block > 1) {
    finish_block(ops, arena, jacobian, direction, options.block, estimate);
  } else {
    finish_estimate(ops, arena, jacobian, direction, estimate);
    estimate.ritz_values = estimate.singular_value.reshaped({n, 1});
    estimate.ritz_distances = estimate.distance.reshaped({n, 1});
  }
  return estimate;
}

}  // namespace bracket
