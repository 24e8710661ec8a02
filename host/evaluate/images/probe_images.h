// Images an energy should tell from data, and paths between latents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/image_shape.h"

namespace bracket {

/// Every value uniform in (-1, 1). Rows in the units of networks, functions of the seed, as below.
std::vector<double> noise_images(const ImageShape& image, std::int64_t count, std::uint64_t seed);

/// One colour each: a value uniform in (-1, 1) per channel.
std::vector<double> constant_images(const ImageShape& image, std::int64_t count, std::uint64_t seed);

/// Averages of pairs of `images` [rows, cols]: average i is that of rows i and i + k mod rows, where k in [1, rows) is
/// a function of the seed. Throws InvalidArgument for fewer than two rows or a size that disagrees.
std::vector<double> averaged_pairs(std::span<const double> images, std::int64_t rows, std::int64_t cols,
                                   std::uint64_t seed);

/// `steps` latents [steps, d] from a to b along a great circle, lengths interpolated geometrically: points of a
/// straight line would be shorter than those the generator was trained on. Ends included; along the line where a and b
/// have no common circle (one is zero, or they are opposite). Throws InvalidArgument for fewer than 2 steps or sizes
/// that differ.
std::vector<double> latent_path(std::span<const double> a, std::span<const double> b, std::int64_t steps);

}  // namespace bracket
