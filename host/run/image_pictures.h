// Pictures of a pair trained on images of 1 or 3 channels.
#pragma once

#include <cstdint>

#include "bracket/dataset.h"
#include "bracket/trainer.h"
#include "host/picture/image.h"

namespace bracket {

struct ImagePictureOptions {
  std::int64_t rows = 8;
  std::int64_t columns = 9;  ///< a sample and its neighbours, or the images of a path
  std::uint64_t seed = 0;
  Weights weights = Weights::average;
};

/// Every row a sample, then the images of `data` nearest to it: a generator that copies shows here. Throws
/// InvalidArgument for other numbers of channels, data of another shape, or more neighbours than `data` has images.
Image neighbour_picture(Trainer& trainer, const Dataset& data, const ImagePictureOptions& options = {});

/// Every row the images along a path between two latents (latent_path). Throws InvalidArgument for other numbers of
/// channels or fewer than 2 columns.
Image interpolation_picture(Trainer& trainer, const ImageShape& shape, const ImagePictureOptions& options = {});

}  // namespace bracket
