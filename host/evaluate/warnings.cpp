#include "host/evaluate/warnings.h"

#include <cmath>

#include "host/core/text.h"

namespace bracket {
namespace {

constexpr double kLargestQuadratureError = 0.01;  // nats
constexpr double kLargestVarianceShare = 0.5;
constexpr double kWorstGapError = 0.01;  // nats; below, one latent's share of the variance does not matter

}  // namespace

std::vector<std::string> evaluation_warnings(const Evaluation& e, double variance_share) {
  std::vector<std::string> list;
  if (e.data_dimension == e.latent_dimension && !e.lower_bound)
    list.push_back(
        "the Jacobian of the generator is singular at some latents, so its log-volume and every bound are "
        "undefined; train with a larger entropy weight or from another seed");
  if (e.bracket_ok && !*e.bracket_ok)
    list.push_back("the lower bound lies " + rounded_number(-*e.gap, 3) + " nats (" +
                   rounded_number(-*e.gap / *e.gap_standard_error, 3) +
                   " standard errors) above the exact value: the generator folds, use an injective one");
  if (e.fold_fraction && *e.fold_fraction > 0)
    list.push_back("at least " + rounded_number(100 * *e.fold_fraction, 3) +
                   " % of generated points have a second preimage, so the lower bound is none");
  if (e.ess && *e.ess < kLeastEffectiveShare)
    list.push_back("importance sampling uses an effective share of " + rounded_number(*e.ess, 3) +
                   " of the samples: the model has mass the generator does not reach");
  if (e.nll_exact && e.nll_importance && !(std::abs(*e.nll_importance - *e.nll_exact) <= kLargestImportanceDifference))
    list.push_back("importance sampling and the exact value differ by " +
                   rounded_number(*e.nll_importance - *e.nll_exact, 3) + " nats: one of them misses mass of the model");
  if (e.mass_outside && *e.mass_outside > kLargestMassOutside)
    list.push_back("a share of " + rounded_number(*e.mass_outside, 3) +
                   " of the model's mass lies outside the data box; confine the energy with a wall");
  if (e.edge_mass && *e.edge_mass > kLargestEdgeMass)
    list.push_back("a share of " + rounded_number(*e.edge_mass, 3) +
                   " of the mass lies at the edge of the widest box: the energy may not be normalisable, and log_z "
                   "counts that box only");
  if (e.log_z_error && *e.log_z_error > kLargestQuadratureError)
    list.push_back("the quadrature's error estimate is " + rounded_number(*e.log_z_error, 3) +
                   " nats: the density is finer than its lattice or reaches beyond its widest box");
  if (e.gap_standard_error && *e.gap_standard_error > kWorstGapError && variance_share > kLargestVarianceShare)
    list.push_back("one latent contributes a share of " + rounded_number(variance_share, 3) +
                   " of the variance of phi: the gap and the lower bound hang on it, read nll_importance");
  return list;
}

}  // namespace bracket
