// Dense layer: y = f(x W^T + b).
#include <cmath>

#include "host/network/product_layer.h"

namespace bracket {
namespace {

// The order (channel, y, x) of a side of the matrix that belongs to an image, beside another side of any kind.
FileOrder matrix_order(std::int64_t rows, const ImageShape* row_image, std::int64_t cols, const ImageShape* col_image) {
  if (row_image == nullptr && col_image == nullptr) return {};
  std::vector<std::int64_t> extents;
  std::vector<std::size_t> axes;
  const auto add = [&](std::int64_t size, const ImageShape* image) {
    const std::size_t first = extents.size();
    if (image == nullptr) {
      extents.push_back(size);
      axes.push_back(first);
    } else {
      extents.insert(extents.end(), {image->height, image->width, image->channels});
      axes.insert(axes.end(), {first + 2, first, first + 1});
    }
  };
  if (rows > 0) add(rows, row_image);
  if (cols > 0) add(cols, col_image);
  return permuted_order(extents, axes);
}

class LinearLayer final : public ProductLayer {
 public:
  LinearLayer(const LinearSpec& spec, LayerWeight weight, Epilogue epilogue, std::int64_t inputs)
      : ProductLayer(std::move(weight), std::move(epilogue)), spec_(spec), inputs_(inputs) {}

  bool injective() const noexcept override { return spec_.features == inputs_ && epilogue_.injective(); }
  std::int64_t row_flops() const noexcept override { return 2 * spec_.features * inputs_; }

  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    const double fan_in = 1 / std::sqrt(static_cast<double>(inputs_));
    std::vector<double> weight = uniform_values(key, spec_.features * inputs_, spec_.weight_gain * fan_in);
    if (spec_.identity_start)
      for (std::int64_t i = 0; i < spec_.features * inputs_; ++i)
        weight[static_cast<std::size_t>(i)] = i / inputs_ == i % inputs_ ? 1 : 0;
    weight_.initialize(key, weight, write);
    RandomKey bias_key = key;
    bias_key.step += 1;
    epilogue_.initialize(
        uniform_values(bias_key, spec_.bias ? spec_.features : 0, spec_.bias_bound < 0 ? fan_in : spec_.bias_bound),
        write);
  }

 private:
  void multiply(Ops& ops, Tensor y, Tensor x, Tensor weight) const override { ops.linear_forward(y, x, weight); }
  void reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const override {
    ops.linear_reverse_data(grad_x, grad_y, weight, Update::overwrite);
  }
  void reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x, Update update) const override {
    frame.ops.linear_reverse_weights(grad_weight, grad_y, x, update);
  }

  LinearSpec spec_;
  std::int64_t inputs_;
};

}  // namespace

std::unique_ptr<Layer> make_linear_layer(const LinearSpec& spec, const Behind& behind, const Features& input,
                                         const std::string& prefix, BlockLayout& layout) {
  ImageShape output_image;
  if (behind.unflatten != nullptr)
    output_image = {behind.unflatten->channels, behind.unflatten->height, behind.unflatten->width};
  const ImageShape* row_image = behind.unflatten != nullptr ? &output_image : nullptr;
  const ImageShape* col_image = input.flattened ? &*input.image : nullptr;
  const std::int64_t rows = spec.features, cols = input.size;
  const FileOrder row_order = matrix_order(rows, row_image, 0, nullptr);
  const FileOrder col_order = matrix_order(0, nullptr, cols, col_image);
  Epilogue epilogue(rows, rows, behind.activation);
  if (spec.bias) epilogue.add_bias(prefix + "bias", layout, row_order);
  WeightShape shape{rows, cols, {rows, cols}, matrix_order(rows, row_image, cols, col_image)};
  shape.singular_rows = rows;
  shape.singular_cols = cols;
  shape.singular_row_order = row_order;
  shape.singular_col_order = col_order;
  LayerWeight weight(std::move(shape), spec.spectral_norm, prefix, layout);
  epilogue.add_slope(behind.activation_prefix + "weight", layout);
  return std::make_unique<LinearLayer>(spec, std::move(weight), std::move(epilogue), cols);
}

}  // namespace bracket
