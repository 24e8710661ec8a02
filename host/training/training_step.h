// One training step, top to bottom: the same code runs on a device and, to plan memory, on PlanOps.
#pragma once

#include <cstdint>
#include <optional>

#include "bracket/entropy.h"
#include "bracket/trainer.h"
#include "host/training/player.h"
#include "kernels/ops.h"

namespace bracket {

/// Where batches come from: a named density, or a table on the device.
struct BatchSource {
  std::optional<ToyData> density;
  Tensor table;  ///< every row; streamed: those of this step's batches, one after the other
  bool streamed = false;
  std::optional<ImageTransform> images;  ///< the table holds pixels (u8)
};

/// Bookkeeping of passes, kept between steps.
struct StepPasses {
  EntropyPass entropy;
  PrimalPass generated, energy;
  TangentPass energy_tangent;
};

struct TrainingStep {
  const TrainerConfig& config;
  PlayerBlocks& energy;
  PlayerBlocks& generator;
  const BatchSource& source;
  StepState* state;
  StepRecord* ring;
  std::int64_t ring_size;
  StepPasses& passes;

  void run(Ops& ops, Arena& arena);

 private:
  void energy_update(Ops& ops, Arena& arena, std::int64_t number);
  void generator_update(Ops& ops, Arena& arena);
  void bidirectional_gradient(Ops& ops, Arena& arena, Tensor x, Tensor fake, Tensor z);
  void zero_gp_gradient(Ops& ops, Arena& arena, Tensor x, Tensor fake, Tensor z);
};

}  // namespace bracket
