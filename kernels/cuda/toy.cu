// Samples of the toy densities, y [n, 2]; formulas in kernels/formula/toy.h, shared with the CPU.
//
// Bytes         writes 2 n elements, reads nothing.
// Operations    one or two Philox blocks and 100 to 200 f64 operations per sample: bound by arithmetic.
// Alignment     that of the element.
// Determinism   sample i is a function of the key and i: same bits as the CPU, for any grid.
//
// | variant | idea                  | time                      |
// | plain   | one thread per sample | not yet measured on a GPU |
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/toy.h"

namespace bracket::BRACKET_TARGET {
namespace {

// As in random.cu: f64 code with many live registers.
constexpr int kThreads = 128;

template <class T>
__global__ void __launch_bounds__(kThreads)
    toy_samples_kernel(DeviceMatrix<T> y, ToyData data, RandomKey key, const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  for (std::int64_t i = first_item(); i < y.rows; i += item_stride()) {
    const formula::ToyPoint point = formula::toy_point(data, philox, static_cast<std::uint64_t>(i));
    y.row(i)[0] = static_cast<T>(point.x);
    y.row(i)[1] = static_cast<T>(point.y);
  }
}

template <class T>
cudaError_t toy_samples(const Tensor& y, ToyData data, const RandomKey& key, const std::int64_t* counter,
                        cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<toy_samples_kernel<T>>(blocks_for(y.rows(), kThreads), kThreads, 0, stream, device_matrix<T>(y), data,
                                       key, counter);
}

}  // namespace

void CudaOps::do_toy_samples(Tensor y, ToyData data, const RandomKey& key, const std::int64_t* counter) {
  check(dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::toy_samples<T>(y, data, key, counter, stream_); }),
        "toy_samples", y);
}

}  // namespace bracket::BRACKET_TARGET
