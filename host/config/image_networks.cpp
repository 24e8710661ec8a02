#include "host/config/image_networks.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

namespace bracket {
namespace {

constexpr double kLeak = 0.1;            // negative slope of the energies' LeakyReLU
constexpr double kDeviation = 0.02;      // of the digit networks' start
constexpr double kResnetEpsilon = 1e-4;  // of BatchNorm in ResNet-64

ActivationSpec leaky_relu() { return {.function = Activation::leaky_relu, .negative_slope = kLeak}; }

// Specifications of one network, with the options applied to every layer.
class Builder {
 public:
  explicit Builder(const ImageNetworkOptions& options) : options_(options) {}

  std::int64_t wide(std::int64_t channels) const {
    return std::max<std::int64_t>(1, std::llround(static_cast<double>(channels) * options_.width));
  }
  LinearSpec linear(std::int64_t features) const {
    return {.features = features, .spectral_norm = options_.spectral_norm};
  }
  Conv2dSpec conv(std::int64_t channels, std::int64_t kernel, std::int64_t stride, std::int64_t padding) const {
    return {.channels = channels,
            .kernel = kernel,
            .stride = stride,
            .padding = padding,
            .spectral_norm = options_.spectral_norm};
  }
  // The scalar energy behind a flattened image.
  void add_energy_output(std::vector<LayerSpec>& layers) const {
    layers.emplace_back(FlattenSpec{});
    layers.emplace_back(linear(1));
    if (options_.scalar_layer) layers.emplace_back(LinearSpec{.features = 1, .bias = false});
  }

 private:
  ImageNetworkOptions options_;
};

// Spectral normalisation and the scalar layer belong to energies.
Builder generator_builder(const ImageNetworkOptions& options) { return Builder({.width = options.width}); }

NetworkSpec image_input(const ImageShape& shape) {
  NetworkSpec spec;
  spec.input_size = shape.size();
  spec.image = shape;
  return spec;
}

NetworkSpec latent_input(const ImageNetworkOptions& options) {
  NetworkSpec spec;
  spec.input_size = options.latents;
  return spec;
}

LayerSpec energy_block(const Builder& build, std::int64_t channels, bool first, bool down) {
  ResidualSpec block;
  if (!first) block.body.emplace_back(leaky_relu());
  block.body.emplace_back(build.conv(channels, 3, 1, 1));
  block.body.emplace_back(leaky_relu());
  block.body.emplace_back(build.conv(channels, 3, 1, 1));
  // A 1 x 1 convolution commutes with the mean over a window; behind it, it costs a quarter.
  if (down) {
    block.body.emplace_back(AveragePoolSpec{2});
    block.skip.emplace_back(AveragePoolSpec{2});
  }
  block.skip.emplace_back(build.conv(channels, 1, 1, 0));
  return block;
}

LayerSpec generator_block(const Builder& build, std::int64_t channels) {
  const BatchNormSpec norm{.epsilon = kResnetEpsilon};
  ResidualSpec block;
  block.body = {norm,
                ActivationSpec{Activation::relu},
                UpsampleSpec{2},
                build.conv(channels, 3, 1, 1),
                norm,
                ActivationSpec{Activation::relu},
                build.conv(channels, 3, 1, 1)};
  // Nearest upsampling commutes with a 1 x 1 convolution; behind it, the convolution costs a quarter.
  block.skip = {build.conv(channels, 1, 1, 0), UpsampleSpec{2}};
  return block;
}

}  // namespace

ImageNetworks dcgan_32(std::int64_t channels, const ImageNetworkOptions& options) {
  const Builder build(options), plain = generator_builder(options);
  ImageNetworks networks{image_input({channels, 32, 32}), latent_input(options)};
  std::vector<LayerSpec>& energy = networks.energy.layers;
  for (const auto& [out, kernel, stride] :
       {std::tuple{64, 3, 1}, std::tuple{64, 4, 2}, std::tuple{128, 3, 1}, std::tuple{128, 4, 2}, std::tuple{256, 3, 1},
        std::tuple{256, 4, 2}, std::tuple{512, 3, 1}}) {
    energy.emplace_back(build.conv(build.wide(out), kernel, stride, 1));
    energy.emplace_back(leaky_relu());
  }
  build.add_energy_output(energy);

  std::vector<LayerSpec>& generator = networks.generator.layers;
  const std::int64_t widest = plain.wide(512);
  generator.emplace_back(plain.linear(widest * 4 * 4));
  generator.emplace_back(UnflattenSpec{widest, 4, 4});
  for (const std::int64_t out : {256, 128, 64}) {
    generator.emplace_back(ConvTranspose2dSpec{.channels = plain.wide(out), .kernel = 4, .stride = 2, .padding = 1});
    generator.emplace_back(BatchNormSpec{});
    generator.emplace_back(ActivationSpec{Activation::relu});
  }
  generator.emplace_back(plain.conv(channels, 3, 1, 1));
  generator.emplace_back(ActivationSpec{Activation::tanh});
  return networks;
}

ImageNetworks digits_28(std::int64_t channels, const ImageNetworkOptions& options) {
  const Builder build(options), plain = generator_builder(options);
  ImageNetworks networks{image_input({channels, 28, 28}), latent_input(options)};
  std::vector<LayerSpec>& energy = networks.energy.layers;
  for (const std::int64_t out : {64, 128, 256, 512}) {
    Conv2dSpec conv = build.conv(build.wide(out), 5, 2, 2);
    conv.deviation = kDeviation;
    energy.emplace_back(conv);
    energy.emplace_back(ActivationSpec{Activation::prelu});
  }
  build.add_energy_output(energy);

  std::vector<LayerSpec>& generator = networks.generator.layers;
  const BatchNormSpec norm{.momentum = options.norm_momentum, .deviation = kDeviation};
  const std::int64_t widest = plain.wide(512);
  generator.emplace_back(plain.linear(widest * 2 * 2));
  generator.emplace_back(UnflattenSpec{widest, 2, 2});
  for (const auto& [out, output_padding] : {std::pair{256, 1}, std::pair{128, 0}, std::pair{64, 1}, std::pair{0, 1}}) {
    generator.emplace_back(norm);
    generator.emplace_back(ActivationSpec{Activation::prelu});
    generator.emplace_back(ConvTranspose2dSpec{.channels = out > 0 ? plain.wide(out) : channels,
                                               .kernel = 5,
                                               .stride = 2,
                                               .padding = 2,
                                               .output_padding = output_padding,
                                               .deviation = kDeviation});
  }
  generator.emplace_back(ActivationSpec{Activation::tanh});
  return networks;
}

ImageNetworks resnet_64(std::int64_t channels, const ImageNetworkOptions& options) {
  const Builder build(options), plain = generator_builder(options);
  ImageNetworks networks{image_input({channels, 64, 64}), latent_input(options)};
  std::vector<LayerSpec>& energy = networks.energy.layers;
  for (const std::int64_t out : {64, 128, 256, 512, 1024})
    energy.emplace_back(energy_block(build, build.wide(out), out == 64, out < 1024));
  energy.emplace_back(leaky_relu());
  energy.emplace_back(SumPoolSpec{4});
  build.add_energy_output(energy);

  std::vector<LayerSpec>& generator = networks.generator.layers;
  const std::int64_t widest = plain.wide(1024);
  generator.emplace_back(plain.linear(widest * 4 * 4));
  generator.emplace_back(UnflattenSpec{widest, 4, 4});
  for (const std::int64_t out : {512, 256, 128, 64}) generator.emplace_back(generator_block(plain, plain.wide(out)));
  generator.emplace_back(BatchNormSpec{.epsilon = kResnetEpsilon});
  generator.emplace_back(ActivationSpec{Activation::relu});
  generator.emplace_back(plain.conv(channels, 3, 1, 1));
  generator.emplace_back(ActivationSpec{Activation::tanh});
  return networks;
}

}  // namespace bracket
