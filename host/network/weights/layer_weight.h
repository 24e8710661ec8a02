// The weight of a linear or convolution layer: a matrix, divided by its largest singular value where that is asked for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "host/network/layer.h"

namespace bracket {

struct WeightShape {
  std::int64_t rows = 0;  ///< of the matrix in memory that the product takes
  std::int64_t cols = 0;
  std::vector<std::int64_t> shape;  ///< in files
  FileOrder order = {};
  bool channels_last = false;  ///< output channels are the innermost index of the columns, not the rows
  /// The matrix whose largest singular value counts: the same memory with other extents.
  std::int64_t singular_rows = 0;
  std::int64_t singular_cols = 0;
  FileOrder singular_row_order = {}, singular_col_order = {};
  bool transposed = false;  ///< PyTorch's view is that matrix transposed: its u belongs to the columns
};

class LayerWeight {
 public:
  LayerWeight(WeightShape shape, bool spectral_norm, const std::string& prefix, BlockLayout& layout);

  bool spectral_norm() const noexcept { return spectral_norm_; }
  std::int64_t rows() const noexcept { return shape_.rows; }
  std::int64_t cols() const noexcept { return shape_.cols; }
  bool channels_last() const noexcept { return shape_.channels_last; }
  /// The weight, or its gradient, in a flat block.
  Tensor of(const Tensor& block) const { return weight_.of(block); }
  /// What a pass keeps for the weight: `extras().size()` tensors, the first of every `extras` argument below.
  std::vector<Extra> extras() const;
  /// `values` in the file's order; starts the power iteration from key.step + 2.
  void initialize(const RandomKey& key, const std::vector<double>& values, const ValueWriter& write) const;
  /// The matrix of a forward pass; one power iteration in training passes.
  Tensor forward(const Frame& frame, std::span<const Tensor> extras) const;
  /// The matrix that the forward pass used.
  Tensor used(const Frame& frame, std::span<const Tensor> extras) const;
  /// Turns the gradient of the normalised matrix into that of the weight; only with spectral normalisation.
  void normalised_reverse(const Frame& frame, const Tensor& grad_used, std::span<const Tensor> extras,
                          const Tensor& grad_block, Update update) const;

 private:
  Tensor singular_view(const Tensor& weight) const {
    return weight.reshaped({shape_.singular_rows, shape_.singular_cols});
  }

  WeightShape shape_;
  bool spectral_norm_;
  BlockView weight_, left_, right_;  // left_, right_: singular vectors
};

}  // namespace bracket
