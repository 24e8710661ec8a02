// From specifications to layers: what fits behind what, and which specifications are computed as one layer.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "host/network/layer.h"

namespace bracket {

struct MadeLayer {
  std::unique_ptr<Layer> layer;  ///< null: nothing to compute
  Features output;
  std::size_t specs = 1;  ///< how many specifications it stands for
};

/// Makes the layer that begins with specs[index] for rows of `input`. Throws InvalidArgument naming the layer.
MadeLayer make_layer(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input,
                     const std::string& path, BlockLayout& layout);

}  // namespace bracket
