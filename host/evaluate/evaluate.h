// Evaluation of a trained pair: the exact likelihood where it is computable, the bounds beside it, and how far to trust
// them. Everything is in nats per sample and in raw data coordinates.
//
// Notation: E the energy, G the generator, h = 1/2 log det(J^T J), p_g the density of G(z), z ~ N(0, I),
//   phi(z) = E(G(z)) + log N(z; 0, I) - h(z) = (E + log p_g)(G(z)),   L = E_data[E] + log Z.
// For D = d: L - L_low = log Z + E[phi] = KL(p_g || p) >= 0 when G is injective, and log Z = log E[exp(-phi)].
// L_low and L share the test points and the latents, so their difference carries the noise of phi alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bracket/dataset.h"
#include "bracket/trainer.h"
#include "host/evaluate/folding.h"
#include "host/evaluate/injectivity.h"
#include "host/evaluate/quadrature.h"
#include "host/picture/plots.h"

namespace bracket {

struct EvaluationOptions {
  std::int64_t samples = 20000;  ///< test points and latents; a table serves each of its rows at most once
  std::uint64_t seed = 0;
  Weights weights = Weights::average;
  QuadratureOptions quadrature;
  FoldOptions folding;
  /// Rows that were held out of training: the test points. Null: fresh samples of a density, or rows of the table that
  /// was trained on.
  const Dataset* held_out = nullptr;
};

/// What is absent is unknown: not computable for these dimensions, or not proved.
struct Evaluation {
  std::int64_t step = 0;
  std::string data;
  std::string test_data;  ///< held-out rows; empty where there are none
  Weights weights = Weights::average;
  std::int64_t test_points = 0;
  std::int64_t latents = 0;
  std::int64_t data_dimension = 0;    ///< D
  std::int64_t latent_dimension = 0;  ///< d
  bool test_points_are_training_rows = false;
  bool injective_by_construction = false;
  InjectivityCertificate injectivity;  ///< of these parameters

  // The likelihood.
  double energy_data = 0;                 ///< mean E over the test points
  double energy_data_standard_error = 0;  ///< also that of every likelihood below
  std::optional<double> nll_exact;        ///< L by quadrature, D <= 2
  std::optional<double> log_z;            ///< D <= 2
  std::optional<double> log_z_error;      ///< estimate of the quadrature's error
  std::optional<double> edge_mass;        ///< share of the mass at the edge of the outermost box
  std::optional<double> mass_outside;     ///< share of the mass outside the data box

  // The bounds.
  std::optional<double> lower_bound;               ///< L_low = mean E - mean phi, D = d
  std::optional<double> lower_bound_min_singular;  ///< with d log s_1 in place of h, D = d
  std::optional<double> lower_bound_on_manifold;   ///< D > d: bounds the likelihood on the image of G, not L
  std::optional<double> penalty;                   ///< P = 1/2 mean |J^T grad E - s|^2
  std::optional<double> upper_bound;               ///< L_low + P / rho, where proved up to rounding (gaussian.h)
  std::optional<double> upper_estimate;            ///< L_low + 1/2 Var(phi), D = d; can lie below L
  std::optional<bool> bracket_ok;                  ///< lower_bound - 3 gap_standard_error - log_z_error <= nll_exact
  std::optional<double> gap;                       ///< nll_exact - lower_bound
  std::optional<double> gap_standard_error;        ///< sd(phi) / sqrt(latents)
  std::optional<double> nll_importance;            ///< mean E + log mean exp(-phi), D = d
  std::optional<double> ess;                       ///< effective share of the latents behind it, in (0, 1]
  std::optional<double> max_abs_phi;               ///< one far-flying latent shows here
  std::optional<double> fold_fraction;    ///< D = d <= 2: lower bound of the share of points with a second preimage
  std::optional<double> fold_tolerance;   ///< of equal images, in deviations of the generated points
  std::optional<double> fold_separation;  ///< of different latents

  // Against what is known of the data.
  std::optional<double> kl_data_to_model;  ///< mean (log p_data - log p) over the test points
  std::optional<double> data_entropy;
  std::optional<std::int64_t> modes;            ///< mixtures: how many there are
  std::optional<std::int64_t> modes_found;      ///< see host/evaluate/modes.h
  std::optional<double> high_quality_fraction;  ///< share of the samples within 4 deviations of a mode
  std::optional<double> mode_histogram_kl;

  std::vector<std::string> warnings;  ///< reasons not to trust the figures
  bool calibrated = false;            ///< exact likelihood known, bracket in order, and no warning
};

/// `data` is what was trained on. Throws Diverged for weights that give non-finite energies, InvalidArgument for samples
/// < 2 or data of another dimension. Waits.
Evaluation evaluate(Trainer& trainer, const Dataset& data, const EvaluationOptions& options = {});

/// One object with the members above as keys; null for what is unknown.
std::string to_json(const Evaluation& evaluation);

/// A few lines for people: the bounds side by side, and plainly what is wrong or not comparable.
std::string summary(const Evaluation& evaluation);

/// Log Z by quadrature over boxes around the data; absent for D > 2.
std::optional<Quadrature> log_partition(Trainer& trainer, const DataStatistics& statistics, Weights weights,
                                        const QuadratureOptions& options = {});

/// Box that shows all of 2-D data with a margin.
Box picture_box(const DataStatistics& statistics);

/// Log densities -E - log_z on a grid over a box, for pictures. 2-D energies only (InvalidArgument).
DensityGrid density_grid(Trainer& trainer, const Box& box, std::int64_t columns, std::int64_t rows, double log_z,
                         Weights weights);

}  // namespace bracket
