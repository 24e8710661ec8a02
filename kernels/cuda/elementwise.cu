// fill, copy and axpy: y = value, y = x (with conversion of the dtype), y += alpha x.
//
// Shapes       y, x [r, c], any row strides; contiguous operands are treated as one row of r c elements.
// Bytes        fill b, copy b_x + b_y, axpy 3 b per element (b = 4 or 8); flops 0, 0, 2. Bound by memory everywhere.
// Alignment    that of the element; neighbouring threads touch neighbouring elements.
// Determinism  every element is computed by itself.
//
// Variant      idea                                   measured
// plain        grid-stride loop, one element a turn   not yet measured on a GPU
#include <algorithm>

#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

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

/// Contiguous memory as one row, so that the kernels divide by nothing but a huge number of columns.
template <class T>
Elements<T> elements(const Tensor& tensor, bool flat) {
  if (flat) return {tensor.as<T>(), 1, tensor.size(), tensor.size()};
  return {tensor.as<T>(), tensor.rows(), tensor.cols(), tensor.row_stride()};
}

// ---- device ----------------------------------------------------------------------------------------------------

template <class T>
BRACKET_DEVICE T& element(const Elements<T>& m, std::int64_t index) {
  if (m.rows == 1) return m.data[index];
  return m.data[index / m.cols * m.ld + index % m.cols];
}

BRACKET_DEVICE std::int64_t first_index() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
BRACKET_DEVICE std::int64_t index_step() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(Elements<T> y, T value) {
  for (std::int64_t i = first_index(); i < y.rows * y.cols; i += index_step()) element(y, i) = value;
}

template <class Y, class X>
__global__ void __launch_bounds__(kThreads) copy_kernel(Elements<Y> y, Elements<X> x) {
  for (std::int64_t i = first_index(); i < y.rows * y.cols; i += index_step()) {
    element(y, i) = static_cast<Y>(element(x, i));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) axpy_kernel(Elements<T> y, T alpha, Elements<T> x) {
  for (std::int64_t i = first_index(); i < y.rows * y.cols; i += index_step()) {
    element(y, i) += alpha * element(x, i);
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

unsigned blocks_for(std::int64_t size) {
  return static_cast<unsigned>(std::min((size + kThreads - 1) / kThreads, kMaxBlocks));
}

template <class T>
cudaError_t fill(const Tensor& y, T value, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<fill_kernel<T>>(blocks_for(y.size()), kThreads, 0, stream, elements<T>(y, y.contiguous()), value);
}

template <class Y, class X>
cudaError_t copy(const Tensor& y, const Tensor& x, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  const bool flat = y.contiguous() && x.contiguous();
  return launch<copy_kernel<Y, X>>(blocks_for(y.size()), kThreads, 0, stream, elements<Y>(y, flat),
                                   elements<X>(x, flat));
}

template <class T>
cudaError_t axpy(const Tensor& y, T alpha, const Tensor& x, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  const bool flat = y.contiguous() && x.contiguous();
  return launch<axpy_kernel<T>>(blocks_for(y.size()), kThreads, 0, stream, elements<T>(y, flat), alpha,
                                elements<T>(x, flat));
}

}  // namespace

void CudaOps::do_fill(Tensor y, double value) {
  check(dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::fill(y, static_cast<T>(value), stream_); }), "fill",
        y);
}

void CudaOps::do_copy(Tensor y, Tensor x) {
  const cudaError_t code = dispatch(y.dtype(), [&]<class Y>() {
    return dispatch(x.dtype(), [&]<class X>() { return BRACKET_TARGET::copy<Y, X>(y, x, stream_); });
  });
  check(code, "copy", y);
}

void CudaOps::do_axpy(Tensor y, double alpha, Tensor x) {
  check(dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::axpy(y, static_cast<T>(alpha), x, stream_); }),
        "axpy", y);
}

}  // namespace bracket::BRACKET_TARGET
