// Convolutions of images in NHWC rows, x [r, H W Ci], w [Co, k k Ci], y [r, Ho Wo Co].
//
//   forward           y      =    patches of x times w^T
//   reverse data      grad_x (+)= patches of grad_y times w, each class of pixels modulo the stride with its own taps
//   reverse weights   grad_w (+)= grad_y^T times patches of x
//
// Patches are gathered a panel at a time (patches.h) and multiplied on register tiles (tile_product.h). Where the
// result has few channels Eigen multiplies and the product is turned round: all taps of every source pixel at once,
// then the sum over taps (tap_fold.h).
//
// GFLOP/s on one core of a Xeon with AVX-512, float, batch 64 (bench/results/convolution_cpu.json, 2026-12-01); an EPYC
// with AVX2, before, had 69 to 87 in all layers but E1 and G4:
//   layer (input, kernel, stride)               forward   reverse data   reverse weights
//   E1 32 x 32 x   3 ->  64, 3, 1                  46           43             48
//   E2 32 x 32 x  64 ->  64, 4, 2                 111           99             94
//   E3 16 x 16 x  64 -> 128, 3, 1                 119          120            109
//   E4 16 x 16 x 128 -> 128, 4, 2                 125          115            100
//   E5  8 x  8 x 128 -> 256, 3, 1                 134          131            111
//   E6  8 x  8 x 256 -> 256, 4, 2                 117          119            123
//   E7  4 x  4 x 256 -> 512, 3, 1                 124          113            115
//   G1  8 x  8 x 256 -> 512, 4, 2 (transposed)    113          115            112
//   G2 16 x 16 x 128 -> 256, 4, 2 (transposed)    121          111            101
//   G3 32 x 32 x  64 -> 128, 4, 2 (transposed)    128           96            102
//   G4 32 x 32 x  64 ->   3, 3, 1                  41           58             44
// On that EPYC, without the fold, E1 reverse data had 9 and G4 forward 14 (42 and 41 with it); with patches of x
// instead of grad_y G4 reverse weights had 14, else 33.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/patches.h"
#include "kernels/cpu/tap_fold.h"
#include "kernels/cpu/tile_product.h"

namespace bracket {
namespace {

/// Elements of gathered patches at a time: 256 KiB of floats, half a second-level cache.
constexpr std::int64_t kPatchElements = std::int64_t{1} << 16;
/// Up to this many channels of the result are folded (tap_fold.h). The fold of a strided forward pass multiplies
/// stride^2 times as often as it sums, so the limit is on their product.
constexpr std::int64_t kFoldChannels = 8;

/// Weight gradients: contracted pixels per product, and tasks to share among threads.
constexpr std::int64_t kContractedPixels = 256;
constexpr std::int64_t kWeightTasks = 16;

struct Patches;
struct ClassResult;
struct ClassWeights;
struct FoldWeights;

std::int64_t taps_at_once(const PatchGrid& grid, std::int64_t pixels) {
  return std::clamp(kPatchElements / (pixels * grid.channels), std::int64_t{1}, std::max<std::int64_t>(1, grid.taps()));
}

/// The pixels of images as the rows of a matrix: [pixels, channels].
template <class T>
struct PixelRows {
  T* data;
  std::int64_t channels;
  std::int64_t per_image;
  std::int64_t ld;  ///< elements from one image to the next

  PixelRows(const Matrix<T>& images, std::int64_t image_channels)
      : data(images.data), channels(image_channels), per_image(images.cols / image_channels), ld(images.ld) {}
  PixelRows(T* pixels, std::int64_t count, std::int64_t num_channels)
      : data(pixels), channels(num_channels), per_image(count), ld(count * num_channels) {}

  /// f(rows, offset) for pixels [first, first + count) in pieces whose rows are evenly spaced: all at once, or one
  /// image at a time when there are gaps between images.
  template <class F>
  void pieces(std::int64_t first, std::int64_t count, F&& f) const {
    if (ld == per_image * channels) {
      f(Matrix<T>{data + first * channels, count, channels, channels}, 0);
      return;
    }
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t pixel = (first + done) % per_image;
      const std::int64_t length = std::min(per_image - pixel, count - done);
      f(Matrix<T>{data + (first + done) / per_image * ld + pixel * channels, length, channels, channels}, done);
      done += length;
    }
  }
};

/// Rows [y_first, y_first + count) of y (+)= patches [first, first + count) of `images` times weights, where
/// the first rows of the weights are [grid.taps() channels, y.channels].
template <class T>
void multiply_patches(const PixelRows<T>& y, std::int64_t y_first, const Matrix<T>& images, const PatchGrid& grid,
                      std::int64_t first, std::int64_t count, Update update, const StripOperand<T>& weights) {
  const std::int64_t step = taps_at_once(grid, count);
  T* patches = thread_buffer<T, Patches>(count * step * grid.channels);
  for (std::int64_t tap = 0; tap < grid.taps(); tap += step) {
    const std::int64_t taps = std::min(step, grid.taps() - tap);
    const std::int64_t depth = taps * grid.channels;
    gather_patches(patches, images, grid, first, count, tap, taps);
    y.pieces(y_first, count, [&](const Matrix<T>& rows, std::int64_t offset) {
      multiply_strips(rows, {patches + offset * depth, depth, 1}, weights.rows_from(tap * grid.channels), depth,
                      tap == 0 ? update : Update::accumulate);
    });
  }
}

/// w as [k k Co, Ci].
template <class T>
View<T> weights_by_tap(const Matrix<T>& w, const Convolution& m) {
  T* result = thread_buffer<T, FoldWeights>(w.rows * w.cols);
  for (std::int64_t tap = 0; tap < m.kernel * m.kernel; ++tap) {
    for (std::int64_t o = 0; o < m.out_channels; ++o) {
      std::copy_n(w.row(o) + tap * m.in_channels, m.in_channels, result + (tap * m.out_channels + o) * m.in_channels);
    }
  }
  return block(result, m.kernel * m.kernel * m.out_channels, m.in_channels);
}

template <class T>
void forward(const Matrix<T>& y, const Matrix<T>& x, const Matrix<T>& w, const Convolution& m, ThreadTeam& team) {
  if (m.out_channels * m.stride * m.stride <= kFoldChannels && m.out_channels < m.in_channels) {
    TapFold<T>(m, true).run(y, x, weights_by_tap(w, m), Update::overwrite, team);
    return;
  }
  const PatchGrid grid = formula::input_patches(Sizes(m));
  const PixelRows<T> result(y, m.out_channels);
  const StripOperand<T> weights = transposed(w, team);
  const std::int64_t cost = w.cols * (2 * m.out_channels + kWriteCost);
  parallel_panels(y.rows * grid.per_image(), cost, team, [&](std::int64_t first, std::int64_t count) {
    multiply_patches(result, first, x, grid, first, count, Update::overwrite, weights);
  });
}

/// Pixels (class_y + j stride, class_x + i stride) of grad_x.
struct PixelClass {
  std::int64_t class_y, class_x;
  PatchGrid grid;
  std::int64_t first_tap;  ///< in the weights of all classes

  PixelClass(const Convolution& m, std::int64_t y, std::int64_t x)
      : class_y(y), class_x(x), grid(formula::output_patches(Sizes(m), y, x)) {
    first_tap = first_tap_of(m, (y + m.padding) % m.stride, (x + m.padding) % m.stride);
  }
  /// Taps are sorted by the residues of (ky, kx).
  static std::int64_t first_tap_of(const Convolution& m, std::int64_t residue_y, std::int64_t residue_x) {
    return taps_before(m, residue_y) * m.kernel +
           formula::residue_taps(Sizes(m), residue_y) * taps_before(m, residue_x);
  }
  static std::int64_t taps_before(const Convolution& m, std::int64_t residue) {
    std::int64_t taps = 0;
    for (std::int64_t r = 0; r < std::min(residue, m.kernel); ++r) taps += formula::residue_taps(Sizes(m), r);
    return taps;
  }
};

/// w as rows (tap in the order of the classes' patches, Co) of Ci: those of a class follow one another.
template <class T>
StripOperand<T> class_weights(const Matrix<T>& w, const Convolution& m, ThreadTeam& team) {
  const std::int64_t depth = m.kernel * m.kernel * m.out_channels;
  const std::int64_t size = StripOperand<T>::elements(depth, m.in_channels);
  const StripOperand<T> result{thread_buffer<T, ClassWeights>(size), depth, m.in_channels};
  parallel_tasks(m.kernel * m.kernel, w.rows * w.cols * kWriteCost, team, [&](std::int64_t tap) {
    const std::int64_t ky = tap / m.kernel;
    const std::int64_t kx = tap % m.kernel;
    const auto reversed = [&](std::int64_t k) {
      return formula::residue_taps(Sizes(m), k % m.stride) - 1 - k / m.stride;
    };
    const std::int64_t position = PixelClass::first_tap_of(m, ky % m.stride, kx % m.stride) +
                                  reversed(ky) * formula::residue_taps(Sizes(m), kx % m.stride) + reversed(kx);
    for (std::int64_t o = 0; o < m.out_channels; ++o) {
      const T* source = w.row(o) + tap * m.in_channels;
      for (std::int64_t j = 0; j < m.in_channels; j += kStripCols<T>)
        std::copy_n(source + j, std::min(kStripCols<T>, m.in_channels - j),
                    result.strip(position * m.out_channels + o, j));
    }
  });
  return result;
}

/// Pixels [first, first + count) of a class (+)= rows of `result`, or 0 where there is none.
template <class T>
void scatter_class(const Matrix<T>& grad_x, const T* result, const Convolution& m, const PixelClass& pixels,
                   std::int64_t first, std::int64_t count, Update update) {
  const PatchGrid& grid = pixels.grid;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t pixel = (first + i) % grid.per_image();
    const std::int64_t y = pixels.class_y + pixel / grid.grid_width * m.stride;
    const std::int64_t x = pixels.class_x + pixel % grid.grid_width * m.stride;
    T* target = grad_x.row((first + i) / grid.per_image()) + (y * m.in_width + x) * m.in_channels;
    const T* source = result + i * m.in_channels;
    if (update == Update::overwrite) {
      std::copy_n(source, m.in_channels, target);
    } else {
      for (std::int64_t c = 0; c < m.in_channels; ++c) target[c] += source[c];
    }
  }
}

template <class T>
void reverse_data(const Matrix<T>& grad_x, const Matrix<T>& grad_y, const Matrix<T>& w, const Convolution& m,
                  Update update, ThreadTeam& team) {
  if (m.in_channels <= kFoldChannels && m.in_channels < m.out_channels) {
    TapFold<T>(m, false).run(grad_x, grad_y, rows_of(w, 0, w.rows).transpose(), update, team);
    return;
  }
  const StripOperand<T> weights = class_weights(w, m, team);
  const PixelRows<T> pixel_rows(grad_x, m.in_channels);
  const std::int64_t classes_y = std::min(m.stride, m.in_height);
  const std::int64_t classes_x = std::min(m.stride, m.in_width);
  // Class (0, 0) has the most pixels.
  const std::int64_t largest = grad_x.rows * PixelClass(m, 0, 0).grid.per_image();
  const std::int64_t step = product_rows(largest);
  const std::int64_t panels = (largest + step - 1) / step;
  const std::int64_t cost = grad_x.rows * m.out_columns() * m.kernel * m.kernel * (2 * m.in_channels + kWriteCost);
  parallel_tasks(classes_y * classes_x * panels, cost, team, [&](std::int64_t task) {
    const std::int64_t number = task / panels;
    const PixelClass pixels(m, number / classes_x, number % classes_x);
    const std::int64_t first = task % panels * step;
    const std::int64_t count = std::min(step, grad_x.rows * pixels.grid.per_image() - first);
    if (count <= 0) return;
    const StripOperand<T> own_weights = weights.rows_from(pixels.first_tap * m.out_channels);
    if (m.stride == 1) {
      multiply_patches(pixel_rows, first, grad_y, pixels.grid, first, count, update, own_weights);
      return;
    }
    T* result = thread_buffer<T, ClassResult>(count * m.in_channels);
    if (pixels.grid.taps() == 0) std::fill_n(result, count * m.in_channels, T{0});
    multiply_patches(PixelRows<T>(result, count, m.in_channels), 0, grad_y, pixels.grid, first, count,
                     Update::overwrite, own_weights);
    scatter_class(grad_x, result, m, pixels, first, count, update);
  });
}

/// One side of a weight gradient as patches, the other as pixels: per chunk of pixels [channels, taps patch channels].
template <class T>
struct WeightProduct {
  Matrix<T> images;  ///< of the patches
  PatchGrid grid;
  PixelRows<T> pixels;
  std::int64_t count;  ///< of pixels
  std::int64_t step;   ///< taps at a time
  std::int64_t groups;
  std::int64_t chunks;

  WeightProduct(const Matrix<T>& patch_images, const PatchGrid& patch_grid, const PixelRows<T>& other,
                std::int64_t max_chunks)
      : images(patch_images),
        grid(patch_grid),
        pixels(other),
        count(patch_images.rows * patch_grid.per_image()),
        step(taps_at_once(patch_grid, kContractedPixels)),
        groups((patch_grid.taps() + step - 1) / step),
        chunks(std::min(max_chunks, (kWeightTasks + groups - 1) / groups)) {}

  /// target_of(chunk) (+)= the sum over the chunk's pixels.
  template <class TargetOf>
  void run(Update update, ThreadTeam& team, TargetOf&& target_of) const {
    const std::int64_t chunk_pixels = (count + chunks - 1) / chunks;
    const std::int64_t cost = 2 * count * pixels.channels * grid.taps() * grid.channels;
    parallel_tasks(chunks * groups, cost, team, [&](std::int64_t task) {
      const std::int64_t tap = task % groups * step;
      const std::int64_t taps = std::min(step, grid.taps() - tap);
      const std::int64_t begin = std::min(task / groups * chunk_pixels, count);
      const std::int64_t end = std::min(begin + chunk_pixels, count);
      const Matrix<T> target = target_of(task / groups);
      const Matrix<T> columns{target.data + tap * grid.channels, target.rows, taps * grid.channels, target.ld};
      if (update == Update::overwrite)
        for (std::int64_t i = 0; i < columns.rows; ++i) std::fill_n(columns.row(i), columns.cols, T{0});
      T* patches = thread_buffer<T, Patches>(kContractedPixels * columns.cols);
      for (std::int64_t first = begin; first < end; first += kContractedPixels) {
        const std::int64_t length = std::min(kContractedPixels, end - first);
        gather_patches(patches, images, grid, first, length, tap, taps);
        pixels.pieces(first, length, [&](const Matrix<T>& rows, std::int64_t offset) {
          multiply_panel(columns, {rows.data, 1, rows.ld}, patches + offset * columns.cols, columns.cols, rows.rows,
                         Update::accumulate);
        });
      }
    });
  }
};

/// grad_w (+)= sum of the chunks, in order; element_of(o, j) is where a chunk has element (o, j).
template <class T, class ElementOf>
void add_chunks(const Matrix<T>& grad_w, const T* sums, std::int64_t chunks, Update update, ThreadTeam& team,
                ElementOf&& element_of) {
  const std::int64_t size = grad_w.rows * grad_w.cols;
  parallel_rows(grad_w.rows, chunks * grad_w.cols, team, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = begin; o < end; ++o) {
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        const bool add = chunk > 0 || update == Update::accumulate;
        T* row = grad_w.row(o);
        for (std::int64_t j = 0; j < grad_w.cols; ++j) {
          const T sum = sums[chunk * size + element_of(o, j)];
          row[j] = add ? row[j] + sum : sum;
        }
      }
    }
  });
}

/// Patches of grad_y instead of x: with few output channels they are the smaller side. Stride 1 only, where a patch
/// has no holes. `sums` are [Ci, k k Co] with the taps reversed.
template <class T>
void reverse_weights_turned(const Matrix<T>& grad_w, const Matrix<T>& grad_y, const Matrix<T>& x, const Convolution& m,
                            Update update, T* sums, ThreadTeam& team) {
  const WeightProduct<T> product(grad_y, formula::output_patches<std::int64_t>(Sizes(m), 0, 0),
                                 PixelRows<T>(x, m.in_channels), m.weight_chunks(x.rows));
  const std::int64_t size = grad_w.rows * grad_w.cols;
  const std::int64_t columns = m.kernel * m.kernel * m.out_channels;
  product.run(Update::overwrite, team, [&](std::int64_t chunk) {
    return Matrix<T>{sums + chunk * size, m.in_channels, columns, columns};
  });
  add_chunks(grad_w, sums, product.chunks, update, team, [&](std::int64_t o, std::int64_t j) {
    const std::int64_t tap = m.kernel * m.kernel - 1 - j / m.in_channels;
    return j % m.in_channels * columns + tap * m.out_channels + o;
  });
}

template <class T>
void reverse_weights(const Matrix<T>& grad_w, const Matrix<T>& grad_y, const Matrix<T>& x, const Convolution& m,
                     Update update, T* sums, ThreadTeam& team) {
  const bool few_outputs = m.out_channels <= kFoldChannels && m.out_channels < m.in_channels;
  if (few_outputs && m.stride == 1 && m.weight_chunks(x.rows) > 1) {
    reverse_weights_turned(grad_w, grad_y, x, m, update, sums, team);
    return;
  }
  const WeightProduct<T> product(x, formula::input_patches(Sizes(m)), PixelRows<T>(grad_y, m.out_channels),
                                 m.weight_chunks(x.rows));
  if (product.chunks == 1) {
    product.run(update, team, [&](std::int64_t) { return grad_w; });
    return;
  }
  const std::int64_t size = grad_w.rows * grad_w.cols;
  product.run(Update::overwrite, team, [&](std::int64_t chunk) {
    return Matrix<T>{sums + chunk * size, grad_w.rows, grad_w.cols, grad_w.cols};
  });
  add_chunks(grad_w, sums, product.chunks, update, team,
             [&](std::int64_t o, std::int64_t j) { return o * grad_w.cols + j; });
}

}  // namespace

void CpuOps::do_conv2d_forward(Tensor y, Tensor x, Tensor w, const Convolution& map, const ProductEpilogue& epilogue) {
  const Tensor& product = epilogue.product(y);
  dispatch(y.dtype(), [&]<class T>() { forward(matrix<T>(product), matrix<T>(x), matrix<T>(w), map, team_); });
  finish_product(y, map.out_channels, epilogue);
}

void CpuOps::do_conv2d_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, const Convolution& map, Update update,
                                    const ProductEpilogue& epilogue) {
  const Tensor& product = epilogue.product(grad_x);
  dispatch(grad_x.dtype(),
           [&]<class T>() { reverse_data(matrix<T>(product), matrix<T>(grad_y), matrix<T>(w), map, update, team_); });
  finish_product(grad_x, map.in_channels, epilogue);
}

void CpuOps::do_conv2d_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, const Convolution& map, Update update,
                                       Tensor workspace) {
  dispatch(grad_w.dtype(), [&]<class T>() {
    reverse_weights(matrix<T>(grad_w), matrix<T>(grad_y), matrix<T>(x), map, update, static_cast<T*>(workspace.data()),
                    team_);
  });
}

}  // namespace bracket
