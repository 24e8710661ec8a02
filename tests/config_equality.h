// Member-wise equality of configurations, and the check of refusals, for the tests of both.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "bracket/error.h"
#include "bracket/trainer.h"

namespace bracket {

// Every member of every structure: a new member makes these bindings fail to compile until the tests know it.
inline auto members(const LinearSpec& s) {
  const auto& [features, bias, spectral_norm, weight_gain, bias_bound, identity_start] = s;
  return std::tie(features, bias, spectral_norm, weight_gain, bias_bound, identity_start);
}
inline auto members(const ActivationSpec& s) {
  const auto& [function, negative_slope, initial_slope] = s;
  return std::tie(function, negative_slope, initial_slope);
}
inline auto members(const BatchNormSpec& s) {
  const auto& [momentum, epsilon, deviation] = s;
  return std::tie(momentum, epsilon, deviation);
}
inline auto members(const Conv2dSpec& s) {
  const auto& [channels, kernel, stride, padding, bias, spectral_norm, deviation] = s;
  return std::tie(channels, kernel, stride, padding, bias, spectral_norm, deviation);
}
inline auto members(const ConvTranspose2dSpec& s) {
  const auto& [channels, kernel, stride, padding, output_padding, bias, spectral_norm, deviation] = s;
  return std::tie(channels, kernel, stride, padding, output_padding, bias, spectral_norm, deviation);
}
inline auto members(const AveragePoolSpec& s) {
  const auto& [window] = s;
  return std::tie(window);
}
inline auto members(const SumPoolSpec& s) {
  const auto& [window] = s;
  return std::tie(window);
}
inline auto members(const MaxPoolSpec& s) {
  const auto& [window] = s;
  return std::tie(window);
}
inline auto members(const UpsampleSpec& s) {
  const auto& [factor] = s;
  return std::tie(factor);
}
inline auto members(const FlattenSpec&) { return std::tuple<>(); }
inline auto members(const UnflattenSpec& s) {
  const auto& [channels, height, width] = s;
  return std::tie(channels, height, width);
}
inline auto members(const ResidualSpec& s) {
  const auto& [body, skip] = s;
  return std::tie(body, skip);
}
inline auto members(const AffineSpec& s) {
  const auto& [scale, shift] = s;
  return std::tie(scale, shift);
}
inline auto members(const FourierFeaturesSpec& s) {
  const auto& [frequencies, deviation] = s;
  return std::tie(frequencies, deviation);
}
inline auto members(const MonotoneCouplingSpec& s) {
  const auto& [active_first, active_count, knots, hidden, max_slope, max_height] = s;
  return std::tie(active_first, active_count, knots, hidden, max_slope, max_height);
}
inline auto members(const RationalQuadraticCouplingSpec& s) {
  const auto& [active_first, active_count, bins, hidden, bound, min_width, min_height, min_derivative] = s;
  return std::tie(active_first, active_count, bins, hidden, bound, min_width, min_height, min_derivative);
}
inline auto members(const PermutationSpec& s) {
  const auto& [random, seed] = s;
  return std::tie(random, seed);
}
inline auto members(const RotationSpec& s) {
  const auto& [seed] = s;
  return std::tie(seed);
}
inline auto members(const ConfinementSpec& s) {
  const auto& [input_layer, quadratic, wall, radius] = s;
  return std::tie(input_layer, quadratic, wall, radius);
}
inline auto members(const OptimizerConfig& c) {
  const auto& [lr, beta1, beta2, epsilon, weight_decay, clip_norm] = c;
  return std::tie(lr, beta1, beta2, epsilon, weight_decay, clip_norm);
}
inline auto members(const NetworkMath& c) {
  const auto& [passes, jacobian] = c;
  return std::tie(passes, jacobian);
}
inline auto members(const PenaltyConfig& c) {
  const auto& [kind, rule, weight, threshold, offset, exponent, target, minimum, maximum, gain, decay, delay] = c;
  return std::tie(kind, rule, weight, threshold, offset, exponent, target, minimum, maximum, gain, decay, delay);
}
inline auto members(const ScheduleConfig& c) {
  const auto& [cosine, warmup_steps, final_fraction] = c;
  return std::tie(cosine, warmup_steps, final_fraction);
}
inline auto members(const EntropyConfig& c) {
  const auto& [estimator, iterations, warm_start, chunk] = c;
  return std::tie(estimator, iterations, warm_start, chunk);
}
inline auto members(const DataConfig& c) {
  const auto& [flip, dequantise, device_bytes] = c;
  return std::tie(flip, dequantise, device_bytes);
}
inline auto members(const TrainerConfig& c) {
  const auto& [energy, generator, penalty, schedule, data, entropy, entropy_weight, entropy_reuse, ema_decay,
               batch_size, energy_steps, total_steps, seed, dtype] = c;
  return std::tie(energy, generator, penalty, schedule, data, entropy, entropy_weight, entropy_reuse, ema_decay,
                  batch_size, energy_steps, total_steps, seed, dtype);
}

#define BRACKET_TEST_EQUAL(Type) \
  inline bool operator==(const Type& a, const Type& b) { return members(a) == members(b); }
BRACKET_TEST_EQUAL(LinearSpec)
BRACKET_TEST_EQUAL(ActivationSpec)
BRACKET_TEST_EQUAL(BatchNormSpec)
BRACKET_TEST_EQUAL(AffineSpec)
BRACKET_TEST_EQUAL(FourierFeaturesSpec)
BRACKET_TEST_EQUAL(MonotoneCouplingSpec)
BRACKET_TEST_EQUAL(RationalQuadraticCouplingSpec)
BRACKET_TEST_EQUAL(PermutationSpec)
BRACKET_TEST_EQUAL(RotationSpec)
BRACKET_TEST_EQUAL(ConfinementSpec)
BRACKET_TEST_EQUAL(Conv2dSpec)
BRACKET_TEST_EQUAL(ConvTranspose2dSpec)
BRACKET_TEST_EQUAL(AveragePoolSpec)
BRACKET_TEST_EQUAL(SumPoolSpec)
BRACKET_TEST_EQUAL(MaxPoolSpec)
BRACKET_TEST_EQUAL(UpsampleSpec)
BRACKET_TEST_EQUAL(FlattenSpec)
BRACKET_TEST_EQUAL(UnflattenSpec)
inline bool operator==(const ResidualSpec& a, const ResidualSpec& b);
inline bool operator==(const LayerSpec& a, const LayerSpec& b) {
  return static_cast<const AnyLayerSpec&>(a) == static_cast<const AnyLayerSpec&>(b);
}
inline bool operator==(const ResidualSpec& a, const ResidualSpec& b) { return members(a) == members(b); }
BRACKET_TEST_EQUAL(OptimizerConfig)
BRACKET_TEST_EQUAL(NetworkMath)
BRACKET_TEST_EQUAL(PenaltyConfig)
BRACKET_TEST_EQUAL(ScheduleConfig)
BRACKET_TEST_EQUAL(DataConfig)
BRACKET_TEST_EQUAL(EntropyConfig)
inline bool operator==(const NetworkSpec& a, const NetworkSpec& b) {
  return a.input_size == b.input_size && a.layers == b.layers && a.image == b.image;
}
inline bool operator==(const PlayerConfig& a, const PlayerConfig& b) {
  return a.network == b.network && a.optimizer == b.optimizer && a.math == b.math;
}
BRACKET_TEST_EQUAL(TrainerConfig)
#undef BRACKET_TEST_EQUAL

/// `action` must throw InvalidArgument with a text of one line that holds every one of `parts`.
inline void expect_refused(const std::function<void()>& action, const std::vector<std::string>& parts) {
  try {
    action();
    ADD_FAILURE() << "accepted, expected: " << ::testing::PrintToString(parts);
  } catch (const InvalidArgument& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in: " << text;
  }
}

}  // namespace bracket
