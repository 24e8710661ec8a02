// Weight and bias as a product takes them: the stored ones, or what a pass makes of them once for all its rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "host/network/layer.h"

namespace bracket {

struct MapValues {
  Tensor weight;
  Tensor bias;  ///< absent: none
};

/// Where the gradients of weight and bias as used are formed: that of the bias with the update of the reverse call,
/// that of the weight with `weight_update`.
struct MapGradient {
  Tensor weight;
  Tensor bias;
  Update weight_update = Update::overwrite;
};

struct MapShape {
  std::int64_t rows = 0;  ///< of the weight as used
  std::int64_t cols = 0;
  std::int64_t biases = 0;     ///< elements of the bias, 0: none; a multiple of the output channels
  bool channels_last = false;  ///< output channels are the innermost index of the columns, not the rows
};

class UsedMap {
 public:
  virtual ~UsedMap() = default;
  virtual const MapShape& shape() const noexcept = 0;
  /// What a pass keeps: `extras().size()` tensors, which are the `extras` of the methods below.
  virtual std::vector<Extra> extras() const = 0;
  virtual bool training_state() const noexcept = 0;                   ///< power iterations move it
  virtual std::int64_t once_flops() const noexcept { return 0; }      ///< of products that a pass takes for it
  virtual std::int64_t folded_weights() const noexcept { return 0; }  ///< what a BatchNorm is folded into
  /// Computes what `used` returns, where the call computes a primal part.
  virtual void forward(const Frame& frame, std::span<const Tensor> extras) const = 0;
  virtual MapValues used(const Frame& frame, std::span<const Tensor> extras) const = 0;
  /// Memory of the arena or of the flat gradient itself.
  virtual MapGradient gradient(const Frame& frame, const Tensor& grad_block, Update update) const = 0;
  /// Turns what was formed in `gradient` into gradients of what is stored. May write into it.
  virtual void reverse(const Frame& frame, std::span<const Tensor> extras, const MapGradient& gradient,
                       const Tensor& grad_block, Update update) const = 0;
};

/// to (+)= factor from, whichever `update` says.
void add_scaled(Ops& ops, const Tensor& to, double factor, const Tensor& from, Update update);

}  // namespace bracket
