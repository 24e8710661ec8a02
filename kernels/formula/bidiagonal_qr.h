// Singular values of an upper bidiagonal B, and the first components of its right singular vectors, in O(k^2).
//
// Implicit QR sweeps that shift by zero while the block at hand is ill-conditioned (Demmel and Kahan 1990; LAPACK's
// dbdsqr). Such a sweep neither adds nor subtracts: it changes every element of B by a few roundings of itself, and
// with that every singular value of any size by a few (2 k - 1) roundings of itself. A shifted sweep changes values by
// roundings of the largest in its block, and runs only where that is at most kShiftCondition times the smallest by the
// estimate of `split`: at conditions up to about 128 sqrt(k). An element e is zero below kNegligible of what is left.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"

namespace bracket::formula {

inline constexpr double kNegligible = 0x1p-50;  ///< 8 roundings of a value: fewer than any sweep over 3 rows costs it
inline constexpr double kShiftCondition = 128;
/// Sweeps per value, of which 2.5 are usual. What has not converged then is reported as NaN.
inline constexpr std::int64_t kSweepsPerValue = 30;

struct PlaneRotation {
  double cosine, sine;
  double length;  ///< (f, g) turned: (length, 0)
};

/// Neither overflows nor underflows where `length` does not.
BRACKET_HOST_DEVICE PlaneRotation plane_rotation(double f, double g) {
  if (g == 0) return {1, 0, f};
  if (::fabs(f) > ::fabs(g)) {
    const double tangent = g / f, secant = square_root(1 + tangent * tangent), cosine = 1 / secant;
    return {cosine, tangent * cosine, f * secant};
  }
  const double cotangent = f / g, cosecant = square_root(1 + cotangent * cotangent), sine = 1 / cosecant;
  return {cotangent * sine, sine, g * cosecant};
}

/// B in place, every `stride` doubles an element: d its diagonal, e right of it, z = V^T e_1 for B = U S V^T, e_1 at
/// first.
struct BidiagonalRow {
  double* d;
  double* e;
  double* z;
  std::int64_t stride;
};

/// Rows [first, first + size) of B, or of its mirror image, its transpose from the last row to the first, in which what
/// is small at the top moves to the bottom.
class BidiagonalBlock {
 public:
  BRACKET_HOST_DEVICE BidiagonalBlock(const BidiagonalRow& row, std::int64_t first, std::int64_t size, bool mirrored)
      : row_(row), origin_(mirrored ? first + size - 1 : first), size_(size), mirrored_(mirrored) {}

  BRACKET_HOST_DEVICE std::int64_t size() const { return size_; }
  BRACKET_HOST_DEVICE double& d(std::int64_t i) const { return row_.d[at(i)]; }
  BRACKET_HOST_DEVICE double& e(std::int64_t i) const { return row_.e[mirrored_ ? at(i + 1) : at(i)]; }
  /// Applies to rows i and i + 1 of V^T the rotation that B received from the right, or its mirror image from the left.
  BRACKET_HOST_DEVICE void turn(std::int64_t i, const PlaneRotation& right, const PlaneRotation& left) const {
    const PlaneRotation& r = mirrored_ ? left : right;
    double& x = row_.z[at(i)];
    double& y = row_.z[at(i + 1)];
    const double first = x, second = y;
    x = r.cosine * first + r.sine * second;
    y = r.cosine * second - r.sine * first;
  }

 private:
  BRACKET_HOST_DEVICE std::int64_t at(std::int64_t i) const {
    return (mirrored_ ? origin_ - i : origin_ + i) * row_.stride;
  }

  const BidiagonalRow& row_;
  std::int64_t origin_, size_;
  bool mirrored_;
};

/// One sweep without a shift, in which nothing cancels.
BRACKET_HOST_DEVICE void zero_shift_sweep(const BidiagonalBlock& b) {
  const std::int64_t last = b.size() - 1;
  PlaneRotation right = {1, 0, 0}, left = {1, 0, 0};
  for (std::int64_t i = 0; i < last; ++i) {
    right = plane_rotation(b.d(i) * right.cosine, b.e(i));
    if (i > 0) b.e(i - 1) = left.sine * right.length;
    left = plane_rotation(left.cosine * right.length, b.d(i + 1) * right.sine);
    b.d(i) = left.length;
    b.turn(i, right, left);
  }
  const double rest = b.d(last) * right.cosine;
  b.d(last) = rest * left.cosine;
  b.e(last - 1) = rest * left.sine;
}

/// One sweep of QR on B^T B - shift^2, without forming it.
BRACKET_HOST_DEVICE void shifted_sweep(const BidiagonalBlock& b, double shift) {
  const std::int64_t last = b.size() - 1;
  double f = (::fabs(b.d(0)) - shift) * (::copysign(1.0, b.d(0)) + shift / b.d(0)), g = b.e(0);
  for (std::int64_t i = 0; i < last; ++i) {
    const PlaneRotation right = plane_rotation(f, g);
    if (i > 0) b.e(i - 1) = right.length;
    f = right.cosine * b.d(i) + right.sine * b.e(i);
    const double above = right.cosine * b.e(i) - right.sine * b.d(i), below = right.cosine * b.d(i + 1);
    const PlaneRotation left = plane_rotation(f, right.sine * b.d(i + 1));
    b.d(i) = left.length;
    b.d(i + 1) = left.cosine * below - left.sine * above;
    f = left.cosine * above + left.sine * below;
    if (i + 1 < last) {
      g = left.sine * b.e(i + 1);
      b.e(i + 1) *= left.cosine;
    }
    b.turn(i, right, left);
  }
  b.e(last - 1) = f;
}

/// The smaller singular value of the last two rows and columns.
BRACKET_HOST_DEVICE double last_shift(const BidiagonalBlock& b) {
  const std::int64_t last = b.size() - 1;
  const double f = ::fabs(b.d(last - 1)), g = b.e(last - 1), h = ::fabs(b.d(last));
  return h * (f / (0.5 * (::hypot(f + h, g) + ::hypot(f - h, g))));
}

/// Sets to zero the first element that is negligible, and returns true; else `smallest` is the smallest singular value
/// up to a factor sqrt(size) either way: 1 / |B^-1|, of columns summed.
BRACKET_HOST_DEVICE bool split(const BidiagonalBlock& b, double& smallest) {
  const std::int64_t last = b.size() - 1;
  if (::fabs(b.e(last - 1)) <= kNegligible * ::fabs(b.d(last))) {
    b.e(last - 1) = 0;
    return true;
  }
  double rest = ::fabs(b.d(0));
  smallest = rest;
  for (std::int64_t i = 0; i < last; ++i) {
    if (::fabs(b.e(i)) <= kNegligible * rest) {
      b.e(i) = 0;
      return true;
    }
    rest = ::fabs(b.d(i + 1)) * (rest / (rest + ::fabs(b.e(i))));
    smallest = rest < smallest ? rest : smallest;
  }
  return false;
}

/// d becomes the singular values, in any order and of any sign, z follows. False where `sweeps` did not do.
BRACKET_HOST_DEVICE bool diagonalize_bidiagonal(const BidiagonalRow& row, std::int64_t k, std::int64_t sweeps) {
  std::int64_t end = k, chased_first = k, chased_end = k;
  bool mirrored = false;
  while (end > 1) {
    std::int64_t first = end - 1;
    double largest = ::fabs(row.d[first * row.stride]);
    for (; first > 0 && row.e[(first - 1) * row.stride] != 0; --first) {
      const double d = ::fabs(row.d[(first - 1) * row.stride]), e = ::fabs(row.e[(first - 1) * row.stride]);
      largest = d > largest ? d : largest;
      largest = e > largest ? e : largest;
    }
    if (first == end - 1) {
      --end;
      continue;
    }
    // A block that was not part of the last one is swept towards its smaller end.
    if (first >= chased_end || end <= chased_first)
      mirrored = ::fabs(row.d[first * row.stride]) < ::fabs(row.d[(end - 1) * row.stride]);
    chased_first = first;
    chased_end = end;
    const BidiagonalBlock block(row, first, end - first, mirrored);
    double smallest = 0;
    if (split(block, smallest)) continue;
    if (sweeps-- == 0) return false;
    const double shift = smallest * kShiftCondition >= largest ? last_shift(block) : 0;
    // A shift that the first element does not feel is none.
    const double share = shift == 0 ? 0 : shift / ::fabs(block.d(0));
    if (share * share < 0x1p-53) {
      zero_shift_sweep(block);
    } else {
      shifted_sweep(block, shift);
    }
  }
  return true;
}

}  // namespace bracket::formula
