// Patches of images: the rows of the matrix that turns a convolution into a product. They are gathered a panel at a
// time into a buffer that stays in the second-level cache; the whole matrix, k k times the images, is never made.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/formula/patches.h"

namespace bracket {

using PatchGrid = formula::PatchGrid<std::int64_t>;
using Sizes = formula::ConvolutionSizes<std::int64_t>;

/// Runs below this many elements are copied in a loop: a call of memmove costs as much as copying 16.
inline constexpr std::int64_t kShortRun = 32;

template <class T>
T* copy_run(const T* x, std::int64_t count, T* y) {
  if (count >= kShortRun) return std::copy_n(x, count, y);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = x[i];
  return y + count;
}

/// y[i, :] = taps [tap, tap + taps) of patch first + i, each with all its channels; patches are numbered through all
/// images. Neighbouring pixels of one kernel row are neighbours in the image, so whole runs are copied.
template <class T>
void gather_patches(T* y, const Matrix<T>& images, const PatchGrid& g, std::int64_t first, std::int64_t count,
                    std::int64_t tap, std::int64_t taps) {
  std::int64_t image = first / g.per_image();
  std::int64_t grid_y = first % g.per_image() / g.grid_width;
  std::int64_t grid_x = first % g.grid_width;
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t t = tap; t < tap + taps;) {
      const std::int64_t tap_x = t % g.taps_x;
      const std::int64_t run = std::min(g.taps_x - tap_x, tap + taps - t);
      const std::int64_t source_y = grid_y * g.step + g.origin_y + t / g.taps_x;
      const std::int64_t source_x = grid_x * g.step + g.origin_x + tap_x;
      const bool inside = source_y >= 0 && source_y < g.height;
      const std::int64_t begin = inside ? std::clamp(-source_x, std::int64_t{0}, run) : run;
      const std::int64_t end = inside ? std::clamp(g.width - source_x, begin, run) : run;
      y = std::fill_n(y, begin * g.channels, T{0});
      if (begin < end) {
        const T* pixels = images.row(image) + (source_y * g.width + source_x + begin) * g.channels;
        y = copy_run(pixels, (end - begin) * g.channels, y);
      }
      y = std::fill_n(y, (run - end) * g.channels, T{0});
      t += run;
    }
    if (++grid_x == g.grid_width) {
      grid_x = 0;
      if (++grid_y == g.grid_height) {
        grid_y = 0;
        ++image;
      }
    }
  }
}

}  // namespace bracket
