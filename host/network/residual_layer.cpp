// y = body(x) + skip(x), two chains of layers. The sum replaces the last value of the body, which no reverse pass
// reads.
#include "bracket/error.h"
#include "host/network/layer_chain.h"

namespace bracket {
namespace {

class ResidualLayer final : public Layer {
 public:
  ResidualLayer(LayerChain body, LayerChain skip) : body_(std::move(body)), skip_(std::move(skip)) {
    for (const LayerChain* chain : {&skip_, &body_}) {
      slot_sizes_.insert(slot_sizes_.end(), chain->slot_sizes().begin(), chain->slot_sizes().end());
      extras_.insert(extras_.end(), chain->extras().begin(), chain->extras().end());
    }
  }

  std::uint64_t keys() const noexcept override { return body_.keys() + skip_.keys(); }
  bool batch_norm() const noexcept override { return body_.batch_norm() || skip_.batch_norm(); }
  bool training_state() const noexcept override { return body_.training_state() || skip_.training_state(); }
  bool piecewise_linear() const noexcept override { return body_.piecewise_linear() && skip_.piecewise_linear(); }
  std::int64_t row_flops() const noexcept override { return body_.row_flops() + skip_.row_flops(); }
  std::int64_t once_flops() const noexcept override { return body_.once_flops() + skip_.once_flops(); }
  FoldedNorm folded() const noexcept override { return body_.folded() + skip_.folded(); }
  bool injective() const noexcept override { return false; }  // a sum of two injective maps need not be one
  bool consumes_grad_y() const noexcept override { return skip_.consumes_grad_y(); }

  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    body_.initialize(key, 0, write);
    RandomKey skip_key = key;
    skip_key.step += body_.keys();
    skip_.initialize(skip_key, 0, write);
  }

  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras) const override {
    const Parts<Stacked> slot(slots, skip_.slot_sizes().size());
    const Parts<Tensor> extra(extras, skip_.extras().size());
    const Stacked from_skip = skip_.forward(frame, x, slot.skip, extra.skip);
    const Stacked y = frame.output(body_.forward(frame, x, slot.body, extra.body));
    add(frame.ops, y, from_skip);
  }

  void reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked&,
               const Tensor& grad_block, Update update) const override {
    const std::int64_t mark = frame.arena.mark();
    const Parts<Stacked> slot(slots, skip_.slot_sizes().size());
    const Parts<Tensor> extra(extras, skip_.extras().size());
    const bool wanted = !grad_x.primal.absent() || !grad_x.tangent.absent();
    Stacked grad_body = grad_y;
    if (body_.consumes_grad_y()) {
      grad_body = allocate_stacked(frame.arena, frame.dtype, frame.rows, output_size(), !grad_y.primal.absent(),
                                   !grad_y.tangent.absent());
      if (!grad_y.primal.absent()) frame.ops.copy(grad_body.primal, grad_y.primal);
      if (!grad_y.tangent.absent()) frame.ops.copy(grad_body.tangent, grad_y.tangent);
    }
    body_.reverse(frame, x, slot.body, extra.body, grad_body, grad_x, grad_block, update);
    Stacked grad_skip;
    if (skip_.slot_sizes().empty())
      grad_skip = grad_y;
    else if (wanted)
      grad_skip = allocate_stacked(frame.arena, frame.dtype, frame.rows, x.primal.cols(), frame.primal,
                                   !grad_y.tangent.absent());
    if (!skip_.slot_sizes().empty())
      skip_.reverse(frame, x, slot.skip, extra.skip, grad_y, grad_skip, grad_block, update);
    if (wanted) add(frame.ops, grad_x, grad_skip);
    frame.arena.rewind(mark);
  }

 private:
  // The skip path's part of the layer's slots or extras comes first: the last slot is the layer's output.
  template <class T>
  struct Parts {
    Parts(std::span<const T> all, std::size_t skips) : skip(all.first(skips)), body(all.subspan(skips)) {}
    std::span<const T> skip, body;
  };

  static void add(Ops& ops, const Stacked& total, const Stacked& term) {
    if (!total.primal.absent() && !term.primal.absent()) ops.axpy(total.primal, 1, term.primal);
    if (!total.tangent.absent() && !term.tangent.absent()) ops.axpy(total.tangent, 1, term.tangent);
  }

  LayerChain body_, skip_;
};

}  // namespace

std::unique_ptr<Layer> make_residual_layer(const ResidualSpec& spec, const Features& input, const std::string& path,
                                           Merging& merging, BlockLayout& layout, Features& output) {
  LayerChain body(spec.body, input, path + "body.", merging, layout),
      skip(spec.skip, input, path + "skip.", merging, layout);
  const std::string label = "layer " + path.substr(0, path.size() - 1) + ": residual ";
  if (body.slot_sizes().empty()) throw InvalidArgument(label + "body must compute something; give it layers");
  const Features &a = body.output(), &b = skip.output();
  if (a.size != b.size || a.image != b.image || a.flattened != b.flattened)
    throw InvalidArgument(label + "paths must end alike, the body makes " + described(a) + ", the skip path " +
                          described(b));
  output = a;
  return std::make_unique<ResidualLayer>(std::move(body), std::move(skip));
}

}  // namespace bracket
