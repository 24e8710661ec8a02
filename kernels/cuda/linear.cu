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
// Variant      idea                                           registers (float / double)   measured
// plain        one thread per element of C                    32 / 32                      not yet measured on a GPU
// tiled        64 x 64 tile of C per block, 4 x 4 per thread; 64 / 128                     not yet measured on a GPU
//              A and B through double-buffered shared memory
//              in slices of 16 (17 / 34 KiB)
// Registers: the most of the three products on sm_80 with CUDA 13.0 (sm_90: 69 / 126), no spills; 3 to 4 / 2 blocks of
// tiles are resident per multiprocessor.
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ----------------------------------------------------------------------------------------------------

constexpr int kThreads = 256;  // both variants: 16 x 16 threads of a tile, or 256 elements of C

constexpr int kTile = 64;   // rows and columns of C per block
constexpr int kMicro = 4;   // rows and columns of C per thread: 16 accumulators, 8 operands
constexpr int kDepth = 16;  // p per slice: 256 multiply-adds per thread between two barriers
// Words added to each row of a slice. 4 keeps rows aligned for 16-byte loads and puts the 8 p x 4 m that a warp writes
// from a p-contiguous operand into 32 different banks: 68 p + m = 4 p + m modulo 32.
constexpr int kPadding = 4;

constexpr int kThreadsPerSide = kTile / kMicro;
constexpr int kLoads = kTile * kDepth / kThreads;  // elements of each operand that a thread moves per slice
static_assert(kThreadsPerSide * kThreadsPerSide == kThreads && kLoads == 4);

// Tiles pay when they are at least half full both ways. Layers with one or two outputs, and sums shorter than half a
// slice, would mostly multiply the zeros of the padding; the plain kernel has none.
constexpr std::int64_t kMinTiledSide = kTile / 2;
constexpr std::int64_t kMinTiledDepth = kDepth / 2;

bool tiled_pays(std::int64_t m, std::int64_t n, std::int64_t p) {
  return m >= kMinTiledSide && n >= kMinTiledSide && p >= kMinTiledDepth;
}

// ---- device helpers --------------------------------------------------------------------------------------------

template <class T>
BRACKET_DEVICE void store(T& c, T sum, Update update) {
  c = update == Update::accumulate ? c + sum : sum;
}

/// Which index of an operand is contiguous in memory: p, over which the sum runs, or m (of A), n (of B).
enum class Contiguous { contraction, outer };

template <class T>
using Slice = T[kDepth][kTile + kPadding];

/// One operand as a tile of C sees it: element (outer, p) for the tile's `outers` rows (columns) and all p.
template <class T, Contiguous kContiguous>
struct TileOperand {
  const T* data;  // element (first outer index of the tile, p = 0)
  std::int64_t ld;
  std::int64_t outers;  // up to the end of the matrix, which may lie inside the tile
  std::int64_t depth;

  BRACKET_DEVICE TileOperand(const DeviceMatrix<T>& matrix, std::int64_t first_outer)
      : data(kContiguous == Contiguous::contraction ? matrix.row(first_outer) : matrix.data + first_outer),
        ld(matrix.ld),
        outers((kContiguous == Contiguous::contraction ? matrix.rows : matrix.cols) - first_outer),
        depth(kContiguous == Contiguous::contraction ? matrix.cols : matrix.rows) {}

  // The elements of a slice that this thread moves. A warp reads whole 32-byte sectors of memory: 8 consecutive p of
  // four rows where p is contiguous, else 32 consecutive outer indices.
  static BRACKET_DEVICE int outer_of(int load) {
    const int thread = static_cast<int>(threadIdx.x);
    return kContiguous == Contiguous::contraction ? thread / 8 + load % 2 * 32 : thread % kTile;
  }
  static BRACKET_DEVICE int p_of(int load) {
    const int thread = static_cast<int>(threadIdx.x);
    return kContiguous == Contiguous::contraction ? thread % 8 + load / 2 * 8
                                                  : thread / kTile + load * (kThreads / kTile);
  }

  /// Beyond the matrix there are zeros: they add nothing to C, and the C of a padding row or column is not stored.
  BRACKET_DEVICE void fetch(T (&fragment)[kLoads], std::int64_t first_p) const {
    BRACKET_UNROLL
    for (int load = 0; load < kLoads; ++load) {
      const std::int64_t outer = outer_of(load);
      const std::int64_t p = first_p + p_of(load);
      const std::int64_t offset = kContiguous == Contiguous::contraction ? outer * ld + p : p * ld + outer;
      fragment[load] = outer < outers && p < depth ? data[offset] : T{0};
    }
  }

  BRACKET_DEVICE void put(Slice<T>& slice, const T (&fragment)[kLoads]) const {
    BRACKET_UNROLL
    for (int load = 0; load < kLoads; ++load) slice[p_of(load)][outer_of(load)] = fragment[load];
  }
};

/// sums += A B over one slice, for the 4 x 4 elements of this thread.
template <class T>
BRACKET_DEVICE void multiply_slice(T (&sums)[kMicro][kMicro], const Slice<T>& a_slice, const Slice<T>& b_slice, int m,
                                   int n) {
  BRACKET_UNROLL
  for (int p = 0; p < kDepth; ++p) {
    T a[kMicro];
    T b[kMicro];
    BRACKET_UNROLL
    for (int i = 0; i < kMicro; ++i) {
      a[i] = a_slice[p][m + i];
      b[i] = b_slice[p][n + i];
    }
    BRACKET_UNROLL
    for (int i = 0; i < kMicro; ++i) {
      BRACKET_UNROLL
      for (int j = 0; j < kMicro; ++j) sums[i][j] += a[i] * b[j];
    }
  }
}

/// C (+)= A B, tile after tile; all threads of the block take part.
template <Contiguous kA, Contiguous kB, class T>
BRACKET_DEVICE void tiled_product(const DeviceMatrix<T>& c, const DeviceMatrix<T>& a_matrix,
                                  const DeviceMatrix<T>& b_matrix, Update update) {
  BRACKET_SHARED(T, a_slices, [2][kDepth][kTile + kPadding]);
  BRACKET_SHARED(T, b_slices, [2][kDepth][kTile + kPadding]);
  const int thread_m = static_cast<int>(threadIdx.x) / kThreadsPerSide * kMicro;
  const int thread_n = static_cast<int>(threadIdx.x) % kThreadsPerSide * kMicro;
  const std::int64_t tiles_n = (c.cols + kTile - 1) / kTile;
  const std::int64_t tiles = (c.rows + kTile - 1) / kTile * tiles_n;

  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t tile_m = tile / tiles_n * kTile;
    const std::int64_t tile_n = tile % tiles_n * kTile;
    const TileOperand<T, kA> a(a_matrix, tile_m);
    const TileOperand<T, kB> b(b_matrix, tile_n);
    T a_fragment[kLoads];
    T b_fragment[kLoads];
    T sums[kMicro][kMicro] = {};

    a.fetch(a_fragment, 0);
    b.fetch(b_fragment, 0);
    a.put(a_slices[0], a_fragment);
    b.put(b_slices[0], b_fragment);
    __syncthreads();
    int current = 0;
    for (std::int64_t p = 0; p < a.depth; p += kDepth) {
      // The loads of the next slice are in flight while this one is multiplied. It goes to the other buffer, which
      // nobody reads any more since the last barrier; so one barrier per slice is enough.
      const bool more = p + kDepth < a.depth;
      if (more) {
        a.fetch(a_fragment, p + kDepth);
        b.fetch(b_fragment, p + kDepth);
      }
      multiply_slice(sums, a_slices[current], b_slices[current], thread_m, thread_n);
      current ^= 1;
      if (more) {
        a.put(a_slices[current], a_fragment);
        b.put(b_slices[current], b_fragment);
      }
      __syncthreads();
    }

    BRACKET_UNROLL
    for (int i = 0; i < kMicro; ++i) {
      const std::int64_t m = tile_m + thread_m + i;
      BRACKET_UNROLL
      for (int j = 0; j < kMicro; ++j) {
        const std::int64_t n = tile_n + thread_n + j;
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
  return blocks_for((c.rows + kTile - 1) / kTile * ((c.cols + kTile - 1) / kTile), 1);
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
  check(dispatch(y.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_forward(device_matrix<T>(y), device_matrix<T>(x), device_matrix<T>(w),
                                                         stream_);
                 }),
        "linear_forward", y);
}

void CudaOps::do_linear_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, Update update) {
  check(dispatch(grad_x.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_reverse_data(device_matrix<T>(grad_x), device_matrix<T>(grad_y),
                                                              device_matrix<T>(w), update, stream_);
                 }),
        "linear_reverse_data", grad_x);
}

void CudaOps::do_linear_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, Update update) {
  check(dispatch(grad_w.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_reverse_weights(device_matrix<T>(grad_w), device_matrix<T>(grad_y),
                                                                 device_matrix<T>(x), update, stream_);
                 }),
        "linear_reverse_weights", grad_w);
}

}  // namespace bracket::BRACKET_TARGET
