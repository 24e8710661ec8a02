#include "host/network/epilogue.h"

#include <utility>

namespace bracket {

Epilogue::Epilogue(std::int64_t cols, std::int64_t channels, const ActivationSpec* activation)
    : cols_(cols), channels_(channels) {
  if (activation == nullptr) return;
  kind_ = {activation->function, activation->negative_slope};
  initial_slope_ = activation->initial_slope;
}

void Epilogue::add_slope(const std::string& name, BlockLayout& layout) {
  if (kind_.function == Activation::prelu) slope_ = layout.add(name, 1, 0, false);
}

std::vector<SlotSize> Epilogue::slot_sizes() const {
  return std::vector<SlotSize>(has_function() && !masked() ? 2 : 1, SlotSize{cols_});
}

std::vector<Extra> Epilogue::extras() const {
  if (!masked()) return {};
  return {{0, cols_ / channels_ * ((channels_ + 7) / 8), true}};
}

void Epilogue::initialize(const ValueWriter& write) const {
  if (slope_.rows > 0) write(slope_, false, {initial_slope_});
}

void Epilogue::forward(const Frame& frame, std::span<const Stacked> slots, std::span<const Tensor> extras,
                       const Tensor& bias) const {
  const Stacked &pre = slots.front(), &y = slots.back();
  if (masked())
    frame.ops.masked_activation_forward(frame.output(y), extras.back(), pre, bias, channels_, kind_, frame.rows);
  else if (has_function() || (!bias.absent() && frame.primal))
    frame.ops.bias_activation_forward(has_function() ? frame.output(y) : Stacked{y.primal, {}}, pre, bias, slope(frame),
                                      kind_, frame.rows);
}

bool Epilogue::fuses(bool primal, bool tangent, bool bias) const noexcept {
  if (masked()) return true;
  // Without a mask tangents have nothing to gain: with them it stays one product for all rows.
  if (!primal || tangent || kind_.function == Activation::prelu) return false;
  return has_function() || bias;
}

ProductEpilogue Epilogue::of_primal(std::span<const Stacked> slots, std::span<const Tensor> extras,
                                    const Tensor& bias) const {
  return {ProductEpilogue::Part::primal,
          kind_,
          bias,
          masked() ? extras.back() : Tensor(),
          slots.size() > 1 ? slots.front().primal : Tensor(),
          {}};
}

ProductEpilogue Epilogue::of_tangent(const Frame& frame, std::span<const Tensor> extras) const {
  if (!masked()) return {};
  return {ProductEpilogue::Part::tangent, kind_, {}, extras.back(), {}, frame.rows};
}

Stacked Epilogue::reverse(const Frame& frame, const Stacked& grad_y, std::span<const Stacked> slots,
                          std::span<const Tensor> extras, const Tensor& bias, const Tensor& grad_bias,
                          const Tensor& grad_block, Update update) const {
  const Tensor grad_slope = slope_.rows > 0 && !grad_block.absent() ? slope_.of(grad_block) : Tensor();
  const bool no_bias_gradient = grad_y.primal.absent() && (masked() || !has_function());
  if (no_bias_gradient && !grad_bias.absent() && update == Update::overwrite) frame.ops.fill(grad_bias, 0);
  const Tensor bias_target = no_bias_gradient ? Tensor() : grad_bias;
  if (masked()) {
    frame.ops.masked_activation_reverse(grad_y, bias_target, grad_y, extras.back(), channels_, kind_, frame.rows,
                                        update);
    return grad_y;
  }
  if (has_function()) {
    // The second derivative gives the primal part a value even where its cotangent is absent.
    const Stacked grad_pre = with_primal(frame, grad_y, cols_);
    frame.ops.bias_activation_reverse(grad_pre, bias_target, grad_slope, grad_pre, slots.front(), bias, slope(frame),
                                      kind_, frame.rows, update);
    return grad_pre;
  }
  if (!bias_target.absent())
    frame.ops.bias_activation_reverse({grad_y.primal, {}}, bias_target, {}, {grad_y.primal, {}},
                                      {slots.front().primal, {}}, {}, {}, {}, {frame.rows.primal, 0, 0, 0}, update);
  return grad_y;
}

}  // namespace bracket
