// The products of a convolution or a transposed convolution, which is the adjoint of the Convolution whose input is the
// larger image: forward and its two adjoints.
#pragma once

#include <cstdint>

#include "host/network/layer.h"

namespace bracket {

struct ConvolutionProduct {
  Convolution map;
  bool transposed = false;

  std::int64_t inputs() const noexcept { return transposed ? map.out_columns() : map.in_columns(); }
  std::int64_t outputs() const noexcept { return transposed ? map.in_columns() : map.out_columns(); }
  std::int64_t channels() const noexcept { return transposed ? map.in_channels : map.out_channels; }  ///< of the output
  /// Of a row, either way.
  std::int64_t flops() const noexcept { return 2 * map.out_columns() * map.weight_columns(); }

  ProductSize size(std::int64_t rows) const noexcept {
    return transposed ? map.reverse_data_size(rows) : map.forward_size(rows);
  }

  void multiply(Ops& ops, Tensor y, Tensor x, Tensor weight, const ProductEpilogue& epilogue = {}) const;
  void reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const;
  void reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x, Update update) const;
};

}  // namespace bracket
