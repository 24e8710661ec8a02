// Softmax cross-entropy, in f64 for both dtypes:
//   losses_i = log sum_k exp(logits_ik) - logits_i,label(i),  grad_logits = (softmax - onehot) / n
// A label that is no class gives NaN in its row.
//
// Shapes        logits, grad_logits [n, classes], any row strides; losses [n]; labels u8[n].
// Bytes         reads each logit three times (the first-level cache holds a row) and writes it once.
// Flops         two exponentials per logit: bound by f64 arithmetic, and for the few classes of image sets by latency.
// Alignment     that of the element. grad_logits may be logits: a warp writes an element after its last use.
// Determinism   a lane adds its classes in order, the lanes of a warp in a butterfly.
//
// | variant   | idea                     | time                      |
// | plain     | one warp per row         | not yet measured on a GPU |
#include <limits>

#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// A classifier's batch has hundreds of rows of ten classes; small blocks spread them over the multiprocessors.
constexpr int kThreads = 128;

BRACKET_DEVICE double larger(double a, double b) { return b > a || b != b ? b : a; }

template <class T>
__global__ void __launch_bounds__(kThreads)
    softmax_cross_entropy_kernel(T* losses, DeviceMatrix<T> grad_logits, DeviceMatrix<T> logits,
                                 const std::uint8_t* labels) {
  const int lane = lane_of_thread();
  const double inverse_n = 1 / static_cast<double>(logits.rows);
  for (std::int64_t i = first_item() / kWarpThreads; i < logits.rows; i += item_stride() / kWarpThreads) {
    const T* const row = logits.row(i);
    double largest = static_cast<double>(row[0]);
    for (std::int64_t k = lane; k < logits.cols; k += kWarpThreads)
      largest = larger(largest, static_cast<double>(row[k]));
    BRACKET_UNROLL
    for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
      largest = larger(largest, __shfl_xor_sync(kFullWarp, largest, offset));
    }
    double sum = 0;
    for (std::int64_t k = lane; k < logits.cols; k += kWarpThreads) sum += exp(static_cast<double>(row[k]) - largest);
    sum = warp_sum(sum);
    const std::int64_t label = labels[i];
    const double none = label < logits.cols ? 0.0 : std::numeric_limits<double>::quiet_NaN();
    if (lane == 0) {
      const double own = label < logits.cols ? static_cast<double>(row[label]) : none;
      losses[i] = static_cast<T>(log(sum) + (largest - own));
    }
    if (grad_logits.data == nullptr) continue;
    __syncwarp();
    for (std::int64_t k = lane; k < logits.cols; k += kWarpThreads) {
      const double probability = exp(static_cast<double>(row[k]) - largest) / sum;
      grad_logits.row(i)[k] = static_cast<T>((probability - (k == label ? 1.0 : 0.0)) * inverse_n + none);
    }
  }
}

template <class T>
cudaError_t softmax_cross_entropy(const Tensor& losses, const Tensor& grad_logits, const Tensor& logits,
                                  const Tensor& labels, cudaStream_t stream) {
  if (logits.rows() == 0) return cudaSuccess;
  return launch<softmax_cross_entropy_kernel<T>>(blocks_for(logits.rows(), kThreads / kWarpThreads), kThreads, 0,
                                                 stream, device_vector<T>(losses), device_matrix<T>(grad_logits),
                                                 device_matrix<T>(logits), device_vector<std::uint8_t>(labels));
}

}  // namespace

void CudaOps::do_softmax_cross_entropy(Tensor losses, Tensor grad_logits, Tensor logits, Tensor labels) {
  const cudaError_t code = dispatch(logits.dtype(), [&]<class T>() {
    return BRACKET_TARGET::softmax_cross_entropy<T>(losses, grad_logits, logits, labels, stream_);
  });
  check(code, "softmax_cross_entropy", logits);
}

}  // namespace bracket::BRACKET_TARGET
