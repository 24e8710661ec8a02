// Whole evaluations of trainers, the warnings they lead to, and what is written down.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>

#include "bracket/bounds.h"
#include "bracket/error.h"
#include "bracket/preset.h"
#include "host/evaluate/evaluate.h"
#include "host/evaluate/modes.h"
#include "host/evaluate/warnings.h"

namespace bracket {
namespace {

NetworkSpec network_of(std::int64_t inputs, std::vector<LayerSpec> layers) {
  NetworkSpec spec;
  spec.input_size = inputs;
  spec.layers = std::move(layers);
  return spec;
}

// E = |x|^2 / 2 and G(z) = scale z in double, untrained: log Z = D/2 log(2 pi), everything else in closed form.
TrainerConfig gaussian_config(std::int64_t d, std::int64_t dimension, double scale) {
  TrainerConfig config;
  const auto n = static_cast<std::size_t>(dimension);
  config.energy.network =
      network_of(dimension, {LinearSpec{.features = 1, .weight_gain = 0, .bias_bound = 0}, ConfinementSpec{}});
  LinearSpec first{.features = dimension, .bias_bound = 0};
  first.identity_start = d == dimension;
  config.generator.network =
      network_of(d, {first, AffineSpec{std::vector<double>(n, scale), std::vector<double>(n, 0)}});
  config.dtype = DType::f64;
  config.penalty.rule = PenaltyConfig::Rule::constant;
  return config;
}

Dataset normal_rows(std::int64_t rows, std::int64_t cols) {
  std::mt19937_64 engine(1);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(rows * cols));
  for (double& value : values) value = normal(engine);
  return Dataset::from_rows(values, rows, cols);
}

EvaluationOptions few(std::int64_t samples) {
  EvaluationOptions options;
  options.samples = samples;
  options.folding.samples = 50;
  options.folding.starts = 16;
  return options;
}

TEST(Evaluate, AGaussianPairInClosedForm) {
  for (const std::int64_t d : {1, 2}) {
    Context context;
    const Dataset data = normal_rows(2000, d);
    const double scale = 1.2;
    Trainer trainer(context, gaussian_config(d, d, scale), data);
    const Evaluation e = evaluate(trainer, data, few(4000));
    const auto dimension = static_cast<double>(d);
    const double log_z = 0.5 * dimension * std::log(2 * std::numbers::pi);
    EXPECT_NEAR(*e.log_z, log_z, *e.log_z_error + 1e-12);
    EXPECT_EQ(e.test_points, 2000);
    EXPECT_EQ(e.latents, 4000);
    EXPECT_TRUE(e.test_points_are_training_rows);
    EXPECT_NEAR(*e.nll_exact, e.energy_data + *e.log_z, 1e-12);
    EXPECT_NEAR(*e.nll_exact - *e.lower_bound, *e.gap, 1e-12);
    // phi = (s^2 - 1) |z|^2 / 2 - d log s - log Z, s the scale: variance d (s^2 - 1)^2 / 2.
    const double excess = scale * scale - 1;
    const double gap = 0.5 * dimension * excess - dimension * std::log(scale);
    EXPECT_NEAR(*e.gap, gap, 4 * *e.gap_standard_error);
    EXPECT_NEAR(*e.gap_standard_error, excess * std::sqrt(dimension / 2 / 4000), 0.1 * *e.gap_standard_error);
    EXPECT_NEAR(*e.lower_bound_min_singular, *e.lower_bound, 1e-9);  // all singular values are equal
    EXPECT_TRUE(*e.bracket_ok);
    // P = E (s^2 - 1)^2 |z|^2 / 2, rho = s^2; the upper bound is free of the latents' noise.
    EXPECT_NEAR(*e.penalty, 0.5 * dimension * excess * excess, 0.2 * *e.penalty);
    EXPECT_NEAR(*e.upper_bound, e.energy_data + log_z - gap + 0.5 * dimension * excess * excess / (scale * scale),
                1e-9);
    EXPECT_GE(*e.upper_bound, e.energy_data + log_z);
    EXPECT_NEAR(*e.upper_estimate, *e.lower_bound + 0.5 * dimension * excess * excess / 2, 0.02);
    EXPECT_NEAR(*e.nll_importance, *e.nll_exact, 0.05);
    // ess -> (E w)^2 / E w^2 with w = exp(-excess |z|^2 / 2).
    const double ess = std::pow((1 + 2 * excess) / ((1 + excess) * (1 + excess)), 0.5 * dimension);
    EXPECT_NEAR(*e.ess, ess, 0.05);
    EXPECT_GE(*e.max_abs_phi, 0.5);
    EXPECT_EQ(*e.fold_fraction, 0);
    EXPECT_FALSE(e.kl_data_to_model);
    EXPECT_FALSE(e.data_entropy);
    EXPECT_FALSE(e.modes_found);
    EXPECT_TRUE(e.injective_by_construction);
  }
}

TEST(Evaluate, OnAManifoldNothingIsOrderedAgainstTheLikelihood) {
  Context context;
  const Dataset data = normal_rows(100, 2);
  Trainer trainer(context, gaussian_config(1, 2, 1), data);
  const Evaluation e = evaluate(trainer, data, few(100));
  EXPECT_TRUE(e.nll_exact);
  EXPECT_TRUE(e.lower_bound_on_manifold);
  EXPECT_TRUE(e.penalty);
  for (const auto& absent : {e.lower_bound, e.lower_bound_min_singular, e.upper_bound, e.upper_estimate, e.gap,
                             e.gap_standard_error, e.nll_importance, e.ess, e.fold_fraction})
    EXPECT_FALSE(absent);
  EXPECT_FALSE(e.bracket_ok);
  EXPECT_FALSE(e.calibrated);
  const std::string text = summary(e);
  EXPECT_NE(text.find("lower bound on manifold"), std::string::npos) << text;
  EXPECT_NE(text.find("not comparable"), std::string::npos) << text;
  EXPECT_EQ(text.find("Calibrated"), std::string::npos) << text;
}

TEST(Evaluate, HeldOutRowsAreTheTestPoints) {
  Context context;
  const Dataset data = normal_rows(500, 2), held_out = normal_rows(300, 2);
  std::vector<double> far(held_out.values().begin(), held_out.values().end());
  for (double& x : far) x += 3;
  const Dataset shifted = Dataset::from_rows(far, 300, 2);
  Trainer trainer(context, gaussian_config(2, 2, 1.2), data);
  EvaluationOptions options = few(1000);
  const Evaluation on_training = evaluate(trainer, data, options);
  options.held_out = &shifted;
  const Evaluation e = evaluate(trainer, data, options);
  EXPECT_EQ(e.test_points, 300);
  EXPECT_FALSE(e.test_points_are_training_rows);
  EXPECT_EQ(e.test_data, "rows");
  // E = |x|^2 / 2: the mean of the shifted rows is known; Z and the gap are those of the model alone.
  double energy = 0;
  for (const double x : far) energy += x * x / 2 / 300;
  EXPECT_NEAR(e.energy_data, energy, 1e-5 * energy);
  EXPECT_EQ(*e.log_z, *on_training.log_z);
  EXPECT_NEAR(*e.gap, *on_training.gap, 1e-6);
  EXPECT_NE(summary(e).find("300 rows of rows"), std::string::npos) << summary(e);
  EXPECT_NE(to_json(e).find("\"test_data\": \"rows\""), std::string::npos);
  EXPECT_NE(to_json(on_training).find("\"test_data\": null"), std::string::npos);

  const Dataset wide = normal_rows(10, 3);
  options.held_out = &wide;
  EXPECT_THROW(evaluate(trainer, data, options), InvalidArgument);
}

TEST(Evaluate, BeyondTwoDimensionsTheExactValueIsUnknown) {
  Context context;
  const Dataset data = normal_rows(100, 3);
  Trainer trainer(context, gaussian_config(3, 3, 1.1), data);
  const Evaluation e = evaluate(trainer, data, few(500));
  EXPECT_FALSE(e.nll_exact);
  EXPECT_FALSE(e.log_z);
  EXPECT_FALSE(e.bracket_ok);
  EXPECT_FALSE(e.fold_fraction);
  EXPECT_TRUE(e.lower_bound);
  EXPECT_TRUE(e.upper_bound);
  EXPECT_LE(*e.lower_bound, *e.upper_bound + 3 * *e.gap_standard_error);
  EXPECT_FALSE(e.calibrated);
  EXPECT_NE(summary(e).find("unknown"), std::string::npos);
}

TEST(Evaluate, AToyDensityIsComparedWithWhatIsKnown) {
  Context context;
  const Dataset data = Dataset::open("25gaussians");
  TrainerConfig config = make_preset("calibrated-2d", data, 1);
  Trainer trainer(context, config, data);
  EvaluationOptions options = few(1000);
  const Evaluation e = evaluate(trainer, data, options);
  EXPECT_NEAR(*e.data_entropy, -2.014, 1e-3);
  EXPECT_EQ(*e.modes, 25);
  EXPECT_GE(*e.modes_found, 0);
  EXPECT_GT(*e.kl_data_to_model, 1);  // untrained
  // KL = NLL - entropy up to the sampling noise of log p_d, whose deviation is 1 (two Gaussian coordinates).
  EXPECT_NEAR(*e.kl_data_to_model, *e.nll_exact - *e.data_entropy, 5 / std::sqrt(1000.0));
  EXPECT_TRUE(e.bracket_ok && *e.bracket_ok);
  EXPECT_FALSE(e.upper_bound);
  EXPECT_FALSE(e.test_points_are_training_rows);
  options.seed = 1;
  const Evaluation other = evaluate(trainer, data, options), again = evaluate(trainer, data, options);
  EXPECT_NE(other.energy_data, e.energy_data);
  EXPECT_EQ(to_json(other), to_json(again));
}

TEST(Evaluate, ASingularJacobianLeavesTheBoundsUnknown) {
  Context context;
  const Dataset data = normal_rows(100, 2);
  TrainerConfig config = gaussian_config(2, 2, 1);
  config.generator.network.layers.push_back(ActivationSpec{Activation::relu});
  Trainer trainer(context, config, data);
  const Evaluation e = evaluate(trainer, data, few(200));
  EXPECT_FALSE(e.lower_bound);
  EXPECT_FALSE(e.bracket_ok);
  EXPECT_TRUE(e.nll_exact);
  ASSERT_FALSE(e.warnings.empty());
  EXPECT_NE(e.warnings[0].find("singular"), std::string::npos);
}

TEST(Evaluate, RefusesWhatItCannotJudge) {
  Context context;
  const Dataset data = normal_rows(100, 2);
  Trainer trainer(context, gaussian_config(2, 2, 1), data);
  EXPECT_THROW(evaluate(trainer, data, few(1)), InvalidArgument);
  EXPECT_THROW(evaluate(trainer, normal_rows(10, 3), few(10)), InvalidArgument);
  EXPECT_THROW(density_grid(trainer, {}, 0, 3, 0, Weights::raw), InvalidArgument);
}

TEST(Evaluate, DensityGridIsRowMajorFromBelow) {
  Context context;
  const Dataset data = normal_rows(100, 2);
  Trainer trainer(context, gaussian_config(2, 2, 1), data);
  const Box box{{0, 2}, {10, 16}};
  const DensityGrid grid = density_grid(trainer, box, 2, 3, 0.5, Weights::raw);
  ASSERT_EQ(grid.log_density.size(), 6u);
  const double x[] = {0.5, 1.5}, y[] = {11, 13, 15};
  for (std::size_t j = 0; j < 3; ++j)
    for (std::size_t i = 0; i < 2; ++i)
      EXPECT_NEAR(grid.log_density[2 * j + i], -0.5 * (x[i] * x[i] + y[j] * y[j]) - 0.5, 1e-12);
  const Box around = picture_box({{1, 2}, {0.5, 2}, 3});
  EXPECT_LT(around.x.low, 1 - 1.5);
  EXPECT_GT(around.y.high, 2 + 6);
}

TEST(Report, JsonHasEveryKeyAndNullForTheUnknown) {
  const nlohmann::json json = nlohmann::json::parse(to_json(Evaluation{}));
  for (const char* key : {"nll_exact",
                          "log_z",
                          "log_z_error",
                          "edge_mass",
                          "mass_outside",
                          "lower_bound",
                          "lower_bound_min_singular",
                          "lower_bound_on_manifold",
                          "penalty",
                          "upper_bound",
                          "upper_estimate",
                          "bracket_ok",
                          "fold_fraction",
                          "gap",
                          "gap_standard_error",
                          "nll_importance",
                          "ess",
                          "max_abs_phi",
                          "kl_data_to_model",
                          "modes_found",
                          "high_quality_fraction",
                          "mode_histogram_kl",
                          "data_entropy"}) {
    ASSERT_TRUE(json.contains(key)) << key;
    EXPECT_TRUE(json[key].is_null()) << key;
  }
  EXPECT_TRUE(json["warnings"].is_array());
  Evaluation e;
  e.nll_exact = 0.1;
  e.bracket_ok = false;
  e.modes_found = 24;
  e.weights = Weights::raw;
  e.warnings = {"one"};
  const nlohmann::json known = nlohmann::json::parse(to_json(e));
  EXPECT_EQ(known["nll_exact"].get<double>(), 0.1);
  EXPECT_FALSE(known["bracket_ok"].get<bool>());
  EXPECT_EQ(known["modes_found"].get<int>(), 24);
  EXPECT_EQ(known["weights"], "raw");
  EXPECT_EQ(known["warnings"].size(), 1u);
}

// An evaluation without anything to complain of.
Evaluation sound() {
  Evaluation e;
  e.data_dimension = e.latent_dimension = 2;
  e.nll_exact = 1.01;
  e.log_z = 1;
  e.log_z_error = 1e-5;
  e.edge_mass = 0;
  e.mass_outside = 1e-6;
  e.lower_bound = 1;
  e.gap = 0.01;
  e.gap_standard_error = 0.001;
  e.bracket_ok = true;
  e.nll_importance = 1.0;
  e.ess = 0.97;
  e.fold_fraction = 0;
  return e;
}

TEST(Report, EachDefectHasItsWarning) {
  EXPECT_TRUE(evaluation_warnings(sound(), 0.9).empty());  // one latent's share matters only with a large error
  const auto only = [](const std::function<void(Evaluation&)>& damage, const std::string& part, double share = 0) {
    Evaluation e = sound();
    damage(e);
    const std::vector<std::string> list = evaluation_warnings(e, share);
    ASSERT_EQ(list.size(), 1u) << part;
    EXPECT_NE(list[0].find(part), std::string::npos) << list[0];
  };
  only([](Evaluation& e) { e.lower_bound.reset(); }, "singular");
  only([](Evaluation& e) { e.ess = 0.49; }, "effective share of 0.49");
  only([](Evaluation& e) { e.nll_importance = 0.95; }, "differ by -0.06");
  only([](Evaluation& e) { e.nll_importance = std::nan(""); }, "differ by NaN");
  only([](Evaluation& e) { e.mass_outside = 2e-3; }, "0.002");
  only([](Evaluation& e) { e.edge_mass = 1e-4; }, "normalisable");
  only([](Evaluation& e) { e.log_z_error = 0.02; }, "quadrature");
  only([](Evaluation& e) { e.fold_fraction = 0.25; }, "25 %");
  only([](Evaluation& e) { e.gap_standard_error = 0.05; }, "one latent", 0.9);
  only(
      [](Evaluation& e) {
        e.bracket_ok = false;
        e.gap = -0.5;
      },
      "0.5 nats (500 standard errors) above");
}

TEST(Report, ABrokenOrderIsSaidPlainly) {
  Evaluation e = sound();
  EXPECT_NE(summary(e).find("the bound is kept"), std::string::npos) << summary(e);
  e.bracket_ok = false;
  e.gap = -0.5;
  EXPECT_NE(summary(e).find("ORDER VIOLATED"), std::string::npos) << summary(e);
}

TEST(Modes, CoverageOfHandMadeSamples) {
  const std::vector<std::array<double, 2>> centres = {{0, 0}, {10, 0}, {0, 10}};
  std::vector<double> samples;
  const auto add = [&](int count, double x, double y) {
    for (int i = 0; i < count; ++i) samples.insert(samples.end(), {x, y});
  };
  add(1498, 0.3, 0.2);  // within 4 deviations of 0.1 of the first
  add(500, 10, 0.41);   // just outside
  add(2, 0, 10);        // exactly one in a thousand of the third
  ModeCoverage c = mode_coverage(samples, centres, 0.1);
  EXPECT_EQ(c.found, 2);
  EXPECT_NEAR(c.high_quality_fraction, 1500.0 / 2000, 1e-12);
  const double shares[] = {0.749, 0.25, 0.001};
  double kl = 0;
  for (const double p : shares) kl += p * std::log(3 * p);
  EXPECT_NEAR(c.histogram_kl, kl, 1e-12);
  add(1, 0.3, 0.2);
  c = mode_coverage(samples, centres, 0.1);
  EXPECT_EQ(c.found, 1);  // 2 of 2,001 are fewer than one in a thousand
  EXPECT_THROW(mode_coverage({}, centres, 0.1), InvalidArgument);
  EXPECT_THROW(mode_coverage(samples, {}, 0.1), InvalidArgument);
  EXPECT_THROW(mode_coverage(samples, centres, 0), InvalidArgument);
}

}  // namespace
}  // namespace bracket
