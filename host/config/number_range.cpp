#include "host/config/number_range.h"

#include <cmath>

#include "host/core/text.h"

namespace bracket {

bool NumberRange::contains(double value) const noexcept {
  if (!std::isfinite(value)) return false;
  if (low_open ? value <= low : value < low) return false;
  if (high_open ? value >= high : value > high) return false;
  return !(without_zero && value == 0);
}

std::string NumberRange::requirement() const {
  if (without_zero) return "be a finite number other than 0";
  const bool below = std::isfinite(high), above = std::isfinite(low);
  if (above && below) {
    return "lie in " + std::string(low_open ? "(" : "[") + format_number(low) + ", " + format_number(high) +
           (high_open ? ")" : "]");
  }
  if (above) return (low_open ? "be finite and greater than " : "be finite and at least ") + format_number(low);
  return "be a finite number";
}

}  // namespace bracket
