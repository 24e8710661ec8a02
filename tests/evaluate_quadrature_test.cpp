// Log Z against closed forms: the result, and that its error estimate covers the true error.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "bracket/error.h"
#include "host/evaluate/log_sum.h"
#include "host/evaluate/quadrature.h"

namespace bracket {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Rounding of a result near log_z: sums of up to 1e6 terms in blocks, each term off by the rounding of its energy.
double rounding_of(double log_z) { return 1e-12 * (1 + std::abs(log_z)); }

EnergyFunction pointwise(std::size_t dimension, std::function<double(const double*)> energy) {
  return [=](std::span<const double> points, std::int64_t rows) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < rows; ++i) values.push_back(energy(&points[static_cast<std::size_t>(i) * dimension]));
    return values;
  };
}

// -log of an equal mixture of Gaussians on a 5 x 5 grid, unnormalised: log Z = log(2 pi deviation^2).
double grid_energy(const double* x, double spacing, double deviation) {
  LogSum sum;
  for (int i = -2; i <= 2; ++i)
    for (int j = -2; j <= 2; ++j) {
      const double u = (x[0] - i * spacing) / deviation, v = (x[1] - j * spacing) / deviation;
      sum.add(-0.5 * (u * u + v * v) - std::log(25.0));
    }
  return -sum.value();
}

void expect_covered(const Quadrature& q, double exact, const char* what) {
  EXPECT_LE(std::abs(q.log_z - exact), q.error + rounding_of(exact)) << what << ": " << q.log_z << " for " << exact;
}

TEST(Quadrature, GaussianInOneAndTwoDimensions) {
  const auto line = pointwise(1, [](const double* x) { return 0.5 * (x[0] - 3) * (x[0] - 3) / 4 + 7; });
  const double log_line = 0.5 * std::log(2 * std::numbers::pi * 4) - 7;
  // Ten deviations: midpoint sums of a Gaussian that vanishes at the ends err by 2 exp(-2 pi^2 deviation^2 /
  // spacing^2).
  EXPECT_NEAR(integrate_density(line, {{2.9}, {20}}).log_z, log_line, rounding_of(log_line));
  const Quadrature one = integrate_density(line, {{2.9}, {6.4}});
  expect_covered(one, log_line, "line");
  EXPECT_LE(one.error, 1e-4);

  const auto plane = pointwise(2, [](const double* x) { return 0.5 * (x[0] * x[0] + x[1] * x[1] / 1e4) - 1000; });
  const double log_plane = std::log(2 * std::numbers::pi * 100) + 1000;
  EXPECT_NEAR(integrate_density(plane, {{0, 0}, {10, 1000}}).log_z, log_plane, rounding_of(log_plane));
  const Quadrature two = integrate_density(plane, {{0, 0}, {3.2, 320}});
  expect_covered(two, log_plane, "plane");
  EXPECT_LE(two.error, 1e-4);
  EXPECT_EQ(two.extent, 4);
  EXPECT_LT(two.edge_mass, 1e-12);
}

TEST(Quadrature, MassOutsideTheDataBox) {
  const auto plane = pointwise(2, [](const double* x) { return 0.5 * (x[0] * x[0] + x[1] * x[1]); });
  const Quadrature q = integrate_density(plane, {{0, 0}, {2, 3}});
  const double inside = std::erf(2 / std::numbers::sqrt2) * std::erf(3 / std::numbers::sqrt2);
  // The box's side cuts the density: midpoint sums err there by the second order, spacing^2 / 24 of the slope's jump.
  EXPECT_NEAR(q.mass_outside, 1 - inside, 1e-5);
  expect_covered(q, std::log(2 * std::numbers::pi), "cut box");
}

// From smooth to far narrower than the first lattices: the estimate must cover the error at every width and budget.
TEST(Quadrature, ErrorEstimateCoversTheErrorOfNarrowMixtures) {
  bool coarse_budget_was_too_small = false;
  for (const double deviation : {0.2, 0.05, 0.0177, 0.009, 0.006}) {
    for (const std::int64_t budget : {std::int64_t{200000}, std::int64_t{1200000}}) {
      // 0.707: the preset's grid in standardised units; 0.7003: points of the lattice and modes do not coincide.
      for (const double spacing : {0.707, 0.7003}) {
        const auto energy = pointwise(2, [=](const double* x) {
          const double i = std::clamp(std::round(x[0] / spacing), -2.0, 2.0);
          const double j = std::clamp(std::round(x[1] / spacing), -2.0, 2.0);
          if (deviation > 0.06) return grid_energy(x, spacing, deviation);
          const double u = (x[0] - i * spacing) / deviation, v = (x[1] - j * spacing) / deviation;
          return 0.5 * (u * u + v * v) + std::log(25.0);  // the others are 11 or more deviations away
        });
        QuadratureOptions options;
        options.max_points = budget;
        const Quadrature q = integrate_density(energy, {{0, 0}, {3.2, 3.2}}, options);
        const double exact = std::log(2 * std::numbers::pi * deviation * deviation);
        expect_covered(q, exact, "25 Gaussians");
        EXPECT_LE(q.points, budget);
        if (q.error > 0.01) coarse_budget_was_too_small = true;
        if (budget > 1000000 && deviation >= 0.0177) {
          EXPECT_NEAR(q.log_z, exact, 1e-8) << deviation;
          EXPECT_LE(q.error, 1e-4) << deviation;
        }
      }
    }
  }
  EXPECT_TRUE(coarse_budget_was_too_small);  // else no case was hard
}

TEST(Quadrature, KinksAndWalls) {
  const auto wall = pointwise(1, [](const double* x) {
    const double over = std::max(0.0, std::abs(x[0]) - 1);
    return 25 * over * over;
  });
  expect_covered(integrate_density(wall, {{0.1}, {3.2}}), std::log(2 + std::sqrt(std::numbers::pi / 25)), "wall");
  const auto cone = pointwise(2, [](const double* x) { return 3 * std::hypot(x[0] - 0.01, x[1]); });
  expect_covered(integrate_density(cone, {{0, 0}, {3.2, 3.2}}), std::log(2 * std::numbers::pi / 9), "cone");
}

// A second well ten deviations away, where no data is, with a third of the mass.
TEST(Quadrature, FarWellsAreFoundAndResolved) {
  for (const double width : {1.0, 0.3, 0.1}) {
    const auto energy = pointwise(2, [=](const double* x) {
      LogSum density;
      density.add(std::log(2.0 / 3) - 0.5 * (x[0] * x[0] + x[1] * x[1]));
      const double u = (x[0] - 10) / width, v = (x[1] + 7.03) / width;
      density.add(std::log(1.0 / 3 / (width * width)) - 0.5 * (u * u + v * v));
      return -density.value();
    });
    const Quadrature q = integrate_density(energy, {{0, 0}, {3.2, 3.2}});
    expect_covered(q, std::log(2 * std::numbers::pi), "far well");
    const double within = std::erf(3.2 / std::numbers::sqrt2);
    EXPECT_NEAR(q.mass_outside, 1.0 / 3 + 2.0 / 3 * (1 - within * within), 1e-4) << width;
  }
}

TEST(Quadrature, HeavyTailsWidenTheBox) {
  const auto laplace = pointwise(1, [](const double* x) { return std::abs(x[0]) / 10; });
  const Quadrature q = integrate_density(laplace, {{0}, {3.2}});
  expect_covered(q, std::log(20.0), "Laplace");
  EXPECT_GT(q.extent, 16);
  EXPECT_LT(q.edge_mass, 1e-9);
}

TEST(Quadrature, WithoutConfinementTheEdgeHoldsTheMass) {
  const auto flat = pointwise(2, [](const double*) { return 0.0; });
  const Quadrature q = integrate_density(flat, {{0, 0}, {1, 1}});
  EXPECT_NEAR(q.edge_mass, 1 - 49.0 / 64, 0.02);  // 1 - (7/8)^2, less the area of the smaller boxes
  EXPECT_GT(q.error, 0.1);
}

TEST(Quadrature, InfiniteEnergiesAreDensityZero) {
  const auto box = pointwise(1, [](const double* x) { return std::abs(x[0]) < 1 ? 0.0 : kInfinity; });
  // A jump inside a cell: each end is off by up to half of the 2,997 cells' spacing at the least, out of a width of 2.
  EXPECT_NEAR(integrate_density(box, {{0}, {3.2}}).log_z, std::log(2.0), 6.4 / 2997 / 2);
  const auto nothing = pointwise(1, [](const double*) { return kInfinity; });
  EXPECT_THROW(integrate_density(nothing, {{0}, {1}}), Diverged);
}

TEST(Quadrature, RefusesWhatHasNoDensity) {
  const auto bad = pointwise(2, [](const double* x) { return x[0] > 1 ? std::nan("") : 0.0; });
  try {
    integrate_density(bad, {{0, 0}, {3.2, 3.2}});
    FAIL();
  } catch (const Diverged& error) {
    EXPECT_NE(std::string(error.what()).find("the energy at (1."), std::string::npos) << error.what();
  }
  const auto deep = pointwise(1, [](const double*) { return -kInfinity; });
  EXPECT_THROW(integrate_density(deep, {{0}, {1}}), Diverged);
  const auto good = pointwise(1, [](const double* x) { return x[0] * x[0]; });
  EXPECT_THROW(integrate_density(good, {{0, 0, 0}, {1, 1, 1}}), InvalidArgument);
  EXPECT_THROW(integrate_density(good, {{}, {}}), InvalidArgument);
  EXPECT_THROW(integrate_density(good, {{0}, {0}}), InvalidArgument);
  EXPECT_THROW(integrate_density(good, {{0}, {-1}}), InvalidArgument);
  EXPECT_THROW(integrate_density(good, {{std::nan("")}, {1}}), InvalidArgument);
  QuadratureOptions options;
  options.tolerance = 0;
  EXPECT_THROW(integrate_density(good, {{0}, {1}}, options), InvalidArgument);
}

TEST(LogSum, StreamsAnyPortions) {
  LogSum sum;
  EXPECT_EQ(sum.value(), -kInfinity);
  sum.add(-kInfinity);
  EXPECT_EQ(sum.value(), -kInfinity);
  sum.add(-1000);
  EXPECT_DOUBLE_EQ(sum.value(), -1000);
  const double values[] = {1000, 1000 + std::log(2.0), -kInfinity};
  sum.add(values);
  EXPECT_NEAR(sum.value(), 1000 + std::log(3.0), 1e-12);
  LogSum other;
  other.add(1000);
  sum.add(other);
  EXPECT_NEAR(sum.value(), 1000 + std::log(4.0), 1e-12);
}

}  // namespace
}  // namespace bracket
