// Fixed orthogonal maps of the columns, y = x Q^T: permutations and rotations. Q is a buffer, made from the seed of the
// specification alone.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "host/network/layer.h"

namespace bracket {
namespace {

std::vector<double> permutation_matrix(const PermutationSpec& spec, std::int64_t n) {
  std::vector<std::int64_t> from(static_cast<std::size_t>(n));
  std::iota(from.begin(), from.end(), std::int64_t{0});
  if (!spec.random) {
    std::reverse(from.begin(), from.end());
  } else {  // Fisher and Yates
    const RandomKey key{spec.seed, RandomStream::fixed_map, 0};
    for (std::size_t i = from.size(); i-- > 1;) {
      const auto j = static_cast<std::size_t>(random_uniform(key, i) * static_cast<double>(i + 1));
      std::swap(from[i], from[j]);
    }
  }
  std::vector<double> matrix(static_cast<std::size_t>(n * n), 0.0);
  for (std::int64_t i = 0; i < n; ++i) matrix[static_cast<std::size_t>(i * n + from[static_cast<std::size_t>(i)])] = 1;
  return matrix;
}

// Rows of normals made orthonormal in turn, twice (once leaves an error of the condition number): uniformly distributed,
// since the factor R of their QR has a positive diagonal.
std::vector<double> rotation_matrix(const RotationSpec& spec, std::int64_t n) {
  std::vector<double> q = gaussian_values({spec.seed, RandomStream::fixed_map, 1}, n * n, 0, 1);
  const auto row = [&](std::int64_t i) { return q.data() + i * n; };
  const auto dot = [&](std::int64_t i, std::int64_t j) { return std::inner_product(row(i), row(i) + n, row(j), 0.0); };
  for (std::int64_t i = 0; i < n; ++i) {
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t j = 0; j < i; ++j) {
        const double along = dot(i, j);
        for (std::int64_t k = 0; k < n; ++k) row(i)[k] -= along * row(j)[k];
      }
      const double length = std::sqrt(dot(i, i));
      for (std::int64_t k = 0; k < n; ++k) row(i)[k] /= length;
    }
  }
  return q;
}

class OrthogonalLayer final : public Layer {
 public:
  OrthogonalLayer(std::vector<double> matrix, std::int64_t inputs, const std::string& prefix, BlockLayout& layout)
      : start_(std::move(matrix)) {
    matrix_ = layout.add(prefix + "matrix", inputs, inputs, true);
    slot_sizes_ = {SlotSize{inputs}};
  }
  bool piecewise_linear() const noexcept override { return true; }
  bool injective() const noexcept override { return true; }
  bool has_log_volume() const noexcept override { return true; }
  std::int64_t row_flops() const noexcept override { return 2 * output_size() * output_size(); }
  void initialize(const RandomKey&, const ValueWriter& write) const override { write(matrix_, true, start_); }

  // In fp32 whatever the mode of the passes: rounded factors would make Q what it is not.
  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor>) const override {
    const MathScope math(frame.ops, MathMode::fp32);
    const Stacked y = frame.output(slots.back());
    const Tensor q = matrix_.of(frame.parameters.buffers);
    if (!y.primal.absent()) frame.ops.linear_forward(y.primal, x.primal, q);
    if (!y.tangent.absent()) frame.ops.linear_forward(y.tangent, x.tangent, q);
  }
  void reverse(const Frame& frame, const Stacked&, const Stacked&, std::span<const Stacked>, std::span<const Tensor>,
               const Stacked& grad_y, const Stacked& grad_x, const Stacked&, const Tensor&, Update) const override {
    const MathScope math(frame.ops, MathMode::fp32);
    const Tensor q = matrix_.of(frame.parameters.buffers);
    if (!grad_x.primal.absent()) {
      if (grad_y.primal.absent())
        frame.ops.fill(grad_x.primal, 0);
      else
        frame.ops.linear_reverse_data(grad_x.primal, grad_y.primal, q, Update::overwrite);
    }
    if (!grad_x.tangent.absent()) frame.ops.linear_reverse_data(grad_x.tangent, grad_y.tangent, q, Update::overwrite);
  }

 private:
  std::vector<double> start_;
  BlockView matrix_;
};

}  // namespace

std::unique_ptr<Layer> make_permutation_layer(const PermutationSpec& spec, std::int64_t inputs,
                                              const std::string& prefix, BlockLayout& layout) {
  return std::make_unique<OrthogonalLayer>(permutation_matrix(spec, inputs), inputs, prefix, layout);
}

std::unique_ptr<Layer> make_rotation_layer(const RotationSpec& spec, std::int64_t inputs, const std::string& prefix,
                                           BlockLayout& layout) {
  return std::make_unique<OrthogonalLayer>(rotation_matrix(spec, inputs), inputs, prefix, layout);
}

}  // namespace bracket
