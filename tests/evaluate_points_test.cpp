// phi and its gradient on generated points, against central differences of phi itself.
#include <gtest/gtest.h>

#include <cmath>

#include "bracket/error.h"
#include "host/evaluate/generated_points.h"
#include "tests/network_fixture.h"

namespace bracket {
namespace {

using test::NetworkOnDevice;

class GeneratedPointsTest : public ::testing::Test {
 protected:
  // A curved generator and an energy of the calibrated kind, D = dimension.
  void make(std::int64_t d, std::int64_t dimension) {
    NetworkSpec generator_spec, energy_spec;
    generator_spec.input_size = d;
    if (d > 1) generator_spec.layers = {MonotoneCouplingSpec{.active_first = 0, .knots = 4, .hidden = {8}}};
    generator_spec.layers.insert(
        generator_spec.layers.end(),
        {LinearSpec{.features = dimension}, ActivationSpec{Activation::softplus}, LinearSpec{.features = dimension}});
    energy_spec.input_size = dimension;
    energy_spec.layers = {FourierFeaturesSpec{.frequencies = 3, .deviation = 1}, LinearSpec{.features = 8},
                          ActivationSpec{Activation::silu}, LinearSpec{.features = 1}, ConfinementSpec{}};
    generator_ = std::make_unique<NetworkOnDevice>(context_, generator_spec, DType::f64, 4);
    energy_ = std::make_unique<NetworkOnDevice>(context_, energy_spec, DType::f64, 5);
    generator_->perturb(0.3);
  }

  GeneratedPoints points(const std::vector<double>& z) {
    const NetworkPair pair{context_, energy_->network(), energy_->parameters(), generator_->network(),
                           generator_->parameters()};
    return generated_points(pair, z, static_cast<std::int64_t>(z.size()) / generator_->network().input_size());
  }

  Context context_;
  std::unique_ptr<NetworkOnDevice> generator_, energy_;
};

TEST_F(GeneratedPointsTest, TheGradientOfPhiIsItsDerivative) {
  for (const auto& [d, dimension] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {2, 2}, {3, 3}, {2, 5}}) {
    make(d, dimension);
    const std::vector<double> z = test::random_matrix(7, d, 3, -1.5, 1.5).values;
    const GeneratedPoints at = points(z);
    ASSERT_EQ(at.phi_gradient.size(), z.size());
    double half_squares = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
      constexpr double kStep = 1e-5;  // truncation step^2 and rounding 1e-16 / step are both near 1e-10
      std::vector<double> up = z, down = z;
      up[i] += kStep;
      down[i] -= kStep;
      const std::size_t row = i / static_cast<std::size_t>(d);
      const double slope = (points(up).phi[row] - points(down).phi[row]) / (2 * kStep);
      EXPECT_NEAR(at.phi_gradient[i], slope, 1e-7 * (1 + std::abs(slope))) << d << " latents, element " << i;
      half_squares += 0.5 * slope * slope / 7;
    }
    EXPECT_NEAR(at.penalty(), half_squares, 1e-6 * (1 + half_squares));
  }
}

TEST_F(GeneratedPointsTest, TheMinSingularVolumeIsTheLooser) {
  make(3, 4);
  const GeneratedPoints at = points(test::random_matrix(50, 3, 8).values);
  for (std::size_t i = 0; i < at.phi.size(); ++i) EXPECT_GE(at.phi_min_singular[i], at.phi[i]);
  make(1, 1);
  const GeneratedPoints line = points(test::random_matrix(50, 1, 8).values);
  for (std::size_t i = 0; i < line.phi.size(); ++i) EXPECT_NEAR(line.phi_min_singular[i], line.phi[i], 1e-12);
}

// 4,096 rows of the stack make a chunk: results must not depend on where the cuts fall.
TEST_F(GeneratedPointsTest, ChunksJoinSeamlessly) {
  make(2, 2);
  const std::vector<double> z = test::random_matrix(3001, 2, 9).values;
  const GeneratedPoints all = points(z);
  ASSERT_EQ(all.phi.size(), 3001u);
  ASSERT_EQ(all.x.size(), 6002u);
  for (const std::size_t row : {0u, 1364u, 1365u, 2730u, 3000u}) {
    const GeneratedPoints one = points({z[2 * row], z[2 * row + 1]});
    // One row alone may take another order of sums in a matrix product of 8 terms: a few roundings.
    EXPECT_NEAR(one.phi[0], all.phi[row], 1e-13 * (1 + std::abs(all.phi[row]))) << row;
    EXPECT_NEAR(one.x[1], all.x[2 * row + 1], 1e-13);
  }
}

TEST_F(GeneratedPointsTest, NoLatentsAndWrongCounts) {
  make(2, 2);
  const GeneratedPoints none = points({});
  EXPECT_TRUE(none.phi.empty());
  EXPECT_EQ(none.penalty(), 0);
  const NetworkPair pair{context_, energy_->network(), energy_->parameters(), generator_->network(),
                         generator_->parameters()};
  EXPECT_THROW(generated_points(pair, std::vector<double>(3), 2), InvalidArgument);
}

TEST(SampleMoments, AgreeWithTheDefinitions) {
  const std::vector<double> values = {1, 2, 3, 6};
  const SampleMoments m = sample_moments(values);
  EXPECT_DOUBLE_EQ(m.mean, 3);
  EXPECT_DOUBLE_EQ(m.variance, 14.0 / 3);
  EXPECT_DOUBLE_EQ(m.standard_error, std::sqrt(14.0 / 12));
  EXPECT_EQ(sample_moments({}).mean, 0);
  EXPECT_EQ(sample_moments(std::vector<double>{5}).standard_error, 0);
}

}  // namespace
}  // namespace bracket
