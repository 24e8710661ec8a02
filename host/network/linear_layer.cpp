// Dense layer: y = f(x W^T + b). And one with the convolution of its image: y = f(x M + m), see ComposedMap.
#include <cmath>
#include <utility>

#include "bracket/error.h"
#include "host/network/product_layer.h"
#include "host/network/weights/composed_map.h"
#include "host/network/weights/layer_maps.h"

namespace bracket {
namespace {

class LinearLayer final : public ProductLayer {
 public:
  LinearLayer(const LinearSpec& spec, const StoredMap& stored, std::unique_ptr<UsedMap> map, Epilogue epilogue,
              std::int64_t inputs)
      : ProductLayer(std::move(map), std::move(epilogue)), spec_(spec), stored_(stored), inputs_(inputs) {}

  bool injective() const noexcept override { return spec_.features >= inputs_ && epilogue_.injective(); }
  bool has_log_volume() const noexcept override {
    return spec_.features == inputs_ && !spec_.spectral_norm && !epilogue_.has_function();
  }
  std::int64_t row_flops() const noexcept override { return 2 * spec_.features * inputs_; }

  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    const double fan_in = 1 / std::sqrt(static_cast<double>(inputs_));
    std::vector<double> weight = uniform_values(key, spec_.features * inputs_, spec_.weight_gain * fan_in);
    if (spec_.identity_start)
      for (std::int64_t i = 0; i < spec_.features * inputs_; ++i)
        weight[static_cast<std::size_t>(i)] = i / inputs_ == i % inputs_ ? 1 : 0;
    RandomKey bias_key = key;
    bias_key.step += 1;
    stored_.initialize(
        key, weight,
        uniform_values(bias_key, spec_.bias ? spec_.features : 0, spec_.bias_bound < 0 ? fan_in : spec_.bias_bound),
        write);
    epilogue_.initialize(write);
  }

  void forward(const Frame& frame, const Stacked& x, const Stacked& side, std::span<const Stacked> slots,
               std::span<const Tensor> extras) const override {
    ProductLayer::forward(frame, x, side, slots, extras);
    if (frame.log_volume.primal.absent()) return;  // the same at every point: tangents add nothing
    const std::int64_t mark = frame.arena.mark(), n = frame.rows.primal;
    const Tensor volume = frame.arena.allocate(frame.dtype, {1, 1});
    factors(frame, volume, map_->used(frame, extras).weight);
    frame.ops.axpy(frame.log_volume.primal, 1, spread_over_row(frame, {volume, {}}, n).primal.reshaped({n, 1}));
    frame.arena.rewind(mark);
  }

  // The gradient of log |det W| is W^-T.
  void reverse(const Frame& frame, const Stacked& x, const Stacked& side, std::span<const Stacked> slots,
               std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked& grad_side,
               const Tensor& grad_block, Update update) const override {
    ProductLayer::reverse(frame, x, side, slots, extras, grad_y, grad_x, grad_side, grad_block, update);
    if (frame.log_volume.primal.absent() || grad_block.absent()) return;
    const std::int64_t mark = frame.arena.mark(), n = frame.rows.primal, elements = inputs_ * inputs_;
    const Tensor weight = map_->used(frame, extras).weight, total = frame.arena.allocate(frame.dtype, {1, 1});
    const Factors of = factors(frame, total, weight);
    frame.ops.triangular_solve(of.orthogonal, of.lower, of.orthogonal, true);  // L^-T Q
    const Tensor inverse = frame.arena.allocate(frame.dtype, {inputs_, inputs_});
    frame.ops.copy(inverse, of.orthogonal);
    frame.ops.fill(total, 0);
    add_row_sums(frame, {total, {}}, {frame.log_volume.primal.reshaped({1, n}), {}});
    const Tensor flat = inverse.reshaped({1, elements});
    frame.ops.scale_rows(flat, flat, total.reshaped({1}), 1);
    frame.ops.axpy(map_->gradient(frame, grad_block, Update::accumulate).weight.reshaped({1, elements}), 1, flat);
    frame.arena.rewind(mark);
  }

 private:
  // W = L Q in double, and volume [1, 1] = log |det W| = sum log diag L. For a W of condition c both this and L^-T Q are
  // known to some d c roundings of double.
  struct Factors {
    Tensor lower, orthogonal;
  };
  static Factors factors(const Frame& frame, const Tensor& volume, const Tensor& weight) {
    const std::int64_t d = weight.rows();
    const Factors of{frame.arena.allocate(DType::f64, {1, d, d}), frame.arena.allocate(DType::f64, {d, d})};
    frame.ops.copy(of.orthogonal, weight);
    frame.ops.lq_factor(of.lower, of.orthogonal);
    frame.ops.log_diagonal_sum(volume.reshaped({1}), of.lower);
    return of;
  }

  void multiply(Ops& ops, Tensor y, Tensor x, Tensor weight, const ProductEpilogue& epilogue) const override {
    ops.linear_forward(y, x, weight, epilogue);
  }
  std::optional<ProductSize> epilogue_size(std::int64_t rows) const override {
    return ProductSize{rows, spec_.features, inputs_};
  }
  void reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const override {
    ops.linear_reverse_data(grad_x, grad_y, weight, Update::overwrite);
  }
  void reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x, Update update) const override {
    frame.ops.linear_reverse_weights(grad_weight, grad_y, x, update);
  }

  LinearSpec spec_;
  const StoredMap& stored_;  // of the map
  std::int64_t inputs_;
};

class ComposedLayer final : public ProductLayer {
 public:
  ComposedLayer(std::unique_ptr<UsedMap> map, Epilogue epilogue) : ProductLayer(std::move(map), std::move(epilogue)) {}

  bool injective() const noexcept override { return false; }  // as the convolution's
  std::int64_t row_flops() const noexcept override { return 2 * map_->shape().rows * map_->shape().cols; }

  void initialize(const RandomKey& /*key*/, const ValueWriter& /*write*/) const override {
    throw Error(ExitCode::internal, "a composed layer has no starting values; those of its two layers are asked for");
  }

 private:
  void multiply(Ops& ops, Tensor y, Tensor x, Tensor weight, const ProductEpilogue& /*none*/) const override {
    ops.linear_reverse_data(y, x, weight, Update::overwrite);
  }
  void reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const override {
    ops.linear_forward(grad_x, grad_y, weight);
  }
  void reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x, Update update) const override {
    frame.ops.linear_reverse_weights(grad_weight, x, grad_y, update);
  }
};

std::unique_ptr<Layer> composed(std::unique_ptr<StoredMap> linear, ConvolutionMap convolution, const Around& around,
                                BlockLayout& layout) {
  const ConvolutionProduct& product = convolution.product;
  std::unique_ptr<UsedMap> map =
      with_norm(std::make_unique<ComposedMap>(std::move(linear), std::move(convolution.map), product), around,
                product.channels(), layout);
  Epilogue epilogue = make_epilogue(*map, product.outputs(), product.channels(), around, layout);
  return std::make_unique<ComposedLayer>(std::move(map), std::move(epilogue));
}

ImageShape image_of(const UnflattenSpec& s) { return {s.channels, s.height, s.width}; }

}  // namespace

std::unique_ptr<Layer> make_linear_layer(const LinearSpec& spec, const Around& around, const Features& input,
                                         const std::string& prefix, BlockLayout& layout) {
  const std::int64_t rows = spec.features;
  std::unique_ptr<StoredMap> stored = make_linear_map(spec, around.unflatten, input, prefix, layout);
  const StoredMap& own = *stored;
  std::unique_ptr<UsedMap> map =
      with_norm(std::move(stored), around, around.unflatten != nullptr ? around.unflatten->channels : rows, layout);
  Epilogue epilogue = make_epilogue(*map, rows, rows, around, layout);
  return std::make_unique<LinearLayer>(spec, own, std::move(map), std::move(epilogue), input.size);
}

std::unique_ptr<Layer> make_composed_layer(const LinearSpec& linear, const Conv2dSpec& convolution,
                                           const Around& around, const Features& input, const std::string& prefix,
                                           const std::string& convolution_prefix, BlockLayout& layout) {
  std::unique_ptr<StoredMap> map = make_linear_map(linear, around.unflatten, input, prefix, layout);
  return composed(std::move(map),
                  make_convolution_map(convolution, {}, image_of(*around.unflatten), convolution_prefix, layout),
                  around, layout);
}

std::unique_ptr<Layer> make_composed_layer(const LinearSpec& linear, const ConvTranspose2dSpec& convolution,
                                           const Around& around, const Features& input, const std::string& prefix,
                                           const std::string& convolution_prefix, BlockLayout& layout) {
  std::unique_ptr<StoredMap> map = make_linear_map(linear, around.unflatten, input, prefix, layout);
  return composed(std::move(map),
                  make_convolution_map(convolution, image_of(*around.unflatten), convolution_prefix, layout), around,
                  layout);
}

}  // namespace bracket
