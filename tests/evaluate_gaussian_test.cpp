// Linear generator, Gaussian energy, D = d: every bound has a closed form, the upper one with
// rho = lambda_min(J^T A J).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <string>

#include "bracket/bounds.h"
#include "host/evaluate/gaussian.h"
#include "tests/network_fixture.h"
#include "tests/reference_algebra.h"

namespace bracket {
namespace {

using test::NetworkOnDevice;

constexpr double kQuadratic = 1.3;

// u = W x + b, E = quadratic / 2 |u|^2 + a . u + c.
NetworkSpec gaussian_energy(std::int64_t dimension, double wall = 0) {
  NetworkSpec spec;
  spec.input_size = dimension;
  spec.layers = {LinearSpec{.features = dimension}, LinearSpec{.features = 1},
                 ConfinementSpec{.input_layer = 0, .quadratic = kQuadratic, .wall = wall, .radius = 3}};
  return spec;
}

// x = J z + shift behind an affine map of the columns and an activation that does nothing.
NetworkSpec linear_generator(std::int64_t latent, std::int64_t dimension) {
  NetworkSpec spec;
  spec.input_size = latent;
  const auto n = static_cast<std::size_t>(latent);
  spec.layers = {AffineSpec{std::vector<double>(n, 0.5), std::vector<double>(n, 0.25)},
                 ActivationSpec{Activation::identity}, LinearSpec{.features = dimension}};
  return spec;
}

class Randomness {
 public:
  explicit Randomness(std::uint64_t seed) : engine_(seed) {}
  double normal() { return normal_(engine_); }
  double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(engine_); }
  Eigen::VectorXd vector(std::int64_t n) {
    Eigen::VectorXd v(n);
    for (double& value : v) value = normal();
    return v;
  }
  Eigen::MatrixXd orthogonal(std::int64_t n) {
    Eigen::MatrixXd m(n, n);
    for (std::int64_t i = 0; i < n; ++i) m.row(i) = vector(n);
    return test::orthonormal_factor(m);
  }
  // Singular values in [0.3, 3].
  Eigen::MatrixXd matrix(std::int64_t n) {
    Eigen::VectorXd s(n);
    for (double& value : s) value = std::exp(uniform(std::log(0.3), std::log(3.0)));
    return orthogonal(n) * s.asDiagonal() * orthogonal(n);
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

void put(const Network& network, std::vector<double>& block, const std::string& name, const Eigen::MatrixXd& value) {
  const auto info = std::find_if(network.parameters().begin(), network.parameters().end(),
                                 [&](const ParameterInfo& p) { return p.name == name; });
  ASSERT_NE(info, network.parameters().end()) << name;
  ASSERT_EQ(info->size(), value.size()) << name;
  for (std::int64_t i = 0; i < value.rows(); ++i)
    for (std::int64_t j = 0; j < value.cols(); ++j)
      block[static_cast<std::size_t>(info->offset + i * value.cols() + j)] = value(i, j);
}

struct GaussianCase {
  Eigen::MatrixXd w, j;
  Eigen::VectorXd b, a, shift;
  double c = 0;
};

// One case in ten has the generator that makes p_g = p, where all bounds meet.
GaussianCase random_case(Randomness& random, std::int64_t n, bool perfect) {
  GaussianCase g{random.matrix(n), {}, random.vector(n), random.vector(n), random.vector(n), random.normal()};
  if (perfect) {
    g.j = test::inverse_of(g.w) * random.orthogonal(n) / std::sqrt(kQuadratic);
    g.shift = test::inverse_of(g.w) * (-g.b - g.a / kQuadratic);
  } else {
    g.j = random.matrix(n);
  }
  return g;
}

void load(const GaussianCase& g, NetworkOnDevice& energy, NetworkOnDevice& generator) {
  std::vector<double> values = energy.values();
  put(energy.network(), values, "layers.0.weight", g.w);
  put(energy.network(), values, "layers.0.bias", g.b);
  put(energy.network(), values, "layers.1.weight", g.a.transpose());
  put(energy.network(), values, "layers.1.bias", Eigen::MatrixXd::Constant(1, 1, g.c));
  energy.set_values(values);
  // x = M (z / 2 + 1/4) + bias with M = 2 J and bias = shift - J (1/2) 1.
  values = generator.values();
  put(generator.network(), values, "layers.2.weight", 2 * g.j);
  put(generator.network(), values, "layers.2.bias", g.shift - g.j * Eigen::VectorXd::Constant(g.j.cols(), 0.5));
  generator.set_values(values);
}

TEST(GaussianPair, LowerExactAndUpperAreInOrderInTenThousandCases) {
  constexpr int kCasesPerDimension = 1667;  // times six dimensions: 10,002
  Randomness random(test::test_seed());
  int proved = 0;
  double least_lower_slack = 1, least_upper_slack = 1;
  for (std::int64_t n = 1; n <= 6; ++n) {
    Context context;
    NetworkOnDevice energy(context, gaussian_energy(n), DType::f64);
    NetworkOnDevice generator(context, linear_generator(n, n), DType::f64);
    const NetworkPair pair{context, energy.network(), energy.parameters(), generator.network(), generator.parameters()};
    for (int k = 0; k < kCasesPerDimension; ++k) {
      const GaussianCase g = random_case(random, n, k % 10 == 0);
      ASSERT_NO_FATAL_FAILURE(load(g, energy, generator));
      const auto found = gaussian_pair(pair);
      ASSERT_TRUE(found) << "dimension " << n << ", case " << k;
      ++proved;

      const auto dimension = static_cast<double>(n);
      const Eigen::MatrixXd precision = kQuadratic * g.j.transpose() * g.w.transpose() * g.w * g.j;
      const Eigen::VectorXd slope =
          g.j.transpose() * g.w.transpose() * (kQuadratic * (g.w * g.shift + g.b) + g.a);  // grad E(G(z)) at z = 0
      const Eigen::VectorXd spectrum = test::eigenvalues_of(precision);
      const double rho = spectrum(0);
      const Eigen::VectorXd u = g.w * random.vector(n) + g.b;
      const double energy_data = kQuadratic / 2 * u.squaredNorm() + g.a.dot(u) + g.c;
      const double log_z = 0.5 * dimension * std::log(2 * std::numbers::pi / kQuadratic) -
                           test::log_abs_determinant(g.w) + g.a.squaredNorm() / (2 * kQuadratic) - g.c;
      const double exact = energy_data + log_z;
      const double lower = energy_data - found->mean_phi;
      const double upper = upper_bound(lower, found->penalty, found->log_sobolev_constant);

      // KL(N(0, I) || N(m, B^-1)) with B m = -slope.
      const double kl = 0.5 * (precision.trace() - dimension - spectrum.array().log().sum() +
                               slope.dot(test::solve(precision, slope)));
      const Eigen::MatrixXd residual = precision - Eigen::MatrixXd::Identity(n, n);
      const double penalty = 0.5 * (residual.squaredNorm() + slope.squaredNorm());
      // 1e-10 relative to the largest summand, 1e6 roundings: far more than the few hundred operations behind each.
      ASSERT_NEAR(exact - lower, kl, 1e-10 * (1 + std::abs(exact) + kl)) << "dimension " << n << ", case " << k;
      ASSERT_NEAR(found->penalty, penalty, 1e-10 * (1 + penalty));
      ASSERT_NEAR(found->log_sobolev_constant, rho, 1e-9 * precision.norm() + 1e-10 * slope.norm());
      ASSERT_LE(found->log_sobolev_constant, rho);

      ASSERT_LE(lower, exact + 1e-10) << "dimension " << n << ", case " << k;
      ASSERT_LE(exact, upper + 1e-10) << "dimension " << n << ", case " << k;
      least_lower_slack = std::min(least_lower_slack, exact - lower);
      least_upper_slack = std::min(least_upper_slack, upper - exact);
    }
  }
  EXPECT_GE(proved, 10000);
  // The perfect generators make both bounds tight, so an order kept by loose bounds alone would show here.
  EXPECT_LT(least_lower_slack, 1e-12);
  EXPECT_LT(least_upper_slack, 1e-12);
  RecordProperty("least_lower_slack", std::to_string(least_lower_slack));
}

class Unproved : public ::testing::Test {
 protected:
  std::optional<GaussianPair> pair_of(NetworkSpec energy_spec, NetworkSpec generator_spec) {
    Context context;
    NetworkOnDevice energy(context, std::move(energy_spec), DType::f64);
    NetworkOnDevice generator(context, std::move(generator_spec), DType::f64);
    return gaussian_pair({context, energy.network(), energy.parameters(), generator.network(), generator.parameters()});
  }
};

TEST_F(Unproved, TheBaseCaseIsProved) { EXPECT_TRUE(pair_of(gaussian_energy(2), linear_generator(2, 2))); }

TEST_F(Unproved, AManifold) { EXPECT_FALSE(pair_of(gaussian_energy(3), linear_generator(2, 3))); }

TEST_F(Unproved, AWall) { EXPECT_FALSE(pair_of(gaussian_energy(2, 25), linear_generator(2, 2))); }

TEST_F(Unproved, ANonLinearGenerator) {
  NetworkSpec generator = linear_generator(2, 2);
  generator.layers.push_back(ActivationSpec{Activation::leaky_relu});
  EXPECT_FALSE(pair_of(gaussian_energy(2), generator));
  generator = linear_generator(2, 2);
  generator.layers.push_back(MonotoneCouplingSpec{});
  EXPECT_FALSE(pair_of(gaussian_energy(2), generator));
}

TEST_F(Unproved, ANonLinearEnergy) {
  NetworkSpec energy = gaussian_energy(2);
  energy.layers[1] = ActivationSpec{Activation::silu};
  energy.layers.insert(energy.layers.begin() + 2, LinearSpec{.features = 1});
  EXPECT_FALSE(pair_of(energy, linear_generator(2, 2)));
}

TEST_F(Unproved, AQuarticEnergy) {
  NetworkSpec energy = gaussian_energy(2);
  energy.layers.push_back(ConfinementSpec{.input_layer = 2, .quadratic = 1});  // |u|^2 of the quadratic before it
  EXPECT_FALSE(pair_of(energy, linear_generator(2, 2)));
}

TEST_F(Unproved, ALinearEnergyOrOneThatOpensDownwards) {
  NetworkSpec energy = gaussian_energy(2);
  energy.layers.pop_back();
  EXPECT_FALSE(pair_of(energy, linear_generator(2, 2)));
  energy = gaussian_energy(2);
  energy.layers.push_back(LinearSpec{.features = 1});  // times -1 below
  Context context;
  NetworkOnDevice downwards(context, energy, DType::f64);
  NetworkOnDevice generator(context, linear_generator(2, 2), DType::f64);
  std::vector<double> values = downwards.values();
  put(downwards.network(), values, "layers.3.weight", Eigen::MatrixXd::Constant(1, 1, -1));
  downwards.set_values(values);
  EXPECT_FALSE(gaussian_pair(
      {context, downwards.network(), downwards.parameters(), generator.network(), generator.parameters()}));
}

TEST_F(Unproved, AGeneratorThatFlattensOneDirection) {
  Context context;
  NetworkOnDevice energy(context, gaussian_energy(2), DType::f64);
  NetworkOnDevice generator(context, linear_generator(2, 2), DType::f64);
  Randomness random(3);
  GaussianCase g = random_case(random, 2, false);
  g.j.col(1) = 2 * g.j.col(0);
  ASSERT_NO_FATAL_FAILURE(load(g, energy, generator));
  EXPECT_FALSE(
      gaussian_pair({context, energy.network(), energy.parameters(), generator.network(), generator.parameters()}));
}

}  // namespace
}  // namespace bracket
