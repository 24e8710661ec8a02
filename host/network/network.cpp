#include "bracket/network.h"

#include <string>

#include "bracket/error.h"
#include "host/network/layer.h"

namespace bracket {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

[[noreturn]] void reject(std::size_t index, const std::string& what) {
  throw InvalidArgument("layer " + std::to_string(index) + ": " + what);
}

void require(bool holds, std::size_t index, const std::string& what) {
  if (!holds) reject(index, what);
}

void check(const LinearSpec& s, std::size_t i, std::int64_t inputs) {
  require(s.features > 0, i, "linear features is " + std::to_string(s.features) + ", must be at least 1");
  require(s.weight_gain >= 0, i, "linear weight_gain must not be negative");
  require(
      !s.identity_start || s.features == inputs, i,
      "identity_start needs features = inputs, got " + std::to_string(s.features) + " and " + std::to_string(inputs));
}

void check(const BatchNormSpec& s, std::size_t i) {
  require(s.epsilon > 0, i, "batch_norm epsilon must be positive");
  require(s.momentum >= 0 && s.momentum <= 1, i, "batch_norm momentum must lie in [0, 1]");
}

void check(const AffineSpec& s, std::size_t i, std::int64_t inputs) {
  const auto n = static_cast<std::size_t>(inputs);
  require(s.scale.size() == n && s.shift.size() == n, i,
          "affine needs one scale and one shift per column (" + std::to_string(inputs) + "), got " +
              std::to_string(s.scale.size()) + " and " + std::to_string(s.shift.size()));
  for (const double scale : s.scale) require(scale != 0, i, "affine scale must not be zero");
}

void check(const MonotoneCouplingSpec& s, std::size_t i, std::int64_t inputs) {
  require(s.active_count >= 1 && s.active_count < inputs, i,
          "monotone_coupling needs 1 <= active_count < inputs (" + std::to_string(inputs) + "), got " +
              std::to_string(s.active_count));
  require(s.active_first == 0 || s.active_first + s.active_count == inputs, i,
          "monotone_coupling's active columns must be the first or the last ones");
  require(s.knots >= 1, i, "monotone_coupling knots must be at least 1");
  require(s.max_slope > 0 && s.max_height > 0, i, "monotone_coupling max_slope and max_height must be positive");
  for (const std::int64_t width : s.hidden) require(width > 0, i, "monotone_coupling hidden widths must be positive");
}

// Whether a later confinement reads the output of layer `index`, which must then exist as a value of its own.
bool is_side_input(const NetworkSpec& spec, std::size_t index) {
  for (const LayerSpec& layer : spec.layers) {
    const auto* confinement = std::get_if<ConfinementSpec>(&layer);
    if (confinement && confinement->input_layer == static_cast<int>(index)) return true;
  }
  return false;
}

// Every slot with its primal part and, where there is a tangent pass, its tangent part.
std::vector<Stacked> stacked_slots(const PrimalPass& pass, const TangentPass* tangent_pass) {
  std::vector<Stacked> slots(pass.slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i)
    slots[i] = {pass.slots[i], tangent_pass ? tangent_pass->slots[i] : Tensor()};
  return slots;
}

Stacked side_of(const Layer& layer, const Stacked& network_input, const std::vector<Stacked>& layer_outputs) {
  if (layer.side_layer() == Layer::kNoSide) return {};
  return layer.side_layer() < 0 ? network_input : layer_outputs[static_cast<std::size_t>(layer.side_layer())];
}

void contribute(Ops& ops, Stacked& total, const Stacked& term) {
  if (total.primal.absent() && total.tangent.absent()) {
    total = term;
    return;
  }
  if (!term.primal.absent()) ops.axpy(total.primal, 1, term.primal);
  if (!term.tangent.absent()) ops.axpy(total.tangent, 1, term.tangent);
}

Rows rows_of(const PrimalPass& pass, const TangentPass* tangent_pass) {
  if (!tangent_pass) return {pass.rows, 0, 0, 0};
  const TangentLayout& t = tangent_pass->layout;
  return {pass.rows, t.first, t.count, t.tangents};
}

}  // namespace

std::int64_t ParameterInfo::size() const {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  return size;
}

Network::Network(NetworkSpec spec, DType dtype) : spec_(std::move(spec)), dtype_(dtype) {
  if (spec_.input_size < 1)
    throw InvalidArgument("network input_size is " + std::to_string(spec_.input_size) + ", must be at least 1");
  if (spec_.layers.empty()) throw InvalidArgument("a network needs at least one layer");
  BlockLayout layout(infos_);
  std::int64_t features = spec_.input_size;
  const auto prefix = [](std::size_t i) { return "layers." + std::to_string(i) + "."; };
  for (std::size_t i = 0; i < spec_.layers.size(); ++i) {
    // An activation right behind a linear layer is computed with it; layer numbers in names stay those of the spec.
    const auto* next = i + 1 < spec_.layers.size() && !is_side_input(spec_, i)
                           ? std::get_if<ActivationSpec>(&spec_.layers[i + 1])
                           : nullptr;
    std::unique_ptr<Layer> layer = std::visit(
        Overloaded{[&](const LinearSpec& s) {
                     check(s, i, features);
                     return make_linear_layer(s, next, features, prefix(i), prefix(i + 1), layout);
                   },
                   [&](const ActivationSpec& s) { return make_activation_layer(s, features, prefix(i), layout); },
                   [&](const BatchNormSpec& s) {
                     check(s, i);
                     return make_batch_norm_layer(s, features, prefix(i), layout);
                   },
                   [&](const AffineSpec& s) {
                     check(s, i, features);
                     return make_affine_layer(s, features, prefix(i), layout);
                   },
                   [&](const FourierFeaturesSpec& s) {
                     require(s.frequencies >= 1, i, "fourier_features frequencies must be at least 1");
                     return make_fourier_features_layer(s, features, prefix(i), layout);
                   },
                   [&](const MonotoneCouplingSpec& s) {
                     check(s, i, features);
                     return make_monotone_coupling_layer(s, features, prefix(i), layout);
                   },
                   [&](const ConfinementSpec& s) {
                     require(
                         features == 1, i,
                         "confinement needs a scalar output before it, got " + std::to_string(features) + " columns");
                     require(s.input_layer >= -1 && s.input_layer < static_cast<int>(i), i,
                             "confinement input_layer is " + std::to_string(s.input_layer) +
                                 ", must name an earlier layer or be -1");
                     return make_confinement_layer(s);
                   }},
        spec_.layers[i]);
    features = layer->output_size();
    has_batch_norm_ = has_batch_norm_ || layer->batch_norm();
    const bool fused = next && std::holds_alternative<LinearSpec>(spec_.layers[i]);
    layers_.push_back(std::move(layer));
    if (fused) {
      layers_.push_back(nullptr);
      ++i;
    }
  }
  output_size_ = features;
  value_elements_ = layout.value_elements();
  buffer_elements_ = layout.buffer_elements();
}

Network::~Network() = default;
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;

std::int64_t Network::parameter_count() const {
  std::int64_t count = 0;
  for (const ParameterInfo& info : infos_) count += info.buffer ? 0 : info.size();
  return count;
}

std::int64_t Network::values_per_row() const {
  std::int64_t values = 0;
  for (const auto& layer : layers_)
    if (layer)
      for (const std::int64_t cols : layer->slot_cols()) values += cols;
  return values;
}

bool Network::injective_by_construction() const {
  for (const auto& layer : layers_)
    if (layer && !layer->injective()) return false;
  return true;
}

void Network::initialize(Ops& ops, const ParameterSet& parameters, std::uint64_t seed, RandomStream stream) const {
  std::vector<double> flat[2] = {std::vector<double>(static_cast<std::size_t>(value_elements_)),
                                 std::vector<double>(static_cast<std::size_t>(buffer_elements_))};
  const ValueWriter write = [&](const BlockView& view, bool buffer, const std::vector<double>& values) {
    std::copy(values.begin(), values.end(), flat[buffer ? 1 : 0].begin() + view.offset);
  };
  constexpr std::uint64_t kKeysPerLayer = 256;  // more than the tensors any layer draws
  for (std::size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i]) layers_[i]->initialize({seed, stream, i * kKeysPerLayer}, write);
  for (const int block : {0, 1}) {
    const Tensor& target = block == 0 ? parameters.values : parameters.buffers;
    if (target.size() == 0) continue;
    if (dtype_ == DType::f64) {
      ops.upload(target, flat[block].data());
    } else {
      const std::vector<float> rounded(flat[block].begin(), flat[block].end());
      ops.upload(target, rounded.data());
    }
  }
}

void Network::run(Ops& ops, Arena& arena, PrimalPass* pass, TangentPass* tangent_pass, const PrimalPass& primal) const {
  const Rows rows = rows_of(primal, tangent_pass);
  if (tangent_pass && primal.mode == PassMode::training && has_batch_norm_)
    throw InvalidArgument(
        "tangents need an inference pass where the network has BatchNorm: batch statistics couple samples");
  const Frame frame{ops, arena, dtype_, primal.mode, rows, primal.parameters, pass != nullptr};
  if (pass) {
    pass->slots.clear();
    pass->extras.clear();
  }
  if (tangent_pass) tangent_pass->slots.clear();
  for (const auto& layer : layers_) {
    if (!layer) continue;
    for (const std::int64_t cols : layer->slot_cols()) {
      const Stacked slot = allocate_stacked(arena, dtype_, rows, cols, pass != nullptr, tangent_pass != nullptr);
      if (pass) pass->slots.push_back(slot.primal);
      if (tangent_pass) tangent_pass->slots.push_back(slot.tangent);
    }
    if (pass)
      for (const BlockView& extra : layer->extras())
        pass->extras.push_back(extra.cols == 0 ? arena.allocate(dtype_, {extra.rows})
                                               : arena.allocate(dtype_, {extra.rows, extra.cols}));
  }
  const std::vector<Stacked> slots = stacked_slots(primal, tangent_pass);
  const Stacked network_input{primal.input, tangent_pass ? tangent_pass->input : Tensor()};
  std::vector<Stacked> layer_outputs;
  Stacked x = network_input;
  std::size_t slot = 0, extra = 0;
  for (const auto& layer : layers_) {
    if (layer) {
      const std::size_t slot_count = layer->slot_cols().size(), extra_count = layer->extras().size();
      layer->forward(frame, x, side_of(*layer, network_input, layer_outputs),
                     std::span(slots).subspan(slot, slot_count), std::span(primal.extras).subspan(extra, extra_count));
      slot += slot_count;
      extra += extra_count;
      x = slots[slot - 1];
    }
    layer_outputs.push_back(x);
  }
}

void Network::forward(Ops& ops, Arena& arena, PrimalPass& pass, const ParameterSet& parameters, Tensor x,
                      PassMode mode) const {
  pass.mode = mode;
  pass.rows = x.rows();
  pass.parameters = parameters;
  pass.input = x;
  run(ops, arena, &pass, nullptr, pass);
}

void Network::forward(Ops& ops, Arena& arena, PrimalPass& pass, TangentPass& tangent_pass,
                      const ParameterSet& parameters, Tensor x, Tensor tangents, const TangentLayout& layout,
                      PassMode mode) const {
  pass.mode = mode;
  pass.rows = x.rows();
  pass.parameters = parameters;
  pass.input = x;
  tangent_pass.layout = layout;
  tangent_pass.input = tangents;
  run(ops, arena, &pass, &tangent_pass, pass);
}

void Network::push(Ops& ops, Arena& arena, TangentPass& tangent_pass, const PrimalPass& pass, Tensor tangents,
                   const TangentLayout& layout) const {
  tangent_pass.layout = layout;
  tangent_pass.input = tangents;
  run(ops, arena, nullptr, &tangent_pass, pass);
}

void Network::reverse(Ops& ops, Arena& arena, const PrimalPass& pass, const TangentPass* tangent_pass, Tensor cotangent,
                      Tensor tangent_cotangent, const ReverseRequest& request) const {
  const std::int64_t mark = arena.mark();
  const Rows rows = rows_of(pass, tangent_pass);
  const Frame frame{ops, arena, dtype_, pass.mode, rows, pass.parameters, true};
  const Update update = request.accumulate_parameters ? Update::accumulate : Update::overwrite;
  const std::vector<Stacked> slots = stacked_slots(pass, tangent_pass);
  const Stacked network_input{pass.input, tangent_pass ? tangent_pass->input : Tensor()};
  const bool tangent = tangent_pass != nullptr;
  if (tangent && tangent_cotangent.absent()) {
    tangent_cotangent = arena.allocate(dtype_, {rows.tangent_rows(), output_size_});
    ops.fill(tangent_cotangent, 0);
  }
  if (!tangent && !tangent_cotangent.absent())
    throw InvalidArgument("reverse: a tangent cotangent needs the tangent pass it belongs to");

  std::vector<Stacked> layer_outputs;
  std::size_t slot = 0;
  for (const auto& layer : layers_) {
    if (layer) slot += layer->slot_cols().size();
    layer_outputs.push_back(slot == 0 ? network_input : slots[slot - 1]);
  }
  // grads[i + 1]: adjoint of layer i's output, once a later layer has contributed; grads[0]: of the network's input.
  std::vector<Stacked> grads(layers_.size() + 1);
  grads.back() = {cotangent, tangent_cotangent};
  std::size_t extra = pass.extras.size();
  const bool input_wanted = !request.grad_input.absent() || !request.grad_tangent_input.absent();
  for (std::size_t i = layers_.size(); i-- > 0;) {
    if (!layers_[i]) {  // fused into the layer before: both have the same output
      grads[i] = grads[i + 1];
      continue;
    }
    const Layer& layer = *layers_[i];
    slot -= layer.slot_cols().size();
    extra -= layer.extras().size();
    const Stacked x = i == 0 ? network_input : layer_outputs[i - 1];
    const auto target = [&](std::size_t index, const Stacked& value) {
      if (index == 0 && !input_wanted) return Stacked{};
      return allocate_stacked(arena, dtype_, rows, value.primal.cols(), true, tangent);
    };
    const Stacked grad_x = target(i, x);
    const Stacked side = side_of(layer, network_input, layer_outputs);
    Stacked grad_side;
    if (!side.primal.absent()) grad_side = target(static_cast<std::size_t>(layer.side_layer() + 1), side);
    layer.reverse(frame, x, side, std::span(slots).subspan(slot, layer.slot_cols().size()),
                  std::span(pass.extras).subspan(extra, layer.extras().size()), grads[i + 1], grad_x, grad_side,
                  request.grad_parameters, update);
    contribute(ops, grads[i], grad_x);
    if (!side.primal.absent()) contribute(ops, grads[static_cast<std::size_t>(layer.side_layer() + 1)], grad_side);
  }
  if (!request.grad_input.absent()) ops.copy(request.grad_input, grads[0].primal);
  if (!request.grad_tangent_input.absent()) ops.copy(request.grad_tangent_input, grads[0].tangent);
  arena.rewind(mark);
}

}  // namespace bracket
