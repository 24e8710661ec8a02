// Launchers of elementwise.cuh.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace elementwise_kernels;

// ---- launchers -------------------------------------------------------------------------------------------------

/// Contiguous memory as one row, so that only rows that are strided have tails.
template <class T>
DeviceMatrix<T> matrix_of(const Tensor& tensor, bool flat) {
  if (flat) return {tensor.as<T>(), 1, tensor.size(), tensor.size()};
  return {tensor.as<T>(), tensor.rows(), tensor.cols(), tensor.row_stride()};
}

template <class T>
unsigned blocks_of(const DeviceMatrix<T>& y, int width) {
  return std::min(blocks_for(VectorGrid(y.rows, y.cols, width).items(), kThreads), kMaxBlocks);
}

template <class T>
cudaError_t fill(const Tensor& tensor, T value, cudaStream_t stream) {
  if (tensor.size() == 0) return cudaSuccess;
  const DeviceMatrix<T> y = matrix_of<T>(tensor, tensor.contiguous());
  return with_vector_width<T>(RowsAligned().add(y), [&]<int kWidth>() {
    return launch<FillBody<T, kWidth>>(blocks_of(y, kWidth), kThreads, 0, stream, y, value);
  });
}

template <class Y, class X>
cudaError_t copy(const Tensor& to, const Tensor& from, cudaStream_t stream) {
  if (to.size() == 0) return cudaSuccess;
  const bool flat = to.contiguous() && from.contiguous();
  const DeviceMatrix<Y> y = matrix_of<Y>(to, flat);
  const DeviceMatrix<X> x = matrix_of<X>(from, flat);
  if constexpr (std::is_same_v<X, Y>) {
    return with_vector_width<Y>(RowsAligned().add(y).add(x), [&]<int kWidth>() {
      return launch<CopyBody<Y, X, kWidth>>(blocks_of(y, kWidth), kThreads, 0, stream, y, x);
    });
  } else {
    return launch<CopyBody<Y, X, 1>>(blocks_of(y, 1), kThreads, 0, stream, y, x);
  }
}

template <class T>
cudaError_t axpy(const Tensor& to, T alpha, const Tensor& from, cudaStream_t stream) {
  if (to.size() == 0) return cudaSuccess;
  const bool flat = to.contiguous() && from.contiguous();
  const DeviceMatrix<T> y = matrix_of<T>(to, flat), x = matrix_of<T>(from, flat);
  return with_vector_width<T>(RowsAligned().add(y).add(x), [&]<int kWidth>() {
    return launch<AxpyBody<T, kWidth>>(blocks_of(y, kWidth), kThreads, 0, stream, y, alpha, x);
  });
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
