// Convolution and its adjoint, the transposed convolution: y = f(conv(x, W) + b), one bias per output channel. Both
// hold the weight of the Convolution whose input is the larger image, [out_channels, (ky, kx, in_channels)], which
// PyTorch orders (out_channels, in_channels, ky, kx); a transposed layer reads the out_channels of that map.
#include <cmath>

#include "host/network/product_layer.h"

namespace bracket {
namespace {

enum class Direction : std::uint8_t { forward, transposed };

class ConvolutionLayer final : public ProductLayer {
 public:
  ConvolutionLayer(const Convolution& map, Direction direction, double deviation, LayerWeight weight, Epilogue epilogue)
      : ProductLayer(std::move(weight), std::move(epilogue)), map_(map), direction_(direction), deviation_(deviation) {}

  bool injective() const noexcept override { return false; }  // depends on the weights even where it can be
  std::int64_t row_flops() const noexcept override {          // of the transposed map as of the map
    return 2 * map_.out_height() * map_.out_width() * map_.out_channels * map_.in_channels * map_.kernel * map_.kernel;
  }

  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    const std::int64_t fan_in = map_.in_channels * map_.kernel * map_.kernel, count = map_.out_channels * fan_in;
    const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
    weight_.initialize(
        key, deviation_ > 0 ? gaussian_values(key, count, 0, deviation_) : uniform_values(key, count, bound), write);
    RandomKey bias_key = key;
    bias_key.step += 1;
    const std::int64_t channels = direction_ == Direction::forward ? map_.out_channels : map_.in_channels;
    epilogue_.initialize(uniform_values(bias_key, epilogue_.has_bias() ? channels : 0, bound), write);
  }

 private:
  void multiply(Ops& ops, Tensor y, Tensor x, Tensor weight) const override {
    if (direction_ == Direction::forward)
      ops.conv2d_forward(y, x, weight, map_);
    else
      ops.conv2d_reverse_data(y, x, weight, map_, Update::overwrite);
  }
  void reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const override {
    if (direction_ == Direction::forward)
      ops.conv2d_reverse_data(grad_x, grad_y, weight, map_, Update::overwrite);
    else
      ops.conv2d_forward(grad_x, grad_y, weight, map_);
  }
  void reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x, Update update) const override {
    const std::int64_t mark = frame.arena.mark(), elements = map_.weights_workspace(x.rows());
    const Tensor workspace = elements > 0 ? frame.arena.allocate(frame.dtype, {elements}) : Tensor();
    if (direction_ == Direction::forward)
      frame.ops.conv2d_reverse_weights(grad_weight, grad_y, x, map_, update, workspace);
    else
      frame.ops.conv2d_reverse_weights(grad_weight, x, grad_y, map_, update, workspace);
    frame.arena.rewind(mark);
  }

  Convolution map_;
  Direction direction_;
  double deviation_;
};

template <class SpecT>
std::unique_ptr<Layer> make(const SpecT& spec, const Convolution& map, Direction direction, std::int64_t cols,
                            const Behind& behind, const std::string& prefix, BlockLayout& layout) {
  const std::int64_t k = map.kernel, rows = map.out_channels, inputs = map.in_channels;
  Epilogue epilogue(cols, spec.channels, behind.activation);
  if (spec.bias) epilogue.add_bias(prefix + "bias", layout, {});
  WeightShape shape{rows, k * k * inputs, {rows, inputs, k, k}, permuted_order({rows, k, k, inputs}, {0, 3, 1, 2})};
  if (direction == Direction::forward) {  // PyTorch's matrix [out, (in, ky, kx)]
    shape.singular_rows = rows;
    shape.singular_cols = k * k * inputs;
    shape.singular_col_order = permuted_order({k, k, inputs}, {2, 0, 1});
  } else {  // PyTorch's matrix [out, (in, ky, kx)] is the transposed of [(in, ky, kx), out]
    shape.singular_rows = rows * k * k;
    shape.singular_cols = inputs;
    shape.transposed = true;
  }
  LayerWeight weight(std::move(shape), spec.spectral_norm, prefix, layout);
  epilogue.add_slope(behind.activation_prefix + "weight", layout);
  return std::make_unique<ConvolutionLayer>(map, direction, spec.deviation, std::move(weight), std::move(epilogue));
}

}  // namespace

std::unique_ptr<Layer> make_convolution_layer(const Conv2dSpec& spec, const Behind& behind, const ImageShape& input,
                                              const std::string& prefix, BlockLayout& layout) {
  const Convolution map{input.height, input.width, input.channels, spec.channels,
                        spec.kernel,  spec.stride, spec.padding};
  return make(spec, map, Direction::forward, map.out_height() * map.out_width() * spec.channels, behind, prefix,
              layout);
}

std::unique_ptr<Layer> make_convolution_transpose_layer(const ConvTranspose2dSpec& spec, const Behind& behind,
                                                        const ImageShape& input, const std::string& prefix,
                                                        BlockLayout& layout) {
  const auto size = [&](std::int64_t pixels) {
    return (pixels - 1) * spec.stride - 2 * spec.padding + spec.kernel + spec.output_padding;
  };
  const Convolution map{size(input.height), size(input.width), spec.channels, input.channels,
                        spec.kernel,        spec.stride,       spec.padding};
  return make(spec, map, Direction::transposed, map.in_height * map.in_width * spec.channels, behind, prefix, layout);
}

}  // namespace bracket
