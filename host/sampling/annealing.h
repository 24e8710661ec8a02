// What the pilot of annealed importance sampling and its measured chains share.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bracket/annealed_importance.h"
#include "host/sampling/hamiltonian.h"

namespace bracket {

/// A potential in the coordinates u = C^-1 (x - mean) of a base, less log |det C|, so that its Z is that of x. States
/// are f64 on the device, the function is called on the host. Rows that are not finite have potential NaN, and NaN
/// gradients count as zero (such a proposal is refused).
class WhitenedPotential final : public ChainPotential {
 public:
  /// Throws InvalidArgument for a base whose sizes disagree or whose factor is not what GaussianBase says.
  WhitenedPotential(const GaussianBase& base, const PotentialFunction& target);

  DType dtype() const override { return DType::f64; }
  std::int64_t dimension() const override { return static_cast<std::int64_t>(base_.mean.size()); }
  void evaluate(Ops& ops, Arena& arena, std::vector<double>& values, const Tensor& gradient,
                const Tensor& states) const override;

  std::vector<double> points(std::span<const double> u) const;       ///< mean + C u
  std::vector<double> coordinates(std::span<const double> x) const;  ///< C^-1 (x - mean)

  double log_determinant() const noexcept { return log_determinant_; }  ///< log |det C|

 private:
  bool diagonal() const { return base_.factor.size() == base_.mean.size(); }

  const GaussianBase& base_;
  const PotentialFunction& target_;
  double log_determinant_ = 0;
};

/// Which random numbers of a seed: sample_mala takes the first 2^46 steps of a stream, every phase 2^45 behind them.
enum class AnnealingPhase : std::uint64_t { pilot = 2, forward = 3, back = 4, target = 5 };
inline std::uint64_t annealing_step(AnnealingPhase phase, std::int64_t step) {
  return (static_cast<std::uint64_t>(phase) << 45) + static_cast<std::uint64_t>(step);
}

/// log f_1 - log f_0 of every chain. Throws Diverged for a potential that is NaN or -infinity.
std::vector<double> log_ratios(const ChainPlaces& at, std::int64_t dimension);

/// e times a number in [0.8, 1.2] that is a function of (seed, step): without it leapfrog steps can run around a closed
/// orbit of a quadratic potential for ever.
double jittered(double step_size, std::uint64_t seed, std::uint64_t step);

inline PotentialMixture mixture_at(double temperature) { return {1 - temperature, temperature}; }

void check_annealing(const AnnealingOptions& options, const char* caller);

}  // namespace bracket
