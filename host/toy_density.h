// What is known exactly about the toy densities: log density, entropy, modes. Samplers and constants: ops.h,
// toy_samples.
//
// Mixtures are sums over their modes. Curves with Gaussian noise (moons, swiss rolls, spirals) are one-dimensional
// Gauss-Legendre integrals along the curve, exact to rounding. Circles have a closed form with a Bessel function, the
// checkerboard is uniform, and the pinwheel is the change of variables summed over the preimages of a point.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace bracket {

class ToyDensity {
 public:
  /// Throws InvalidArgument for a value that is no ToyData.
  explicit ToyDensity(ToyData data);

  /// log p(x, y) in nats; -infinity off the checkerboard's squares, NaN for NaN.
  double log_density(double x, double y) const;
  /// Of points [n, 2], row by row.
  std::vector<double> log_densities(std::span<const double> points) const;

  /// Differential entropy in nats, exact to 1e-6.
  double entropy() const noexcept { return entropy_; }
  /// The mass outside the square [-half_width, half_width]^2 is below 1e-9.
  double half_width() const noexcept { return half_width_; }
  /// The narrowest standard deviation of the noise: what a quadrature must resolve. 0 for the checkerboard.
  double noise() const noexcept { return noise_; }

  /// Mixtures of round Gaussians of equal weights (25 and 8 Gaussians): their centres; empty for all others.
  std::span<const std::array<double, 2>> mode_centres() const noexcept { return centres_; }
  /// Standard deviation of every mode, in each direction; 0 without modes.
  double mode_deviation() const noexcept { return centres_.empty() ? 0 : noise_; }

 private:
  /// Points that carry Gaussian noise, with logarithms of their weights.
  struct Nodes {
    std::vector<double> x, y, weight;
    void add(double node_x, double node_y, double node_weight);
  };

  void add_modes(double scale, double noise);
  template <class Curve>
  void add_curve(double share, double length_bound, Curve&& curve);

  double log_noisy_nodes(double x, double y) const;
  double log_circles(double x, double y) const;
  double log_pinwheel(double x, double y) const;
  double log_spirals(double x, double y) const;

  ToyData data_;
  double entropy_ = 0;
  double half_width_ = 0;
  double noise_ = 0;
  std::vector<std::array<double, 2>> centres_;
  std::vector<double> radii_;
  Nodes nodes_;
};

}  // namespace bracket
