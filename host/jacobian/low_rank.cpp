#include <algorithm>
#include <string>

#include "bracket/error.h"
#include "bracket/trace_estimators.h"
#include "host/jacobian/bidiagonalization.h"
#include "host/jacobian/quadrature.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

bool is_identity(const SpectralFunction& f) { return f.kind == SpectralFunction::Kind::power && f.exponent == 1; }

std::int64_t steps_of(const JacobianOperator& jacobian, const LowRankOptions& options) {
  return std::min(options.steps, jacobian.inputs());
}

void check(const char* what, const JacobianOperator& jacobian, const LowRankOptions& options) {
  if (options.directions < 1 || options.directions > jacobian.inputs())
    throw InvalidArgument(std::string(what) + ": directions is " + std::to_string(options.directions) +
                          ", must lie in [1, " + std::to_string(jacobian.inputs()) + "]");
  if (options.probes < 1)
    throw InvalidArgument(std::string(what) + ": probes is " + std::to_string(options.probes) + ", must be at least 1");
  if (options.steps < 1)
    throw InvalidArgument(std::string(what) + ": steps is " + std::to_string(options.steps) + ", must be at least 1");
  check_step(what, options.step);
}

/// X [n R, d] and Q [n R, d] as [X; Q] per sample.
Tensor stacked(Ops& ops, Arena& arena, const Tensor& x, const Tensor& q, std::int64_t n) {
  const std::int64_t width = n == 0 ? 0 : x.size() / n;
  const Tensor both = arena.allocate(x.dtype(), {x.rows() + q.rows(), x.cols()});
  const Tensor flat = both.reshaped({n, 2 * width});
  ops.copy(flat.slice_cols(0, width), x.reshaped({n, width}));
  ops.copy(flat.slice_cols(width, width), q.reshaped({n, width}));
  return both;
}

/// What f(J^T J) makes of rows x [m, d].
struct Images {
  Tensor under_jacobian;  ///< J x [m, D], where f is the identity
  Tensor value;           ///< f(J^T J) x [m, d], where asked for
  QuadraticForms forms;   ///< x^T f(J^T J) x
};

/// f(A) = A: a product with J, and for the value one with J^T.
Images images_of_identity(Ops& ops, Arena& arena, JacobianPasses& passes, const JacobianOperator& jacobian,
                          const Tensor& x, bool value) {
  const std::int64_t m = x.rows(), columns = m == 0 ? 0 : m / jacobian.samples();
  Images images;
  images.under_jacobian = arena.allocate(jacobian.dtype(), {m, jacobian.outputs()});
  jacobian.apply(ops, arena, images.under_jacobian, x);
  passes.apply += columns;
  images.forms = {squared_lengths(ops, arena, images.under_jacobian), arena.allocate(DType::f64, {m})};
  ops.fill(images.forms.zeros, 0);
  if (!value) return images;
  images.value = arena.allocate(jacobian.dtype(), {m, jacobian.inputs()});
  jacobian.apply_transpose(ops, arena, images.value, images.under_jacobian);
  passes.transpose += columns;
  return images;
}

/// f(A) x ~ |x| V_k f(B^T B) e_1 by Golub-Kahan steps from every row.
Images images_by_steps(Ops& ops, Arena& arena, JacobianPasses& passes, const JacobianOperator& jacobian,
                       const LowRankOptions& options, const Tensor& x, bool value) {
  const std::int64_t m = x.rows(), steps = steps_of(jacobian, options);
  const double tolerance = rank_tolerance(jacobian);
  Images images;
  images.forms = allocate_forms(arena, m);
  if (value) images.value = arena.allocate(jacobian.dtype(), {m, jacobian.inputs()});
  const std::int64_t mark = arena.mark();
  const Bidiagonalization b =
      bidiagonalize(ops, arena, passes, jacobian, x, steps, false, [](const Bidiagonalization&) { return false; });
  integrate(ops, arena, images.forms, b, options.function, tolerance, steps);
  if (value) {
    const SmallFactors factors = factor_bidiagonal(ops, arena, b, steps);
    const Tensor coefficients = arena.allocate(jacobian.dtype(), {m, steps});
    ops.spectral_coefficients(coefficients, factors.values, factors.vectors, b.norm, options.function, tolerance);
    ops.combine_tangents(images.value, b.basis, coefficients);
  }
  arena.rewind(mark);
  return images;
}

Images apply_function(Ops& ops, Arena& arena, JacobianPasses& passes, const JacobianOperator& jacobian,
                      const LowRankOptions& options, const Tensor& x, bool value) {
  return is_identity(options.function) ? images_of_identity(ops, arena, passes, jacobian, x, value)
                                       : images_by_steps(ops, arena, passes, jacobian, options, x, value);
}

/// Y = L Q per sample: Q [n R, d] with orthonormal rows that span those of Y, L f64[n, R, R].
struct Range {
  Tensor q, l;
};

Range range_of(Ops& ops, Arena& arena, const Tensor& y, std::int64_t n, std::int64_t r) {
  const Range range{arena.allocate(y.dtype(), {y.rows(), y.cols()}), arena.allocate(DType::f64, {n, r, r})};
  const std::int64_t mark = arena.mark();
  const Tensor factor = arena.allocate(DType::f64, {y.rows(), y.cols()});
  ops.copy(factor, y);
  ops.lq_factor(range.l, factor);
  ops.copy(range.q, factor);
  arena.rewind(mark);
  return range;
}

/// result f64[n, K, K] = W F^T per sample, W and F [n K, d]: a block of the Gram matrix of [W; F].
void cross_gram(Ops& ops, Arena& arena, const Tensor& result, const Tensor& w, const Tensor& f) {
  const std::int64_t mark = arena.mark(), n = result.extent(0), k = result.extent(1);
  const Tensor all = arena.allocate(DType::f64, {n, 2 * k, 2 * k}), rows = arena.allocate(DType::f64, {n * k, 2 * k});
  ops.gram(all, stacked(ops, arena, w, f, n));
  ops.copy(rows.reshaped({n, 2 * k * k}), all.reshaped({n, 4 * k * k}).slice_cols(0, 2 * k * k));
  ops.copy(result.reshaped({n * k, k}), rows.slice_cols(k, k));
  arena.rewind(mark);
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

TraceEstimate hutch_plus_plus_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                    const LowRankOptions& options) {
  check("hutch_plus_plus_trace", jacobian, options);
  const std::int64_t n = jacobian.samples(), r = options.directions, steps = steps_of(jacobian, options);
  TraceEstimate estimate;
  allocate_trace(arena, jacobian, estimate);
  if (!is_identity(options.function))
    estimate.certificate = rule_certificate(options.function, steps, false, false, steps == jacobian.inputs());
  const std::int64_t mark = arena.mark();
  const auto [x, rest] = signs(ops, arena, jacobian, r, options.probes, options);
  const auto images_of = [&](const Tensor& rows, bool value) {
    return apply_function(ops, arena, estimate.passes, jacobian, options, rows, value);
  };
  const Tensor q = range_of(ops, arena, images_of(x, true).value, n, r).q;
  ops.project_rows(rest, q, n);
  average(ops, arena, estimate, images_of(rest, false).forms, 1, 1);
  TraceEstimate inside;
  allocate_trace(arena, jacobian, inside);
  average(ops, arena, inside, images_of(q, false).forms, 0, static_cast<double>(r));
  ops.axpy(estimate.value, 1, inside.value);
  ops.axpy(estimate.deficient, 1, inside.deficient);
  arena.rewind(mark);
  return estimate;
}

TraceEstimate exchangeable_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                 const LowRankOptions& options) {
  check("exchangeable_trace", jacobian, options);
  const std::int64_t n = jacobian.samples(), r = options.directions;
  const bool identity = is_identity(options.function);
  TraceEstimate estimate;
  allocate_trace(arena, jacobian, estimate);
  if (!identity && steps_of(jacobian, options) < jacobian.inputs()) estimate.certificate = Certificate::biased;
  const std::int64_t mark = arena.mark();
  // Signs of few dimensions may depend on one another, and what is left out of their range is then not left out.
  const Tensor x =
      make_probes(ops, arena, jacobian, {ProbeKind::gaussian, r, options.seed, options.step, options.counter})
          .directions;
  const Images of_x = apply_function(ops, arena, estimate.passes, jacobian, options, x, true);
  const Range range = range_of(ops, arena, of_x.value, n, r);
  const Images of_q = apply_function(ops, arena, estimate.passes, jacobian, options, range.q, !identity);
  const Tensor gram_image = arena.allocate(DType::f64, {n, 2 * r, 2 * r});
  const Tensor gram_basis = arena.allocate(DType::f64, {n, 2 * r, 2 * r});
  const Tensor inverse = arena.allocate(DType::f64, {n * r, r}), ignored = arena.allocate(DType::f64, {n});
  const Tensor both = stacked(ops, arena, x, range.q, n);
  if (identity) {
    ops.gram(gram_image, stacked(ops, arena, of_x.under_jacobian, of_q.under_jacobian, n));
  } else {
    cross_gram(ops, arena, gram_image, both, stacked(ops, arena, of_x.value, of_q.value, n));
  }
  ops.gram(gram_basis, both);
  ops.tile_identity(inverse, n);
  ops.triangular_solve(inverse, range.l, inverse, false);
  ops.leave_one_out_trace(estimate.value, estimate.standard_error, gram_image, gram_basis, inverse.reshaped({n, r, r}),
                          of_x.forms.value);
  ops.probe_mean(estimate.deficient, ignored, of_x.forms.zeros, 0);
  arena.rewind(mark);
  return estimate;
}

}  // namespace bracket
