#include "bracket/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/files/in_quotes.h"
#include "host/network/file_order.h"
#include "host/training/batch_table.h"
#include "host/training/inference.h"
#include "host/training/memory_check.h"
#include "host/training/player.h"
#include "host/training/training_step.h"
#include "kernels/plan_ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kRingSize = 1024;
// Steps per launch where one kernel replays them: enough that its launch counts for nothing, and few enough that whoever
// else uses the device, or wants to stop, waits milliseconds.
constexpr std::int64_t kStepsPerLaunch = 64;

void check(const TrainerConfig& config, const Network& energy, const Network& generator, const Dataset& data) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw InvalidArgument(what);
  };
  const auto number = [](std::int64_t value) { return std::to_string(value); };
  require(config.dtype == DType::f32 || config.dtype == DType::f64, "dtype must be f32 or f64");
  const EntropyConfig& entropy = config.entropy;
  const bool lobpcg = entropy.estimator == EntropyEstimator::lobpcg;
  const bool triangular = entropy.estimator == EntropyEstimator::triangular;
  require(lobpcg || triangular || entropy.estimator == EntropyEstimator::exact ||
              entropy.estimator == EntropyEstimator::min_singular,
          "entropy: estimator must be exact, min_singular, lobpcg or triangular");
  require(!triangular || generator.has_log_volume(),
          "entropy: triangular needs a generator whose layers are couplings, permutations, rotations, affine or square "
          "linear ones; name another estimator");
  require(entropy.iterations >= 1, "entropy: iterations is " + number(entropy.iterations) + ", must be at least 1");
  require(entropy.chunk >= 0, "entropy: chunk is " + number(entropy.chunk) + ", must not be negative (0: automatic)");
  require(lobpcg || !entropy.warm_start, "entropy: warm_start is for lobpcg; the other estimators start from nothing");
  require(
      config.penalty.kind == PenaltyConfig::Kind::bidirectional || config.penalty.kind == PenaltyConfig::Kind::zero_gp,
      "penalty: kind must be bidirectional or zero_gp");
  require(config.batch_size >= 1, "batch_size is " + number(config.batch_size) + ", must be at least 1");
  require(config.energy_steps >= 1, "energy_steps is " + number(config.energy_steps) + ", must be at least 1");
  require(config.total_steps >= 0, "steps is " + number(config.total_steps) + ", must not be negative");
  require(energy.output_size() == 1, "the energy network must end in one column, got " + number(energy.output_size()));
  require(!energy.has_batch_norm(),
          "an energy network must not hold batch_norm: it would couple the samples of a batch");
  require(energy.input_size() == generator.output_size(), "the generator makes " + number(generator.output_size()) +
                                                              " columns, the energy reads " +
                                                              number(energy.input_size()));
  require(data.cols() == energy.input_size(),
          "the data has " + number(data.cols()) + " columns, the energy reads " + number(energy.input_size()));
  require(generator.input_size() <= generator.output_size(),
          "the generator's latent size " + number(generator.input_size()) + " exceeds its output size " +
              number(generator.output_size()));
  for (const OptimizerConfig& o : {config.energy.optimizer, config.generator.optimizer}) {
    require(o.lr >= 0 && o.epsilon > 0 && o.weight_decay >= 0 && o.clip_norm >= 0,
            "optimizer: lr, weight_decay and clip_norm must not be negative and epsilon must be positive");
    require(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "optimizer: betas must lie in [0, 1)");
  }
  require(config.ema_decay >= 0 && config.ema_decay < 1, "ema_decay must lie in [0, 1)");
  const PenaltyConfig& p = config.penalty;
  require(p.weight >= 0 && p.threshold >= 0, "penalty: weight and threshold must not be negative");
  require(p.rule != PenaltyConfig::Rule::power || p.offset > 0, "penalty: the power rule needs an offset above 0");
  require(p.rule != PenaltyConfig::Rule::controller ||
              (p.target > 0 && p.minimum > 0 && p.maximum >= p.minimum && p.weight > 0),
          "penalty: the controller needs target, minimum and weight above 0 and maximum >= minimum");
  require(data.is_images() || (!config.data.flip && !config.data.dequantise),
          "data.flip and data.dequantise are for images, " + text_in_quotes(data.name()) + " holds none");
  require(config.data.device_bytes >= 0,
          "data.device_bytes is " + number(config.data.device_bytes) + ", must not be negative");
  require(!config.schedule.cosine || config.total_steps > 0, "a cosine schedule needs steps of at least 1");
}

// A value that overflows on its way to the device would be infinite there.
void require_representable(const Dataset& data, DType dtype) {
  if (dtype != DType::f32 || data.is_images()) return;
  const std::span<const double> values = data.values();
  const auto bad = std::find_if(values.begin(), values.end(),
                                [](double v) { return std::abs(v) > std::numeric_limits<float>::max(); });
  if (bad == values.end()) return;
  const std::int64_t index = bad - values.begin();
  throw DataError("row " + std::to_string(index / data.cols()) + ", column " + std::to_string(index % data.cols()) +
                  " of the data is " + format_number(*bad) + ", more than precision f32 can hold; rescale the data");
}

SnapshotTensor snapshot_tensor(Ops& ops, const Tensor& block, const ParameterInfo& info) {
  SnapshotTensor tensor{block.dtype(), info.shape, {}};
  tensor.bytes.resize(static_cast<std::size_t>(info.size() * dtype_bytes(block.dtype())));
  const auto* start = static_cast<const std::byte*>(block.data()) + info.offset * dtype_bytes(block.dtype());
  ops.copy_bytes_to_host(tensor.bytes.data(), start, static_cast<std::int64_t>(tensor.bytes.size()));
  if (!info.order.same()) tensor.bytes = in_file_order(tensor.bytes, info.order, dtype_bytes(block.dtype()));
  return tensor;
}

// One named tensor of a snapshot and the place it belongs to.
struct SnapshotEntry {
  SnapshotTensors* tensors;
  std::string name;
  const Tensor* block;
  const ParameterInfo* info;
};

}  // namespace

struct Trainer::Impl {
  Impl(Context& ctx, const TrainerConfig& cfg, const Dataset& dataset)
      : context(&ctx),
        config(cfg),
        energy(ctx, cfg.energy, cfg.dtype, Player::energy),
        generator(ctx, cfg.generator, cfg.dtype, Player::generator) {
    check(config, energy.network, generator.network, dataset);
    require_representable(dataset, config.dtype);
    Ops& ops = ctx.ops();
    scalars = ctx.pool().allocate(static_cast<std::int64_t>(sizeof(StepState) + kRingSize * sizeof(StepRecord)));
    state = static_cast<StepState*>(scalars.data());
    ring = reinterpret_cast<StepRecord*>(state + 1);
    StepState start;
    start.penalty_weight = config.penalty.weight;
    ops.copy_bytes_to_device(state, &start, sizeof start);
    if (config.entropy.warm_start) make_direction(ctx);
    if (!ops.planning()) {  // a plan has no values, and drawing them takes longer than planning
      energy.initialize(ops, config.seed);
      generator.initialize(ops, config.seed);
    }
    table.emplace(ctx, config, dataset);
    PlanOps plan;
    Arena planner;
    step(plan, planner);
    memory_plan.step = planner.high_water_bytes();
    memory_plan.state = energy.memory.bytes() + generator.memory.bytes() + scalars.bytes() + direction_memory.bytes();
    memory_plan.data = table->device_bytes();
    arena = Arena(ctx.pool(), memory_plan.step);
    ops.synchronize();
  }

  void make_direction(Context& ctx) {
    direction_info = {"entropy.direction", {config.batch_size, generator.network.input_size()}};
    direction_memory = ctx.pool().allocate(direction_info.size() * dtype_bytes(config.dtype));
    direction = Tensor(direction_memory.data(), config.dtype, {config.batch_size, generator.network.input_size()});
    ctx.ops().random_normal(direction, {config.seed, RandomStream::energy_start, 0}, nullptr);
  }

  void step(Ops& ops, Arena& memory, std::function<void(const char*)> phase_done = {}) {
    TrainingStep{config, energy,    generator, table->source(), state,
                 ring,   kRingSize, passes,    direction,       std::move(phase_done)}
        .run(ops, memory);
  }

  /// Up to `most` steps; returns how many. The first in a math mode runs as it is: whatever a capture refuses happens
  /// there.
  std::int64_t queue_steps(std::int64_t most) {
    Ops& ops = context->ops();
    table->prepare_step();
    if (stepped == ops.math_mode() && context->graphs()) {
      // Where there can be none, now or ever, asking costs next to nothing.
      if (!recording || recorded != ops.math_mode()) {
        recording = ops.record([&] { step(ops, arena); }, context->one_kernel() ? Replay::one_kernel : Replay::graph);
      }
      recorded = ops.math_mode();
      if (recording) {
        const std::int64_t count = table->source().streamed ? 1 : std::min(most, kStepsPerLaunch);
        recording->replay(count);
        form = recording->form() == Replay::one_kernel ? StepForm::one_kernel : StepForm::graph;
        return count;
      }
    }
    step(ops, arena);
    form = StepForm::launches;
    stepped = ops.math_mode();
    return 1;
  }

  void make_room() {
    if (room() == 0) drain();
  }
  std::int64_t room() const { return kRingSize - (queued - reported); }

  void drain() {
    StepState now;
    context->ops().copy_bytes_to_host(&now, state, sizeof now);
    if (now.step > reported) {
      std::vector<StepRecord> all(static_cast<std::size_t>(kRingSize));
      context->ops().copy_bytes_to_host(all.data(), ring, static_cast<std::int64_t>(all.size() * sizeof(StepRecord)));
      for (; reported < now.step; ++reported) pending.push_back(all[static_cast<std::size_t>(reported % kRingSize)]);
    }
    if (now.nonfinite_tensor != 0) {
      queued = now.step;  // what was queued after the mark did nothing
      throw_diverged(now);
    }
  }

  [[noreturn]] void throw_diverged(const StepState& now) const {
    std::string name;
    switch (static_cast<CheckedTensor>(now.nonfinite_tensor)) {
      case CheckedTensor::energy_output:
        name = "energies, row " + std::to_string(now.nonfinite_element);
        break;
      case CheckedTensor::generated_energy:
        name = "energies of generated points, row " + std::to_string(now.nonfinite_element);
        break;
      case CheckedTensor::energy_gradient:
        name = "energy gradient of " + energy.parameter_at(now.nonfinite_element);
        break;
      case CheckedTensor::generator_gradient:
        name = "generator gradient of " + generator.parameter_at(now.nonfinite_element);
        break;
    }
    throw Diverged("non-finite " + name + " in step " + std::to_string(now.step + 1) +
                       "; this update was not applied. Train anew with a lower learning rate or another seed",
                   name, now.step + 1);
  }

  // Every tensor a snapshot holds. BatchNorm's count of training passes, which PyTorch's modules store, follows from
  // the update counts and is added by the checkpoint writer.
  std::vector<SnapshotEntry> entries(TrainerSnapshot& s) {
    std::vector<SnapshotEntry> list;
    for (auto [player, raw, average, label] :
         {std::tuple{&energy, &s.energy, &s.energy_average, "energy."},
          std::tuple{&generator, &s.generator, &s.generator_average, "generator."}}) {
      for (const ParameterInfo& info : player->network.parameters()) {
        list.push_back({raw, info.name, info.buffer ? &player->raw.buffers : &player->raw.values, &info});
        list.push_back({average, info.name, info.buffer ? &player->average.buffers : &player->average.values, &info});
        if (info.buffer) continue;
        if (!player->first_moment.absent())
          list.push_back({&s.optimizer, label + info.name + ".first_moment", &player->first_moment, &info});
        list.push_back({&s.optimizer, label + info.name + ".second_moment", &player->second_moment, &info});
      }
    }
    if (!direction.absent()) list.push_back({&s.optimizer, direction_info.name, &direction, &direction_info});
    return list;
  }

  Context* context;
  TrainerConfig config;
  PlayerBlocks energy, generator;
  Buffer scalars, direction_memory;
  Tensor direction;  // of a warm start
  ParameterInfo direction_info;
  StepState* state = nullptr;
  StepRecord* ring = nullptr;
  std::optional<BatchTable> table;
  StepPasses passes;
  Arena arena;
  MemoryPlan memory_plan;
  StepForm form = StepForm::launches;
  std::unique_ptr<Recording> recording;  // of a step; null before the second, or where there can be none
  std::optional<MathMode> stepped;       // of the last step that ran as it is
  MathMode recorded = MathMode::fp32;    // the products in it
  std::int64_t queued = 0;               // steps asked for, all told
  std::int64_t reported = 0;             // steps whose records have been read
  std::vector<StepRecord> pending;
};

Trainer::Trainer(Context& context, const TrainerConfig& config, const Dataset& data) {
  const MemoryPlan plan = require_memory(context.pool(), config, data);
  impl_ = std::make_unique<Impl>(context, config, data);
  impl_->memory_plan = plan;
}
Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;

void Trainer::run(std::int64_t steps) {
  if (steps < 0) throw InvalidArgument("run: steps is " + std::to_string(steps) + ", must not be negative");
  while (steps > 0) {
    impl_->make_room();
    const std::int64_t queued = impl_->queue_steps(std::min(steps, impl_->room()));
    impl_->queued += queued;
    steps -= queued;
  }
}

std::vector<PhaseTime> Trainer::time_phases(std::int64_t steps) {
  if (steps < 1) throw InvalidArgument("time_phases: steps is " + std::to_string(steps) + ", must be at least 1");
  using Clock = std::chrono::steady_clock;
  std::vector<PhaseTime> phases;
  Clock::time_point last;
  const auto done = [&](const std::string& name) {
    impl_->context->synchronize();
    const Clock::time_point now = Clock::now();
    auto phase = std::find_if(phases.begin(), phases.end(), [&](const PhaseTime& p) { return p.name == name; });
    if (phase == phases.end()) phase = phases.insert(phases.end(), {name, 0});
    phase->milliseconds += std::chrono::duration<double, std::milli>(now - last).count() / static_cast<double>(steps);
    last = Clock::now();
  };
  for (std::int64_t i = 0; i < steps; ++i) {
    impl_->make_room();
    impl_->context->synchronize();
    last = Clock::now();
    impl_->table->prepare_step();
    impl_->step(impl_->context->ops(), impl_->arena, done);
    ++impl_->queued;
  }
  return phases;
}

std::vector<StepRecord> Trainer::reports() {
  impl_->drain();
  return std::exchange(impl_->pending, {});
}

std::int64_t Trainer::step() const noexcept { return impl_->queued; }
StepForm Trainer::step_form() const noexcept { return impl_->form; }
const TrainerConfig& Trainer::config() const noexcept { return impl_->config; }
const Network& Trainer::energy_network() const noexcept { return impl_->energy.network; }
const Network& Trainer::generator_network() const noexcept { return impl_->generator.network; }
Context& Trainer::context() noexcept { return *impl_->context; }

ParameterSet Trainer::energy_parameters(Weights weights) const {
  return weights == Weights::raw ? impl_->energy.raw : impl_->energy.average;
}
ParameterSet Trainer::generator_parameters(Weights weights) const {
  return weights == Weights::raw ? impl_->generator.raw : impl_->generator.average;
}

TrainerSnapshot Trainer::snapshot() {
  impl_->drain();  // a diverged run has nothing worth keeping
  TrainerSnapshot snapshot;
  Ops& ops = impl_->context->ops();
  for (const SnapshotEntry& e : impl_->entries(snapshot))
    (*e.tensors)[e.name] = snapshot_tensor(ops, *e.block, *e.info);
  StepState now;
  ops.copy_bytes_to_host(&now, impl_->state, sizeof now);
  snapshot.step = now.step;
  snapshot.energy_updates = now.updates[0];
  snapshot.generator_updates = now.updates[1];
  snapshot.penalty_weight = now.penalty_weight;
  snapshot.gap_average = now.gap_average;
  return snapshot;
}

void Trainer::restore(const TrainerSnapshot& snapshot) {
  if (snapshot.step < 0 || snapshot.energy_updates < 0 || snapshot.generator_updates < 0)
    throw CheckpointError("step and update counts must not be negative, got " + std::to_string(snapshot.step) + ", " +
                          std::to_string(snapshot.energy_updates) + " and " +
                          std::to_string(snapshot.generator_updates));
  if (!std::isfinite(snapshot.penalty_weight) || !std::isfinite(snapshot.gap_average))
    throw CheckpointError("penalty_weight and gap_average must be finite, got " +
                          std::to_string(snapshot.penalty_weight) + " and " + std::to_string(snapshot.gap_average));
  TrainerSnapshot copy = snapshot;  // entries() wants mutable maps; tensors found are removed, leftovers are errors
  Ops& ops = impl_->context->ops();
  const std::vector<SnapshotEntry> entries = impl_->entries(copy);
  for (const SnapshotEntry& e : entries) {
    const auto found = e.tensors->find(e.name);
    if (found == e.tensors->end()) throw CheckpointError("tensor '" + e.name + "' is missing");
    const SnapshotTensor& tensor = found->second;
    if (tensor.shape != e.info->shape || tensor.dtype != e.block->dtype() ||
        static_cast<std::int64_t>(tensor.bytes.size()) != e.info->size() * dtype_bytes(tensor.dtype))
      throw CheckpointError("tensor '" + e.name + "' does not fit the network: stored as " + dtype_name(tensor.dtype) +
                            " with " + std::to_string(tensor.bytes.size()) + " bytes, expected " +
                            dtype_name(e.block->dtype()) + " with " +
                            std::to_string(e.info->size() * dtype_bytes(e.block->dtype())));
  }
  std::size_t stored = 0;
  for (const SnapshotTensors* t :
       {&copy.energy, &copy.generator, &copy.energy_average, &copy.generator_average, &copy.optimizer})
    stored += t->size();
  if (stored != entries.size())
    throw CheckpointError("the checkpoint holds " + std::to_string(stored) + " tensors, the networks have " +
                          std::to_string(entries.size()));
  for (const SnapshotEntry& e : entries) {  // a permutation or rotation is its specification's: its log-volume is 0
    if (!e.info->buffer || !e.info->name.ends_with(".matrix")) continue;
    const auto* start = static_cast<const std::byte*>(e.block->data()) + e.info->offset * dtype_bytes(e.block->dtype());
    std::vector<std::byte> own(static_cast<std::size_t>(e.info->size() * dtype_bytes(e.block->dtype())));
    ops.copy_bytes_to_host(own.data(), start, static_cast<std::int64_t>(own.size()));
    if (own != (*e.tensors)[e.name].bytes)
      throw CheckpointError("tensor '" + e.name + "' is not the map that the specification draws from its seed");
  }
  for (const SnapshotEntry& e : entries) {
    auto* start = static_cast<std::byte*>(e.block->data()) + e.info->offset * dtype_bytes(e.block->dtype());
    auto& bytes = (*e.tensors)[e.name].bytes;
    if (!e.info->order.same()) bytes = in_memory_order(bytes, e.info->order, dtype_bytes(e.block->dtype()));
    ops.copy_bytes_to_device(start, bytes.data(), static_cast<std::int64_t>(bytes.size()));
  }
  StepState state;
  state.step = snapshot.step;
  state.updates[0] = snapshot.energy_updates;
  state.updates[1] = snapshot.generator_updates;
  state.penalty_weight = snapshot.penalty_weight;
  state.gap_average = snapshot.gap_average;
  ops.copy_bytes_to_device(impl_->state, &state, sizeof state);
  impl_->queued = impl_->reported = snapshot.step;
  impl_->table->restart(snapshot.energy_updates);
  impl_->pending.clear();
}

std::vector<double> Trainer::energies(std::span<const double> points, std::int64_t rows, Weights weights) {
  return network_outputs(*impl_->context, impl_->energy.network, energy_parameters(weights), points, rows);
}

std::vector<double> Trainer::samples(std::int64_t count, std::uint64_t seed, Weights weights) {
  const Network& generator = impl_->generator.network;
  const std::int64_t d = generator.input_size();
  const std::int64_t most = std::int64_t{1} << 40;  // values; more fit no machine, and counts stay far from overflow
  if (count < 0 || count > most / generator.output_size())
    throw InvalidArgument("samples: count is " + std::to_string(count) + ", must lie in [0, " +
                          std::to_string(most / generator.output_size()) + "]");
  const std::vector<double> z = normal_values({seed, RandomStream::sampling, 0}, count * d);
  return network_outputs(*impl_->context, impl_->generator.network, generator_parameters(weights), z, count);
}

MemoryPlan Trainer::plan_memory(const TrainerConfig& config, const Dataset& data) {
  Context context({}, std::make_unique<PlanOps>());
  MemoryPlan plan = Impl(context, config, data).memory_plan;
  plan.reserved = context.pool().statistics().bytes_reserved;
  return plan;
}

const MemoryPlan& Trainer::memory_plan() const noexcept { return impl_->memory_plan; }

}  // namespace bracket
