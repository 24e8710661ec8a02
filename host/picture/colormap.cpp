#include "host/picture/colormap.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace bracket {
namespace {

constexpr std::array<Color, 9> kViridis{{{68, 1, 84},
                                         {71, 45, 123},
                                         {59, 82, 139},
                                         {44, 114, 142},
                                         {33, 145, 140},
                                         {40, 174, 128},
                                         {94, 201, 98},
                                         {173, 220, 48},
                                         {253, 231, 37}}};

// CIE lightness falls from 100 to 20 in steps of 16, within 1.
constexpr std::array<Color, 6> kInk{
    {{255, 255, 255}, {194, 213, 240}, {121, 171, 226}, {52, 129, 199}, {24, 86, 160}, {14, 47, 96}}};

std::uint8_t between(std::uint8_t low, std::uint8_t high, double weight) {
  return static_cast<std::uint8_t>(std::lround(low + (high - low) * weight));
}

}  // namespace

Color ColorMap::operator()(double value) const noexcept {
  if (std::isnan(value)) return kNotANumberColor;
  const double clamped = std::clamp(value, 0.0, 1.0);
  const double position =
      (exponent_ == 1 ? clamped : std::pow(clamped, exponent_)) * static_cast<double>(controls_.size() - 1);
  const std::size_t index = std::min(static_cast<std::size_t>(position), controls_.size() - 2);
  const double weight = position - static_cast<double>(index);
  const Color& low = controls_[index];
  const Color& high = controls_[index + 1];
  return {between(low.red, high.red, weight), between(low.green, high.green, weight),
          between(low.blue, high.blue, weight)};
}

const ColorMap& viridis() noexcept {
  static constexpr ColorMap map{kViridis};
  return map;
}

const ColorMap& viridis_root() noexcept {
  static constexpr ColorMap map{kViridis, 0.5};
  return map;
}

const ColorMap& ink() noexcept {
  static constexpr ColorMap map{kInk};
  return map;
}

}  // namespace bracket
