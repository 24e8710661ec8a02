// Short spellings of layers of images.
#pragma once

#include <utility>
#include <vector>

#include "bracket/network.h"

namespace bracket::test {

inline ActivationSpec activation(Activation function) { return {function, 0.1, 0.25}; }

inline NetworkSpec on_images(const ImageShape& shape, std::vector<LayerSpec> layers) {
  return {shape.size(), std::move(layers), shape};
}

inline Conv2dSpec conv(std::int64_t channels, std::int64_t kernel, std::int64_t stride, std::int64_t padding) {
  return {.channels = channels, .kernel = kernel, .stride = stride, .padding = padding};
}
inline ConvTranspose2dSpec transposed(std::int64_t channels, std::int64_t kernel, std::int64_t stride,
                                      std::int64_t padding, std::int64_t output_padding = 0) {
  return {
      .channels = channels, .kernel = kernel, .stride = stride, .padding = padding, .output_padding = output_padding};
}

inline ResidualSpec residual(std::vector<LayerSpec> body, std::vector<LayerSpec> skip) {
  return {std::move(body), std::move(skip)};
}

/// A generator with a residual block that doubles the resolution.
inline NetworkSpec resnet_generator() {
  return {3,
          {LinearSpec{4 * 2 * 1}, UnflattenSpec{4, 2, 1},
           residual({BatchNormSpec{}, activation(Activation::relu), UpsampleSpec{2}, conv(3, 3, 1, 1), BatchNormSpec{},
                     activation(Activation::relu), conv(3, 3, 1, 1)},
                    {conv(3, 1, 1, 0), UpsampleSpec{2}}),
           BatchNormSpec{}, activation(Activation::relu), conv(2, 3, 1, 1), activation(Activation::tanh)}};
}

}  // namespace bracket::test
