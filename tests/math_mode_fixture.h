// The errors that products of f32 may have in each math mode, and references that carry what the bounds need.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>

#include "bracket/math_mode.h"
#include "ops_fixture.h"

namespace bracket::test {

inline constexpr std::array<MathMode, 3> kTensorModes = {MathMode::tf32x3, MathMode::tf32, MathMode::bf16};

/// A sum of products in double, sum |a b| (+ |c|), sum (a b)^2 and the number of products of each element.
struct ProductReference {
  HostMatrix value, magnitude, square, terms;

  ProductReference(std::int64_t rows, std::int64_t cols, const HostMatrix* initial)
      : value(rows, cols), magnitude(rows, cols), square(rows, cols), terms(rows, cols) {
    if (!initial) return;
    value = *initial;
    for (std::size_t k = 0; k < value.values.size(); ++k) magnitude.values[k] = std::abs(value.values[k]);
  }
  void add(std::int64_t i, std::int64_t j, double product) {
    value(i, j) += product;
    magnitude(i, j) += std::abs(product);
    square(i, j) += product * product;
    terms(i, j) += 1;
  }
};

/// c (+)= a b with a(m, p), b(p, n) as functions.
template <class A, class B>
ProductReference reference_product(std::int64_t m, std::int64_t n, std::int64_t p, A a, B b,
                                   const HostMatrix* initial) {
  ProductReference result(m, n, initial);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t k = 0; k < p; ++k) result.add(i, j, a(i, k) * b(k, j));
    }
  }
  return result;
}

/// Largest error of element k, to first order with u = 2^-24, S = sum |a b|, Q = sqrt(sum (a b)^2), K products.
/// Operands. An error of at most r |a b| in each product is r S in all; of independent errors of mean zero, as rounding
///   to nearest makes of random numbers, 8 r Q but for a probability of 2 exp(-32) (Hoeffding). r = 2^-10 + 2^-22 for
///   two operands of 11 bits, 2^-7 + 2^-16 for 8 bits, 3 2^-22 for tf32x3 (tensor_math.cuh).
/// Sums in the instruction (tests/simt/tensor_core.h): s products and the sum so far are each cut off below the 24th
///   bit of the largest, at most S, and so is their sum: (s + 2) 2 u S for each of K / s steps. tf32x3 starts every
///   step at 0, so that S is the step's own and its small products add 2^-10 twice: 10 2 u S (1 + 2^-9) for all steps;
///   its K / 8 additions round to nearest: min(n, 8 sqrt(n)) u S as in linear_test.cpp.
/// Chunks. At most one more addition each, of at least 256 p, and one to accumulate: (K / 256 + 1) u S.
/// fp32. The limit of linear_test.cpp.
inline double product_limit(MathMode mode, double terms, double magnitude, double square) {
  const double u = unit_roundoff(DType::f32);
  const auto random_walk = [](double n) { return std::min(n, 8 * std::sqrt(n)); };
  const double chunks = (terms / 256 + 1) * u * magnitude;
  const double eights = std::ceil(terms / 8);
  const auto rounded = [&](double r) { return std::min(r * magnitude, 8 * r * std::sqrt(square)); };
  switch (mode) {
    case MathMode::fp32:
      return 2 * random_walk(terms + 1) * u * magnitude;
    case MathMode::tf32x3:
      return rounded(0x3p-22) + (20 * (1 + 0x1p-9) + random_walk(eights)) * u * magnitude + chunks;
    case MathMode::tf32:
      return rounded(0x1p-10 + 0x1p-22) + eights * 10 * 2 * u * magnitude + chunks;
    case MathMode::bf16:
      return rounded(0x1p-7 + 0x1p-16) + std::ceil(terms / 16) * 18 * 2 * u * magnitude + chunks;
  }
  return 0;
}

/// Within the limit of the mode or that of fp32, which takes what is too small for tensor cores.
inline ::testing::AssertionResult within_limits(const HostMatrix& actual, const ProductReference& expected,
                                                MathMode mode) {
  if (actual.rows != expected.value.rows || actual.cols != expected.value.cols) {
    return ::testing::AssertionFailure() << "shape [" << actual.rows << ", " << actual.cols << "]";
  }
  for (std::size_t k = 0; k < actual.values.size(); ++k) {
    const auto limit_of = [&](MathMode one) {
      return product_limit(one, expected.terms.values[k], expected.magnitude.values[k], expected.square.values[k]);
    };
    const double limit = std::max(limit_of(mode), limit_of(MathMode::fp32));
    const double error = std::abs(actual.values[k] - expected.value.values[k]);
    if (error <= limit) continue;  // false for NaN
    const auto cols = static_cast<std::size_t>(actual.cols);
    return ::testing::AssertionFailure() << "[" << k / cols << ", " << k % cols << "] is " << actual.values[k]
                                         << ", expected " << expected.value.values[k] << " within " << limit << ", is "
                                         << error << " off";
  }
  return ::testing::AssertionSuccess();
}

/// The nearest number of `bits` significant bits; of two the one further from zero, or the even one.
inline double to_significant_bits(double value, int bits, bool ties_to_even) {
  int exponent = 0;
  const double scaled = std::ldexp(std::frexp(value, &exponent), bits);
  return std::ldexp(ties_to_even ? std::nearbyint(scaled) : std::round(scaled), exponent - bits);
}

}  // namespace bracket::test
