// Rayleigh-Ritz for the B smallest singular values of J on the span of 3 B vectors, from inner products alone.
//
// The vectors are V = b_0 .. b_(B-1) (the approximations so far), P (their previous updates) and R (their residuals),
// in this order, and are never touched here: an orthonormal basis of their span, the projected problem and its solution
// are sums of their inner products, in double. P stands before R because its images are rounded again with every step,
// those of R are fresh: what depends on others is then taken out of R, and nothing is divided by a small sine of P's.
//
// A sample is the work of a team that shares the memory of BlockRitz. Member `first` of `count` takes the items first,
// first + count, ...; sync() lets everyone see what all wrote; diagonalize() is Jacobi's method in the form that suits
// the team. A team of one has nothing to wait for.
#pragma once

#include <cstdint>

#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"
#include "kernels/formula/rayleigh_ritz.h"

namespace bracket::formula {

inline constexpr int kMaxRitzBlock = 4;

/// Matrices are row-major [3 B, 3 B].
template <int B>
struct BlockRitz {
  static constexpr int kVectors = 3 * B;
  static constexpr int kEntries = kVectors * kVectors;

  double basis[kEntries];      ///< in: <b_i, b_j>
  double image[kEntries];      ///< in: <J b_i, J b_j>
  double v[B * kVectors];      ///< out: row k: the new v_k = sum_i v[k, i] b_i
  double p[B * kVectors];      ///< out: the new p_k likewise
  double rows[kEntries];       ///< row k: coefficients of the k-th orthonormal vector, zero where b_k was dropped
  double projected[kEntries];  ///< J^T J in that basis
  double vectors[kEntries];    ///< its eigenvectors, row by row
  double turned[kEntries];     ///< of a product of three matrices the first two
  double overlap[B * B];       ///< <update of pair k, new v_l>
  double before[B];            ///< |J v_k|^2
  double largest;              ///< out: the largest |J x| of a unit vector x in the span; 0 where that is not known
  double sign[B];
  int order[B];  ///< of the smallest eigenvalues, ascending
  bool kept[kVectors];
  bool moved[B];  ///< whether the step changed value k by more than rounding
};

/// Where a dropped vector stands among the eigenvalues. Its row and column are zero otherwise, and no rotation meets
/// it.
inline constexpr double kDroppedValue = 0x1p1000;

/// result = rows m rows^T.
template <int B, class Team>
BRACKET_HOST_DEVICE void congruence(Team& team, double* result, const double* m, BlockRitz<B>& s) {
  constexpr int kVectors = BlockRitz<B>::kVectors;
  for (int e = team.first(); e < kVectors * kVectors; e += team.count()) {
    const int i = e / kVectors, j = e % kVectors;
    double sum = 0;
    for (int k = 0; k < kVectors; ++k) sum += s.rows[i * kVectors + k] * m[k * kVectors + j];
    s.turned[e] = sum;
  }
  team.sync();
  for (int e = team.first(); e < kVectors * kVectors; e += team.count()) {
    const int i = e / kVectors, j = e % kVectors;
    // Of both triangles the same sum, so that the result is symmetric to the last bit.
    const int row = i < j ? j : i, column = i < j ? i : j;
    double sum = 0;
    for (int k = 0; k < kVectors; ++k) sum += s.turned[row * kVectors + k] * s.rows[column * kVectors + k];
    result[e] = sum;
  }
  team.sync();
}

/// Row k of `rows` becomes the coefficients of the k-th orthonormal vector: Cholesky's elimination of the Gram matrix,
/// applied to the identity, twice. A pivot of the unit vectors is the squared sine between vector k and the span of
/// those before it: what has less than kRitzDependence is dropped.
template <int B, class Team>
BRACKET_HOST_DEVICE void orthonormalize(Team& team, BlockRitz<B>& s) {
  constexpr int kVectors = BlockRitz<B>::kVectors;
  double* const gram = s.projected;
  for (int e = team.first(); e < kVectors * kVectors; e += team.count()) {
    const int i = e / kVectors, j = e % kVectors;
    s.rows[e] = i == j && s.basis[e] > 0 ? 1 / square_root(s.basis[e]) : 0;
  }
  team.sync();
  for (int turn = 0; turn < 2; ++turn) {
    congruence<B>(team, gram, s.basis, s);
    for (int k = 0; k < kVectors; ++k) {
      const double pivot = gram[k * kVectors + k];
      const bool kept = pivot > (turn == 0 ? kRitzDependence : 0);
      if (team.first() == 0) s.kept[k] = kept;
      const int below = kVectors - 1 - k;
      for (int e = team.first(); e < below * kVectors; e += team.count()) {
        const int i = k + 1 + e / kVectors, j = e % kVectors;
        const double factor = kept ? gram[i * kVectors + k] / pivot : 0;
        s.rows[i * kVectors + j] -= factor * s.rows[k * kVectors + j];
        if (j > k) gram[i * kVectors + j] -= factor * gram[k * kVectors + j];
      }
      team.sync();
      const double scale = kept ? 1 / square_root(pivot) : 0;
      for (int j = team.first(); j < kVectors; j += team.count()) s.rows[k * kVectors + j] *= scale;
    }
    team.sync();
  }
}

/// largest, order, sign and moved, by one member.
template <int B>
BRACKET_HOST_DEVICE void choose_pairs(BlockRitz<B>& s, double roundoff) {
  constexpr int kVectors = BlockRitz<B>::kVectors;
  double largest = 0;
  for (int i = 0; i < kVectors; ++i) {
    const double value = s.projected[i * kVectors + i];
    if (s.kept[i] && value > largest) largest = value;
  }
  s.largest = square_root(largest);
  for (int k = 0; k < B; ++k) {
    int best = -1;
    for (int i = 0; i < kVectors; ++i) {
      bool taken = false;
      for (int l = 0; l < k; ++l) taken = taken || s.order[l] == i;
      if (taken) continue;
      if (best < 0 || s.projected[i * kVectors + i] < s.projected[best * kVectors + best]) best = i;
    }
    s.order[k] = best;
    s.sign[k] = s.vectors[best * kVectors + k] < 0 ? -1 : 1;
    // The values of v that were no Ritz vectors, as those of a start, may have been lower.
    const double gain = ::fabs(s.before[k] - s.projected[best * kVectors + best]);
    s.moved[k] = !s.kept[k] || gain > 4 * roundoff * square_root(::fabs(s.before[k])) * square_root(largest);
  }
}

/// Fills v and p. The new v_k are orthonormal, |J v_k| ascends, and they are the Ritz vectors of the B smallest values
/// in the span. p_k is a unit vector (or zero) orthogonal to all of them which spans with them what v_k moved by
/// (Hetmaniuk and Lehoucq 2006). v_k keeps the sign it has along the old v_k. All NaN where a product is not finite or
/// fewer than B vectors are independent.
///
/// As in ritz_step, a gain that rounding of the images explains is none: p_k starts afresh, and where no pair gained
/// anything the v_k stay as they are.
template <int B, class Team>
BRACKET_HOST_DEVICE void block_ritz_step(Team& team, BlockRitz<B>& s, double roundoff) {
  constexpr int kVectors = BlockRitz<B>::kVectors;
  double check = 0;
  for (int e = 0; e < kVectors * kVectors; ++e) check += 0 * s.basis[e] + 0 * s.image[e];
  int independent = 0;
  if (check == 0) {
    orthonormalize<B>(team, s);
    for (int k = 0; k < kVectors; ++k) independent += s.kept[k] ? 1 : 0;
  }
  if (independent < B) {
    for (int e = team.first(); e < B * kVectors; e += team.count()) s.v[e] = s.p[e] = not_a_number();
    if (team.first() == 0) s.largest = 0;
    team.sync();
    return;
  }
  congruence<B>(team, s.projected, s.image, s);
  for (int k = team.first(); k < kVectors; k += team.count()) {
    if (k < B) s.before[k] = s.projected[k * kVectors + k];
    if (!s.kept[k]) s.projected[k * kVectors + k] = kDroppedValue;
  }
  team.sync();
  team.diagonalize(s.projected, s.vectors, kVectors);
  if (team.first() == 0) choose_pairs<B>(s, roundoff);
  team.sync();
  bool any = false;
  for (int k = 0; k < B; ++k) any = any || s.moved[k];
  // The part of the new v_k outside the old V, a unit vector, less what it has of the new V.
  for (int e = team.first(); e < B * B; e += team.count()) {
    const double* const y = s.vectors + s.order[e / B] * kVectors;
    const double* const other = s.vectors + s.order[e % B] * kVectors;
    double squares = 0, product = 0;
    for (int i = B; i < kVectors; ++i) {
      squares += y[i] * y[i];
      product += y[i] * other[i];
    }
    s.overlap[e] = squares == 0 ? 0 : product / square_root(squares);
  }
  for (int e = team.first(); e < kVectors * B; e += team.count()) s.v[e] = s.p[e] = 0;
  team.sync();
  for (int e = team.first(); e < B * kVectors; e += team.count()) {
    const int k = e / kVectors, j = e % kVectors;
    const double* const y = s.vectors + s.order[k] * kVectors;
    if (!any) {
      s.v[e] = s.rows[k * kVectors + j];
      continue;
    }
    double squares = 0;
    for (int i = B; i < kVectors; ++i) squares += y[i] * y[i];
    const double inverse = squares == 0 ? 0 : 1 / square_root(squares);
    double length = 0, direction = 0, along = 0;
    for (int i = 0; i < kVectors; ++i) {
      double update = i < B ? 0 : inverse * y[i];
      for (int l = 0; l < B; ++l) update -= s.overlap[k * B + l] * s.vectors[s.order[l] * kVectors + i];
      length += update * update;
      direction += update * s.rows[i * kVectors + j];
      along += y[i] * s.rows[i * kVectors + j];
    }
    s.v[e] = s.sign[k] * along;
    // A pair that turned into the old complement altogether leaves an update within the new V.
    if (s.moved[k] && length > kRitzDependence) s.p[e] = s.sign[k] * direction / square_root(length);
  }
  team.sync();
}

}  // namespace bracket::formula
