// Planted failures that an audit must name, and pairs with nothing to name.
#include "host/evaluate/audit/audit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>
#include <string>

#include "bracket/error.h"
#include "bracket/preset.h"
#include "tests/network_fixture.h"

namespace bracket {
namespace {

using test::NetworkOnDevice;
using Values = std::map<std::string, std::vector<double>>;

NetworkSpec network_of(std::int64_t inputs, std::vector<LayerSpec> layers) {
  NetworkSpec spec;
  spec.input_size = inputs;
  spec.layers = std::move(layers);
  return spec;
}

// Writes parameters of a network, raw and averaged.
void set_values(SnapshotTensors& raw, SnapshotTensors& average, const Values& values) {
  for (const auto& [name, numbers] : values)
    for (SnapshotTensors* tensors : {&raw, &average}) {
      SnapshotTensor& tensor = tensors->at(name);
      ASSERT_EQ(tensor.dtype, DType::f64);
      ASSERT_EQ(tensor.bytes.size(), numbers.size() * sizeof(double)) << name;
      std::memcpy(tensor.bytes.data(), numbers.data(), tensor.bytes.size());
    }
}

// A pair with given parameters, in double.
struct Pair {
  NetworkSpec energy, generator;
  Values energy_values, generator_values;
};

NetworkSpec identity(std::int64_t d) {
  return network_of(d, {LinearSpec{.features = d, .bias_bound = 0, .identity_start = true}});
}

// E = |x|^2 / 2.
Pair gaussian_pair_of(std::int64_t d, std::int64_t dimension) {
  Pair pair;
  pair.energy =
      network_of(dimension, {LinearSpec{.features = 1, .weight_gain = 0, .bias_bound = 0}, ConfinementSpec{}});
  pair.generator = identity(d);
  if (d == dimension) return pair;
  pair.generator = network_of(d, {LinearSpec{.features = dimension, .bias = false}});
  std::vector<double> weight(static_cast<std::size_t>(dimension * d));
  for (std::int64_t k = 0; k < d; ++k) weight[static_cast<std::size_t>(k * d + k)] = 1;
  pair.generator_values = {{"layers.0.weight", weight}};
  return pair;
}

// exp(-E) = exp(-|x|^2 / 2) + exp(-|x - c|^2 / 2), c = (distance, 0, ..): E = |x|^2 / 2 - softplus(c . x - |c|^2 / 2).
Pair second_well(std::int64_t d, double distance) {
  Pair pair = gaussian_pair_of(d, d);
  pair.energy = network_of(d, {LinearSpec{.features = 1}, ActivationSpec{Activation::softplus},
                               LinearSpec{.features = 1}, ConfinementSpec{.input_layer = -1}});
  std::vector<double> c(static_cast<std::size_t>(d));
  c[0] = distance;
  pair.energy_values = {{"layers.0.weight", c},
                        {"layers.0.bias", {-0.5 * distance * distance}},
                        {"layers.2.weight", {-1}},
                        {"layers.2.bias", {0}}};
  return pair;
}

// exp(-E) = exp(-|x|^2 / 2) (1 + exp(h)), h = A - 2 sum_j [softplus(8 (x_j - c_j)) + softplus(8 (c_j - x_j))], c = (8,
// 0, 0): a funnel with a well of deviation 1/8 at its end. exp(h - |x|^2 / 2) has the integral
//   exp(A) exp(-32) B(1, 3) B(2, 2)^2 / 8^3 to a part in 20: u = 8 (x_1 - 8), exp(-8 (x_1 - 8)) = exp(-u), and
//   int exp(-t u) sigma(u)^2 sigma(-u)^2 du = B(2 - t, 2 + t),
// which A makes that of the other well, (2 pi)^(3/2).
Pair narrow_well() {
  Pair pair = gaussian_pair_of(3, 3);
  pair.energy = network_of(
      3, {LinearSpec{.features = 6}, ActivationSpec{Activation::softplus}, LinearSpec{.features = 1},
          ActivationSpec{Activation::softplus}, LinearSpec{.features = 1}, ConfinementSpec{.input_layer = -1}});
  std::vector<double> slopes(18), shifts(6);
  for (std::size_t k = 0; k < 6; ++k) {
    const double sign = k % 2 == 0 ? 8 : -8;
    slopes[k * 3 + k / 2] = sign;
    shifts[k] = k < 2 ? -8 * sign : 0;
  }
  const double height =
      1.5 * std::log(2 * std::numbers::pi) + 32 - std::log(1.0 / 3) - 2 * std::log(1.0 / 6) + 3 * std::log(8.0);
  pair.energy_values = {
      {"layers.0.weight", slopes}, {"layers.0.bias", shifts}, {"layers.2.weight", std::vector<double>(6, -2)},
      {"layers.2.bias", {height}}, {"layers.4.weight", {-1}}, {"layers.4.bias", {0}}};
  return pair;
}

// (z_1, .., z_d) -> (|z_1|, z_2, .., z_d, 0, ..).
Pair folding(std::int64_t d, std::int64_t dimension) {
  Pair pair = gaussian_pair_of(d, dimension);
  pair.generator = network_of(d, {LinearSpec{.features = 2 * d, .bias = false}, ActivationSpec{Activation::relu},
                                  LinearSpec{.features = dimension, .bias = false}});
  std::vector<double> first(static_cast<std::size_t>(2 * d * d)), second(static_cast<std::size_t>(dimension * 2 * d));
  for (std::int64_t k = 0; k < d; ++k) {
    first[static_cast<std::size_t>(2 * k * d + k)] = 1;
    first[static_cast<std::size_t>((2 * k + 1) * d + k)] = -1;
    second[static_cast<std::size_t>(k * 2 * d + 2 * k)] = 1;
    second[static_cast<std::size_t>(k * 2 * d + 2 * k + 1)] = k == 0 ? 1 : -1;
  }
  pair.generator_values = {{"layers.0.weight", first}, {"layers.2.weight", second}};
  return pair;
}

// E = 3 sum_j tanh(x_j - 2) - tanh(x_j + 2): a well about the origin, flat outside. Nothing holds the mass.
Pair without_wall(std::int64_t d) {
  Pair pair = gaussian_pair_of(d, d);
  pair.energy =
      network_of(d, {LinearSpec{.features = 2 * d}, ActivationSpec{Activation::tanh}, LinearSpec{.features = 1}});
  std::vector<double> first(static_cast<std::size_t>(2 * d * d)), shift, out;
  for (std::int64_t k = 0; k < d; ++k)
    for (const double sign : {-1.0, 1.0}) {
      first[shift.size() * static_cast<std::size_t>(d) + static_cast<std::size_t>(k)] = 1;
      shift.push_back(2 * sign);
      out.push_back(-3 * sign);
    }
  pair.energy_values = {
      {"layers.0.weight", first}, {"layers.0.bias", shift}, {"layers.2.weight", out}, {"layers.2.bias", {0}}};
  return pair;
}

// Normal rows; every second one moved by `shift` along the first column.
Dataset rows_of(std::int64_t cols, double shift = 0) {
  std::mt19937_64 engine(1);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(2000 * cols));
  for (double& value : values) value = normal(engine);
  for (std::size_t i = 0; i < values.size(); i += 2 * static_cast<std::size_t>(cols)) values[i] += shift;
  return Dataset::from_rows(values, 2000, cols);
}

AuditOptions quick() {
  AuditOptions options;
  options.samples = 4000;
  options.chains = 512;
  return options;
}

Audit audited(const Pair& pair, const Dataset& data, const AuditOptions& options = quick(), int threads = 0) {
  ContextOptions device;
  device.threads = threads;
  Context context(device);
  TrainerConfig config;
  config.energy.network = pair.energy;
  config.generator.network = pair.generator;
  config.dtype = DType::f64;
  Trainer trainer(context, config, data);
  TrainerSnapshot snapshot = trainer.snapshot();
  set_values(snapshot.energy, snapshot.energy_average, pair.energy_values);
  set_values(snapshot.generator, snapshot.generator_average, pair.generator_values);
  trainer.restore(snapshot);
  return audit(trainer, data, options);
}

const AuditCheck& check_of(const Audit& audit, const std::string& name) {
  for (const AuditCheck& check : audit.checks)
    if (check.name == name) return check;
  throw InvalidArgument("no check " + name);
}

void expect_clean(const Audit& audit) {
  EXPECT_TRUE(audit.trustworthy) << summary(audit);
  EXPECT_TRUE(audit.verdict.starts_with("trustworthy")) << audit.verdict;
}

// The check fails, and with it the audit.
void expect_failed(const Audit& audit, const std::string& name) {
  EXPECT_EQ(check_of(audit, name).passed, std::optional(false)) << summary(audit);
  EXPECT_FALSE(audit.trustworthy);
  EXPECT_TRUE(audit.verdict.starts_with("not trustworthy: ")) << audit.verdict;
}

constexpr const char* kFolds = "generator does not fold";
constexpr const char* kFarMass = "no mass far from generated points";
constexpr const char* kFarWells = "no deep well that nobody visits";
constexpr const char* kBothBases = "annealing from the data agrees";

TEST(Audit, AGaussianPairIsClean) {
  for (const std::int64_t d : {1, 2, 3, 8}) {
    const Audit a = audited(gaussian_pair_of(d, d), rows_of(d));
    expect_clean(a);
    const double log_z = 0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi);
    EXPECT_TRUE(a.annealing.latent);
    // The base is the model: every weight is exactly Z, to rounding.
    EXPECT_NEAR(a.annealing.lower, log_z, 1e-9);
    EXPECT_NEAR(a.annealing.upper, log_z, 1e-9);
    EXPECT_NEAR(a.nll_annealed, a.evaluation.energy_data + log_z, 1e-9);
    EXPECT_LT(a.nll_annealed_lower, a.nll_annealed);  // the noise of the test points
    EXPECT_GT(a.nll_annealed_upper, a.nll_annealed);
    EXPECT_EQ(a.preimages->share, 0);
    for (const double s : a.spectrum->values) EXPECT_NEAR(s, 1, 1e-12);
  }
}

TEST(Audit, AWiderGeneratorIsCleanInBothSpaces) {
  Pair pair = gaussian_pair_of(3, 3);
  pair.generator.layers.push_back(AffineSpec{{1.1, 1.1, 1.1}, {0, 0, 0}});
  const double log_z = 1.5 * std::log(2 * std::numbers::pi);
  const Audit latent = audited(pair, rows_of(3));
  expect_clean(latent);
  EXPECT_TRUE(latent.annealing.latent);
  // As a surface in four dimensions the same generator has no density: annealing goes through data space.
  const Audit surface = audited(gaussian_pair_of(3, 4), rows_of(4));
  EXPECT_FALSE(surface.annealing.latent);
  for (const auto& [a, truth] : {std::pair{&latent, log_z}, std::pair{&surface, log_z / 3 * 4}}) {
    const double error = a->annealing.forward.standard_error;
    EXPECT_NEAR(a->annealing.forward.estimate, truth, 4.5 * error + 1e-9);
    EXPECT_LT(a->annealing.lower, truth + 1e-9);
    EXPECT_LT(a->annealing.upper - a->annealing.lower, 0.15);
  }
  EXPECT_FALSE(check_of(surface, "lower bound below L").passed);
}

TEST(Audit, AFoldingGeneratorIsNamed) {
  for (const auto& [d, dimension] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {2, 2}, {3, 3}, {2, 4}}) {
    const Audit a = audited(folding(d, dimension), rows_of(dimension));
    expect_failed(a, kFolds);
    EXPECT_NE(a.verdict.find("folds"), std::string::npos) << a.verdict;
    // All but the latents within half a separation of the crease have a second preimage, some are found by no search.
    EXPECT_GT(a.preimages->share, 0.3) << d;
    EXPECT_LE(a.preimages->share, 1);
    ASSERT_EQ(a.preimages->first.size(), static_cast<std::size_t>(d));
    EXPECT_NEAR(a.preimages->first[0], -a.preimages->second[0], 1e-8);
  }
}

TEST(Audit, AHoleFarAwayIsNamed) {
  for (const std::int64_t d : {2, 3, 8}) {
    const Audit a = audited(second_well(d, 8), rows_of(d));
    expect_failed(a, kFarWells);
    if (d <= 3) expect_failed(a, kFarMass);
    ASSERT_EQ(a.far.far_well.size(), static_cast<std::size_t>(d));
    EXPECT_NEAR(a.far.far_well[0], 8, 3) << "the place";
    // What the generator's own points tell is blind to it.
    EXPECT_GT(*a.evaluation.ess, 0.99);
    const double log_z = 0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi) + std::log(2.0);
    EXPECT_LT(*a.evaluation.nll_importance - a.evaluation.energy_data, log_z - 0.6);
    if (d <= 3) {
      EXPECT_NEAR(a.far.proposals[1].far_share, 0.5, 0.1);
    }
  }
}

// No broad point falls into it, so none of their masses knows of it; chains do.
TEST(Audit, ANarrowHoleInThreeDimensionsIsNamed) {
  const Audit a = audited(narrow_well(), rows_of(3));
  expect_failed(a, kFarWells);
  EXPECT_EQ(check_of(a, kFarMass).passed, std::optional(true)) << summary(a);
  EXPECT_GT(a.far.chains_in_unseen_wells, 1);
  EXPECT_NEAR(a.far.far_well[0], 8, 1);
}

// Here chains from the data see what none from the generator's latents do.
TEST(Audit, AModeOfTheDataThatTheGeneratorLacksIsNamed) {
  for (const std::int64_t d : {2, 3, 8}) {
    const Audit a = audited(second_well(d, 7), rows_of(d, 7));
    expect_failed(a, kBothBases);
    if (d <= 3) expect_failed(a, kFarMass);
    ASSERT_TRUE(a.annealing.latent && a.annealing_in_data_space);
    const double log_z = 0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi) + std::log(2.0);
    const LogMeanInterval& from_data = a.annealing_in_data_space->forward;
    EXPECT_NEAR(from_data.estimate, log_z, 4.5 * from_data.standard_error);
    EXPECT_LT(a.annealing.upper, log_z - 0.6);  // whose checks of itself are content
    EXPECT_EQ(check_of(a, "annealing has converged").passed, std::optional(true));
    if (d > 2) {
      EXPECT_EQ(check_of(a, "estimates of log Z agree").passed, std::optional(true));
    }
  }
}

// tanh is injective, but exp(-E) has mass outside its values: latent space holds the integral over the cube alone.
TEST(Audit, AGeneratorThatIsNotOntoGoesThroughDataSpace) {
  const double log_z = 1.5 * std::log(2 * std::numbers::pi);
  for (const Activation function : {Activation::tanh, Activation::sigmoid, Activation::softplus}) {
    Pair pair = gaussian_pair_of(3, 3);
    pair.generator.layers.push_back(ActivationSpec{function});
    const Audit a = audited(pair, rows_of(3));
    EXPECT_TRUE(a.evaluation.injectivity.certified);
    EXPECT_FALSE(a.annealing.latent);
    EXPECT_FALSE(a.annealing_in_data_space);
    EXPECT_NEAR(a.annealing.forward.estimate, log_z, 4.5 * a.annealing.forward.standard_error + 1e-9);
  }
  Pair leaky = gaussian_pair_of(3, 3);
  leaky.generator.layers.push_back(ActivationSpec{Activation::leaky_relu, 0.9});
  const Audit a = audited(leaky, rows_of(3));
  EXPECT_TRUE(a.annealing.latent);
  EXPECT_NEAR(a.annealing.forward.estimate, log_z, 4.5 * a.annealing.forward.standard_error + 1e-9);
  const ActivationSpec bounded{Activation::tanh};
  EXPECT_TRUE(onto_if_injective({AffineSpec{{2}, {1}}, MonotoneCouplingSpec{}, RationalQuadraticCouplingSpec{},
                                 BatchNormSpec{}, ResidualSpec{{bounded}, {}}, RotationSpec{}}));
  EXPECT_FALSE(onto_if_injective({LinearSpec{.features = 1}, bounded, LinearSpec{.features = 1}}));
  EXPECT_FALSE(onto_if_injective({ResidualSpec{{}, {bounded}}}));
}

TEST(Audit, AMissingWallIsNamed) {
  const Audit plane = audited(without_wall(2), rows_of(2));
  expect_failed(plane, "mass inside the data box");
  EXPECT_NE(plane.verdict.find("normalisable"), std::string::npos) << plane.verdict;
  for (const std::int64_t d : {2, 3}) {
    const Audit a = audited(without_wall(d), rows_of(d));
    expect_failed(a, kFarMass);
    EXPECT_NE(check_of(a, kFarMass).finding.find("a wall is missing"), std::string::npos);
  }
}

TEST(Audit, AShortTrainingIsClean) {
  Context context;
  const Dataset data = Dataset::open("two_moons");
  TrainerConfig config = make_preset("calibrated-2d", data, 0);
  config.total_steps = 300;
  config.schedule.warmup_steps = 50;
  config.ema_decay = 0.98;
  Trainer trainer(context, config, data);
  trainer.run(300);
  AuditOptions options = quick();
  options.samples = 2000;
  options.chains = 256;
  const Audit a = audit(trainer, data, options);
  expect_clean(a);
  EXPECT_LE(a.annealing.lower, *a.evaluation.log_z);
  EXPECT_NEAR(a.annealing.forward.estimate, *a.evaluation.log_z, 0.05);
}

TEST(Audit, JsonAndSummarySayTheSame) {
  const Audit a = audited(second_well(2, 8), rows_of(2));
  const nlohmann::json json = nlohmann::json::parse(to_json(a));
  EXPECT_EQ(json["trustworthy"], false);
  EXPECT_EQ(json["verdict"].get<std::string>(), a.verdict);
  EXPECT_EQ(json["checks"].size(), a.checks.size());
  EXPECT_EQ(json["annealing"]["space"], "latent");
  EXPECT_EQ(json["annealing"]["chains"], 512);
  EXPECT_EQ(json["far"]["proposals"].size(), 6u);
  EXPECT_EQ(json["evaluation"]["ess"].get<double>(), *a.evaluation.ess);
  EXPECT_TRUE(json["preimages"]["least_stretch"].is_number());
  const std::string text = summary(a);
  EXPECT_NE(text.find("Verdict: " + a.verdict), std::string::npos) << text;
  EXPECT_NE(text.find("FAILED"), std::string::npos) << text;
  EXPECT_NE(text.find("upper end approximate"), std::string::npos) << text;
  EXPECT_NE(text.find("2000 rows of the training table"), std::string::npos) << text;
  EXPECT_NE(text.find("a bound (G certified injective), estimated from samples"), std::string::npos) << text;
  EXPECT_EQ(json["annealing"]["interval_holds"], true);
  EXPECT_EQ(json["annealing_in_data_space"]["space"], "data");
  EXPECT_GT(spectrum_picture(a).width(), 0);
  const std::string folded = summary(audited(folding(2, 2), rows_of(2)));
  EXPECT_NE(folded.find("G not certified injective, need not be a bound"), std::string::npos) << folded;
}

TEST(Audit, TooFewEffectiveChainsGiveNoInterval) {
  AuditOptions options = quick();
  options.chains = 64;
  const Audit a = audited(gaussian_pair_of(2, 2), rows_of(2), options);
  expect_failed(a, "annealing has converged");
  EXPECT_FALSE(a.annealing.interval_holds);
  EXPECT_EQ(a.annealing.lower, a.annealing.forward.markov_lower);
  EXPECT_EQ(a.nll_annealed_upper, HUGE_VAL);
  const nlohmann::json json = nlohmann::json::parse(to_json(a));
  EXPECT_TRUE(json["nll_annealed_upper_approximate"].is_null());
  EXPECT_TRUE(json["nll_annealed_lower"].is_number());
  EXPECT_NE(summary(a).find("(Markov's inequality)"), std::string::npos) << summary(a);
}

TEST(Audit, OfHeldOutRows) {
  const Dataset held_out = rows_of(2, 1);
  AuditOptions options = quick();
  options.held_out = &held_out;
  const Audit a = audited(gaussian_pair_of(2, 2), rows_of(2), options);
  EXPECT_FALSE(a.evaluation.test_points_are_training_rows);
  double energy = 0;
  for (const double x : held_out.values()) energy += 0.5 * x * x / 2000;
  EXPECT_NEAR(a.nll_annealed, energy + std::log(2 * std::numbers::pi), 1e-9);
  EXPECT_EQ(summary(a).find("training table"), std::string::npos) << summary(a);
}

TEST(Audit, IsAFunctionOfTheSeedWhateverTheThreads) {
  AuditOptions options = quick();
  options.samples = 1000;
  options.chains = 256;
  const std::string first = to_json(audited(second_well(3, 3), rows_of(3), options, 1));
  EXPECT_EQ(to_json(audited(second_well(3, 3), rows_of(3), options, 1)), first);
  EXPECT_EQ(to_json(audited(second_well(3, 3), rows_of(3), options, 2)), first);
  options.seed = 1;
  EXPECT_NE(to_json(audited(second_well(3, 3), rows_of(3), options, 1)), first);
}

TEST(Audit, RefusesBadOptions) {
  const auto refused = [](auto change) {
    AuditOptions options = quick();
    change(options);
    EXPECT_THROW(audited(gaussian_pair_of(2, 2), rows_of(2), options), InvalidArgument);
  };
  refused([](AuditOptions& o) { o.chains = 1; });
  refused([](AuditOptions& o) { o.confidence = 1; });
  refused([](AuditOptions& o) { o.samples = 1; });
  refused([](AuditOptions& o) { o.temperatures = -1; });
  Context context;
  NetworkOnDevice wide(context, network_of(3, {LinearSpec{.features = 2}}), DType::f64);
  EXPECT_THROW(second_preimages(context, wide.network(), wide.parameters()), InvalidArgument);
  NetworkOnDevice square(context, identity(2), DType::f64);
  EXPECT_THROW(second_preimages(context, square.network(), square.parameters(), {.samples = 0}), InvalidArgument);
  EXPECT_EQ(second_preimages(context, square.network(), square.parameters(), {.samples = 1}).share, 0);
}

}  // namespace
}  // namespace bracket
