// What training reports.
#pragma once

#include <cstdint>

namespace bracket {

/// One training step. Energies, bounds and losses in nats per sample; gradient norms are before clipping.
struct StepRecord {
  std::int64_t step = 0;      ///< counted from 1
  double energy_data = 0;     ///< mean E(x)
  double energy_samples = 0;  ///< mean E(G(z))
  double log_volume = 0;      ///< mean h(z), or of the estimator's bound on it
  double lower_bound = 0;     ///< energy_data - mean E(G(z)) + d/2 log(2 pi e) + log_volume, G in inference mode
  double penalty = 0;         ///< P: half the mean squared residual, or the zero-GP penalty
  double loss_energy = 0;
  double loss_generator = 0;
  double grad_norm_energy = 0;
  double grad_norm_generator = 0;
  double penalty_weight = 0;  ///< w used in this step
  double half_variance = 0;   ///< 1/2 Var(E(G(z)) + log p_g) over the batch: the trust region's gap estimate
};

}  // namespace bracket
