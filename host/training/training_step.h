// One training step, top to bottom: the same code runs on a device and, to plan memory, on PlanOps.
#pragma once

#include <cstdint>
#include <functional>
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
  Tensor direction;  ///< [batch, d]: where lobpcg goes on from the batch before; absent without a warm start
  std::function<void(const char*)> phase_done = {};  ///< told the name of every part of the step once it is queued

  void run(Ops& ops, Arena& arena);

 private:
  /// `number`: of this update within the step. `volume` [batch], where present, receives the log-volumes, and the
  /// generator's gradient that of the entropy term.
  void energy_update(Ops& ops, Arena& arena, std::int64_t number, Tensor volume);
  /// `volume`: what the last energy update left there, or absent: the generator makes its own estimate.
  void generator_update(Ops& ops, Arena& arena, Tensor volume);
  void estimate_entropy(Ops& ops, Arena& arena, Tensor z, RandomStream stream, const std::int64_t* counter);
  void done(const char* phase) const {
    if (phase_done) phase_done(phase);
  }
  double entropy_factor() const { return -config.entropy_weight / static_cast<double>(config.batch_size); }
  void bidirectional_gradient(Ops& ops, Arena& arena, Tensor x, Tensor fake, Tensor z);
  void zero_gp_gradient(Ops& ops, Arena& arena, Tensor x, Tensor fake, Tensor z);
};

}  // namespace bracket
