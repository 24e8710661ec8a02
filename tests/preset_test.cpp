// The presets: the published recipes number by number, networks that fit the data, standardisation.
#include "bracket/preset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "bracket/device.h"
#include "bracket/trainer.h"
#include "config_equality.h"
#include "host/evaluate/evaluate.h"

namespace bracket {
namespace {

Dataset rows(std::int64_t count, std::int64_t cols) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < count * cols; ++i) values.push_back(std::sin(static_cast<double>(i * i)) + 3);
  return Dataset::from_rows(values, count, cols);
}

std::vector<std::string> row_preset_names() {
  return {"calibrated", "calibrated-2d", "toy-a", "toy-b", "toy-zero-gp", "vectors"};
}

Dataset images(const ImageShape& shape, std::int64_t count) {
  return Dataset::from_images(std::vector<std::uint8_t>(static_cast<std::size_t>(shape.size() * count)), shape, count);
}

template <class SpecT>
std::vector<SpecT> layers_of(const NetworkSpec& network) {
  std::vector<SpecT> found;
  for (const LayerSpec& layer : network.layers)
    if (const auto* spec = std::get_if<SpecT>(&layer)) found.push_back(*spec);
  return found;
}

TEST(Presets, AllMakeNetworksThatFitAndSurviveJson) {
  for (const std::string& name : row_preset_names()) {
    SCOPED_TRACE(name);
    const TrainerConfig config = make_preset(name, Dataset::open("25gaussians"), 7);
    EXPECT_EQ(config.seed, 7U);
    EXPECT_EQ(trainer_config_from_json(to_json(config)), config);
    EXPECT_EQ(make_preset(name, Dataset::open("25gaussians"), 7), config);
    const Network energy(config.energy.network, config.dtype);
    const Network generator(config.generator.network, config.dtype);
    EXPECT_EQ(energy.input_size(), 2);
    EXPECT_EQ(energy.output_size(), 1);
    EXPECT_FALSE(energy.has_batch_norm());
    EXPECT_EQ(generator.input_size(), 2);
    EXPECT_EQ(generator.output_size(), 2);
    EXPECT_EQ(config.dtype, DType::f32);
  }
}

TEST(Presets, PaperToySettings) {
  for (const std::string name : {"toy-a", "toy-b", "toy-zero-gp"}) {
    SCOPED_TRACE(name);
    const TrainerConfig c = make_preset(name, Dataset::open("swiss_roll"), 0);
    // 2 100 + 100 + 1 + 100 100 + 100 + 1 + 100 + 1 + 1; 2 100 + 100 + 1 + 200 + 100 100 + 100 + 1 + 200 + 200 + 2.
    EXPECT_EQ(Network(c.energy.network, c.dtype).parameter_count(), 10504);
    EXPECT_EQ(Network(c.generator.network, c.dtype).parameter_count(), 11004);
    const std::vector<LinearSpec> linear = layers_of<LinearSpec>(c.energy.network);
    ASSERT_EQ(linear.size(), 4U);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(linear[i].spectral_norm, name == "toy-a");
    EXPECT_FALSE(linear[3].spectral_norm);
    EXPECT_FALSE(linear[3].bias);
    ASSERT_EQ(c.generator.network.layers.size(), 7U);
    for (const std::size_t i : {1U, 4U}) {
      const auto* activation = std::get_if<ActivationSpec>(&c.generator.network.layers[i]);
      ASSERT_NE(activation, nullptr);
      EXPECT_EQ(*activation, (ActivationSpec{Activation::prelu, 0.01, 0.25}));
      const auto* norm = std::get_if<BatchNormSpec>(&c.generator.network.layers[i + 1]);
      ASSERT_NE(norm, nullptr);
      EXPECT_EQ(*norm, (BatchNormSpec{0.1, 1e-5}));
    }
    EXPECT_TRUE(layers_of<AffineSpec>(c.energy.network).empty());
    const OptimizerConfig adam{2e-4, 0, 0.9, 1e-6, 0, 0};
    EXPECT_EQ(c.energy.optimizer, adam);
    EXPECT_EQ(c.generator.optimizer, adam);
    EXPECT_FALSE(c.schedule.cosine);
    EXPECT_EQ(c.schedule.warmup_steps, 0);
    EXPECT_EQ(c.batch_size, 200);
    EXPECT_EQ(c.energy_steps, 1);
    EXPECT_EQ(c.total_steps, 150000);
    EXPECT_EQ(c.entropy.estimator, EntropyEstimator::min_singular);
    EXPECT_EQ(c.entropy_weight, 1);
  }
  const PenaltyConfig a = make_preset("toy-a", Dataset::open("swiss_roll"), 0).penalty;
  EXPECT_EQ(a.kind, PenaltyConfig::Kind::bidirectional);
  EXPECT_EQ(a.rule, PenaltyConfig::Rule::power);
  EXPECT_EQ(std::tie(a.weight, a.offset, a.exponent, a.threshold), std::tuple(0.7, 2307.0, -0.55, 0.0));
  const PenaltyConfig b = make_preset("toy-b", Dataset::open("swiss_roll"), 0).penalty;
  EXPECT_EQ(b.kind, PenaltyConfig::Kind::bidirectional);
  EXPECT_EQ(b.rule, PenaltyConfig::Rule::constant);
  EXPECT_EQ(std::tie(b.weight, b.threshold), std::tuple(0.001, 1.0));
  const PenaltyConfig zero_gp = make_preset("toy-zero-gp", Dataset::open("swiss_roll"), 0).penalty;
  EXPECT_EQ(zero_gp.kind, PenaltyConfig::Kind::zero_gp);
  EXPECT_EQ(zero_gp.rule, PenaltyConfig::Rule::constant);
  EXPECT_EQ(std::tie(zero_gp.weight, zero_gp.threshold), std::tuple(0.1, 0.0));
}

TEST(Presets, CalibratedRecipe) {
  const Dataset data = rows(500, 2);
  const TrainerConfig c = make_preset("calibrated-2d", data, 3);
  const DataStatistics statistics = data.statistics(3);
  const auto linear = layers_of<LinearSpec>(c.energy.network);
  ASSERT_EQ(linear.size(), 4U);
  const std::vector<std::tuple<std::int64_t, double, double>> expected = {
      {64, 2, 1}, {64, 1.5, 0.1}, {64, 1.5, 0.1}, {1, 1, 0}};
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(std::tuple(linear[i].features, linear[i].weight_gain, linear[i].bias_bound), expected[i]) << i;
  EXPECT_EQ(layers_of<FourierFeaturesSpec>(c.energy.network),
            (std::vector<FourierFeaturesSpec>{{.frequencies = 32, .deviation = 3}}));
  EXPECT_EQ(layers_of<ConfinementSpec>(c.energy.network),
            (std::vector<ConfinementSpec>{{0, 1, 25, 1.2 * statistics.standardised_radius}}));
  const auto couplings = layers_of<MonotoneCouplingSpec>(c.generator.network);
  ASSERT_EQ(couplings.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(couplings[i], (MonotoneCouplingSpec{i % 2 == 0 ? 1 : 0, 1, 12, {48, 48}, 3, 2})) << i;
  for (const LinearSpec& layer : layers_of<LinearSpec>(c.generator.network)) {
    EXPECT_TRUE(layer.identity_start);
    EXPECT_EQ(layer.bias_bound, 0);
  }
  EXPECT_TRUE(Network(c.generator.network, c.dtype).injective_by_construction());
  // conditioner 1-48-48-38, four of them, and two 2 x 2 maps; energy 66-64-64-64-1.
  EXPECT_EQ(Network(c.generator.network, c.dtype).parameter_count(),
            4 * (48 + 48 + 48 * 48 + 48 + 48 * 38 + 38) + 2 * 6);
  EXPECT_EQ(Network(c.energy.network, c.dtype).parameter_count(), 66 * 64 + 64 + 2 * (64 * 64 + 64) + 64 + 1);
  const OptimizerConfig adam{3e-3, 0.5, 0.99, 1e-8, 0, 0};
  EXPECT_EQ(c.energy.optimizer, adam);
  EXPECT_EQ(c.generator.optimizer, adam);
  EXPECT_EQ(c.penalty, (PenaltyConfig{PenaltyConfig::Kind::bidirectional, PenaltyConfig::Rule::controller, 0.1, 0, 0, 0,
                                      0.6, 0.003, 2, 0.005, 0.98, 50}));
  EXPECT_EQ(c.schedule, (ScheduleConfig{true, 200, 0.02}));
  EXPECT_EQ(c.entropy.estimator, EntropyEstimator::exact);
  EXPECT_EQ(std::tie(c.entropy_weight, c.ema_decay, c.batch_size, c.energy_steps, c.total_steps),
            std::tuple(1.0, 0.999, 128, 1, 20000));
}

TEST(Presets, StandardisationAndItsInverse) {
  for (const std::string name : {"calibrated-2d", "vectors"}) {
    const Dataset data = rows(300, 2);
    const TrainerConfig c = make_preset(name, data, 0);
    const DataStatistics statistics = data.statistics(0);
    const AffineSpec in = layers_of<AffineSpec>(c.energy.network).front();
    const AffineSpec out = layers_of<AffineSpec>(c.generator.network).back();
    for (std::size_t j = 0; j < 2; ++j) {
      const double m = statistics.mean[j], s = statistics.deviation[j];
      // Two roundings in scale and shift, two in applying them, each 2^-53 of a value below |m| / s + 1.
      const double limit = 4 * std::ldexp(1.0, -53) * (std::abs(m) / s + 1);
      EXPECT_NEAR(m * in.scale[j] + in.shift[j], 0, limit);
      EXPECT_NEAR((m + s) * in.scale[j] + in.shift[j], 1, limit);
      EXPECT_EQ(out.scale[j], s);
      EXPECT_EQ(out.shift[j], m);
    }
  }
}

TEST(Presets, VectorsServeEveryDimension) {
  for (const std::int64_t cols : {1, 2, 16, 17, 64, 300}) {
    SCOPED_TRACE(cols);
    const TrainerConfig c = make_preset("vectors", rows(40, cols), 0);
    const Network energy(c.energy.network, c.dtype), generator(c.generator.network, c.dtype);
    EXPECT_EQ(energy.input_size(), cols);
    EXPECT_EQ(energy.output_size(), 1);
    EXPECT_EQ(generator.input_size(), std::min<std::int64_t>(cols, 16));
    EXPECT_EQ(generator.output_size(), cols);
    EXPECT_GT(std::get<ConfinementSpec>(c.energy.network.layers.back()).radius, 0);
    EXPECT_EQ(c.entropy.estimator, EntropyEstimator::exact);
    EXPECT_EQ(c.penalty.rule, PenaltyConfig::Rule::constant);
    EXPECT_EQ(c.penalty.weight, 0.1);
  }
}

TEST(Presets, CalibratedServesTwoTo128Columns) {
  for (const std::int64_t cols : {2, 3, 4, 17, 128}) {
    SCOPED_TRACE(cols);
    const TrainerConfig c = make_preset("calibrated", rows(300, cols), 0);
    const Network energy(c.energy.network, c.dtype), generator(c.generator.network, c.dtype);
    EXPECT_EQ(energy.input_size(), cols);
    EXPECT_EQ(energy.output_size(), 1);
    EXPECT_EQ(generator.input_size(), cols);
    EXPECT_EQ(generator.output_size(), cols);
    EXPECT_TRUE(generator.injective_by_construction());
    EXPECT_TRUE(generator.has_log_volume());
    EXPECT_EQ(c.entropy.estimator, EntropyEstimator::triangular);
    EXPECT_EQ(c.penalty.rule, PenaltyConfig::Rule::controller);
    EXPECT_EQ(layers_of<FourierFeaturesSpec>(c.energy.network).empty(), cols > 3);
    const auto couplings = layers_of<MonotoneCouplingSpec>(c.generator.network);
    std::int64_t moved = 0;
    for (const MonotoneCouplingSpec& coupling : couplings) moved += coupling.active_count;
    EXPECT_EQ(moved, 2 * cols);  // every column twice
    EXPECT_EQ(trainer_config_from_json(to_json(c)), c);
  }
  for (const std::int64_t cols : {1, 129})
    EXPECT_THROW(make_preset("calibrated", rows(300, cols), 0), InvalidArgument) << cols;
}

// 500 steps, which its schedule spans: nowhere near the entropy of 8.6 nats, but all ways down from a Gaussian's 17.
TEST(Presets, CalibratedLearnsAMixtureInEightColumns) {
  const Dataset data = Dataset::open("mixture-8");
  TrainerConfig config = make_preset("calibrated", data, 0);
  config.total_steps = 500;
  Context context;
  Trainer trainer(context, config, data);
  EvaluationOptions options;
  options.samples = 2000;
  const Evaluation before = evaluate(trainer, data, options);
  trainer.run(config.total_steps);
  const Evaluation after = evaluate(trainer, data, options);
  ASSERT_TRUE(before.nll_importance && after.nll_importance && after.data_entropy);
  EXPECT_LT(*after.nll_importance, *before.nll_importance - 3);
  EXPECT_GT(*after.nll_importance, *after.data_entropy);
  EXPECT_TRUE(after.lower_bound_min_singular);
}

TEST(Presets, ConstantColumnsAreServed) {
  std::vector<double> values;
  for (int i = 0; i < 50; ++i) values.insert(values.end(), {4.0, 0.1 * i});
  const TrainerConfig c = make_preset("calibrated-2d", Dataset::from_rows(values, 50, 2), 0);
  EXPECT_EQ(std::get<AffineSpec>(c.energy.network.layers[0]).scale[0], 1);
  EXPECT_EQ(std::get<AffineSpec>(c.energy.network.layers[0]).shift[0], -4);
}

TEST(Presets, DoublePrecisionWhereSingleCannotResolveTheData) {
  const auto precision = [](double offset, double factor) {
    std::vector<double> values;
    for (int i = 0; i < 64; ++i) values.insert(values.end(), {offset + factor * std::sin(i), std::cos(i)});
    return make_preset("vectors", Dataset::from_rows(values, 64, 2), 0).dtype;
  };
  EXPECT_EQ(precision(0, 1), DType::f32);
  EXPECT_EQ(precision(100, 1), DType::f32);
  EXPECT_EQ(precision(1.7e9, 100), DType::f64);  // a time stamp in seconds
  EXPECT_EQ(precision(0, 1e-20), DType::f64);
  EXPECT_EQ(precision(0, 1e20), DType::f64);
}

TEST(Presets, Refusals) {
  expect_refused([] { make_preset("calibrated2d", Dataset::open("rings"), 0); },
                 {"unknown preset 'calibrated2d'", "did you mean 'calibrated-2d'?"});
  for (const std::string& name : row_preset_names()) {
    expect_refused([&] { make_preset(name, rows(20, 2), 0, {.width = 0.5}); }, {"'" + name + "'", "width"});
    if (name == "vectors") continue;
    expect_refused(
        [&] {
          make_preset(name, images({1, 28, 28}, 2), 0);
        },
        {"'" + name + "' is not for images", "28 x 28", "'mnist'"});
    if (name == "calibrated") continue;  // CalibratedServesTwoTo128Columns
    for (const std::int64_t cols : {1, 3, 64})
      expect_refused([&] { make_preset(name, rows(20, cols), 0); },
                     {"'" + name + "'", "2 columns", std::to_string(cols), "'vectors'"});
  }
  expect_refused([&] { make_preset("mnist", rows(20, 784), 0); }, {"'mnist' is for images", "'rows'", "'vectors'"});
  expect_refused([&] { make_preset("mnist", images({1, 32, 32}, 2), 0); }, {"'mnist'", "28 x 28", "32 x 32"});
}

TEST(Presets, ImagesDecideChannelsAndSteps) {
  EXPECT_EQ(preset_names().size(), row_preset_names().size() + 14);
  const TrainerConfig c = make_preset("cifar10-ii", images({4, 32, 32}, 200), 7, {.width = 0.125});
  EXPECT_EQ(c.energy.network.image, (ImageShape{4, 32, 32}));
  EXPECT_EQ(c.total_steps, 130 * 3);
  EXPECT_EQ(c.seed, 7U);
  EXPECT_EQ(std::get<Conv2dSpec>(c.energy.network.layers[0]).channels, 8);
}

}  // namespace
}  // namespace bracket
