#include "host/evaluate/audit/audit.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/evaluate/audit/audit_streams.h"
#include "host/sampling/normal_quantile.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

constexpr std::int64_t kTestPoints = 4096;        // that the base of annealing and broad proposals are measured on
constexpr std::int64_t kSpectrumSamples = 1000;   // and no more singular values than ...
constexpr std::int64_t kSpectrumValues = 200000;  // ... these

}  // namespace

Audit audit(Trainer& trainer, const Dataset& data, const AuditOptions& options) {
  if (options.chains < 2 || !(options.confidence > 0 && options.confidence < 1))
    throw InvalidArgument("an audit needs at least 2 chains and a confidence in (0, 1), got " +
                          std::to_string(options.chains) + " and " + format_number(options.confidence));
  Audit result;
  result.confidence = options.confidence;
  EvaluationOptions evaluation;
  evaluation.samples = options.samples;
  evaluation.seed = options.seed;
  evaluation.weights = options.weights;
  evaluation.held_out = options.held_out;
  result.evaluation = evaluate(trainer, data, evaluation);
  const Evaluation& e = result.evaluation;

  const NetworkPair pair{trainer.context(), trainer.energy_network(), trainer.energy_parameters(options.weights),
                         trainer.generator_network(), trainer.generator_parameters(options.weights)};
  const std::int64_t rows = std::min(e.test_points, kTestPoints);
  const std::vector<double> test = (options.held_out != nullptr ? *options.held_out : data).sample(rows, options.seed);
  PartitionOptions partition;
  partition.chains = options.chains;
  partition.temperatures = options.temperatures;
  partition.confidence = options.confidence;
  partition.seed = options.seed;
  result.annealing = annealed_in_data_space(pair, test, rows, partition);
  if (e.latent_dimension == e.data_dimension && e.injectivity.certified &&
      onto_if_injective(pair.generator.spec().layers))
    result.annealing_in_data_space = std::exchange(result.annealing, annealed_in_latent_space(pair, partition));
  result.nll_annealed = e.energy_data + result.annealing.forward.estimate;
  // Independent errors: ends as far as both together, the confidence of the normal quantile scaled to that of log Z.
  const double quantile = normal_quantile(options.confidence);
  const double noise = quantile * e.energy_data_standard_error;
  result.nll_annealed_lower =
      result.nll_annealed - std::hypot(result.annealing.forward.estimate - result.annealing.lower, noise);
  result.nll_annealed_upper =
      result.nll_annealed + std::hypot(result.annealing.upper - result.annealing.forward.estimate, noise);

  FarOptions far;
  far.seed = options.seed;
  const std::vector<double> energies = trainer.energies(test, rows, options.weights);
  const LogMeanInterval& forward = result.annealing.forward;
  const double error = e.log_z_error.value_or(normal_quantile(far.confidence) * forward.standard_error);
  result.far =
      energies_far_away(pair, test, energies, {e.log_z.value_or(forward.estimate), e.log_z.has_value(), error}, far);
  const std::int64_t d = e.latent_dimension;
  if (d <= e.data_dimension) {
    PreimageOptions preimages;
    preimages.seed = options.seed;
    result.preimages = second_preimages(pair.context, pair.generator, pair.generator_parameters, preimages);
    const std::int64_t count = std::clamp<std::int64_t>(kSpectrumValues / d, 1, kSpectrumSamples);
    const std::vector<double> z = normal_values({options.seed, RandomStream::evaluation, kSpectrumStep}, count * d);
    result.spectrum = jacobian_spectrum(pair.context, pair.generator, pair.generator_parameters, z, count);
  }
  result.checks = audit_checks(result);
  result.trustworthy = std::none_of(result.checks.begin(), result.checks.end(),
                                    [](const AuditCheck& check) { return check.passed == false; });
  result.verdict = audit_verdict(result.checks);
  return result;
}

}  // namespace bracket
