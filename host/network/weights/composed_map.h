// A linear layer and the (transposed) convolution of its image as one map: y = M^T x + m, M [inputs, outputs].
//
// Row j of M is the convolution C of column j of the linear weight W, an image, and m that of its bias b with the
// convolution's own bias c added to every pixel: d + 1 images through C instead of every row of a pass. The gradient of
// M and m, d + 1 rows as well, goes back through C to those images, and with them to the weights of C.
#pragma once

#include <memory>
#include <vector>

#include "host/network/convolution_product.h"
#include "host/network/weights/stored_map.h"

namespace bracket {

class ComposedMap final : public UsedMap {
 public:
  ComposedMap(std::unique_ptr<StoredMap> linear, std::unique_ptr<StoredMap> convolution,
              const ConvolutionProduct& product);

  const MapShape& shape() const noexcept override { return shape_; }
  std::vector<Extra> extras() const override;
  bool training_state() const noexcept override;
  std::int64_t once_flops() const noexcept override;
  void forward(const Frame& frame, std::span<const Tensor> extras) const override;
  MapValues used(const Frame& frame, std::span<const Tensor> extras) const override;
  MapGradient gradient(const Frame& frame, const Tensor& grad_block, Update update) const override;
  void reverse(const Frame& frame, std::span<const Tensor> extras, const MapGradient& gradient,
               const Tensor& grad_block, Update update) const override;

 private:
  bool image_bias() const noexcept { return linear_->has_bias(); }  // the bias is one more row of M
  std::int64_t images() const noexcept { return shape_.rows + (image_bias() ? 1 : 0); }
  Tensor columns(const Frame& frame, const MapValues& linear) const;
  Tensor identity(const Frame& frame) const;
  std::span<const Tensor> of_linear(std::span<const Tensor> extras) const { return extras.first(linear_extras_); }
  std::span<const Tensor> of_convolution(std::span<const Tensor> extras) const {
    return extras.subspan(linear_extras_, extras.size() - linear_extras_ - 1);
  }

  std::unique_ptr<StoredMap> linear_, convolution_;
  ConvolutionProduct product_;
  std::size_t linear_extras_;
  MapShape shape_;
};

}  // namespace bracket
