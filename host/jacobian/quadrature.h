// Checks and bookkeeping that the stochastic estimators share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "bracket/error.h"
#include "bracket/trace_estimators.h"
#include "host/jacobian/bidiagonalization.h"
#include "host/jacobian/requirements.h"
#include "host/jacobian/scale.h"
#include "kernels/ops.h"

namespace bracket {

inline void check_probes(const char* what, const JacobianOperator& jacobian, const Probes& probes) {
  const Tensor& v = probes.directions;
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  if (probes.count < 1 || v.rank() != 2 || v.rows() != n * probes.count || v.cols() != d ||
      v.dtype() != jacobian.dtype())
    throw InvalidArgument(std::string(what) + ": probes are " + (v.absent() ? "absent" : v.describe()) + "; " +
                          std::to_string(probes.count) + " each for " + std::to_string(n) + " samples must be " +
                          dtype_name(jacobian.dtype()) + "[" + std::to_string(n * probes.count) + ", " +
                          std::to_string(d) + "]");
}

/// What is left of the variance of independent probes; 0 where the probes are a complete orthogonal set.
inline double variance_correction(const Probes& probes, std::int64_t d) {
  if (probes.kind != ProbeKind::orthogonal) return 1;
  return static_cast<double>(d - probes.count) / static_cast<double>(d);
}

/// Sign of the derivative of f of this order on (0, inf), order >= 1.
inline int derivative_sign(const SpectralFunction& f, std::int64_t order) {
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
inline Certificate rule_certificate(const SpectralFunction& f, std::int64_t steps, bool radau, bool complete,
                                    bool all_steps) {
  const int error = all_steps ? 0 : derivative_sign(f, radau ? 2 * steps + 1 : 2 * steps);
  if (error == 0) return complete ? Certificate::exact : Certificate::unbiased;
  if (error < 0) return complete ? Certificate::certified_upper : Certificate::optimistic;
  return complete ? Certificate::certified_lower : Certificate::pessimistic;
}

/// v^T f(J^T J) v per start of a bidiagonalisation, f64[m], and 1 where a node counts as zero.
struct QuadraticForms {
  Tensor value;
  Tensor zeros;
};

inline QuadraticForms allocate_forms(Arena& arena, std::int64_t m) {
  return {arena.allocate(DType::f64, {m}), arena.allocate(DType::f64, {m})};
}

/// By the rules of `rules` leading blocks of B, the last of `nodes` rows, with weight f64[rules, m] where there are
/// several; `lower` as of Ops::quadrature_rules.
inline void integrate(Ops& ops, Arena& arena, const QuadraticForms& forms, const Bidiagonalization& b,
                      const SpectralFunction& f, double tolerance, std::int64_t nodes, const Tensor& lower = {},
                      std::int64_t rules = 1, const Tensor& weight = {}) {
  const std::int64_t mark = arena.mark(), columns = b.alpha.rows() * rules;
  const Tensor points = arena.allocate(DType::f64, {nodes, columns});
  const Tensor shares = arena.allocate(DType::f64, {nodes, columns});
  ops.quadrature_rules(points, shares, b.alpha, b.beta, lower, arena.allocate(DType::f64, {nodes * columns}));
  ops.quadrature(forms.value, forms.zeros, points, shares, b.norm, weight, f, tolerance);
  arena.rewind(mark);
}

inline void allocate_trace(Arena& arena, const JacobianOperator& jacobian, TraceEstimate& estimate) {
  estimate.certificate = Certificate::unbiased;
  estimate.value = arena.allocate(DType::f64, {jacobian.samples()});
  estimate.standard_error = arena.allocate(DType::f64, {jacobian.samples()});
  estimate.deficient = arena.allocate(DType::f64, {jacobian.samples()});
}

/// Mean and standard error over the probes of samples f64[n P], times `factor`.
inline void average(Ops& ops, Arena& arena, JacobianEstimate& estimate, const Tensor& samples, double correction,
                    double factor) {
  const Tensor mean = arena.allocate(DType::f64, {estimate.value.rows()});
  const Tensor error = arena.allocate(DType::f64, {estimate.value.rows()});
  ops.probe_mean(mean, error, samples, correction);
  scale_into(ops, estimate.value, factor, mean);
  scale_into(ops, estimate.standard_error, factor, error);
}

inline void average(Ops& ops, Arena& arena, TraceEstimate& estimate, const QuadraticForms& forms, double correction,
                    double factor) {
  average(ops, arena, static_cast<JacobianEstimate&>(estimate), forms.value, correction, factor);
  ops.probe_mean(estimate.deficient, arena.allocate(DType::f64, {estimate.deficient.rows()}), forms.zeros, 0);
}

/// f64[m] = |x_i|^2, summed in double.
inline Tensor squared_lengths(Ops& ops, Arena& arena, const Tensor& x) {
  const Tensor squares = arena.allocate(DType::f64, {x.rows(), 1, 1});
  ops.gram(squares, x);
  return squares.reshaped({x.rows()});
}

}  // namespace bracket
