// The plane rotation that Jacobi's methods are made of, and the power of two that factorisations take out first.
#pragma once

#include <cmath>

#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"

namespace bracket::formula {

/// (x, y) <- (cosine x - sine y, sine x + cosine y)
struct JacobiRotation {
  double cosine, sine;
  double tangent;  ///< the diagonal elements become p - tangent off and q + tangent off
};

/// Makes the symmetric [[p, off], [off, q]] diagonal, off != 0, by the smaller of the two angles: at most pi / 4.
BRACKET_HOST_DEVICE JacobiRotation jacobi_rotation(double p, double q, double off) {
  const double theta = (q - p) / (2 * off);
  const double tangent = ::copysign(1.0, theta) / (::fabs(theta) + square_root(theta * theta + 1));
  const double cosine = 1 / square_root(tangent * tangent + 1);
  return {cosine, tangent * cosine, tangent};
}

/// Of elements x, the largest of magnitude `largest`, x 2^-e is between 1 and 2 at most; 0 where there is no such e.
BRACKET_HOST_DEVICE int scaling_exponent(double largest) {
  return largest > 0 && largest < HUGE_VAL ? ::ilogb(largest) : 0;
}

}  // namespace bracket::formula
