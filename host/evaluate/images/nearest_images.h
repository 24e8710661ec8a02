// Whether a generator copies: the training images nearest to its samples.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/dataset.h"

namespace bracket {

struct Neighbour {
  std::int64_t row = 0;  ///< of the data set
  double distance = 0;   ///< Euclidean, in the units of networks
};

/// The `neighbours` images of `data` nearest to each of `images` [rows, data.cols()], [rows x neighbours], nearest
/// first; equal distances in the order of rows. Throws InvalidArgument for data without images, a size that disagrees
/// or neighbours outside [1, data.rows()].
std::vector<Neighbour> nearest_images(const Dataset& data, std::span<const double> images, std::int64_t rows,
                                      std::int64_t neighbours);

}  // namespace bracket
