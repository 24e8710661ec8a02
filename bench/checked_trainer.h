// A trainer in single precision whose first step has been compared with double precision.
#pragma once

#include <memory>

#include "bracket/trainer.h"

namespace bracket::bench {

struct CheckedTrainer {
  std::unique_ptr<Trainer> trainer;
  double error = 0;    ///< largest |f32 - f64| of the reported figures, as a share of 1 + |figure|
  double allowed = 0;  ///< what roundings of networks of these kinds add up to
};

/// One step has been made. `config.dtype` is not looked at. The context must outlive the trainer.
CheckedTrainer checked_trainer(Context& context, TrainerConfig config, const Dataset& data);

}  // namespace bracket::bench
