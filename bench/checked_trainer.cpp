#include "bench/checked_trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace bracket::bench {
namespace {

double worst_error(const StepRecord& actual, const StepRecord& expected) {
  constexpr std::array kFigures = {
      &StepRecord::energy_data,         &StepRecord::energy_samples, &StepRecord::log_volume,
      &StepRecord::lower_bound,         &StepRecord::penalty,        &StepRecord::loss_energy,
      &StepRecord::loss_generator,      &StepRecord::half_variance,  &StepRecord::grad_norm_energy,
      &StepRecord::grad_norm_generator, &StepRecord::penalty_weight,
  };
  double worst = 0;
  for (const auto figure : kFigures) {
    const double error = std::abs(actual.*figure - expected.*figure) / (1 + std::abs(expected.*figure));
    worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

StepRecord first_step(Trainer& trainer) {
  trainer.run(1);
  return trainer.reports().front();
}

}  // namespace

double allowed_first_step_error(MathMode math) {
  if (math == MathMode::tf32) return 60 * std::ldexp(1, -11);
  if (math == MathMode::bf16) return 60 * std::ldexp(1, -8);
  return kAllowedFirstStepError;
}

StepRecord first_step_in_double(TrainerConfig config, const Dataset& data) {
  config.dtype = DType::f64;
  config.energy.execution = config.generator.execution = {false, false, false};
  config.energy.math = config.generator.math = {};
  Context context;
  Trainer trainer(context, config, data);
  return first_step(trainer);
}

double replay_error(Trainer& replaying, Context& launching, const Dataset& data, std::int64_t steps) {
  Trainer launched(launching, replaying.config(), data);
  launched.run(1 + steps);
  replaying.run(steps);
  const std::vector<StepRecord> expected = launched.reports(), actual = replaying.reports();
  double worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) worst = std::max(worst, worst_error(actual[i], expected[i + 1]));
  return worst;
}

CheckedTrainer checked_trainer(Context& context, TrainerConfig config, const Dataset& data,
                               const StepRecord* expected) {
  CheckedTrainer checked;
  config.dtype = DType::f32;
  checked.trainer = std::make_unique<Trainer>(context, config, data);
  const StepRecord actual = first_step(*checked.trainer);
  checked.error = worst_error(actual, expected != nullptr ? *expected : first_step_in_double(config, data));
  return checked;
}

}  // namespace bracket::bench
