// Golub-Kahan bidiagonalisation in numbers: what follows from the diagonal and superdiagonal of B, in double.
//
//   J V_k = U_k B_k,   J^T U_k = V_k B_k^T + beta_{k-1} v_k e_{k-1}^T,   B_k upper bidiagonal: alpha_0.., beta_0..
// (Golub and Kahan 1965). B_k^T B_k is the Lanczos matrix of J^T J for v_0, so with B_k = sum_j s_j y_j x_j^T
//   v_0^T f(J^T J) v_0  ~  sum_j x_j0^2 f(s_j^2)
// is the k-point Gauss rule of the spectral measure of v_0 (Golub and Meurant 2010, chapters 3 and 6).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/formula/bidiagonal_qr.h"
#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"
#include "kernels/formula/rayleigh_ritz.h"
#include "kernels/ops.h"

namespace bracket::formula {

/// What a norm must exceed to count as more than the rounding of what it was subtracted from: 8 units of storage.
template <class T>
inline constexpr double kBreakdown = 8 * kRoundoff<T>;

/// A factor as it is stored. One that is no normal number of T would make finite nonsense of what it scales.
template <class T>
BRACKET_HOST_DEVICE T stored_factor(double factor) {
  constexpr double kLeast = sizeof(T) == sizeof(float) ? 0x1p-126 : 0x1p-1022;
  constexpr double kMost = sizeof(T) == sizeof(float) ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
  const double size = ::fabs(factor);
  return static_cast<T>(size >= kLeast && size <= kMost ? factor : not_a_number());
}

/// f(value^2), value >= 0.
BRACKET_HOST_DEVICE double spectral_value(const SpectralFunction& f, double value) {
  if (f.kind == SpectralFunction::Kind::logarithm) return 2 * ::log(value);
  if (f.exponent == 1) return value * value;
  if (f.exponent == -1) return 1 / (value * value);
  return ::pow(value, 2 * f.exponent);
}

struct RuleSum {
  double value;
  bool zero;  ///< a node with a share counts as zero
};

/// sum_j share_j f(node_j^2) of a rule of k nodes, ascending, every `stride` doubles one; what is at most `tolerance`
/// times the last counts as zero. Nodes without share are left out: where a Krylov space ended early, what follows in B
/// is coupled to nothing.
BRACKET_HOST_DEVICE RuleSum rule_sum(const double* nodes, const double* shares, std::int64_t stride, std::int64_t k,
                                     const SpectralFunction& f, double tolerance) {
  RuleSum sum = {0, false};
  const double limit = tolerance * nodes[(k - 1) * stride];
  for (std::int64_t j = 0; j < k; ++j) {
    const double share = shares[j * stride], node = nodes[j * stride];
    if (share == 0) continue;
    const bool zero = node <= limit;
    sum.zero = sum.zero || zero;
    sum.value += share * spectral_value(f, zero ? 0 : node);
  }
  return sum;
}

/// Component i of f(B^T B) e_1 from the singular values of B, ascending, and its right singular vectors, the rows of
/// `vectors` [k, k]; without the infinite values of what counts as zero.
BRACKET_HOST_DEVICE double spectral_component(const double* values, const double* vectors, std::int64_t k,
                                              const SpectralFunction& f, double tolerance, std::int64_t i) {
  double sum = 0;
  const double limit = tolerance * values[k - 1];
  for (std::int64_t j = 0; j < k; ++j) {
    const double value = values[j] <= limit ? spectral_value(f, 0) : spectral_value(f, values[j]);
    if (values[j] <= limit && ::fabs(value) == HUGE_VAL) continue;
    sum += vectors[j * k] * vectors[j * k + i] * value;
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

/// Gauss rule of B = (alpha, beta), k x k, or with `last` >= 0 in place of its last diagonal element, in work.d and
/// work.z: nodes ascending, and shares. All NaN where B is not finite or `sweeps` do not do.
BRACKET_HOST_DEVICE void gauss_rule(const BidiagonalRow& work, const double* alpha, const double* beta, double last,
                                    std::int64_t k, std::int64_t sweeps) {
  double check = 0;
  for (std::int64_t j = 0; j < k; ++j) {
    const double diagonal = j == k - 1 && !(last < 0) ? last : alpha[j], above = j == k - 1 ? 0 : beta[j];
    work.d[j * work.stride] = diagonal;
    work.e[j * work.stride] = above;
    work.z[j * work.stride] = j == 0 ? 1 : 0;
    check += 0 * diagonal + 0 * above;
  }
  const bool converged = check == 0 && diagonalize_bidiagonal(work, k, sweeps);
  for (std::int64_t j = 0; j < k; ++j) {
    const double z = work.z[j * work.stride];
    const double node = converged ? ::fabs(work.d[j * work.stride]) : not_a_number();
    const double share = converged ? z * z : not_a_number();
    std::int64_t place = j;
    for (; place > 0 && work.d[(place - 1) * work.stride] > node; --place) {
      work.d[place * work.stride] = work.d[(place - 1) * work.stride];
      work.z[place * work.stride] = work.z[(place - 1) * work.stride];
    }
    work.d[place * work.stride] = node;
    work.z[place * work.stride] = share;
  }
}

/// Upper bound of the distance from mu to the nearest singular value, from residual = |J^T u - mu v|, u = J v / mu, |v|
/// = 1: the least of three.
/// (u, v) / sqrt(2) is a unit vector in the space that [0 J; J^T 0] keeps when the left null space is left out, where
/// its eigenvalues are +-s_k: residual / sqrt(2). v has Rayleigh quotient mu^2 and residual mu `residual` for J^T J:
/// some s_k^2 lies within that of mu^2. And 0 <= s_1 <= mu: mu.
BRACKET_HOST_DEVICE double nearest_distance(double mu, double residual) {
  const double augmented = residual * 0.70710678118654752440;
  const double squared = residual < mu ? residual / (1 + square_root(1 - residual / mu)) : mu;
  return squared < augmented ? squared : (augmented < mu ? augmented : (mu < augmented ? mu : augmented));
}

}  // namespace bracket::formula
