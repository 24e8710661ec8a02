// Which neighbouring specifications are carried out together, and when that pays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "host/network/layer.h"

namespace bracket {

/// What a chain merges, and how many groups did so.
struct Merging {
  bool resampling = false;
  bool norm = false;
  bool compose = false;
  struct {
    std::int64_t resampling = 0, norm = 0, compose = 0;
  } groups = {};
};

/// A linear or (transposed) convolution layer and what is computed with it. Indices are those of the specifications.
struct LayerGroup {
  std::size_t product = 0;
  Resampling resampling = {};
  bool exchanged = false;  ///< the resampling stays a step of its own, on the other side of a 1 x 1 convolution
  std::optional<std::size_t> composed = {};  ///< the convolution that the linear layer `product` becomes one map with
  std::optional<std::size_t> norm = {}, activation = {};
  std::size_t end = 0;  ///< behind the last one
};

/// The group that begins with specs[index] on `input`, where more than a product and its activation are merged.
std::optional<LayerGroup> find_group(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input,
                                     const Merging& merging);

/// Whether a later confinement reads the output of layer `index`, which must then exist as a value of its own.
bool is_side_input(const std::vector<LayerSpec>& specs, std::size_t index);

}  // namespace bracket
