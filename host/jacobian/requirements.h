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

/// Of iterations and quadrature: what is at most this times the largest singular value that was seen counts as zero.
/// Of rank d - 1 (d = 4 to 128, D = d and 4 d, s_2 / s_d = 1/3 to 1e-4, both precisions) Golub-Kahan left up to
/// 1.5 sqrt(d) u, rules up to 2.2 u, LOBPCG where it converged up to 7.2 u of the largest.
inline double seen_rank_tolerance(const JacobianOperator& jacobian) {
  return std::min(1.0, 2 * (4 + std::sqrt(static_cast<double>(jacobian.inputs()))) * storage_roundoff(jacobian));
}

}  // namespace bracket
