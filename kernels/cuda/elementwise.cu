// Launchers of elementwise.cuh.
#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace elementwise_kernels;

// ---- launchers -------------------------------------------------------------------------------------------------

/// Contiguous memory as one row, so that the kernels divide by nothing but a huge number of columns.
template <class T>
Elements<T> elements(const Tensor& tensor, bool flat) {
  if (flat) return {tensor.as<T>(), 1, tensor.size(), tensor.size()};
  return {tensor.as<T>(), tensor.rows(), tensor.cols(), tensor.row_stride()};
}

unsigned blocks_for(std::int64_t size) {
  return static_cast<unsigned>(std::min((size + kThreads - 1) / kThreads, kMaxBlocks));
}

template <class T>
cudaError_t fill(const Tensor& y, T value, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<FillBody<T>>(blocks_for(y.size()), kThreads, 0, stream, elements<T>(y, y.contiguous()), value);
}

template <class Y, class X>
cudaError_t copy(const Tensor& y, const Tensor& x, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  const bool flat = y.contiguous() && x.contiguous();
  return launch<CopyBody<Y, X>>(blocks_for(y.size()), kThreads, 0, stream, elements<Y>(y, flat), elements<X>(x, flat));
}

template <class T>
cudaError_t axpy(const Tensor& y, T alpha, const Tensor& x, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  const bool flat = y.contiguous() && x.contiguous();
  return launch<AxpyBody<T>>(blocks_for(y.size()), kThreads, 0, stream, elements<T>(y, flat), alpha,
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
