// Dense layers on row-major matrices, x [r, in], w [out, in], y [r, out]; any row strides:
//   forward           y      =   x w^T          y[i, o]      =   sum over k of x[i, k] w[o, k]
//   reverse data      grad_x (+)= grad_y w      grad_x[i, k] (+)= sum over o of grad_y[i, o] w[o, k]
//   reverse weights   grad_w (+)= grad_y^T x    grad_w[o, k] (+)= sum over i of grad_y[i, o] x[i, k]
//
// All three are one product C[m, n] (+)= sum over p of A(m, p) B(p, n); they differ in which index of A and B is
// contiguous in memory:
//                     C        A            contiguous   B           contiguous
//   forward           y        x(i, k)      p            w(o, k)     p
//   reverse data      grad_x   grad_y(i, o) p            w(o, k)     n
//   reverse weights   grad_w   grad_y(i, o) m            x(i, k)     n
//
// Flops        2 m n p per call.
// Bytes        plain: 2 m n p elements are asked of the first-level cache, one per flop.
//              tiled: a 64 x 64 tile of C reads 64 p elements of A and of B, so 2 m n p / 64 come from memory or the
//              second-level cache: 16 flops per byte of float; m n are written (and read to accumulate).
// Bound        tiled: 4 + 4 shared loads, two vector instructions each way for float, feed 16 multiply-adds, so the
//              arithmetic units are the bound once there are enough tiles; r = 800, 100 x 100 has only 26 (forward) and
//              4 (weights): there latency is.
// Alignment    that of the element; global loads are scalar, so odd strides cost nothing.
// Determinism  every element of C is one sum over p in ascending order, by one thread.
//
// Math modes   this file is fp32; the others, for f32, are linear_sm80.cu.
//
// Variant      idea                                           registers (float / double)   measured
// plain        one thread per element of C                    32 / 32                      not yet measured on a GPU
// tiled        64 x 64 tile of C per block, 4 x 4 per thread; 64 / 128                     not yet measured on a GPU
//              A and B through double-buffered shared memory
//              in slices of 16 (17 / 34 KiB)
// Registers: the most of the three products on sm_80 with CUDA 13.0 (sm_90: 64 / 126), no spills; 3 to 4 / 2 blocks of
// tiles are resident per multiprocessor.
#include "kernels/cuda/common/tiled_product.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ----------------------------------------------------------------------------------------------------

constexpr int kThreads = kTileThreads;  // both variants: one tile, or 256 elements of C

// Tiles pay when they are at least half full both ways. Layers with one or two outputs, and sums shorter than half a
// slice, would mostly multiply the zeros of the padding; the plain kernel has none.
constexpr std::int64_t kMinTiledSide = kTile / 2;
constexpr std::int64_t kMinTiledDepth = kSliceDepth / 2;

bool tiled_pays(std::int64_t m, std::int64_t n, std::int64_t p) {
  return m >= kMinTiledSide && n >= kMinTiledSide && p >= kMinTiledDepth;
}

// ---- device helpers --------------------------------------------------------------------------------------------

/// C (+)= A B, tile after tile; all threads of the block take part.
template <Contiguous kA, Contiguous kB, class T>
BRACKET_DEVICE void tiled_product(const DeviceMatrix<T>& c, const DeviceMatrix<T>& a_matrix,
                                  const DeviceMatrix<T>& b_matrix, Update update) {
  const std::int64_t tiles_n = (c.cols + kTile - 1) / kTile;
  const std::int64_t tiles = (c.rows + kTile - 1) / kTile * tiles_n;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t tile_m = tile / tiles_n * kTile;
    const std::int64_t tile_n = tile % tiles_n * kTile;
    MatrixOperand<T, kA> a(a_matrix, tile_m);
    MatrixOperand<T, kB> b(b_matrix, tile_n);
    T sums[kTileMicro][kTileMicro];
    tile_product(sums, a, b, a.depth);
    BRACKET_UNROLL
    for (int i = 0; i < kTileMicro; ++i) {
      const std::int64_t m = tile_m + tile_thread_m() + i;
      BRACKET_UNROLL
      for (int j = 0; j < kTileMicro; ++j) {
        const std::int64_t n = tile_n + tile_thread_n() + j;
        if (m < c.rows && n < c.cols) store(c.row(m)[n], sums[i][j], update);
      }
    }
  }
}

// ---- kernels: plain --------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_forward_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, DeviceMatrix<T> w) {
  for (std::int64_t item = first_item(); item < y.size(); item += item_stride()) {
    const T* x_row = x.row(item / y.cols);
    const T* w_row = w.row(item % y.cols);
    T sum = 0;
    for (std::int64_t k = 0; k < x.cols; ++k) sum += x_row[k] * w_row[k];
    y.row(item / y.cols)[item % y.cols] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_reverse_data_kernel(DeviceMatrix<T> grad_x, DeviceMatrix<T> grad_y, DeviceMatrix<T> w, Update update) {
  for (std::int64_t item = first_item(); item < grad_x.size(); item += item_stride()) {
    const std::int64_t k = item % grad_x.cols;
    const T* grad_y_row = grad_y.row(item / grad_x.cols);
    T sum = 0;
    for (std::int64_t o = 0; o < grad_y.cols; ++o) sum += grad_y_row[o] * w.row(o)[k];
    store(grad_x.row(item / grad_x.cols)[k], sum, update);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_reverse_weights_kernel(DeviceMatrix<T> grad_w, DeviceMatrix<T> grad_y, DeviceMatrix<T> x, Update update) {
  for (std::int64_t item = first_item(); item < grad_w.size(); item += item_stride()) {
    const std::int64_t o = item / grad_w.cols;
    const std::int64_t k = item % grad_w.cols;
    T sum = 0;
    for (std::int64_t i = 0; i < x.rows; ++i) sum += grad_y.row(i)[o] * x.row(i)[k];
    store(grad_w.row(o)[k], sum, update);
  }
}

// ---- kernels: tiled --------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_forward_tiled_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, DeviceMatrix<T> w) {
  tiled_product<Contiguous::contraction, Contiguous::contraction>(y, x, w, Update::overwrite);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_reverse_data_tiled_kernel(DeviceMatrix<T> grad_x, DeviceMatrix<T> grad_y, DeviceMatrix<T> w, Update update) {
  tiled_product<Contiguous::contraction, Contiguous::outer>(grad_x, grad_y, w, update);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_reverse_weights_tiled_kernel(DeviceMatrix<T> grad_w, DeviceMatrix<T> grad_y, DeviceMatrix<T> x,
                                        Update update) {
  tiled_product<Contiguous::outer, Contiguous::outer>(grad_w, grad_y, x, update);
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
unsigned plain_blocks(const DeviceMatrix<T>& c) {
  return blocks_for(c.size(), kThreads);
}

template <class T>
unsigned tile_blocks(const DeviceMatrix<T>& c) {
  return blocks_for(tiles_for(c.rows, c.cols), 1);
}

template <class T>
cudaError_t linear_forward(const DeviceMatrix<T>& y, const DeviceMatrix<T>& x, const DeviceMatrix<T>& w,
                           cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  if (tiled_pays(y.rows, y.cols, x.cols)) {
    return launch<linear_forward_tiled_kernel<T>>(tile_blocks(y), kThreads, 0, stream, y, x, w);
  }
  return launch<linear_forward_kernel<T>>(plain_blocks(y), kThreads, 0, stream, y, x, w);
}

template <class T>
cudaError_t linear_reverse_data(const DeviceMatrix<T>& grad_x, const DeviceMatrix<T>& grad_y, const DeviceMatrix<T>& w,
                                Update update, cudaStream_t stream) {
  if (grad_x.size() == 0) return cudaSuccess;
  if (tiled_pays(grad_x.rows, grad_x.cols, grad_y.cols)) {
    return launch<linear_reverse_data_tiled_kernel<T>>(tile_blocks(grad_x), kThreads, 0, stream, grad_x, grad_y, w,
                                                       update);
  }
  return launch<linear_reverse_data_kernel<T>>(plain_blocks(grad_x), kThreads, 0, stream, grad_x, grad_y, w, update);
}

template <class T>
cudaError_t linear_reverse_weights(const DeviceMatrix<T>& grad_w, const DeviceMatrix<T>& grad_y,
                                   const DeviceMatrix<T>& x, Update update, cudaStream_t stream) {
  if (grad_w.size() == 0) return cudaSuccess;
  if (tiled_pays(grad_w.rows, grad_w.cols, x.rows)) {
    return launch<linear_reverse_weights_tiled_kernel<T>>(tile_blocks(grad_w), kThreads, 0, stream, grad_w, grad_y, x,
                                                          update);
  }
  return launch<linear_reverse_weights_kernel<T>>(plain_blocks(grad_w), kThreads, 0, stream, grad_w, grad_y, x, update);
}

}  // namespace

void CudaOps::do_linear_forward(Tensor y, Tensor x, Tensor w) {
  if (uses_tensor_cores(y.dtype(), y.rows(), y.cols(), x.cols())) {
    check(
        linear_forward_sm80(device_matrix<float>(y), device_matrix<float>(x), device_matrix<float>(w), tensor_device()),
        "linear_forward", y);
    return;
  }
  check(dispatch(y.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_forward(device_matrix<T>(y), device_matrix<T>(x), device_matrix<T>(w),
                                                         stream_);
                 }),
        "linear_forward", y);
}

void CudaOps::do_linear_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, Update update) {
  if (uses_tensor_cores(grad_x.dtype(), grad_x.rows(), grad_x.cols(), grad_y.cols())) {
    check(linear_reverse_data_sm80(device_matrix<float>(grad_x), device_matrix<float>(grad_y), device_matrix<float>(w),
                                   update, tensor_device()),
          "linear_reverse_data", grad_x);
    return;
  }
  check(dispatch(grad_x.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_reverse_data(device_matrix<T>(grad_x), device_matrix<T>(grad_y),
                                                              device_matrix<T>(w), update, stream_);
                 }),
        "linear_reverse_data", grad_x);
}

void CudaOps::do_linear_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, Update update) {
  if (uses_tensor_cores(grad_w.dtype(), grad_w.rows(), grad_w.cols(), x.rows())) {
    check(linear_reverse_weights_sm80(device_matrix<float>(grad_w), device_matrix<float>(grad_y),
                                      device_matrix<float>(x), update, tensor_device()),
          "linear_reverse_weights", grad_w);
    return;
  }
  check(dispatch(grad_w.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_reverse_weights(device_matrix<T>(grad_w), device_matrix<T>(grad_y),
                                                                 device_matrix<T>(x), update, stream_);
                 }),
        "linear_reverse_weights", grad_w);
}

}  // namespace bracket::BRACKET_TARGET
