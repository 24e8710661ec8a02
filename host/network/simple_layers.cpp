// Layers that are one op each: stand-alone activation, fixed affine map, Fourier features, confinement.
#include <cmath>
#include <numbers>

#include "host/jacobian/gram_factor.h"
#include "host/network/layer.h"

namespace bracket {
namespace {

class ActivationLayer final : public Layer {
 public:
  ActivationLayer(const ActivationSpec& spec, std::int64_t inputs, const std::string& prefix, BlockLayout& layout)
      : spec_(spec) {
    if (spec.function == Activation::prelu) slope_ = layout.add(prefix + "weight", 1, 0, false);
    slot_sizes_ = {SlotSize{inputs}};
  }
  bool injective() const noexcept override { return injective_function(spec_.function, spec_.negative_slope); }
  void initialize(const RandomKey&, const ValueWriter& write) const override {
    if (slope_.rows > 0) write(slope_, false, {spec_.initial_slope});
  }
  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor>) const override {
    frame.ops.bias_activation_forward(frame.output(slots.back()), x, {}, slope(frame), kind(), frame.rows);
  }
  void reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked>, std::span<const Tensor>,
               const Stacked& grad_y, const Stacked& grad_x, const Stacked&, const Tensor& grad_block,
               Update update) const override {
    const std::int64_t mark = frame.arena.mark();
    const bool slope_wanted = slope_.rows > 0 && !grad_block.absent();
    Stacked target = grad_x;
    if (target.primal.absent() && target.tangent.absent()) {
      if (!slope_wanted) return;
      target = allocate_stacked(frame.arena, frame.dtype, frame.rows, output_size(), true, !grad_y.tangent.absent());
    }
    frame.ops.bias_activation_reverse(target, {}, slope_wanted ? slope_.of(grad_block) : Tensor(), grad_y, x, {},
                                      slope(frame), kind(), frame.rows, update);
    frame.arena.rewind(mark);
  }

 private:
  ActivationKind kind() const { return {spec_.function, spec_.negative_slope}; }
  Tensor slope(const Frame& frame) const { return slope_.rows > 0 ? slope_.of(frame.parameters.values) : Tensor(); }

  ActivationSpec spec_;
  BlockView slope_;
};

class AffineLayer final : public Layer {
 public:
  AffineLayer(const AffineSpec& spec, std::int64_t inputs, const std::string& prefix, BlockLayout& layout)
      : spec_(spec) {
    scale_ = layout.add(prefix + "scale", inputs, 0, true);
    shift_ = layout.add(prefix + "shift", inputs, 0, true);
    slot_sizes_ = {SlotSize{inputs}};
  }
  bool piecewise_linear() const noexcept override { return true; }
  bool injective() const noexcept override { return true; }
  bool has_log_volume() const noexcept override { return true; }
  void initialize(const RandomKey&, const ValueWriter& write) const override {
    write(scale_, true, spec_.scale);
    write(shift_, true, spec_.shift);
  }
  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor>) const override {
    const Tensor scale = scale_.of(frame.parameters.buffers);
    frame.ops.affine_columns_forward(frame.output(slots.back()), x, scale, shift_.of(frame.parameters.buffers),
                                     frame.rows);
    if (frame.log_volume.primal.absent()) return;  // the same at every point: tangents add nothing
    const std::int64_t mark = frame.arena.mark(), n = frame.rows.primal, columns = output_size();
    const Tensor logs = frame.arena.allocate(frame.dtype, {columns}), total = frame.arena.allocate(frame.dtype, {1, 1});
    gram_factor(frame.ops, frame.arena.allocate(DType::f64, {columns, 1, 1}), logs, scale.reshaped({columns, 1}));
    frame.ops.fill(total, 0);
    add_row_sums(frame, {total, {}}, {logs.reshaped({1, columns}), {}});
    frame.ops.axpy(frame.log_volume.primal, 1, spread_over_row(frame, {total, {}}, n).primal.reshaped({n, 1}));
    frame.arena.rewind(mark);
  }
  void reverse(const Frame& frame, const Stacked&, const Stacked&, std::span<const Stacked>, std::span<const Tensor>,
               const Stacked& grad_y, const Stacked& grad_x, const Stacked&, const Tensor&, Update) const override {
    const std::int64_t mark = frame.arena.mark();
    if (!grad_x.primal.absent() || !grad_x.tangent.absent())
      frame.ops.affine_columns_reverse(grad_x, with_primal(frame, grad_y, output_size()),
                                       scale_.of(frame.parameters.buffers), frame.rows, Update::overwrite);
    frame.arena.rewind(mark);
  }

 private:
  AffineSpec spec_;
  BlockView scale_, shift_;
};

class FourierFeaturesLayer final : public Layer {
 public:
  FourierFeaturesLayer(const FourierFeaturesSpec& spec, std::int64_t inputs, const std::string& prefix,
                       BlockLayout& layout)
      : spec_(spec), inputs_(inputs) {
    frequencies_ = layout.add(prefix + "frequencies", spec.frequencies, inputs, true);
    slot_sizes_ = {SlotSize{inputs + 2 * spec.frequencies}};
  }
  bool injective() const noexcept override { return true; }  // its first columns are its input
  std::int64_t row_flops() const noexcept override { return 2 * spec_.frequencies * inputs_; }
  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    std::vector<double> values(static_cast<std::size_t>(spec_.frequencies * inputs_));
    for (std::size_t i = 0; i < values.size(); ++i) {  // Box-Muller, one pair of uniforms per value
      const double radius = std::sqrt(-2 * std::log(random_uniform(key, 2 * i)));
      values[i] = spec_.deviation * radius * std::cos(2 * std::numbers::pi * random_uniform(key, 2 * i + 1));
    }
    write(frequencies_, true, values);
  }
  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor>) const override {
    frame.ops.fourier_features_forward(frame.output(slots.back()), x, frequencies_.of(frame.parameters.buffers),
                                       frame.rows);
  }
  void reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked>, std::span<const Tensor>,
               const Stacked& grad_y, const Stacked& grad_x, const Stacked&, const Tensor&, Update) const override {
    const std::int64_t mark = frame.arena.mark();
    if (!grad_x.primal.absent() || !grad_x.tangent.absent())
      frame.ops.fourier_features_reverse(grad_x, with_primal(frame, grad_y, output_size()), x,
                                         frequencies_.of(frame.parameters.buffers), frame.rows, Update::overwrite);
    frame.arena.rewind(mark);
  }

 private:
  FourierFeaturesSpec spec_;
  std::int64_t inputs_;
  BlockView frequencies_;
};

class ConfinementLayer final : public Layer {
 public:
  explicit ConfinementLayer(const ConfinementSpec& spec) : spec_(spec), map_{spec.quadratic, spec.wall, spec.radius} {
    slot_sizes_ = {SlotSize{1}};
  }
  int side_layer() const noexcept override { return spec_.input_layer; }
  bool injective() const noexcept override { return false; }
  void initialize(const RandomKey&, const ValueWriter&) const override {}
  void forward(const Frame& frame, const Stacked& x, const Stacked& side, std::span<const Stacked> slots,
               std::span<const Tensor>) const override {
    frame.ops.confinement_forward(frame.output(slots.back()), x, side, map_, frame.rows);
  }
  void reverse(const Frame& frame, const Stacked&, const Stacked& side, std::span<const Stacked>,
               std::span<const Tensor>, const Stacked& grad_y, const Stacked& grad_x, const Stacked& grad_side,
               const Tensor&, Update) const override {
    const std::int64_t mark = frame.arena.mark();
    const Stacked grad = with_primal(frame, grad_y, 1);
    if (!grad_side.primal.absent() || !grad_side.tangent.absent())
      frame.ops.confinement_reverse(grad_side, grad, side, map_, frame.rows, Update::overwrite);
    if (!grad_x.primal.absent()) frame.ops.copy(grad_x.primal, grad.primal);
    if (!grad_x.tangent.absent()) frame.ops.copy(grad_x.tangent, grad.tangent);
    frame.arena.rewind(mark);
  }

 private:
  ConfinementSpec spec_;
  Confinement map_;
};

}  // namespace

std::unique_ptr<Layer> make_activation_layer(const ActivationSpec& spec, std::int64_t inputs, const std::string& prefix,
                                             BlockLayout& layout) {
  return std::make_unique<ActivationLayer>(spec, inputs, prefix, layout);
}
std::unique_ptr<Layer> make_affine_layer(const AffineSpec& spec, std::int64_t inputs, const std::string& prefix,
                                         BlockLayout& layout) {
  return std::make_unique<AffineLayer>(spec, inputs, prefix, layout);
}
std::unique_ptr<Layer> make_fourier_features_layer(const FourierFeaturesSpec& spec, std::int64_t inputs,
                                                   const std::string& prefix, BlockLayout& layout) {
  return std::make_unique<FourierFeaturesLayer>(spec, inputs, prefix, layout);
}
std::unique_ptr<Layer> make_confinement_layer(const ConfinementSpec& spec) {
  return std::make_unique<ConfinementLayer>(spec);
}

}  // namespace bracket
