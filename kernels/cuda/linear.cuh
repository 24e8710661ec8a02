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
// tiled        64 x 64 tile of C per block, 4 x 4 per thread; 64 / 124                     not yet measured on a GPU
//              A and B through double-buffered shared memory
//              in slices of 16 (17 / 34 KiB)
// Registers: the most of the three products on sm_80 with CUDA 13.0 (sm_90: 64 / 124), no spills; 3 to 4 / 2 blocks of
// tiles are resident per multiprocessor.
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/tiled_product.cuh"

namespace bracket::BRACKET_TARGET::linear_kernels {

// ---- policy ----------------------------------------------------------------------------------------------------

constexpr int kThreads = kTileThreads;  // both variants: one tile, or 256 elements of C

// Tiles pay when they are at least half full both ways. Layers with one or two outputs, and sums shorter than half a
// slice, would mostly multiply the zeros of the padding; the plain kernel has none.
constexpr std::int64_t kMinTiledSide = kTile / 2;
constexpr std::int64_t kMinTiledDepth = kSliceDepth / 2;

inline bool tiled_pays(std::int64_t m, std::int64_t n, std::int64_t p) {
  return m >= kMinTiledSide && n >= kMinTiledSide && p >= kMinTiledDepth;
}

// ---- device helpers --------------------------------------------------------------------------------------------

/// C (+)= A B, tile after tile; all threads of the block take part.
template <Contiguous kA, Contiguous kB, class T>
BRACKET_DEVICE void tiled_product(const Block& block, const DeviceMatrix<T>& c, const DeviceMatrix<T>& a_matrix,
                                  const DeviceMatrix<T>& b_matrix, Update update) {
  const std::int64_t tiles_n = (c.cols + kTile - 1) / kTile;
  const std::int64_t tiles = (c.rows + kTile - 1) / kTile * tiles_n;
  for (std::int64_t tile = block.x; tile < tiles; tile += block.grid_x) {
    const std::int64_t tile_m = tile / tiles_n * kTile;
    const std::int64_t tile_n = tile % tiles_n * kTile;
    MatrixOperand<T, kA> a(a_matrix, tile_m);
    MatrixOperand<T, kB> b(b_matrix, tile_n);
    T sums[kTileMicro][kTileMicro];
    tile_product(sums, block.shared<TileSlices<T>>(), a, b, a.depth);
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
struct LinearForwardBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, x, w;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t item = block.first_item(); item < y.size(); item += block.item_stride()) {
      const T* x_row = x.row(item / y.cols);
      const T* w_row = w.row(item % y.cols);
      T sum = 0;
      for (std::int64_t k = 0; k < x.cols; ++k) sum += x_row[k] * w_row[k];
      y.row(item / y.cols)[item % y.cols] = sum;
    }
  }
};

template <class T>
struct LinearReverseDataBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> grad_x, grad_y, w;
  Update update;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t item = block.first_item(); item < grad_x.size(); item += block.item_stride()) {
      const std::int64_t k = item % grad_x.cols;
      const T* grad_y_row = grad_y.row(item / grad_x.cols);
      T sum = 0;
      for (std::int64_t o = 0; o < grad_y.cols; ++o) sum += grad_y_row[o] * w.row(o)[k];
      store(grad_x.row(item / grad_x.cols)[k], sum, update);
    }
  }
};

template <class T>
struct LinearReverseWeightsBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> grad_w, grad_y, x;
  Update update;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t item = block.first_item(); item < grad_w.size(); item += block.item_stride()) {
      const std::int64_t o = item / grad_w.cols;
      const std::int64_t k = item % grad_w.cols;
      T sum = 0;
      for (std::int64_t i = 0; i < x.rows; ++i) sum += grad_y.row(i)[o] * x.row(i)[k];
      store(grad_w.row(o)[k], sum, update);
    }
  }
};

// ---- kernels: tiled --------------------------------------------------------------------------------------------

template <class T>
struct LinearForwardTiledBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr std::size_t kSharedBytes = sizeof(TileSlices<T>);
  static constexpr bool kMeets = true;

  DeviceMatrix<T> y, x, w;

  BRACKET_DEVICE void operator()(const Block& block) const {
    tiled_product<Contiguous::contraction, Contiguous::contraction>(block, y, x, w, Update::overwrite);
  }
};

template <class T>
struct LinearReverseDataTiledBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr std::size_t kSharedBytes = sizeof(TileSlices<T>);
  static constexpr bool kMeets = true;

  DeviceMatrix<T> grad_x, grad_y, w;
  Update update;

  BRACKET_DEVICE void operator()(const Block& block) const {
    tiled_product<Contiguous::contraction, Contiguous::outer>(block, grad_x, grad_y, w, update);
  }
};

template <class T>
struct LinearReverseWeightsTiledBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr std::size_t kSharedBytes = sizeof(TileSlices<T>);
  static constexpr bool kMeets = true;

  DeviceMatrix<T> grad_w, grad_y, x;
  Update update;

  BRACKET_DEVICE void operator()(const Block& block) const {
    tiled_product<Contiguous::outer, Contiguous::outer>(block, grad_w, grad_y, x, update);
  }
};

}  // namespace bracket::BRACKET_TARGET::linear_kernels
