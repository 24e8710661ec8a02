// Coupling layers: a strictly increasing function per active column, whose parameters an MLP, the conditioner, reads
// off the passive columns. The Jacobian of one layer is triangular with a positive diagonal, so a stack of them is a
// bijection whatever the parameters are, and the logarithms of the slopes add up to its log-volume.
//
// The conditioner reads p passive columns. Where a pass carries K > p tangents per sample, the p unit tangents go
// through it instead, and the function combines the derivatives that come out: half of the conditioner's tangents for
// the Jacobian of a map of the plane.
#include <algorithm>
#include <cmath>

#include "host/network/layer.h"

namespace bracket {
namespace {

constexpr double kFirstBiasBound = 2;  // spreads the first hidden units over the data's range
constexpr double kHiddenBiasBound = 0.1;
constexpr double kLastWeightGain = 0.1;  // the conditioner starts nearly constant

// Start: the staircase follows the identity over this half-width (in standardised units) with equal, gentle steps.
constexpr double kStartHalfWidth = 2;
constexpr double kStartSlope = 0.55;       // the linear part carries a bit over half of the slope ...
constexpr double kStartStepHeight = 0.45;  // ... and the steps, `spacing` apart, the rest
constexpr double kStartSteepness = 1.2;    // per spacing: neighbouring steps overlap smoothly

/// What a coupling layer applies to its active columns: ops and the parameters it starts with.
struct StaircaseFunction {
  using Map = Staircase;
  static void forward(Ops& ops, const Stacked& y, const Stacked& log_slope, const Stacked& x, const Stacked& theta,
                      const Map& map, const Rows& rows) {
    ops.monotone_staircase_forward(y, log_slope, x, theta, map, rows);
  }
  static void reverse(Ops& ops, const Stacked& grad_x, const Stacked& grad_theta, const Stacked& grad_y,
                      const Stacked& grad_log_slope, const Stacked& x, const Stacked& theta, const Map& map,
                      const Rows& rows) {
    ops.monotone_staircase_reverse(grad_x, grad_theta, grad_y, grad_log_slope, x, theta, map, rows);
  }
  /// Of one column: [s, t, h_1..h_K, b_1..b_K, c_1..c_K] (see Staircase).
  static std::vector<double> start(const Map& map) {
    const auto knots = static_cast<double>(map.knots);
    const double spacing = 2 * kStartHalfWidth / std::max(1.0, knots - 1);
    const double slope = std::min(kStartSlope, map.max_slope / 2);
    const double height = std::min(kStartStepHeight * spacing, map.max_height / 2);
    std::vector<double> one = {std::log(slope / (map.max_slope - slope)), -height * knots / 2};
    one.insert(one.end(), static_cast<std::size_t>(map.knots), std::log(height / (map.max_height - height)));
    one.insert(one.end(), static_cast<std::size_t>(map.knots), std::log(kStartSteepness / spacing));
    for (std::int64_t k = 0; k < map.knots; ++k)
      one.push_back(map.knots == 1 ? 0 : -kStartHalfWidth + spacing * static_cast<double>(k));
    return one;
  }
};

struct SplineFunction {
  using Map = RationalQuadratic;
  static void forward(Ops& ops, const Stacked& y, const Stacked& log_slope, const Stacked& x, const Stacked& theta,
                      const Map& map, const Rows& rows) {
    ops.rational_quadratic_forward(y, log_slope, x, theta, map, rows);
  }
  static void reverse(Ops& ops, const Stacked& grad_x, const Stacked& grad_theta, const Stacked& grad_y,
                      const Stacked& grad_log_slope, const Stacked& x, const Stacked& theta, const Map& map,
                      const Rows& rows) {
    ops.rational_quadratic_reverse(grad_x, grad_theta, grad_y, grad_log_slope, x, theta, map, rows);
  }
  static std::vector<double> start(const Map& map) {  // the identity
    return std::vector<double>(static_cast<std::size_t>(map.column_parameters()), 0.0);
  }
};

template <class FunctionT>
class CouplingLayer final : public Layer {
 public:
  using Map = typename FunctionT::Map;

  CouplingLayer(const Map& map, const std::vector<std::int64_t>& hidden, std::int64_t inputs, const std::string& prefix,
                BlockLayout& layout)
      : inputs_(inputs),
        passive_first_(map.active_first == 0 ? map.active_count : 0),
        passive_count_(inputs - map.active_count),
        map_(map) {
    add_slot(passive_count_);  // what the conditioner reads
    std::int64_t features = passive_count_;
    const ActivationSpec silu{Activation::silu};
    int index = 0;
    for (const std::int64_t width : hidden) {
      LinearSpec linear{width};
      linear.bias_bound = index == 0 ? kFirstBiasBound : kHiddenBiasBound;
      add(linear, &silu, features, prefix, index, layout);
      index += 2;
      features = width;
    }
    LinearSpec last{map_.parameters()};
    last.weight_gain = kLastWeightGain;
    add(last, nullptr, features, prefix, index, layout);
    slot_sizes_.push_back({inputs});
  }

  bool injective() const noexcept override { return true; }
  bool has_log_volume() const noexcept override { return true; }
  std::uint64_t keys() const noexcept override { return 4 * conditioner_.size(); }
  /// Of one tangent where there are no more of them than passive columns.
  std::int64_t row_flops() const noexcept override {
    std::int64_t flops = 0;
    for (const auto& layer : conditioner_) flops += layer->row_flops();
    return flops;
  }

  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    RandomKey layer_key = key;
    for (const auto& layer : conditioner_) {
      const bool last = layer == conditioner_.back();
      layer->initialize(layer_key, [&](const BlockView& view, bool buffer, const std::vector<double>& values) {
        write(view, buffer, last && view.cols == 0 ? start() : values);
      });
      layer_key.step += 4;
    }
  }

  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras) const override {
    const Conditioning conditioning(*this, frame, slot_sizes_.front().rows(frame.rows));
    const Stacked from = passive(x);
    if (frame.primal) frame.ops.copy(slots[0].primal, from.primal);
    if (conditioning.map.passive_jacobian)
      frame.ops.tile_identity(slots[0].tangent, frame.rows.count);
    else if (!from.tangent.absent())
      frame.ops.copy(slots[0].tangent, from.tangent);
    std::size_t slot = 1;
    for (const auto& layer : conditioner_) {
      const std::size_t count = layer->slot_sizes().size();
      layer->forward(conditioning.frame, slots[slot - 1], {}, slots.subspan(slot, count), extras);
      slot += count;
    }
    const std::int64_t mark = frame.arena.mark();
    Stacked log_slope;
    const auto allocate = [&](const Tensor& total) -> Tensor {
      return total.absent() ? total : frame.arena.allocate(frame.dtype, {total.rows(), map_.active_count});
    };
    log_slope = {allocate(frame.log_volume.primal), allocate(frame.log_volume.tangent)};
    FunctionT::forward(frame.ops, frame.output(slots[slot]), log_slope, x, slots[slot - 1], conditioning.map,
                       frame.rows);
    add_row_sums(frame, frame.log_volume, log_slope);
    frame.arena.rewind(mark);
  }

  void reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked&,
               const Tensor& grad_block, Update update) const override {
    const std::int64_t mark = frame.arena.mark();
    // A pull has an adjoint per tangent whatever went forwards.
    const Conditioning conditioning(*this, frame, frame.primal ? slot_sizes_.front().rows(frame.rows) : frame.rows);
    const Frame& inner = conditioning.frame;
    const bool tangent = !grad_y.tangent.absent();
    const bool data = !grad_x.primal.absent() || !grad_x.tangent.absent();
    Stacked target = grad_x;
    if ((frame.primal && target.primal.absent()) || (tangent && target.tangent.absent()))
      target = allocate_stacked(frame.arena, frame.dtype, frame.rows, inputs_, frame.primal, tangent);
    Stacked grad = allocate_stacked(frame.arena, frame.dtype, inner.rows, map_.parameters(), frame.primal, tangent);
    std::size_t slot = slots.size() - 2;  // the last one of the layer at hand
    FunctionT::reverse(frame.ops, target, grad, with_primal(frame, grad_y, inputs_),
                       spread_over_row(frame, frame.log_volume, map_.active_count), x, slots[slot], conditioning.map,
                       frame.rows);
    for (std::size_t i = conditioner_.size(); i-- > 0;) {
      const std::size_t count = conditioner_[i]->slot_sizes().size();
      slot -= count;
      Stacked grad_input;
      if (i > 0 || data) {
        const bool unit_tangents = i == 0 && conditioning.map.passive_jacobian;  // constants
        grad_input = allocate_stacked(frame.arena, frame.dtype, inner.rows, slots[slot].primal.cols(), frame.primal,
                                      tangent && !unit_tangents);
      }
      conditioner_[i]->reverse(inner, slots[slot], {}, slots.subspan(slot + 1, count), extras, grad, grad_input, {},
                               grad_block, update);
      grad = grad_input;
    }
    if (data) {
      const Stacked sum = passive(target);
      if (!grad.primal.absent()) frame.ops.axpy(sum.primal, 1, grad.primal);
      if (!grad.tangent.absent()) frame.ops.axpy(sum.tangent, 1, grad.tangent);
      if (!grad_x.primal.absent() && target.primal.data() != grad_x.primal.data())
        frame.ops.copy(grad_x.primal, target.primal);
      if (!grad_x.tangent.absent() && target.tangent.data() != grad_x.tangent.data())
        frame.ops.copy(grad_x.tangent, target.tangent);
    }
    frame.arena.rewind(mark);
  }

 private:
  // How a call runs the conditioner.
  struct Conditioning {
    Conditioning(const CouplingLayer& layer, const Frame& outer, const Rows& inner)
        : map(layer.map_), rows(inner), frame{outer.ops, outer.arena,      outer.dtype, outer.mode,
                                              rows,      outer.parameters, outer.primal} {
      map.passive_jacobian = rows.tangents < outer.rows.tangents;
    }
    Conditioning(const Conditioning&) = delete;  // frame refers to rows
    Conditioning& operator=(const Conditioning&) = delete;
    Map map;
    Rows rows;
    Frame frame;
  };

  void add_slot(std::int64_t cols) { slot_sizes_.push_back({cols, passive_count_}); }

  void add(const LinearSpec& spec, const ActivationSpec* activation, std::int64_t inputs, const std::string& prefix,
           int index, BlockLayout& layout) {
    const auto name = [&](int i) { return prefix + "conditioner." + std::to_string(i) + "."; };
    Around around;
    around.activation = activation;
    around.activation_prefix = name(index + 1);
    conditioner_.push_back(make_linear_layer(spec, around, {inputs}, name(index), layout));
    for (const SlotSize& size : conditioner_.back()->slot_sizes()) add_slot(size.cols);
  }

  Stacked passive(const Stacked& x) const {
    const auto slice = [&](const Tensor& t) { return t.absent() ? t : t.slice_cols(passive_first_, passive_count_); };
    return {slice(x.primal), slice(x.tangent)};
  }

  // Biases of the last conditioner layer: those of one column for each active one.
  std::vector<double> start() const {
    const std::vector<double> one = FunctionT::start(map_);
    std::vector<double> all;
    for (std::int64_t a = 0; a < map_.active_count; ++a) all.insert(all.end(), one.begin(), one.end());
    return all;
  }

  std::int64_t inputs_;
  std::int64_t passive_first_;
  std::int64_t passive_count_;
  Map map_;
  std::vector<std::unique_ptr<Layer>> conditioner_;
};

}  // namespace

std::unique_ptr<Layer> make_monotone_coupling_layer(const MonotoneCouplingSpec& spec, std::int64_t inputs,
                                                    const std::string& prefix, BlockLayout& layout) {
  const Staircase map{spec.active_first, spec.active_count, spec.knots, spec.max_slope, spec.max_height};
  return std::make_unique<CouplingLayer<StaircaseFunction>>(map, spec.hidden, inputs, prefix, layout);
}

std::unique_ptr<Layer> make_rational_quadratic_coupling_layer(const RationalQuadraticCouplingSpec& spec,
                                                              std::int64_t inputs, const std::string& prefix,
                                                              BlockLayout& layout) {
  const RationalQuadratic map{spec.active_first, spec.active_count, spec.bins,          spec.bound,
                              spec.min_width,    spec.min_height,   spec.min_derivative};
  return std::make_unique<CouplingLayer<SplineFunction>>(map, spec.hidden, inputs, prefix, layout);
}

}  // namespace bracket
