// Launchers of toy.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/toy.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace toy_kernels;

template <class T>
cudaError_t toy_samples(const Tensor& y, ToyData data, const RandomKey& key, const std::int64_t* counter,
                        cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<ToySamplesBody<T>>(blocks_for(y.rows(), kThreads), kThreads, 0, stream, device_matrix<T>(y), data, key,
                                   counter);
}

}  // namespace

void CudaOps::do_toy_samples(Tensor y, ToyData data, const RandomKey& key, const std::int64_t* counter) {
  check(dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::toy_samples<T>(y, data, key, counter, stream_); }),
        "toy_samples", y);
}

}  // namespace bracket::BRACKET_TARGET
