// A trainer in single precision whose first step has been compared with double precision.
#pragma once

#include <memory>

#include "bracket/trainer.h"

namespace bracket::bench {

/// A forward pass through five layers of K <= 128 rounds by up to 5 K u = 4e-5; a residual of the penalty is the
/// difference of two such numbers and enters squared, and a gradient norm carries the second derivatives of all layers:
/// a factor of ten. The longer sums of image networks round at random, and no more (measured: 2e-7).
inline constexpr double kAllowedFirstStepError = 4e-4;

/// The same by math mode. Operands of b significant bits make a sum of products of random sign wrong by 0.6 2^-b of it,
/// whatever its length; ten products one behind the other, forward and reverse, by 2 2^-b, and figures that are squares
/// and second derivatives by ten times that. Three standard deviations: 60 2^-b, 0.03 for tf32 and 0.23 for bf16.
double allowed_first_step_error(MathMode math);

struct CheckedTrainer {
  std::unique_ptr<Trainer> trainer;
  double error = 0;  ///< largest |f32 - f64| of the reported figures, as a share of 1 + |figure|
};

/// The first step of `config` in double on the CPU, layer by layer. Its dtype, execution and math are not looked at.
StepRecord first_step_in_double(TrainerConfig config, const Dataset& data);

/// One step has been made. `config.dtype` is not looked at. The context must outlive the trainer. `expected`: what
/// first_step_in_double gave for it before.
CheckedTrainer checked_trainer(Context& context, TrainerConfig config, const Dataset& data,
                               const StepRecord* expected = nullptr);

/// Steps of a trainer that has made one, as its context replays them, against the same steps launched one by one: the
/// largest difference of their figures as in CheckedTrainer::error. Both contexts are of one device; `launching` has
/// neither graphs nor one kernel.
double replay_error(Trainer& replaying, Context& launching, const Dataset& data, std::int64_t steps);

}  // namespace bracket::bench
