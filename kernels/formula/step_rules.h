// What happens to the scalars of training (StepState) at each op, on either device. All in double.
//
// A non-finite mark freezes the state: from the op that sets it on, rates, weights, moments, counts and the record keep
// their values, so that the host finds the step that failed as it was.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"
#include "kernels/ops.h"
#include "kernels/step_state.h"

namespace bracket::formula {

inline constexpr double kPi = 3.14159265358979323846;
/// Entropy of a standard normal coordinate, 1/2 log(2 pi e) nats.
inline constexpr double kNormalEntropy = 1.41893853320467274178;

BRACKET_HOST_DEVICE bool frozen(const StepState& state) { return state.nonfinite_tensor != 0; }

/// warm(t) cool(t) of Schedule. A cosine stays at its final value after total_steps.
BRACKET_HOST_DEVICE double rate_factor(const Schedule& schedule, std::int64_t t) {
  double factor = 1;
  if (t + 1 < schedule.warmup_steps) factor = static_cast<double>(t + 1) / static_cast<double>(schedule.warmup_steps);
  if (schedule.cosine && schedule.total_steps > 0) {
    const double progress =
        t < schedule.total_steps ? static_cast<double>(t) / static_cast<double>(schedule.total_steps) : 1.0;
    factor *= schedule.final_fraction + (1 - schedule.final_fraction) * (1 + ::cos(kPi * progress)) / 2;
  }
  return factor;
}

BRACKET_HOST_DEVICE void begin_step(StepState& state, const Schedule& schedule) {
  if (frozen(state)) return;
  const std::int64_t t = state.step;
  const double factor = rate_factor(schedule, t);
  for (int player = 0; player < 2; ++player) {
    state.learning_rate[player] = schedule.base_rate[player] * factor;
    state.clip_scale[player] = 1;
  }
  if (schedule.weight_rule == Schedule::Weight::constant) state.penalty_weight = schedule.weight;
  if (schedule.weight_rule == Schedule::Weight::power) {
    state.penalty_weight =
        schedule.weight * ::pow(schedule.weight_offset + static_cast<double>(t), schedule.weight_exponent);
  }
  state.record = StepRecord{};
  state.record.step = t + 1;
  state.record.penalty_weight = state.penalty_weight;
}

BRACKET_HOST_DEVICE void clip_gradient(StepState& state, double squared_norm, double limit, Player player) {
  if (frozen(state)) return;
  const double norm = square_root(squared_norm);
  state.clip_scale[static_cast<int>(player)] = limit > 0 && norm > limit ? limit / norm : 1.0;
  (player == Player::energy ? state.record.grad_norm_energy : state.record.grad_norm_generator) = norm;
}

BRACKET_HOST_DEVICE void count_update(StepState& state, Player player) {
  if (!frozen(state)) ++state.updates[static_cast<int>(player)];
}

BRACKET_HOST_DEVICE void end_step(StepState& state, StepRecord* ring, std::int64_t ring_size) {
  if (frozen(state)) return;
  ring[state.step % ring_size] = state.record;
  ++state.step;
}

/// One Adam update in the terms of its inner loop (Kingma and Ba, 2015; decoupled decay: Loshchilov and Hutter, 2019):
///   m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,  g = clip_scale * gradient
///   p <- (1 - rate decay) p - rate / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
template <class T>
struct AdamStep {
  bool active;
  T clip;
  T beta1, one_minus_beta1;
  T beta2, one_minus_beta2;
  T keep;          ///< 1 - rate decay
  T rate;          ///< rate / (1 - beta1^t)
  T inverse_root;  ///< 1 / sqrt(1 - beta2^t)
  T epsilon;
};

template <class T>
BRACKET_HOST_DEVICE AdamStep<T> adam_step(const Adam& rule, const StepState& state, Player player) {
  const int p = static_cast<int>(player);
  const auto t = static_cast<double>(state.updates[p] + 1);
  const double rate = state.learning_rate[p];
  AdamStep<T> step;
  step.active = !frozen(state);
  step.clip = static_cast<T>(state.clip_scale[p]);
  step.beta1 = static_cast<T>(rule.beta1);
  step.one_minus_beta1 = static_cast<T>(1 - rule.beta1);
  step.beta2 = static_cast<T>(rule.beta2);
  step.one_minus_beta2 = static_cast<T>(1 - rule.beta2);
  step.keep = static_cast<T>(1 - rate * rule.weight_decay);
  step.rate = static_cast<T>(rate / (1 - ::pow(rule.beta1, t)));
  step.inverse_root = static_cast<T>(1 / square_root(1 - ::pow(rule.beta2, t)));
  step.epsilon = static_cast<T>(rule.epsilon);
  return step;
}

/// Element of an Adam update. With beta1 = 0 the first moment is the gradient itself and `m` may be a scratch value.
template <class T>
BRACKET_HOST_DEVICE void adam_element(const AdamStep<T>& step, T& p, T& m, T& v, T gradient) {
  const T g = step.clip * gradient;
  m = step.beta1 * m + step.one_minus_beta1 * g;
  v = step.beta2 * v + step.one_minus_beta2 * (g * g);
  p = step.keep * p - step.rate * (m / (square_root(v) * step.inverse_root + step.epsilon));
}

/// 1 - d of the moving average of weights; d = min(decay, (t + 1) / (t + 10)). 0 when frozen.
BRACKET_HOST_DEVICE double ema_gain(double decay, const StepState& state) {
  if (frozen(state)) return 0;
  const auto t = static_cast<double>(state.step);
  const double ramp = (t + 1) / (t + 10);
  return 1 - (decay < ramp ? decay : ramp);
}

/// The batch means an energy update is judged by.
struct EnergyMeans {
  double data;     ///< mean e_data
  double samples;  ///< mean e_fake
  double penalty;  ///< P
};

/// Factor of the penalty's seeds: w where the hinge is open (w P > threshold), else 0. A NaN penalty keeps it open.
BRACKET_HOST_DEVICE double open_weight(double weight, double penalty, const PenaltyRule& rule) {
  return weight * penalty <= rule.threshold ? 0.0 : weight;
}

BRACKET_HOST_DEVICE void record_energy_loss(StepState& state, const EnergyMeans& means, const PenaltyRule& rule) {
  if (frozen(state)) return;
  const double w = state.penalty_weight;
  const double excess = w * means.penalty - rule.threshold;
  StepRecord& record = state.record;
  record.energy_data = means.data;
  record.energy_samples = means.samples;
  record.penalty = means.penalty;
  record.penalty_weight = w;
  record.loss_energy = means.data - means.samples + (excess <= 0 ? 0.0 : excess);
}

BRACKET_HOST_DEVICE void record_generator_loss(StepState& state, double mean_e_fake, double mean_h,
                                               double entropy_weight) {
  if (!frozen(state)) state.record.loss_generator = mean_e_fake - entropy_weight * mean_h;
}

/// The mean of e_fake at the same latents as h goes into the bound, so that both ends of the pair share their noise.
BRACKET_HOST_DEVICE void record_bound(StepState& state, double mean_e_fake, double mean_h, double variance,
                                      std::int64_t latent_size) {
  if (frozen(state)) return;
  StepRecord& record = state.record;
  record.log_volume = mean_h;
  record.lower_bound = record.energy_data - mean_e_fake + static_cast<double>(latent_size) * kNormalEntropy + mean_h;
  record.half_variance = variance / 2;
}

/// A half_variance that is not a number counts as the cap of 10.
BRACKET_HOST_DEVICE void adapt_penalty_weight(StepState& state, const WeightController& rule) {
  if (frozen(state)) return;
  constexpr double kGapCap = 10;
  const double gap = state.record.half_variance < kGapCap ? state.record.half_variance : kGapCap;
  state.gap_average = rule.decay * state.gap_average + (1 - rule.decay) * gap;
  if (state.step < rule.delay) return;
  const double distance = ::log(state.gap_average / rule.target);
  const double bounded = distance < -2 ? -2.0 : (distance > 2 ? 2.0 : distance);
  const double w = state.penalty_weight * ::exp(rule.gain * bounded);
  state.penalty_weight = w < rule.minimum ? rule.minimum : (w > rule.maximum ? rule.maximum : w);
}

}  // namespace bracket::formula
