// The presets for images: parameter counts of the published networks, recipes number by number, widths, refusals.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "bracket/preset.h"
#include "config_equality.h"
#include "host/config/image_networks.h"
#include "host/config/image_presets.h"

namespace bracket {
namespace {

ImageShape square(std::int64_t channels, std::int64_t pixels) { return {channels, pixels, pixels}; }

std::int64_t pixels_of(const std::string& preset) {
  if (preset.starts_with("cifar10")) return 32;
  return preset.starts_with("faces-64") ? 64 : 28;
}

bool single_digits(const std::string& preset) { return preset.starts_with("mnist") || preset.starts_with("fashion"); }

std::int64_t count(const NetworkSpec& spec) { return Network(spec, DType::f32).parameter_count(); }

TEST(ImageNetworks, ParameterCountsAreThePublishedOnes) {
  const ImageNetworks cifar = dcgan_32(3, {});
  EXPECT_EQ(count(cifar.energy), 2935873);
  EXPECT_EQ(count(cifar.generator), 3812355);
  const ImageNetworks variant = dcgan_32(3, {.spectral_norm = true, .scalar_layer = true});
  EXPECT_EQ(count(variant.energy), 2935873 + 1);
  EXPECT_EQ(count(variant.generator), 3812355);
  // Layer by layer, weights and biases.
  const auto conv = [](std::int64_t in, std::int64_t out, std::int64_t kernel) {
    return in * out * kernel * kernel + out;
  };
  for (const std::int64_t c : {1, 3}) {
    const ImageNetworks digits = digits_28(c, {});
    EXPECT_EQ(count(digits.energy),
              conv(c, 64, 5) + conv(64, 128, 5) + conv(128, 256, 5) + conv(256, 512, 5) + 4 + 2048 + 1);
    EXPECT_EQ(count(digits.generator), 128 * 2048 + 2048 + 2 * (512 + 256 + 128 + 64) + 4 + conv(512, 256, 5) +
                                           conv(256, 128, 5) + conv(128, 64, 5) + conv(64, c, 5));
  }
  const ImageNetworks faces = resnet_64(3, {});
  EXPECT_EQ(count(faces.energy), 19542721);
  EXPECT_EQ(count(faces.generator), 12220675);
}

// Of the generator of CIFAR-10 in multiplications with an addition: 1.05 + 3 x 33.55 + 1.77 million.
TEST(ImageNetworks, FlopsOfDcganAreThoseOfItsLayers) {
  EXPECT_EQ(Network(dcgan_32(3, {}).generator, DType::f32).flops_per_row(),
            2 * (128 * 8192 + 3 * 16 * 512 * 256 * 16 + 32 * 32 * 64 * 3 * 9));
}

TEST(ImageNetworks, SpectralNormCoversEveryLayerButTheScalarOne) {
  const ImageNetworks plain = dcgan_32(3, {}), normalised = dcgan_32(3, {.spectral_norm = true, .scalar_layer = true});
  std::int64_t layers = 0;
  for (const LayerSpec& layer : normalised.energy.layers) {
    if (const auto* conv = std::get_if<Conv2dSpec>(&layer)) layers += conv->spectral_norm ? 1 : 100;
    if (const auto* linear = std::get_if<LinearSpec>(&layer)) layers += linear->spectral_norm ? 1 : 0;
  }
  EXPECT_EQ(layers, 8);
  EXPECT_EQ(std::get<LinearSpec>(normalised.energy.layers.back()), (LinearSpec{.features = 1, .bias = false}));
  EXPECT_EQ(plain.generator, normalised.generator);
}

TEST(ImagePresets, AllMakeNetworksThatFitAndSurviveJson) {
  for (const std::string& name : image_preset_names()) {
    for (const std::int64_t channels : {1, 3, 4}) {
      for (const double width : {1.0, 0.25, 0.001}) {
        SCOPED_TRACE(name + " channels " + std::to_string(channels) + " width " + std::to_string(width));
        const ImageShape shape = square(channels, pixels_of(name));
        const TrainerConfig config = make_image_preset(name, shape, 50000, width);
        EXPECT_EQ(trainer_config_from_json(to_json(config)), config);
        const Network energy(config.energy.network, config.dtype), generator(config.generator.network, config.dtype);
        EXPECT_EQ(energy.spec().image, shape);
        EXPECT_EQ(energy.output_size(), 1);
        EXPECT_FALSE(energy.has_batch_norm());
        EXPECT_EQ(generator.input_size(), single_digits(name) ? 16 : 128);
        EXPECT_EQ(generator.output_image(), shape);
        const auto& last = std::get<ActivationSpec>(config.generator.network.layers.back());
        EXPECT_EQ(last.function, Activation::tanh);
      }
    }
  }
}

TEST(ImagePresets, Settings) {
  struct Row {
    const char* name;
    double lr, beta2, epsilon;
    PenaltyConfig::Rule rule;
    double weight, threshold, entropy_weight;
    std::int64_t steps;
  };
  constexpr auto kConstant = PenaltyConfig::Rule::constant, kPower = PenaltyConfig::Rule::power;
  // 50,000 images are 781 whole batches of 64.
  for (const Row& row : {Row{"cifar10-i", 2e-4, 0.9, 1e-8, kPower, 0.7, 0, 1, 100 * 781},
                         Row{"cifar10-ii", 2e-4, 0.9, 1e-6, kConstant, 0.001, 1, 1, 130 * 781},
                         Row{"cifar10-iii", 5e-5, 0.999, 1e-8, kConstant, 0.001, 0, 1e-4, 130 * 781},
                         Row{"mnist", 2e-4, 0.99, 1e-8, kConstant, 0.1, 0, 0.1, 60000},
                         Row{"fashion-mnist", 2e-4, 0.99, 1e-8, kConstant, 0.1, 0, 0.1, 60000},
                         Row{"stacked-mnist", 2e-4, 0.9, 1e-8, kConstant, 0.001, 1, 1, 60000},
                         Row{"faces-64", 2e-4, 0.9, 1e-6, kConstant, 0.001, 1, 1, 130 * 781}}) {
    SCOPED_TRACE(row.name);
    const ImageShape shape = square(3, pixels_of(row.name));
    const TrainerConfig c = make_image_preset(row.name, shape, 50000, 1);
    const OptimizerConfig adam{row.lr, 0, row.beta2, row.epsilon, 0, 0};
    const bool digits = single_digits(row.name);
    OptimizerConfig energy_adam = adam;
    if (digits) {
      energy_adam.lr = 5e-4;
      energy_adam.clip_norm = 300;
    }
    EXPECT_EQ(c.energy.optimizer, energy_adam);
    EXPECT_EQ(c.generator.optimizer, adam);
    EXPECT_EQ(c.ema_decay, digits ? 0 : 0.999);
    EXPECT_EQ(c.penalty.kind, PenaltyConfig::Kind::bidirectional);
    EXPECT_EQ(std::tie(c.penalty.rule, c.penalty.weight, c.penalty.threshold, c.entropy_weight, c.total_steps),
              std::tie(row.rule, row.weight, row.threshold, row.entropy_weight, row.steps));
    EXPECT_EQ(std::tuple(c.batch_size, c.energy_steps, c.schedule.cosine, c.schedule.warmup_steps),
              std::tuple(64, 1, digits, digits ? 50 : 0));
    EXPECT_EQ(c.data.flip, pixels_of(row.name) != 28);
    EXPECT_FALSE(c.data.dequantise);

    TrainerConfig baseline = make_image_preset(row.name + std::string("-zero-gp"), shape, 50000, 1);
    EXPECT_EQ(baseline.penalty.kind, PenaltyConfig::Kind::zero_gp);
    EXPECT_EQ(std::tuple(baseline.penalty.rule, baseline.penalty.weight, baseline.penalty.threshold),
              std::tuple(kConstant, 0.1, 0.0));
    baseline.penalty = c.penalty;
    EXPECT_EQ(baseline, c);
  }
  EXPECT_EQ(make_image_preset("cifar10-i", square(3, 32), 50000, 1).penalty.offset, 2307);
  EXPECT_EQ(make_image_preset("cifar10-i", square(3, 32), 50000, 1).penalty.exponent, -0.55);
  EXPECT_EQ(make_image_preset("cifar10-ii", square(3, 32), 10, 1).total_steps, 1);  // less than a batch
}

TEST(ImagePresets, WidthScalesHiddenChannelsOnly) {
  const TrainerConfig narrow = make_image_preset("mnist", square(1, 28), 60000, 0.25);
  EXPECT_EQ(std::get<Conv2dSpec>(narrow.energy.network.layers[0]).channels, 16);
  EXPECT_EQ(std::get<LinearSpec>(narrow.generator.network.layers[0]).features, 128 * 4);
  EXPECT_EQ(narrow.generator.network.input_size, 16);
}

// Slopes of the energy are bounded in every direction, and the Jacobian is that of the batch just seen.
TEST(ImagePresets, DigitsHaveABoundedEnergyAndNoStaleStatistics) {
  for (const char* name : {"mnist", "fashion-mnist"}) {
    const TrainerConfig config = make_image_preset(name, square(1, 28), 60000, 0.25);
    const std::vector<LayerSpec>& energy = config.energy.network.layers;
    EXPECT_EQ(std::get<LinearSpec>(energy.back()), (LinearSpec{.features = 1, .bias = false}));
    for (const LayerSpec& layer : energy) {
      if (const auto* conv = std::get_if<Conv2dSpec>(&layer)) {
        EXPECT_TRUE(conv->spectral_norm);
      }
    }
    for (const LayerSpec& layer : config.generator.network.layers) {
      if (const auto* norm = std::get_if<BatchNormSpec>(&layer)) {
        EXPECT_EQ(norm->momentum, 1);
      }
    }
  }
}

TEST(ImagePresets, Refusals) {
  expect_refused([] { make_image_preset("mnist", square(1, 32), 100, 1); },
                 {"'mnist'", "28 x 28", "32 x 32", "'cifar10-i'"});
  expect_refused(
      [] {
        make_image_preset("cifar10-ii-zero-gp", {3, 32, 48}, 100, 1);
      },
      {"'cifar10-ii-zero-gp'", "32 x 32", "32 x 48", "scale the images"});
  for (const double width : {0.0, -1.0, 65.0, std::nan("")})
    expect_refused([&] { make_image_preset("mnist", square(1, 28), 100, width); }, {"width is", "(0, 64]"});
  expect_refused([] { make_image_preset("minst", square(1, 28), 100, 1); }, {"'minst'"});
}

}  // namespace
}  // namespace bracket
