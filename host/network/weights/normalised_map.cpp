#include "host/network/weights/normalised_map.h"

#include <utility>

namespace bracket {

NormalisedMap::NormalisedMap(std::unique_ptr<UsedMap> map, const BatchNormSpec& spec, std::int64_t channels,
                             const std::string& prefix, BlockLayout& layout)
    : map_(std::move(map)),
      epsilon_(spec.epsilon),
      channels_(channels),
      gamma_(layout.add(prefix + "weight", channels, 0, false)),
      beta_(layout.add(prefix + "bias", channels, 0, false)),
      mean_(layout.add(prefix + "running_mean", channels, 0, true)),
      variance_(layout.add(prefix + "running_var", channels, 0, true)),
      shape_(map_->shape()),
      inner_extras_(map_->extras().size()) {
  if (shape_.biases == 0) shape_.biases = channels;
}

std::vector<Extra> NormalisedMap::extras() const {
  std::vector<Extra> list = map_->extras();
  list.push_back({shape_.rows, shape_.cols});
  list.push_back({shape_.biases, 0});
  if (!shape_.channels_last) list.push_back({shape_.rows, 0});  // s of every row
  return list;
}

Rows NormalisedMap::rows() const {
  const std::int64_t factors = shape_.channels_last ? shape_.rows * shape_.cols : shape_.rows;
  return {shape_.biases / channels_, 0, 1, factors / channels_};
}

Tensor NormalisedMap::ones(const Frame& frame) const {
  const Tensor ones = frame.arena.allocate(frame.dtype, {shape_.rows / channels_, channels_});
  frame.ops.fill(ones, 1);
  return ones;
}

MapValues NormalisedMap::inner_values(const Frame& frame, std::span<const Tensor> extras) const {
  MapValues values = map_->used(frame, inner(extras));
  if (values.bias.absent()) {
    values.bias = frame.arena.allocate(frame.dtype, {shape_.biases});
    frame.ops.fill(values.bias, 0);
  }
  return values;
}

MapValues NormalisedMap::used(const Frame&, std::span<const Tensor> extras) const {
  return {extras[inner_extras_], extras[inner_extras_ + 1]};
}

void NormalisedMap::forward(const Frame& frame, std::span<const Tensor> extras) const {
  map_->forward(frame, inner(extras));
  if (!frame.primal) return;
  const std::int64_t mark = frame.arena.mark();
  const Tensor &values = frame.parameters.values, &buffers = frame.parameters.buffers;
  const MapValues from = inner_values(frame, extras), to = used(frame, extras);
  const Tensor factors = shape_.channels_last ? to.weight : extras.back();
  const Tensor of = shape_.channels_last ? from.weight : ones(frame);
  frame.ops.batch_norm_infer_forward({by_channel(to.bias), by_channel(factors)},
                                     {by_channel(from.bias), by_channel(of)}, gamma_.of(values), beta_.of(values),
                                     mean_.of(buffers), variance_.of(buffers), epsilon_, rows());
  if (!shape_.channels_last) frame.ops.scale_rows(to.weight, from.weight, factors, 1);
  frame.arena.rewind(mark);
}

MapGradient NormalisedMap::gradient(const Frame& frame, const Tensor&, Update update) const {
  const MapGradient gradient{frame.arena.allocate(frame.dtype, {shape_.rows, shape_.cols}),
                             frame.arena.allocate(frame.dtype, {shape_.biases}), Update::overwrite};
  if (update == Update::accumulate) frame.ops.fill(gradient.bias, 0);
  return gradient;
}

// `gradient` becomes that of the inner map in place and is copied or added to where that one wants it.
void NormalisedMap::reverse(const Frame& frame, std::span<const Tensor> extras, const MapGradient& gradient,
                            const Tensor& grad_block, Update update) const {
  const Tensor &values = frame.parameters.values, &buffers = frame.parameters.buffers;
  const MapGradient target = map_->gradient(frame, grad_block, update);
  const MapValues from = inner_values(frame, extras);
  const bool write_weight = target.weight_update == Update::overwrite;
  const bool write_bias = !target.bias.absent() && update == Update::overwrite;
  const Tensor grad_weight = write_weight ? target.weight : gradient.weight;
  const Tensor grad_bias = write_bias ? target.bias : gradient.bias;
  Stacked grad_x{by_channel(grad_bias), {}}, grad_y{by_channel(gradient.bias), {}}, x{by_channel(from.bias), {}};
  if (shape_.channels_last) {
    grad_x.tangent = by_channel(grad_weight);
    grad_y.tangent = by_channel(gradient.weight);
    x.tangent = by_channel(from.weight);
  } else {
    const Tensor products = frame.arena.allocate(frame.dtype, {shape_.rows});
    frame.ops.row_dot(products, gradient.weight, from.weight);
    frame.ops.scale_rows(grad_weight, gradient.weight, extras.back(), 1);
    grad_y.tangent = by_channel(products);
    x.tangent = ones(frame);
  }
  frame.ops.batch_norm_infer_reverse(grad_x, gamma_.of(grad_block), beta_.of(grad_block), grad_y, x, gamma_.of(values),
                                     mean_.of(buffers), variance_.of(buffers), epsilon_, rows(), update);
  if (!write_weight) frame.ops.axpy(target.weight, 1, grad_weight);
  if (!write_bias && !target.bias.absent()) frame.ops.axpy(target.bias, 1, grad_bias);
  map_->reverse(frame, inner(extras), target, grad_block, update);
}

}  // namespace bracket
