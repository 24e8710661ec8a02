// Dense layer with its bias and the non-linearity behind it as one step: y = f(x W^T + b).
#include <cmath>

#include "host/network/layer.h"

namespace bracket {
namespace {

constexpr double kSpectralEpsilon = 1e-12;  // PyTorch's default
constexpr int kStartIterations = 15;        // PyTorch's: u, v settle before the first pass

class LinearLayer final : public Layer {
 public:
  LinearLayer(const LinearSpec& spec, const ActivationSpec* activation, std::int64_t inputs, const std::string& prefix,
              const std::string& activation_prefix, BlockLayout& layout)
      : spec_(spec), inputs_(inputs) {
    const std::int64_t outputs = spec.features;
    if (spec.bias) bias_ = layout.add(prefix + "bias", outputs, 0, false);
    if (spec.spectral_norm) {
      const std::string base = prefix + "parametrizations.weight.";
      weight_ = layout.add(base + "original", outputs, inputs, false);
      u_ = layout.add(base + "0._u", outputs, 0, true);
      v_ = layout.add(base + "0._v", inputs, 0, true);
      extras_ = {{0, outputs, inputs}, {0, 1, 0}};
    } else {
      weight_ = layout.add(prefix + "weight", outputs, inputs, false);
    }
    if (activation) {
      kind_ = {activation->function, activation->negative_slope};
      initial_slope_ = activation->initial_slope;
      if (activation->function == Activation::prelu) slope_ = layout.add(activation_prefix + "weight", 1, 0, false);
    }
    if (has_function()) slot_cols_.push_back(outputs);
    slot_cols_.push_back(outputs);
  }

  bool injective() const noexcept override {
    return spec_.features == inputs_ && injective_function(kind_.function, kind_.negative_slope);
  }

  void initialize(const RandomKey& key, const ValueWriter& write) const override {
    const double fan_in = 1 / std::sqrt(static_cast<double>(inputs_));
    RandomKey weight_key = key, bias_key = key;
    bias_key.step += 1;
    std::vector<double> weight = uniform_values(weight_key, spec_.features * inputs_, spec_.weight_gain * fan_in);
    if (spec_.identity_start)
      for (std::int64_t i = 0; i < spec_.features * inputs_; ++i)
        weight[static_cast<std::size_t>(i)] = i / inputs_ == i % inputs_ ? 1 : 0;
    if (spec_.spectral_norm) write_singular_vectors(key, weight, write);
    write(weight_, false, weight);
    if (spec_.bias)
      write(bias_, false, uniform_values(bias_key, spec_.features, spec_.bias_bound < 0 ? fan_in : spec_.bias_bound));
    if (slope_.rows > 0) write(slope_, false, {initial_slope_});
  }

  void forward(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras) const override {
    const Stacked& pre = slots.front();
    const Stacked& y = slots.back();
    multiply(frame, frame.output(pre), x, effective_weight(frame, extras));
    if (has_function() || (spec_.bias && frame.primal))
      frame.ops.bias_activation_forward(has_function() ? frame.output(y) : Stacked{y.primal, {}}, pre, bias(frame),
                                        slope(frame), kind_, frame.rows);
  }

  void reverse(const Frame& frame, const Stacked& x, const Stacked&, std::span<const Stacked> slots,
               std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x, const Stacked&,
               const Tensor& grad_block, Update update) const override {
    const std::int64_t mark = frame.arena.mark();
    const bool parameters = !grad_block.absent();
    Stacked grad_pre = grad_y;
    if (has_function()) {
      const bool tangent = !grad_y.tangent.absent();
      grad_pre = allocate_stacked(frame.arena, frame.dtype, frame.rows, spec_.features, true, tangent);
      frame.ops.bias_activation_reverse(grad_pre, parameters && spec_.bias ? bias_.of(grad_block) : Tensor(),
                                        parameters && slope_.rows > 0 ? slope_.of(grad_block) : Tensor(), grad_y,
                                        slots.front(), bias(frame), slope(frame), kind_, frame.rows, update);
    } else if (parameters && spec_.bias) {
      if (grad_pre.primal.absent()) {
        if (update == Update::overwrite) frame.ops.fill(bias_.of(grad_block), 0);
      } else {
        frame.ops.bias_activation_reverse({grad_pre.primal, {}}, bias_.of(grad_block), {}, {grad_pre.primal, {}},
                                          {slots.front().primal, {}}, {}, {}, {}, {frame.rows.primal, 0, 0, 0}, update);
      }
    }
    if (parameters) reverse_weights(frame, x, grad_pre, extras, weight_.of(grad_block), update);
    const Tensor weight = spec_.spectral_norm ? extras[0] : weight_.of(frame.parameters.values);
    reverse_data(frame, grad_x, grad_pre, weight);
    frame.arena.rewind(mark);
  }

 private:
  bool has_function() const noexcept { return kind_.function != Activation::identity; }
  Tensor bias(const Frame& frame) const { return spec_.bias ? bias_.of(frame.parameters.values) : Tensor(); }
  Tensor slope(const Frame& frame) const { return slope_.rows > 0 ? slope_.of(frame.parameters.values) : Tensor(); }

  Tensor effective_weight(const Frame& frame, std::span<const Tensor> extras) const {
    const Tensor weight = weight_.of(frame.parameters.values);
    if (!spec_.spectral_norm) return weight;
    if (frame.primal)
      frame.ops.spectral_norm_forward(extras[0], extras[1], u_.of(frame.parameters.buffers),
                                      v_.of(frame.parameters.buffers), weight, frame.mode == PassMode::training ? 1 : 0,
                                      kSpectralEpsilon);
    return extras[0];
  }

  static void multiply(const Frame& frame, const Stacked& y, const Stacked& x, const Tensor& weight) {
    const Tensor all_x = joined(x), all_y = joined(y);
    if (!all_x.absent() && !all_y.absent()) return frame.ops.linear_forward(all_y, all_x, weight);
    if (!y.primal.absent()) frame.ops.linear_forward(y.primal, x.primal, weight);
    if (!y.tangent.absent()) frame.ops.linear_forward(y.tangent, x.tangent, weight);
  }

  static void reverse_data(const Frame& frame, const Stacked& grad_x, const Stacked& grad_pre, const Tensor& weight) {
    const Tensor all_x = joined(grad_x), all_y = joined(grad_pre);
    if (!all_x.absent() && !all_y.absent())
      return frame.ops.linear_reverse_data(all_x, all_y, weight, Update::overwrite);
    if (!grad_x.primal.absent()) {
      if (grad_pre.primal.absent())
        frame.ops.fill(grad_x.primal, 0);
      else
        frame.ops.linear_reverse_data(grad_x.primal, grad_pre.primal, weight, Update::overwrite);
    }
    if (!grad_x.tangent.absent())
      frame.ops.linear_reverse_data(grad_x.tangent, grad_pre.tangent, weight, Update::overwrite);
  }

  void reverse_weights(const Frame& frame, const Stacked& x, const Stacked& grad_pre, std::span<const Tensor> extras,
                       const Tensor& grad_weight, Update update) const {
    Tensor target = grad_weight;
    if (spec_.spectral_norm) target = frame.arena.allocate(frame.dtype, {spec_.features, inputs_});
    Update mode = spec_.spectral_norm ? Update::overwrite : update;
    const Tensor all_x = joined(x), all_y = joined(grad_pre);
    if (!all_x.absent() && !all_y.absent()) {
      frame.ops.linear_reverse_weights(target, all_y, all_x, mode);
    } else {
      bool written = false;
      for (const auto& [g, v] : {std::pair{grad_pre.primal, x.primal}, std::pair{grad_pre.tangent, x.tangent}}) {
        if (g.absent()) continue;
        frame.ops.linear_reverse_weights(target, g, v, written ? Update::accumulate : mode);
        written = true;
      }
      if (!written && mode == Update::overwrite) frame.ops.fill(target, 0);
    }
    if (spec_.spectral_norm)
      frame.ops.spectral_norm_reverse(grad_weight, target, extras[0], extras[1], u_.of(frame.parameters.buffers),
                                      v_.of(frame.parameters.buffers), update);
  }

  // Random unit vectors, then power iterations, as PyTorch's parametrization does when it is attached.
  void write_singular_vectors(RandomKey key, const std::vector<double>& weight, const ValueWriter& write) const {
    const auto rows = static_cast<std::size_t>(spec_.features), cols = static_cast<std::size_t>(inputs_);
    key.step += 2;
    std::vector<double> u = uniform_values(key, spec_.features, 1), v(cols);
    const auto normalise = [](std::vector<double>& a) {
      double norm = 0;
      for (double e : a) norm += e * e;
      norm = std::max(std::sqrt(norm), kSpectralEpsilon);
      for (double& e : a) e /= norm;
    };
    for (int k = 0; k < kStartIterations; ++k) {
      for (std::size_t j = 0; j < cols; ++j) {
        v[j] = 0;
        for (std::size_t i = 0; i < rows; ++i) v[j] += weight[i * cols + j] * u[i];
      }
      normalise(v);
      for (std::size_t i = 0; i < rows; ++i) {
        u[i] = 0;
        for (std::size_t j = 0; j < cols; ++j) u[i] += weight[i * cols + j] * v[j];
      }
      normalise(u);
    }
    write(u_, true, u);
    write(v_, true, v);
  }

  LinearSpec spec_;
  std::int64_t inputs_;
  ActivationKind kind_{Activation::identity, 0};
  double initial_slope_ = 0;
  BlockView weight_, bias_, slope_, u_, v_;
};

}  // namespace

std::unique_ptr<Layer> make_linear_layer(const LinearSpec& spec, const ActivationSpec* activation, std::int64_t inputs,
                                         const std::string& prefix, const std::string& activation_prefix,
                                         BlockLayout& layout) {
  return std::make_unique<LinearLayer>(spec, activation, inputs, prefix, activation_prefix, layout);
}

}  // namespace bracket
