// How an evaluation is written down: as JSON for programs, as lines for people.
#include <cmath>

#include "host/core/text.h"
#include "host/evaluate/evaluate.h"
#include "host/evaluate/json_value.h"
#include "host/evaluate/warnings.h"

namespace bracket {
namespace {

std::string percent(double share) { return fixed_number(100 * share, 1) + " %"; }

// One line "name  value  remark", aligned with its neighbours.
std::string line(const std::string& name, const std::optional<double>& value, const std::string& remark) {
  const std::string number = value ? fixed_number(*value, 4) : "unknown";
  return formatted("  %-24s %12s", name.c_str(), number.c_str()) + (remark.empty() ? "" : "   " + remark) + "\n";
}

// What stands behind a lower bound.
std::string injectivity_remark(const Evaluation& e) {
  if (e.injectivity.certified)
    return e.injective_by_construction ? "G is injective by construction"
                                       : "G is certified injective: " + e.injectivity.summary();
  return "G is not certified injective, so this need not be a bound; " + e.injectivity.summary();
}

std::string bounds_lines(const Evaluation& e) {
  const bool manifold = e.data_dimension > e.latent_dimension;
  std::string text;
  if (manifold) {
    text += line("lower bound on manifold", e.lower_bound_on_manifold,
                 "of the likelihood on the " + std::to_string(e.latent_dimension) +
                     "-dimensional image of G; not comparable with the likelihood in " +
                     std::to_string(e.data_dimension) + " dimensions; " + injectivity_remark(e));
  } else {
    text += line("lower bound", e.lower_bound, injectivity_remark(e));
  }
  if (e.nll_exact)
    text += line("exact", e.nll_exact,
                 "+- " + rounded_number(e.energy_data_standard_error, 2) + " (test points), quadrature error " +
                     rounded_number(*e.log_z_error, 2));
  else
    text += line("exact", std::nullopt, "needs data of 1 or 2 dimensions");
  if (e.upper_bound) text += line("upper bound", e.upper_bound, "proved up to rounding: linear G, Gaussian energy");
  if (!manifold) {
    const bool below = e.upper_estimate && e.nll_exact && *e.upper_estimate < *e.nll_exact;
    text += line("estimate from above", e.upper_estimate,
                 std::string("lower bound + Var(phi) / 2, phi = E + log p of G's samples: no bound") +
                     (below ? ", here below the exact value" : ""));
  }
  if (e.nll_importance)
    text += line("importance sampling", e.nll_importance,
                 "by samples of G, of which a share of " + fixed_number(*e.ess, 2) + " counts");
  text += line("data entropy", e.data_entropy, e.data_entropy ? "the least any model can reach" : "");
  return text;
}

std::string order_lines(const Evaluation& e) {
  if (!e.gap) return "";
  const std::string gap = fixed_number(*e.gap, 4) + " +- " + fixed_number(*e.gap_standard_error, 4) + " nats";
  if (*e.bracket_ok) return "Gap between exact and lower bound: " + gap + ", the bound is kept.\n";
  return "ORDER VIOLATED: the lower bound lies above the exact value, gap " + gap + ".\n";
}

std::string mode_lines(const Evaluation& e) {
  if (!e.modes_found) return "";
  return "Modes found: " + std::to_string(*e.modes_found) + " of " + std::to_string(*e.modes) +
         "; samples within 4 deviations of one: " + percent(*e.high_quality_fraction) +
         "; KL of the modes' shares from even ones " + fixed_number(*e.mode_histogram_kl, 4) + "\n";
}

}  // namespace

std::string to_json(const Evaluation& e) {
  Json layers = Json::array();
  for (const LayerCertificate& layer : e.injectivity.layers)
    layers.push_back({{"layer", layer.layer},
                      {"type", layer.type},
                      {"injective", layer.injective},
                      {"margin", or_null(layer.margin)},
                      {"lipschitz", or_null(layer.lipschitz)},
                      {"reason", layer.reason}});
  Json json = {
      {"step", e.step},
      {"data", e.data},
      {"test_data", e.test_data.empty() ? Json() : Json(e.test_data)},
      {"weights", e.weights == Weights::average ? "ema" : "raw"},
      {"test_points", e.test_points},
      {"latents", e.latents},
      {"data_dimension", e.data_dimension},
      {"latent_dimension", e.latent_dimension},
      {"test_points_are_training_rows", e.test_points_are_training_rows},
      {"injective_by_construction", e.injective_by_construction},
      {"certified_injective", e.injectivity.certified},
      {"injectivity", std::move(layers)},
      {"energy_data", e.energy_data},
      {"energy_data_standard_error", e.energy_data_standard_error},
      {"nll_exact", or_null(e.nll_exact)},
      {"log_z", or_null(e.log_z)},
      {"log_z_error", or_null(e.log_z_error)},
      {"edge_mass", or_null(e.edge_mass)},
      {"mass_outside", or_null(e.mass_outside)},
      {"lower_bound", or_null(e.lower_bound)},
      {"lower_bound_min_singular", or_null(e.lower_bound_min_singular)},
      {"lower_bound_on_manifold", or_null(e.lower_bound_on_manifold)},
      {"penalty", or_null(e.penalty)},
      {"upper_bound", or_null(e.upper_bound)},
      {"upper_estimate", or_null(e.upper_estimate)},
      {"bracket_ok", or_null(e.bracket_ok)},
      {"gap", or_null(e.gap)},
      {"gap_standard_error", or_null(e.gap_standard_error)},
      {"nll_importance", or_null(e.nll_importance)},
      {"ess", or_null(e.ess)},
      {"max_abs_phi", or_null(e.max_abs_phi)},
      {"fold_fraction", or_null(e.fold_fraction)},
      {"fold_tolerance", or_null(e.fold_tolerance)},
      {"fold_separation", or_null(e.fold_separation)},
      {"kl_data_to_model", or_null(e.kl_data_to_model)},
      {"data_entropy", or_null(e.data_entropy)},
      {"modes", or_null(e.modes)},
      {"modes_found", or_null(e.modes_found)},
      {"high_quality_fraction", or_null(e.high_quality_fraction)},
      {"mode_histogram_kl", or_null(e.mode_histogram_kl)},
      {"warnings", e.warnings},
      {"calibrated", e.calibrated},
  };
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string summary(const Evaluation& e) {
  std::string text = "Negative log-likelihood of " + e.data + " at step " + std::to_string(e.step) + " (" +
                     (e.weights == Weights::average ? "averaged" : "raw") + " weights, " +
                     std::to_string(e.test_points) +
                     (e.test_points_are_training_rows ? " rows of the training table"
                      : e.test_data.empty()           ? " fresh test points"
                                                      : " rows of " + e.test_data) +
                     "), nats per sample\n";
  text += bounds_lines(e);
  text += order_lines(e);
  if (e.kl_data_to_model) text += "KL from data to model: " + fixed_number(*e.kl_data_to_model, 4) + " nats\n";
  text += mode_lines(e);
  for (const std::string& warning : e.warnings) text += "Warning: " + warning + "\n";
  if (e.calibrated)
    text += "Calibrated: the lower bound keeps its order, importance sampling agrees within " +
            rounded_number(kLargestImportanceDifference, 2) + " nats, and no warning.\n";
  return text;
}

}  // namespace bracket
