// Which figures of an audit are a defect.
#include <algorithm>
#include <cmath>

#include "host/core/text.h"
#include "host/evaluate/audit/audit.h"
#include "host/evaluate/warnings.h"

namespace bracket {
namespace {

constexpr double kRounding = 1e-5;              // nats, of mean energies in f32: as in sampler.h
constexpr double kDeviations = 3;               // standard errors that pass for noise
constexpr double kWidestInterval = 0.5;         // nats
constexpr double kLargestAnnealingGap = 0.1;    // nats between forward and back, beyond their errors
constexpr double kLargestFarShare = 0.01;       // of the model's mass, where it is more than noise ...
constexpr double kLargestSureFarShare = 0.001;  // ... and the lower end that is
constexpr double kWallWidening = 16;            // mass out there is no well
constexpr std::int64_t kFarChains = 2;          // one may be on its way

std::string nats(double value) { return rounded_number(value, 3) + " nats"; }
std::string percent(double share) { return rounded_number(100 * share, 3) + " %"; }

class Checks {
 public:
  explicit Checks(const Audit& audit) : a(audit), e(audit.evaluation) {}

  std::vector<AuditCheck> all() {
    folds();
    order();
    quadrature();
    generator_coverage();
    annealing();
    both_bases();
    agreement();
    far_mass();
    far_wells();
    evaluation();
    return std::move(list_);
  }

 private:
  void add(const std::string& name, bool passed, const std::string& good, const std::string& bad) {
    list_.push_back({name, passed, passed ? good : bad});
  }
  void skip(const std::string& name, const std::string& reason) { list_.push_back({name, std::nullopt, reason}); }

  void folds() {
    const std::string name = "generator does not fold";
    if (!a.preimages) return skip(name, "more latent than data columns: every image has many preimages");
    const double share = std::max(a.preimages->share, e.fold_fraction.value_or(0));
    const auto singular = std::count_if(a.spectrum->log_volume.begin(), a.spectrum->log_volume.end(),
                                        [](double h) { return std::isinf(h); });
    const bool certified = e.injectivity.certified;
    if (singular > 0)
      return add(name, false, "",
                 "the Jacobian of the generator is singular at " + std::to_string(singular) + " of " +
                     std::to_string(a.spectrum->log_volume.size()) + " latents, so its log-volume is undefined");
    const std::string found =
        share == 0 ? "no second preimage was found"
                   : percent(share) +
                         " of its points agree with others far away to the tolerance of the search, which "
                         "is no fold";
    add(name, share == 0 || certified,
        certified ? "certified injective; " + found : found + "; its parameters do not show that there is none",
        "the generator folds: at least " + percent(share) +
            " of its points have a second preimage, so the lower bound counts entropy twice");
  }

  void order() {
    const std::string name = "lower bound below L";
    if (!e.lower_bound) {
      return skip(name, e.data_dimension > e.latent_dimension
                            ? "the generator makes a surface: its bound is one of the likelihood on it, not of L"
                            : "there is no lower bound");
    }
    if (!e.nll_exact && !a.annealing.interval_holds)
      return skip(name, "neither quadrature nor annealing gives an upper end of L");
    const double upper = e.nll_exact.value_or(e.energy_data + a.annealing.upper);
    const double above = *e.lower_bound - upper, error = *e.gap_standard_error;
    add(name, above <= kDeviations * error + e.log_z_error.value_or(0) + kRounding,
        std::string(e.nll_exact ? "against the exact value" : "against the interval of annealing") + ", gap " +
            nats(-above) + " with standard error " + rounded_number(error, 2),
        "the lower bound lies " + nats(above) + " (" + rounded_number(above / error, 3) + " standard errors) above " +
            (e.nll_exact ? "the exact value: " : "the interval of L: ") +
            (!e.injectivity.certified ? "it is no bound, the generator folds"
             : e.nll_exact            ? "the generator is certified injective, so the quadrature misses mass or the "
                                        "bound's samples are off"
                                      : "the generator is certified injective, so annealing misses mass or the bound's "
                                        "samples are off"));
  }

  void quadrature() {
    const std::string name = "mass inside the data box";
    if (!e.mass_outside) return skip(name, "quadrature needs data of 1 or 2 dimensions");
    const bool edge = *e.edge_mass > kLargestEdgeMass;
    add(name, *e.mass_outside <= kLargestMassOutside && !edge,
        percent(*e.mass_outside) + " outside, quadrature error " + nats(*e.log_z_error),
        edge ? "the energy may not be normalisable: " + percent(*e.edge_mass) +
                   " of its mass lies at the edge of the widest box"
             : percent(*e.mass_outside) + " of the model's mass lies outside the data box: a wall is missing");
  }

  void generator_coverage() {
    const std::string name = "generator covers the model";
    if (!e.ess) return skip(name, "the generator's points have no density in data space");
    add(name, *e.ess >= kLeastEffectiveShare,
        "importance sampling uses an effective share of " + rounded_number(*e.ess, 3) + " of its points",
        "importance sampling uses an effective share of only " + rounded_number(*e.ess, 3) +
            " of the generated points: the model has mass that the generator hardly reaches");
  }

  void annealing() {
    const AnnealedPartition& p = a.annealing;
    const double width = p.upper - p.lower;
    const double error = std::hypot(p.forward.standard_error, p.above_standard_error);
    const double gap = p.above - p.forward.estimate;
    const std::string name = "annealing has converged";
    if (!p.interval_holds)
      return add(name, false, "",
                 "annealing rests on " + rounded_number(p.effective_chains(), 3) + " effective chains of " +
                     std::to_string(p.chains) + ", fewer than " + rounded_number(kLeastEffectiveChains, 3) +
                     ": an interval would mean nothing, take more chains or temperatures");
    if (!(std::abs(gap) <= kLargestAnnealingGap + kDeviations * error))
      return add(name, false, "",
                 "annealing forward and back differ by " + nats(gap) +
                     (gap > 0 ? ": chains do not reach everything that the model holds, log Z lies between them at best"
                              : ": back chains do not start from points of the model, they miss mass of it"));
    add(name, width <= kWidestInterval, "forward and back agree within " + nats(std::abs(gap)),
        "the interval of log Z is " + nats(width) + " wide: take more chains");
  }

  void both_bases() {
    const std::string name = "annealing from the data agrees";
    if (!a.annealing_in_data_space)
      return skip(name, "annealing has one base, as the generator is not certified a bijection");
    const AnnealedPartition &p = a.annealing, &q = *a.annealing_in_data_space;
    const double difference = q.forward.estimate - p.forward.estimate;
    const double tolerance =
        kLargestAnnealingGap + kDeviations * std::hypot(p.forward.standard_error, q.forward.standard_error);
    const std::string differ = "annealing from a normal density about the data finds log Z " +
                               nats(std::abs(difference)) + (difference > 0 ? " above" : " below") +
                               " annealing from the generator's latents: ";
    // Few chains count: the estimate is likely to lie low. High it hardly can, its weights have expectation Z.
    if (!(difference <= tolerance))
      return add(name, false, "", differ + "the model has mass that the generator does not reach");
    if (!q.interval_holds)
      return skip(name, "annealing from the data rests on " + rounded_number(q.effective_chains(), 3) +
                            " effective chains, too few to compare: mass that the generator misses is not ruled out");
    add(name, difference >= -tolerance, "within " + nats(std::abs(difference)), differ + "one of them misses mass");
  }

  void agreement() {
    const AnnealedPartition& p = a.annealing;
    const std::string name = "estimates of log Z agree";
    const auto apart = [&](double other, double error) {
      const double difference = other - p.forward.estimate;
      return std::abs(difference) > kLargestImportanceDifference + kDeviations * error;
    };
    if (e.log_z && apart(*e.log_z, p.forward.standard_error + *e.log_z_error))
      return add(name, false, "",
                 "annealing and the quadrature differ by " + nats(p.forward.estimate - *e.log_z) +
                     ": chains from the " + (p.latent ? "generator" : "data") + " miss mass of the model");
    if (e.nll_importance) {
      const double log_z = *e.nll_importance - e.energy_data;
      const double error = std::sqrt(std::max(0.0, (1 / *e.ess - 1) / static_cast<double>(e.latents)));
      if (!std::isfinite(log_z) || apart(log_z, std::hypot(error, p.forward.standard_error)))
        return add(name, false, "",
                   "importance sampling by the generator and annealing differ by " + nats(log_z - p.forward.estimate) +
                       ": one of them misses mass of the model");
      if (e.log_z && !(std::abs(log_z - *e.log_z) <= kLargestImportanceDifference))
        return add(name, false, "",
                   "importance sampling by the generator and the quadrature differ by " + nats(log_z - *e.log_z) +
                       ": the generator misses mass of the model");
    }
    if (!e.log_z && !e.nll_importance) return skip(name, "annealing is the only one");
    add(name, true,
        "annealing" + std::string(e.log_z ? ", quadrature" : "") + (e.nll_importance ? ", importance sampling" : "") +
            (!e.log_z && p.latent ? "; all of them start at the generator's latents" : ""),
        "");
  }

  void far_mass() {
    const std::string name = "no mass far from generated points";
    if (a.far.not_finite > 0)
      return add(name, false, "",
                 "the energy is not a number at " + std::to_string(a.far.not_finite) +
                     " broad random points: the model has no density there");
    const BroadProposal* worst = nullptr;
    double largest = 0;
    for (const BroadProposal& p : a.far.proposals) {
      largest = std::max(largest, p.far_share);
      if (p.far_share > kLargestFarShare && p.far_share_lower > kLargestSureFarShare &&
          (worst == nullptr || p.far_share_lower > worst->far_share_lower))
        worst = &p;
    }
    add(name, worst == nullptr, "broad random points find a share of " + rounded_number(largest, 2),
        worst == nullptr ? ""
                         : "about " + percent(worst->far_share) + " of the model's mass (at least " +
                               percent(worst->far_share_lower) + ") lies where the generator never goes" +
                               (worst->widening >= kWallWidening ? ", beyond any data: a wall is missing" : ""));
  }

  // Whether broad points that cover the model have measured the mass far from generated points as negligible: they have
  // seen the wells that chains found, and what they saw is little. The box does not cover the model.
  bool far_mass_is_small() const {
    return a.far.chains_in_unseen_wells < kFarChains &&
           std::any_of(a.far.proposals.begin(), a.far.proposals.end(),
                       [&](const BroadProposal& p) { return p.covers && p.far_share_upper <= kLargestFarShare; });
  }

  void far_wells() {
    std::string place;
    for (std::size_t j = 0; j < std::min<std::size_t>(a.far.far_well.size(), 8); ++j)
      place += (j == 0 ? "" : ", ") + rounded_number(a.far.far_well[j], 3);
    if (a.far.far_well.size() > 8) place += ", ...";
    const bool few = a.far.chains_in_far_wells < kFarChains, small = !few && far_mass_is_small();
    const std::string chains =
        std::to_string(a.far.chains_in_far_wells) + " of " + std::to_string(a.far.chains) + " chains from broad points";
    add("no deep well that nobody visits", few || small,
        chains + " ended as low as the data and far from every generated point" +
            (small
                 ? ", near (" + place + "), where the model has less than " + percent(kLargestFarShare) + " of its mass"
                 : ""),
        "a well that nobody visits: " + chains + " ended with energies as low as the data's near (" + place +
            "), where no generated point is");
  }

  void evaluation() {
    add("no other warning of the evaluation", e.warnings.empty(), "none", e.warnings.empty() ? "" : e.warnings[0]);
  }

  const Audit& a;
  const Evaluation& e;
  std::vector<AuditCheck> list_;
};

}  // namespace

std::vector<AuditCheck> audit_checks(const Audit& audit) { return Checks(audit).all(); }

std::string audit_verdict(const std::vector<AuditCheck>& checks) {
  const auto failed =
      std::find_if(checks.begin(), checks.end(), [](const AuditCheck& check) { return check.passed == false; });
  if (failed == checks.end()) return "trustworthy: every check that applies has passed";
  return "not trustworthy: " + failed->finding;
}

}  // namespace bracket
