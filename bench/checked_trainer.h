// A trainer in single precision whose first step has been compared with double precision.
#pragma once

#include <memory>

#include "bracket/trainer.h"

namespace bracket::bench {

/// A forward pass through five layers of K <= 128 rounds by up to 5 K u = 4e-5; a residual of the penalty is the
/// difference of two such numbers and enters squared, and a gradient norm carries the second derivatives of all layers:
/// a factor of ten. The longer sums of image networks round at random, and no more (measured: 2e-7).
inline constexpr double kAllowedFirstStepError = 4e-4;

struct CheckedTrainer {
  std::unique_ptr<Trainer> trainer;
  double error = 0;  ///< largest |f32 - f64| of the reported figures, as a share of 1 + |figure|
};

/// One step has been made. `config.dtype` is not looked at. The context must outlive the trainer.
CheckedTrainer checked_trainer(Context& context, TrainerConfig config, const Dataset& data);

}  // namespace bracket::bench
