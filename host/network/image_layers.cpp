// Layers without parameters that change the size of images: pools and nearest upsampling.
#include "bracket/error.h"
#include "host/network/layer.h"

namespace bracket {
namespace {

// Every part of y from the same part of x: what layers do that are linear and treat all rows alike.
template <class Map>
void map_parts(const Stacked& y, const Stacked& x, const Map& map) {
  const Tensor all_y = joined(y), all_x = joined(x);
  if (!all_y.absent() && !all_x.absent()) return map(all_y, all_x);
  if (!y.primal.absent()) map(y.primal, x.primal);
  if (!y.tangent.absent()) map(y.tangent, x.tangent);
}

class PoolLayer final : public Layer {
 public:
  PoolLayer(const Window& map, bool upsample) : map_(map), upsample_(upsample) {
    const std::int64_t large = map.height * map.width * map.channels;
    slot_sizes_ = {SlotSize{upsample ? large : large / (map.window * map.window)}};
  }
  bool piecewise_linear() const noexcept override { return true; }
  bool injective() const noexcept override { return upsample_ || map_.window == 1; }
  void initialize(const RandomKey&, const ValueWriter&) const override {}
  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor>) const override {
    apply(frame, frame.output(slots.back()), x, upsample_);
  }
  void reverse(const Frame& frame, const Stacked&, const Stacked&, std::span<const Stacked>, std::span<const Tensor>,
               const Stacked& grad_y, const Stacked& grad_x, const Stacked&, const Tensor&, Update) const override {
    if (grad_x.primal.absent() && grad_x.tangent.absent()) return;
    const std::int64_t mark = frame.arena.mark();
    apply(frame, grad_x, with_primal(frame, grad_y, output_size()), !upsample_);
    frame.arena.rewind(mark);
  }

 private:
  void apply(const Frame& frame, const Stacked& y, const Stacked& x, bool spread) const {
    map_parts(y, x, [&](const Tensor& to, const Tensor& from) {
      if (spread)
        frame.ops.window_spread(to, from, map_, Update::overwrite);
      else
        frame.ops.window_sum(to, from, map_, Update::overwrite);
    });
  }

  Window map_;
  bool upsample_;
};

}  // namespace

std::unique_ptr<Layer> make_pool_layer(const ImageShape& image, std::int64_t window, double scale) {
  return std::make_unique<PoolLayer>(Window{image.height, image.width, image.channels, window, scale}, false);
}

std::unique_ptr<Layer> make_upsample_layer(const ImageShape& image, std::int64_t factor) {
  return std::make_unique<PoolLayer>(Window{image.height, image.width, image.channels, factor, 1}, true);
}

}  // namespace bracket
