// Losses, their seeds and the record of a step; formulas in kernels/formula/step_rules.h.
//   energy_loss     three means over n energies, the hinge, three seeds, the record
//   generator_loss  two means;  bound_record  three means and a variance (two passes, so that it does not cancel)
//
// Shapes        e_*, h, score_dot, seed_* [n]; latent [n, d].
// Bytes         energy_loss reads 4 n (twice what the residual needs) and writes 3 n; bound_record reads n (d + 2)
//               twice. A batch is a few hundred energies: one block, bound by latency.
// Alignment     that of the element; no output may alias an input.
// Determinism   one block; thread t sums terms t, t + kThreads, ... in f64, then a fixed tree.
//
// | variant | idea                 | time                      |
// | plain   | one block of 256     | not yet measured on a GPU |
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/formula/step_rules.h"

namespace bracket::BRACKET_TARGET::losses_kernels {

// A batch of 128 to 256 is one element a thread; larger ones loop.
constexpr int kThreads = 256;

// ---- device functions -----------------------------------------------------------------------------------------------

template <class T>
BRACKET_DEVICE double number(const DeviceMatrix<T>& column, std::int64_t i) {
  return static_cast<double>(*column.row(i));
}

/// Mean of term(0), .., term(n - 1); every thread receives it.
template <class Term>
BRACKET_DEVICE double block_mean(std::int64_t n, Term term) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) sum += term(i);
  return block_sum<double, kThreads>(sum) / static_cast<double>(n);
}

template <class T>
BRACKET_DEVICE double half_squared_norm(const DeviceMatrix<T>& z, std::int64_t i) {
  double sum = 0;
  for (std::int64_t j = 0; j < z.cols; ++j) sum += static_cast<double>(z.row(i)[j]) * static_cast<double>(z.row(i)[j]);
  return sum / 2;
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
struct EnergyLossArguments {
  DeviceMatrix<T> seed_data, seed_fake, seed_tangent;
  DeviceMatrix<T> e_data, e_fake, e_tangent, score_dot;
  PenaltyRule rule;
};

template <class T>
struct EnergyLossBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  StepState* state;
  EnergyLossArguments<T> a;

  BRACKET_DEVICE void operator()(const Block&) const {
    const std::int64_t n = a.e_data.rows;
    const auto residual = [&](std::int64_t i) { return number(a.e_tangent, i) - number(a.score_dot, i); };
    const double mean_data = block_mean(n, [&](std::int64_t i) { return number(a.e_data, i); });
    const double mean_fake = block_mean(n, [&](std::int64_t i) { return number(a.e_fake, i); });
    const double penalty = a.rule.data_gradient
                               ? block_mean(n, [&](std::int64_t i) { return number(a.e_tangent, i); })
                               : block_mean(n, [&](std::int64_t i) { return residual(i) * residual(i); }) / 2;
    const double inverse_n = 1 / static_cast<double>(n);
    const double w = formula::open_weight(state->penalty_weight, penalty, a.rule);
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      const double seed = a.rule.data_gradient ? 2 * w * inverse_n : w * residual(i) * inverse_n;
      *a.seed_tangent.row(i) = static_cast<T>(seed);
      *a.seed_data.row(i) = static_cast<T>(inverse_n);
      *a.seed_fake.row(i) = static_cast<T>(-inverse_n);
    }
    // The record is not what the other threads read (penalty_weight and the mark stay), so no barrier is needed.
    if (threadIdx.x == 0) formula::record_energy_loss(*state, {mean_data, mean_fake, penalty}, a.rule);
  }
};

template <class T>
struct GeneratorLossBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  StepState* state;
  DeviceMatrix<T> e_fake, h;
  double entropy_weight;

  BRACKET_DEVICE void operator()(const Block&) const {
    const double mean_e_fake = block_mean(e_fake.rows, [&](std::int64_t i) { return number(e_fake, i); });
    const double mean_h = block_mean(e_fake.rows, [&](std::int64_t i) { return number(h, i); });
    if (threadIdx.x == 0) formula::record_generator_loss(*state, mean_e_fake, mean_h, entropy_weight);
  }
};

template <class T>
struct BoundRecordBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  StepState* state;
  DeviceMatrix<T> e_fake, h, latent;

  BRACKET_DEVICE void operator()(const Block&) const {
    const std::int64_t n = e_fake.rows;
    // phi = e - |z|^2/2 - h; the constant d/2 log(2 pi) of log p_g does not change a variance.
    const auto phi = [&](std::int64_t i) { return number(e_fake, i) - half_squared_norm(latent, i) - number(h, i); };
    const double mean_e_fake = block_mean(n, [&](std::int64_t i) { return number(e_fake, i); });
    const double mean_h = block_mean(n, [&](std::int64_t i) { return number(h, i); });
    const double mean_phi = block_mean(n, phi);
    const double variance = block_mean(n, [&](std::int64_t i) {
      const double deviation = phi(i) - mean_phi;
      return deviation * deviation;
    });
    if (threadIdx.x == 0) formula::record_bound(*state, mean_e_fake, mean_h, variance, latent.cols);
  }
};

struct AdaptPenaltyWeightBody {
  static constexpr int kBlockThreads = 1;

  StepState* state;
  WeightController rule;

  BRACKET_DEVICE void operator()(const Block&) const { formula::adapt_penalty_weight(*state, rule); }
};

}  // namespace bracket::BRACKET_TARGET::losses_kernels
