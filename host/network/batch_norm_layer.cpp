// Batch normalisation of columns, or of the channels of images: then every pixel is a row of the channels. A relu or
// leaky_relu behind it is computed in place.
#include "host/network/epilogue.h"
#include "host/network/layer.h"

namespace bracket {
namespace {

class BatchNormLayer final : public Layer {
 public:
  BatchNormLayer(const BatchNormSpec& spec, const ActivationSpec* activation, const Features& input,
                 const std::string& prefix, BlockLayout& layout)
      : spec_(spec),
        channels_(input.image ? input.image->channels : input.size),
        pixels_(input.size / channels_),
        epilogue_(input.size, channels_, activation) {
    gamma_ = layout.add(prefix + "weight", channels_, 0, false);
    beta_ = layout.add(prefix + "bias", channels_, 0, false);
    mean_ = layout.add(prefix + "running_mean", channels_, 0, true);
    variance_ = layout.add(prefix + "running_var", channels_, 0, true);
    slot_sizes_ = epilogue_.slot_sizes();
    extras_ = {{channels_, 0}, {channels_, 0}};
    for (const Extra& extra : epilogue_.extras()) extras_.push_back(extra);
  }
  bool batch_norm() const noexcept override { return true; }
  bool injective() const noexcept override {  // an invertible affine map unless a scale is exactly zero
    return epilogue_.injective();
  }
  bool consumes_grad_y() const noexcept override { return epilogue_.has_function(); }
  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    const auto count = static_cast<std::size_t>(channels_);
    write(gamma_, false,
          spec_.deviation > 0 ? gaussian_values(key, channels_, 1, spec_.deviation) : std::vector<double>(count, 1));
    write(beta_, false, std::vector<double>(count, 0));
    write(mean_, true, std::vector<double>(count, 0));
    write(variance_, true, std::vector<double>(count, 1));
  }
  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras) const override {
    const Tensor &values = frame.parameters.values, &buffers = frame.parameters.buffers;
    const Stacked y = by_pixel(frame.output(slots.front()));
    if (frame.mode == PassMode::training)
      frame.ops.batch_norm_train_forward(y.primal, extras[0], extras[1], mean_.of(buffers), variance_.of(buffers),
                                         by_pixel(x.primal), gamma_.of(values), beta_.of(values), spec_.momentum,
                                         spec_.epsilon);
    else
      frame.ops.batch_norm_infer_forward(y, by_pixel(x), gamma_.of(values), beta_.of(values), mean_.of(buffers),
                                         variance_.of(buffers), spec_.epsilon, by_pixel(frame.rows));
    epilogue_.forward(frame, slots, extras, {});
  }
  void reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked&,
               const Tensor& grad_block, Update update) const override {
    const std::int64_t mark = frame.arena.mark();
    const Tensor &values = frame.parameters.values, &buffers = frame.parameters.buffers;
    const Tensor grad_gamma = gamma_.of(grad_block), grad_beta = beta_.of(grad_block);
    const Stacked grad = by_pixel(
        with_primal(frame, epilogue_.reverse(frame, grad_y, slots, extras, {}, {}, grad_block, update), output_size()));
    if (frame.mode == PassMode::training) {
      Tensor target = by_pixel(grad_x.primal);
      if (target.absent()) target = frame.arena.allocate(frame.dtype, {grad.primal.rows(), channels_});
      frame.ops.batch_norm_train_reverse(target, grad_gamma, grad_beta, grad.primal, by_pixel(x.primal),
                                         gamma_.of(values), extras[0], extras[1], update);
    } else {
      frame.ops.batch_norm_infer_reverse(by_pixel(grad_x), grad_gamma, grad_beta, grad, by_pixel(x), gamma_.of(values),
                                         mean_.of(buffers), variance_.of(buffers), spec_.epsilon, by_pixel(frame.rows),
                                         update);
    }
    frame.arena.rewind(mark);
  }

 private:
  Tensor by_pixel(const Tensor& x) const {
    return x.absent() || pixels_ == 1 ? x : x.reshaped({x.rows() * pixels_, channels_});
  }
  Stacked by_pixel(const Stacked& x) const { return {by_pixel(x.primal), by_pixel(x.tangent)}; }
  // In inference no pixel's tangent reads its primal value, so only the numbers of rows have to fit.
  Rows by_pixel(const Rows& rows) const {
    return {rows.primal * pixels_, rows.first * pixels_, rows.count * pixels_, rows.tangents};
  }

  BatchNormSpec spec_;
  std::int64_t channels_;
  std::int64_t pixels_;
  Epilogue epilogue_;
  BlockView gamma_, beta_, mean_, variance_;
};

}  // namespace

std::unique_ptr<Layer> make_batch_norm_layer(const BatchNormSpec& spec, const ActivationSpec* activation,
                                             const Features& input, const std::string& prefix, BlockLayout& layout) {
  return std::make_unique<BatchNormLayer>(spec, activation, input, prefix, layout);
}

}  // namespace bracket
