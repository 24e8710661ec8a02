// Batch normalisation (training and inference) and spectral normalisation. x [n, c]; gamma, beta, statistics [c].
//
//   train forward   y = gamma (x - mean) inv_std + beta,  inv_std = (variance + epsilon)^(-1/2), variance biased
//   train reverse   grad_x = gamma inv_std (grad_y - mean(grad_y) - x^ mean(grad_y x^)),  x^ = (x - mean) inv_std
//                   grad_gamma (+)= sum grad_y x^,  grad_beta (+)= sum grad_y
//   infer           the same affine map with the running statistics; tangents get the factor only
//   spectral        sigma = u^T w v after power iterations, w / sigma;
//                   grad_w (+)= (grad_wn - <grad_wn, wn> u v^T) / sigma
// A single row leaves running_variance as it is (its unbiased variance does not exist); no rows leave both, mean = 0.
//
// Traffic in elements: train forward 4 n c, train reverse 5 n c, infer forward 2 n c, infer reverse up to 4 n c, power
// iteration 2 out in each. Rows may be strided; no alignment beyond the element's; grad_x may alias grad_y.
// Determinism: column sums in f64, each column by one block in an order fixed by n.
//
// | variant                | idea                                                        | time                      |
// | batch_norm_*_kernel    | 32 columns per block, 8 threads down each column            | not yet measured on a GPU |
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
/// Rows a thread of an element-wise kernel maps with one set of column constants.
constexpr int kRowsPerThread = 4;
/// Each block of spectral_norm_reverse reads both matrices for their dot product: one block per this many elements
/// keeps that a small multiple of the traffic for small layers, and kMaxReverseBlocks bounds it for large ones.
constexpr std::int64_t kReverseElements = 16384;
constexpr unsigned kMaxReverseBlocks = 32;

template <class T>
struct BatchNormForward {
  DeviceMatrix<T> y, x;
  T *mean, *inv_std, *running_mean, *running_variance;
  const T *gamma, *beta;
  double momentum, epsilon;
};

template <class T>
struct BatchNormReverse {
  DeviceMatrix<T> grad_x, grad_y, x;
  T *grad_gamma, *grad_beta;
  const T *gamma, *mean, *inv_std;
  Update update;
};

template <class T>
struct BatchNormInferReverse {
  DeviceMatrix<T> grad_primal, primal, grad_tangent, tangent;
  T *grad_gamma, *grad_beta;
  const T *running_mean, *running_variance;
  double epsilon;
  std::int64_t columns;
  Update update;
};

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

template <class T>
BRACKET_DEVICE void store(T* y, double value, Update update) {
  *y = static_cast<T>(update == Update::accumulate ? static_cast<double>(*y) + value : value);
}

template <class T>
BRACKET_DEVICE void move_towards(T* running, double value, double momentum) {
  *running = static_cast<T>((1 - momentum) * static_cast<double>(*running) + momentum * value);
}

// ---- batch normalisation --------------------------------------------------------------------------------------------

template <class T>
__global__ void batch_norm_train_forward_kernel(const __grid_constant__ BatchNormForward<T> p) {
  const std::int64_t j = block_column();
  const std::int64_t n = p.x.rows;
  const bool active = j < p.x.cols;
  const double rows = n > 0 ? static_cast<double>(n) : 1.0;
  const double mean = column_sum(n, active, [&](std::int64_t i) { return static_cast<double>(p.x.row(i)[j]); }) / rows;
  const double squares = column_sum(n, active, [&](std::int64_t i) {
    const double deviation = static_cast<double>(p.x.row(i)[j]) - mean;
    return deviation * deviation;
  });
  if (!active) return;
  const T center = static_cast<T>(mean);
  const T inverse = static_cast<T>(1 / sqrt(squares / rows + p.epsilon));
  if (threadIdx.y == 0) {
    p.mean[j] = center;
    p.inv_std[j] = inverse;
    if (p.running_mean != nullptr && n > 0) move_towards(p.running_mean + j, mean, p.momentum);
    if (p.running_variance != nullptr && n > 1) move_towards(p.running_variance + j, squares / (rows - 1), p.momentum);
  }
  for (std::int64_t i = threadIdx.y; i < n; i += kRowThreads) {
    p.y.row(i)[j] = p.gamma[j] * ((p.x.row(i)[j] - center) * inverse) + p.beta[j];
  }
}

template <class T>
__global__ void batch_norm_train_reverse_kernel(const __grid_constant__ BatchNormReverse<T> p) {
  const std::int64_t j = block_column();
  const std::int64_t n = p.x.rows;
  const bool active = j < p.x.cols;
  const T mean = active ? p.mean[j] : T(0);
  const T inverse = active ? p.inv_std[j] : T(0);
  const double shift = column_sum(n, active, [&](std::int64_t i) { return static_cast<double>(p.grad_y.row(i)[j]); });
  const double scale = column_sum(n, active, [&](std::int64_t i) {
    const T normalized = (p.x.row(i)[j] - mean) * inverse;
    return static_cast<double>(p.grad_y.row(i)[j]) * static_cast<double>(normalized);
  });
  if (!active) return;
  if (threadIdx.y == 0) {
    if (p.grad_gamma != nullptr) store(p.grad_gamma + j, scale, p.update);
    if (p.grad_beta != nullptr) store(p.grad_beta + j, shift, p.update);
  }
  if (n == 0) return;
  const T mean_shift = static_cast<T>(shift / static_cast<double>(n));
  const T mean_scale = static_cast<T>(scale / static_cast<double>(n));
  for (std::int64_t i = threadIdx.y; i < n; i += kRowThreads) {
    const T normalized = (p.x.row(i)[j] - mean) * inverse;
    p.grad_x.row(i)[j] = p.gamma[j] * inverse * (p.grad_y.row(i)[j] - mean_shift - normalized * mean_scale);
  }
}

/// y = (x - mean) factor + shift with factor = gamma (variance + epsilon)^(-1/2); without `shift` no mean either.
/// Without x.data y = 0.
template <class T>
__global__ void batch_norm_affine_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, const T* gamma, const T* shift,
                                         const T* mean, const T* variance, double epsilon) {
  const std::int64_t j = block_column();
  if (j >= y.cols) return;
  const T factor = static_cast<T>(static_cast<double>(gamma[j]) / sqrt(static_cast<double>(variance[j]) + epsilon));
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kRowThreads + threadIdx.y;
  for (std::int64_t i = first; i < y.rows; i += static_cast<std::int64_t>(gridDim.y) * kRowThreads) {
    if (x.data == nullptr) {
      y.row(i)[j] = T(0);
    } else if (shift != nullptr) {
      y.row(i)[j] = (x.row(i)[j] - mean[j]) * factor + shift[j];
    } else {
      y.row(i)[j] = x.row(i)[j] * factor;
    }
  }
}

template <class T>
__global__ void batch_norm_infer_parameters_kernel(const __grid_constant__ BatchNormInferReverse<T> p) {
  const std::int64_t j = block_column();
  const bool active = j < p.columns;
  const bool first = active && threadIdx.y == 0;
  if (p.grad_beta != nullptr) {
    const double shift = column_sum(p.grad_primal.rows, active,
                                    [&](std::int64_t i) { return static_cast<double>(p.grad_primal.row(i)[j]); });
    if (first) store(p.grad_beta + j, shift, p.update);
  }
  if (p.grad_gamma != nullptr) {
    const T mean = active ? p.running_mean[j] : T(0);
    double scale = column_sum(p.grad_primal.rows, active, [&](std::int64_t i) {
      return static_cast<double>(p.grad_primal.row(i)[j]) * static_cast<double>(p.primal.row(i)[j] - mean);
    });
    scale += column_sum(p.grad_tangent.rows, active, [&](std::int64_t i) {
      return static_cast<double>(p.grad_tangent.row(i)[j]) * static_cast<double>(p.tangent.row(i)[j]);
    });
    if (first) {
      store(p.grad_gamma + j, scale / sqrt(static_cast<double>(p.running_variance[j]) + p.epsilon), p.update);
    }
  }
}

// ---- spectral normalisation -----------------------------------------------------------------------------------------

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

constexpr int kAxisGridLimit = 65535;
const dim3 kColumnBlock(kColumns, kRowThreads);

template <class T>
cudaError_t batch_norm_train_forward(const BatchNormForward<T>& p, cudaStream_t stream) {
  if (p.x.cols == 0) return cudaSuccess;
  return launch<batch_norm_train_forward_kernel<T>>(blocks_for(p.x.cols, kColumns), kColumnBlock, 0, stream, p);
}

template <class T>
cudaError_t batch_norm_train_reverse(const BatchNormReverse<T>& p, cudaStream_t stream) {
  if (p.x.cols == 0) return cudaSuccess;
  return launch<batch_norm_train_reverse_kernel<T>>(blocks_for(p.x.cols, kColumns), kColumnBlock, 0, stream, p);
}

template <class T>
cudaError_t batch_norm_affine(Tensor y, Tensor x, Tensor gamma, Tensor shift, Tensor mean, Tensor variance,
                              double epsilon, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  const unsigned row_blocks = blocks_for(y.rows(), kRowThreads * kRowsPerThread);
  const dim3 grid(blocks_for(y.cols(), kColumns), row_blocks < kAxisGridLimit ? row_blocks : kAxisGridLimit);
  return launch<batch_norm_affine_kernel<T>>(grid, kColumnBlock, 0, stream, device_matrix<T>(y), device_matrix<T>(x),
                                             device_vector<T>(gamma), device_vector<T>(shift), device_vector<T>(mean),
                                             device_vector<T>(variance), epsilon);
}

template <class T>
cudaError_t batch_norm_infer_parameters(const BatchNormInferReverse<T>& p, cudaStream_t stream) {
  if (p.columns == 0 || (p.grad_gamma == nullptr && p.grad_beta == nullptr)) return cudaSuccess;
  return launch<batch_norm_infer_parameters_kernel<T>>(blocks_for(p.columns, kColumns), kColumnBlock, 0, stream, p);
}

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

void CudaOps::do_batch_norm_train_forward(Tensor y, Tensor mean, Tensor inv_std, Tensor running_mean,
                                          Tensor running_variance, Tensor x, Tensor gamma, Tensor beta, double momentum,
                                          double epsilon) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::batch_norm_train_forward<T>(
        {device_matrix<T>(y), device_matrix<T>(x), device_vector<T>(mean), device_vector<T>(inv_std),
         device_vector<T>(running_mean), device_vector<T>(running_variance), device_vector<T>(gamma),
         device_vector<T>(beta), momentum, epsilon},
        stream_);
  });
  check(code, "batch_norm_train_forward", x);
}

void CudaOps::do_batch_norm_train_reverse(Tensor grad_x, Tensor grad_gamma, Tensor grad_beta, Tensor grad_y, Tensor x,
                                          Tensor gamma, Tensor mean, Tensor inv_std, Update update) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::batch_norm_train_reverse<T>(
        {device_matrix<T>(grad_x), device_matrix<T>(grad_y), device_matrix<T>(x), device_vector<T>(grad_gamma),
         device_vector<T>(grad_beta), device_vector<T>(gamma), device_vector<T>(mean), device_vector<T>(inv_std),
         update},
        stream_);
  });
  check(code, "batch_norm_train_reverse", x);
}

void CudaOps::do_batch_norm_infer_forward(Stacked y, Stacked x, Tensor gamma, Tensor beta, Tensor running_mean,
                                          Tensor running_variance, double epsilon, const Rows&) {
  const cudaError_t code = dispatch(gamma.dtype(), [&]<class T>() {
    const cudaError_t primal =
        batch_norm_affine<T>(y.primal, x.primal, gamma, beta, running_mean, running_variance, epsilon, stream_);
    if (primal != cudaSuccess) return primal;
    return batch_norm_affine<T>(y.tangent, x.tangent, gamma, {}, running_mean, running_variance, epsilon, stream_);
  });
  check(code, "batch_norm_infer_forward", gamma);
}

void CudaOps::do_batch_norm_infer_reverse(Stacked grad_x, Tensor grad_gamma, Tensor grad_beta, Stacked grad_y,
                                          Stacked x, Tensor gamma, Tensor running_mean, Tensor running_variance,
                                          double epsilon, const Rows&, Update update) {
  const cudaError_t code = dispatch(gamma.dtype(), [&]<class T>() {
    // The parameters first: grad_x may overwrite grad_y.
    cudaError_t status = batch_norm_infer_parameters<T>(
        {device_matrix<T>(grad_y.primal), device_matrix<T>(x.primal), device_matrix<T>(grad_y.tangent),
         device_matrix<T>(x.tangent), device_vector<T>(grad_gamma), device_vector<T>(grad_beta),
         device_vector<T>(running_mean), device_vector<T>(running_variance), epsilon, gamma.size(), update},
        stream_);
    if (status != cudaSuccess) return status;
    status =
        batch_norm_affine<T>(grad_x.primal, grad_y.primal, gamma, {}, running_mean, running_variance, epsilon, stream_);
    if (status != cudaSuccess) return status;
    return batch_norm_affine<T>(grad_x.tangent, grad_y.tangent, gamma, {}, running_mean, running_variance, epsilon,
                                stream_);
  });
  check(code, "batch_norm_infer_reverse", gamma);
}

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
