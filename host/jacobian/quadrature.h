// Checks and bookkeeping that the stochastic estimators share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "bracket/error.h"
#include "bracket/trace_estimators.h"
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

/// y = alpha x
inline void scale_into(Ops& ops, const Tensor& y, double alpha, const Tensor& x) {
  ops.fill(y, 0);
  ops.axpy(y, alpha, x);
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

/// f64[m] = |x_i|^2, summed in double.
inline Tensor squared_lengths(Ops& ops, Arena& arena, const Tensor& x) {
  const Tensor squares = arena.allocate(DType::f64, {x.rows(), 1, 1});
  ops.gram(squares, x);
  return squares.reshaped({x.rows()});
}

}  // namespace bracket
