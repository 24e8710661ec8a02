// A layer that is a product with a weight, with bias and non-linearity behind it as one step: y = f(x * W + b).
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "host/network/epilogue.h"
#include "host/network/layer.h"
#include "host/network/weights/used_map.h"

namespace bracket {

class ProductLayer : public Layer {
 public:
  bool piecewise_linear() const noexcept override { return epilogue_.piecewise_linear(); }
  bool training_state() const noexcept override { return map_->training_state(); }
  bool consumes_grad_y() const noexcept override { return epilogue_.has_function(); }
  std::int64_t once_flops() const noexcept override { return map_->once_flops(); }
  FoldedNorm folded() const noexcept override {
    return map_->folded_weights() > 0 ? FoldedNorm{output_size(), map_->folded_weights()} : FoldedNorm{};
  }
  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras) const override;
  void reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked&,
               const Tensor& grad_block, Update update) const override;

 protected:
  ProductLayer(std::unique_ptr<UsedMap> map, Epilogue epilogue);

  // The product and its two adjoints, on rows of either kind.
  virtual void multiply(Ops& ops, Tensor y, Tensor x, Tensor weight, const ProductEpilogue& epilogue) const = 0;
  virtual void reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const = 0;
  virtual void reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x,
                               Update update) const = 0;
  /// Of `multiply` of so many rows; none where it takes no epilogue.
  virtual std::optional<ProductSize> epilogue_size(std::int64_t /*rows*/) const { return std::nullopt; }

  std::unique_ptr<UsedMap> map_;
  Epilogue epilogue_;

 private:
  bool fuses(const Frame& frame, const Stacked& y, const Tensor& bias) const;
  void weight_gradient(const Frame& frame, const Tensor& target, const Stacked& x, const Stacked& grad_pre,
                       Update update) const;
  void data_gradient(const Frame& frame, const Stacked& grad_x, const Stacked& grad_pre, const Tensor& weight) const;

  std::size_t map_extras_;
};

}  // namespace bracket
