// Rayleigh-Ritz for the smallest singular value of J on the span of three vectors, from inner products alone.
//
// The vectors b_0 = v (the approximation so far), b_1 = r (its residual), b_2 = p (the previous update) and their
// images J b_i are never touched here: a basis that is orthonormal, the projected problem and its solution are 3 x 3
// sums of their inner products, in double.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"
#include "kernels/formula/jacobi.h"

namespace bracket::formula {

inline constexpr int kRitzVectors = 3;

/// <b_i, b_j> and <J b_i, J b_j>.
struct RitzProducts {
  double basis[kRitzVectors][kRitzVectors];
  double image[kRitzVectors][kRitzVectors];
};

/// The new v and p are sum_i v[i] b_i and sum_i p[i] b_i.
struct RitzCoefficients {
  double v[kRitzVectors];
  double p[kRitzVectors];
  double largest;  ///< the largest |J x| of a unit vector x in the span; 0 where that is not known
};

/// Of one rounding of an image in storage.
template <class T>
inline constexpr double kRoundoff = sizeof(T) == sizeof(float) ? 0x1p-24 : 0x1p-53;

BRACKET_HOST_DEVICE double not_a_number() { return std::bit_cast<double>(std::uint64_t{0x7ff8000000000000}); }

/// A vector whose part outside the span of those before it has a smaller squared sine than this is dropped. Rounding of
/// the inner products, 1e-16, is divided by it: what is left of a dependent vector behind one that was just kept is of
/// the order 1e-10, and must be far below. In exact arithmetic r is orthogonal to v and p, so what is dropped is
/// rounding.
inline constexpr double kRitzDependence = 1e-6;

BRACKET_HOST_DEVICE double bilinear(const double* x, const double (*m)[kRitzVectors], const double* y) {
  double sum = 0;
  for (int i = 0; i < kRitzVectors; ++i) {
    for (int j = 0; j < kRitzVectors; ++j) sum += x[i] * m[i][j] * y[j];
  }
  return sum;
}

/// Row k of `rows` becomes the coefficients of the k-th orthonormal vector (Gram-Schmidt, each vector twice). Returns
/// their number; row 0 belongs to v, and there are none when v has no length.
BRACKET_HOST_DEVICE int orthonormal_rows(double (*rows)[kRitzVectors], const double (*basis)[kRitzVectors]) {
  int kept = 0;
  for (int i = 0; i < kRitzVectors; ++i) {
    double c[kRitzVectors] = {};
    bool independent = basis[i][i] > 0;
    if (independent) c[i] = 1 / square_root(basis[i][i]);
    for (int turn = 0; turn < 2 && independent; ++turn) {
      for (int k = 0; k < kept; ++k) {
        const double overlap = bilinear(c, basis, rows[k]);
        for (int j = 0; j < kRitzVectors; ++j) c[j] -= overlap * rows[k][j];
      }
      const double squares = bilinear(c, basis, c);
      independent = squares > kRitzDependence;
      if (independent) {
        for (int j = 0; j < kRitzVectors; ++j) c[j] /= square_root(squares);
      }
    }
    if (!independent && i == 0) return 0;
    if (!independent) continue;
    for (int j = 0; j < kRitzVectors; ++j) rows[kept][j] = c[j];
    ++kept;
  }
  return kept;
}

/// Jacobi's method: a [count, count] becomes diagonal, row i of `vectors` the eigenvector of a[i][i].
template <int kSize>
BRACKET_HOST_DEVICE void diagonalize_small(double (*a)[kSize], double (*vectors)[kSize], int count) {
  constexpr int kMaxSweeps = 30;  // 4 to 6 are usual
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < count; ++j) vectors[i][j] = i == j ? 1 : 0;
  }
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMaxSweeps; ++sweep) {
    rotated = false;
    for (int p = 0; p < count; ++p) {
      for (int q = p + 1; q < count; ++q) {
        const double off = a[p][q];
        if (::fabs(off) <= 0x1p-53 * square_root(::fabs(a[p][p])) * square_root(::fabs(a[q][q]))) continue;
        rotated = true;
        const auto [c, s, tangent] = jacobi_rotation(a[p][p], a[q][q], off);
        for (int i = 0; i < count; ++i) {
          const double x = vectors[p][i], y = vectors[q][i];
          vectors[p][i] = c * x - s * y;
          vectors[q][i] = s * x + c * y;
          if (i == p || i == q) continue;
          const double first = a[p][i], second = a[q][i];
          a[p][i] = a[i][p] = c * first - s * second;
          a[q][i] = a[i][q] = s * first + c * second;
        }
        a[p][p] -= tangent * off;
        a[q][q] += tangent * off;
        a[p][q] = a[q][p] = 0;
      }
    }
  }
}

BRACKET_HOST_DEVICE bool finite_products(const RitzProducts& products) {
  double sum = 0;
  for (int i = 0; i < kRitzVectors; ++i) {
    for (int j = 0; j <= i; ++j) sum += 0 * products.basis[i][j] + 0 * products.image[i][j];
  }
  return sum == 0;
}

/// v: the unit vector of the span with the smallest |J v|. p: the unit vector orthogonal to it in the plane of the old
/// and the new v, which spans with v what v and the update would (Hetmaniuk and Lehoucq 2006), without their
/// cancellation; zero where v did not move. The sign of v follows the old one. All NaN where a product is not finite or
/// v has no length.
///
/// v stays where it is, and p starts afresh, when the step lowers |J v|^2 by less than the rounding of the images can
/// tell: `roundoff` |J v| times the largest |J b|, four times over. r is rounding then, and going on would divide the
/// rounding of J p by the sine between r and p in every further step: 60 steps in f32 (d = 9, condition 10) lost 1 % of
/// mu again.
BRACKET_HOST_DEVICE RitzCoefficients ritz_step(const RitzProducts& products, double roundoff) {
  RitzCoefficients result = {};
  double rows[kRitzVectors][kRitzVectors];
  const int count = finite_products(products) ? orthonormal_rows(rows, products.basis) : 0;
  if (count == 0) {
    for (int i = 0; i < kRitzVectors; ++i) result.v[i] = result.p[i] = not_a_number();
    return result;
  }
  double projected[kRitzVectors][kRitzVectors], vectors[kRitzVectors][kRitzVectors];
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j <= i; ++j) projected[i][j] = projected[j][i] = bilinear(rows[i], products.image, rows[j]);
  }
  const double before = projected[0][0];
  diagonalize_small(projected, vectors, count);
  int smallest = 0;
  for (int i = 1; i < count; ++i) {
    if (projected[i][i] < projected[smallest][smallest]) smallest = i;
  }
  double largest = before;
  for (int i = 0; i < count; ++i) largest = projected[i][i] > largest ? projected[i][i] : largest;
  result.largest = square_root(largest);
  if (before - projected[smallest][smallest] <= 4 * roundoff * square_root(before) * square_root(largest)) {
    for (int i = 0; i < kRitzVectors; ++i) result.v[i] = rows[0][i];
    return result;
  }
  const double sign = vectors[smallest][0] < 0 ? -1 : 1;
  double moved = 0;  // squared sine of the angle between the old v and the new
  for (int k = 1; k < count; ++k) moved += vectors[smallest][k] * vectors[smallest][k];
  const double sine = square_root(moved);
  for (int k = 0; k < count; ++k) {
    const double weight = sign * vectors[smallest][k];
    const double cosine = sign * vectors[smallest][0];
    const double update = sine == 0 ? 0 : k == 0 ? -sine : weight * cosine / sine;
    for (int i = 0; i < kRitzVectors; ++i) {
      result.v[i] += weight * rows[k][i];
      result.p[i] += update * rows[k][i];
    }
  }
  return result;
}

}  // namespace bracket::formula
