// The three products of convolutions (convolution.cu) in f32 on tensor cores, for every math mode but fp32: implicit
// products C(m, n) (+)= sum over p of A(m, p) B(p, n) over images in NHWC rows.
//                     C(m, n)                     A(m, p)                           B(p, n)
//   forward           y(pixel, co)                x(patch of pixel; ky, kx, ci)     w(co; ky, kx, ci)
//   reverse data      grad_x(pixel, ci)           grad_y(patch of pixel; taps, co)  w(co; taps, ci)
//   reverse weights   grad_w(co; ky, kx, ci)      grad_y(pixel, co)                 x(patch of pixel; ky, kx, ci)
// Reverse data does the classes of pixels modulo the stride, in one launch; reverse weights chunks of pixels, whose
// sums are then added in order. Forward, and reverse data as the forward of a transposed convolution, apply the bias and
// non-linearity behind them as C is stored, where they are asked to (common/product_epilogue.cuh).
//
// Flops        2 r Ho Wo Co k k Ci per call, three times that on the tensor cores in tf32x3.
// Bytes        as a dense layer of these m, n, p (linear_sm80.cu): patches are gathered from the caches, where a pixel
//              is asked for k k / s^2 times. Reverse weights writes and reads 8 bytes per chunk and weight besides.
// Bound        tensor cores from 128 channels on; with 32 to 64 the second-level cache, as half of a tile's operands
//              are weights or pixels that other tiles read as well.
// Alignment    any. Copies of 16 bytes need channels, starts and row strides that are multiples of 4 elements, else 8
//              or 4: layers from or to 3 channels.
// Determinism  as linear_sm80.cu; the chunks are Convolution::weight_chunks, those of the fp32 kernel.
//
// Variant      idea                                                     shared memory   measured
// large tile   128 x 128 of C, 8 warps of 64 x 32, ring of 3 slices     102 to 110 KiB  not yet measured on a GPU
// small tile   64 x 64 of C, 4 warps of 32 x 32, ring of 3 slices       54 to 55 KiB    not yet measured on a GPU
// Registers, the most of the three directions on sm_80 / sm_90 with CUDA 13.0, no spills:
//              tf32        tf32x3      bf16
// large tile   170 / 168   217 / 215   168 / 183    one block per multiprocessor
// small tile   128 / 134   142 / 142   156 / 166    two or three
// with an epilogue
// large tile   170 / 168   217 / 217   168 / 184
// small tile   124 / 124   141 / 141   128 / 140
#include <type_traits>

#include "kernels/cuda/common/product_epilogue.cuh"
#include "kernels/cuda/common/resident_launch.cuh"
#include "kernels/cuda/convolution_slices.cuh"
#include "kernels/cuda/convolution_sm80.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ----------------------------------------------------------------------------------------------------

/// The tile that is done first, see tensor_plan.h.
bool large_tile_is_first(std::int64_t m, std::int64_t n, std::int64_t splits, const TensorDevice& device) {
  return tensor_cost(kLargeTensorTile, m, n, splits, device.mode, device.multiprocessors) <=
         tensor_cost(kSmallTensorTile, m, n, splits, device.mode, device.multiprocessors);
}

/// f.template operator()<mode, Tile>() of a device and the tile chosen.
template <class F>
cudaError_t with_mode_and_tile(MathMode mode, bool large_tile, const F& f) {
  switch (mode) {
    case MathMode::tf32x3:
      return large_tile ? f.template operator()<MathMode::tf32x3, LargeTile>()
                        : f.template operator()<MathMode::tf32x3, SmallTile>();
    case MathMode::tf32:
      return large_tile ? f.template operator()<MathMode::tf32, LargeTile>()
                        : f.template operator()<MathMode::tf32, SmallTile>();
    case MathMode::bf16:
      return large_tile ? f.template operator()<MathMode::bf16, LargeTile>()
                        : f.template operator()<MathMode::bf16, SmallTile>();
    case MathMode::fp32:
      break;
  }
  return cudaErrorInvalidValue;
}

/// A sum of nothing is one slice of zeros, so that it is stored like all others.
BRACKET_DEVICE int slices_of(std::int64_t depth) {
  return depth == 0 ? 1 : static_cast<int>((depth + kSlice - 1) / kSlice);
}

/// Behind the ring of slices lie the patches of the tile.
template <class Tile>
inline constexpr std::size_t kPatchBytes = Tile::kSide * sizeof(PatchStart);
template <class A, class B>
BRACKET_DEVICE PatchStart* patches_behind(float* shared) {
  return reinterpret_cast<PatchStart*>(shared + kTensorSharedBytes<A, B> / sizeof(float));
}

// ---- kernels ---------------------------------------------------------------------------------------------------

/// Tiles of (pixels, output channels).
template <class TileType, class Epilogue>
struct ForwardWork {
  using Tile = TileType;
  using A = PatchSlices<Tile>;
  using B = MatrixSlices<Tile, Contiguous::contraction>;

  const DeviceMatrix<float>& y;
  const DeviceMatrix<float>& x;
  const DeviceMatrix<float>& w;
  const Geometry& g;
  const Epilogue& epilogue;
  PatchStart* patches;
  PatchGrid grid;
  int tiles_n;
  int items;

  BRACKET_DEVICE ForwardWork(const DeviceMatrix<float>& result, const DeviceMatrix<float>& images,
                             const DeviceMatrix<float>& weights, const Geometry& geometry, const Epilogue& behind,
                             float* shared)
      : y(result),
        x(images),
        w(weights),
        g(geometry),
        epilogue(behind),
        patches(patches_behind<A, B>(shared)),
        grid(input_patches(geometry)),
        tiles_n(tiles_along<Tile>(geometry.out_channels)),
        items(tiles_along<Tile>(result.rows * grid.per_image()) * tiles_n) {}

  static BRACKET_DEVICE int first() { return static_cast<int>(blockIdx.x); }
  static BRACKET_DEVICE int next(int item) { return item + static_cast<int>(gridDim.x); }
  BRACKET_DEVICE int slices(int) const { return slices_of(grid.depth()); }
  BRACKET_DEVICE std::int64_t tile_m(int item) const { return std::int64_t{item / tiles_n} * Tile::kSide; }
  BRACKET_DEVICE std::int64_t tile_n(int item) const { return std::int64_t{item % tiles_n} * Tile::kSide; }
  BRACKET_DEVICE A a(int item) const {
    find_patches<Tile>(patches, x, grid, tile_m(item));
    return A(x, grid, patches);
  }
  BRACKET_DEVICE B b(int item) const { return B(w, tile_n(item), 0); }

  BRACKET_DEVICE void store(int item, const TileSums<Tile>& sums) const {
    const std::int64_t pixels = y.rows * grid.per_image(), first_pixel = tile_m(item), first_channel = tile_n(item);
    if constexpr (std::is_same_v<Epilogue, DeviceEpilogue>) {
      store_tile<Tile>(y, epilogue, sums, first_channel, [&](int row) {
        const bool exists = first_pixel + row < pixels;
        const Division at(exists ? first_pixel + row : 0, grid.per_image());
        return TileRow{at.quotient, at.rest, exists};
      });
      return;
    }
    for_each_pair<Tile>(sums, [&](int row, int column, float first_sum, float second_sum) {
      const std::int64_t pixel = first_pixel + row;
      const std::int64_t channel = first_channel + column;
      if (pixel >= pixels) return;
      float* const target = y.row(pixel / grid.per_image()) + pixel % grid.per_image() * g.out_channels + channel;
      if (channel < g.out_channels) target[0] = first_sum;
      if (channel + 1 < g.out_channels) target[1] = second_sum;
    });
  }
};

/// All pixel classes: `class_tiles` tiles of (pixels, input channels) each, of which the classes with fewer pixels
/// leave some empty.
template <class TileType, class Epilogue>
struct ReverseDataWork {
  using Tile = TileType;
  using A = PatchSlices<Tile>;
  using B = ClassWeightSlices<Tile>;

  const DeviceMatrix<float>& grad_x;
  const DeviceMatrix<float>& grad_y;
  const DeviceMatrix<float>& w;
  const Geometry& g;
  PatchStart* patches;
  int classes_x;
  int class_tiles;
  Update update;
  const Epilogue& epilogue;
  int tiles_n;
  int items;

  BRACKET_DEVICE ReverseDataWork(const DeviceMatrix<float>& result, const DeviceMatrix<float>& gradient,
                                 const DeviceMatrix<float>& weights, const Geometry& geometry, int num_classes_y,
                                 int num_classes_x, int tiles_per_class, Update how, const Epilogue& behind,
                                 float* shared)
      : grad_x(result),
        grad_y(gradient),
        w(weights),
        g(geometry),
        patches(patches_behind<A, B>(shared)),
        classes_x(num_classes_x),
        class_tiles(tiles_per_class),
        update(how),
        epilogue(behind),
        tiles_n(tiles_along<Tile>(geometry.in_channels)),
        items(tiles_per_class * num_classes_y * num_classes_x) {}

  BRACKET_DEVICE PixelClass pixel_class(int item) const {
    const int number = item / class_tiles;
    PixelClass place(g, number / classes_x, number % classes_x);
    // Taps along one side only reach no pixel; cursors, which start at tap (0, 0), stop at the number of rows.
    if (place.patches.taps() == 0) place.patches.taps_y = 0;
    return place;
  }
  BRACKET_DEVICE std::int64_t tile_m(int item) const {
    return std::int64_t{item % class_tiles / tiles_n} * Tile::kSide;
  }
  BRACKET_DEVICE std::int64_t tile_n(int item) const {
    return std::int64_t{item % class_tiles % tiles_n} * Tile::kSide;
  }
  BRACKET_DEVICE int skip_empty(int item) const {
    while (item < items && tile_m(item) >= grad_x.rows * pixel_class(item).patches.per_image())
      item += static_cast<int>(gridDim.x);
    return item;
  }
  BRACKET_DEVICE int first() const { return skip_empty(static_cast<int>(blockIdx.x)); }
  BRACKET_DEVICE int next(int item) const { return skip_empty(item + static_cast<int>(gridDim.x)); }
  BRACKET_DEVICE int slices(int item) const { return slices_of(pixel_class(item).patches.depth()); }
  BRACKET_DEVICE A a(int item) const {
    const PatchGrid grid = pixel_class(item).patches;
    find_patches<Tile>(patches, grad_y, grid, tile_m(item));
    return A(grad_y, grid, patches);
  }
  BRACKET_DEVICE B b(int item) const { return B(w, g, pixel_class(item), tile_n(item)); }

  BRACKET_DEVICE void store(int item, const TileSums<Tile>& sums) const {
    const PixelClass place = pixel_class(item);
    const PatchGrid& grid = place.patches;
    const std::int64_t pixels = grad_x.rows * grid.per_image(), first_pixel = tile_m(item);
    const int first_channel = static_cast<int>(tile_n(item));
    if constexpr (std::is_same_v<Epilogue, DeviceEpilogue>) {
      store_tile<Tile>(grad_x, epilogue, sums, first_channel, [&](int row) {
        const bool exists = first_pixel + row < pixels;
        const PixelCursor at(grid.grid_height, grid.grid_width, exists ? first_pixel + row : 0);
        const int in_y = place.y + at.y * g.stride;
        return TileRow{at.image, std::int64_t{in_y} * g.in_width + place.x + at.x * g.stride, exists};
      });
      return;
    }
    for_each_pair<Tile>(sums, [&](int row, int column, float first_sum, float second_sum) {
      const std::int64_t pixel = first_pixel + row;
      const int channel = first_channel + column;
      if (pixel >= pixels) return;
      const PixelCursor at(grid.grid_height, grid.grid_width, pixel);
      const int in_y = place.y + at.y * g.stride;
      const int in_x = place.x + at.x * g.stride;
      float* const target = grad_x.row(at.image) + (in_y * g.in_width + in_x) * g.in_channels + channel;
      if (channel < g.in_channels) BRACKET_TARGET::store(target[0], first_sum, update);
      if (channel + 1 < g.in_channels) BRACKET_TARGET::store(target[1], second_sum, update);
    });
  }
};

/// Tiles of the weights, chunk after chunk of pixels. chunk_sums: the chunks' [Co, k k Ci] one below the other, or
/// grad_w itself for one chunk.
template <class TileType>
struct ReverseWeightsWork {
  using Tile = TileType;
  using A = GradientSlices<Tile>;
  using B = ReadSlices<Tile>;

  const DeviceMatrix<float>& chunk_sums;
  const DeviceMatrix<float>& grad_y;
  const DeviceMatrix<float>& x;
  const Geometry& g;
  std::int64_t chunk_pixels;
  Update update;
  int tiles_n;
  int tiles;
  int items;

  BRACKET_DEVICE ReverseWeightsWork(const DeviceMatrix<float>& sums, const DeviceMatrix<float>& gradient,
                                    const DeviceMatrix<float>& images, const Geometry& geometry,
                                    std::int64_t pixels_per_chunk, Update how)
      : chunk_sums(sums),
        grad_y(gradient),
        x(images),
        g(geometry),
        chunk_pixels(pixels_per_chunk),
        update(how),
        tiles_n(tiles_along<Tile>(sums.cols)),
        tiles(tiles_along<Tile>(geometry.out_channels) * tiles_n),
        items(static_cast<int>(Division(sums.rows, geometry.out_channels).quotient) * tiles) {}

  static BRACKET_DEVICE int first() { return static_cast<int>(blockIdx.x); }
  static BRACKET_DEVICE int next(int item) { return item + static_cast<int>(gridDim.x); }
  BRACKET_DEVICE std::int64_t chunk(int item) const { return item / tiles; }
  BRACKET_DEVICE std::int64_t tile_m(int item) const { return std::int64_t{item % tiles / tiles_n} * Tile::kSide; }
  BRACKET_DEVICE std::int64_t tile_n(int item) const { return std::int64_t{item % tiles % tiles_n} * Tile::kSide; }
  /// The last chunks may be short, or empty.
  BRACKET_DEVICE std::int64_t depth(int item) const {
    const std::int64_t left = x.rows * g.out_pixels() - chunk(item) * chunk_pixels;
    return left < 0 ? 0 : left < chunk_pixels ? left : chunk_pixels;
  }
  BRACKET_DEVICE int slices(int item) const { return slices_of(depth(item)); }
  BRACKET_DEVICE A a(int item) const { return A(grad_y, g, tile_m(item), chunk(item) * chunk_pixels, depth(item)); }
  BRACKET_DEVICE B b(int item) const { return B(x, g, tile_n(item), chunk(item) * chunk_pixels, depth(item)); }

  BRACKET_DEVICE void store(int item, const TileSums<Tile>& sums) const {
    const std::int64_t first_channel = tile_m(item), first_n = tile_n(item), first_row = chunk(item) * g.out_channels;
    for_each_pair<Tile>(sums, [&](int row, int column, float first_sum, float second_sum) {
      const std::int64_t channel = first_channel + row;
      const std::int64_t n = first_n + column;
      if (channel >= g.out_channels) return;
      float* const target = chunk_sums.row(first_row + channel) + n;
      if (n < chunk_sums.cols) BRACKET_TARGET::store(target[0], first_sum, update);
      if (n + 1 < chunk_sums.cols) BRACKET_TARGET::store(target[1], second_sum, update);
    });
  }
};

template <MathMode kMode, class Tile, class Epilogue>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    conv2d_forward_tensor_kernel(const __grid_constant__ DeviceMatrix<float> y,
                                 const __grid_constant__ DeviceMatrix<float> x,
                                 const __grid_constant__ DeviceMatrix<float> w, const __grid_constant__ Geometry g,
                                 const __grid_constant__ Epilogue epilogue) {
  BRACKET_DYNAMIC_SHARED(float, shared);
  tensor_products<kMode>(ForwardWork<Tile, Epilogue>(y, x, w, g, epilogue, shared), shared);
}

template <MathMode kMode, class Tile, class Epilogue>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    conv2d_reverse_data_tensor_kernel(const __grid_constant__ DeviceMatrix<float> grad_x,
                                      const __grid_constant__ DeviceMatrix<float> grad_y,
                                      const __grid_constant__ DeviceMatrix<float> w, const __grid_constant__ Geometry g,
                                      int classes_y, int classes_x, int class_tiles, Update update,
                                      const __grid_constant__ Epilogue epilogue) {
  BRACKET_DYNAMIC_SHARED(float, shared);
  tensor_products<kMode>(ReverseDataWork<Tile, Epilogue>(grad_x, grad_y, w, g, classes_y, classes_x, class_tiles,
                                                         update, epilogue, shared),
                         shared);
}

template <MathMode kMode, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    conv2d_reverse_weights_tensor_kernel(const __grid_constant__ DeviceMatrix<float> chunk_sums,
                                         const __grid_constant__ DeviceMatrix<float> grad_y,
                                         const __grid_constant__ DeviceMatrix<float> x,
                                         const __grid_constant__ Geometry g, std::int64_t chunk_pixels, Update update) {
  BRACKET_DYNAMIC_SHARED(float, shared);
  tensor_products<kMode>(ReverseWeightsWork<Tile>(chunk_sums, grad_y, x, g, chunk_pixels, update), shared);
}

}  // namespace

// ---- launchers -------------------------------------------------------------------------------------------------

cudaError_t conv2d_forward_sm80(const DeviceMatrix<float>& y, const DeviceMatrix<float>& x,
                                const DeviceMatrix<float>& w, const Convolution& map, const TensorDevice& device,
                                const DeviceEpilogue& epilogue) {
  const Geometry g(map);
  const std::int64_t pixels = y.rows * g.out_pixels();
  const bool large = large_tile_is_first(pixels, g.out_channels, 1, device);
  return with_mode_and_tile(device.mode, large, [&]<MathMode kMode, class Tile>() {
    return with_epilogue(epilogue, [&]<class Epilogue>(const Epilogue& behind) {
      constexpr std::size_t kBytes =
          kTensorSharedBytes<PatchSlices<Tile>, MatrixSlices<Tile, Contiguous::contraction>> + kPatchBytes<Tile>;
      return launch_resident<conv2d_forward_tensor_kernel<kMode, Tile, Epilogue>>(
          tensor_tiles<Tile>(pixels, g.out_channels), device.multiprocessors, Tile::kThreads, kBytes, device.stream, y,
          x, w, g, behind);
    });
  });
}

cudaError_t conv2d_reverse_data_sm80(const DeviceMatrix<float>& grad_x, const DeviceMatrix<float>& grad_y,
                                     const DeviceMatrix<float>& w, const Convolution& map, Update update,
                                     const TensorDevice& device, const DeviceEpilogue& epilogue) {
  const Geometry g(map);
  const PixelClass largest(g, 0, 0);
  const int classes_y = g.stride < g.in_height ? g.stride : g.in_height;
  const int classes_x = g.stride < g.in_width ? g.stride : g.in_width;
  const std::int64_t pixels = grad_x.rows * largest.patches.per_image();
  const bool large = large_tile_is_first(pixels, g.in_channels, std::int64_t{classes_y} * classes_x, device);
  return with_mode_and_tile(device.mode, large, [&]<MathMode kMode, class Tile>() {
    return with_epilogue(epilogue, [&]<class Epilogue>(const Epilogue& behind) {
      constexpr std::size_t kBytes = kTensorSharedBytes<PatchSlices<Tile>, ClassWeightSlices<Tile>> + kPatchBytes<Tile>;
      const std::int64_t class_tiles = tensor_tiles<Tile>(pixels, g.in_channels);
      return launch_resident<conv2d_reverse_data_tensor_kernel<kMode, Tile, Epilogue>>(
          class_tiles * classes_y * classes_x, device.multiprocessors, Tile::kThreads, kBytes, device.stream, grad_x,
          grad_y, w, g, classes_y, classes_x, static_cast<int>(class_tiles), update, behind);
    });
  });
}

cudaError_t conv2d_reverse_weights_sm80(const DeviceMatrix<float>& grad_w, const DeviceMatrix<float>& grad_y,
                                        const DeviceMatrix<float>& x, const Convolution& map, Update update,
                                        float* workspace, const TensorDevice& device) {
  const Geometry g(map);
  const std::int64_t pixels = x.rows * g.out_pixels();
  const std::int64_t chunks = map.weight_chunks(x.rows);
  const bool direct = chunks == 1;
  const DeviceMatrix<float> sums =
      direct ? grad_w : DeviceMatrix<float>{workspace, chunks * grad_w.rows, grad_w.cols, grad_w.cols};
  const bool large = large_tile_is_first(grad_w.rows, grad_w.cols, chunks, device);
  const cudaError_t status = with_mode_and_tile(device.mode, large, [&]<MathMode kMode, class Tile>() {
    constexpr std::size_t kBytes = kTensorSharedBytes<GradientSlices<Tile>, ReadSlices<Tile>>;
    return launch_resident<conv2d_reverse_weights_tensor_kernel<kMode, Tile>>(
        tensor_tiles<Tile>(grad_w.rows, grad_w.cols) * chunks, device.multiprocessors, Tile::kThreads, kBytes,
        device.stream, sums, grad_y, x, g, ceil_divide(pixels, chunks), direct ? update : Update::overwrite);
  });
  if (status != cudaSuccess || direct) return status;
  return add_chunks(grad_w, sums, update, device.stream);
}

}  // namespace bracket::BRACKET_TARGET
