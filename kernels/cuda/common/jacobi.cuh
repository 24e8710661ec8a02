// Jacobi's method for the eigenvalues of one symmetric matrix by one block.
//
// The rotations of a sweep are ordered as the rounds of a tournament: the K/2 planes of a round are disjoint, so that
// the whole block works on them at once, with two barriers per round. Every element is computed by one thread, in an
// order fixed by K.
#pragma once

#include "kernels/cuda/common/portable.cuh"
#include "kernels/formula/jacobi.h"

namespace bracket::BRACKET_TARGET {

/// Convergence is quadratic: 6 to 10 sweeps are usual.
inline constexpr int kMaxJacobiSweeps = 40;

/// Off-diagonal elements this small next to their diagonal ones do not move the eigenvalues of a positive definite
/// matrix by more than rounding, relative to each eigenvalue (Demmel and Veselic, 1992).
BRACKET_DEVICE bool negligible(double diagonal_p, double diagonal_q, double off) {
  return fabs(off) <= 0x1p-53 * sqrt(fabs(diagonal_p)) * sqrt(fabs(diagonal_q));
}

/// A Jacobi rotation in the plane (p, q); q = -1 where an odd K leaves p alone.
struct JacobiPlane {
  double c, s, shift;
  int p, q;
};

/// Pair `slot` of round `round` of a round-robin tournament of `players` (even): every two meet once in players - 1
/// rounds, and the pairs of one round are disjoint.
BRACKET_DEVICE void meet(int round, int slot, int players, int& p, int& q) {
  const int circle = players - 1;
  const int first = slot == 0 ? circle : (round + slot) % circle;
  const int second = (round - slot + circle) % circle;
  p = first < second ? first : second;
  q = first < second ? second : first;
}

/// The rotation that makes a[p, q] zero; returns false, and the identity, when it already counts as zero.
BRACKET_DEVICE bool choose_rotation(JacobiPlane& plane, const double* a, int k) {
  plane.c = 1;
  plane.s = 0;
  plane.shift = 0;
  if (plane.q < 0) return false;
  const double diagonal_p = a[plane.p * k + plane.p], diagonal_q = a[plane.q * k + plane.q];
  const double off = a[plane.p * k + plane.q];
  if (negligible(diagonal_p, diagonal_q, off)) return false;
  const formula::JacobiRotation rotation = formula::jacobi_rotation(diagonal_p, diagonal_q, off);
  plane.c = rotation.cosine;
  plane.s = rotation.sine;
  plane.shift = rotation.tangent * off;
  return true;
}

BRACKET_DEVICE void rotate(double& x, double& y, double c, double s) {
  const double first = x, second = y;
  x = c * first - s * second;
  y = s * first + c * second;
}

/// a <- R_P^T a R_Q on the two by two elements where the planes P and Q cross, and their mirror images.
BRACKET_DEVICE void rotate_crossing(double* a, int k, const JacobiPlane& rows, const JacobiPlane& columns) {
  double element[2][2] = {};
  const int i[2] = {rows.p, rows.q}, j[2] = {columns.p, columns.q};
  for (int x = 0; x < 2; ++x) {
    for (int y = 0; y < 2; ++y) {
      if (i[x] >= 0 && j[y] >= 0) element[x][y] = a[i[x] * k + j[y]];
    }
  }
  for (int y = 0; y < 2; ++y) rotate(element[0][y], element[1][y], rows.c, rows.s);
  for (int x = 0; x < 2; ++x) rotate(element[x][0], element[x][1], columns.c, columns.s);
  for (int x = 0; x < 2; ++x) {
    for (int y = 0; y < 2; ++y) {
      if (i[x] >= 0 && j[y] >= 0) a[i[x] * k + j[y]] = a[j[y] * k + i[x]] = element[x][y];
    }
  }
}

/// The elements of one plane itself: the rotation was chosen to clear the off-diagonal one.
BRACKET_DEVICE void rotate_diagonal(double* a, int k, const JacobiPlane& plane) {
  if (plane.s == 0) return;
  a[plane.p * k + plane.p] -= plane.shift;
  a[plane.q * k + plane.q] += plane.shift;
  a[plane.p * k + plane.q] = a[plane.q * k + plane.p] = 0;
}

/// a becomes diagonal, row i of v the eigenvector of a[i, i]. All `threads` threads of the block call it.
BRACKET_DEVICE void jacobi_diagonalize(double* a, double* v, JacobiPlane* planes, int k, int threads) {
  const int thread = static_cast<int>(threadIdx.x);
  const int players = k + k % 2;
  const int pairs = players / 2;
  for (int e = thread; e < k * k; e += threads) v[e] = e / k == e % k ? 1 : 0;
  for (int sweep = 0; sweep < kMaxJacobiSweeps; ++sweep) {
    int rotated = 0;
    for (int round = 0; round < players - 1; ++round) {
      int chosen = 0;
      for (int slot = thread; slot < pairs; slot += threads) {
        JacobiPlane plane;
        meet(round, slot, players, plane.p, plane.q);
        if (plane.q >= k) plane.q = -1;
        if (choose_rotation(plane, a, k)) chosen = 1;
        planes[slot] = plane;
      }
      chosen = __syncthreads_or(chosen);
      if (chosen == 0) continue;
      rotated = 1;
      for (int e = thread; e < pairs * pairs; e += threads) {
        const int row = e / pairs, column = e % pairs;
        if (row == column) {
          rotate_diagonal(a, k, planes[row]);
        } else if (row < column) {
          rotate_crossing(a, k, planes[row], planes[column]);
        }
      }
      for (int e = thread; e < pairs * k; e += threads) {
        const JacobiPlane& plane = planes[e / k];
        const int j = e % k;
        if (plane.s != 0) rotate(v[plane.p * k + j], v[plane.q * k + j], plane.c, plane.s);
      }
      __syncthreads();
    }
    if (rotated == 0) break;
  }
}

/// Position of diagonal element i among all, ascending.
BRACKET_DEVICE int rank_of(const double* a, int k, int i) {
  const double value = a[i * k + i];
  int rank = 0;
  for (int j = 0; j < k; ++j) {
    const double other = a[j * k + j];
    if (other < value || (other == value && j < i)) ++rank;
  }
  return rank;
}

/// Makes the component of largest magnitude, the first of several, positive.
BRACKET_DEVICE void fix_sign(double* vector, int k) {
  double largest = 0;
  for (int j = 0; j < k; ++j) {
    if (fabs(vector[j]) > fabs(largest)) largest = vector[j];
  }
  if (largest >= 0) return;
  for (int j = 0; j < k; ++j) vector[j] = -vector[j];
}

}  // namespace bracket::BRACKET_TARGET
