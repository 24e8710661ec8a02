// Patches of images: the rows of the matrix that turns a convolution into a product. They are gathered a panel at a
// time into a buffer that stays in the second-level cache; the whole matrix, k k times the images, is never made.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/ops.h"

namespace bracket {

/// One patch of taps_y x taps_x pixels for every (y, x) of a grid; it starts at pixel (y step + origin_y, x step +
/// origin_x) of the image. Pixels outside the image are 0.
struct PatchGrid {
  std::int64_t height, width, channels;  ///< of the image
  std::int64_t grid_height, grid_width;
  std::int64_t step;
  std::int64_t origin_y, origin_x;
  std::int64_t taps_y, taps_x;

  std::int64_t per_image() const { return grid_height * grid_width; }
  std::int64_t taps() const { return taps_y * taps_x; }
};

/// What every pixel of y reads of x.
inline PatchGrid input_patches(const Convolution& m) {
  return {m.in_height, m.in_width, m.in_channels, m.out_height(), m.out_width(),
          m.stride,    -m.padding, -m.padding,    m.kernel,       m.kernel};
}

/// The kernel rows (columns) ky with ky % stride == residue, which meet every stride-th row of the input only.
inline std::int64_t residue_taps(const Convolution& m, std::int64_t residue) {
  return residue < m.kernel ? (m.kernel - residue + m.stride - 1) / m.stride : 0;
}

/// What the pixels (class_y + j stride, class_x + i stride) of x read of grad_y in the reverse pass: they meet the
/// kernel rows of one residue, the last first.
inline PatchGrid output_patches(const Convolution& m, std::int64_t class_y, std::int64_t class_x) {
  const auto residue = [&](std::int64_t start) { return (start + m.padding) % m.stride; };
  const auto taps = [&](std::int64_t start) { return residue_taps(m, residue(start)); };
  const auto origin = [&](std::int64_t start) {
    return (start + m.padding - residue(start)) / m.stride - (taps(start) - 1);
  };
  return {m.out_height(),
          m.out_width(),
          m.out_channels,
          (m.in_height - class_y + m.stride - 1) / m.stride,
          (m.in_width - class_x + m.stride - 1) / m.stride,
          1,
          origin(class_y),
          origin(class_x),
          taps(class_y),
          taps(class_x)};
}

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
