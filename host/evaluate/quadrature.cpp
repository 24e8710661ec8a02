#include "host/evaluate/quadrature.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/evaluate/log_sum.h"

namespace bracket {
namespace {

constexpr int kMaxDimension = 2;
constexpr std::int64_t kChunk = 32768;               // points per call of the energy: 1 MB with their energies
constexpr std::int64_t kBoxCells[] = {0, 999, 111};  // cells per axis of the coarsest lattices, by dimension; an odd
                                                     // number puts points on the centre, where symmetric data has some
constexpr std::int64_t kRingCells[] = {0, 720, 80};  // a multiple of 16: hole and edge are whole cells
constexpr double kRingGrowth = 4;
constexpr double kResolved = 0.1;  // deviation of the partial sums below which they count as converging
constexpr double kNegligibleEdge = 1e-9;
constexpr int kMaxRings = 6;  // up to 4^6 half widths of the data box

using Index = std::array<std::int64_t, kMaxDimension>;

// A box, perhaps without its inner quarter, and the midpoint sums over it.
class Region {
 public:
  Region(const QuadratureBox& data_box, double extent, bool ring)
      : dimension_(static_cast<int>(data_box.centre.size())),
        cells_((ring ? kRingCells : kBoxCells)[dimension_]),
        ring_(ring),
        lattices_(static_cast<std::size_t>(dimension_ == 1 ? 3 : 9)) {
    for (std::size_t a = 0; a < data_box.centre.size(); ++a) {
      const double half = extent * data_box.half_width[a];
      low_[a] = data_box.centre[a] - half;
      width_[a] = 2 * half;
    }
  }

  // The coarsest level: all lattices.
  void integrate(const EnergyFunction& energy) {
    for (int shift = 0; shift < lattice_count(); ++shift) sum_lattice(energy, shift);
  }

  // Three times as many cells per axis; the lattices so far are together the unshifted one of the new cells.
  void refine(const EnergyFunction& energy) {
    cells_ *= 3;
    const int unshifted = lattice_count() / 2;
    std::fill(lattices_.begin(), lattices_.end(), LogSum());
    lattices_[static_cast<std::size_t>(unshifted)] = total_;
    for (int shift = 0; shift < lattice_count(); ++shift)
      if (shift != unshifted) sum_lattice(energy, shift);
  }

  std::int64_t points() const noexcept { return points_; }
  std::int64_t points_to_refine() const noexcept { return points_ * (lattice_count() - 1); }
  double log_mass() const { return log_integral(total_); }
  double log_edge_mass() const { return log_integral(edge_); }

  double relative_error() const {
    if (std::isinf(total_.value())) return 0;
    double worst = 0;
    for (const LogSum& lattice : lattices_)
      worst = std::max(worst, std::abs(std::exp(lattice.value() - total_.value()) * lattice_count() - 1));
    return worst > kResolved ? worst : worst / 4;
  }

 private:
  int lattice_count() const noexcept { return static_cast<int>(lattices_.size()); }

  double log_integral(const LogSum& sum) const {
    double log_cell = -std::log(static_cast<double>(lattice_count()));
    for (int a = 0; a < dimension_; ++a)
      log_cell += std::log(width_[static_cast<std::size_t>(a)]) - std::log(static_cast<double>(cells_));
    return sum.value() + log_cell;
  }

  bool in_hole(const Index& cell) const {
    if (!ring_) return false;
    return std::all_of(cell.begin(), cell.begin() + dimension_,
                       [&](std::int64_t i) { return i >= cells_ / 8 * 3 && i < cells_ / 8 * 5; });
  }

  bool at_edge(const Index& cell) const {
    return std::any_of(cell.begin(), cell.begin() + dimension_,
                       [&](std::int64_t i) { return i < cells_ / 16 || i >= cells_ - cells_ / 16; });
  }

  // Cells of lattice `shift`, whose base-3 digits are the shifts per axis in thirds of a cell: 0, 1, 2 for -1/3, 0,
  // 1/3.
  void sum_lattice(const EnergyFunction& energy, int shift) {
    const std::array<double, kMaxDimension> offset = {0.5 + (shift % 3 - 1) / 3.0, 0.5 + (shift / 3 % 3 - 1) / 3.0};
    const std::int64_t total = dimension_ == 1 ? cells_ : cells_ * cells_;
    for (std::int64_t k = 0; k < total; ++k) {
      const Index cell = {k % cells_, k / cells_};
      if (in_hole(cell)) continue;
      for (std::size_t a = 0; a < static_cast<std::size_t>(dimension_); ++a)
        chunk_.push_back(low_[a] +
                         width_[a] * ((static_cast<double>(cell[a]) + offset[a]) / static_cast<double>(cells_)));
      chunk_at_edge_.push_back(ring_ && at_edge(cell));
      if (static_cast<std::int64_t>(chunk_at_edge_.size()) == kChunk) sum_chunk(energy, shift);
    }
    sum_chunk(energy, shift);
  }

  void sum_chunk(const EnergyFunction& energy, int shift) {
    const auto count = static_cast<std::int64_t>(chunk_at_edge_.size());
    if (count == 0) return;
    std::vector<double> log_density = energy(chunk_, count), at_edge;
    for (std::size_t i = 0; i < log_density.size(); ++i) {
      if (std::isnan(log_density[i]) || log_density[i] == -std::numeric_limits<double>::infinity())
        throw_bad_energy(log_density[i], i);
      log_density[i] = -log_density[i];
      if (chunk_at_edge_[i]) at_edge.push_back(log_density[i]);
    }
    LogSum sum;
    sum.add(log_density);
    lattices_[static_cast<std::size_t>(shift)].add(sum);
    total_.add(sum);
    edge_.add(at_edge);
    points_ += count;
    chunk_.clear();
    chunk_at_edge_.clear();
  }

  [[noreturn]] void throw_bad_energy(double value, std::size_t row) const {
    std::string point;
    for (std::size_t a = 0; a < static_cast<std::size_t>(dimension_); ++a)
      point += (a == 0 ? "" : ", ") + std::to_string(chunk_[row * static_cast<std::size_t>(dimension_) + a]);
    throw Diverged("the energy at (" + point + ") is " + fixed_number(value, 6) +
                       ", so the model has no density; evaluate an earlier checkpoint",
                   "energy", 0);
  }

  int dimension_;
  std::int64_t cells_;
  bool ring_;
  std::array<double, kMaxDimension> low_{}, width_{};
  std::vector<LogSum> lattices_;
  LogSum total_, edge_;
  std::int64_t points_ = 0;
  std::vector<double> chunk_;
  std::vector<bool> chunk_at_edge_;
};

void check(const QuadratureBox& box, const QuadratureOptions& options) {
  const std::size_t dimension = box.centre.size();
  if (dimension < 1 || dimension > kMaxDimension || box.half_width.size() != dimension)
    throw InvalidArgument("quadrature works in 1 or 2 dimensions, got a box with " + std::to_string(dimension) +
                          " centres and " + std::to_string(box.half_width.size()) + " half widths");
  for (std::size_t a = 0; a < dimension; ++a)
    if (!std::isfinite(box.centre[a]) || !(box.half_width[a] > 0) || !std::isfinite(box.half_width[a]))
      throw InvalidArgument("the quadrature box has centre " + std::to_string(box.centre[a]) + " and half width " +
                            std::to_string(box.half_width[a]) + " in column " + std::to_string(a) +
                            "; both must be finite, the half width positive");
  if (!(options.tolerance > 0))
    throw InvalidArgument("the quadrature tolerance is " + std::to_string(options.tolerance) + ", must be positive");
}

double log_mass_of(const std::vector<Region>& regions) {
  LogSum mass;
  for (const Region& region : regions) mass.add(region.log_mass());
  return mass.value();
}

// The region that contributes most to the error of Z, and more than `negligible`, among those that the budget allows to
// refine; null: none does.
Region* worst_refinable(std::vector<Region>& regions, double log_mass, std::int64_t budget, double negligible) {
  Region* worst = nullptr;
  double worst_error = negligible;
  for (Region& region : regions) {
    const double error = region.relative_error() * std::exp(region.log_mass() - log_mass);
    if (error <= worst_error || region.points_to_refine() > budget) continue;
    worst = &region;
    worst_error = error;
  }
  return worst;
}

}  // namespace

Quadrature integrate_density(const EnergyFunction& energy, const QuadratureBox& box, const QuadratureOptions& options) {
  check(box, options);
  std::vector<Region> regions;
  regions.emplace_back(box, 1, false);
  regions.back().integrate(energy);
  Quadrature result;
  for (int ring = 0; ring < kMaxRings; ++ring) {
    result.extent *= kRingGrowth;
    regions.emplace_back(box, result.extent, true);
    regions.back().integrate(energy);
    if (std::exp(regions.back().log_edge_mass() - log_mass_of(regions)) < kNegligibleEdge) break;
  }
  const auto measure = [&] {
    result.log_z = log_mass_of(regions);
    result.edge_mass = std::exp(regions.back().log_edge_mass() - result.log_z);
    result.mass_outside = 0;
    result.error = result.edge_mass;
    result.points = 0;
    for (std::size_t i = 0; i < regions.size(); ++i) {
      const double share = std::exp(regions[i].log_mass() - result.log_z);
      if (i > 0) result.mass_outside += share;
      result.error += share * regions[i].relative_error();
      result.points += regions[i].points();
    }
  };
  measure();
  if (std::isinf(result.log_z))
    throw Diverged("the energy is infinite at all of " + std::to_string(result.points) +
                       " points around the data, so the model has no density there; evaluate an earlier checkpoint",
                   "energy", 0);
  while (result.error - result.edge_mass > options.tolerance) {
    Region* region =
        worst_refinable(regions, result.log_z, options.max_points - result.points, 0.1 * options.tolerance);
    if (!region) break;
    region->refine(energy);
    measure();
  }
  return result;
}

}  // namespace bracket
