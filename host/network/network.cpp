#include "bracket/network.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "host/network/layer_chain.h"

namespace bracket {
namespace {

constexpr std::uint64_t kKeysPerLayer = 256;  // of the random numbers a layer starts with
constexpr const char* kTangentsNeedInference =
    "tangents need an inference pass where the network has BatchNorm: batch statistics couple samples";

// Every slot with its primal part and, where there is a tangent pass, its tangent part.
std::vector<Stacked> stacked_slots(const PrimalPass& pass, const TangentPass* tangent_pass) {
  std::vector<Stacked> slots(pass.slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i)
    slots[i] = {pass.slots[i], tangent_pass ? tangent_pass->slots[i] : Tensor()};
  return slots;
}

Tensor allocate_extra(Arena& arena, DType dtype, const Rows& rows, const Extra& extra) {
  if (extra.bytes_per_row) return arena.allocate(DType::u8, {rows.primal, extra.cols});
  return extra.cols == 0 ? arena.allocate(dtype, {extra.rows}) : arena.allocate(dtype, {extra.rows, extra.cols});
}

// Where values of the given sizes lie in one block when those that are never needed at once may share memory: first
// fit, in the order in which they are written.
struct SharedBlock {
  std::vector<std::int64_t> offsets;
  std::int64_t size = 0;
};

SharedBlock share_block(std::span<const SlotLife> lives, std::span<const std::int64_t> sizes) {
  SharedBlock block;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::vector<std::size_t> alive;
    for (std::size_t j = 0; j < i; ++j)
      if (lives[j].last >= lives[i].first) alive.push_back(j);
    std::sort(alive.begin(), alive.end(), [&](auto a, auto b) { return block.offsets[a] < block.offsets[b]; });
    std::int64_t offset = 0;
    for (const std::size_t j : alive) {
      if (offset + sizes[i] <= block.offsets[j]) break;
      offset = std::max(offset, block.offsets[j] + sizes[j]);
    }
    block.offsets.push_back(offset);
    block.size = std::max(block.size, offset + sizes[i]);
  }
  return block;
}

// Slots of a pass that keeps nothing but its output, which is y.
std::vector<Tensor> shared_slots(Arena& arena, const LayerChain& chain, const Rows& rows, bool tangent, Tensor y) {
  constexpr std::int64_t kAlignment = 64;  // elements: a multiple of every vector width
  const std::vector<SlotSize>& slots = chain.slot_sizes();
  const std::vector<SlotLife> lives = chain.slot_lives();
  std::vector<std::int64_t> row_counts, sizes;
  for (const SlotSize& slot : slots) {
    const Rows of_slot = slot.rows(rows);
    row_counts.push_back(tangent ? of_slot.tangent_rows() : of_slot.primal);
    sizes.push_back((row_counts.back() * slot.cols + kAlignment - 1) / kAlignment * kAlignment);
  }
  sizes.back() = 0;
  const SharedBlock shared = share_block(lives, sizes);
  const Tensor block = arena.allocate(y.dtype(), {shared.size});
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i + 1 < slots.size(); ++i)
    tensors.push_back(
        block.slice_rows(shared.offsets[i], row_counts[i] * slots[i].cols).reshaped({row_counts[i], slots[i].cols}));
  tensors.push_back(y);
  return tensors;
}

// Parameters lie where they lie without merging.
std::unique_ptr<LayerChain> merged_chain(const std::vector<LayerSpec>& specs, const Features& input, Merging& merging,
                                         const std::vector<ParameterInfo>& plain) {
  std::vector<ParameterInfo> infos;
  BlockLayout layout(infos);
  auto chain = std::make_unique<LayerChain>(specs, input, "", merging, layout);
  const auto same = [](const ParameterInfo& a, const ParameterInfo& b) {
    return a.name == b.name && a.offset == b.offset && a.shape == b.shape && a.buffer == b.buffer;
  };
  if (!std::equal(infos.begin(), infos.end(), plain.begin(), plain.end(), same))
    throw Error(ExitCode::internal, "merged layers place parameters otherwise than the layers themselves");
  return chain;
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

Network::Network(NetworkSpec spec, DType dtype, const NetworkExecution& execution)
    : spec_(std::move(spec)), dtype_(dtype), execution_(execution) {
  if (spec_.input_size < 1)
    throw InvalidArgument("network input_size is " + std::to_string(spec_.input_size) + ", must be at least 1");
  if (dtype_ != DType::f32 && dtype_ != DType::f64)
    throw InvalidArgument(std::string("a network of ") + dtype_name(dtype_) + " cannot be; use f32 or f64");
  Features input{spec_.input_size};
  if (spec_.image) {
    const ImageShape& image = *spec_.image;
    const double size = static_cast<double>(image.channels) * static_cast<double>(image.pixels());
    if (image.channels < 1 || image.height < 1 || image.width < 1 || size != static_cast<double>(spec_.input_size))
      throw InvalidArgument("network input_size is " + std::to_string(spec_.input_size) + ", its image has " +
                            described(image) + "; make input_size their product");
    input.image = image;
  }
  if (spec_.layers.empty()) throw InvalidArgument("a network needs at least one layer");
  BlockLayout layout(infos_);
  Merging nothing;
  plain_ = std::make_unique<LayerChain>(spec_.layers, input, "", nothing, layout);
  if (plain_->slot_sizes().empty()) throw InvalidArgument("a network needs at least one layer that computes something");
  if (plain_->most_keys_of_a_layer() > kKeysPerLayer)
    throw InvalidArgument("a residual or coupling layer holds more than " + std::to_string(kKeysPerLayer / 4) +
                          " layers; split it");
  value_elements_ = layout.value_elements();
  buffer_elements_ = layout.buffer_elements();
  // Groups of one kind are told from those of the others: composing may take a convolution from a pool behind it, and
  // leave as many groups as there were.
  Merging merging;
  const auto merged = [&](bool wanted) {
    merging.groups = {};
    return wanted ? merged_chain(spec_.layers, input, merging, infos_) : nullptr;
  };
  merging.resampling = execution.merge_resampling;
  merged_ = merged(merging.resampling);
  if (merging.groups.resampling == 0) merged_.reset();
  merging.norm = execution.fold_batch_norm;
  folded_ = merged(merging.norm);
  if (merging.groups.norm == 0) folded_.reset();
  merging.compose = execution.compose_linear;
  composed_ = merged(merging.compose);
  if (merging.groups.compose == 0 || composed_->row_flops() >= flops_per_row()) composed_.reset();
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
  const std::vector<SlotSize>& slots = chain(PassForm::layers).slot_sizes();
  return std::accumulate(slots.begin(), slots.end(), std::int64_t{0},
                         [](std::int64_t sum, const SlotSize& slot) { return sum + slot.cols; });
}

std::int64_t Network::flops_per_row() const noexcept { return chain(PassForm::layers).row_flops(); }
std::int64_t Network::flops_per_row(const PrimalPass& pass) const noexcept { return chain(pass.form).row_flops(); }
std::int64_t Network::composition_flops() const noexcept { return composed_ ? composed_->once_flops() : 0; }
std::int64_t Network::output_size() const noexcept { return plain_->output().size; }
const std::optional<ImageShape>& Network::output_image() const noexcept { return plain_->output().image; }
bool Network::has_batch_norm() const noexcept { return plain_->batch_norm(); }
bool Network::has_training_state() const noexcept { return plain_->training_state(); }
bool Network::piecewise_linear() const noexcept { return plain_->piecewise_linear(); }
bool Network::injective_by_construction() const { return plain_->injective(); }
bool Network::has_log_volume() const noexcept { return plain_->has_log_volume(); }

const LayerChain& Network::chain(PassForm form) const noexcept {
  if (form == PassForm::linear_composed && composed_) return *composed_;
  if (form != PassForm::layers && folded_) return *folded_;
  return merged_ ? *merged_ : *plain_;
}

// Composing takes its products once for the map and twice for every pass of parameter gradients through it. BatchNorm
// reads and writes its values for every row; folding it reads and writes the weights, and for each of those passes
// reads two of their size twice each: the same ratio.
PassForm Network::form_for(PassMode mode, std::int64_t rows, const FurtherUse& further) const {
  if (further.rows < 0 || further.parameter_passes < 0)
    throw InvalidArgument("forward: further use is " + std::to_string(further.rows) + " rows and " +
                          std::to_string(further.parameter_passes) + " parameter passes; must not be negative");
  const double served = static_cast<double>(rows) + static_cast<double>(further.rows);
  if (mode != PassMode::inference || served == 0) return PassForm::layers;
  const double times = 1 + 2 * static_cast<double>(further.parameter_passes);
  const auto pays = [&](std::int64_t per_row, std::int64_t once) {
    return served * static_cast<double>(per_row) > times * static_cast<double>(once);
  };
  if (composed_ && pays(flops_per_row() - composed_->row_flops(), composed_->once_flops()))
    return PassForm::linear_composed;
  if (folded_ && pays(folded_->folded().values_per_row, folded_->folded().weights)) return PassForm::norm_folded;
  return PassForm::layers;
}

void Network::initialize(Ops& ops, const ParameterSet& parameters, std::uint64_t seed, RandomStream stream) const {
  std::vector<double> flat[2] = {std::vector<double>(static_cast<std::size_t>(value_elements_)),
                                 std::vector<double>(static_cast<std::size_t>(buffer_elements_))};
  const ValueWriter write = [&](const BlockView& view, bool buffer, const std::vector<double>& values) {
    std::copy(values.begin(), values.end(), flat[buffer ? 1 : 0].begin() + view.offset);
  };
  plain_->initialize({seed, stream, 0}, kKeysPerLayer, write);
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
  const LayerChain& layers = chain(primal.form);
  const Rows rows = rows_of(primal, tangent_pass);
  if (tangent_pass && primal.mode == PassMode::training && has_batch_norm())
    throw InvalidArgument(kTangentsNeedInference);
  Frame frame{ops, arena, dtype_, primal.mode, rows, primal.parameters, pass != nullptr};
  if (pass) {
    pass->slots.clear();
    pass->extras.clear();
  }
  if (tangent_pass) {
    tangent_pass->slots.clear();
    tangent_pass->log_volume = {};
  }
  if (!primal.log_volume.absent()) {
    if (pass) frame.log_volume.primal = primal.log_volume;
    if (tangent_pass) {
      tangent_pass->log_volume = frame.log_volume.tangent = arena.allocate(dtype_, {rows.tangent_rows(), 1});
      ops.fill(tangent_pass->log_volume, 0);
    }
  }
  for (const SlotSize& size : layers.slot_sizes()) {
    const Stacked slot =
        allocate_stacked(arena, dtype_, size.rows(rows), size.cols, pass != nullptr, tangent_pass != nullptr);
    if (pass) pass->slots.push_back(slot.primal);
    if (tangent_pass) tangent_pass->slots.push_back(slot.tangent);
  }
  if (pass)
    for (const Extra& extra : layers.extras()) pass->extras.push_back(allocate_extra(arena, dtype_, rows, extra));
  const Stacked input{primal.input, tangent_pass ? tangent_pass->input : Tensor()};
  layers.forward(frame, input, stacked_slots(primal, tangent_pass), primal.extras);
}

void Network::begin(Ops& ops, Arena& arena, PrimalPass& pass, const ParameterSet& parameters, Tensor x, PassMode mode,
                    std::int64_t rows, const FurtherUse& further) const {
  pass.mode = mode;
  pass.rows = x.rows();
  pass.parameters = parameters;
  pass.input = x;
  pass.form = form_for(mode, rows, further);
  pass.log_volume = {};
  if (!further.log_volume) return;
  if (!has_log_volume())
    throw InvalidArgument(
        "the network has no log-volume that comes with a pass: every layer must be a coupling, a permutation, a "
        "rotation, affine, or linear with as many outputs as inputs, no activation and no spectral norm");
  pass.log_volume = arena.allocate(dtype_, {pass.rows, 1});
  ops.fill(pass.log_volume, 0);
}

void Network::forward(Ops& ops, Arena& arena, PrimalPass& pass, const ParameterSet& parameters, Tensor x, PassMode mode,
                      const FurtherUse& further) const {
  const MathScope math(ops, math_.passes.value_or(ops.math_mode()));
  begin(ops, arena, pass, parameters, x, mode, x.rows(), further);
  run(ops, arena, &pass, nullptr, pass);
}

void Network::forward(Ops& ops, Arena& arena, PrimalPass& pass, TangentPass& tangent_pass,
                      const ParameterSet& parameters, Tensor x, Tensor tangents, const TangentLayout& layout,
                      PassMode mode, const FurtherUse& further) const {
  const MathScope math(ops, math_.passes.value_or(ops.math_mode()));
  begin(ops, arena, pass, parameters, x, mode, x.rows() + layout.rows(), further);
  tangent_pass.layout = layout;
  tangent_pass.input = tangents;
  run(ops, arena, &pass, &tangent_pass, pass);
}

void Network::push(Ops& ops, Arena& arena, TangentPass& tangent_pass, const PrimalPass& pass, Tensor tangents,
                   const TangentLayout& layout) const {
  const MathScope math(ops, math_.jacobian.value_or(ops.math_mode()));
  tangent_pass.layout = layout;
  tangent_pass.input = tangents;
  run(ops, arena, nullptr, &tangent_pass, pass);
}

void Network::evaluate(Ops& ops, Arena& arena, Tensor y, const ParameterSet& parameters, Tensor x,
                       PassMode mode) const {
  const MathScope math(ops, math_.passes.value_or(ops.math_mode()));
  const std::int64_t mark = arena.mark();
  const Rows rows{x.rows(), 0, 0, 0};
  const LayerChain& layers = chain(form_for(mode, rows.primal, {}));  // as `forward`, bit by bit
  const Frame frame{ops, arena, dtype_, mode, rows, parameters, true};
  std::vector<Stacked> slots;
  for (const Tensor& slot : shared_slots(arena, layers, rows, false, y)) slots.push_back({slot, {}});
  std::vector<Tensor> extras;
  for (const Extra& extra : layers.extras()) extras.push_back(allocate_extra(arena, dtype_, rows, extra));
  layers.forward(frame, {x, {}}, slots, extras);
  arena.rewind(mark);
}

void Network::push_through(Ops& ops, Arena& arena, Tensor y, const PrimalPass& pass, Tensor tangents,
                           const TangentLayout& layout) const {
  const MathScope math(ops, math_.jacobian.value_or(ops.math_mode()));
  if (pass.mode == PassMode::training && has_batch_norm()) throw InvalidArgument(kTangentsNeedInference);
  const std::int64_t mark = arena.mark();
  const Rows rows{pass.rows, layout.first, layout.count, layout.tangents};
  const Frame frame{ops, arena, dtype_, pass.mode, rows, pass.parameters, false};
  const LayerChain& layers = chain(pass.form);
  const std::vector<Tensor> shared = shared_slots(arena, layers, rows, true, y);
  std::vector<Stacked> slots;
  for (std::size_t i = 0; i < shared.size(); ++i) slots.push_back({pass.slots[i], shared[i]});
  layers.forward(frame, {pass.input, tangents}, slots, pass.extras);
  arena.rewind(mark);
}

void Network::pull_through(Ops& ops, Arena& arena, Tensor x, const PrimalPass& pass, Tensor cotangents,
                           const TangentLayout& layout) const {
  const MathScope math(ops, math_.jacobian.value_or(ops.math_mode()));
  pull(ops, arena, x, pass, nullptr, cotangents, layout, {});
}

PrimalPass Network::slice(const PrimalPass& pass, std::int64_t first, std::int64_t count) const {
  if (first < 0 || count < 0 || first + count > pass.rows)
    throw InvalidArgument("slice: rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                          " of a pass of " + std::to_string(pass.rows));
  if (pass.mode == PassMode::training && has_batch_norm())
    throw InvalidArgument("slice: the rows of a training pass with BatchNorm belong together");
  PrimalPass part{pass.mode, count, pass.parameters, pass.input.slice_rows(first, count), {}, {}, pass.form};
  if (!pass.log_volume.absent()) part.log_volume = pass.log_volume.slice_rows(first, count);
  for (const Tensor& slot : pass.slots) part.slots.push_back(slot.slice_rows(first, count));
  const std::vector<Extra>& extras = chain(pass.form).extras();
  for (std::size_t i = 0; i < pass.extras.size(); ++i)
    part.extras.push_back(extras[i].bytes_per_row ? pass.extras[i].slice_rows(first, count) : pass.extras[i]);
  return part;
}

void Network::reverse_tangents(Ops& ops, Arena& arena, const PrimalPass& pass, const TangentPass& tangent_pass,
                               Tensor tangent_cotangent, Tensor grad_parameters, bool accumulate) const {
  if (!piecewise_linear()) throw InvalidArgument("reverse_tangents: the network is not piecewise linear; use reverse");
  const MathScope math(ops, math_.passes.value_or(ops.math_mode()));
  ReverseRequest request;
  request.grad_parameters = grad_parameters;
  request.accumulate_parameters = accumulate;
  pull(ops, arena, {}, pass, &tangent_pass, tangent_cotangent, tangent_pass.layout, request);
}

void Network::pull(Ops& ops, Arena& arena, Tensor x, const PrimalPass& pass, const TangentPass* tangent_pass,
                   Tensor cotangents, const TangentLayout& layout, const ReverseRequest& request) const {
  if (pass.mode == PassMode::training && has_batch_norm()) throw InvalidArgument(kTangentsNeedInference);
  const std::int64_t mark = arena.mark();
  const Rows rows{pass.rows, layout.first, layout.count, layout.tangents};
  const Frame frame{ops, arena, dtype_, pass.mode, rows, pass.parameters, false};
  const Stacked input{pass.input, tangent_pass ? tangent_pass->input : Tensor()};
  const LayerChain& layers = chain(pass.form);
  Tensor grad_y = cotangents;
  if (layers.consumes_grad_y()) {  // the caller's cotangents stay as they are
    grad_y = arena.allocate(dtype_, {rows.tangent_rows(), output_size()});
    ops.copy(grad_y, cotangents);
  }
  layers.reverse(frame, input, stacked_slots(pass, tangent_pass), pass.extras, {{}, grad_y}, {{}, x},
                 request.grad_parameters, request.accumulate_parameters ? Update::accumulate : Update::overwrite);
  arena.rewind(mark);
}

void Network::reverse(Ops& ops, Arena& arena, const PrimalPass& pass, const TangentPass* tangent_pass, Tensor cotangent,
                      Tensor tangent_cotangent, const ReverseRequest& request,
                      const LogVolumeCotangents& log_volume) const {
  const MathScope math(ops, math_.passes.value_or(ops.math_mode()));
  const std::int64_t mark = arena.mark();
  const Rows rows = rows_of(pass, tangent_pass);
  Frame frame{ops, arena, dtype_, pass.mode, rows, pass.parameters, true};
  if ((!log_volume.primal.absent() || !log_volume.tangent.absent()) && pass.log_volume.absent())
    throw InvalidArgument("reverse: cotangents of a log-volume that the pass does not carry; ask for it in FurtherUse");
  if (!log_volume.tangent.absent() && tangent_pass == nullptr)
    throw InvalidArgument("reverse: the cotangent of the log-volume's tangents needs the tangent pass it belongs to");
  frame.log_volume = {log_volume.primal, log_volume.tangent};
  const Update update = request.accumulate_parameters ? Update::accumulate : Update::overwrite;
  const std::vector<Stacked> slots = stacked_slots(pass, tangent_pass);
  const Stacked input{pass.input, tangent_pass ? tangent_pass->input : Tensor()};
  const LayerChain& layers = chain(pass.form);
  const bool tangent = tangent_pass != nullptr;
  if (tangent && tangent_cotangent.absent()) {
    tangent_cotangent = arena.allocate(dtype_, {rows.tangent_rows(), output_size()});
    ops.fill(tangent_cotangent, 0);
  }
  if (!tangent && !tangent_cotangent.absent())
    throw InvalidArgument("reverse: a tangent cotangent needs the tangent pass it belongs to");

  Stacked grad_y{cotangent, tangent_cotangent};
  if (layers.consumes_grad_y()) {  // the caller's cotangents stay as they are
    grad_y = allocate_stacked(arena, dtype_, rows, output_size(), !cotangent.absent(), tangent);
    if (!cotangent.absent()) ops.copy(grad_y.primal, cotangent);
    if (tangent) ops.copy(grad_y.tangent, tangent_cotangent);
  }
  Stacked grad_x;
  if (!request.grad_input.absent() || !request.grad_tangent_input.absent())
    grad_x = allocate_stacked(arena, dtype_, rows, input_size(), true, tangent);
  layers.reverse(frame, input, slots, pass.extras, grad_y, grad_x, request.grad_parameters, update);
  if (!request.grad_input.absent()) ops.copy(request.grad_input, grad_x.primal);
  if (!request.grad_tangent_input.absent()) ops.copy(request.grad_tangent_input, grad_x.tangent);
  arena.rewind(mark);
}

}  // namespace bracket
