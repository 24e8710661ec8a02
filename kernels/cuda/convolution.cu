// Convolutions of images in NHWC rows, x [r, H W Ci], w [Co, k k Ci], y [r, Ho Wo Co]; any row strides:
//   y[oy, ox, co] = sum over ky, kx, ci of x[oy s + ky - padding, ox s + kx - padding, ci] w[co, ky, kx, ci]
// and its two adjoints; pixels outside the image are 0. Stride s; a pixel is (row of the batch, y, x).
//
// All three are products C(m, n) (+)= sum over p of A(m, p) B(p, n):
//                     C(m, n)                     A(m, p)                         B(p, n)
//   forward           y(pixel, co)                x(patch of pixel; ky, kx, ci)   w(co; ky, kx, ci)
//   reverse data      grad_x(pixel, ci)           grad_y(patch of pixel; taps, co)  w(co; taps, ci)
//   reverse weights   grad_w(co; ky, kx, ci)      grad_y(pixel, co)               x(patch of pixel; ky, kx, ci)
// Reverse data treats the s x s classes of pixels modulo the stride one by one: only ceil(k/s)^2 or fewer taps reach a
// pixel, the same ones for a whole class, so no product with a known zero is made but at the borders of the image.
// One launch does all classes.
//
// Flops        2 r Ho Wo Co k k Ci per call and direction, counting taps that fall outside the image.
// Bytes        each operand once at least: r (H W Ci + Ho Wo Co) + Co k k Ci elements. A tile asks the
//              caches for 2 m n p / 64 elements, as in linear.cu; a pixel is asked k k / s^2 times, mostly from the
//              first-level cache.
// Bound        arithmetic, from some 16 channels on both sides on. Convolutions to or from 1 or 3 channels: forward to
//              and reverse data to few channels run plain, bound by the first-level cache; they are 1 to 2 % of the
//              flops of DCGAN-32.
// Workspace    reverse weights: [chunks, Co, k k Ci], see Convolution::weights_workspace.
// Alignment    that of the element; global loads are scalar.
// Determinism  every element is one sum in ascending order by one thread; reverse weights sums chunks of pixels, a
//              function of the shapes alone, and then the chunks in order.
//
// Math modes   this file is fp32; the others, for f32, are convolution_sm80.cu.
//
// Variant      idea                                           registers (float / double)   measured
// plain        one thread per element of the result           48 / 48                      not yet measured on a GPU
// tiled        64 x 64 tile of C per block, 4 x 4 per thread; 97 / 128                     not yet measured on a GPU
//              A gathered on the way to shared memory, with
//              cursors instead of divisions
// Registers: the most of the three directions on sm_90 with CUDA 13.0 (79, 97, 80 float tiled). No spills. Shared
// memory as in linear.cu: 17 / 34 KiB.
#include <algorithm>

#include "kernels/cuda/convolution_operands.cuh"
#include "kernels/cuda/convolution_sm80.h"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ----------------------------------------------------------------------------------------------------

constexpr int kThreads = kTileThreads;  // plain: one element of the result per thread
/// Blocks per multiprocessor the compiler leaves registers for; without this number it spills 16 bytes of plain reverse
/// weights in double on sm_90.
constexpr int kResidentBlocks = 4;

// Tiles of 64 result channels pay from a quarter full on: neighbouring threads of the plain kernel read pixels that lie
// far apart. Sums shorter than half a slice would mostly multiply zeros.
constexpr std::int64_t kMinTiledChannels = kTile / 4;
constexpr std::int64_t kMinTiledDepth = kSliceDepth / 2;

bool tiled_pays(std::int64_t channels, std::int64_t depth) {
  return channels >= kMinTiledChannels && depth >= kMinTiledDepth;
}

// ---- kernels: plain --------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    conv2d_forward_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, DeviceMatrix<T> w, Geometry g) {
  for (std::int64_t item = first_item(); item < y.size(); item += item_stride()) {
    const T* image = x.row(item / y.cols);
    const int column = static_cast<int>(item % y.cols);
    const int out_x = column / g.out_channels % g.out_width;
    const int out_y = column / g.out_channels / g.out_width;
    const T* weights = w.row(column % g.out_channels);
    T sum = 0;
    for (int ky = 0; ky < g.kernel; ++ky) {
      const int in_y = out_y * g.stride + ky - g.padding;
      if (in_y < 0 || in_y >= g.in_height) continue;
      for (int kx = 0; kx < g.kernel; ++kx) {
        const int in_x = out_x * g.stride + kx - g.padding;
        if (in_x < 0 || in_x >= g.in_width) continue;
        const T* pixel = image + (in_y * g.in_width + in_x) * g.in_channels;
        const T* tap = weights + (ky * g.kernel + kx) * g.in_channels;
        for (int c = 0; c < g.in_channels; ++c) sum += pixel[c] * tap[c];
      }
    }
    y.row(item / y.cols)[column] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) conv2d_reverse_data_kernel(DeviceMatrix<T> grad_x, DeviceMatrix<T> grad_y,
                                                                       DeviceMatrix<T> w, Geometry g, Update update) {
  for (std::int64_t item = first_item(); item < grad_x.size(); item += item_stride()) {
    const T* image = grad_y.row(item / grad_x.cols);
    const int column = static_cast<int>(item % grad_x.cols);
    const int channel = column % g.in_channels;
    const int in_x = column / g.in_channels % g.in_width;
    const int in_y = column / g.in_channels / g.in_width;
    T sum = 0;
    for (int ky = 0; ky < g.kernel; ++ky) {
      const int reach_y = in_y + g.padding - ky;
      if (reach_y < 0 || reach_y % g.stride != 0 || reach_y / g.stride >= g.out_height) continue;
      for (int kx = 0; kx < g.kernel; ++kx) {
        const int reach_x = in_x + g.padding - kx;
        if (reach_x < 0 || reach_x % g.stride != 0 || reach_x / g.stride >= g.out_width) continue;
        const T* pixel = image + (reach_y / g.stride * g.out_width + reach_x / g.stride) * g.out_channels;
        const int tap = (ky * g.kernel + kx) * g.in_channels + channel;
        for (int o = 0; o < g.out_channels; ++o) sum += pixel[o] * w.row(o)[tap];
      }
    }
    store(grad_x.row(item / grad_x.cols)[column], sum, update);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    conv2d_reverse_weights_kernel(DeviceMatrix<T> grad_w, DeviceMatrix<T> grad_y, DeviceMatrix<T> x, Geometry g,
                                  Update update) {
  for (std::int64_t item = first_item(); item < grad_w.size(); item += item_stride()) {
    const int o = static_cast<int>(item / grad_w.cols);
    const int column = static_cast<int>(item % grad_w.cols);
    const int channel = column % g.in_channels;
    const int kx = column / g.in_channels % g.kernel;
    const int ky = column / g.in_channels / g.kernel;
    T sum = 0;
    for (std::int64_t i = 0; i < x.rows; ++i) {
      const T* seeds = grad_y.row(i) + o;
      const T* inputs = x.row(i) + channel;
      for (int out_y = 0; out_y < g.out_height; ++out_y) {
        const int in_y = out_y * g.stride + ky - g.padding;
        if (in_y < 0 || in_y >= g.in_height) continue;
        for (int out_x = 0; out_x < g.out_width; ++out_x) {
          const int in_x = out_x * g.stride + kx - g.padding;
          if (in_x < 0 || in_x >= g.in_width) continue;
          sum += seeds[(out_y * g.out_width + out_x) * g.out_channels] *
                 inputs[(in_y * g.in_width + in_x) * g.in_channels];
        }
      }
    }
    store(grad_w.row(o)[column], sum, update);
  }
}

// ---- kernels: tiled --------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    conv2d_forward_tiled_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, DeviceMatrix<T> w, Geometry g) {
  BRACKET_SHARED(TileSlices<T>, slices, [1]);
  const PatchGrid grid = input_patches(g);
  const std::int64_t pixels = y.rows * grid.per_image();
  const std::int64_t tiles_n = (g.out_channels + kTile - 1) / kTile;
  const std::int64_t tiles = (pixels + kTile - 1) / kTile * tiles_n;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t tile_m = tile / tiles_n * kTile;
    const std::int64_t tile_n = tile % tiles_n * kTile;
    PatchOperand<T> a(x, grid, tile_m);
    MatrixOperand<T, Contiguous::contraction> b(w, tile_n);
    T sums[kTileMicro][kTileMicro];
    tile_product(sums, slices[0], a, b, grid.depth());
    BRACKET_UNROLL
    for (int i = 0; i < kTileMicro; ++i) {
      const std::int64_t pixel = tile_m + tile_thread_m() + i;
      if (pixel >= pixels) break;
      T* target = y.row(pixel / grid.per_image()) + pixel % grid.per_image() * g.out_channels;
      BRACKET_UNROLL
      for (int j = 0; j < kTileMicro; ++j) {
        const std::int64_t channel = tile_n + tile_thread_n() + j;
        if (channel < g.out_channels) target[channel] = sums[i][j];
      }
    }
  }
}

/// All pixel classes in one launch: `class_tiles` tiles each, of which the classes with fewer pixels leave some empty.
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv2d_reverse_data_tiled_kernel(DeviceMatrix<T> grad_x, DeviceMatrix<T> grad_y, DeviceMatrix<T> w, Geometry g,
                                     int classes_y, int classes_x, std::int64_t class_tiles, Update update) {
  BRACKET_SHARED(TileSlices<T>, slices, [1]);
  const std::int64_t tiles_n = (g.in_channels + kTile - 1) / kTile;
  const std::int64_t tiles = class_tiles * classes_y * classes_x;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int number = static_cast<int>(tile / class_tiles);
    const PixelClass pixel_class(g, number / classes_x, number % classes_x);
    const PatchGrid& grid = pixel_class.patches;
    const std::int64_t pixels = grad_x.rows * grid.per_image();
    const std::int64_t tile_m = tile % class_tiles / tiles_n * kTile;
    const std::int64_t tile_n = tile % class_tiles % tiles_n * kTile;
    if (tile_m >= pixels) continue;
    PatchOperand<T> a(grad_y, grid, tile_m);
    ClassWeightOperand<T> b(w, g, pixel_class, tile_n);
    T sums[kTileMicro][kTileMicro];
    tile_product(sums, slices[0], a, b, grid.depth());
    BRACKET_UNROLL
    for (int i = 0; i < kTileMicro; ++i) {
      const std::int64_t pixel = tile_m + tile_thread_m() + i;
      if (pixel >= pixels) break;
      const PixelCursor at(grid.grid_height, grid.grid_width, pixel);
      const int in_y = pixel_class.y + at.y * g.stride;
      const int in_x = pixel_class.x + at.x * g.stride;
      T* target = grad_x.row(at.image) + (in_y * g.in_width + in_x) * g.in_channels;
      BRACKET_UNROLL
      for (int j = 0; j < kTileMicro; ++j) {
        const std::int64_t channel = tile_n + tile_thread_n() + j;
        if (channel < g.in_channels) store(target[channel], sums[i][j], update);
      }
    }
  }
}

/// chunk_sums: the chunks' [Co, k k Ci] one below the other, or grad_w itself for one chunk.
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv2d_reverse_weights_tiled_kernel(DeviceMatrix<T> chunk_sums, DeviceMatrix<T> grad_y, DeviceMatrix<T> x,
                                        Geometry g, std::int64_t chunk_pixels, Update update) {
  BRACKET_SHARED(TileSlices<T>, slices, [1]);
  const std::int64_t pixels = x.rows * g.out_pixels();
  const std::int64_t tiles_n = (chunk_sums.cols + kTile - 1) / kTile;
  const std::int64_t chunk_tiles = (g.out_channels + kTile - 1) / kTile * tiles_n;
  const std::int64_t tiles = chunk_sums.rows / g.out_channels * chunk_tiles;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t chunk = tile / chunk_tiles;
    const std::int64_t tile_m = tile % chunk_tiles / tiles_n * kTile;
    const std::int64_t tile_n = tile % chunk_tiles % tiles_n * kTile;
    const std::int64_t first = chunk * chunk_pixels < pixels ? chunk * chunk_pixels : pixels;
    const std::int64_t depth = pixels - first < chunk_pixels ? pixels - first : chunk_pixels;
    GradientOperand<T> a(grad_y, g, tile_m, first, depth);
    ReadOperand<T> b(x, g, tile_n, first, depth);
    T sums[kTileMicro][kTileMicro];
    tile_product(sums, slices[0], a, b, depth);
    BRACKET_UNROLL
    for (int i = 0; i < kTileMicro; ++i) {
      const std::int64_t channel = tile_m + tile_thread_m() + i;
      BRACKET_UNROLL
      for (int j = 0; j < kTileMicro; ++j) {
        const std::int64_t column = tile_n + tile_thread_n() + j;
        if (channel < g.out_channels && column < chunk_sums.cols) {
          store(chunk_sums.row(chunk * g.out_channels + channel)[column], sums[i][j], update);
        }
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    conv2d_add_chunks_kernel(DeviceMatrix<T> grad_w, DeviceMatrix<T> chunk_sums, Update update) {
  for (std::int64_t item = first_item(); item < grad_w.size(); item += item_stride()) {
    T sum = 0;
    for (std::int64_t first = 0; first < chunk_sums.rows; first += grad_w.rows) {
      sum += chunk_sums.row(first + item / grad_w.cols)[item % grad_w.cols];
    }
    store(grad_w.row(item / grad_w.cols)[item % grad_w.cols], sum, update);
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
cudaError_t conv2d_forward(const DeviceMatrix<T>& y, const DeviceMatrix<T>& x, const DeviceMatrix<T>& w,
                           const Geometry& g, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  if (tiled_pays(g.out_channels, w.cols)) {
    const unsigned blocks = blocks_for(tiles_for(y.rows * g.out_pixels(), g.out_channels), 1);
    return launch<conv2d_forward_tiled_kernel<T>>(blocks, kThreads, 0, stream, y, x, w, g);
  }
  return launch<conv2d_forward_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, y, x, w, g);
}

template <class T>
cudaError_t conv2d_reverse_data(const DeviceMatrix<T>& grad_x, const DeviceMatrix<T>& grad_y, const DeviceMatrix<T>& w,
                                const Geometry& g, Update update, cudaStream_t stream) {
  if (grad_x.size() == 0) return cudaSuccess;
  const PixelClass largest(g, 0, 0);
  const int classes_y = std::min(g.stride, g.in_height);
  const int classes_x = std::min(g.stride, g.in_width);
  if (tiled_pays(g.in_channels, std::int64_t{g.out_channels} * g.kernel * g.kernel / (g.stride * g.stride))) {
    const std::int64_t class_tiles = tiles_for(grad_x.rows * largest.patches.per_image(), g.in_channels);
    const unsigned blocks = blocks_for(class_tiles * classes_y * classes_x, 1);
    return launch<conv2d_reverse_data_tiled_kernel<T>>(blocks, kThreads, 0, stream, grad_x, grad_y, w, g, classes_y,
                                                       classes_x, class_tiles, update);
  }
  return launch<conv2d_reverse_data_kernel<T>>(blocks_for(grad_x.size(), kThreads), kThreads, 0, stream, grad_x, grad_y,
                                               w, g, update);
}

/// The pixels are shared by the chunks, so that even a single tile of weights fills a GPU; hence tiles however few the
/// channels, once there are several chunks.
template <class T>
cudaError_t conv2d_reverse_weights(const DeviceMatrix<T>& grad_w, const DeviceMatrix<T>& grad_y,
                                   const DeviceMatrix<T>& x, const Geometry& g, Update update, std::int64_t chunks,
                                   T* workspace, cudaStream_t stream) {
  const std::int64_t pixels = x.rows * g.out_pixels();
  if (chunks == 1 && !tiled_pays(std::min(grad_w.rows, grad_w.cols), pixels)) {
    return launch<conv2d_reverse_weights_kernel<T>>(blocks_for(grad_w.size(), kThreads), kThreads, 0, stream, grad_w,
                                                    grad_y, x, g, update);
  }
  const DeviceMatrix<T> sums =
      chunks == 1 ? grad_w : DeviceMatrix<T>{workspace, chunks * grad_w.rows, grad_w.cols, grad_w.cols};
  const unsigned blocks = blocks_for(tiles_for(grad_w.rows, grad_w.cols) * chunks, 1);
  const cudaError_t status = launch<conv2d_reverse_weights_tiled_kernel<T>>(blocks, kThreads, 0, stream, sums, grad_y,
                                                                            x, g, (pixels + chunks - 1) / chunks,
                                                                            chunks == 1 ? update : Update::overwrite);
  if (status != cudaSuccess || chunks == 1) return status;
  return launch<conv2d_add_chunks_kernel<T>>(blocks_for(grad_w.size(), kThreads), kThreads, 0, stream, grad_w, sums,
                                             update);
}

}  // namespace

void CudaOps::do_conv2d_forward(Tensor y, Tensor x, Tensor w, const Convolution& map, const ProductEpilogue& epilogue) {
  if (uses_tensor_cores(y.dtype(), map.forward_size(y.rows()))) {
    check(conv2d_forward_sm80(device_matrix<float>(y), device_matrix<float>(x), device_matrix<float>(w), map,
                              tensor_device(0), device_epilogue(epilogue, map.out_channels)),
          "conv2d_forward", y);
    return;
  }
  const Tensor& product = epilogue.product(y);
  check(dispatch(y.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::conv2d_forward(device_matrix<T>(product), device_matrix<T>(x),
                                                         device_matrix<T>(w), Geometry(map), stream_);
                 }),
        "conv2d_forward", y);
  finish_product(y, map.out_channels, epilogue);
}

void CudaOps::do_conv2d_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, const Convolution& map, Update update,
                                     const ProductEpilogue& epilogue) {
  if (uses_tensor_cores(grad_x.dtype(), map.reverse_data_size(grad_x.rows()))) {
    check(conv2d_reverse_data_sm80(device_matrix<float>(grad_x), device_matrix<float>(grad_y), device_matrix<float>(w),
                                   map, update, tensor_device(0), device_epilogue(epilogue, map.in_channels)),
          "conv2d_reverse_data", grad_x);
    return;
  }
  const Tensor& product = epilogue.product(grad_x);
  check(dispatch(grad_x.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::conv2d_reverse_data(device_matrix<T>(product), device_matrix<T>(grad_y),
                                                              device_matrix<T>(w), Geometry(map), update, stream_);
                 }),
        "conv2d_reverse_data", grad_x);
  finish_product(grad_x, map.in_channels, epilogue);
}

void CudaOps::do_conv2d_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, const Convolution& map, Update update,
                                        Tensor workspace) {
  if (uses_tensor_cores(grad_w.dtype(),
                        {grad_w.rows(), grad_w.cols(), x.rows() * map.out_height() * map.out_width()})) {
    check(
        conv2d_reverse_weights_sm80(device_matrix<float>(grad_w), device_matrix<float>(grad_y), device_matrix<float>(x),
                                    map, update, device_vector<float>(workspace), tensor_device(0)),
        "conv2d_reverse_weights", grad_w);
    return;
  }
  check(dispatch(grad_w.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::conv2d_reverse_weights(
                       device_matrix<T>(grad_w), device_matrix<T>(grad_y), device_matrix<T>(x), Geometry(map), update,
                       map.weight_chunks(x.rows()), device_vector<T>(workspace), stream_);
                 }),
        "conv2d_reverse_weights", grad_w);
}

}  // namespace bracket::BRACKET_TARGET
