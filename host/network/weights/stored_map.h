// The map of one layer's own weight and bias, with resampling in front of a convolution or behind it worked into both.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "host/network/weights/layer_weight.h"
#include "host/network/weights/used_map.h"

namespace bracket {

class StoredMap final : public UsedMap {
 public:
  /// A bias of `biases` elements, 0: none, that files hold in `bias_order`.
  StoredMap(WeightShape shape, bool spectral_norm, std::int64_t biases, FileOrder bias_order, const std::string& prefix,
            BlockLayout& layout);
  void sum_boxes(const KernelBox& box);  ///< the product takes the kernel summed over boxes
  void scale_bias(double factor) noexcept { bias_factor_ = factor; }

  const MapShape& shape() const noexcept override { return shape_; }
  std::vector<Extra> extras() const override;
  bool training_state() const noexcept override { return weight_.spectral_norm(); }
  void forward(const Frame& frame, std::span<const Tensor> extras) const override;
  MapValues used(const Frame& frame, std::span<const Tensor> extras) const override;
  MapGradient gradient(const Frame& frame, const Tensor& grad_block, Update update) const override;
  void reverse(const Frame& frame, std::span<const Tensor> extras, const MapGradient& gradient,
               const Tensor& grad_block, Update update) const override;

  /// Starting values in the files' order; `bias` empty without one.
  void initialize(const RandomKey& key, const std::vector<double>& weight, const std::vector<double>& bias,
                  const ValueWriter& write) const;
  bool has_bias() const noexcept { return bias_.rows > 0; }

 private:
  Tensor bias_of(const Tensor& block) const { return has_bias() ? bias_.of(block) : Tensor(); }
  bool scaled_bias() const noexcept { return has_bias() && bias_factor_ != 1; }

  FileOrder bias_order_;
  BlockView bias_;
  LayerWeight weight_;
  std::optional<KernelBox> box_;
  double bias_factor_ = 1;
  MapShape shape_;
};

}  // namespace bracket
