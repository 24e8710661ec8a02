#include "host/evaluate/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

#include "bracket/bounds.h"
#include "bracket/error.h"
#include "host/core/text.h"
#include "host/data/gaussian_mixture.h"
#include "host/evaluate/gaussian.h"
#include "host/evaluate/generated_points.h"
#include "host/evaluate/log_sum.h"
#include "host/evaluate/modes.h"
#include "host/evaluate/warnings.h"
#include "host/toy_density.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

constexpr std::uint64_t kLatentStep = 1;  // of stream `evaluation`; step 0 makes the test points

// Of a mixture's entropy: samples, of a set that is neither its training nor its test rows.
constexpr std::int64_t kMixtureSamples = 20000;
constexpr std::uint64_t kMixtureSet = 2, kMixtureTestSet = 3;  // 0 and 1 are the named splits

void check(const Trainer& trainer, const Dataset& data, const EvaluationOptions& options) {
  if (options.samples < 2)
    throw InvalidArgument("an evaluation needs at least 2 samples for a standard error, got " +
                          std::to_string(options.samples));
  for (const Dataset* const rows : {&data, options.held_out}) {
    if (rows == nullptr || rows->cols() == trainer.energy_network().input_size()) continue;
    throw InvalidArgument((rows == &data ? "the data has " : "the held-out rows have ") + std::to_string(rows->cols()) +
                          " columns, the energy reads " + std::to_string(trainer.energy_network().input_size()));
  }
}

void require_finite(std::span<const double> energies, const char* where) {
  const auto bad = std::find_if(energies.begin(), energies.end(), [](double e) { return !std::isfinite(e); });
  if (bad == energies.end()) return;
  throw Diverged("the energy of " + std::string(where) + " " + std::to_string(bad - energies.begin()) + " is " +
                     fixed_number(*bad, 6) + "; evaluate an earlier checkpoint",
                 "energy", 0);
}

// Effective share of the samples behind mean exp(-phi): (sum w)^2 / (n sum w^2), w = exp(-phi).
double effective_share(std::span<const double> phi, double log_sum) {
  LogSum squares;
  for (const double value : phi) squares.add(-2 * value);
  return std::exp(2 * log_sum - squares.value()) / static_cast<double>(phi.size());
}

// Bounds from the latents' phi, and how much of its variance comes from one latent.
double add_bounds(Evaluation& e, const GeneratedPoints& points) {
  const SampleMoments phi = sample_moments(points.phi);
  if (!std::isfinite(phi.variance)) return 0;  // a singular Jacobian somewhere: everything below is undefined
  double largest_deviation = 0;
  e.max_abs_phi = 0;
  for (const double value : points.phi) {
    e.max_abs_phi = std::max(*e.max_abs_phi, std::abs(value));
    largest_deviation = std::max(largest_deviation, std::abs(value - phi.mean));
  }
  if (const double penalty = points.penalty(); std::isfinite(penalty)) e.penalty = penalty;
  const double lower = e.energy_data - phi.mean;
  if (e.data_dimension > e.latent_dimension) {
    e.lower_bound_on_manifold = lower;
    return 0;
  }
  e.lower_bound = lower;
  const double loose = e.energy_data - sample_moments(points.phi_min_singular).mean;
  if (std::isfinite(loose)) e.lower_bound_min_singular = loose;
  e.upper_estimate = upper_estimate(lower, phi.variance);
  e.gap_standard_error = phi.standard_error;
  std::vector<double> log_weights = points.phi;
  for (double& value : log_weights) value = -value;
  LogSum log_sum;
  log_sum.add(log_weights);
  e.nll_importance = e.energy_data + log_sum.value() - std::log(static_cast<double>(points.phi.size()));
  e.ess = effective_share(points.phi, log_sum.value());
  const double squares = phi.variance * static_cast<double>(points.phi.size() - 1);
  return squares > 0 ? largest_deviation * largest_deviation / squares : 0;
}

void add_exact(Evaluation& e, const Quadrature& quadrature) {
  e.log_z = quadrature.log_z;
  e.log_z_error = quadrature.error;
  e.edge_mass = quadrature.edge_mass;
  e.mass_outside = quadrature.mass_outside;
  e.nll_exact = e.energy_data + quadrature.log_z;
  if (!e.lower_bound) return;
  e.gap = *e.nll_exact - *e.lower_bound;
  e.bracket_ok = *e.lower_bound - 3 * *e.gap_standard_error - quadrature.error <= *e.nll_exact;
}

void add_known_density(Evaluation& e, const ToyDensity& density, std::span<const double> test,
                       std::span<const double> energies, std::span<const double> generated) {
  e.data_entropy = density.entropy();
  if (e.log_z) {
    double log_ratio = 0;
    const std::vector<double> log_data = density.log_densities(test);
    for (std::size_t i = 0; i < log_data.size(); ++i) log_ratio += log_data[i] + energies[i];
    e.kl_data_to_model = log_ratio / static_cast<double>(log_data.size()) + *e.log_z;
  }
  if (density.mode_centres().empty()) return;
  const ModeCoverage coverage = mode_coverage(generated, density.mode_centres(), density.mode_deviation());
  e.modes = static_cast<std::int64_t>(density.mode_centres().size());
  e.modes_found = coverage.found;
  e.high_quality_fraction = coverage.high_quality_fraction;
  e.mode_histogram_kl = coverage.histogram_kl;
}

}  // namespace

Evaluation evaluate(Trainer& trainer, const Dataset& data, const EvaluationOptions& options) {
  check(trainer, data, options);
  const NetworkPair pair{trainer.context(), trainer.energy_network(), trainer.energy_parameters(options.weights),
                         trainer.generator_network(), trainer.generator_parameters(options.weights)};
  Evaluation e;
  e.step = trainer.step();
  e.data = data.name();
  e.weights = options.weights;
  e.latents = options.samples;
  const Dataset& tested = options.held_out != nullptr ? *options.held_out : data;
  e.test_points = tested.is_density() ? options.samples : std::min(options.samples, tested.rows());
  if (options.held_out != nullptr) e.test_data = tested.name();
  const auto mixture = GaussianMixture::named(tested.name());  // its rows are drawn anew
  e.test_points_are_training_rows = options.held_out == nullptr && !data.is_density() && !mixture;
  if (mixture) e.test_points = options.samples;
  e.data_dimension = data.cols();
  e.latent_dimension = pair.generator.input_size();
  e.injective_by_construction = pair.generator.injective_by_construction();
  e.injectivity = certify_injective(pair.context, pair.generator, pair.generator_parameters);

  const std::vector<double> test = mixture ? mixture->sample(e.test_points, kMixtureTestSet + options.seed % 50000)
                                           : tested.sample(e.test_points, options.seed);
  const std::vector<double> energies = trainer.energies(test, e.test_points, options.weights);
  require_finite(energies, "test point");
  const SampleMoments energy = sample_moments(energies);
  e.energy_data = energy.mean;
  e.energy_data_standard_error = energy.standard_error;

  const std::vector<double> z =
      normal_values({options.seed, RandomStream::evaluation, kLatentStep}, e.latents * e.latent_dimension);
  const GeneratedPoints points = generated_points(pair, z, e.latents);
  require_finite(points.energy, "generated point");
  const double variance_share = add_bounds(e, points);
  if (const auto quadrature =
          log_partition(trainer, data.statistics(options.seed), options.weights, options.quadrature))
    add_exact(e, *quadrature);
  if (const auto gaussian = gaussian_pair(pair)) {
    const double lower = e.energy_data - gaussian->mean_phi;
    e.upper_bound = upper_bound(lower, gaussian->penalty, gaussian->log_sobolev_constant);
  }
  if (e.data_dimension == e.latent_dimension && e.data_dimension <= 2) {
    e.fold_tolerance = fold_tolerance(options.folding, pair.generator.dtype());
    e.fold_separation = options.folding.separation;
    e.fold_fraction =
        fold_fraction(pair.context, pair.generator, pair.generator_parameters, options.seed, options.folding);
  }
  if (tested.is_density())
    add_known_density(e, ToyDensity(static_cast<ToyData>(tested.density_index())), test, energies, points.x);
  if (mixture) e.data_entropy = mixture->entropy(kMixtureSamples, kMixtureSet).value;
  e.warnings = evaluation_warnings(e, variance_share);
  e.calibrated = e.nll_exact && e.bracket_ok && *e.bracket_ok && e.warnings.empty();
  return e;
}

}  // namespace bracket
