// Comparisons of pictures.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>

#include "host/picture/image.h"

namespace bracket {

inline void PrintTo(const Color& color, std::ostream* out) {
  *out << "rgb(" << int{color.red} << ", " << int{color.green} << ", " << int{color.blue} << ")";
}

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr Color kRed{255, 0, 0};

inline bool same(const Image& a, const Image& b) {
  return a.width() == b.width() && a.height() == b.height() &&
         std::equal(a.bytes().begin(), a.bytes().end(), b.bytes().begin());
}

inline std::int64_t count_color(const Image& image, Color color) {
  std::int64_t count = 0;
  for (std::int64_t y = 0; y < image.height(); ++y) {
    for (std::int64_t x = 0; x < image.width(); ++x) count += image.at(x, y) == color ? 1 : 0;
  }
  return count;
}

/// CIE L* of an sRGB colour, 0 to 100. A difference of about 2.3 is just noticeable.
inline double lightness(Color color) {
  const auto linear = [](int byte) {
    const double v = byte / 255.0;
    return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
  };
  const double y = 0.2126 * linear(color.red) + 0.7152 * linear(color.green) + 0.0722 * linear(color.blue);
  return y > 0.008856 ? 116 * std::cbrt(y) - 16 : 903.3 * y;
}
inline constexpr double kJustNoticeable = 2.3;

}  // namespace bracket
