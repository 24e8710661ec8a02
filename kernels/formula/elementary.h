// Elementary functions in double with one definition for every device: each operation rounds once, in the order written
// here. Products that feed a sum are written as fused multiply-adds, so that no compiler is left a choice; the CUDA
// intrinsics of the other operations cannot be contracted. Every loop over these functions vectorises on the CPU.
//
// Error bounds below are in units in the last place of the result (ulp), measured against 80-bit long double by
// tests/random_test.cpp.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/formula/host_device.h"

namespace bracket::formula {

#if defined(__CUDA_ARCH__)
BRACKET_HOST_DEVICE double sum(double a, double b) { return __dadd_rn(a, b); }
BRACKET_HOST_DEVICE double product(double a, double b) { return __dmul_rn(a, b); }
BRACKET_HOST_DEVICE double quotient(double a, double b) { return __ddiv_rn(a, b); }
BRACKET_HOST_DEVICE double square_root(double a) { return __dsqrt_rn(a); }
BRACKET_HOST_DEVICE float square_root(float a) { return __fsqrt_rn(a); }
/// a b + c, rounded once.
BRACKET_HOST_DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
BRACKET_HOST_DEVICE double sum(double a, double b) { return a + b; }
BRACKET_HOST_DEVICE double product(double a, double b) { return a * b; }
BRACKET_HOST_DEVICE double quotient(double a, double b) { return a / b; }
BRACKET_HOST_DEVICE double square_root(double a) { return std::sqrt(a); }
BRACKET_HOST_DEVICE float square_root(float a) { return std::sqrt(a); }
/// a b + c, rounded once.
BRACKET_HOST_DEVICE double fused(double a, double b, double c) { return std::fma(a, b, c); }
#endif

inline constexpr double kLn2 = 0.693147180559945309417;
inline constexpr double kTwoPi = 6.28318530717958647693;

/// Sums of squares between these have neither overflowed nor lost what is worth a rounding to underflow.
inline constexpr double kLeastSquares = 0x1p-900;
inline constexpr double kMostSquares = 0x1p1000;

/// Natural logarithm of a positive normal number; error below 2 ulp.
/// x = 2^k m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), as a series in s^2 <= 0.0295
/// whose first omitted term, s^20 / 21, is below 3e-17 of the sum.
BRACKET_HOST_DEVICE double logarithm(double x) {
  constexpr std::uint64_t kSqrtHalfBits = 0x3fe6a09e667f3bcdULL;
  constexpr std::uint64_t kExponentBias = 1023;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const std::uint64_t biased = (bits - kSqrtHalfBits + (kExponentBias << 52)) >> 52;
  const double m = std::bit_cast<double>(bits - (biased << 52) + (kExponentBias << 52));
  // An integer below 2^52 becomes a double by taking the place of the low bits of 2^52.
  constexpr std::uint64_t kTwoTo52Bits = 0x4330000000000000ULL;
  const double k = sum(std::bit_cast<double>(biased | kTwoTo52Bits), -(0x1p52 + 1023.0));
  const double f = sum(m, -1.0);
  const double s = quotient(f, sum(2.0, f));
  const double z = product(s, s);
  double series = 1.0 / 19;
  series = fused(series, z, 1.0 / 17);
  series = fused(series, z, 1.0 / 15);
  series = fused(series, z, 1.0 / 13);
  series = fused(series, z, 1.0 / 11);
  series = fused(series, z, 1.0 / 9);
  series = fused(series, z, 1.0 / 7);
  series = fused(series, z, 1.0 / 5);
  series = fused(series, z, 1.0 / 3);
  const double twice_s = sum(s, s);
  return fused(k, kLn2, fused(product(twice_s, z), series, twice_s));
}

struct SineCosine {
  double sine;
  double cosine;
};

/// Sine and cosine of `turns` full turns, |turns| < 2^28; absolute error below 2^-52.
/// The angle is reduced exactly to [-1/8, 1/8] turn; the Taylor series stop where the first omitted term,
/// (pi/4)^19 / 19! and (pi/4)^18 / 18!, is below 3e-18.
BRACKET_HOST_DEVICE SineCosine sine_cosine_of_turns(double turns) {
  const double quarter = ::rint(product(4.0, turns));
  const double t = product(fused(-0.25, quarter, turns), kTwoPi);
  const double z = product(t, t);
  double odd = 1.0 / 355687428096000;  // 17!
  odd = fused(odd, z, -1.0 / 1307674368000);
  odd = fused(odd, z, 1.0 / 6227020800);
  odd = fused(odd, z, -1.0 / 39916800);
  odd = fused(odd, z, 1.0 / 362880);
  odd = fused(odd, z, -1.0 / 5040);
  odd = fused(odd, z, 1.0 / 120);
  odd = fused(odd, z, -1.0 / 6);
  double even = 1.0 / 20922789888000;  // 16!
  even = fused(even, z, -1.0 / 87178291200);
  even = fused(even, z, 1.0 / 479001600);
  even = fused(even, z, -1.0 / 3628800);
  even = fused(even, z, 1.0 / 40320);
  even = fused(even, z, -1.0 / 720);
  even = fused(even, z, 1.0 / 24);
  even = fused(even, z, -1.0 / 2);
  const double sine = fused(product(t, z), odd, t);
  const double cosine = fused(z, even, 1.0);
  const auto quadrant = static_cast<std::int32_t>(quarter);
  const double s = (quadrant & 1) != 0 ? cosine : sine;
  const double c = (quadrant & 1) != 0 ? sine : cosine;
  return {(quadrant & 2) != 0 ? -s : s, ((quadrant + 1) & 2) != 0 ? -c : c};
}

/// e^x for |x| <= 700; error below 2 ulp.
/// x = k log 2 + r, |r| <= 0.347; the Taylor series stops before r^14 / 14!, below 5e-18.
BRACKET_HOST_DEVICE double exponential(double x) {
  constexpr double kLn2High = 0x1.62e42fee00000p-1;  // 33 bits: k kLn2High is exact
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  const double k = ::rint(product(x, 1.44269504088896340736));
  const double r = fused(-k, kLn2Low, fused(-k, kLn2High, x));
  double series = 1.0 / 6227020800;  // 13!
  series = fused(series, r, 1.0 / 479001600);
  series = fused(series, r, 1.0 / 39916800);
  series = fused(series, r, 1.0 / 3628800);
  series = fused(series, r, 1.0 / 362880);
  series = fused(series, r, 1.0 / 40320);
  series = fused(series, r, 1.0 / 5040);
  series = fused(series, r, 1.0 / 720);
  series = fused(series, r, 1.0 / 120);
  series = fused(series, r, 1.0 / 24);
  series = fused(series, r, 1.0 / 6);
  series = fused(series, r, 0.5);
  const double value = sum(fused(product(r, r), series, r), 1.0);
  const auto exponent = static_cast<std::int64_t>(static_cast<std::int32_t>(k));
  return std::bit_cast<double>(static_cast<std::uint64_t>(std::bit_cast<std::int64_t>(value) + exponent * (1LL << 52)));
}

}  // namespace bracket::formula
