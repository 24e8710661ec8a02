// fill, copy and axpy: y = value, y = x (with conversion of the dtype), y += alpha x.
//
// Shapes       y, x [r, c], any row strides; contiguous operands are treated as one row of r c elements.
// Bytes        fill b, copy b_x + b_y, axpy 3 b per element (b = 4 or 8): each operand is read and written once. Flops
//              0, 0, 2: bound by memory everywhere.
// Alignment    any; 16 bytes at a time where rows allow (common/vector_access.cuh), which copies between dtypes do not.
// Determinism  every element is computed by itself.
//
// Variant      idea                                                          measured
// width 1      grid-stride loop, one element a turn                          not yet measured on a GPU
// width 4, 2   16 bytes of each operand a turn: 4 f32 or 2 f64               not yet measured on a GPU
// sm_80 and sm_90: at most 34 registers, no spills.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/vector_access.cuh"

namespace bracket::BRACKET_TARGET::elementwise_kernels {

// Eight warps hide the latency of one load each; more per block only delays the last block.
constexpr int kThreads = 256;
// Enough blocks to fill the largest GPU several times over (2048 blocks of 8 warps against about 140 SMs of 64 warps)
// while a thread of a large tensor still amortises its index arithmetic over many elements.
constexpr unsigned kMaxBlocks = 2048;

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T, int kWidth>
struct FillBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y;
  T value;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const VectorGrid grid(y.rows, y.cols, kWidth);
    Vector<T, kWidth> values;
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) values[k] = value;
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      store_vector(y.row(at.row) + at.column, values, at.count);
    }
  }
};

template <class Y, class X, int kWidth>
struct CopyBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<Y> y;
  DeviceMatrix<X> x;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const VectorGrid grid(y.rows, y.cols, kWidth);
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      const Vector<X, kWidth> from = load_vector<kWidth>(x.row(at.row) + at.column, at.count);
      Vector<Y, kWidth> to;
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) to[k] = static_cast<Y>(from[k]);
      store_vector(y.row(at.row) + at.column, to, at.count);
    }
  }
};

template <class T, int kWidth>
struct AxpyBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y;
  T alpha;
  DeviceMatrix<T> x;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const VectorGrid grid(y.rows, y.cols, kWidth);
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      Vector<T, kWidth> sum = load_vector<kWidth>(y.row(at.row) + at.column, at.count);
      const Vector<T, kWidth> added = load_vector<kWidth>(x.row(at.row) + at.column, at.count);
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) sum[k] += alpha * added[k];
      store_vector(y.row(at.row) + at.column, sum, at.count);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::elementwise_kernels
