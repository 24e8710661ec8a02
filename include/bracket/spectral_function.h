// Functions whose traces are estimated: tr f(J^T J).
#pragma once

#include <cstdint>

namespace bracket {

/// f on [0, inf): log x with f(0) = -inf, or x^exponent with f(0) = 0, 1 or infinite for a positive, zero or negative
/// exponent. The inverse is x^-1.
struct SpectralFunction {
  enum class Kind : std::int32_t { logarithm, power };
  Kind kind = Kind::logarithm;
  double exponent = 1;  ///< of power
};

inline constexpr SpectralFunction kLogarithm{SpectralFunction::Kind::logarithm, 1};
inline constexpr SpectralFunction kInverse{SpectralFunction::Kind::power, -1};
constexpr SpectralFunction power_function(double exponent) { return {SpectralFunction::Kind::power, exponent}; }

}  // namespace bracket
