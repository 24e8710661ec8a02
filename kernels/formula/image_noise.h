// What a batch of images draws besides its rows, for both devices: words of (seed, stream, step = batch).
//   elements 0 .. 11          the keys of a shuffled epoch (permutation.h)
//   element 16 + i            the mirror of row i
//   blocks from 2^38 on       noise: groups of 32 blocks of four words serve 128 columns, so that a warp, or a CPU's
//                             registers, make the words of adjacent columns together
#pragma once

#include <cstdint>

#include "kernels/formula/host_device.h"
#include "kernels/formula/philox.h"

namespace bracket::formula {

inline constexpr std::int64_t kNoiseBlocks = 32;
inline constexpr std::int64_t kNoiseColumns = 4 * kNoiseBlocks;

/// First block of the group of columns [128 group, 128 group + 128) of a row of `cols` columns. Column 128 group + 32 w
/// + j takes word w of block first + j.
BRACKET_HOST_DEVICE std::uint64_t first_noise_block(std::int64_t row, std::int64_t group, std::int64_t cols) {
  const std::int64_t groups = (cols + kNoiseColumns - 1) / kNoiseColumns;
  return (std::uint64_t{1} << 38) + static_cast<std::uint64_t>((row * groups + group) * kNoiseBlocks);
}

/// Whether the image of a row is mirrored: probability 1/2.
BRACKET_HOST_DEVICE bool mirrored(const PhiloxKey& key, std::int64_t row) {
  const std::uint64_t element = 16 + static_cast<std::uint64_t>(row);
  return philox_block(key, element / 4).word[element % 4] < 0x80000000U;
}

/// scale (pixel + noise) + shift: pixel + noise is exact, the rest is rounded once.
BRACKET_HOST_DEVICE double pixel_value(std::uint8_t pixel, double noise, double scale, double shift) {
  return fused(scale, sum(static_cast<double>(pixel), noise), shift);
}

}  // namespace bracket::formula
