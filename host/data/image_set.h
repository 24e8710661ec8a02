// Images as they come out of files: unsigned bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "bracket/image_shape.h"

namespace bracket {

struct ImageSet {
  ImageShape shape;
  std::vector<std::uint8_t> pixels;  ///< row after row
  std::vector<std::int32_t> labels;  ///< one for each image, or none
  std::int64_t count() const noexcept { return static_cast<std::int64_t>(pixels.size()) / shape.size(); }
};

}  // namespace bracket
