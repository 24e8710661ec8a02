// An audit of a trained pair: is what its figures say true? Every check that Bracket knows, one sentence of verdict.
//
// What is proved: that L_low is a bound where the generator is certified injective (injectivity.h), its figure an
// estimate from samples; of annealing E[log mean w] <= log Z and, at its confidence, `markov_lower`
// (annealed_importance.h). The ends of its interval are normal theory, right if chains reach all mass. Log Z by
// quadrature in one and two dimensions is right up to its error estimate. All else is evidence: a check that fails
// shows a defect, checks that pass show that these tests found none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bracket/dataset.h"
#include "bracket/trainer.h"
#include "host/evaluate/audit/annealed_partition.h"
#include "host/evaluate/audit/far_energies.h"
#include "host/evaluate/audit/preimages.h"
#include "host/evaluate/evaluate.h"
#include "host/evaluate/images/jacobian_spectrum.h"
#include "host/picture/image.h"

namespace bracket {

struct AuditOptions {
  std::int64_t samples = 20000;  ///< test points and latents of the evaluation
  std::int64_t chains = 1024;    ///< of annealing
  std::int64_t temperatures = 0;
  double confidence = 0.95;  ///< of the intervals of log Z and L
  std::uint64_t seed = 0;
  Weights weights = Weights::average;
  const Dataset* held_out = nullptr;  ///< test points, as in EvaluationOptions
};

struct AuditCheck {
  std::string name;
  std::optional<bool> passed;  ///< absent: not applicable to this pair
  std::string finding;         ///< one sentence: what was found, or why it does not apply
};

struct Audit {
  Evaluation evaluation;        ///< quadrature, bounds, paired gap, importance sampling with its effective share
  AnnealedPartition annealing;  ///< in latent space where G is certified injective and onto, else in data space
  std::optional<AnnealedPartition> annealing_in_data_space;  ///< beside one in latent space: other blind spots
  double confidence = 0.95;
  double nll_annealed = 0;        ///< L = mean E of the test points + log Z of the forward chains
  double nll_annealed_lower = 0;  ///< interval of L if chains reach all mass, the noise of the test points included;
  double nll_annealed_upper = 0;  ///< without one as in AnnealedPartition: Markov's lower end, infinity
  FarEnergies far;
  std::optional<SecondPreimages> preimages;  ///< d <= D
  std::optional<JacobianSpectrum> spectrum;  ///< d <= D
  std::vector<AuditCheck> checks;
  bool trustworthy = false;  ///< no check failed
  std::string verdict;
};

/// Throws as `evaluate` does; InvalidArgument for fewer than 2 chains or a confidence outside (0, 1). Waits.
Audit audit(Trainer& trainer, const Dataset& data, const AuditOptions& options = {});

/// From the figures alone; the verdict is the first finding that fails.
std::vector<AuditCheck> audit_checks(const Audit& audit);
std::string audit_verdict(const std::vector<AuditCheck>& checks);

/// Keys are the members' names, nested as they are; null for what is unknown or infinite. `nll_annealed_lower` to
/// `nll_annealed_upper_approximate` and `annealing.log_z_lower` to `log_z_upper_approximate` hold at `confidence` if
/// chains reach all mass, where `annealing.interval_holds`; else the lower end is that of Markov's inequality.
std::string to_json(const Audit& audit);
std::string summary(const Audit& audit);

/// The lower bounds and estimates from above that `metrics_file` (metrics.jsonl) has logged and, at the audited step,
/// every figure for L of the audit. Throws InvalidArgument where no step has a finite lower bound.
Image bounds_picture(const std::filesystem::path& metrics_file, const Audit& audit);
/// Histogram of log10 of the singular values of J over the samples. Throws InvalidArgument without a spectrum.
Image spectrum_picture(const Audit& audit);

}  // namespace bracket
