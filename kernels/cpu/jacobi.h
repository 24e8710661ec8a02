// What Jacobi's methods for eigenvalues (dense.cpp) and singular values (singular.cpp) share on the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace bracket {

/// Convergence is quadratic: 6 to 10 sweeps are usual, and a NaN must end somewhere.
inline constexpr int kMaxJacobiSweeps = 40;

/// (x, y) <- (c x - s y, s x + c y)
inline void rotate(double* x, double* y, std::int64_t count, double c, double s) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const double first = x[i], second = y[i];
    x[i] = c * first - s * second;
    y[i] = s * first + c * second;
  }
}

inline void set_identity(double* v, std::int64_t k) {
  std::fill_n(v, k * k, 0.0);
  for (std::int64_t i = 0; i < k; ++i) v[i * k + i] = 1;
}

/// NaN for both where a [k, k] has an element that is not finite; false where all are.
inline bool not_finite(double* values, double* vectors, const double* a, std::int64_t k) {
  if (std::all_of(a, a + k * k, [](double element) { return std::isfinite(element); })) return false;
  std::fill_n(values, k, std::numeric_limits<double>::quiet_NaN());
  std::fill_n(vectors, k * k, std::numeric_limits<double>::quiet_NaN());
  return true;
}

/// value(i) belongs to row i of v [k, k]: writes them ascending, each vector with its largest component positive.
template <class Value>
void write_ascending(double* values, double* vectors, const double* v, std::int64_t k, Value&& value) {
  thread_local std::vector<std::pair<double, std::int64_t>> order;
  order.clear();
  for (std::int64_t i = 0; i < k; ++i) order.emplace_back(value(i), i);
  std::sort(order.begin(), order.end());
  for (std::int64_t i = 0; i < k; ++i) {
    const double* const row = v + order[static_cast<std::size_t>(i)].second * k;
    const double largest =
        *std::max_element(row, row + k, [](double x, double y) { return std::abs(x) < std::abs(y); });
    const double sign = largest < 0 ? -1 : 1;
    values[i] = order[static_cast<std::size_t>(i)].first;
    for (std::int64_t j = 0; j < k; ++j) vectors[i * k + j] = sign * row[j];
  }
}

}  // namespace bracket
