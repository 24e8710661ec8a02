// Launchers of reduction.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduction.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace reduction_kernels;

// ---- launchers ------------------------------------------------------------------------------------------------------

/// A contiguous tensor as one row, so that kernels need no division.
template <class T>
DeviceMatrix<T> elements(const Tensor& x) {
  const DeviceMatrix<T> m = device_matrix<T>(x);
  return x.contiguous() ? DeviceMatrix<T>{m.data, 1, m.size(), m.size()} : m;
}

unsigned chunks(std::int64_t size) {
  const unsigned wanted = blocks_for(size, static_cast<int>(kThreads * kElementsPerThread));
  constexpr auto kMost = static_cast<unsigned>(kReductionWorkspace);
  return wanted < kMost ? wanted : kMost;
}

template <class T>
cudaError_t row_dot(Tensor y, Tensor a, Tensor b, cudaStream_t stream) {
  if (a.rows() == 0) return cudaSuccess;
  return launch<RowDotBody<T>>(blocks_for(a.rows(), kRowsPerBlock), kThreads, 0, stream, device_matrix<T>(y),
                               device_matrix<T>(a), device_matrix<T>(b));
}

template <class T>
cudaError_t row_norm(Tensor y, Tensor x, cudaStream_t stream) {
  if (x.rows() == 0) return cudaSuccess;
  return launch<RowNormBody<T>>(blocks_for(x.rows(), kRowsPerBlock), kThreads, 0, stream, device_matrix<T>(y),
                                device_matrix<T>(x));
}

/// An empty x has no chunks; its sum is the sum of no partial results.
template <class T, bool kSquared>
cudaError_t sum(double* result, Tensor x, double* workspace, cudaStream_t stream) {
  const unsigned blocks = chunks(x.size());
  if (blocks > 0) {
    const cudaError_t code = launch<SumChunksBody<T, kSquared>>(blocks, kThreads, 0, stream, workspace, elements<T>(x));
    if (code != cudaSuccess) return code;
  }
  return launch<SumPartialsBody>(1, kThreads, 0, stream, result, workspace, static_cast<int>(blocks));
}

template <class T>
cudaError_t finite_check(StepState* state, Tensor x, std::int64_t tag, double* workspace, cudaStream_t stream) {
  const unsigned blocks = chunks(x.size());
  if (blocks == 0) return cudaSuccess;
  const cudaError_t code = launch<FiniteCheckChunksBody<T>>(blocks, kThreads, 0, stream, workspace, elements<T>(x));
  if (code != cudaSuccess) return code;
  return launch<FiniteCheckRecordBody>(1, kThreads, 0, stream, state, workspace, static_cast<int>(blocks), tag);
}

}  // namespace

void CudaOps::do_row_dot(Tensor y, Tensor a, Tensor b) {
  const cudaError_t code = dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::row_dot<T>(y, a, b, stream_); });
  check(code, "row_dot", y);
}

void CudaOps::do_row_norm(Tensor y, Tensor x) {
  const cudaError_t code = dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::row_norm<T>(y, x, stream_); });
  check(code, "row_norm", y);
}

void CudaOps::do_sum(Tensor sum, Tensor x, Tensor workspace) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::sum<T, false>(sum.as<double>(), x, workspace.as<double>(), stream_);
  });
  check(code, "sum", x);
}

void CudaOps::do_squared_norm(Tensor sum, Tensor x, Tensor workspace) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::sum<T, true>(sum.as<double>(), x, workspace.as<double>(), stream_);
  });
  check(code, "squared_norm", x);
}

void CudaOps::do_finite_check(StepState* state, Tensor x, std::int64_t tag, Tensor workspace) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::finite_check<T>(state, x, tag, workspace.as<double>(), stream_);
  });
  check(code, "finite_check", x);
}

}  // namespace bracket::BRACKET_TARGET
