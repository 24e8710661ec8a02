// The values a number in a configuration may have.
#pragma once

#include <limits>
#include <string>

namespace bracket {

/// An interval, closed unless a side is marked open. Infinite sides are never reached: NaN and infinity are outside.
struct NumberRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;
  bool without_zero = false;

  static constexpr NumberRange at_least(double low) { return {.low = low}; }
  static constexpr NumberRange above(double low) { return {.low = low, .low_open = true}; }
  static constexpr NumberRange between(double low, double high) { return {.low = low, .high = high}; }
  static constexpr NumberRange from_to_below(double low, double high) {
    return {.low = low, .high = high, .high_open = true};
  }
  static constexpr NumberRange not_zero() { return {.without_zero = true}; }

  bool contains(double value) const noexcept;
  /// What follows "must ": "be at least 1", "lie in [0, 1)", "be a finite number".
  std::string requirement() const;
};

}  // namespace bracket
