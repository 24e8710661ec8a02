// fill, copy and axpy: y = value, y = x (with conversion of the dtype), y += alpha x.
//
// Shapes       y, x [r, c], any row strides; contiguous operands are treated as one row of r c elements.
// Bytes        fill b, copy b_x + b_y, axpy 3 b per element (b = 4 or 8); flops 0, 0, 2. Bound by memory everywhere.
// Alignment    that of the element; neighbouring threads touch neighbouring elements.
// Determinism  every element is computed by itself.
//
// Variant      idea                                   measured
// plain        grid-stride loop, one element a turn   not yet measured on a GPU
#pragma once

#include <cstdint>

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"

namespace bracket::BRACKET_TARGET::elementwise_kernels {

// Eight warps hide the latency of one load each; more per block only delays the last block.
constexpr int kThreads = 256;
// Enough blocks to fill the largest GPU several times over (2048 blocks of 8 warps against about 140 SMs of 64 warps)
// while a thread of a large tensor still amortises its index arithmetic over many elements.
constexpr std::int64_t kMaxBlocks = 2048;

template <class T>
struct Elements {
  T* data;
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t ld;
};

// ---- device ----------------------------------------------------------------------------------------------------

template <class T>
BRACKET_DEVICE T& element(const Elements<T>& m, std::int64_t index) {
  if (m.rows == 1) return m.data[index];
  return m.data[index / m.cols * m.ld + index % m.cols];
}

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T>
struct FillBody {
  static constexpr int kBlockThreads = kThreads;

  Elements<T> y;
  T value;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t i = block.first_item(); i < y.rows * y.cols; i += block.item_stride()) element(y, i) = value;
  }
};

template <class Y, class X>
struct CopyBody {
  static constexpr int kBlockThreads = kThreads;

  Elements<Y> y;
  Elements<X> x;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t i = block.first_item(); i < y.rows * y.cols; i += block.item_stride()) {
      element(y, i) = static_cast<Y>(element(x, i));
    }
  }
};

template <class T>
struct AxpyBody {
  static constexpr int kBlockThreads = kThreads;

  Elements<T> y;
  T alpha;
  Elements<T> x;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t i = block.first_item(); i < y.rows * y.cols; i += block.item_stride()) {
      element(y, i) += alpha * element(x, i);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::elementwise_kernels
