// The three products of convolutions (convolution.cu) in f32 on tensor cores, for every math mode but fp32: implicit
// products C(m, n) (+)= sum over p of A(m, p) B(p, n) over images in NHWC rows.
//                     C(m, n)                     A(m, p)                           B(p, n)
//   forward           y(pixel, co)                x(patch of pixel; ky, kx, ci)     w(co; ky, kx, ci)
//   reverse data      grad_x(pixel, ci)           grad_y(patch of pixel; taps, co)  w(co; taps, ci)
//   reverse weights   grad_w(co; ky, kx, ci)      grad_y(pixel, co)                 x(patch of pixel; ky, kx, ci)
// Reverse data does the classes of pixels modulo the stride, in one launch; reverse weights chunks of pixels, whose
// sums are then added in order.
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
// large tile   130 / 128   168 / 168   128 / 128
// small tile   158 / 162   189 / 190   168 / 181
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

template <class Tile>
std::int64_t tiles_of(std::int64_t m, std::int64_t n) {
  return ceil_divide(m, Tile::kSide) * ceil_divide(n, Tile::kSide);
}

/// Behind the ring of slices lie the patches of the tile.
template <class Tile>
inline constexpr std::size_t kPatchBytes = Tile::kSide * sizeof(PatchStart);
template <class A, class B>
BRACKET_DEVICE PatchStart* patches_behind(float* shared) {
  return reinterpret_cast<PatchStart*>(shared + kTensorSharedBytes<A, B> / sizeof(float));
}

// ---- kernels ---------------------------------------------------------------------------------------------------

template <MathMode kMode, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    conv2d_forward_tensor_kernel(DeviceMatrix<float> y, DeviceMatrix<float> x, DeviceMatrix<float> w, Geometry g) {
  using A = PatchSlices<Tile>;
  using B = MatrixSlices<Tile, Contiguous::contraction>;
  BRACKET_DYNAMIC_SHARED(float, shared);
  const PatchGrid grid = input_patches(g);
  const std::int64_t pixels = y.rows * grid.per_image();
  const std::int64_t tiles_n = (g.out_channels + Tile::kSide - 1) / Tile::kSide;
  const std::int64_t tile_m = blockIdx.x / tiles_n * Tile::kSide;
  const std::int64_t tile_n = blockIdx.x % tiles_n * Tile::kSide;
  PatchStart* const patches = patches_behind<A, B>(shared);
  find_patches<Tile>(patches, x, grid, tile_m);
  __syncthreads();
  A a(x, grid, patches);
  B b(w, tile_n, 0);
  TileSums<Tile> sums;
  tensor_product<kMode>(sums, a, b, (grid.depth() + kSlice - 1) / kSlice, shared);
  for_each_pair<Tile>(sums, [&](int row, int column, float first, float second) {
    const std::int64_t pixel = tile_m + row;
    const std::int64_t channel = tile_n + column;
    if (pixel >= pixels) return;
    float* const target = y.row(pixel / grid.per_image()) + pixel % grid.per_image() * g.out_channels + channel;
    if (channel < g.out_channels) target[0] = first;
    if (channel + 1 < g.out_channels) target[1] = second;
  });
}

/// All pixel classes in one launch: `class_tiles` tiles each, of which the classes with fewer pixels leave some empty.
template <MathMode kMode, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    conv2d_reverse_data_tensor_kernel(DeviceMatrix<float> grad_x, DeviceMatrix<float> grad_y, DeviceMatrix<float> w,
                                      Geometry g, int classes_x, std::int64_t class_tiles, Update update) {
  using A = PatchSlices<Tile>;
  using B = ClassWeightSlices<Tile>;
  BRACKET_DYNAMIC_SHARED(float, shared);
  const int number = static_cast<int>(blockIdx.x / class_tiles);
  const PixelClass pixel_class(g, number / classes_x, number % classes_x);
  const PatchGrid& grid = pixel_class.patches;
  const std::int64_t pixels = grad_x.rows * grid.per_image();
  const std::int64_t tiles_n = (g.in_channels + Tile::kSide - 1) / Tile::kSide;
  const std::int64_t tile_m = blockIdx.x % class_tiles / tiles_n * Tile::kSide;
  const std::int64_t tile_n = blockIdx.x % class_tiles % tiles_n * Tile::kSide;
  if (tile_m >= pixels) return;  // the whole block
  PatchStart* const patches = patches_behind<A, B>(shared);
  find_patches<Tile>(patches, grad_y, grid, tile_m);
  __syncthreads();
  A a(grad_y, grid, patches);
  B b(w, g, pixel_class, tile_n);
  TileSums<Tile> sums;
  tensor_product<kMode>(sums, a, b, (grid.depth() + kSlice - 1) / kSlice, shared);
  for_each_pair<Tile>(sums, [&](int row, int column, float first, float second) {
    const std::int64_t pixel = tile_m + row;
    const int channel = static_cast<int>(tile_n) + column;
    if (pixel >= pixels) return;
    const PixelCursor at(grid.grid_height, grid.grid_width, pixel);
    const int in_y = pixel_class.y + at.y * g.stride;
    const int in_x = pixel_class.x + at.x * g.stride;
    float* const target = grad_x.row(at.image) + (in_y * g.in_width + in_x) * g.in_channels + channel;
    if (channel < g.in_channels) store(target[0], first, update);
    if (channel + 1 < g.in_channels) store(target[1], second, update);
  });
}

/// blockIdx.y: the chunk. chunk_sums: the chunks' [Co, k k Ci] one below the other, or grad_w itself for one chunk.
template <MathMode kMode, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    conv2d_reverse_weights_tensor_kernel(DeviceMatrix<float> chunk_sums, DeviceMatrix<float> grad_y,
                                         DeviceMatrix<float> x, Geometry g, std::int64_t chunk_pixels, Update update) {
  BRACKET_DYNAMIC_SHARED(float, shared);
  const std::int64_t pixels = x.rows * g.out_pixels();
  const std::int64_t tiles_n = (chunk_sums.cols + Tile::kSide - 1) / Tile::kSide;
  const std::int64_t tile_m = blockIdx.x / tiles_n * Tile::kSide;
  const std::int64_t tile_n = blockIdx.x % tiles_n * Tile::kSide;
  const std::int64_t first = blockIdx.y * chunk_pixels < pixels ? blockIdx.y * chunk_pixels : pixels;
  const std::int64_t depth = pixels - first < chunk_pixels ? pixels - first : chunk_pixels;
  GradientSlices<Tile> a(grad_y, g, tile_m, first, depth);
  ReadSlices<Tile> b(x, g, tile_n, first, depth);
  TileSums<Tile> sums;
  tensor_product<kMode>(sums, a, b, (depth + kSlice - 1) / kSlice, shared);
  for_each_pair<Tile>(sums, [&](int row, int column, float first_sum, float second_sum) {
    const std::int64_t channel = tile_m + row;
    const std::int64_t n = tile_n + column;
    if (channel >= g.out_channels) return;
    float* const target = chunk_sums.row(blockIdx.y * g.out_channels + channel) + n;
    if (n < chunk_sums.cols) store(target[0], first_sum, update);
    if (n + 1 < chunk_sums.cols) store(target[1], second_sum, update);
  });
}

}  // namespace

// ---- launchers -------------------------------------------------------------------------------------------------

cudaError_t conv2d_forward_sm80(const DeviceMatrix<float>& y, const DeviceMatrix<float>& x,
                                const DeviceMatrix<float>& w, const Convolution& map, const TensorDevice& device) {
  const Geometry g(map);
  const std::int64_t pixels = y.rows * g.out_pixels();
  const bool large = large_tile_is_first(pixels, g.out_channels, 1, device);
  return with_mode_and_tile(device.mode, large, [&]<MathMode kMode, class Tile>() {
    constexpr std::size_t kBytes =
        kTensorSharedBytes<PatchSlices<Tile>, MatrixSlices<Tile, Contiguous::contraction>> + kPatchBytes<Tile>;
    return launch<conv2d_forward_tensor_kernel<kMode, Tile>>(blocks_for(tiles_of<Tile>(pixels, g.out_channels), 1),
                                                             Tile::kThreads, kBytes, device.stream, y, x, w, g);
  });
}

cudaError_t conv2d_reverse_data_sm80(const DeviceMatrix<float>& grad_x, const DeviceMatrix<float>& grad_y,
                                     const DeviceMatrix<float>& w, const Convolution& map, Update update,
                                     const TensorDevice& device) {
  const Geometry g(map);
  const PixelClass largest(g, 0, 0);
  const int classes_y = g.stride < g.in_height ? g.stride : g.in_height;
  const int classes_x = g.stride < g.in_width ? g.stride : g.in_width;
  const std::int64_t pixels = grad_x.rows * largest.patches.per_image();
  const bool large = large_tile_is_first(pixels, g.in_channels, std::int64_t{classes_y} * classes_x, device);
  return with_mode_and_tile(device.mode, large, [&]<MathMode kMode, class Tile>() {
    constexpr std::size_t kBytes = kTensorSharedBytes<PatchSlices<Tile>, ClassWeightSlices<Tile>> + kPatchBytes<Tile>;
    const std::int64_t class_tiles = tiles_of<Tile>(pixels, g.in_channels);
    return launch<conv2d_reverse_data_tensor_kernel<kMode, Tile>>(blocks_for(class_tiles * classes_y * classes_x, 1),
                                                                  Tile::kThreads, kBytes, device.stream, grad_x, grad_y,
                                                                  w, g, classes_x, class_tiles, update);
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
    const dim3 grid(blocks_for(tiles_of<Tile>(grad_w.rows, grad_w.cols), 1), static_cast<unsigned>(chunks));
    return launch<conv2d_reverse_weights_tensor_kernel<kMode, Tile>>(grid, Tile::kThreads, kBytes, device.stream, sums,
                                                                     grad_y, x, g, ceil_divide(pixels, chunks),
                                                                     direct ? update : Update::overwrite);
  });
  if (status != cudaSuccess || direct) return status;
  return add_chunks(grad_w, sums, update, device.stream);
}

}  // namespace bracket::BRACKET_TARGET
