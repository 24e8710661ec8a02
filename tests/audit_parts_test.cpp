// The parts of an audit by themselves: second preimages, energies far away, the base of annealing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "host/evaluate/audit/annealed_partition.h"
#include "host/evaluate/audit/far_energies.h"
#include "host/evaluate/audit/preimages.h"
#include "tests/network_fixture.h"

namespace bracket {
namespace {

using test::NetworkOnDevice;

NetworkSpec network_of(std::int64_t inputs, std::vector<LayerSpec> layers) {
  NetworkSpec spec;
  spec.input_size = inputs;
  spec.layers = std::move(layers);
  return spec;
}

SecondPreimages preimages_of(NetworkOnDevice& n, const PreimageOptions& options = {}) {
  return second_preimages(n.context(), n.network(), n.parameters(), options);
}

TEST(SecondPreimages, InjectiveMapsHaveNone) {
  Context context;
  PreimageOptions options;
  options.samples = 300;
  const std::vector<LayerSpec> stack = {LinearSpec{.features = 3, .identity_start = true},
                                        MonotoneCouplingSpec{.active_first = 0},
                                        MonotoneCouplingSpec{.active_first = 1, .active_count = 2},
                                        MonotoneCouplingSpec{.active_first = 0, .active_count = 2}};
  for (const double amount : {0.0, 0.3}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      NetworkOnDevice n(context, network_of(3, stack), dtype);
      n.perturb(amount);
      EXPECT_EQ(preimages_of(n, options).share, 0) << "moved by " << amount;
    }
  }
  NetworkOnDevice surface(context, network_of(2, {LinearSpec{.features = 5}}), DType::f32);
  const SecondPreimages flat = preimages_of(surface, options);
  EXPECT_EQ(flat.share, 0);
  EXPECT_GT(flat.least_stretch, 0);
  // Saturated: images of far latents agree to rounding, which is no fold.
  NetworkOnDevice saturated(context, network_of(1, {AffineSpec{{40}, {0}}, ActivationSpec{Activation::tanh}}),
                            DType::f32);
  EXPECT_EQ(preimages_of(saturated, options).share, 0);
  NetworkOnDevice constant(context, network_of(2, {LinearSpec{.features = 2}}), DType::f32);
  constant.set_values(std::vector<double>(constant.values().size(), 0));
  EXPECT_EQ(preimages_of(constant, options).share, 0);
}

// z -> (|z| - 1, relu(z - 1)): a curve that runs back over itself for |z| < 1 and parts beyond.
TEST(SecondPreimages, OfACurveInThePlane) {
  Context context;
  NetworkOnDevice n(
      context, network_of(1, {LinearSpec{.features = 3}, ActivationSpec{Activation::relu}, LinearSpec{.features = 2}}),
      DType::f64);
  std::vector<double> values(n.values().size());
  const std::map<std::string, std::vector<double>> parameters = {{"layers.0.weight", {1, -1, 1}},
                                                                 {"layers.0.bias", {0, 0, -1}},
                                                                 {"layers.2.weight", {1, 1, 0, 0, 0, 1}},
                                                                 {"layers.2.bias", {-1, 0}}};
  for (const ParameterInfo& info : n.network().parameters())
    std::copy(parameters.at(info.name).begin(), parameters.at(info.name).end(),
              values.begin() + static_cast<std::ptrdiff_t>(info.offset));
  n.set_values(values);
  PreimageOptions options;
  options.samples = 2000;
  // Latents between half the separation and 1, of either sign, have a partner at -z.
  const auto below = [](double z) { return std::erf(z / std::sqrt(2.0)); };
  const double expected = below(1) - below(options.separation / 2);
  // At most that many but for noise; searches that start beyond the crease may miss some.
  const double share = preimages_of(n, options).share, deviation = std::sqrt(expected * (1 - expected) / 2000);
  EXPECT_LE(share, expected + 4 * deviation);
  EXPECT_GE(share, expected - 0.05 - 4 * deviation);
}

TEST(SecondPreimages, NotFiniteImages) {
  Context context;
  NetworkOnDevice n(context, network_of(2, {LinearSpec{.features = 2}}), DType::f64);
  n.set_values(std::vector<double>(n.values().size(), std::nan("")));
  EXPECT_THROW(preimages_of(n), Diverged);
  PreimageOptions bad;
  bad.separation = 0;
  EXPECT_THROW(preimages_of(n, bad), InvalidArgument);
}

class FarEnergiesTest : public ::testing::Test {
 protected:
  FarEnergies energies(const FarOptions& options, double scale = 1) {
    std::vector<double> data, energy;
    for (int i = 0; i < 200; ++i) {
      const double x = scale * std::sin(i), y = scale * std::cos(3 * i);
      data.insert(data.end(), {x, y});
      energy.push_back(0.5 * (x * x + y * y));
    }
    const NetworkPair pair{context_, energy_.network(), energy_.parameters(), generator_.network(),
                           generator_.parameters()};
    return energies_far_away(pair, data, energy, {std::log(2 * std::acos(-1.0)), true}, options);
  }

  Context context_;
  NetworkOnDevice energy_{
      context_, network_of(2, {LinearSpec{.features = 1, .weight_gain = 0, .bias_bound = 0}, ConfinementSpec{}}),
      DType::f64};
  NetworkOnDevice generator_{
      context_, network_of(2, {LinearSpec{.features = 2, .bias_bound = 0, .identity_start = true}}), DType::f64};
};

TEST_F(FarEnergiesTest, MassesOfANormalDensity) {
  FarOptions options;
  options.chains = 64;
  const FarEnergies far = energies(options);
  ASSERT_EQ(far.proposals.size(), 6u);
  EXPECT_EQ(far.chains, 64);
  EXPECT_EQ(far.not_finite, 0);
  EXPECT_EQ(far.chains_in_far_wells, 0);
  const double log_z = std::log(2 * std::acos(-1.0));
  // Deviations are 0.7: the box of +-2 holds 91 % of the mass, both normal proposals and the wider boxes all of it.
  for (const BroadProposal& p : far.proposals) {
    if (!p.log_mass || p.effective_points() < 30) continue;
    const double truth = p.covers || p.widening > 2 ? log_z : log_z + 2 * std::log(std::erf(2 / std::sqrt(2.0)));
    EXPECT_NEAR(p.log_mass->estimate, truth, 4.5 * p.log_mass->standard_error) << p.name;
    EXPECT_LT(p.far_share, 0.01) << p.name;
    EXPECT_LE(p.far_share_lower, p.far_share);
    EXPECT_GE(p.far_share_upper, p.far_share);
  }
  EXPECT_GT(far.proposals[1].effective_points(), 100);
  EXPECT_GT(far.proposals[5].energy_median, 1e4);
}

TEST_F(FarEnergiesTest, BadInput) {
  FarOptions options;
  options.points = 1;
  EXPECT_THROW(energies(options), InvalidArgument);
  options = {};
  options.steps = 0;
  EXPECT_THROW(energies(options), InvalidArgument);
  const NetworkPair pair{context_, energy_.network(), energy_.parameters(), generator_.network(),
                         generator_.parameters()};
  EXPECT_THROW(energies_far_away(pair, {}, {}, {}, {}), InvalidArgument);
  // An energy that is not a number anywhere has no mass and starts no chain.
  energy_.set_values(std::vector<double>(energy_.values().size(), std::nan("")));
  options = {};
  options.points = 100;
  const FarEnergies far = energies(options);
  EXPECT_EQ(far.not_finite, 600);
  EXPECT_EQ(far.chains, 0);
  for (const BroadProposal& p : far.proposals) {
    EXPECT_FALSE(p.log_mass);
    EXPECT_EQ(p.far_share_upper, 1);
  }
}

// What n effective points did not see may still be there.
TEST_F(FarEnergiesTest, NoMassSeenIsAShareWithABound) {
  FarOptions options;
  options.chains = 0;
  int unseen = 0;
  for (const std::int64_t points : {64, 256, 4096}) {
    options.points = points;
    for (const BroadProposal& p : energies(options).proposals) {
      if (!p.log_mass) continue;
      const double resolution = std::min(1.0, std::log(1000.0) / p.effective_points());  // 1 - 0.999
      EXPECT_GE(p.far_share_upper, resolution * (1 - 1e-12)) << p.name;
      if (p.log_far_mass) continue;
      EXPECT_NEAR(p.far_share_upper, resolution, 1e-12) << p.name;
      ++unseen;
    }
  }
  EXPECT_GT(unseen, 0);
}

TEST(GaussianOf, MeanCovarianceAndConstantColumns) {
  const std::vector<double> points = {1, 5, 3, 5, 5, 5, 3, 5};  // mean 3, 5; variance 2, 0
  const GaussianBase diagonal = gaussian_of(points, 4, 2, 2, true);
  EXPECT_EQ(diagonal.mean, (std::vector<double>{3, 5}));
  ASSERT_EQ(diagonal.factor.size(), 2u);
  EXPECT_NEAR(diagonal.factor[0], 2 * std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(diagonal.factor[1], 2 * 1e-3, 1e-12);  // a thousandth of the root of the mean variance, 1
  const std::vector<double> tilted = {0, 0, 2, 2, 4, 0, 2, -2};
  const GaussianBase full = gaussian_of(tilted, 4, 2, 1, false);
  ASSERT_EQ(full.factor.size(), 4u);
  EXPECT_NEAR(full.factor[0], std::sqrt(2.0), 1e-5);
  EXPECT_EQ(full.factor[1], 0);
  EXPECT_NEAR(full.factor[2], 0, 1e-12);
  EXPECT_NEAR(full.factor[3], std::sqrt(2.0), 1e-5);
  const GaussianBase constant = gaussian_of(std::vector<double>(6, 7), 3, 2, 1, false);
  EXPECT_GT(constant.factor[3], 0);
}

}  // namespace
}  // namespace bracket
