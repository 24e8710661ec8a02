// Launchers of random.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/random.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace random_kernels;

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t random_uniform(const Tensor& y, const RandomKey& key, double low, double high, const std::int64_t* counter,
                           cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<RandomUniformBody<T>>(blocks_for((y.size() + 3) / 4, kThreads), kThreads, 0, stream,
                                      device_vector<T>(y), y.size(), key, formula::uniform_range<T>(low, high),
                                      counter);
}

template <class T>
cudaError_t random_normal(const Tensor& y, const RandomKey& key, const std::int64_t* counter, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<RandomNormalBody<T>>(blocks_for((y.size() + 3) / 4, kThreads), kThreads, 0, stream, device_vector<T>(y),
                                     y.size(), key, counter);
}

template <class T>
cudaError_t gather_batch(const Tensor& y, const Tensor& table, const RandomKey& key, const std::int64_t* counter,
                         cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<GatherBatchBody<T>>(blocks_for(y.rows(), kThreads / kWarp), kThreads, 0, stream, device_matrix<T>(y),
                                    device_matrix<T>(table), key, counter);
}

}  // namespace

void CudaOps::do_random_uniform(Tensor y, const RandomKey& key, double low, double high, const std::int64_t* counter) {
  check(dispatch(y.dtype(),
                 [&]<class T>() { return BRACKET_TARGET::random_uniform<T>(y, key, low, high, counter, stream_); }),
        "random_uniform", y);
}

void CudaOps::do_random_normal(Tensor y, const RandomKey& key, const std::int64_t* counter) {
  check(dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::random_normal<T>(y, key, counter, stream_); }),
        "random_normal", y);
}

void CudaOps::do_gather_batch(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter) {
  check(
      dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::gather_batch<T>(y, table, key, counter, stream_); }),
      "gather_batch", y);
}

}  // namespace bracket::BRACKET_TARGET
