// A map with the BatchNorm of an inference pass behind it folded in.
//
// With the running statistics BatchNorm is y = s (a - mean) + beta, s = gamma (variance + epsilon)^(-1/2), one of each
// per output channel. Behind a = W x + b that is y = W' x + b' with
//   W' = s W,  b' = s (b - mean) + beta,
// on tangents y' = W' x'. So the gradients of W' and b', which a reverse pass sums over all primal and tangent rows,
// hold all that it has to say of the five parameters:
//   grad_W = s grad_W',  grad_b = s grad_b',  grad_beta = grad_b',
//   grad_gamma = (variance + epsilon)^(-1/2) (<grad_W', W> + <grad_b', b - mean>), the products of one channel each.
// That is BatchNorm itself on b as a primal row and W as tangent rows, and its reverse.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "host/network/weights/used_map.h"

namespace bracket {

class NormalisedMap final : public UsedMap {
 public:
  /// BatchNorm of `channels` channels, which divide the outputs of `map`.
  NormalisedMap(std::unique_ptr<UsedMap> map, const BatchNormSpec& spec, std::int64_t channels,
                const std::string& prefix, BlockLayout& layout);

  const MapShape& shape() const noexcept override { return shape_; }
  std::vector<Extra> extras() const override;
  bool training_state() const noexcept override { return true; }
  std::int64_t once_flops() const noexcept override { return map_->once_flops(); }
  std::int64_t folded_weights() const noexcept override { return shape_.rows * shape_.cols; }
  void forward(const Frame& frame, std::span<const Tensor> extras) const override;
  MapValues used(const Frame& frame, std::span<const Tensor> extras) const override;
  MapGradient gradient(const Frame& frame, const Tensor& grad_block, Update update) const override;
  void reverse(const Frame& frame, std::span<const Tensor> extras, const MapGradient& gradient,
               const Tensor& grad_block, Update update) const override;

 private:
  /// The bias as rows of one value per channel, and beside it the weight (channels last) or one row of factors per
  /// weight row.
  Rows rows() const;
  Tensor by_channel(const Tensor& x) const { return x.reshaped({x.size() / channels_, channels_}); }
  MapValues inner_values(const Frame& frame, std::span<const Tensor> extras) const;
  Tensor ones(const Frame& frame) const;
  std::span<const Tensor> inner(std::span<const Tensor> extras) const { return extras.first(inner_extras_); }

  std::unique_ptr<UsedMap> map_;
  double epsilon_;
  std::int64_t channels_;
  BlockView gamma_, beta_, mean_, variance_;
  MapShape shape_;
  std::size_t inner_extras_;
};

}  // namespace bracket
