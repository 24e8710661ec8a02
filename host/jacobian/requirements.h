// What several estimators ask of their operands, and what they count as a singular value of zero.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "bracket/error.h"
#include "bracket/jacobian.h"

namespace bracket {

/// J^T J is singular for d > D.
inline void check_tall(const std::string& what, const JacobianOperator& jacobian) {
  if (jacobian.inputs() <= jacobian.outputs()) return;
  throw InvalidArgument(
      what + ": a Jacobian of " + std::to_string(jacobian.inputs()) + " inputs and " +
      std::to_string(jacobian.outputs()) +
      " outputs: J^T J is singular, its smallest singular value 0 and the log-volume undefined; needs "
      "inputs <= outputs");
}

/// Absent, or [d, d] of the operator's dtype.
inline void check_preconditioner(const std::string& what, const JacobianOperator& jacobian, const Tensor& t) {
  const std::int64_t d = jacobian.inputs();
  if (t.absent() || (t.rank() == 2 && t.rows() == d && t.cols() == d && t.dtype() == jacobian.dtype())) return;
  throw InvalidArgument(what + ": preconditioner is " + t.describe() + "; must be " + dtype_name(jacobian.dtype()) +
                        "[" + std::to_string(d) + ", " + std::to_string(d) + "]");
}

/// Unit roundoff of what the operator returns.
inline double storage_roundoff(const JacobianOperator& jacobian) {
  return jacobian.dtype() == DType::f32 ? 0x1p-24 : 0x1p-53;
}

/// What is at most this times the largest singular value counts as zero: of the exact path the largest there is, of
/// iterations and quadrature the largest they have seen. Of rank d - 1 (d = 4 to 128, D = d and 4 d, s_2 / s_d = 1/3 to
/// 1e-4, both precisions) Golub-Kahan left up to 1.5 sqrt(d) u, rules up to 2.2 u, LOBPCG where it converged up to 7.2
/// u of the largest; a factorisation of J in double leaves sqrt(D d) 2^-53.
inline double rank_tolerance(const JacobianOperator& jacobian) {
  const auto d = static_cast<double>(jacobian.inputs()), outputs = static_cast<double>(jacobian.outputs());
  return std::min(1.0, 2 * std::max((4 + std::sqrt(d)) * storage_roundoff(jacobian), std::sqrt(outputs * d) * 0x1p-53));
}

/// The upper bits of a random key's sequence number belong to its stream.
inline void check_step(const std::string& what, std::uint64_t step) {
  if (step >> 48 != 0) throw InvalidArgument(what + ": step is " + std::to_string(step) + ", must be below 2^48");
}

}  // namespace bracket
