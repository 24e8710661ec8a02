// Small training configurations and what comes of them.
#pragma once

#include <cstddef>
#include <vector>

#include "bracket/trainer.h"
#include "tests/network_fixture.h"

namespace bracket::test {

inline TrainerConfig small_config() {
  LinearSpec hidden{12};
  TrainerConfig c;
  c.energy.network = {2, {hidden, ActivationSpec{Activation::silu}, LinearSpec{1}, ConfinementSpec{-1, 1, 0, 0}}};
  c.generator.network = {2, {LinearSpec{2}, MonotoneCouplingSpec{1, 1, 3, {6}, 3, 2}, LinearSpec{2}}};
  c.batch_size = 37;
  c.total_steps = 100;
  c.schedule.warmup_steps = 5;
  c.penalty.rule = PenaltyConfig::Rule::controller;
  c.penalty.weight = 0.1;
  c.penalty.delay = 2;
  c.seed = 3;
  return c;
}

// What the paper's recipes use: spectral norm, BatchNorm, PReLU, beta1 = 0, a power rule, the smallest singular value.
inline TrainerConfig normalised_config() {
  LinearSpec normalised{9}, scalar{1};
  normalised.spectral_norm = scalar.spectral_norm = true;
  const ActivationSpec prelu{Activation::prelu};
  TrainerConfig c;
  c.energy.network = {2, {normalised, prelu, scalar, LinearSpec{1, false}}};
  c.generator.network = {2, {LinearSpec{7}, prelu, BatchNormSpec{}, LinearSpec{2}}};
  c.energy.optimizer.beta1 = c.generator.optimizer.beta1 = 0;
  c.penalty.rule = PenaltyConfig::Rule::power;
  c.penalty.weight = 0.7;
  c.penalty.offset = 2307;
  c.penalty.exponent = -0.55;
  c.entropy.estimator = EntropyEstimator::min_singular;
  c.schedule.cosine = false;
  c.batch_size = 21;
  c.total_steps = 100;
  c.seed = 5;
  return c;
}

// Image recipes: a singular value estimated from where the last batch ended, once per step.
inline TrainerConfig estimated_config() {
  TrainerConfig c = normalised_config();
  c.energy.network.input_size = 3;
  c.generator.network.layers.back() = LinearSpec{3};
  c.entropy = {EntropyEstimator::lobpcg, 1, true};
  c.entropy_reuse = true;
  c.energy_steps = 2;
  return c;
}

inline Dataset small_table() {
  const HostMatrix rows = random_matrix(101, 2, 8, -2, 2);
  return Dataset::from_rows(rows.values, rows.rows, rows.cols);
}

inline Dataset table_for(const TrainerConfig& config) {
  const HostMatrix rows = random_matrix(101, config.energy.network.input_size, 8, -2, 2);
  return Dataset::from_rows(rows.values, rows.rows, rows.cols);
}

inline std::vector<std::byte> bytes_of(const TrainerSnapshot& s) {
  std::vector<std::byte> all;
  for (const auto* tensors : {&s.energy, &s.generator, &s.energy_average, &s.generator_average, &s.optimizer}) {
    for (const auto& [name, tensor] : *tensors) all.insert(all.end(), tensor.bytes.begin(), tensor.bytes.end());
  }
  return all;
}

}  // namespace bracket::test
