#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "bracket/trace_estimators.h"
#include "host/core/text.h"
#include "host/jacobian/bidiagonalization.h"
#include "host/jacobian/quadrature.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// Sign of the derivative of f of this order on (0, inf), order >= 1.
int derivative_sign(const SpectralFunction& f, std::int64_t order) {
  if (f.kind == SpectralFunction::Kind::logarithm) return order % 2 == 0 ? -1 : 1;
  int sign = 1;
  for (std::int64_t j = 0; j < order && sign != 0; ++j) {
    const double factor = f.exponent - static_cast<double>(j);
    sign = factor == 0 ? 0 : factor > 0 ? sign : -sign;
  }
  return sign;
}

/// The rule is what it integrates minus a positive multiple of the derivative of order 2 k (Gauss) or 2 k + 1
/// (Gauss-Radau with the node below the spectrum).
Certificate certificate(const SpectralFunction& f, std::int64_t steps, bool radau, bool complete, bool all_steps) {
  const int error = all_steps ? 0 : derivative_sign(f, radau ? 2 * steps + 1 : 2 * steps);
  if (error == 0) return complete ? Certificate::exact : Certificate::unbiased;
  if (error < 0) return complete ? Certificate::certified_upper : Certificate::optimistic;
  return complete ? Certificate::certified_lower : Certificate::pessimistic;
}

/// X [n R, d] and Q [n R, d] as [X; Q] per sample.
Tensor stacked(Ops& ops, Arena& arena, const Tensor& x, const Tensor& q, std::int64_t n, std::int64_t r) {
  const std::int64_t width = r * x.cols();
  const Tensor both = arena.allocate(x.dtype(), {n * 2 * r, x.cols()});
  const Tensor flat = both.reshaped({n, 2 * width});
  ops.copy(flat.slice_cols(0, width), x.reshaped({n, width}));
  ops.copy(flat.slice_cols(width, width), q.reshaped({n, width}));
  return both;
}

/// Q [n R, d] with orthonormal rows that span those of J^T J X, X [n R, d]; L f64[n, R, R] of J^T J X = L Q, J X.
struct Range {
  Tensor q, l, image;
};

Range range_of(Ops& ops, Arena& arena, JacobianPasses& passes, const JacobianOperator& jacobian, const Tensor& x,
               std::int64_t r) {
  const DType dtype = jacobian.dtype();
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  Range range{arena.allocate(dtype, {n * r, d}), arena.allocate(DType::f64, {n, r, r}),
              arena.allocate(dtype, {n * r, jacobian.outputs()})};
  const std::int64_t mark = arena.mark();
  const Tensor y = arena.allocate(dtype, {n * r, d}), factor = arena.allocate(DType::f64, {n * r, d});
  jacobian.apply(ops, arena, range.image, x);
  jacobian.apply_transpose(ops, arena, y, range.image);
  passes.apply += r;
  passes.transpose += r;
  ops.copy(factor, y);
  ops.lq_factor(range.l, factor);
  ops.copy(range.q, factor);
  arena.rewind(mark);
  return range;
}

void check(const char* what, const JacobianOperator& jacobian, const LowRankOptions& options) {
  if (options.directions < 1 || options.directions > jacobian.inputs())
    throw InvalidArgument(std::string(what) + ": directions is " + std::to_string(options.directions) +
                          ", must lie in [1, " + std::to_string(jacobian.inputs()) + "]");
  if (options.probes < 1)
    throw InvalidArgument(std::string(what) + ": probes is " + std::to_string(options.probes) + ", must be at least 1");
}

JacobianEstimate empty_estimate(Arena& arena, const JacobianOperator& jacobian) {
  JacobianEstimate estimate;
  estimate.certificate = Certificate::unbiased;
  estimate.value = arena.allocate(DType::f64, {jacobian.samples()});
  estimate.standard_error = arena.allocate(DType::f64, {jacobian.samples()});
  return estimate;
}

/// Rademacher probes: `counts` rows per sample in each of two blocks.
struct TwoBlocks {
  Tensor first, second;
};
TwoBlocks signs(Ops& ops, Arena& arena, const JacobianOperator& jacobian, std::int64_t first, std::int64_t second,
                const LowRankOptions& options) {
  const DType dtype = jacobian.dtype();
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  const TwoBlocks blocks{arena.allocate(dtype, {n * first, d}), arena.allocate(dtype, {n * second, d})};
  const std::int64_t mark = arena.mark();
  const Tensor all = arena.allocate(dtype, {n, (first + second) * d});
  ops.random_signs(all, {options.seed, RandomStream::jacobian_probe, options.step}, options.counter);
  ops.copy(blocks.first.reshaped({n, first * d}), all.slice_cols(0, first * d));
  ops.copy(blocks.second.reshaped({n, second * d}), all.slice_cols(first * d, second * d));
  arena.rewind(mark);
  return blocks;
}

}  // namespace

JacobianEstimate hutchinson_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Probes& probes) {
  check_probes("hutchinson_trace", jacobian, probes);
  JacobianEstimate estimate = empty_estimate(arena, jacobian);
  const std::int64_t mark = arena.mark(), d = jacobian.inputs();
  const Tensor image = arena.allocate(jacobian.dtype(), {probes.directions.rows(), jacobian.outputs()});
  jacobian.apply(ops, arena, image, probes.directions);
  estimate.passes.apply += probes.count;
  const double correction = variance_correction(probes, d);
  average(ops, arena, estimate, squared_lengths(ops, arena, image), correction, 1);
  if (correction == 0) estimate.certificate = Certificate::exact;
  arena.rewind(mark);
  return estimate;
}

JacobianEstimate trace_of_function(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const SpectralFunction& f,
                                   const Probes& probes, const QuadratureOptions& options) {
  check_probes("trace_of_function", jacobian, probes);
  if (options.steps < 1)
    throw InvalidArgument("trace_of_function: steps is " + std::to_string(options.steps) + ", must be at least 1");
  if (const Tensor& ends = options.lower_end; !ends.absent() && ends.rows() != jacobian.samples())
    throw InvalidArgument("trace_of_function: lower_end is " + ends.describe() + "; must be f64[" +
                          std::to_string(jacobian.samples()) + "], one end per sample");
  const std::int64_t d = jacobian.inputs(), steps = std::min(options.steps, d);
  const bool radau = !options.lower_end.absent() && steps < d;  // d steps know the whole spectrum
  JacobianEstimate estimate = empty_estimate(arena, jacobian);
  const std::int64_t mark = arena.mark();
  const Tensor samples = arena.allocate(DType::f64, {probes.directions.rows()});
  const Bidiagonalization b = bidiagonalize(ops, arena, estimate.passes, jacobian, probes.directions, steps, radau,
                                            [](const Bidiagonalization&) { return false; });
  const SmallFactors factors =
      factor_bidiagonal(ops, arena, b, radau ? steps + 1 : steps, radau ? options.lower_end : Tensor());
  ops.quadrature(samples, factors.values, factors.vectors, b.norm, {}, f, Update::overwrite);
  // Of fewer steps the sum over a complete set of probes still depends on the set.
  const double correction = variance_correction(probes, d);
  average(ops, arena, estimate, samples, steps == d ? correction : 1, 1);
  estimate.certificate = certificate(f, steps, radau, correction == 0, steps == d);
  arena.rewind(mark);
  return estimate;
}

JacobianEstimate hutch_plus_plus_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                       const LowRankOptions& options) {
  check("hutch_plus_plus_trace", jacobian, options);
  const std::int64_t n = jacobian.samples(), r = options.directions;
  JacobianEstimate estimate = empty_estimate(arena, jacobian);
  const std::int64_t mark = arena.mark();
  const auto [x, rest] = signs(ops, arena, jacobian, r, options.probes, options);
  const Range range = range_of(ops, arena, estimate.passes, jacobian, x, r);
  jacobian.apply(ops, arena, range.image, range.q);
  ops.project_rows(rest, range.q, n);
  const Tensor image = arena.allocate(jacobian.dtype(), {rest.rows(), jacobian.outputs()});
  jacobian.apply(ops, arena, image, rest);
  estimate.passes.apply += r + options.probes;
  average(ops, arena, estimate, squared_lengths(ops, arena, image), 1, 1);
  const Tensor inside = arena.allocate(DType::f64, {n}), ignored = arena.allocate(DType::f64, {n});
  ops.probe_mean(inside, ignored, squared_lengths(ops, arena, range.image), 0);
  ops.axpy(estimate.value, static_cast<double>(r), inside);
  arena.rewind(mark);
  return estimate;
}

JacobianEstimate exchangeable_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                    const LowRankOptions& options) {
  check("exchangeable_trace", jacobian, options);
  const std::int64_t n = jacobian.samples(), r = options.directions;
  JacobianEstimate estimate = empty_estimate(arena, jacobian);
  const std::int64_t mark = arena.mark();
  const Tensor x = signs(ops, arena, jacobian, r, 0, options).first;
  const Range range = range_of(ops, arena, estimate.passes, jacobian, x, r);
  const Tensor image = arena.allocate(jacobian.dtype(), {n * r, jacobian.outputs()});
  jacobian.apply(ops, arena, image, range.q);
  estimate.passes.apply += r;
  const Tensor gram_image = arena.allocate(DType::f64, {n, 2 * r, 2 * r});
  const Tensor gram_basis = arena.allocate(DType::f64, {n, 2 * r, 2 * r});
  const Tensor inverse = arena.allocate(DType::f64, {n * r, r});
  ops.gram(gram_image, stacked(ops, arena, range.image, image, n, r));
  ops.gram(gram_basis, stacked(ops, arena, x, range.q, n, r));
  ops.tile_identity(inverse, n);
  ops.triangular_solve(inverse, range.l, inverse, false);
  ops.leave_one_out_trace(estimate.value, estimate.standard_error, gram_image, gram_basis, inverse.reshaped({n, r, r}));
  arena.rewind(mark);
  return estimate;
}

}  // namespace bracket
