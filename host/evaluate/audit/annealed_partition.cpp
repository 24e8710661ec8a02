#include "host/evaluate/audit/annealed_partition.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <variant>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Cholesky>

#include "host/evaluate/audit/audit_streams.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

constexpr double kWidening = 1.25;
constexpr std::int64_t kMostFullColumns = 64;  // a full covariance costs D^2 per point and needs many times D rows
constexpr std::int64_t kGenerated = 4096;      // points that the base is measured on
// Transitions of the chains that back chains start from, per temperature of the schedule and within limits.
constexpr std::int64_t kEquilibration = 10, kLeastEquilibration = 20, kMostEquilibration = 200;
constexpr double kLeastVariance = 1e-6;  // of a column, as a share of the mean variance

}  // namespace

PotentialFunction latent_potential(const NetworkPair& pair) {
  return
      [&pair](std::span<const double> z, std::int64_t rows, std::span<double> potential, std::span<double> gradient) {
        const GeneratedPoints points = generated_points(pair, z, rows);
        const auto d = static_cast<std::size_t>(pair.generator.input_size());
        const double normaliser = 0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi);
        for (std::size_t i = 0; i < points.phi.size(); ++i) potential[i] = points.phi[i] + normaliser;
        for (std::size_t i = 0; i < z.size(); ++i) {
          gradient[i] = points.phi_gradient[i] + z[i];
          potential[i / d] += 0.5 * z[i] * z[i];
        }
      };
}

GaussianBase gaussian_of(std::span<const double> points, std::int64_t rows, std::int64_t cols, double widening,
                         bool diagonal) {
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Rows> x(points.data(), rows, cols);
  const Eigen::RowVectorXd mean = x.colwise().mean();
  const Rows centred = x.rowwise() - mean;
  const double n = static_cast<double>(rows);
  Eigen::VectorXd variance = centred.colwise().squaredNorm().transpose() / n;
  const double typical = variance.mean() > 0 ? variance.mean() : 1;
  GaussianBase base;
  base.mean.assign(mean.begin(), mean.end());
  if (!diagonal) {
    Eigen::MatrixXd covariance = centred.transpose() * centred / n;
    covariance.diagonal().array() += kLeastVariance * typical;
    const Rows factor = widening * covariance.llt().matrixL().toDenseMatrix();
    base.factor.assign(factor.data(), factor.data() + factor.size());
    return base;
  }
  for (const double v : variance) base.factor.push_back(widening * std::sqrt(std::max(v, kLeastVariance * typical)));
  return base;
}

AnnealedPartition annealed_partition(Context& context, const GaussianBase& base, const PotentialFunction& target,
                                     std::span<const double> start, const PartitionOptions& options) {
  AnnealedPartition result;
  result.chains = options.chains;
  AnnealingOptions annealing;
  annealing.temperatures = options.temperatures;
  annealing.seed = options.seed;
  const AnnealingSchedule schedule = plan_annealing(context, base, target, annealing);
  const AnnealedChains forward = anneal_forward(context, base, target, schedule, options.chains, annealing);
  result.temperatures = static_cast<std::int64_t>(schedule.temperature.size());
  result.acceptance = forward.acceptance;
  result.forward = log_mean_interval(forward.log_weight, options.confidence);

  const std::int64_t steps = std::clamp(kEquilibration * result.temperatures, kLeastEquilibration, kMostEquilibration);
  const AnnealedChains settled =
      run_target_chains(context, base, target, schedule, start, options.chains, steps, annealing);
  const AnnealedChains back = anneal_back(context, base, target, schedule, settled.states, options.chains, annealing);
  const LogMeanInterval inverse = log_mean_interval(back.log_weight, options.confidence);
  result.above = -inverse.estimate;
  result.above_standard_error = inverse.standard_error;
  result.back_ess = inverse.ess;
  result.interval_holds = result.effective_chains() >= kLeastEffectiveChains;
  result.lower = result.interval_holds ? result.forward.lower : result.forward.markov_lower;
  result.upper = result.interval_holds ? std::max(result.forward.upper, -inverse.lower) : HUGE_VAL;
  return result;
}

AnnealedPartition annealed_in_latent_space(const NetworkPair& pair, const PartitionOptions& options) {
  const std::int64_t d = pair.generator.input_size();
  const GaussianBase base{std::vector<double>(static_cast<std::size_t>(d)),
                          std::vector<double>(static_cast<std::size_t>(d), 1)};
  const std::vector<double> start =
      normal_values({options.seed, RandomStream::evaluation, kBackStartStep}, options.chains * d);
  AnnealedPartition result = annealed_partition(pair.context, base, latent_potential(pair), start, options);
  result.latent = true;
  return result;
}

AnnealedPartition annealed_in_data_space(const NetworkPair& pair, std::span<const double> data, std::int64_t data_rows,
                                         const PartitionOptions& options) {
  const std::int64_t cols = pair.energy.input_size(), rows = std::max(kGenerated, options.chains);
  const std::vector<double> z =
      normal_values({options.seed, RandomStream::evaluation, kBackStartStep}, rows * pair.generator.input_size());
  std::vector<double> points = network_outputs(pair.context, pair.generator, pair.generator_parameters, z, rows);
  std::vector<double> start(points.begin(), points.begin() + options.chains * cols);
  for (std::int64_t i = 1; i < options.chains && i / 2 < data_rows; i += 2)
    std::copy_n(data.begin() + i / 2 * cols, cols, start.begin() + i * cols);
  points.insert(points.end(), data.begin(), data.end());
  const GaussianBase base = gaussian_of(points, rows + data_rows, cols, kWidening, cols > kMostFullColumns);
  return annealed_partition(pair.context, base, network_potential(pair.context, {pair.energy, pair.energy_parameters}),
                            start, options);
}

bool onto_if_injective(const std::vector<LayerSpec>& layers) {
  return std::all_of(layers.begin(), layers.end(), [](const LayerSpec& layer) {
    if (const auto* activation = std::get_if<ActivationSpec>(&layer))
      return activation->function != Activation::tanh && activation->function != Activation::sigmoid &&
             activation->function != Activation::softplus;
    // y = s(x) + b(x), b of a smaller Lipschitz constant than s stretches by: x = s^-1(y - b(x)) is a contraction.
    if (const auto* residual = std::get_if<ResidualSpec>(&layer)) return onto_if_injective(residual->skip);
    return true;
  });
}

}  // namespace bracket
