// The shape of an image that travels as one row.
#pragma once

#include <cstdint>

namespace bracket {

/// A row of an image holds height x width pixels of `channels` values each: value (y, x, c) is column
/// (y width + x) channels + c.
struct ImageShape {
  std::int64_t channels = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t pixels() const noexcept { return height * width; }
  std::int64_t size() const noexcept { return channels * height * width; }
  friend bool operator==(const ImageShape&, const ImageShape&) = default;
};

}  // namespace bracket
