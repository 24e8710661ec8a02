#include "host/config/image_presets.h"

#include <algorithm>
#include <string_view>

#include "bracket/error.h"
#include "host/config/image_networks.h"

namespace bracket {
namespace {

constexpr std::string_view kZeroGp = "-zero-gp";
constexpr std::int64_t kBatch = 64;
constexpr std::int64_t kDigitSteps = 60000;
constexpr std::int64_t kDigitLatents = 16;

// `epochs` passes over the set in whole batches, at least one step.
std::int64_t steps_of(std::int64_t epochs, std::int64_t images) {
  return std::max<std::int64_t>(1, epochs * (images / kBatch));
}

void set_optimizer(TrainerConfig& config, double lr, double beta2, double epsilon) {
  config.energy.optimizer = config.generator.optimizer = {.lr = lr, .beta1 = 0, .beta2 = beta2, .epsilon = epsilon};
}

void set_networks(TrainerConfig& config, ImageNetworks networks) {
  config.energy.network = std::move(networks.energy);
  config.generator.network = std::move(networks.generator);
}

TrainerConfig common() {
  TrainerConfig config;
  config.batch_size = kBatch;
  config.schedule = {.cosine = false, .warmup_steps = 0, .final_fraction = 1};
  config.entropy = {.estimator = EntropyEstimator::lobpcg, .iterations = 2};
  config.entropy_reuse = true;
  return config;
}

// Photographs are as likely mirrored, digits are not.
TrainerConfig photographs() {
  TrainerConfig config = common();
  config.data.flip = true;
  return config;
}

// Spectral normalisation of all layers and a scalar layer behind them. The recipe names an adaptive w without its rule;
// this is the rule of toy-a, w = 0.7 (2307 + t)^-0.55.
TrainerConfig cifar10_i(const ImageShape& shape, std::int64_t images, double width) {
  TrainerConfig config = photographs();
  set_networks(config, dcgan_32(shape.channels, {.width = width, .spectral_norm = true, .scalar_layer = true}));
  set_optimizer(config, 2e-4, 0.9, 1e-8);
  config.penalty.rule = PenaltyConfig::Rule::power;
  config.penalty.weight = 0.7;
  config.penalty.offset = 2307;
  config.penalty.exponent = -0.55;
  config.total_steps = steps_of(100, images);
  return config;
}

TrainerConfig cifar10_ii(const ImageShape& shape, std::int64_t images, double width) {
  TrainerConfig config = photographs();
  set_networks(config, dcgan_32(shape.channels, {.width = width}));
  set_optimizer(config, 2e-4, 0.9, 1e-6);
  config.penalty.weight = 0.001;
  config.penalty.threshold = 1;
  config.total_steps = steps_of(130, images);
  return config;
}

TrainerConfig cifar10_iii(const ImageShape& shape, std::int64_t images, double width) {
  TrainerConfig config = photographs();
  set_networks(config, dcgan_32(shape.channels, {.width = width}));
  set_optimizer(config, 5e-5, 0.999, 1e-8);
  config.penalty.weight = 0.001;
  config.entropy_weight = 1e-4;
  config.total_steps = steps_of(130, images);
  return config;
}

// Networks, start and optimizer of the authors' Stacked MNIST; weight and threshold of the penalty are those of
// cifar10-ii.
TrainerConfig stacked_digits(const ImageShape& shape, double width) {
  TrainerConfig config = common();
  set_networks(config, digits_28(shape.channels, {.width = width}));
  set_optimizer(config, 2e-4, 0.9, 1e-8);
  config.penalty.weight = 0.001;
  config.penalty.threshold = 1;
  config.total_steps = kDigitSteps;
  return config;
}

// For single digits the authors' settings collapse at a quarter of the width: after 1,000 steps all samples were one
// stroke and E was at -11,000. P sees the slope of E only along J, where a shrinking J hides it, and nothing held it
// elsewhere. What this recipe does about it; figures are from runs of 200 to 1,000 steps, some with several changes.
// - Spectral normalisation bounds the slope in every direction. Without it E swung between -1,500 and 500.
// - 16 latents. With 128 an entropy weight of 0.01 left one shape and 0.1 made blots: there are not that many ways in
//   which digits differ, so that volume can only grow as noise.
// - Entropy weight 0.1. 0.05 left one shape (with penalty weight 0.05); 0.3 saturated tanh, and P rose to 330.
// - Penalty weight 0.1, a slower generator, falling rates and a limit on the energy's gradient. With 0.3, 3e-4,
//   constant rates and no limit the samples turned black between steps 300 and 500, P at 580.
// - BatchNorm of the last batch alone, and weights not averaged. Running means of momentum 0.1 lag behind: the mean
//   pixel was -0.20 in inference mode, where J is taken, and -0.68 in training mode; averaged weights with the running
//   statistics of the current ones gave black images.
TrainerConfig digits(const ImageShape& shape, double width) {
  TrainerConfig config = common();
  ImageNetworkOptions options{.width = width, .spectral_norm = true, .scalar_layer = true};
  options.latents = kDigitLatents;
  options.norm_momentum = 1;
  set_networks(config, digits_28(shape.channels, options));
  set_optimizer(config, 2e-4, 0.99, 1e-8);
  config.energy.optimizer.lr = 5e-4;
  config.energy.optimizer.clip_norm = 300;  // scores are huge where tanh saturates; usual norms are 110 to 300
  config.schedule = {.cosine = true, .warmup_steps = 50, .final_fraction = 0.1};
  config.penalty.weight = 0.1;
  config.entropy_weight = 0.1;
  config.ema_decay = 0;
  config.total_steps = kDigitSteps;
  return config;
}

// ResNet-64 with the settings of cifar10-ii.
TrainerConfig faces_64(const ImageShape& shape, std::int64_t images, double width) {
  TrainerConfig config = cifar10_ii(shape, images, width);
  set_networks(config, resnet_64(shape.channels, {.width = width}));
  return config;
}

struct Recipe {
  const char* name;
  std::int64_t pixels;  ///< a side of the images its networks are for
  TrainerConfig (*make)(const ImageShape& shape, std::int64_t images, double width);
};

TrainerConfig digits_of_any_count(const ImageShape& shape, std::int64_t /*images*/, double width) {
  return digits(shape, width);
}

TrainerConfig stacked_digits_of_any_count(const ImageShape& shape, std::int64_t /*images*/, double width) {
  return stacked_digits(shape, width);
}

constexpr Recipe kRecipes[] = {{"cifar10-i", 32, cifar10_i},
                               {"cifar10-ii", 32, cifar10_ii},
                               {"cifar10-iii", 32, cifar10_iii},
                               {"mnist", 28, digits_of_any_count},
                               {"fashion-mnist", 28, digits_of_any_count},
                               {"stacked-mnist", 28, stacked_digits_of_any_count},
                               {"faces-64", 64, faces_64}};

// The baseline EBM-0GP on the same networks, with the weight of toy-zero-gp.
void make_zero_gp(PenaltyConfig& penalty) {
  penalty = {};
  penalty.kind = PenaltyConfig::Kind::zero_gp;
  penalty.weight = 0.1;
}

}  // namespace

const std::vector<std::string>& image_preset_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const Recipe& recipe : kRecipes) {
      names.emplace_back(recipe.name);
      names.push_back(std::string(recipe.name) + std::string(kZeroGp));
    }
    return names;
  }();
  return kNames;
}

TrainerConfig make_image_preset(const std::string& name, const ImageShape& shape, std::int64_t images, double width) {
  if (!(width > 0 && width <= 64))
    throw InvalidArgument("preset '" + name + "': width is " + std::to_string(width) + ", must lie in (0, 64]");
  const bool zero_gp = name.ends_with(kZeroGp);
  const std::string base = zero_gp ? name.substr(0, name.size() - kZeroGp.size()) : name;
  const auto recipe =
      std::find_if(std::begin(kRecipes), std::end(kRecipes), [&](const Recipe& r) { return base == r.name; });
  if (recipe == std::end(kRecipes)) throw InvalidArgument("unknown image preset '" + name + "'");
  if (shape.height != recipe->pixels || shape.width != recipe->pixels) {
    std::string others;
    for (const Recipe& other : kRecipes)
      if (other.pixels == shape.height && other.pixels == shape.width)
        others += (others.empty() ? "; use '" : " or '") + std::string(other.name) + "'";
    if (others.empty()) others = "; scale the images to 28, 32 or 64 pixels a side";
    throw InvalidArgument("preset '" + name + "' is for images of " + std::to_string(recipe->pixels) + " x " +
                          std::to_string(recipe->pixels) + " pixels, these have " + std::to_string(shape.height) +
                          " x " + std::to_string(shape.width) + others);
  }
  TrainerConfig config = recipe->make(shape, images, width);
  if (zero_gp) make_zero_gp(config.penalty);
  return config;
}

}  // namespace bracket
