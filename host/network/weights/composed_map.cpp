#include "host/network/weights/composed_map.h"

#include <utility>

namespace bracket {
namespace {

constexpr Rows kOneRow{1, 0, 0, 0};

}  // namespace

ComposedMap::ComposedMap(std::unique_ptr<StoredMap> linear, std::unique_ptr<StoredMap> convolution,
                         const ConvolutionProduct& product)
    : linear_(std::move(linear)),
      convolution_(std::move(convolution)),
      product_(product),
      linear_extras_(linear_->extras().size()),
      shape_{linear_->shape().cols, product.outputs(),
             linear_->has_bias() ? product.outputs() : convolution_->shape().biases, true} {}

std::vector<Extra> ComposedMap::extras() const {
  std::vector<Extra> list = linear_->extras();
  for (const Extra& extra : convolution_->extras()) list.push_back(extra);
  list.push_back({images(), shape_.cols});
  return list;
}

bool ComposedMap::training_state() const noexcept {
  return linear_->training_state() || convolution_->training_state();
}

// The columns become rows by a product with the identity.
std::int64_t ComposedMap::once_flops() const noexcept {
  return images() * product_.flops() + 2 * shape_.rows * shape_.rows * product_.inputs();
}

Tensor ComposedMap::identity(const Frame& frame) const {
  const Tensor identity = frame.arena.allocate(frame.dtype, {shape_.rows, shape_.rows});
  frame.ops.tile_identity(identity, 1);
  return identity;
}

// The columns of the linear weight and, behind them, its bias: one image each.
Tensor ComposedMap::columns(const Frame& frame, const MapValues& linear) const {
  const Tensor images_of = frame.arena.allocate(frame.dtype, {images(), product_.inputs()});
  const MathScope exact(frame.ops, MathMode::fp32);
  frame.ops.linear_forward(images_of.slice_rows(0, shape_.rows), identity(frame), linear.weight);
  if (image_bias()) frame.ops.copy(images_of.slice_rows(shape_.rows, 1).reshaped({product_.inputs()}), linear.bias);
  return images_of;
}

void ComposedMap::forward(const Frame& frame, std::span<const Tensor> extras) const {
  linear_->forward(frame, of_linear(extras));
  convolution_->forward(frame, of_convolution(extras));
  if (!frame.primal) return;
  const std::int64_t mark = frame.arena.mark();
  const MapValues convolution = convolution_->used(frame, of_convolution(extras));
  product_.multiply(frame.ops, extras.back(), columns(frame, linear_->used(frame, of_linear(extras))),
                    convolution.weight);
  if (image_bias() && !convolution.bias.absent()) {
    const Tensor row = extras.back().slice_rows(shape_.rows, 1);
    frame.ops.bias_activation_forward({row, {}}, {row, {}}, convolution.bias, {}, {}, kOneRow);
  }
  frame.arena.rewind(mark);
}

MapValues ComposedMap::used(const Frame& frame, std::span<const Tensor> extras) const {
  if (image_bias())
    return {extras.back().slice_rows(0, shape_.rows),
            extras.back().slice_rows(shape_.rows, 1).reshaped({shape_.biases})};
  return {extras.back(), convolution_->used(frame, of_convolution(extras)).bias};
}

MapGradient ComposedMap::gradient(const Frame& frame, const Tensor&, Update update) const {
  const Tensor all = frame.arena.allocate(frame.dtype, {images(), shape_.cols});
  MapGradient gradient{all.slice_rows(0, shape_.rows), {}, Update::overwrite};
  if (image_bias())
    gradient.bias = all.slice_rows(shape_.rows, 1).reshaped({shape_.biases});
  else if (shape_.biases > 0)
    gradient.bias = frame.arena.allocate(frame.dtype, {shape_.biases});
  if (!gradient.bias.absent() && update == Update::accumulate) frame.ops.fill(gradient.bias, 0);
  return gradient;
}

void ComposedMap::reverse(const Frame& frame, std::span<const Tensor> extras, const MapGradient& gradient,
                          const Tensor& grad_block, Update update) const {
  const MapValues linear = linear_->used(frame, of_linear(extras));
  const MapGradient to_linear = linear_->gradient(frame, grad_block, update);
  const MapGradient to_convolution = convolution_->gradient(frame, grad_block, update);
  const Tensor all(gradient.weight.data(), frame.dtype, {images(), shape_.cols});

  product_.reverse_weights(frame, to_convolution.weight, all, columns(frame, linear), to_convolution.weight_update);
  if (!to_convolution.bias.absent() && image_bias()) {
    const Stacked row{all.slice_rows(shape_.rows, 1), {}};
    frame.ops.bias_activation_reverse(row, to_convolution.bias, {}, row, row, {}, {}, {}, kOneRow, update);
  } else if (!to_convolution.bias.absent()) {
    add_scaled(frame.ops, to_convolution.bias, 1, gradient.bias, update);
  }
  const Tensor grad_images = frame.arena.allocate(frame.dtype, {images(), product_.inputs()});
  product_.reverse_data(frame.ops, grad_images, all, convolution_->used(frame, of_convolution(extras)).weight);
  {
    const MathScope exact(frame.ops, MathMode::fp32);
    frame.ops.linear_reverse_weights(to_linear.weight, grad_images.slice_rows(0, shape_.rows), identity(frame),
                                     to_linear.weight_update);
  }
  if (image_bias())
    add_scaled(frame.ops, to_linear.bias, 1, grad_images.slice_rows(shape_.rows, 1).reshaped({linear_->shape().biases}),
               update);
  linear_->reverse(frame, of_linear(extras), to_linear, grad_block, update);
  convolution_->reverse(frame, of_convolution(extras), to_convolution, grad_block, update);
}

}  // namespace bracket
