// Streaming log of a sum of exponentials.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace bracket {

/// log sum exp(a_i) of values that arrive in any portions; -infinity while empty. Values must not be NaN or +infinity.
class LogSum {
 public:
  void add(double value) { add(std::span<const double>(&value, 1)); }
  void add(std::span<const double> values) {
    if (values.empty()) return;
    const double largest = std::max(largest_, *std::max_element(values.begin(), values.end()));
    if (std::isinf(largest)) return;  // nothing but zero terms so far
    scaled_ *= std::exp(largest_ - largest);
    largest_ = largest;
    for (const double value : values) scaled_ += std::exp(value - largest_);
  }
  void add(const LogSum& other) { add(other.value()); }
  double value() const { return scaled_ > 0 ? largest_ + std::log(scaled_) : kNothing; }

 private:
  static constexpr double kNothing = -std::numeric_limits<double>::infinity();
  double largest_ = kNothing;
  double scaled_ = 0;  // sum of exp(a_i - largest_)
};

}  // namespace bracket
