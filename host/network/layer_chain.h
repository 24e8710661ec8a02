// Layers one behind another: a whole network, or one path of a residual layer.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/network/layer.h"
#include "host/network/layer_group.h"

namespace bracket {

/// The layers that a slot's value is needed by, when nothing runs in reverse: from the one that writes it to the last
/// one that reads it. The chain's output lives to the end.
struct SlotLife {
  std::size_t first = 0;
  std::size_t last = 0;
};

class LayerChain {
 public:
  /// `path` is what names and messages put before a layer's index: "" or "2.body.". Throws InvalidArgument naming the
  /// layer. A chain that merges must have been made without merging first.
  LayerChain(const std::vector<LayerSpec>& specs, const Features& input, const std::string& path, Merging& merging,
             BlockLayout& layout);

  const Features& output() const noexcept { return output_; }
  bool batch_norm() const noexcept;
  bool training_state() const noexcept;
  bool injective() const noexcept;
  bool piecewise_linear() const noexcept;
  bool has_log_volume() const noexcept;
  bool consumes_grad_y() const noexcept;
  std::int64_t row_flops() const noexcept;
  std::int64_t once_flops() const noexcept;
  FoldedNorm folded() const noexcept;
  const std::vector<SlotSize>& slot_sizes() const noexcept { return slot_sizes_; }
  const std::vector<Extra>& extras() const noexcept { return extras_; }
  std::vector<SlotLife> slot_lives() const;

  /// Of a chain that merges nothing. Layer i draws with the keys behind key.step + i `spacing`. Without a spacing they
  /// follow each other closely.
  void initialize(const RandomKey& key, std::uint64_t spacing, const ValueWriter& write) const;
  std::uint64_t keys() const noexcept;
  /// The largest keys() of one layer.
  std::uint64_t most_keys_of_a_layer() const noexcept;

  /// As Layer's. The output is the last slot, or x where there is none.
  Stacked forward(const Frame& frame, const Stacked& x, std::span<const Stacked> slots,
                  std::span<const Tensor> extras) const;
  /// As Layer's. `grad_y` is written where consumes_grad_y() says so.
  void reverse(const Frame& frame, const Stacked& x, std::span<const Stacked> slots, std::span<const Tensor> extras,
               const Stacked& grad_y, const Stacked& grad_x, const Tensor& grad_block, Update update) const;

 private:
  std::vector<Stacked> outputs(const Stacked& x, std::span<const Stacked> slots) const;

  Features output_;
  std::vector<std::unique_ptr<Layer>> layers_;  // null: computed with one before, or no computation at all
  std::vector<SlotSize> slot_sizes_;
  std::vector<Extra> extras_;
};

}  // namespace bracket
