// Golub-Kahan bidiagonalisation in numbers: what follows from the diagonal and superdiagonal of B, in double.
//
//   J V_k = U_k B_k,   J^T U_k = V_k B_k^T + beta_{k-1} v_k e_{k-1}^T,   B_k upper bidiagonal: alpha_0.., beta_0..
// (Golub and Kahan 1965). B_k^T B_k is the Lanczos matrix of J^T J for v_0, so with B_k = sum_j s_j y_j x_j^T
//   v_0^T f(J^T J) v_0  ~  sum_j x_j0^2 f(s_j^2)
// is the k-point Gauss rule of the spectral measure of v_0 (Golub and Meurant 2010, chapters 3 and 6).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"
#include "kernels/formula/rayleigh_ritz.h"
#include "kernels/ops.h"

namespace bracket::formula {

/// What a norm must exceed to count as more than the rounding of what it was subtracted from: 8 units of storage.
template <class T>
inline constexpr double kBreakdown = 8 * kRoundoff<T>;

/// f(square), square >= 0.
BRACKET_HOST_DEVICE double spectral_value(const SpectralFunction& f, double square) {
  if (f.kind == SpectralFunction::Kind::logarithm) return ::log(square);
  if (f.exponent == 1) return square;
  if (f.exponent == -1) return 1 / square;
  return ::pow(square, f.exponent);
}

/// Singular values of B this far below the largest are zeros: a product with J rounds to 2^-53 of that at best.
inline constexpr double kNoValue = 0x1p-60;

/// sum_j x_j0^2 f(s_j^2); row j of `vectors` is x_j, values ascend. Terms without weight are left out: where a Krylov
/// space ended early, what follows in B is coupled to nothing.
BRACKET_HOST_DEVICE double quadrature_sum(const double* values, const double* vectors, std::int64_t k,
                                          const SpectralFunction& f) {
  double sum = 0;
  for (std::int64_t j = 0; j < k; ++j) {
    const double x = vectors[j * k];
    if (x == 0) continue;
    const double value = values[j] <= kNoValue * values[k - 1] ? 0 : values[j];
    sum += x * x * spectral_value(f, value * value);
  }
  return sum;
}

/// factor times a rule's sum; an infinite sum (log 0) stays as it is whatever the sign of the factor, so that weights
/// of either sign never make a NaN of it.
BRACKET_HOST_DEVICE double weighted_sum(double factor, double sum) {
  if (factor == 0) return 0;
  return ::fabs(sum) == HUGE_VAL ? sum : factor * sum;
}

/// The last diagonal element that makes `end` an eigenvalue of B^T B, B extended by one row behind k steps: in the
/// differential form of the LDL^T factorisation of B^T B - end (s_0 = -end, d_i = alpha_i^2 + s_i, s_{i+1} = beta_i^2
/// s_i / d_i - end) it is sqrt(-s_k), where nothing cancels but in d_i. Zero where a pivot d_i is not positive: `end`
/// is not below the spectrum then.
BRACKET_HOST_DEVICE double radau_element(const double* alpha, const double* beta, std::int64_t k, double end) {
  double s = -end;
  for (std::int64_t i = 0; i < k; ++i) {
    const double pivot = alpha[i] * alpha[i] + s;
    const double off = beta[i] * beta[i];
    if (off == 0) return square_root(end);
    if (!(pivot > 0)) return pivot == pivot ? 0 : not_a_number();
    s = off * (s / pivot) - end;
  }
  return square_root(-s);
}

/// Element (i, j) of the transpose of the leading k x k block of B; `last` replaces the last diagonal element where
/// it is not negative.
BRACKET_HOST_DEVICE double bidiagonal_element(const double* alpha, const double* beta, std::int64_t k, double last,
                                              std::int64_t i, std::int64_t j) {
  if (i == j) return i == k - 1 && !(last < 0) ? last : alpha[i];
  return i == j + 1 ? beta[j] : 0;
}

/// Upper bound of the distance from mu to the nearest singular value, from residual = |J^T u - mu v|, u = J v / mu, |v|
/// = 1: the least of three.
/// (u, v) / sqrt(2) is a unit vector in the space that [0 J; J^T 0] keeps when the left null space is left out, where
/// its eigenvalues are +-s_k: residual / sqrt(2). v has Rayleigh quotient mu^2 and residual mu `residual` for J^T J:
/// some s_k^2 lies within that of mu^2. And 0 <= s_1 <= mu: mu.
BRACKET_HOST_DEVICE double nearest_distance(double mu, double residual) {
  const double augmented = residual * 0.70710678118654752440;
  const double squared = residual < mu ? mu * residual / (mu + square_root(mu * (mu - residual))) : mu;
  return squared < augmented ? squared : (augmented < mu ? augmented : (mu < augmented ? mu : augmented));
}

}  // namespace bracket::formula
