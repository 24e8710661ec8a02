// The largest value of every window. A pass keeps one bit per input value, whether its window chose it: with it the
// layer is a mask and a sum, for tangents and adjoints alike, and takes the ops that already know how those belong to
// rows.
#include "host/network/layer.h"

namespace bracket {
namespace {

constexpr ActivationKind kMask{Activation::relu, 0};

class MaxPoolLayer final : public Layer {
 public:
  explicit MaxPoolLayer(const Window& map) : map_(map) {
    slot_sizes_ = {SlotSize{map.small_cols()}};
    extras_ = {{0, map.height * map.width * ((map.channels + 7) / 8), true}};
  }
  bool piecewise_linear() const noexcept override { return true; }
  bool injective() const noexcept override { return map_.window == 1; }
  void initialize(const RandomKey&, const ValueWriter&) const override {}

  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras) const override {
    const std::int64_t mark = frame.arena.mark();
    const Stacked& y = slots.back();
    if (frame.primal) {
      const Tensor choice = frame.arena.allocate(DType::u8, {frame.rows.primal, map_.small_cols()});
      frame.ops.max_pool_forward(y.primal, choice, x.primal, map_);
      const Tensor ones = frame.arena.allocate(frame.dtype, {frame.rows.primal, map_.small_cols()});
      frame.ops.fill(ones, 1);
      const Tensor chosen = frame.arena.allocate(frame.dtype, {frame.rows.primal, map_.large_cols()});
      frame.ops.max_pool_reverse(chosen, ones, choice, map_);
      frame.ops.masked_activation_forward({chosen, {}}, extras[0], {chosen, {}}, {}, map_.channels, kMask,
                                          {frame.rows.primal, 0, 0, 0});
    }
    if (!y.tangent.absent()) {
      const Tensor masked = frame.arena.allocate(frame.dtype, {frame.rows.tangent_rows(), map_.large_cols()});
      frame.ops.masked_activation_forward({{}, masked}, extras[0], {{}, x.tangent}, {}, map_.channels, kMask,
                                          frame.rows);
      frame.ops.window_sum(y.tangent, masked, map_, Update::overwrite);
    }
    frame.arena.rewind(mark);
  }

  void reverse(const Frame& frame, const Stacked&, const Stacked&, std::span<const Stacked>,
               std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked&,
               const Tensor&, Update) const override {
    if (grad_x.primal.absent() && grad_x.tangent.absent()) return;
    const std::int64_t mark = frame.arena.mark();
    const Stacked grad = with_primal(frame, grad_y, output_size());
    if (!grad_x.primal.absent()) frame.ops.window_spread(grad_x.primal, grad.primal, map_, Update::overwrite);
    if (!grad_x.tangent.absent()) frame.ops.window_spread(grad_x.tangent, grad.tangent, map_, Update::overwrite);
    frame.ops.masked_activation_reverse(grad_x, {}, grad_x, extras[0], map_.channels, kMask, frame.rows,
                                        Update::overwrite);
    frame.arena.rewind(mark);
  }

 private:
  Window map_;
};

}  // namespace

std::unique_ptr<Layer> make_max_pool_layer(const ImageShape& image, std::int64_t window) {
  return std::make_unique<MaxPoolLayer>(Window{image.height, image.width, image.channels, window, 1});
}

}  // namespace bracket
