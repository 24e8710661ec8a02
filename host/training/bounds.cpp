#include "bracket/bounds.h"

#include <cmath>
#include <numbers>
#include <string>

#include "bracket/error.h"

namespace bracket {

double normal_entropy(std::int64_t d) {
  return 0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi * std::numbers::e);
}

double lower_bound(double energy_data, double energy_samples, double log_volume, std::int64_t d) {
  return energy_data - energy_samples + normal_entropy(d) + log_volume;
}

double upper_bound(double lower_bound, double penalty, double log_sobolev_constant) {
  if (!(log_sobolev_constant > 0))
    throw InvalidArgument("upper_bound: the log-Sobolev constant is " + std::to_string(log_sobolev_constant) +
                          ", must be positive; without a proof of one, report upper_estimate");
  if (!(penalty >= 0))
    throw InvalidArgument("upper_bound: the penalty is " + std::to_string(penalty) + ", must not be negative");
  return lower_bound + penalty / log_sobolev_constant;
}

double upper_estimate(double lower_bound, double variance_phi) { return lower_bound + 0.5 * variance_phi; }

}  // namespace bracket
