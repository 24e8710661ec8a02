// Bias and non-linearity behind a matrix product or a normalisation: y = f(pre + b), one bias per channel. The bias is
// the caller's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "host/network/layer.h"

namespace bracket {

/// relu and leaky_relu run in place and leave one bit per value, so that a pass need not keep both sides of them.
class Epilogue {
 public:
  /// `cols` values per row, of `channels` channels. `activation` null: none.
  Epilogue(std::int64_t cols, std::int64_t channels, const ActivationSpec* activation);
  void add_slope(const std::string& name, BlockLayout& layout);

  std::vector<SlotSize> slot_sizes() const;
  /// One mask or none: the last of every `extras` argument below.
  std::vector<Extra> extras() const;
  std::int64_t channels() const noexcept { return channels_; }
  bool has_function() const noexcept { return kind_.function != Activation::identity; }
  bool piecewise_linear() const noexcept { return masked() || !has_function(); }
  bool injective() const noexcept { return injective_function(kind_.function, kind_.negative_slope); }

  void initialize(const ValueWriter& write) const;
  /// slots.front() holds the value before; afterwards slots.back() is the output. `bias` [channels] or absent.
  void forward(const Frame& frame, std::span<const Stacked> slots, std::span<const Tensor> extras,
               const Tensor& bias) const;
  /// Whether products of these rows can do all that `forward` does, with what the next two return as theirs. With
  /// tangents a curve cannot: their derivatives take the value before.
  bool fuses(bool primal, bool tangent, bool bias) const noexcept;
  /// For a product that writes slots.back().
  ProductEpilogue of_primal(std::span<const Stacked> slots, std::span<const Tensor> extras, const Tensor& bias) const;
  ProductEpilogue of_tangent(const Frame& frame, std::span<const Tensor> extras) const;
  /// Turns the adjoint of the output into that of the value before, in place, and returns it; the gradient of the bias
  /// goes to `grad_bias`, that of the slope to `grad_block`, where they are present.
  Stacked reverse(const Frame& frame, const Stacked& grad_y, std::span<const Stacked> slots,
                  std::span<const Tensor> extras, const Tensor& bias, const Tensor& grad_bias, const Tensor& grad_block,
                  Update update) const;

 private:
  bool masked() const noexcept {
    return kind_.function == Activation::relu || kind_.function == Activation::leaky_relu;
  }
  Tensor slope(const Frame& frame) const { return slope_.rows > 0 ? slope_.of(frame.parameters.values) : Tensor(); }

  std::int64_t cols_;
  std::int64_t channels_;
  ActivationKind kind_{Activation::identity, 0};
  double initial_slope_ = 0;
  BlockView slope_;
};

}  // namespace bracket
