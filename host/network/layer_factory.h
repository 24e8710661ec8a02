// From specifications to layers: what fits behind what, and which specifications are computed as one layer.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "host/network/layer.h"
#include "host/network/layer_group.h"

namespace bracket {

struct MadeLayer {
  std::unique_ptr<Layer> layer;  ///< null: nothing to compute
  Features output;
  std::size_t specs = 1;                    ///< how many specifications it stands for
  std::unique_ptr<Layer> second = nullptr;  ///< computed behind it, for two specifications or more
};

/// Makes the layer that begins with specs[index] for rows of `input`, merged with what stands around it as `merging`
/// says. Throws InvalidArgument naming the layer; what merges must have been made without merging first.
MadeLayer make_layer(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input,
                     const std::string& path, Merging& merging, BlockLayout& layout);

}  // namespace bracket
