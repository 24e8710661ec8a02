// One network in training: its structure, and all its blocks in one piece of device memory.
#pragma once

#include "bracket/device.h"
#include "bracket/memory.h"
#include "bracket/network.h"
#include "bracket/trainer.h"
#include "kernels/ops.h"

namespace bracket {

struct PlayerBlocks {
  PlayerBlocks(Context& context, const PlayerConfig& config, DType dtype, Player player);

  /// Starting values, zeroed gradient and moments, average = raw.
  void initialize(Ops& ops, std::uint64_t seed);
  /// Clips, moves the parameters by the gradient and counts the update.
  void update(Ops& ops, Arena& arena, StepState* state);
  /// Average parameters follow; buffers are copied.
  void average_weights(Ops& ops, double decay, const StepState* state);
  /// Name of the parameter that holds `element` of a flat block.
  std::string parameter_at(std::int64_t element) const;

  Player player;
  OptimizerConfig optimizer;
  Network network;
  Buffer memory;
  ParameterSet raw, average;
  Tensor gradient, first_moment, second_moment;  // first_moment is absent when beta1 = 0
};

/// Tags of Ops::finite_check, and what a report calls them.
enum class CheckedTensor : std::int64_t {
  energy_output = 1,
  energy_gradient = 2,
  generated_energy = 3,
  generator_gradient = 4,
};

}  // namespace bracket
