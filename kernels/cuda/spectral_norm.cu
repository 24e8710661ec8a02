// Launchers of spectral_norm.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/spectral_norm.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace spectral_norm_kernels;

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t spectral_norm_forward(Tensor w_normalized, Tensor sigma, Tensor u, Tensor v, Tensor w, int iterations,
                                  double epsilon, cudaStream_t stream) {
  const DeviceMatrix<T> weights = device_matrix<T>(w), out = device_matrix<T>(w_normalized);
  T* const left = device_vector<T>(u);
  T* const right = device_vector<T>(v);
  const unsigned row_blocks = blocks_for(weights.rows, kThreads / kWarpThreads);
  cudaError_t code = cudaSuccess;
  for (int iteration = 0; iteration < iterations; ++iteration) {
    if (weights.rows > 0) {
      code = launch<RowProductsBody<T>>(row_blocks, kThreads, 0, stream, left, 1, weights, right);
      if (code != cudaSuccess) return code;
      code = launch<NormalizeBody<T>>(1, kThreads, 0, stream, left, weights.rows, epsilon);
      if (code != cudaSuccess) return code;
    }
    if (weights.cols > 0) {
      code =
          launch<ColumnProductsBody<T>>(blocks_for(weights.cols, kColumns), kThreads, 0, stream, right, weights, left);
      if (code != cudaSuccess) return code;
      code = launch<NormalizeBody<T>>(1, kThreads, 0, stream, right, weights.cols, epsilon);
      if (code != cudaSuccess) return code;
    }
  }
  // The products w v wait in the first column of the output, which is written last.
  const bool any = weights.size() > 0;
  if (any) {
    code = launch<RowProductsBody<T>>(row_blocks, kThreads, 0, stream, out.data, out.ld, weights, right);
    if (code != cudaSuccess) return code;
  }
  code = launch<SpectralSigmaBody<T>>(1, kThreads, 0, stream, device_vector<T>(sigma), left, out.data, out.ld,
                                      any ? weights.rows : 0);
  if (code != cudaSuccess || !any) return code;
  return launch<SpectralDivideBody<T>>(blocks_for(weights.size(), kThreads), kThreads, 0, stream, out, weights,
                                       device_vector<T>(sigma));
}

template <class T>
cudaError_t spectral_norm_reverse(Tensor grad_w, Tensor seed, Tensor w_normalized, Tensor sigma, Tensor u, Tensor v,
                                  Update update, cudaStream_t stream) {
  if (grad_w.size() == 0) return cudaSuccess;
  const unsigned wanted = blocks_for(grad_w.size(), static_cast<int>(kReverseElements));
  return launch<SpectralNormReverseBody<T>>(wanted < kMaxReverseBlocks ? wanted : kMaxReverseBlocks, kThreads, 0,
                                            stream, device_matrix<T>(grad_w), device_matrix<T>(seed),
                                            device_matrix<T>(w_normalized), device_vector<T>(sigma),
                                            device_vector<T>(u), device_vector<T>(v), update);
}

}  // namespace

void CudaOps::do_spectral_norm_forward(Tensor w_normalized, Tensor sigma, Tensor u, Tensor v, Tensor w, int iterations,
                                       double epsilon) {
  const cudaError_t code = dispatch(w.dtype(), [&]<class T>() {
    return BRACKET_TARGET::spectral_norm_forward<T>(w_normalized, sigma, u, v, w, iterations, epsilon, stream_);
  });
  check(code, "spectral_norm_forward", w);
}

void CudaOps::do_spectral_norm_reverse(Tensor grad_w, Tensor grad_w_normalized, Tensor w_normalized, Tensor sigma,
                                       Tensor u, Tensor v, Update update) {
  const cudaError_t code = dispatch(grad_w.dtype(), [&]<class T>() {
    return BRACKET_TARGET::spectral_norm_reverse<T>(grad_w, grad_w_normalized, w_normalized, sigma, u, v, update,
                                                    stream_);
  });
  check(code, "spectral_norm_reverse", grad_w);
}

}  // namespace bracket::BRACKET_TARGET
