// How an audit is written down: as JSON for programs, as lines for people.
#include <algorithm>
#include <cmath>

#include "host/core/text.h"
#include "host/evaluate/audit/audit.h"
#include "host/evaluate/json_value.h"

namespace bracket {
namespace {

// JSON has no infinities.
Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json to_json(const LogMeanInterval& i) {
  return {{"estimate", finite(i.estimate)},
          {"lower", finite(i.lower)},
          {"upper", finite(i.upper)},
          {"standard_error", i.standard_error},
          {"ess", i.ess},
          {"skewness", i.skewness},
          {"markov_lower", finite(i.markov_lower)}};
}

Json to_json(const std::optional<LogMeanInterval>& i) { return i ? to_json(*i) : Json(nullptr); }

Json to_json(const AnnealedPartition& p) {
  return {{"space", p.latent ? "latent" : "data"},
          {"chains", p.chains},
          {"temperatures", p.temperatures},
          {"acceptance", p.acceptance},
          {"log_z", to_json(p.forward)},
          {"interval_holds", p.interval_holds},
          {"log_z_lower", finite(p.lower)},
          {"log_z_upper_approximate", finite(p.upper)},
          {"log_z_back", finite(p.above)},
          {"log_z_back_standard_error", p.above_standard_error},
          {"ess_back", p.back_ess}};
}

Json to_json(const FarEnergies& far) {
  Json proposals = Json::array();
  for (const BroadProposal& p : far.proposals)
    proposals.push_back({{"name", p.name},
                         {"widening", p.widening},
                         {"energy_minimum", finite(p.energy_minimum)},
                         {"energy_median", finite(p.energy_median)},
                         {"low_share", p.low_share},
                         {"log_mass", to_json(p.log_mass)},
                         {"log_far_mass", to_json(p.log_far_mass)},
                         {"far_share", p.far_share},
                         {"far_share_lower", p.far_share_lower},
                         {"far_share_upper", p.far_share_upper}});
  return {{"low_energy", far.low_energy},
          {"data_median", far.data_median},
          {"near_distance", far.near_distance},
          {"proposals", proposals},
          {"not_finite", far.not_finite},
          {"chains", far.chains},
          {"chains_in_far_wells", far.chains_in_far_wells},
          {"chains_in_unseen_wells", far.chains_in_unseen_wells},
          {"far_well", far.far_well},
          {"far_well_energy", far.far_well.empty() ? Json(nullptr) : Json(far.far_well_energy)}};
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

std::vector<double> conditions(const JacobianSpectrum& s) {
  std::vector<double> values;
  for (std::size_t i = 0; i < s.smallest.size(); ++i) values.push_back(s.largest[i] / s.smallest[i]);
  return values;
}

Json to_json(const JacobianSpectrum& s) {
  return {{"samples", s.smallest.size()},
          {"smallest", finite(quantile(s.smallest, 0))},
          {"median", finite(quantile(s.values, 0.5))},
          {"largest", finite(quantile(s.largest, 1))},
          {"condition_median", finite(quantile(conditions(s), 0.5))},
          {"condition_largest", finite(quantile(conditions(s), 1))}};
}

Json to_json(const SecondPreimages& p) {
  return {{"samples", p.samples},
          {"share", p.share},
          {"least_stretch", finite(p.least_stretch)},
          {"first", p.first},
          {"second", p.second}};
}

std::string line(const std::string& name, const std::string& text) {
  return formatted("  %-24s ", name.c_str()) + text + "\n";
}

std::string figure(double value) { return fixed_number(value, 4); }

std::string bound_remark(const Evaluation& e) {
  return e.injectivity.certified ? "a bound (G certified injective)" : "G not certified injective, need not be a bound";
}

std::string chains_line(const Evaluation& e, const AnnealedPartition& p) {
  return std::to_string(p.chains) + " chains, " + std::to_string(p.temperatures) + " temperatures in " +
         (p.latent ? "latent" : "data") + " space, effective shares of " + rounded_number(p.forward.ess, 2) +
         " forward and " + rounded_number(p.back_ess, 2) + " back; back " + figure(e.energy_data + p.above);
}

std::string figures(const Audit& a) {
  const Evaluation& e = a.evaluation;
  const AnnealedPartition& p = a.annealing;
  const std::string confidence = rounded_number(100 * a.confidence, 4) + " %";
  std::string text;
  if (e.lower_bound)
    text += line("lower bound", figure(*e.lower_bound) + " +- " + rounded_number(*e.gap_standard_error, 2) + ", " +
                                    bound_remark(e) + ", estimated from samples");
  if (e.lower_bound_on_manifold)
    text += line("lower bound on manifold", figure(*e.lower_bound_on_manifold) + ", not comparable with L; " +
                                                bound_remark(e) + ", estimated from samples");
  if (e.nll_exact)
    text += line("exact", figure(*e.nll_exact) + ", quadrature error " + rounded_number(*e.log_z_error, 2) +
                              ", mass outside " + rounded_number(*e.mass_outside, 2));
  // An interval, or its lower end alone.
  const auto ends = [&](double lower, double upper) {
    return p.interval_holds ? confidence + " in [" + figure(lower) + ", " + figure(upper) + "] if chains reach all mass"
                            : "at least " + figure(lower) + " at " + confidence +
                                  " (Markov's inequality): too few effective chains for an interval";
  };
  text += line("annealing", figure(a.nll_annealed) + ", " + ends(a.nll_annealed_lower, a.nll_annealed_upper) +
                                (p.interval_holds ? ", upper end approximate" : ""));
  text += line("", chains_line(e, p));
  if (a.annealing_in_data_space)
    text += line("annealing from the data", figure(e.energy_data + a.annealing_in_data_space->forward.estimate) + ", " +
                                                chains_line(e, *a.annealing_in_data_space));
  text += line("log Z", figure(p.forward.estimate) + ", " + ends(p.lower, p.upper));
  if (e.nll_importance)
    text +=
        line("importance sampling", figure(*e.nll_importance) + ", an effective share of " + rounded_number(*e.ess, 2));
  if (e.upper_estimate) text += line("estimate from above", figure(*e.upper_estimate) + ", no bound");
  for (const BroadProposal& b : a.far.proposals)
    text += line("broad energies", b.name + ": least " + rounded_number(b.energy_minimum, 4) + ", median " +
                                       rounded_number(b.energy_median, 4) + " (data " +
                                       rounded_number(a.far.data_median, 4) +
                                       "), share of mass far from generated points " + rounded_number(b.far_share, 2));
  if (a.spectrum)
    text += line("singular values", rounded_number(quantile(a.spectrum->smallest, 0), 3) + " to " +
                                        rounded_number(quantile(a.spectrum->largest, 1), 3) + ", condition " +
                                        rounded_number(quantile(conditions(*a.spectrum), 0.5), 3) + " in the median");
  return text;
}

}  // namespace

std::string to_json(const Audit& a) {
  Json checks = Json::array();
  for (const AuditCheck& check : a.checks)
    checks.push_back({{"name", check.name}, {"passed", or_null(check.passed)}, {"finding", check.finding}});
  const Json json = {
      {"verdict", a.verdict},
      {"trustworthy", a.trustworthy},
      {"checks", checks},
      {"confidence", a.confidence},
      {"nll_annealed", finite(a.nll_annealed)},
      {"nll_annealed_lower", finite(a.nll_annealed_lower)},
      {"nll_annealed_upper_approximate", finite(a.nll_annealed_upper)},
      {"annealing", to_json(a.annealing)},
      {"annealing_in_data_space", a.annealing_in_data_space ? to_json(*a.annealing_in_data_space) : Json(nullptr)},
      {"far", to_json(a.far)},
      {"preimages", a.preimages ? to_json(*a.preimages) : Json(nullptr)},
      {"spectrum", a.spectrum ? to_json(*a.spectrum) : Json(nullptr)},
      {"evaluation", Json::parse(to_json(a.evaluation))}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string summary(const Audit& a) {
  const Evaluation& e = a.evaluation;
  std::string text = "Audit of " + e.data + " at step " + std::to_string(e.step) + " (" +
                     (e.weights == Weights::average ? "averaged" : "raw") + " weights, " +
                     std::to_string(e.test_points) +
                     (e.test_points_are_training_rows ? " rows of the training table"
                      : e.test_data.empty()           ? " fresh test points"
                                                      : " rows of " + e.test_data) +
                     "), negative log-likelihoods in nats per sample\n" + figures(a) + "Checks\n";
  for (const AuditCheck& check : a.checks) {
    const char* const mark = !check.passed ? "-" : *check.passed ? "ok" : "FAILED";
    text += formatted("  %-6s  ", mark) + check.name + ": " + check.finding + "\n";
  }
  return text + "Verdict: " + a.verdict + ".\n";
}

}  // namespace bracket
