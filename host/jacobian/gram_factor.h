// The log-volume of J from its d columns, as a training step needs it: no waiting, and no path for ill-conditioned J.
#pragma once

#include "kernels/ops.h"

namespace bracket {

/// lower f64[n, d, d], L L^T = J^T J, and value [n] = sum log diag L = 1/2 log det(J^T J); columns [n d, D] = the rows
/// T of J^T. NaN where J^T J is not positive definite.
inline void gram_factor(Ops& ops, Tensor lower, Tensor value, Tensor columns) {
  ops.gram(lower, columns);
  ops.cholesky(lower);
  ops.log_diagonal_sum(value, lower);
}

/// C = J (J^T J)^-1, the derivative of the log-volume in J: C^T = L^-T L^-1 T.
inline void gram_cotangents(Ops& ops, Tensor cotangents, Tensor lower, Tensor columns) {
  ops.triangular_solve(cotangents, lower, columns, false);
  ops.triangular_solve(cotangents, lower, cotangents, true);
}

}  // namespace bracket
