// Mixtures of round Gaussians in many dimensions, whose density is known: named data sets to judge likelihoods by.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bracket {

/// 16 Gaussians of equal weights and deviation 1/2 in every direction around centres drawn once from N(0, 2^2 I).
class GaussianMixture {
 public:
  static constexpr std::int64_t kModes = 16;
  static constexpr double kDeviation = 0.5;

  /// Throws InvalidArgument for dims < 1.
  explicit GaussianMixture(std::int64_t dims);
  /// Of a name as of Dataset::mixture_names(), else none.
  static std::optional<GaussianMixture> named(const std::string& name);

  std::int64_t dims() const noexcept { return dims_; }
  std::span<const double> centres() const noexcept { return centres_; }  ///< [kModes, dims]
  double log_density(std::span<const double> x) const;                   ///< nats
  /// Rows [count, dims]: those with number `set` (below 2^16), the same on every call.
  std::vector<double> sample(std::int64_t count, std::uint64_t set) const;

  struct Entropy {
    double value = 0;           ///< nats: mean of -log p over samples
    double standard_error = 0;  ///< deviation / sqrt(count)
  };
  /// By Monte Carlo with `count` >= 2 samples of the set, with the squared distance from a sample's own mode as control
  /// variate.
  Entropy entropy(std::int64_t count, std::uint64_t set) const;

 private:
  std::int64_t dims_;
  std::vector<double> centres_;
};

}  // namespace bracket
