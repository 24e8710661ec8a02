// What an audit makes of its figures: every defect by itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host/evaluate/audit/audit.h"

namespace bracket {
namespace {

// An audit without anything to complain of, in three dimensions.
Audit sound() {
  Audit a;
  Evaluation& e = a.evaluation;
  e.data_dimension = e.latent_dimension = 3;
  e.latents = 20000;
  e.lower_bound = 1;
  e.gap_standard_error = 0.001;
  e.nll_importance = 1.02;
  e.ess = 0.97;
  a.annealing.chains = 1000;
  a.annealing.forward = {.estimate = 1.02, .lower = 1.01, .upper = 1.03, .standard_error = 0.005, .ess = 0.9};
  a.annealing.above = 1.03;
  a.annealing.above_standard_error = 0.005;
  a.annealing.back_ess = 0.9;
  a.annealing.interval_holds = true;
  a.annealing.lower = 1.01;
  a.annealing.upper = 1.04;
  a.preimages = SecondPreimages{};
  a.spectrum = JacobianSpectrum{{1}, {1}, {1}, {0}};
  a.far.chains = 256;
  BroadProposal broad;
  broad.points = 4096;
  broad.widening = 4;
  broad.covers = true;
  broad.log_mass = LogMeanInterval{.ess = 0.5};
  broad.far_share_upper = 0.004;
  a.far.proposals = {broad};
  return a;
}

std::optional<bool> of_both_bases(const std::vector<AuditCheck>& checks) {
  const auto found = std::find_if(checks.begin(), checks.end(), [](const AuditCheck& check) {
    return check.name == "annealing from the data agrees";
  });
  return found->passed;
}

TEST(AuditChecks, EachDefectHasItsFinding) {
  EXPECT_EQ(audit_verdict(audit_checks(sound())), "trustworthy: every check that applies has passed");
  const auto only = [](const std::function<void(Audit&)>& damage, const std::string& part) {
    Audit a = sound();
    damage(a);
    const std::vector<AuditCheck> checks = audit_checks(a);
    EXPECT_EQ(std::count_if(checks.begin(), checks.end(), [](const AuditCheck& c) { return c.passed == false; }), 1)
        << part;
    const std::string verdict = audit_verdict(checks);
    EXPECT_NE(verdict.find(part), std::string::npos) << verdict;
  };
  only([](Audit& a) { a.preimages->share = 0.25; }, "at least 25 %");
  only([](Audit& a) { a.evaluation.fold_fraction = 0.5; }, "at least 50 %");
  only([](Audit& a) { a.spectrum->log_volume[0] = -HUGE_VAL; }, "singular at 1 of 1");
  only([](Audit& a) { a.evaluation.lower_bound = 1.05; },
       "(10 standard errors) above the interval of L: it is no bound, the generator folds");
  only([](Audit& a) { a.evaluation.lower_bound = 1.05, a.evaluation.injectivity.certified = true; },
       "so annealing misses mass or the bound's samples are off");
  only([](Audit& a) { a.evaluation.ess = 0.49; }, "effective share of only 0.49");
  only([](Audit& a) { a.annealing.forward.ess = 0.02, a.annealing.interval_holds = false; }, "20 effective chains");
  only([](Audit& a) { a.annealing.back_ess = 0.19, a.annealing.interval_holds = false; }, "190 effective chains");
  only([](Audit& a) { a.annealing.above = 1.2; }, "differ by 0.18");
  only([](Audit& a) { a.annealing.above = 0.84; }, "differ by -0.18 nats: back chains do not start from points");
  // The other base: agreement is within 0.1 and three errors of 0.0071 together.
  const auto from_data = [](Audit& a, double estimate) {
    a.annealing_in_data_space = a.annealing;
    a.annealing_in_data_space->forward.estimate = estimate;
  };
  only([&](Audit& a) { from_data(a, 1.15); }, "finds log Z 0.13 nats above annealing from the generator's latents");
  only([&](Audit& a) { from_data(a, 0.89); }, "0.13 nats below");
  only(
      [&](Audit& a) {
        from_data(a, 1.15);
        a.annealing_in_data_space->interval_holds = false;
      },
      "0.13 nats above");
  for (const auto& [estimate, holds] : {std::pair{1.13, true}, {0.89, false}}) {
    Audit a = sound();
    from_data(a, estimate);
    a.annealing_in_data_space->interval_holds = holds;
    EXPECT_TRUE(audit_verdict(audit_checks(a)).starts_with("trustworthy")) << estimate;
    EXPECT_EQ(of_both_bases(audit_checks(a)), holds ? std::optional(true) : std::optional<bool>());
  }
  // A certified generator does not fold.
  Audit near = sound();
  near.preimages->share = 0.25;
  near.evaluation.injectivity.certified = true;
  EXPECT_TRUE(audit_verdict(audit_checks(near)).starts_with("trustworthy"));
  only([](Audit& a) { a.annealing.upper = 1.6; }, "0.59 nats wide");
  only([](Audit& a) { a.evaluation.nll_importance = 1.1; }, "importance sampling by the generator and annealing");
  only([](Audit& a) { a.far.not_finite = 3; }, "not a number at 3");
  only(
      [](Audit& a) {
        a.far.proposals[0].far_share = 0.02, a.far.proposals[0].far_share_lower = 0.01,
        a.far.proposals[0].far_share_upper = 0.03;
      },
      "about 2 %");
  only([](Audit& a) { a.evaluation.warnings = {"something else"}; }, "something else");
  // A well counts where its mass is not known to be small.
  const auto well = [](Audit& a) {
    a.far.chains_in_far_wells = 3;
    a.far.far_well = {4, 5, 6};
  };
  only(
      [&](Audit& a) {
        well(a);
        a.far.chains_in_unseen_wells = 2;
      },
      "near (4, 5, 6)");
  only(
      [&](Audit& a) {
        well(a);
        a.far.proposals[0].far_share_upper = 0.02;
      },
      "3 of 256 chains");
  Audit small = sound();
  well(small);
  EXPECT_TRUE(audit_verdict(audit_checks(small)).starts_with("trustworthy"));
  // Noise is no mass, and one chain no well.
  Audit noise = sound();
  noise.far.proposals[0].far_share = 0.5;
  noise.far.chains_in_far_wells = 1;
  EXPECT_TRUE(audit_verdict(audit_checks(noise)).starts_with("trustworthy"));
}

}  // namespace
}  // namespace bracket
