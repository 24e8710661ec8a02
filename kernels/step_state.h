// The scalars of training that change from step to step. They live in device memory from the first step to the last;
// ops take pointers to them, so that a step needs no host read and can be captured whole.
#pragma once

#include <cstdint>

#include "bracket/metrics.h"

namespace bracket {

/// Which network an update belongs to.
enum class Player : std::int32_t { energy = 0, generator = 1 };

struct StepState {
  std::int64_t step = 0;             ///< completed training steps
  std::int64_t updates[2] = {0, 0};  ///< completed optimizer updates, by Player
  double learning_rate[2] = {0, 0};  ///< of the current step, by Player; written by `begin_step`
  double clip_scale[2] = {1, 1};     ///< factor on the gradient, by Player; written by `clip_gradient`
  double penalty_weight = 0;         ///< w; written by `begin_step` (schedules) or `adapt_penalty_weight`
  double gap_average = 0;            ///< moving average of 1/2 Var(phi) behind the trust region
  std::int64_t nonfinite_tensor = 0;   ///< 0: all finite so far; else the tag of the first tensor that was not
  std::int64_t nonfinite_element = 0;  ///< lowest offending element of that tensor
  StepRecord record;                   ///< of the step in progress
};

/// Learning rate and penalty weight as functions of the step count t = 0, 1, ... of a run of `total_steps`.
///   rate(t)  = base * warm(t) * cool(t);  warm(t) = min(1, (t + 1) / warmup_steps)
///   cool(t)  = 1 (constant) or final_fraction + (1 - final_fraction) (1 + cos(pi t / total_steps)) / 2 (cosine)
struct Schedule {
  double base_rate[2] = {0, 0};  ///< by Player
  std::int64_t total_steps = 0;
  std::int64_t warmup_steps = 0;
  bool cosine = false;
  double final_fraction = 0;
  /// constant: w = weight. power: w = weight (offset + t)^exponent. adaptive: left to `adapt_penalty_weight`.
  enum class Weight : std::int32_t { constant, power, adaptive } weight_rule = Weight::constant;
  double weight = 0;
  double weight_offset = 0;
  double weight_exponent = 0;
};

/// Trust region on KL(p_g || p): g <- decay g + (1 - decay) min(half_variance, 10);
/// w <- clamp(w exp(gain clamp(log(g / target), -2, 2)), minimum, maximum) from step `delay` on.
struct WeightController {
  double target = 0;
  double gain = 0;
  double decay = 0;
  double minimum = 0;
  double maximum = 0;
  std::int64_t delay = 0;
};

}  // namespace bracket
