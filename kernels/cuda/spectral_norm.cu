// Spectral normalisation: sigma = u^T w v after power iterations, w / sigma;
//   reverse   grad_w (+)= (grad_wn - <grad_wn, wn> u v^T) / sigma
//
// Traffic in elements: power iteration 2 out in, division 2 out in. Rows may be strided; no alignment beyond the
// element's.
// Determinism: sums in f64, each by one block or warp in an order fixed by the shape.
//
// | variant                | idea                                                        | time                      |
// | spectral products      | warp per row (w v), column panel per block (w^T u)          | not yet measured on a GPU |
// | spectral_norm_reverse  | every block forms <grad_wn, wn> itself: no workspace needed | not yet measured on a GPU |
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

constexpr int kThreads = 256;
/// A warp reads 32 adjacent columns of one row; eight warps share the rows.
constexpr int kColumns = kWarpThreads;
constexpr int kRowThreads = kThreads / kColumns;
/// Each block of spectral_norm_reverse reads both matrices for their dot product: one block per this many elements
/// keeps that a small multiple of the traffic for small layers, and kMaxReverseBlocks bounds it for large ones.
constexpr std::int64_t kReverseElements = 16384;
constexpr unsigned kMaxReverseBlocks = 32;

// ---- device functions -----------------------------------------------------------------------------------------------

BRACKET_DEVICE std::int64_t block_column() {
  return static_cast<std::int64_t>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
}

/// Sum of term(i) over the rows of this thread's column, received by all threads of the column. All threads call it.
template <class Term>
BRACKET_DEVICE double column_sum(std::int64_t rows, bool active, Term term) {
  BRACKET_SHARED(double, partial, [kRowThreads][kColumns]);
  double sum = 0;
  if (active) {
    for (std::int64_t i = threadIdx.y; i < rows; i += kRowThreads) sum += term(i);
  }
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int k = 0; k < kRowThreads; ++k) sum += partial[k][threadIdx.x];
  __syncthreads();
  return sum;
}

// ---- kernels -------------------------------------------------------------------------------------------------------

/// y_i = <w_i, v>, one warp per row; y_i lies i y_stride elements after y.
template <class T>
__global__ void row_products_kernel(T* y, std::int64_t y_stride, DeviceMatrix<T> w, const T* v) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  for (std::int64_t i = first_item() / kWarpThreads; i < w.rows; i += item_stride() / kWarpThreads) {
    double sum = 0;
    for (std::int64_t j = lane; j < w.cols; j += kWarpThreads) {
      sum += static_cast<double>(w.row(i)[j]) * static_cast<double>(v[j]);
    }
    BRACKET_UNROLL
    for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
    if (lane == 0) y[i * y_stride] = static_cast<T>(sum);
  }
}

/// v = w^T u
template <class T>
__global__ void column_products_kernel(T* v, DeviceMatrix<T> w, const T* u) {
  const std::int64_t j = block_column();
  const double sum = column_sum(
      w.rows, j < w.cols, [&](std::int64_t i) { return static_cast<double>(w.row(i)[j]) * static_cast<double>(u[i]); });
  if (j < w.cols && threadIdx.y == 0) v[j] = static_cast<T>(sum);
}

/// x <- x / max(|x|, epsilon); one block.
template <class T>
__global__ void normalize_kernel(T* x, std::int64_t count, double epsilon) {
  double squares = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  const double norm = sqrt(block_sum<double, kThreads>(squares));
  const double divisor = norm < epsilon ? epsilon : norm;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads)
    x[i] = static_cast<T>(static_cast<double>(x[i]) / divisor);
}

/// sigma = <u, products>; one block. `products` lie `stride` elements apart.
template <class T>
__global__ void spectral_sigma_kernel(T* sigma, const T* u, const T* products, std::int64_t stride,
                                      std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    sum += static_cast<double>(u[i]) * static_cast<double>(products[i * stride]);
  }
  sum = block_sum<double, kThreads>(sum);
  if (threadIdx.x == 0) *sigma = static_cast<T>(sum);
}

template <class T>
__global__ void spectral_divide_kernel(DeviceMatrix<T> y, DeviceMatrix<T> w, const T* sigma) {
  const T divisor = *sigma;
  for (std::int64_t e = first_item(); e < w.size(); e += item_stride()) {
    const std::int64_t i = e / w.cols;
    const std::int64_t j = e - i * w.cols;
    y.row(i)[j] = w.row(i)[j] / divisor;
  }
}

template <class T>
__global__ void spectral_norm_reverse_kernel(DeviceMatrix<T> grad_w, DeviceMatrix<T> seed, DeviceMatrix<T> w,
                                             const T* sigma, const T* u, const T* v, Update update) {
  double dot = 0;
  for (std::int64_t e = threadIdx.x; e < seed.size(); e += kThreads) {
    const std::int64_t i = e / seed.cols;
    const std::int64_t j = e - i * seed.cols;
    dot += static_cast<double>(seed.row(i)[j]) * static_cast<double>(w.row(i)[j]);
  }
  dot = block_sum<double, kThreads>(dot);
  const T divisor = *sigma;
  for (std::int64_t e = first_item(); e < seed.size(); e += item_stride()) {
    const std::int64_t i = e / seed.cols;
    const std::int64_t j = e - i * seed.cols;
    const T along = static_cast<T>(dot * static_cast<double>(u[i]));
    const T value = (seed.row(i)[j] - along * v[j]) / divisor;
    grad_w.row(i)[j] = update == Update::accumulate ? grad_w.row(i)[j] + value : value;
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

const dim3 kColumnBlock(kColumns, kRowThreads);

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
      code = launch<row_products_kernel<T>>(row_blocks, kThreads, 0, stream, left, 1, weights, right);
      if (code != cudaSuccess) return code;
      code = launch<normalize_kernel<T>>(1, kThreads, 0, stream, left, weights.rows, epsilon);
      if (code != cudaSuccess) return code;
    }
    if (weights.cols > 0) {
      code = launch<column_products_kernel<T>>(blocks_for(weights.cols, kColumns), kColumnBlock, 0, stream, right,
                                               weights, left);
      if (code != cudaSuccess) return code;
      code = launch<normalize_kernel<T>>(1, kThreads, 0, stream, right, weights.cols, epsilon);
      if (code != cudaSuccess) return code;
    }
  }
  // The products w v wait in the first column of the output, which is written last.
  const bool any = weights.size() > 0;
  if (any) {
    code = launch<row_products_kernel<T>>(row_blocks, kThreads, 0, stream, out.data, out.ld, weights, right);
    if (code != cudaSuccess) return code;
  }
  code = launch<spectral_sigma_kernel<T>>(1, kThreads, 0, stream, device_vector<T>(sigma), left, out.data, out.ld,
                                          any ? weights.rows : 0);
  if (code != cudaSuccess || !any) return code;
  return launch<spectral_divide_kernel<T>>(blocks_for(weights.size(), kThreads), kThreads, 0, stream, out, weights,
                                           device_vector<T>(sigma));
}

template <class T>
cudaError_t spectral_norm_reverse(Tensor grad_w, Tensor seed, Tensor w_normalized, Tensor sigma, Tensor u, Tensor v,
                                  Update update, cudaStream_t stream) {
  if (grad_w.size() == 0) return cudaSuccess;
  const unsigned wanted = blocks_for(grad_w.size(), static_cast<int>(kReverseElements));
  return launch<spectral_norm_reverse_kernel<T>>(wanted < kMaxReverseBlocks ? wanted : kMaxReverseBlocks, kThreads, 0,
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
