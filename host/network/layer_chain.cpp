#include "host/network/layer_chain.h"

#include <algorithm>
#include <array>

#include "host/network/layer_factory.h"

namespace bracket {
namespace {

void contribute(Ops& ops, const Stacked& total, const Stacked& term) {
  if (!term.primal.absent()) ops.axpy(total.primal, 1, term.primal);
  if (!term.tangent.absent()) ops.axpy(total.tangent, 1, term.tangent);
}

bool absent(const Stacked& value) { return value.primal.absent() && value.tangent.absent(); }

// Two blocks that the adjoints of a chain use in turn: that of a layer's output is dead once its input's is known.
class AlternatingBlocks {
 public:
  AlternatingBlocks(const Frame& frame, std::int64_t most_cols, bool tangent) : frame_(frame), tangent_(tangent) {
    for (Tensor& block : blocks_)
      block = frame.arena.allocate(frame.dtype, {(primal_rows() + tangent_rows()) * most_cols});
  }
  Stacked next(std::int64_t cols) {
    const std::int64_t n = primal_rows(), m = tangent_rows();
    const Tensor all = blocks_[turn_].slice_rows(0, (n + m) * cols).reshaped({n + m, cols});
    turn_ = 1 - turn_;
    return {frame_.primal ? all.slice_rows(0, n) : Tensor(), tangent_ ? all.slice_rows(n, m) : Tensor()};
  }

 private:
  std::int64_t primal_rows() const noexcept { return frame_.primal ? frame_.rows.primal : 0; }
  std::int64_t tangent_rows() const noexcept { return tangent_ ? frame_.rows.tangent_rows() : 0; }

  const Frame& frame_;
  bool tangent_;
  std::array<Tensor, 2> blocks_;
  std::size_t turn_ = 0;
};

}  // namespace

LayerChain::LayerChain(const std::vector<LayerSpec>& specs, const Features& input, const std::string& path,
                       Merging& merging, BlockLayout& layout)
    : output_(input) {
  for (std::size_t i = 0; i < specs.size();) {
    MadeLayer made = make_layer(specs, i, output_, path, merging, layout);
    output_ = made.output;
    for (const Layer* layer : {made.layer.get(), made.second.get()}) {
      if (layer == nullptr) continue;
      slot_sizes_.insert(slot_sizes_.end(), layer->slot_sizes().begin(), layer->slot_sizes().end());
      extras_.insert(extras_.end(), layer->extras().begin(), layer->extras().end());
    }
    layers_.push_back(std::move(made.layer));
    if (made.specs > 1) layers_.push_back(std::move(made.second));
    for (std::size_t k = 2; k < made.specs; ++k) layers_.push_back(nullptr);
    i += made.specs;
  }
}

bool LayerChain::batch_norm() const noexcept {
  return std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) { return layer && layer->batch_norm(); });
}

bool LayerChain::training_state() const noexcept {
  return std::any_of(layers_.begin(), layers_.end(),
                     [](const auto& layer) { return layer && layer->training_state(); });
}

bool LayerChain::injective() const noexcept {
  return std::all_of(layers_.begin(), layers_.end(), [](const auto& layer) { return !layer || layer->injective(); });
}

bool LayerChain::piecewise_linear() const noexcept {
  return std::all_of(layers_.begin(), layers_.end(),
                     [](const auto& layer) { return !layer || layer->piecewise_linear(); });
}

bool LayerChain::has_log_volume() const noexcept {
  return std::all_of(layers_.begin(), layers_.end(),
                     [](const auto& layer) { return !layer || layer->has_log_volume(); });
}

bool LayerChain::consumes_grad_y() const noexcept {
  const auto last = std::find_if(layers_.rbegin(), layers_.rend(), [](const auto& layer) { return layer != nullptr; });
  return last != layers_.rend() && (*last)->consumes_grad_y();
}

std::int64_t LayerChain::row_flops() const noexcept {
  std::int64_t flops = 0;
  for (const auto& layer : layers_) flops += layer ? layer->row_flops() : 0;
  return flops;
}

std::int64_t LayerChain::once_flops() const noexcept {
  std::int64_t flops = 0;
  for (const auto& layer : layers_) flops += layer ? layer->once_flops() : 0;
  return flops;
}

FoldedNorm LayerChain::folded() const noexcept {
  FoldedNorm total;
  for (const auto& layer : layers_) total = total + (layer ? layer->folded() : FoldedNorm{});
  return total;
}

void LayerChain::initialize(const RandomKey& key, std::uint64_t spacing, const ValueWriter& write) const {
  RandomKey next = key;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (spacing > 0) next.step = key.step + i * spacing;
    if (!layers_[i]) continue;
    layers_[i]->initialize(next, write);
    next.step += layers_[i]->keys();
  }
}

std::uint64_t LayerChain::keys() const noexcept {
  std::uint64_t keys = 0;
  for (const auto& layer : layers_) keys += layer ? layer->keys() : 0;
  return keys;
}

std::uint64_t LayerChain::most_keys_of_a_layer() const noexcept {
  std::uint64_t most = 0;
  for (const auto& layer : layers_) most = std::max(most, layer ? layer->keys() : 0);
  return most;
}

std::vector<SlotLife> LayerChain::slot_lives() const {
  // The last reader of what layer i puts out: the next layer that computes something, or one that has it as its side.
  std::vector<std::size_t> last(layers_.size(), layers_.size());
  std::size_t next = layers_.size();
  for (std::size_t i = layers_.size(); i-- > 0;) {
    last[i] = next;
    if (layers_[i]) next = i;
  }
  const auto reads = [&](std::size_t i, std::size_t reader) {
    for (; !layers_[i]; --i) {  // computed with the one before, or the same value
      if (i == 0) return;
    }
    last[i] = std::max(last[i], reader);
  };
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (layers_[i] && layers_[i]->side_layer() >= 0) reads(static_cast<std::size_t>(layers_[i]->side_layer()), i);
  }
  std::vector<SlotLife> lives;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (!layers_[i]) continue;
    lives.resize(lives.size() + layers_[i]->slot_sizes().size(), {i, i});
    lives.back().last = last[i];
  }
  return lives;
}

// outputs[i + 1]: what layer i puts out; outputs[0]: the chain's input.
std::vector<Stacked> LayerChain::outputs(const Stacked& x, std::span<const Stacked> slots) const {
  std::vector<Stacked> outputs = {x};
  std::size_t slot = 0;
  for (const auto& layer : layers_) {
    if (layer) slot += layer->slot_sizes().size();
    outputs.push_back(slot == 0 ? x : slots[slot - 1]);
  }
  return outputs;
}

Stacked LayerChain::forward(const Frame& frame, const Stacked& x, std::span<const Stacked> slots,
                            std::span<const Tensor> extras) const {
  const std::vector<Stacked> values = outputs(x, slots);
  std::size_t slot = 0, extra = 0;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (!layers_[i]) continue;
    const Layer& layer = *layers_[i];
    const std::size_t slot_count = layer.slot_sizes().size(), extra_count = layer.extras().size();
    const Stacked side =
        layer.side_layer() == Layer::kNoSide ? Stacked{} : values[static_cast<std::size_t>(layer.side_layer() + 1)];
    layer.forward(frame, values[i], side, slots.subspan(slot, slot_count), extras.subspan(extra, extra_count));
    slot += slot_count;
    extra += extra_count;
  }
  return values.back();
}

void LayerChain::reverse(const Frame& frame, const Stacked& x, std::span<const Stacked> slots,
                         std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x,
                         const Tensor& grad_block, Update update) const {
  const std::int64_t mark = frame.arena.mark();
  const bool tangent = !grad_y.tangent.absent();
  const std::vector<Stacked> values = outputs(x, slots);
  const auto first = static_cast<std::size_t>(
      std::find_if(layers_.begin(), layers_.end(), [](const auto& layer) { return layer != nullptr; }) -
      layers_.begin());
  std::int64_t most_cols = 0;
  for (std::size_t i = first + 1; i < layers_.size(); ++i)
    if (layers_[i]) most_cols = std::max(most_cols, values[i].primal.cols());
  AlternatingBlocks blocks(frame, most_cols, tangent);

  // What layers further back read beside their input: sides[i + 1] is the adjoint of layer i's output from there.
  std::vector<Stacked> sides(layers_.size() + 1);
  Stacked grad = grad_y;
  std::size_t slot = slots.size(), extra = extras.size();
  for (std::size_t i = layers_.size(); i-- > 0;) {
    contribute(frame.ops, grad, sides[i + 1]);
    if (!layers_[i]) continue;
    const Layer& layer = *layers_[i];
    slot -= layer.slot_sizes().size();
    extra -= layer.extras().size();
    Stacked side, grad_side;
    if (layer.side_layer() != Layer::kNoSide) {
      const auto index = static_cast<std::size_t>(layer.side_layer() + 1);
      side = values[index];
      if (index > first || !absent(grad_x))
        grad_side = allocate_stacked(frame.arena, frame.dtype, frame.rows, side.primal.cols(), frame.primal, tangent);
    }
    const Stacked grad_input = i == first ? grad_x : blocks.next(values[i].primal.cols());
    layer.reverse(frame, values[i], side, slots.subspan(slot, layer.slot_sizes().size()),
                  extras.subspan(extra, layer.extras().size()), grad, grad_input, grad_side, grad_block, update);
    if (!absent(grad_side)) {
      Stacked& total = sides[static_cast<std::size_t>(layer.side_layer() + 1)];
      if (absent(total))
        total = grad_side;
      else
        contribute(frame.ops, total, grad_side);
    }
    grad = grad_input;
  }
  if (!absent(grad_x)) {
    if (first == layers_.size()) {
      const Stacked whole = with_primal(frame, grad_y, output_.size);
      if (frame.primal) frame.ops.copy(grad_x.primal, whole.primal);
      if (tangent) frame.ops.copy(grad_x.tangent, whole.tangent);
    }
    contribute(frame.ops, grad_x, sides[0]);
  }
  frame.arena.rewind(mark);
}

}  // namespace bracket
