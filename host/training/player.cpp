#include "host/training/player.h"

#include <algorithm>

namespace bracket {
namespace {

std::int64_t round_up(std::int64_t bytes) {
  return (bytes + kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment;
}

}  // namespace

PlayerBlocks::PlayerBlocks(Context& context, const PlayerConfig& config, DType dtype, Player which)
    : player(which), optimizer(config.optimizer), network(config.network, dtype, config.execution) {
  network.set_math(config.math);
  const std::int64_t values = network.value_elements(), buffers = network.buffer_elements();
  struct Part {
    Tensor* tensor;
    std::int64_t elements;
  };
  std::vector<Part> parts = {{&raw.values, values},       {&raw.buffers, buffers}, {&average.values, values},
                             {&average.buffers, buffers}, {&gradient, values},     {&second_moment, values}};
  if (optimizer.beta1 != 0) parts.push_back({&first_moment, values});
  std::int64_t bytes = 0;
  for (const Part& part : parts) bytes += round_up(part.elements * dtype_bytes(dtype));
  memory = context.pool().allocate(bytes);
  auto* next = static_cast<std::byte*>(memory.data());
  for (const Part& part : parts) {
    *part.tensor = Tensor(next, dtype, {part.elements});
    next += round_up(part.elements * dtype_bytes(dtype));
  }
}

void PlayerBlocks::initialize(Ops& ops, std::uint64_t seed) {
  ops.fill_bytes(memory.data(), 0, memory.bytes());
  network.initialize(ops, raw, seed,
                     player == Player::energy ? RandomStream::energy_init : RandomStream::generator_init);
  ops.copy(average.values, raw.values);
  ops.copy(average.buffers, raw.buffers);
}

void PlayerBlocks::update(Ops& ops, Arena& arena, StepState* state) {
  const std::int64_t mark = arena.mark();
  const Tensor workspace = arena.allocate(DType::f64, {kReductionWorkspace});
  const Tensor norm = arena.allocate(DType::f64, {1});
  const CheckedTensor tag =
      player == Player::energy ? CheckedTensor::energy_gradient : CheckedTensor::generator_gradient;
  ops.finite_check(state, gradient, static_cast<std::int64_t>(tag), workspace);
  ops.squared_norm(norm, gradient, workspace);
  ops.clip_gradient(state, norm, optimizer.clip_norm, player);
  const Adam rule{optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.weight_decay};
  ops.adam(raw.values, first_moment, second_moment, gradient, rule, state, player);
  ops.count_update(state, player);
  arena.rewind(mark);
}

void PlayerBlocks::average_weights(Ops& ops, double decay, const StepState* state) {
  ops.ema(average.values, raw.values, decay, state);
  ops.copy(average.buffers, raw.buffers);
}

std::string PlayerBlocks::parameter_at(std::int64_t element) const {
  for (const ParameterInfo& info : network.parameters())
    if (!info.buffer && element >= info.offset && element < info.offset + info.size())
      return info.name + "[" + std::to_string(info.order.file_element(element - info.offset)) + "]";
  return "element " + std::to_string(element);
}

}  // namespace bracket
