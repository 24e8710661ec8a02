#include <algorithm>
#include <cmath>

#include "bracket/error.h"
#include "bracket/preset.h"
#include "host/config/image_presets.h"
#include "host/core/text.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

// Where single precision stops: beyond, x cannot be told from x + 1/1000 of its column's deviation (2^-24 of the mean),
// or 1 / deviation leaves the range of float with a margin for the squares of gradients.
constexpr double kLargestOffsetInFloat = 1e4;  // |mean| / deviation
constexpr double kSmallestDeviationInFloat = 1e-15;
constexpr double kLargestDeviationInFloat = 1e15;

// The wall stands this far beyond the outermost data point, in standardised units.
constexpr double kWallDistance = 1.2;
constexpr double kWall = 25;

LinearSpec linear(std::int64_t features, double weight_gain, double bias_bound) {
  LinearSpec spec{features};
  spec.weight_gain = weight_gain;
  spec.bias_bound = bias_bound;
  return spec;
}

// u = (x - mean) / deviation.
AffineSpec standardisation(const DataStatistics& data) {
  AffineSpec map;
  for (std::size_t j = 0; j < data.mean.size(); ++j) {
    map.scale.push_back(1 / data.deviation[j]);
    map.shift.push_back(-data.mean[j] / data.deviation[j]);
  }
  return map;
}

// x = u deviation + mean.
AffineSpec standardisation_undone(const DataStatistics& data) { return {data.deviation, data.mean}; }

ConfinementSpec confinement(int input_layer, const DataStatistics& data) {
  return {
      .input_layer = input_layer, .quadratic = 1, .wall = kWall, .radius = kWallDistance * data.standardised_radius};
}

DType precision_for(const DataStatistics& data) {
  for (std::size_t j = 0; j < data.mean.size(); ++j) {
    const double deviation = data.deviation[j];
    if (std::abs(data.mean[j]) > kLargestOffsetInFloat * deviation || deviation < kSmallestDeviationInFloat ||
        deviation > kLargestDeviationInFloat)
      return DType::f64;
  }
  return DType::f32;
}

// Adam and trust region as tuned on 25 Gaussians; unchanged they serve moons and swiss rolls. The energy sees Fourier
// features (without them 0.36 nats worse), the generator is a stack of staircases that cannot fold.
TrainerConfig calibrated_2d(const DataStatistics& data) {
  TrainerConfig config;
  NetworkSpec& energy = config.energy.network;
  energy.input_size = 2;
  energy.layers = {standardisation(data), FourierFeaturesSpec{.frequencies = 32, .deviation = 3}};
  for (int layer = 0; layer < 3; ++layer) {
    energy.layers.emplace_back(layer == 0 ? linear(64, 2, 1) : linear(64, 1.5, 0.1));
    energy.layers.emplace_back(ActivationSpec{Activation::silu});
  }
  energy.layers.emplace_back(linear(1, 1, 0));
  energy.layers.emplace_back(confinement(0, data));

  LinearSpec identity = linear(2, 1, 0);
  identity.identity_start = true;
  NetworkSpec& generator = config.generator.network;
  generator.input_size = 2;
  generator.layers = {identity};
  for (int layer = 0; layer < 4; ++layer) {
    generator.layers.emplace_back(MonotoneCouplingSpec{.active_first = 1 - layer % 2,
                                                       .active_count = 1,
                                                       .knots = 12,
                                                       .hidden = {48, 48},
                                                       .max_slope = 3,
                                                       .max_height = 2});
  }
  generator.layers.emplace_back(identity);
  generator.layers.emplace_back(standardisation_undone(data));

  const OptimizerConfig adam{.lr = 3e-3, .beta1 = 0.5, .beta2 = 0.99, .epsilon = 1e-8};
  config.energy.optimizer = config.generator.optimizer = adam;
  config.penalty.rule = PenaltyConfig::Rule::controller;
  config.penalty.weight = 0.1;
  config.penalty.target = 0.6;
  config.penalty.minimum = 0.003;
  config.penalty.maximum = 2;
  config.penalty.gain = 0.005;
  config.penalty.decay = 0.98;
  config.penalty.delay = 50;
  config.schedule = {.cosine = true, .warmup_steps = 200, .final_fraction = 0.02};
  config.entropy.estimator = EntropyEstimator::exact;
  config.ema_decay = 0.999;
  config.batch_size = 128;
  config.total_steps = 20000;
  config.dtype = precision_for(data);
  return config;
}

// calibrated-2d's recipe for rows of 2 to 128 columns: as many latents, an injective generator whose log-volume comes
// with its passes, and the trust region. Couplings move each half of the columns in turn; a rotation between the two
// pairs mixes what they move. Fourier features of fixed frequencies cover a few dimensions only, a wider energy takes
// their place. Learning rates and trust region are those tuned in two dimensions: beyond some ten columns the energy
// outruns the generator with them.
constexpr std::int64_t kLeastCalibrated = 2, kMostCalibrated = 128;

TrainerConfig calibrated(const DataStatistics& data) {
  constexpr std::int64_t kMostForFeatures = 3;
  constexpr int kCouplings = 4;
  const auto cols = static_cast<std::int64_t>(data.mean.size());
  const bool few = cols <= kMostForFeatures;
  TrainerConfig config = calibrated_2d(data);
  NetworkSpec& energy = config.energy.network;
  energy.input_size = cols;
  energy.layers = {standardisation(data)};
  if (few) energy.layers.emplace_back(FourierFeaturesSpec{.frequencies = 32, .deviation = 3});
  const std::int64_t width = few ? 64 : 128;
  for (int layer = 0; layer < 3; ++layer) {
    energy.layers.emplace_back(layer == 0 ? linear(width, 2, 1) : linear(width, 1.5, 0.1));
    energy.layers.emplace_back(ActivationSpec{Activation::silu});
  }
  energy.layers.emplace_back(linear(1, 1, 0));
  energy.layers.emplace_back(confinement(0, data));

  LinearSpec identity = linear(cols, 1, 0);
  identity.identity_start = true;
  NetworkSpec& generator = config.generator.network;
  generator.input_size = cols;
  generator.layers = {identity};
  const std::int64_t first_half = cols / 2;
  for (int layer = 0; layer < kCouplings; ++layer) {
    if (layer > 0 && layer % 2 == 0 && cols > 2)
      generator.layers.emplace_back(RotationSpec{.seed = static_cast<std::uint64_t>(layer)});
    const bool last = layer % 2 == 0;
    generator.layers.emplace_back(MonotoneCouplingSpec{.active_first = last ? first_half : 0,
                                                       .active_count = last ? cols - first_half : first_half,
                                                       .knots = 12,
                                                       .hidden = {48, 48},
                                                       .max_slope = 3,
                                                       .max_height = 2});
  }
  generator.layers.emplace_back(identity);
  generator.layers.emplace_back(standardisation_undone(data));
  config.entropy.estimator = EntropyEstimator::triangular;
  return config;
}

// The networks and optimizer of the authors' published toy code: PyTorch's default start, no standardisation, BatchNorm
// behind the activation. The energy ends in a bias-free scale that spectral normalisation leaves alone. The authors
// average no weights; the averages here serve reports only and do not touch training.
TrainerConfig paper_toy(bool spectral_norm) {
  TrainerConfig config;
  NetworkSpec& energy = config.energy.network;
  energy.input_size = 2;
  for (const std::int64_t features : {100, 100, 1}) {
    energy.layers.emplace_back(LinearSpec{.features = features, .spectral_norm = spectral_norm});
    if (features > 1) energy.layers.emplace_back(ActivationSpec{Activation::prelu});
  }
  energy.layers.emplace_back(LinearSpec{.features = 1, .bias = false});

  NetworkSpec& generator = config.generator.network;
  generator.input_size = 2;
  for (int layer = 0; layer < 2; ++layer) {
    generator.layers.emplace_back(LinearSpec{.features = 100});
    generator.layers.emplace_back(ActivationSpec{Activation::prelu});
    generator.layers.emplace_back(BatchNormSpec{});
  }
  generator.layers.emplace_back(LinearSpec{.features = 2});

  const OptimizerConfig adam{.lr = 2e-4, .beta1 = 0, .beta2 = 0.9, .epsilon = 1e-6};
  config.energy.optimizer = config.generator.optimizer = adam;
  config.schedule = {.cosine = false, .warmup_steps = 0, .final_fraction = 1};
  config.entropy.estimator = EntropyEstimator::min_singular;
  config.batch_size = 200;
  config.total_steps = 150000;
  return config;
}

// Recipe A: w = 0.7 (2307 + t)^-0.55.
TrainerConfig toy_a() {
  TrainerConfig config = paper_toy(/*spectral_norm=*/true);
  config.penalty.rule = PenaltyConfig::Rule::power;
  config.penalty.weight = 0.7;
  config.penalty.offset = 2307;
  config.penalty.exponent = -0.55;
  return config;
}

// Recipe B: w = 0.001 beyond a penalty term of 1.
TrainerConfig toy_b() {
  TrainerConfig config = paper_toy(/*spectral_norm=*/false);
  config.penalty.weight = 0.001;
  config.penalty.threshold = 1;
  return config;
}

// The paper's baseline EBM-0GP on recipe B's networks: the penalty is mean |grad E|^2 on data. Its weight is that of
// the toy training in the code of Kumar, Ozair, Goyal, Courville, Bengio, "Maximum entropy generators for energy-based
// models" (2019), which penalises the same quantity.
TrainerConfig toy_zero_gp() {
  TrainerConfig config = paper_toy(/*spectral_norm=*/false);
  config.penalty.kind = PenaltyConfig::Kind::zero_gp;
  config.penalty.weight = 0.1;
  return config;
}

// An MLP pair for rows of any dimension. The gains keep unit variance from layer to layer: uniform values in
// +-g / sqrt(n) have variance g^2 / (3 n), so g = sqrt(3) behind unit normals and sqrt(3 / 0.356) = 2.9 behind their
// SiLU, whose mean square is 0.356. Where there are more columns than latents the generator fills a surface only, and
// the quadratic and the wall alone hold the energy up off it. A constant w: the trust region ran
// into its ceiling on 64 columns.
TrainerConfig vectors(const DataStatistics& data) {
  constexpr std::int64_t kLargestLatent = 16;
  constexpr std::int64_t kVectorWidth = 128;
  constexpr double kNormalGain = 1.73, kSiluGain = 2.9;
  const auto cols = static_cast<std::int64_t>(data.mean.size());
  const std::int64_t latents = std::min(cols, kLargestLatent);

  TrainerConfig config;
  NetworkSpec& energy = config.energy.network;
  energy.input_size = cols;
  energy.layers = {standardisation(data)};
  NetworkSpec& generator = config.generator.network;
  generator.input_size = latents;
  for (int layer = 0; layer < 3; ++layer) {
    const double gain = layer == 0 ? kNormalGain : kSiluGain;
    energy.layers.emplace_back(linear(kVectorWidth, gain, layer == 0 ? 1 : 0.1));
    energy.layers.emplace_back(ActivationSpec{Activation::silu});
    generator.layers.emplace_back(linear(kVectorWidth, gain, layer == 0 ? 1 : 0.1));
    generator.layers.emplace_back(ActivationSpec{Activation::silu});
  }
  energy.layers.emplace_back(linear(1, 1, 0));
  energy.layers.emplace_back(confinement(0, data));
  generator.layers.emplace_back(linear(cols, kSiluGain, 0));
  generator.layers.emplace_back(standardisation_undone(data));

  const OptimizerConfig adam{.lr = 1e-3, .beta1 = 0.5, .beta2 = 0.99, .epsilon = 1e-8};
  config.energy.optimizer = config.generator.optimizer = adam;
  config.penalty.rule = PenaltyConfig::Rule::constant;
  config.penalty.weight = 0.1;
  config.dtype = precision_for(data);
  return config;
}

}  // namespace

const std::vector<std::string>& preset_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names = {"calibrated", "calibrated-2d", "toy-a", "toy-b", "toy-zero-gp", "vectors"};
    names.insert(names.end(), image_preset_names().begin(), image_preset_names().end());
    return names;
  }();
  return kNames;
}

TrainerConfig make_preset(const std::string& name, const Dataset& data, std::uint64_t seed,
                          const PresetOptions& options) {
  if (std::find(preset_names().begin(), preset_names().end(), name) == preset_names().end()) {
    throw InvalidArgument("unknown preset " + text_in_quotes(name) + "; did you mean '" +
                          nearest_name(name, preset_names()) + "'?");
  }
  const bool for_images =
      std::find(image_preset_names().begin(), image_preset_names().end(), name) != image_preset_names().end();
  if (for_images && !data.is_images()) {
    throw InvalidArgument("preset '" + name + "' is for images, " + text_in_quotes(data.name()) +
                          " holds none; use the preset 'vectors'");
  }
  if (!for_images && name != "vectors" && data.is_images()) {
    throw InvalidArgument(
        "preset '" + name + "' is not for images, which " + text_in_quotes(data.name()) + " holds (" +
        std::to_string(data.image().height) + " x " + std::to_string(data.image().width) +
        " pixels); use 'mnist' for 28 x 28, 'cifar10-ii' for 32 x 32, 'faces-64' for 64 x 64, or 'vectors'");
  }
  if (!for_images && options.width != 1) {
    throw InvalidArgument("preset '" + name + "' has no width to change; only those for images have one");
  }
  const bool any_columns = name == "vectors" || name == "calibrated";
  if (name == "calibrated" && (data.cols() < kLeastCalibrated || data.cols() > kMostCalibrated)) {
    throw InvalidArgument("preset 'calibrated' is for data with " + std::to_string(kLeastCalibrated) + " to " +
                          std::to_string(kMostCalibrated) + " columns, " + text_in_quotes(data.name()) + " has " +
                          std::to_string(data.cols()) + "; use the preset 'vectors'");
  }
  if (!for_images && !any_columns && data.cols() != 2) {
    throw InvalidArgument("preset '" + name + "' is for data with 2 columns, " + text_in_quotes(data.name()) + " has " +
                          std::to_string(data.cols()) + "; use the preset 'calibrated' or 'vectors'");
  }
  TrainerConfig config;
  if (for_images) config = make_image_preset(name, data.image(), data.rows(), options.width);
  if (name == "calibrated") config = calibrated(data.statistics(seed));
  if (name == "calibrated-2d") config = calibrated_2d(data.statistics(seed));
  if (name == "toy-a") config = toy_a();
  if (name == "toy-b") config = toy_b();
  if (name == "toy-zero-gp") config = toy_zero_gp();
  if (name == "vectors") config = vectors(data.statistics(seed));
  config.seed = seed;
  return config;
}

}  // namespace bracket
