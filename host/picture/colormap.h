// Colour maps with evenly rising lightness.
#pragma once

#include <span>

#include "host/picture/image.h"

namespace bracket {

/// Maps [0, 1] to colours: value^exponent, linear between evenly spaced control colours. Values outside are clamped;
/// NaN is marked.
class ColorMap {
 public:
  explicit constexpr ColorMap(std::span<const Color> controls, double exponent = 1)
      : controls_(controls), exponent_(exponent) {}
  Color operator()(double value) const noexcept;

 private:
  std::span<const Color> controls_;  ///< at least two, static storage
  double exponent_;
};

/// A gray that neither map contains: cells whose value is not a number.
inline constexpr Color kNotANumberColor{150, 150, 150};

/// Dark violet through teal to yellow (the control colours of matplotlib's viridis): densities.
const ColorMap& viridis() noexcept;

/// The same colours with the square root of the value: low densities stay visible beside sharp peaks.
const ColorMap& viridis_root() noexcept;

/// White through blue to navy: point counts on a white panel.
const ColorMap& ink() noexcept;

}  // namespace bracket
