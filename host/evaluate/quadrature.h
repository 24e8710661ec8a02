// Log Z = log of the integral of exp(-E) in one or two dimensions.
//
// Midpoint sums over a data box and, around it, square rings each four times as wide as the one before, until the mass
// near the outer edge is negligible. A region's lattice is refined by three: the finer one is the union of 3^D lattices
// of the coarser spacing, each shifted by a third of it, so every energy is computed once and the 3^D partial sums are
// that many independent-looking estimates of the same integral.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace bracket {

/// Energies [rows] of points [rows, D].
using EnergyFunction = std::function<std::vector<double>(std::span<const double> points, std::int64_t rows)>;

/// A box in 1 or 2 dimensions. Spacings follow its sides, so that it fixes the scale of what can be resolved.
struct QuadratureBox {
  std::vector<double> centre;
  std::vector<double> half_width;
};

struct QuadratureOptions {
  double tolerance = 1e-4;            ///< refine until the error estimate of log Z is below, in nats
  std::int64_t max_points = 4000000;  ///< but stop refining before this many energies
};

struct Quadrature {
  double log_z = 0;
  /// Estimate in nats: the sum over regions of a quarter of the largest deviation of a partial sum from their mean, as
  /// a share of Z, and the edge mass, standing for what lies beyond. Midpoint sums err by the second order where the
  /// energy has kinks, so the result is nine times better than a partial sum (Richardson: an eighth of the deviation),
  /// and far better where it is smooth; a quarter leaves a factor of two. Deviations above a tenth, where the density
  /// is not resolved, count in full. Nothing is seen that is narrower than a spacing and falls between all points.
  double error = 0;
  double edge_mass = 0;     ///< share of Z in the outer eighth of the outermost box
  double mass_outside = 0;  ///< share of Z outside `box`
  double extent = 1;        ///< half width of the outermost box in half widths of `box`
  std::int64_t points = 0;  ///< energies computed
};

/// Throws InvalidArgument for a box that is not 1- or 2-dimensional or has no extent, and Diverged for an energy that
/// is NaN or -infinity (+infinity is density zero) or for no mass at all.
Quadrature integrate_density(const EnergyFunction& energy, const QuadratureBox& box,
                             const QuadratureOptions& options = {});

}  // namespace bracket
