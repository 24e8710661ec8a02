// From the units of networks back to pixels.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bracket {

/// round(255 (x + 1) / 2), halves up, clamped to 0 and 255. Throws Diverged naming image and value for a NaN; `cols`
/// are the values of one image, `first` the number of the first one.
std::vector<std::uint8_t> pixels_of_values(std::span<const double> values, std::int64_t cols, std::int64_t first = 0);

}  // namespace bracket
