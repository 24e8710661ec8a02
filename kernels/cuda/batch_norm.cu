// Launchers of batch_norm.cuh.
#include "kernels/cuda/batch_norm.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace batch_norm_kernels;

// ---- launchers ------------------------------------------------------------------------------------------------------

constexpr int kAxisGridLimit = 65535;

dim3 map_grid(std::int64_t rows, std::int64_t cols, int width) {
  const MapShape shape(cols, width);
  const unsigned row_blocks = blocks_for(rows, shape.rows * kRowsPerThread);
  return dim3(blocks_for((cols + width - 1) / width, shape.vectors),
              row_blocks < kAxisGridLimit ? row_blocks : kAxisGridLimit);
}

bool has_many_rows(std::int64_t rows, std::int64_t cols) { return rows >= kManyRows && cols <= kMostColumns; }

template <class T>
cudaError_t batch_norm_train_forward(const BatchNormForward<T>& p, const Scratch& scratch, cudaStream_t stream) {
  const std::int64_t n = p.x.rows, cols = p.x.cols;
  if (cols == 0) return cudaSuccess;
  if (!has_many_rows(n, cols)) {
    return launch<BatchNormTrainForwardBody<T>>(blocks_for(cols, kColumns), kThreads, 0, stream, p);
  }
  const auto rows = static_cast<double>(n);
  cudaError_t code = cudaSuccess;
  if constexpr (sizeof(T) == sizeof(float)) {
    code = column_sums<SumPair>(
        n, cols, ShiftedTerm<T>{p.x},
        StatisticsStore<T>{p.x, p.mean, p.inv_std, p.running_mean, p.running_variance, rows, p.momentum, p.epsilon},
        scratch, stream);
  } else {
    code = column_sums<double>(n, cols, ElementTerm<T>{p.x}, MeanStore<T>{p.mean, p.running_mean, rows, p.momentum},
                               scratch, stream);
    if (code != cudaSuccess) return code;
    code = column_sums<SumPair>(n, cols, DeviationTerm<T>{p.x, p.mean},
                                VarianceStore<T>{p.inv_std, p.running_variance, rows, p.momentum, p.epsilon}, scratch,
                                stream);
  }
  if (code != cudaSuccess) return code;
  return with_vector_width<T>(RowsAligned().add(p.x).add(p.y), [&]<int kWidth>() {
    return launch<BatchNormTrainForwardMapBody<T, kWidth>>(map_grid(n, cols, kWidth), kThreads, 0, stream, p);
  });
}

template <class T>
cudaError_t batch_norm_train_reverse(const BatchNormReverse<T>& p, const Scratch& scratch, cudaStream_t stream) {
  const std::int64_t n = p.x.rows, cols = p.x.cols;
  if (cols == 0) return cudaSuccess;
  if (!has_many_rows(n, cols)) {
    return launch<BatchNormTrainReverseBody<T>>(blocks_for(cols, kColumns), kThreads, 0, stream, p);
  }
  double* const means = scratch.data;
  const Scratch rest{scratch.data + 2 * cols, scratch.elements - 2 * cols};
  const cudaError_t code = column_sums<SumPair>(
      n, cols, GradientTerm<T>{p.grad_y, p.x, p.mean, p.inv_std},
      TrainGradientStore<T>{p.grad_gamma, p.grad_beta, means, cols, static_cast<double>(n), p.update}, rest, stream);
  if (code != cudaSuccess) return code;
  return with_vector_width<T>(RowsAligned().add(p.x).add(p.grad_y).add(p.grad_x), [&]<int kWidth>() {
    return launch<BatchNormTrainReverseMapBody<T, kWidth>>(map_grid(n, cols, kWidth), kThreads, 0, stream, p, means);
  });
}

template <class T>
cudaError_t batch_norm_affine(Tensor to, Tensor from, Tensor gamma, Tensor shift, Tensor mean, Tensor variance,
                              double epsilon, cudaStream_t stream) {
  if (to.size() == 0) return cudaSuccess;
  const DeviceMatrix<T> y = device_matrix<T>(to), x = device_matrix<T>(from);
  return with_vector_width<T>(RowsAligned().add(y).add(x), [&]<int kWidth>() {
    return launch<BatchNormAffineBody<T, kWidth>>(map_grid(y.rows, y.cols, kWidth), kThreads, 0, stream, y, x,
                                                  device_vector<T>(gamma), device_vector<T>(shift),
                                                  device_vector<T>(mean), device_vector<T>(variance), epsilon);
  });
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
