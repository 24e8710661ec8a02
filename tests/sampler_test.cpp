// The Langevin sampler on Gaussians, where every expectation is known.
#include "bracket/sampler.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <random>
#include <vector>

#include "bracket/error.h"
#include "tests/network_fixture.h"

namespace bracket {
namespace {

using test::NetworkOnDevice;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double kQuadratic = 2.5;
// Two-sided probability 7e-6 of one comparison; a few dozen are made, under fixed seeds.
constexpr double kDeviations = 4.5;

// E(x) = a . x + c + q / 2 |x|^2: N(-a / q, I / q).
NetworkSpec gaussian(std::int64_t dimension) {
  NetworkSpec spec;
  spec.input_size = dimension;
  spec.layers = {LinearSpec{.features = 1}, ConfinementSpec{.quadratic = kQuadratic}};
  return spec;
}

NetworkSpec linear_generator(std::int64_t latent, std::int64_t dimension) {
  NetworkSpec spec;
  spec.input_size = latent;
  spec.layers = {LinearSpec{.features = dimension, .weight_gain = 2}};
  return spec;
}

Eigen::VectorXd parameter(const NetworkOnDevice& n, const std::string& name) {
  const std::vector<double> values = n.values_of("layers.0." + name);
  return Eigen::Map<const Eigen::VectorXd>(values.data(), static_cast<std::int64_t>(values.size()));
}

// Rows of N(mean, covariance).
Rows exact_start(const Eigen::VectorXd& mean, const Eigen::MatrixXd& covariance, std::int64_t count,
                 std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  Rows x(count, mean.size());
  for (double& value : x.reshaped()) value = normal(engine);
  const Eigen::MatrixXd root = covariance.llt().matrixL();
  x = x * root.transpose();
  x.rowwise() += mean.transpose();
  return x;
}

std::span<const double> span_of(const Rows& x) { return {x.data(), static_cast<std::size_t>(x.size())}; }

Rows states_of(const MalaResult& result, std::int64_t cols) {
  return Eigen::Map<const Rows>(result.states.data(), static_cast<std::int64_t>(result.states.size()) / cols, cols);
}

// Chains that start in the target are in it after any number of steps, independent of one another: sample means have
// deviation sqrt(S_jj / n), covariances sqrt((S_jj S_kk + S_jk^2) / n).
void expect_distributed(const Rows& x, const Eigen::VectorXd& mean, const Eigen::MatrixXd& covariance) {
  const auto n = static_cast<double>(x.rows());
  const Rows centred = x.rowwise() - mean.transpose();
  for (std::int64_t j = 0; j < x.cols(); ++j) {
    EXPECT_NEAR(centred.col(j).mean(), 0, kDeviations * std::sqrt(covariance(j, j) / n)) << j;
    for (std::int64_t k = 0; k <= j; ++k) {
      const double deviation =
          std::sqrt((covariance(j, j) * covariance(k, k) + covariance(j, k) * covariance(j, k)) / n);
      EXPECT_NEAR(centred.col(j).dot(centred.col(k)) / n, covariance(j, k), kDeviations * deviation) << j << ", " << k;
    }
  }
}

class Sampler : public ::testing::TestWithParam<DType> {};

TEST_P(Sampler, KeepsAGaussianInDataSpace) {
  constexpr std::int64_t kChains = 4001, kCols = 3;
  Context context;
  NetworkOnDevice energy(context, gaussian(kCols), GetParam());
  const Eigen::VectorXd mean = -parameter(energy, "weight") / kQuadratic;
  const Eigen::MatrixXd covariance = Eigen::MatrixXd::Identity(kCols, kCols) / kQuadratic;
  const Rows start = exact_start(mean, covariance, kChains, 1);
  MalaOptions options{.steps = 20, .adaptation_steps = 0, .step_size = 1.2 / std::sqrt(kQuadratic), .seed = 5};
  const MalaResult result =
      sample_mala(context, {energy.network(), energy.parameters()}, span_of(start), kChains, options);
  const Rows end = states_of(result, kCols);
  // Without the acceptance test the variance would be 1 / (1 - 1.2^2 / 4) = 1.56 times too large, 25 deviations.
  expect_distributed(end, mean, covariance);
  EXPECT_GT(result.acceptance, 0.3);
  EXPECT_LT(result.acceptance, 0.95);
  EXPECT_DOUBLE_EQ(result.step_size, options.step_size);  // a mean over equal ones
  EXPECT_GT((end - start).rowwise().norm().minCoeff(), 0) << "a chain never moved in 20 steps";
  const std::vector<double> energies =
      network_outputs(context, energy.network(), energy.parameters(), result.states, kChains);
  EXPECT_EQ(result.potential, energies);
}

TEST_P(Sampler, KeepsAGaussianInLatentSpace) {
  constexpr std::int64_t kChains = 4000, kLatent = 2, kCols = 3;
  Context context;
  NetworkOnDevice energy(context, gaussian(kCols), GetParam());
  NetworkOnDevice generator(context, linear_generator(kLatent, kCols), GetParam());
  const Eigen::VectorXd slope = parameter(energy, "weight"), flat = parameter(generator, "weight"),
                        shift = parameter(generator, "bias");
  const Eigen::MatrixXd j = Eigen::Map<const Rows>(flat.data(), kCols, kLatent);
  // U(z) = q/2 |J z + b|^2 + a . (J z + b) + |z|^2 / 2.
  const Eigen::MatrixXd precision = kQuadratic * j.transpose() * j + Eigen::MatrixXd::Identity(kLatent, kLatent);
  const Eigen::VectorXd mean = precision.llt().solve(-j.transpose() * (kQuadratic * shift + slope));
  const Rows start = exact_start(mean, precision.inverse(), kChains, 2);
  const SamplerTarget target{energy.network(), energy.parameters(), &generator.network(), generator.parameters()};
  const MalaResult result = sample_mala(context, target, span_of(start), kChains,
                                        {.steps = 20, .adaptation_steps = 0, .step_size = 0.7, .seed = 6});
  const Rows end = states_of(result, kLatent);
  expect_distributed(end, mean, precision.inverse());
  EXPECT_GT(result.acceptance, 0.3);
  EXPECT_GT((end - start).rowwise().norm().minCoeff(), 0);
  const Eigen::VectorXd z = end.row(0).transpose(), x = j * z + shift;
  const double c = parameter(energy, "bias")(0);
  const double potential = kQuadratic / 2 * x.squaredNorm() + slope.dot(x) + c + z.squaredNorm() / 2;
  // A few dozen operations in the precision of the networks.
  EXPECT_NEAR(result.potential[0], potential, (GetParam() == DType::f32 ? 1e-5 : 1e-13) * (1 + std::abs(potential)));
}

TEST_P(Sampler, IsInDetailedBalance) {
  // In equilibrium the pair (x, next x) is exchangeable: E[f(x) g(x')] = E[g(x) f(x')], here f = x, g = x^3 and x^2.
  constexpr std::int64_t kChains = 20000;
  Context context;
  NetworkOnDevice energy(context, gaussian(1), GetParam());
  const Eigen::VectorXd mean = -parameter(energy, "weight") / kQuadratic;
  const Rows start = exact_start(mean, Eigen::MatrixXd::Constant(1, 1, 1 / kQuadratic), kChains, 3);
  const MalaResult result = sample_mala(context, {energy.network(), energy.parameters()}, span_of(start), kChains,
                                        {.steps = 1, .adaptation_steps = 0, .step_size = 1, .seed = 7});
  const Rows end = states_of(result, 1);
  for (const int power : {2, 3}) {
    double sum = 0, squares = 0;
    for (std::int64_t i = 0; i < kChains; ++i) {
      const double a = start(i, 0) - mean(0), b = end(i, 0) - mean(0);
      const double difference = a * std::pow(b, power) - b * std::pow(a, power);
      sum += difference;
      squares += difference * difference;
    }
    EXPECT_LT(std::abs(sum), kDeviations * std::sqrt(squares)) << "x against x^" << power;
    EXPECT_GT(squares, 0);
  }
}

TEST_P(Sampler, DriftsAlongTheGradient) {
  // Any drift leaves the target invariant, but with step e the mean refusal is of order e^3 for grad U alone: some
  // (e p)^2 / 8 |x^2 - y^2| = 1e-5 for e = 0.01 and precisions p up to 10; of order e |wrong part| / 5 = 1e-3
  // otherwise.
  constexpr std::int64_t kChains = 500, kLatent = 2, kCols = 3;
  Context context;
  NetworkOnDevice energy(context, gaussian(kCols), GetParam());
  NetworkOnDevice generator(context, linear_generator(kLatent, kCols), GetParam());
  const SamplerTarget data{energy.network(), energy.parameters()};
  const SamplerTarget latent{energy.network(), energy.parameters(), &generator.network(), generator.parameters()};
  for (const SamplerTarget& target : {data, latent}) {
    const std::int64_t cols = target.dimension();
    const Rows start = exact_start(Eigen::VectorXd::Zero(cols), Eigen::MatrixXd::Identity(cols, cols), kChains, 4);
    const MalaResult result = sample_mala(context, target, span_of(start), kChains,
                                          {.steps = 20, .adaptation_steps = 0, .step_size = 0.01, .seed = 10});
    EXPECT_GT(result.acceptance, 1 - 2e-4) << cols << " columns";
    EXPECT_LT(result.acceptance, 1);
  }
}

TEST_P(Sampler, FindsTheAcceptanceItAimsAtFromAnyFirstStep) {
  constexpr std::int64_t kChains = 128, kCols = 10;
  Context context;
  NetworkOnDevice energy(context, gaussian(kCols), GetParam());
  const Rows start = Rows::Constant(kChains, kCols, 3);  // far out
  double steps[2];
  int i = 0;
  for (const double first : {1e-3, 30.0}) {
    const MalaOptions options{.steps = 400, .adaptation_steps = 300, .step_size = first, .seed = 8};
    const MalaResult result =
        sample_mala(context, {energy.network(), energy.parameters()}, span_of(start), kChains, options);
    // The last changes are of size 300^-0.6 times the deviation of a mean of 128 probabilities, 0.001, and the mean of
    // 100 such steps is as exact; chains correlate over some 10 steps, hence a few times that.
    EXPECT_NEAR(result.acceptance, options.target_acceptance, 0.02) << first;
    steps[i++] = result.step_size;
  }
  EXPECT_NEAR(steps[0] / steps[1], 1, 0.1);
}

TEST_P(Sampler, SameBitsForAnyThreadsAndBlocksDoNotMix) {
  constexpr std::int64_t kChains = 300, kCols = 17;
  const Rows start = Rows::Constant(kChains, kCols, 0.25);
  std::vector<double> states[3];
  for (int run = 0; run < 3; ++run) {
    ContextOptions options;
    options.threads = run + 1;
    Context context(options);
    NetworkOnDevice energy(context, gaussian(kCols), GetParam(), 11);
    const std::int64_t chains = run == 2 ? 128 : kChains;
    states[run] = sample_mala(context, {energy.network(), energy.parameters()},
                              span_of(start).first(static_cast<std::size_t>(chains * kCols)), chains,
                              {.steps = 30, .adaptation_steps = 20, .seed = 9})
                      .states;
  }
  EXPECT_EQ(states[0], states[1]);
  const std::vector<double> head(states[0].begin(), states[0].begin() + 128 * kCols);
  EXPECT_EQ(head, states[2]);
  EXPECT_NE(states[2][0], states[2][kCols]) << "two chains from one place must part";
  Context context;
  NetworkOnDevice energy(context, gaussian(kCols), GetParam(), 11);
  const std::vector<double> tail(states[0].begin() + 128 * kCols, states[0].end());
  EXPECT_EQ(sample_mala(context, {energy.network(), energy.parameters()}, span_of(start).subspan(128 * kCols), 172,
                        {.steps = 30, .adaptation_steps = 20, .seed = 9, .first_chain = 128})
                .states,
            tail);
}

TEST_P(Sampler, RefusesProposalsThatOverflow) {
  Context context;
  NetworkOnDevice energy(context, gaussian(3), GetParam());
  const Rows start = Rows::Constant(5, 3, 0.5);
  const MalaResult result = sample_mala(context, {energy.network(), energy.parameters()}, span_of(start), 5,
                                        {.steps = 3, .adaptation_steps = 0, .step_size = 1e200});
  EXPECT_EQ(result.acceptance, 0);
  EXPECT_EQ(result.states, std::vector<double>(15, 0.5));
}

TEST_P(Sampler, NoChainsAndNoSteps) {
  Context context;
  NetworkOnDevice energy(context, gaussian(3), GetParam());
  const SamplerTarget target{energy.network(), energy.parameters()};
  EXPECT_TRUE(sample_mala(context, target, {}, 0).states.empty());
  const std::vector<double> start(6, 0.5);
  EXPECT_EQ(sample_mala(context, target, start, 2, {.steps = 0, .adaptation_steps = 0}).states, start);
}

TEST_P(Sampler, BadInput) {
  Context context;
  NetworkOnDevice energy(context, gaussian(3), GetParam()), two(context, linear_generator(3, 2), GetParam());
  NetworkOnDevice other(context, linear_generator(2, 3), GetParam() == DType::f32 ? DType::f64 : DType::f32);
  const SamplerTarget target{energy.network(), energy.parameters()};
  const std::vector<double> start(6, 0.5);
  EXPECT_THROW(sample_mala(context, target, start, 3), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, -2), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, 2, {.steps = -1}), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, 2, {.first_chain = 100}), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, 2, {.first_chain = -128}), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, 2, {.steps = 5, .adaptation_steps = 6}), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, 2, {.step_size = 0}), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, 2, {.step_size = std::nan("")}), InvalidArgument);
  EXPECT_THROW(sample_mala(context, target, start, 2, {.target_acceptance = 1}), InvalidArgument);
  EXPECT_THROW(sample_mala(context, {two.network(), two.parameters()}, start, 2), InvalidArgument);
  for (NetworkOnDevice* generator : {&two, &other}) {
    const SamplerTarget latent{energy.network(), energy.parameters(), &generator->network(), generator->parameters()};
    EXPECT_THROW(sample_mala(context, latent, start, 6 / generator->network().input_size()), InvalidArgument);
  }
  std::vector<double> far = start;
  far[4] = std::nan("");
  EXPECT_THROW(sample_mala(context, target, far, 2), Diverged);
}

INSTANTIATE_TEST_SUITE_P(Precisions, Sampler, ::testing::Values(DType::f32, DType::f64),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

}  // namespace
}  // namespace bracket
