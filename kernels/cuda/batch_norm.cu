// Batch normalisation, training and inference. x [n, c]; gamma, beta, statistics [c].
//
//   train forward   y = gamma (x - mean) inv_std + beta,  inv_std = (variance + epsilon)^(-1/2), variance biased
//   train reverse   grad_x = gamma inv_std (grad_y - mean(grad_y) - x^ mean(grad_y x^)),  x^ = (x - mean) inv_std
//                   grad_gamma (+)= sum grad_y x^,  grad_beta (+)= sum grad_y
//   infer           the same affine map with the running statistics; tangents get the factor only
// A single row leaves running_variance as it is (its unbiased variance does not exist); no rows leave both, mean = 0.
//
// Traffic in elements: train forward 4 n c (three reads, of which the second-level cache may hold two), train reverse
// 5 n c, infer forward 2 n c, infer reverse up to 4 n c. Flops at most 8 per element: bound by memory. Rows may be
// strided; no alignment beyond the element's; grad_x may alias grad_y, y may alias x.
// Determinism: column sums in f64 in an order fixed by the shape (common/column_sums.cuh).
//
// | variant             | idea                                                           | time                      |
// | train_*_kernel      | 32 columns per block, 8 threads down each column, one launch   | not yet measured on a GPU |
// | train, many rows    | column sums by chunks of rows, then a map over all rows        | not yet measured on a GPU |
// | maps                | 32 columns by 8 rows a block, four rows a thread               | not yet measured on a GPU |
// sm_90: at most 46 registers, no spills.
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

constexpr int kThreads = 256;
/// A warp maps 32 adjacent columns of one row; eight warps share the rows.
constexpr int kColumns = kWarpThreads;
constexpr int kRowThreads = kThreads / kColumns;
/// Rows a thread maps with one set of column constants.
constexpr int kRowsPerThread = 4;
/// From here on a thread of the one-launch kernels would add over a hundred rows one by one: an image batch's 65,536
/// rows of 64 channels would keep two blocks busy.
constexpr std::int64_t kManyRows = 1024;
/// The means that the map of reverse needs lie at the start of the scratch memory; wider ones take the one launch, for
/// which they are blocks enough.
constexpr std::int64_t kMostColumns = 8192;

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

template <class T>
struct MeanStore {
  T *mean, *running_mean;
  double rows, momentum;
  BRACKET_DEVICE void operator()(std::int64_t j, double sum) const {
    mean[j] = static_cast<T>(sum / rows);
    if (running_mean != nullptr) move_towards(running_mean + j, sum / rows, momentum);
  }
};

/// Deviations from a mean that was rounded to T, and their squares: the former correct the latter.
template <class T>
struct DeviationTerm {
  DeviceMatrix<T> x;
  const T* mean;
  BRACKET_DEVICE SumPair operator()(std::int64_t i, std::int64_t j) const {
    const double deviation = static_cast<double>(x.row(i)[j]) - static_cast<double>(mean[j]);
    return {deviation, deviation * deviation};
  }
};

template <class T>
struct VarianceStore {
  T *inv_std, *running_variance;
  double rows, momentum, epsilon;
  BRACKET_DEVICE void operator()(std::int64_t j, const SumPair& sums) const {
    const double corrected = sums.second - sums.first * sums.first / rows;
    const double squares = corrected < 0 ? 0.0 : corrected;
    inv_std[j] = static_cast<T>(1 / sqrt(squares / rows + epsilon));
    if (running_variance != nullptr) move_towards(running_variance + j, squares / (rows - 1), momentum);
  }
};

template <class T>
struct ElementTerm {
  DeviceMatrix<T> x;
  BRACKET_DEVICE double operator()(std::int64_t i, std::int64_t j) const { return static_cast<double>(x.row(i)[j]); }
};

/// grad_y and grad_y (x - mean) factor; without inv_std the factor is 1, without mean nothing is subtracted.
template <class T>
struct GradientTerm {
  DeviceMatrix<T> grad_y, x;
  const T *mean, *inv_std;
  BRACKET_DEVICE SumPair operator()(std::int64_t i, std::int64_t j) const {
    const T grad = grad_y.row(i)[j];
    if (x.data == nullptr) return {static_cast<double>(grad), 0.0};
    const T centered = mean == nullptr ? x.row(i)[j] : x.row(i)[j] - mean[j];
    const T normalized = inv_std == nullptr ? centered : centered * inv_std[j];
    return {static_cast<double>(grad), static_cast<double>(grad) * static_cast<double>(normalized)};
  }
};

template <class T>
struct TrainGradientStore {
  T *grad_gamma, *grad_beta;
  double* means;  ///< [2, cols]: mean(grad_y), mean(grad_y x^)
  std::int64_t cols;
  double rows;
  Update update;
  BRACKET_DEVICE void operator()(std::int64_t j, const SumPair& sums) const {
    if (grad_beta != nullptr) store(grad_beta + j, sums.first, update);
    if (grad_gamma != nullptr) store(grad_gamma + j, sums.second, update);
    means[j] = sums.first / rows;
    means[cols + j] = sums.second / rows;
  }
};

template <class T>
struct InferGradientStore {
  T *grad_gamma, *grad_beta;
  const T* running_variance;
  double epsilon;
  Update update;
  BRACKET_DEVICE void operator()(std::int64_t j, const SumPair& sums) const {
    if (grad_beta != nullptr) store(grad_beta + j, sums.first, update);
    if (grad_gamma == nullptr) return;
    store(grad_gamma + j, sums.second / sqrt(static_cast<double>(running_variance[j]) + epsilon), update);
  }
};

BRACKET_DEVICE std::int64_t first_row() { return static_cast<std::int64_t>(blockIdx.y) * kRowThreads + threadIdx.y; }
BRACKET_DEVICE std::int64_t row_stride() { return static_cast<std::int64_t>(gridDim.y) * kRowThreads; }

// ---- kernels --------------------------------------------------------------------------------------------------------

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

/// The map of train forward from statistics that are known.
template <class T>
__global__ void batch_norm_train_forward_map_kernel(const __grid_constant__ BatchNormForward<T> p) {
  const std::int64_t j = block_column();
  if (j >= p.x.cols) return;
  const T center = p.mean[j], inverse = p.inv_std[j], scale = p.gamma[j], shift = p.beta[j];
  for (std::int64_t i = first_row(); i < p.x.rows; i += row_stride()) {
    p.y.row(i)[j] = scale * ((p.x.row(i)[j] - center) * inverse) + shift;
  }
}

/// The map of train reverse from sums that are known; means as TrainGradientStore leaves them.
template <class T>
__global__ void batch_norm_train_reverse_map_kernel(const __grid_constant__ BatchNormReverse<T> p,
                                                    const double* means) {
  const std::int64_t j = block_column();
  if (j >= p.x.cols) return;
  const T center = p.mean[j], inverse = p.inv_std[j], factor = p.gamma[j] * inverse;
  const T mean_shift = static_cast<T>(means[j]), mean_scale = static_cast<T>(means[p.x.cols + j]);
  for (std::int64_t i = first_row(); i < p.x.rows; i += row_stride()) {
    const T normalized = (p.x.row(i)[j] - center) * inverse;
    p.grad_x.row(i)[j] = factor * (p.grad_y.row(i)[j] - mean_shift - normalized * mean_scale);
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
  for (std::int64_t i = first_row(); i < y.rows; i += row_stride()) {
    if (x.data == nullptr) {
      y.row(i)[j] = T(0);
    } else if (shift != nullptr) {
      y.row(i)[j] = (x.row(i)[j] - mean[j]) * factor + shift[j];
    } else {
      y.row(i)[j] = x.row(i)[j] * factor;
    }
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

constexpr int kAxisGridLimit = 65535;
const dim3 kColumnBlock(kColumns, kRowThreads);

dim3 map_grid(std::int64_t rows, std::int64_t cols) {
  const unsigned row_blocks = blocks_for(rows, kRowThreads * kRowsPerThread);
  return dim3(blocks_for(cols, kColumns), row_blocks < kAxisGridLimit ? row_blocks : kAxisGridLimit);
}

bool has_many_rows(std::int64_t rows, std::int64_t cols) { return rows >= kManyRows && cols <= kMostColumns; }

template <class T>
cudaError_t batch_norm_train_forward(const BatchNormForward<T>& p, const Scratch& scratch, cudaStream_t stream) {
  const std::int64_t n = p.x.rows, cols = p.x.cols;
  if (cols == 0) return cudaSuccess;
  if (!has_many_rows(n, cols)) {
    return launch<batch_norm_train_forward_kernel<T>>(blocks_for(cols, kColumns), kColumnBlock, 0, stream, p);
  }
  const auto rows = static_cast<double>(n);
  cudaError_t code = column_sums<double>(n, cols, ElementTerm<T>{p.x},
                                         MeanStore<T>{p.mean, p.running_mean, rows, p.momentum}, scratch, stream);
  if (code != cudaSuccess) return code;
  code = column_sums<SumPair>(n, cols, DeviationTerm<T>{p.x, p.mean},
                              VarianceStore<T>{p.inv_std, p.running_variance, rows, p.momentum, p.epsilon}, scratch,
                              stream);
  if (code != cudaSuccess) return code;
  return launch<batch_norm_train_forward_map_kernel<T>>(map_grid(n, cols), kColumnBlock, 0, stream, p);
}

template <class T>
cudaError_t batch_norm_train_reverse(const BatchNormReverse<T>& p, const Scratch& scratch, cudaStream_t stream) {
  const std::int64_t n = p.x.rows, cols = p.x.cols;
  if (cols == 0) return cudaSuccess;
  if (!has_many_rows(n, cols)) {
    return launch<batch_norm_train_reverse_kernel<T>>(blocks_for(cols, kColumns), kColumnBlock, 0, stream, p);
  }
  double* const means = scratch.data;
  const Scratch rest{scratch.data + 2 * cols, scratch.elements - 2 * cols};
  const cudaError_t code = column_sums<SumPair>(
      n, cols, GradientTerm<T>{p.grad_y, p.x, p.mean, p.inv_std},
      TrainGradientStore<T>{p.grad_gamma, p.grad_beta, means, cols, static_cast<double>(n), p.update}, rest, stream);
  if (code != cudaSuccess) return code;
  return launch<batch_norm_train_reverse_map_kernel<T>>(map_grid(n, cols), kColumnBlock, 0, stream, p, means);
}

template <class T>
cudaError_t batch_norm_affine(Tensor y, Tensor x, Tensor gamma, Tensor shift, Tensor mean, Tensor variance,
                              double epsilon, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<batch_norm_affine_kernel<T>>(map_grid(y.rows(), y.cols()), kColumnBlock, 0, stream, device_matrix<T>(y),
                                             device_matrix<T>(x), device_vector<T>(gamma), device_vector<T>(shift),
                                             device_vector<T>(mean), device_vector<T>(variance), epsilon);
}

template <class T>
cudaError_t batch_norm_infer_parameters(const BatchNormInferReverse<T>& p, const Scratch& scratch,
                                        cudaStream_t stream) {
  if (p.grad_gamma == nullptr && p.grad_beta == nullptr) return cudaSuccess;
  const DeviceMatrix<T> no_x{};
  const InferGradientStore<T> primal{p.grad_gamma, p.grad_beta, p.running_variance, p.epsilon, p.update};
  const cudaError_t code = column_sums<SumPair>(
      p.grad_primal.rows, p.columns,
      GradientTerm<T>{p.grad_primal, p.grad_gamma == nullptr ? no_x : p.primal, p.running_mean, nullptr}, primal,
      scratch, stream);
  if (code != cudaSuccess || p.grad_gamma == nullptr || p.grad_tangent.rows == 0) return code;
  const InferGradientStore<T> tangent{p.grad_gamma, nullptr, p.running_variance, p.epsilon, Update::accumulate};
  return column_sums<SumPair>(p.grad_tangent.rows, p.columns,
                              GradientTerm<T>{p.grad_tangent, p.tangent, nullptr, nullptr}, tangent, scratch, stream);
}

}  // namespace

void CudaOps::do_batch_norm_train_forward(Tensor y, Tensor mean, Tensor inv_std, Tensor running_mean,
                                          Tensor running_variance, Tensor x, Tensor gamma, Tensor beta, double momentum,
                                          double epsilon) {
  const Scratch memory = has_many_rows(x.rows(), x.cols()) ? scratch() : Scratch{};
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::batch_norm_train_forward<T>(
        {device_matrix<T>(y), device_matrix<T>(x), device_vector<T>(mean), device_vector<T>(inv_std),
         device_vector<T>(running_mean), device_vector<T>(running_variance), device_vector<T>(gamma),
         device_vector<T>(beta), momentum, epsilon},
        memory, stream_);
  });
  check(code, "batch_norm_train_forward", x);
}

void CudaOps::do_batch_norm_train_reverse(Tensor grad_x, Tensor grad_gamma, Tensor grad_beta, Tensor grad_y, Tensor x,
                                          Tensor gamma, Tensor mean, Tensor inv_std, Update update) {
  const Scratch memory = has_many_rows(x.rows(), x.cols()) ? scratch() : Scratch{};
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::batch_norm_train_reverse<T>(
        {device_matrix<T>(grad_x), device_matrix<T>(grad_y), device_matrix<T>(x), device_vector<T>(grad_gamma),
         device_vector<T>(grad_beta), device_vector<T>(gamma), device_vector<T>(mean), device_vector<T>(inv_std),
         update},
        memory, stream_);
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
  const Scratch memory = grad_gamma.absent() && grad_beta.absent() ? Scratch{} : scratch();
  const cudaError_t code = dispatch(gamma.dtype(), [&]<class T>() {
    // The parameters first: grad_x may overwrite grad_y.
    cudaError_t status = batch_norm_infer_parameters<T>(
        {device_matrix<T>(grad_y.primal), device_matrix<T>(x.primal), device_matrix<T>(grad_y.tangent),
         device_matrix<T>(x.tangent), device_vector<T>(grad_gamma), device_vector<T>(grad_beta),
         device_vector<T>(running_mean), device_vector<T>(running_variance), epsilon, gamma.size(), update},
        memory, stream_);
    if (status != cudaSuccess) return status;
    status =
        batch_norm_affine<T>(grad_x.primal, grad_y.primal, gamma, {}, running_mean, running_variance, epsilon, stream_);
    if (status != cudaSuccess) return status;
    return batch_norm_affine<T>(grad_x.tangent, grad_y.tangent, gamma, {}, running_mean, running_variance, epsilon,
                                stream_);
  });
  check(code, "batch_norm_infer_reverse", gamma);
}

}  // namespace bracket::BRACKET_TARGET
