#include "host/network/product_layer.h"

#include <utility>

namespace bracket {

ProductLayer::ProductLayer(std::unique_ptr<UsedMap> map, Epilogue epilogue)
    : map_(std::move(map)), epilogue_(std::move(epilogue)) {
  slot_sizes_ = epilogue_.slot_sizes();
  extras_ = map_->extras();
  map_extras_ = extras_.size();
  for (const Extra& extra : epilogue_.extras()) extras_.push_back(extra);
}

void ProductLayer::forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
                           std::span<const Tensor> extras) const {
  map_->forward(frame, extras.first(map_extras_));
  const MapValues used = map_->used(frame, extras.first(map_extras_));
  const Stacked y = frame.output(slots.back());
  if (fuses(frame, y, used.bias)) {
    if (!y.primal.absent())
      multiply(frame.ops, y.primal, x.primal, used.weight, epilogue_.of_primal(slots, extras, used.bias));
    if (!y.tangent.absent())
      multiply(frame.ops, y.tangent, x.tangent, used.weight, epilogue_.of_tangent(frame, extras));
    return;
  }
  const Stacked pre = frame.output(slots.front());
  const Tensor all_x = joined(x), all_pre = joined(pre);
  if (!all_x.absent() && !all_pre.absent()) {
    multiply(frame.ops, all_pre, all_x, used.weight, {});
  } else {
    if (!pre.primal.absent()) multiply(frame.ops, pre.primal, x.primal, used.weight, {});
    if (!pre.tangent.absent()) multiply(frame.ops, pre.tangent, x.tangent, used.weight, {});
  }
  epilogue_.forward(frame, slots, extras, used.bias);
}

// A product's epilogue knows one channel per column of C; folded BatchNorm may have fewer. Primal rows come first, as
// the tangents read the mask that they write: two products, each with its part of the epilogue, in place of one for all
// rows and the epilogue behind it.
bool ProductLayer::fuses(const Frame& frame, const Stacked& y, const Tensor& bias) const {
  if (!epilogue_.fuses(!y.primal.absent(), !y.tangent.absent(), !bias.absent())) return false;
  const auto part = [&](const Tensor& rows) {
    if (rows.absent()) return true;
    const std::optional<ProductSize> size = epilogue_size(rows.rows());
    return size && size->n == epilogue_.channels() && frame.ops.fuses_epilogue(frame.dtype, *size);
  };
  return part(y.primal) && part(y.tangent);
}

void ProductLayer::reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
                           std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked&,
                           const Tensor& grad_block, Update update) const {
  const std::int64_t mark = frame.arena.mark();
  const std::span<const Tensor> of_map = extras.first(map_extras_);
  const MapValues used = map_->used(frame, of_map);
  MapGradient gradient;
  if (!grad_block.absent()) gradient = map_->gradient(frame, grad_block, update);
  const Stacked grad_pre =
      epilogue_.reverse(frame, grad_y, slots, extras, used.bias, gradient.bias, grad_block, update);
  if (!grad_block.absent()) {
    weight_gradient(frame, gradient.weight, x, grad_pre, gradient.weight_update);
    map_->reverse(frame, of_map, gradient, grad_block, update);
  }
  data_gradient(frame, grad_x, grad_pre, used.weight);
  frame.arena.rewind(mark);
}

void ProductLayer::weight_gradient(const Frame& frame, const Tensor& target, const Stacked& x, const Stacked& grad_pre,
                                   Update update) const {
  const Tensor all_x = joined(x), all_y = joined(grad_pre);
  if (!all_x.absent() && !all_y.absent()) return reverse_weights(frame, target, all_y, all_x, update);
  for (const auto& [g, v] : {std::pair{grad_pre.primal, x.primal}, std::pair{grad_pre.tangent, x.tangent}}) {
    if (g.absent()) continue;
    reverse_weights(frame, target, g, v, update);
    update = Update::accumulate;
  }
  if (grad_pre.primal.absent() && grad_pre.tangent.absent() && update == Update::overwrite) frame.ops.fill(target, 0);
}

void ProductLayer::data_gradient(const Frame& frame, const Stacked& grad_x, const Stacked& grad_pre,
                                 const Tensor& weight) const {
  const Tensor all_x = joined(grad_x), all_y = joined(grad_pre);
  if (!all_x.absent() && !all_y.absent()) return reverse_data(frame.ops, all_x, all_y, weight);
  if (!grad_x.primal.absent()) {
    if (grad_pre.primal.absent())
      frame.ops.fill(grad_x.primal, 0);
    else
      reverse_data(frame.ops, grad_x.primal, grad_pre.primal, weight);
  }
  if (!grad_x.tangent.absent()) reverse_data(frame.ops, grad_x.tangent, grad_pre.tangent, weight);
}

}  // namespace bracket
