// Sums in double whose order is fixed by the number of terms, in a form compilers turn into SIMD registers.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/formula/elementary.h"

namespace bracket {

/// Four AVX2 registers of doubles: enough independent sums to hide the latency of an addition (a dot product of 2,048
/// doubles runs at 20 GFLOP/s on one core, of one lane at 2).
inline constexpr int kSumLanes = 16;

/// Sum of term(i), i in [0, count). Fewer terms than lanes are added in order; else lane l takes the terms
/// i = l mod kSumLanes in order and the lanes are added in halves.
template <class Term>
double lane_sum(std::int64_t count, Term&& term) {
  std::int64_t i = 0;
  if (count < kSumLanes) {
    double sum = 0;
    for (; i < count; ++i) sum += term(i);
    return sum;
  }
  double lanes[kSumLanes] = {};
  for (; i + kSumLanes <= count; i += kSumLanes) {
    for (int lane = 0; lane < kSumLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += term(i);
  for (int half = kSumLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

/// <a, b> in double.
template <class A, class B>
double inner_product(const A* a, const B* b, std::int64_t count) {
  return lane_sum(count, [a, b](std::int64_t i) { return static_cast<double>(a[i]) * static_cast<double>(b[i]); });
}

/// sqrt(sum of value(i)^2), i in [0, count); NaN where a value is not finite.
template <class Value>
double euclidean_length(std::int64_t count, Value&& value) {
  const double squares = lane_sum(count, [&](std::int64_t i) { return value(i) * value(i); });
  if (squares > formula::kLeastSquares && squares < formula::kMostSquares) return std::sqrt(squares);
  double largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::fmax(largest, std::abs(value(i)));
  if (largest == 0) return squares;
  return largest * std::sqrt(lane_sum(count, [&](std::int64_t i) {
           const double share = value(i) / largest;
           return share * share;
         }));
}

}  // namespace bracket
