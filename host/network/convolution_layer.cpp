// Convolution and its adjoint, the transposed convolution: y = f(conv(x, W) + b), one bias per output channel.
#include <cmath>
#include <utility>

#include "host/network/product_layer.h"
#include "host/network/weights/layer_maps.h"

namespace bracket {
namespace {

/// What the starting values depend on.
struct Start {
  std::int64_t weights = 0;
  std::int64_t fan_in = 0;  ///< as PyTorch computes it
  std::int64_t biases = 0;
  double deviation = 0;
};

class ConvolutionLayer final : public ProductLayer {
 public:
  ConvolutionLayer(const ConvolutionProduct& product, const Start& start, const StoredMap& stored,
                   std::unique_ptr<UsedMap> map, Epilogue epilogue)
      : ProductLayer(std::move(map), std::move(epilogue)), product_(product), start_(start), stored_(stored) {}

  bool injective() const noexcept override { return false; }  // depends on the weights even where it can be
  std::int64_t row_flops() const noexcept override { return product_.flops(); }

  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    const double bound = 1 / std::sqrt(static_cast<double>(start_.fan_in));
    RandomKey bias_key = key;
    bias_key.step += 1;
    stored_.initialize(key,
                       start_.deviation > 0 ? gaussian_values(key, start_.weights, 0, start_.deviation)
                                            : uniform_values(key, start_.weights, bound),
                       uniform_values(bias_key, start_.biases, bound), write);
    epilogue_.initialize(write);
  }

 private:
  void multiply(Ops& ops, Tensor y, Tensor x, Tensor weight, const ProductEpilogue& epilogue) const override {
    product_.multiply(ops, y, x, weight, epilogue);
  }
  std::optional<ProductSize> epilogue_size(std::int64_t rows) const override { return product_.size(rows); }
  void reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const override {
    product_.reverse_data(ops, grad_x, grad_y, weight);
  }
  void reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x, Update update) const override {
    product_.reverse_weights(frame, grad_weight, grad_y, x, update);
  }

  ConvolutionProduct product_;
  Start start_;
  const StoredMap& stored_;  // of the map
};

template <class SpecT>
std::unique_ptr<Layer> make(const SpecT& spec, ConvolutionMap made, std::int64_t weights, std::int64_t fan_in,
                            const Around& around, BlockLayout& layout) {
  const ConvolutionProduct product = made.product;
  const StoredMap& stored = *made.map;
  const Start start{weights, fan_in, spec.bias ? spec.channels : 0, spec.deviation};
  std::unique_ptr<UsedMap> map = with_norm(std::move(made.map), around, spec.channels, layout);
  Epilogue epilogue = make_epilogue(*map, product.outputs(), spec.channels, around, layout);
  return std::make_unique<ConvolutionLayer>(product, start, stored, std::move(map), std::move(epilogue));
}

}  // namespace

std::unique_ptr<Layer> make_convolution_layer(const Conv2dSpec& spec, const Around& around, const ImageShape& input,
                                              const std::string& prefix, BlockLayout& layout) {
  const std::int64_t fan_in = input.channels * spec.kernel * spec.kernel;
  return make(spec, make_convolution_map(spec, around, input, prefix, layout), spec.channels * fan_in, fan_in, around,
              layout);
}

std::unique_ptr<Layer> make_convolution_transpose_layer(const ConvTranspose2dSpec& spec, const Around& around,
                                                        const ImageShape& input, const std::string& prefix,
                                                        BlockLayout& layout) {
  const std::int64_t fan_in = spec.channels * spec.kernel * spec.kernel;
  return make(spec, make_convolution_map(spec, input, prefix, layout), input.channels * fan_in, fan_in, around, layout);
}

}  // namespace bracket
