#include "host/network/weights/stored_map.h"

#include <utility>

namespace bracket {
namespace {

BlockView add_bias(std::int64_t biases, const FileOrder& order, const std::string& prefix, BlockLayout& layout) {
  if (biases == 0) return {};
  return layout.add(prefix + "bias", biases, 0, false, {biases}, order);
}

}  // namespace

void add_scaled(Ops& ops, const Tensor& to, double factor, const Tensor& from, Update update) {
  if (update == Update::overwrite) ops.fill(to, 0);
  ops.axpy(to, factor, from);
}

StoredMap::StoredMap(WeightShape shape, bool spectral_norm, std::int64_t biases, FileOrder bias_order,
                     const std::string& prefix, BlockLayout& layout)
    : bias_order_(std::move(bias_order)),
      bias_(add_bias(biases, bias_order_, prefix, layout)),
      weight_(std::move(shape), spectral_norm, prefix, layout),
      shape_{weight_.rows(), weight_.cols(), biases, weight_.channels_last()} {}

void StoredMap::sum_boxes(const KernelBox& box) {
  box_ = box;
  shape_.rows = box.rows();
  shape_.cols = box.cols();
  shape_.channels_last = box.transposed;
}

std::vector<Extra> StoredMap::extras() const {
  std::vector<Extra> list = weight_.extras();
  if (box_) list.push_back({shape_.rows, shape_.cols});
  if (scaled_bias()) list.push_back({shape_.biases, 0});
  return list;
}

void StoredMap::forward(const Frame& frame, std::span<const Tensor> extras) const {
  if (!frame.primal) return;
  const Tensor weight = weight_.forward(frame, extras);
  const MapValues values = used(frame, extras);
  if (box_) frame.ops.kernel_box_forward(values.weight, weight, *box_);
  if (scaled_bias())
    add_scaled(frame.ops, values.bias, bias_factor_, bias_.of(frame.parameters.values), Update::overwrite);
}

MapValues StoredMap::used(const Frame& frame, std::span<const Tensor> extras) const {
  const std::size_t own = weight_.extras().size();
  return {box_ ? extras[own] : weight_.used(frame, extras),
          scaled_bias() ? extras.back() : bias_of(frame.parameters.values)};
}

MapGradient StoredMap::gradient(const Frame& frame, const Tensor& grad_block, Update update) const {
  MapGradient gradient{weight_.of(grad_block), bias_of(grad_block), update};
  if (box_ || weight_.spectral_norm()) {
    gradient.weight = frame.arena.allocate(frame.dtype, {shape_.rows, shape_.cols});
    gradient.weight_update = Update::overwrite;
  }
  if (scaled_bias()) {
    gradient.bias = frame.arena.allocate(frame.dtype, {shape_.biases});
    if (update == Update::accumulate) frame.ops.fill(gradient.bias, 0);
  }
  return gradient;
}

void StoredMap::reverse(const Frame& frame, std::span<const Tensor> extras, const MapGradient& gradient,
                        const Tensor& grad_block, Update update) const {
  Tensor of_weight = gradient.weight;
  if (box_ && !weight_.spectral_norm()) {
    frame.ops.kernel_box_reverse(weight_.of(grad_block), of_weight, *box_, update);
  } else if (box_) {
    of_weight = frame.arena.allocate(frame.dtype, {weight_.rows(), weight_.cols()});
    frame.ops.kernel_box_reverse(of_weight, gradient.weight, *box_, Update::overwrite);
  }
  if (weight_.spectral_norm()) weight_.normalised_reverse(frame, of_weight, extras, grad_block, update);
  if (scaled_bias()) add_scaled(frame.ops, bias_.of(grad_block), bias_factor_, gradient.bias, update);
}

void StoredMap::initialize(const RandomKey& key, const std::vector<double>& weight, const std::vector<double>& bias,
                           const ValueWriter& write) const {
  weight_.initialize(key, weight, write);
  if (has_bias()) write(bias_, false, in_memory_order(bias, bias_order_));
}

}  // namespace bracket
