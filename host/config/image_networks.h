// The networks of the published image experiments, for images of any number of channels.
#pragma once

#include <cstdint>

#include "bracket/network.h"

namespace bracket {

inline constexpr std::int64_t kImageLatents = 128;  // d of the published generators

struct ImageNetworks {
  NetworkSpec energy;
  NetworkSpec generator;
};

struct ImageNetworkOptions {
  double width = 1;                      ///< factor on the channels of hidden layers, which stay at least 1
  bool spectral_norm = false;            ///< of every layer of the energy
  bool scalar_layer = false;             ///< a factor without bias behind the energy, never normalised
  std::int64_t latents = kImageLatents;  ///< d of the generator
  double norm_momentum = 0.1;            ///< of the generator's BatchNorm in digits_28
};

/// 32 x 32 pixels; with 3 channels 2,935,873 and 3,812,355 parameters.
ImageNetworks dcgan_32(std::int64_t channels, const ImageNetworkOptions& options);
/// 28 x 28 pixels; with 1 channel 4,305,413 and 4,568,965 parameters, with 3 channels 4,308,613 and 4,572,167.
ImageNetworks digits_28(std::int64_t channels, const ImageNetworkOptions& options);
/// 64 x 64 pixels; with 3 channels 19,542,721 and 12,220,675 parameters.
ImageNetworks resnet_64(std::int64_t channels, const ImageNetworkOptions& options);

}  // namespace bracket
