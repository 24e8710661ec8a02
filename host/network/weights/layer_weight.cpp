#include "host/network/weights/layer_weight.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace bracket {
namespace {

constexpr double kSpectralEpsilon = 1e-12;  // PyTorch's default
constexpr int kStartIterations = 15;        // PyTorch's: u, v settle before the first pass

void normalise(std::vector<double>& a) {
  double norm = 0;
  for (double e : a) norm += e * e;
  norm = std::max(std::sqrt(norm), kSpectralEpsilon);
  for (double& e : a) e /= norm;
}

}  // namespace

LayerWeight::LayerWeight(WeightShape shape, bool spectral_norm, const std::string& prefix, BlockLayout& layout)
    : shape_(std::move(shape)), spectral_norm_(spectral_norm) {
  if (!spectral_norm) {
    weight_ = layout.add(prefix + "weight", shape_.rows, shape_.cols, false, shape_.shape, shape_.order);
    return;
  }
  const std::string base = prefix + "parametrizations.weight.";
  weight_ = layout.add(base + "original", shape_.rows, shape_.cols, false, shape_.shape, shape_.order);
  const std::int64_t rows = shape_.singular_rows, cols = shape_.singular_cols;
  const auto add_left = [&](const char* name) {
    left_ = layout.add(base + name, rows, 0, true, {rows}, shape_.singular_row_order);
  };
  const auto add_right = [&](const char* name) {
    right_ = layout.add(base + name, cols, 0, true, {cols}, shape_.singular_col_order);
  };
  if (shape_.transposed) {
    add_right("0._u");
    add_left("0._v");
  } else {
    add_left("0._u");
    add_right("0._v");
  }
}

std::vector<Extra> LayerWeight::extras() const {
  if (!spectral_norm_) return {};
  return {{shape_.singular_rows, shape_.singular_cols}, {1, 0}};
}

// Random unit vectors, then power iterations, as PyTorch's parametrization does when it is attached.
void LayerWeight::initialize(const RandomKey& key, const std::vector<double>& values, const ValueWriter& write) const {
  const std::vector<double> weight = in_memory_order(values, shape_.order);
  write(weight_, false, weight);
  if (!spectral_norm_) return;
  const auto rows = static_cast<std::size_t>(shape_.singular_rows);
  const auto cols = static_cast<std::size_t>(shape_.singular_cols);
  RandomKey start = key;
  start.step += 2;
  std::vector<double> u = uniform_values(start, shape_.singular_rows, 1), v(cols);
  for (int k = 0; k < kStartIterations; ++k) {
    std::fill(v.begin(), v.end(), 0);
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < cols; ++j) v[j] += weight[i * cols + j] * u[i];
    normalise(v);
    for (std::size_t i = 0; i < rows; ++i) {
      u[i] = 0;
      for (std::size_t j = 0; j < cols; ++j) u[i] += weight[i * cols + j] * v[j];
    }
    normalise(u);
  }
  write(left_, true, u);
  write(right_, true, v);
}

Tensor LayerWeight::forward(const Frame& frame, std::span<const Tensor> extras) const {
  if (spectral_norm_ && frame.primal)
    frame.ops.spectral_norm_forward(
        extras[0], extras[1], left_.of(frame.parameters.buffers), right_.of(frame.parameters.buffers),
        singular_view(weight_.of(frame.parameters.values)), frame.mode == PassMode::training ? 1 : 0, kSpectralEpsilon);
  return used(frame, extras);
}

Tensor LayerWeight::used(const Frame& frame, std::span<const Tensor> extras) const {
  return spectral_norm_ ? extras[0].reshaped({shape_.rows, shape_.cols}) : weight_.of(frame.parameters.values);
}

void LayerWeight::normalised_reverse(const Frame& frame, const Tensor& grad_used, std::span<const Tensor> extras,
                                     const Tensor& grad_block, Update update) const {
  frame.ops.spectral_norm_reverse(singular_view(weight_.of(grad_block)), singular_view(grad_used), extras[0], extras[1],
                                  left_.of(frame.parameters.buffers), right_.of(frame.parameters.buffers), update);
}

}  // namespace bracket
