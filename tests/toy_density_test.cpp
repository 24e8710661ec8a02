// Exact log densities of the toy data: they integrate to one, give the tabulated entropies, and describe the samples.
#include "host/toy_density.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numbers>

#include "bracket/error.h"
#include "ops_fixture.h"

namespace bracket::test {
namespace {

constexpr int kToyData = static_cast<int>(ToyData::swiss_roll_thin) + 1;
constexpr int kCells = 12;

struct Lattice {
  double mass = 0;
  double entropy = 0;
  std::vector<double> cells = std::vector<double>(kCells * kCells);
};

std::size_t cell_of(double x, double y, double half_width) {
  const auto index = [half_width](double value) {
    return std::clamp(static_cast<int>(std::floor((value / half_width + 1) * kCells / 2)), 0, kCells - 1);
  };
  return static_cast<std::size_t>(index(x) * kCells + index(y));
}

/// Midpoint sums over the square of the density. For a density smoothed by a Gaussian of deviation s their error falls
/// like exp(-2 pi^2 s^2 / h^2): 1e-34 at h = s / 2; that of the entropy, with its logarithm, is measured in
/// host/toy_density.cpp. The number of points per cell is whole.
Lattice integrate(const ToyDensity& density, double points_per_noise) {
  Lattice result;
  const double width = density.half_width();
  const double spacing = density.noise() > 0 ? density.noise() / points_per_noise : width / 60;
  const auto per_cell = static_cast<std::int64_t>(std::ceil(2 * width / (kCells * spacing)));
  const std::int64_t n = per_cell * kCells;
  const double h = 2 * width / static_cast<double>(n);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const double x = (static_cast<double>(i) + 0.5) * h - width, y = (static_cast<double>(j) + 0.5) * h - width;
      const double log_p = density.log_density(x, y);
      if (log_p < -200) continue;
      const double p = std::exp(log_p) * h * h;
      result.mass += p;
      result.entropy -= p * log_p;
      result.cells[static_cast<std::size_t>(i / per_cell * kCells + j / per_cell)] += p;
    }
  }
  return result;
}

const Lattice& lattice(int data) {
  static std::map<int, Lattice> cache;
  const auto found = cache.find(data);
  if (found != cache.end()) return found->second;
  // The pinwheel's shear makes it narrower than its noise.
  const double points_per_noise = static_cast<ToyData>(data) == ToyData::pinwheel ? 3 : 2;
  return cache.emplace(data, integrate(ToyDensity(static_cast<ToyData>(data)), points_per_noise)).first->second;
}

HostMatrix samples(int data, std::int64_t count) {
  Context context;
  const DeviceTensor y = empty(context, DType::f64, {count, 2});
  context.ops().toy_samples(y, static_cast<ToyData>(data), {test_seed(), RandomStream::evaluation, 1}, nullptr);
  return download(context, y);
}

TEST(ToyDensityTest, IntegratesToOneAndToItsEntropy) {
  for (int data = 0; data < kToyData; ++data) {
    const bool pinwheel = static_cast<ToyData>(data) == ToyData::pinwheel;
    // Half widths leave up to 1e-9 outside; the pinwheel's folds are integrable singularities of 1e-9 of the mass.
    EXPECT_NEAR(lattice(data).mass, 1, pinwheel ? 1e-6 : 2e-9) << "data " << data;
    EXPECT_NEAR(lattice(data).entropy, ToyDensity(static_cast<ToyData>(data)).entropy(), pinwheel ? 5e-6 : 1e-6)
        << "data " << data;
  }
}

// Figures published for these data: calibration studies quote four digits.
TEST(ToyDensityTest, KnownEntropies) {
  EXPECT_NEAR(ToyDensity(ToyData::gaussians25).entropy(), -2.014, 5e-4);
  EXPECT_NEAR(ToyDensity(ToyData::two_moons).entropy(), 1.0076, 5e-5);
  EXPECT_NEAR(ToyDensity(ToyData::swiss_roll).entropy(), 2.6696, 5e-5);
  EXPECT_NEAR(ToyDensity(ToyData::swiss_roll_thin).entropy(), 0.4581, 5e-5);
  EXPECT_DOUBLE_EQ(ToyDensity(ToyData::checkerboard).entropy(), std::log(32.0));
}

/// The mean of -log p over samples is the entropy, to 5 standard errors, and the counts in 12 x 12 cells agree with the
/// density's masses by chi-square (cells expecting fewer than 10 samples are pooled; limit of Laurent and Massart for
/// P < 1e-6).
TEST(ToyDensityTest, DescribesTheSamples) {
  constexpr std::int64_t kCount = 20000;
  for (int data = 0; data < kToyData; ++data) {
    SCOPED_TRACE(data);
    const ToyDensity density(static_cast<ToyData>(data));
    const HostMatrix x = samples(data, kCount);
    const std::vector<double> log_p = density.log_densities(x.values);
    double mean = 0, square = 0;
    std::vector<double> counts(kCells * kCells);
    for (std::int64_t i = 0; i < kCount; ++i) {
      mean += log_p[static_cast<std::size_t>(i)] / kCount;
      square += log_p[static_cast<std::size_t>(i)] * log_p[static_cast<std::size_t>(i)] / kCount;
      counts[cell_of(x(i, 0), x(i, 1), density.half_width())] += 1;
    }
    EXPECT_NEAR(-mean, density.entropy(), 5 * std::sqrt(std::max(0.0, square - mean * mean) / kCount) + 1e-6);
    double chi_square = 0, pooled = 0, pooled_count = 0;
    int freedom = -1;
    for (std::size_t cell = 0; cell < counts.size(); ++cell) {
      const double expected = kCount * lattice(data).cells[cell];
      if (expected < 10) {
        pooled += expected;
        pooled_count += counts[cell];
        continue;
      }
      chi_square += (counts[cell] - expected) * (counts[cell] - expected) / expected;
      ++freedom;
    }
    if (pooled >= 10) {
      chi_square += (pooled_count - pooled) * (pooled_count - pooled) / pooled;
      ++freedom;
    } else {
      EXPECT_LT(pooled_count, pooled + 6 * std::sqrt(pooled + 10));
    }
    ASSERT_GT(freedom, 5);
    EXPECT_LT(chi_square, freedom + 2 * std::sqrt(14.0 * freedom) + 2 * 14);
  }
}

/// Gauss-Legendre panels against 200,000 equal steps along the curve.
TEST(ToyDensityTest, CurvesAreIntegratedToRounding) {
  const ToyDensity density(ToyData::swiss_roll_thin);
  for (const auto& [x, y] : {std::pair{0.0, -0.7}, {1.2, 0.3}, {-1.0, -1.0}, {0.0, 0.0}}) {
    constexpr int kSteps = 200000;
    double sum = 0;
    for (int i = 0; i < kSteps; ++i) {
      const double t = 1.5 * std::numbers::pi * (1 + 2 * (i + 0.5) / kSteps);
      const double dx = x - t * std::cos(t) / 7.5, dy = y - t * std::sin(t) / 7.5, s = 0.25 / 7.5;
      sum += std::exp(-(dx * dx + dy * dy) / (2 * s * s)) / (2 * std::numbers::pi * s * s) / kSteps;
    }
    // The equal steps are off by (step / s)^2 / 24 = 3e-7 of the ends' share at most.
    EXPECT_NEAR(density.log_density(x, y), std::log(sum), 1e-6);
  }
}

TEST(ToyDensityTest, FarAwayItStaysFinite) {
  for (int data = 0; data < kToyData; ++data) {
    const ToyDensity density(static_cast<ToyData>(data));
    const bool bounded = static_cast<ToyData>(data) == ToyData::checkerboard;
    const double at_100 = density.log_density(100, -50), at_30 = density.log_density(-30, 40);
    EXPECT_EQ(std::isfinite(at_100), !bounded) << "data " << data;
    EXPECT_TRUE(bounded || at_100 < at_30);
    EXPECT_TRUE(std::isnan(density.log_density(std::nan(""), 0)));
    EXPECT_EQ(density.log_density(INFINITY, 0), -INFINITY);
  }
  // Two Gaussian tails in closed form: the nearest mode of 25, and the circles' leading terms.
  const double scale = 2.828, noise = 0.05 / scale, dx = 10 - 4 / scale, dy = 3 - 4 / scale;
  EXPECT_NEAR(ToyDensity(ToyData::gaussians25).log_density(10, 3),
              -(dx * dx + dy * dy) / (2 * noise * noise) - std::log(25 * 2 * std::numbers::pi * noise * noise), 1e-6);
}

TEST(ToyDensityTest, Modes) {
  const ToyDensity grid(ToyData::gaussians25), ring(ToyData::gaussians8), moons(ToyData::two_moons);
  ASSERT_EQ(grid.mode_centres().size(), 25U);
  ASSERT_EQ(ring.mode_centres().size(), 8U);
  EXPECT_TRUE(moons.mode_centres().empty());
  EXPECT_EQ(moons.mode_deviation(), 0);
  EXPECT_DOUBLE_EQ(grid.mode_deviation(), 0.05 / 2.828);
  EXPECT_DOUBLE_EQ(ring.mode_deviation(), 0.02 / 1.414);
  for (const auto& [name, density, data] : {std::tuple{"grid", &grid, 0}, {"ring", &ring, 1}}) {
    const HostMatrix x = samples(data, 2000);
    for (std::int64_t i = 0; i < x.rows; ++i) {
      double nearest = INFINITY;
      for (const auto& centre : density->mode_centres()) {
        nearest = std::min(nearest, std::hypot(x(i, 0) - centre[0], x(i, 1) - centre[1]));
      }
      EXPECT_LT(nearest, 7 * density->mode_deviation()) << name;  // P = 2000 exp(-24.5) = 5e-8
    }
  }
  EXPECT_THROW(ToyDensity(static_cast<ToyData>(99)), InvalidArgument);
}

}  // namespace
}  // namespace bracket::test
