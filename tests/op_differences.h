// Results of ops against element-wise limits, derivatives against differences.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>

#include "tests/ops_fixture.h"

namespace bracket::test {

/// |actual - expected| <= limit element by element, as a ratio so that one comparison serves all.
inline void expect_within(const HostMatrix& actual, const HostMatrix& expected, const HostMatrix& limit,
                          const char* what) {
  ASSERT_EQ(actual.values.size(), expected.values.size()) << what;
  ASSERT_EQ(actual.values.size(), limit.values.size()) << what;
  HostMatrix ratio(actual.rows, actual.cols);
  for (std::size_t k = 0; k < ratio.values.size(); ++k) {
    const double error = std::abs(actual.values[k] - expected.values[k]);
    ratio.values[k] = error == 0 ? 0 : error / limit.values[k];
  }
  EXPECT_MATRICES_CLOSE(ratio, HostMatrix(actual.rows, actual.cols), absolute_limit(1)) << what << ", errors / limit";
}

inline double dot(const HostMatrix& a, const HostMatrix& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.values.size(); ++k) sum += a.values[k] * b.values[k];
  return sum;
}

/// d loss / d x by central differences. With functions and inputs of order 1 and h = 1e-5 the truncation h^2 f''' / 6
/// is some 1e-11 times the third derivative and the rounding u |loss| / h some 1e-11: both far below 1e-6.
inline HostMatrix differences(const HostMatrix& x, const std::function<double(const HostMatrix&)>& loss) {
  constexpr double kStep = 1e-5;
  HostMatrix gradient(x.rows, x.cols);
  HostMatrix moved = x;
  for (std::size_t k = 0; k < x.values.size(); ++k) {
    moved.values[k] = x.values[k] + kStep;
    const double above = loss(moved);
    moved.values[k] = x.values[k] - kStep;
    const double below = loss(moved);
    moved.values[k] = x.values[k];
    gradient.values[k] = (above - below) / (2 * kStep);
  }
  return gradient;
}

/// The project's measure: worst error relative to the largest component is 1e-6 or better.
inline Limit gradient_limit(const HostMatrix& gradient) {
  double largest = 0;
  for (const double value : gradient.values) largest = std::max(largest, std::abs(value));
  return absolute_limit(1e-6 * largest);
}

}  // namespace bracket::test
