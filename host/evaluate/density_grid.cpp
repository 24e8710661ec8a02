// The energy on grids and boxes around the data.
#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "host/evaluate/evaluate.h"

namespace bracket {
namespace {

// The data box of the quadrature: 3.2 deviations, as the reference figures of the calibrated preset, or what holds the
// data with a margin.
constexpr double kBoxDeviations = 3.2, kBoxMargin = 1.1;
constexpr double kPictureMargin = 1.15;

}  // namespace

std::optional<Quadrature> log_partition(Trainer& trainer, const DataStatistics& statistics, Weights weights,
                                        const QuadratureOptions& options) {
  if (trainer.energy_network().input_size() > 2) return std::nullopt;
  QuadratureBox box{statistics.mean, statistics.deviation};
  for (double& half_width : box.half_width)
    half_width *= std::max(kBoxDeviations, kBoxMargin * statistics.standardised_radius);
  const auto energy = [&](std::span<const double> points, std::int64_t rows) {
    return trainer.energies(points, rows, weights);
  };
  return integrate_density(energy, box, options);
}

Box picture_box(const DataStatistics& statistics) {
  if (statistics.mean.size() != 2)
    throw InvalidArgument("a picture needs two-dimensional data, got " + std::to_string(statistics.mean.size()) +
                          " columns");
  const auto range = [&](std::size_t column) {
    const double half = kPictureMargin * std::max(1.0, statistics.standardised_radius) * statistics.deviation[column];
    return Range{statistics.mean[column] - half, statistics.mean[column] + half};
  };
  return {range(0), range(1)};
}

DensityGrid density_grid(Trainer& trainer, const Box& box, std::int64_t columns, std::int64_t rows, double log_z,
                         Weights weights) {
  if (trainer.energy_network().input_size() != 2)
    throw InvalidArgument("a density picture needs a two-dimensional energy, got " +
                          std::to_string(trainer.energy_network().input_size()) + " columns");
  if (columns < 1 || rows < 1)
    throw InvalidArgument("a density grid needs at least one cell, got " + std::to_string(columns) + " x " +
                          std::to_string(rows));
  std::vector<double> points;
  points.reserve(static_cast<std::size_t>(2 * columns * rows));
  const auto centre = [](const Range& range, std::int64_t i, std::int64_t cells) {
    return range.low + (range.high - range.low) * (static_cast<double>(i) + 0.5) / static_cast<double>(cells);
  };
  for (std::int64_t j = 0; j < rows; ++j)
    for (std::int64_t i = 0; i < columns; ++i) {
      points.push_back(centre(box.x, i, columns));
      points.push_back(centre(box.y, j, rows));
    }
  DensityGrid grid{columns, rows, trainer.energies(points, columns * rows, weights)};
  for (double& value : grid.log_density) value = -value - log_z;
  return grid;
}

}  // namespace bracket
