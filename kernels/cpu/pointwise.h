// Pointwise non-linearities and their first two derivatives, written so that compilers vectorise them: no branches, no
// library calls, plain arithmetic (every instruction set gives the same bits).
//
// Largest error in ulp against long double over 8 million arguments each, float / double:
//   exp 1.0 / 1.0, expm1 1.1 / 1.1, log1p 1.9 / 1.9, sigmoid 2.7 / 2.8, tanh 3.0 / 3.2, softplus 2.6 / 2.8,
//   silu 3.3 / 3.5, sigmoid' 4.6 / 4.9, tanh' 5.7 / 5.6, silu' 4.7 / 4.8 (of |sigmoid| + |v sigmoid'|).
// Where e^-|v| falls below the smallest normal number it counts as 0.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace bracket {

// exp(x) = 2^k (1 + m), m = expm1(r), r = x - k log 2 in [-log 2 / 2, log 2 / 2], expm1(r) = r + r^2 q(r).
// log1p(e) = 2 atanh(s) = 2 s + s z p(z), s = e / (2 + e), z = s^2 <= 1/9 for e in [0, 1].
// q and p interpolate at Chebyshev nodes (highest power first); their truncation adds at most 0.4 ulp.
template <class T>
struct Polynomials;

template <>
struct Polynomials<float> {
  using Bits = std::uint32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr Bits kExponentBias = 127;
  static constexpr float kRoundToInteger = 0x1.8p23F;  // x + this keeps the nearest integer of x in the low bits
  static constexpr float kLowest = -87.0F;             // exp below this is 0: the smallest normal is exp(-87.3)
  static constexpr float kInverseLog2 = 1.44269504F;
  static constexpr float kLog2High = 0x1.62e4p-1F;  // 15 bits: its product with k is exact
  static constexpr float kLog2Low = 1.42860677e-6F;
  static constexpr float kExp[] = {1.3926326e-3F, 8.3632926e-3F, 4.1666552e-2F, 0.16666576F, 0.5F};
  static constexpr float kLog[] = {0.26851499F, 0.28236619F, 0.40007561F, 0.66666639F};
};

template <>
struct Polynomials<double> {
  using Bits = std::uint64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr Bits kExponentBias = 1023;
  static constexpr double kRoundToInteger = 0x1.8p52;
  static constexpr double kLowest = -708.0;  // the smallest normal is exp(-708.4)
  static constexpr double kInverseLog2 = 1.4426950408889634;
  static constexpr double kLog2High = 0x1.62e42fefa38p-1;  // 42 bits
  static constexpr double kLog2Low = 5.497923018708371e-14;
  static constexpr double kExp[] = {2.5100569275813683e-08, 2.762032742826824e-07, 2.75572680728901e-06,
                                    2.4801520792572694e-05, 1.9841269863303223e-4, 1.3888888917538296e-3,
                                    8.333333333330011e-3,   0.04166666666662348,   0.16666666666666669,
                                    0.5000000000000001};
  static constexpr double kLog[] = {0.1616404561194353,  0.08800738486144674, 0.12001072809590713, 0.13314144209654935,
                                    0.15385570064958623, 0.18181789436132859, 0.22222222717427864, 0.2857142856710876,
                                    0.40000000000014585, 0.6666666666666666};
};

template <class T, std::size_t kTerms>
[[gnu::always_inline]] inline T horner(const T (&coefficients)[kTerms], T x) {
  T sum = coefficients[0];
  for (std::size_t i = 1; i < kTerms; ++i) sum = sum * x + coefficients[i];
  return sum;
}

template <class T>
struct Exponential {
  T value;      ///< e^x
  T minus_one;  ///< e^x - 1 without cancellation
};

/// For x <= 0 (or NaN), which is all that stable sigmoids need.
template <class T>
[[gnu::always_inline]] inline Exponential<T> exp_nonpositive(T x) {
  using P = Polynomials<T>;
  const T clamped = x < P::kLowest ? P::kLowest : x;
  const T shifted = clamped * P::kInverseLog2 + P::kRoundToInteger;
  const T k = shifted - P::kRoundToInteger;
  const T r = (clamped - k * P::kLog2High) - k * P::kLog2Low;
  const T m = r + r * r * horner(P::kExp, r);
  using Bits = typename P::Bits;
  const T scale =
      std::bit_cast<T>(static_cast<Bits>((std::bit_cast<Bits>(shifted) + P::kExponentBias) << P::kMantissaBits));
  return {x < P::kLowest ? T{0} : scale + scale * m, scale * m + (scale - T{1})};
}

/// log(1 + e) for e in [0, 1].
template <class T>
[[gnu::always_inline]] inline T log1p_unit(T e) {
  const T s = e / (T{2} + e);
  const T z = s * s;
  return T{2} * s + s * z * horner(Polynomials<T>::kLog, z);
}

template <class T>
struct Pointwise {
  T value;
  T first;   ///< f'
  T second;  ///< f''
};

/// f(v), f'(v) and f''(v); what the caller does not read is not computed. A kink takes the derivative of its negative
/// side, as PyTorch does.
template <Activation kFunction, class T>
[[gnu::always_inline]] inline Pointwise<T> evaluate(T v, T slope) {
  if constexpr (kFunction == Activation::identity) {
    return {v, T{1}, T{0}};
  } else if constexpr (kFunction == Activation::relu) {
    return {v <= T{0} ? T{0} : v, v <= T{0} ? T{0} : T{1}, T{0}};
  } else if constexpr (kFunction == Activation::leaky_relu || kFunction == Activation::prelu) {
    return {v <= T{0} ? slope * v : v, v <= T{0} ? slope : T{1}, T{0}};
  } else if constexpr (kFunction == Activation::tanh) {
    // tanh |v| = (1 - e) / (1 + e), 1 - tanh^2 = 4 e / (1 + e)^2 with e = exp(-2 |v|)
    const Exponential<T> e = exp_nonpositive(T{-2} * std::abs(v));
    const T inverse = T{1} / (T{2} + e.minus_one);
    const T value = std::copysign(e.minus_one * inverse, v);
    const T first = T{4} * e.value * inverse * inverse;
    return {value, first, T{-2} * value * first};
  } else {
    // sigmoid(|v|) = 1 / (1 + e), sigmoid(-|v|) = e / (1 + e) with e = exp(-|v|): no cancellation on either side
    const T e = exp_nonpositive(-std::abs(v)).value;
    const T large = T{1} / (T{1} + e);
    const T small = e * large;
    const T up = v < T{0} ? small : large;    // sigmoid(v)
    const T down = v < T{0} ? large : small;  // sigmoid(-v) = 1 - sigmoid(v)
    const T first = large * small;            // sigmoid'(v)
    if constexpr (kFunction == Activation::sigmoid) {
      return {up, first, first * (down - up)};
    } else if constexpr (kFunction == Activation::silu) {
      return {v * up, up + v * first, first * (T{2} + v * (down - up))};
    } else {
      static_assert(kFunction == Activation::softplus);
      return {(v < T{0} ? T{0} : v) + log1p_unit(e), up, first};
    }
  }
}

}  // namespace bracket
