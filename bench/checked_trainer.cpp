#include "bench/checked_trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace bracket::bench {
namespace {

// A forward pass through five layers of K <= 128 rounds by up to 5 K u = 4e-5; a residual of the penalty is the
// difference of two such numbers and enters squared, and a gradient norm carries the second derivatives of all layers: a
// factor of ten. There are twelve convolutions of K <= 8192 on the way through both image networks, and roundings are
// random in sign: 12 K^1/2 u = 7e-5, and the same factor.
constexpr double kAllowed = 4e-4;
constexpr double kAllowedOfImages = 7e-4;

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

CheckedTrainer checked_trainer(Context& context, TrainerConfig config, const Dataset& data) {
  CheckedTrainer checked;
  checked.allowed = data.is_images() ? kAllowedOfImages : kAllowed;
  config.dtype = DType::f32;
  checked.trainer = std::make_unique<Trainer>(context, config, data);
  const StepRecord actual = first_step(*checked.trainer);

  config.dtype = DType::f64;
  Context oracle_context;
  Trainer oracle(oracle_context, config, data);
  checked.error = worst_error(actual, first_step(oracle));
  return checked;
}

}  // namespace bracket::bench
