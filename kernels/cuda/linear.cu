// Launchers of linear.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/linear.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace linear_kernels;

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
unsigned plain_blocks(const DeviceMatrix<T>& c) {
  return blocks_for(c.size(), kThreads);
}

template <class T>
unsigned tile_blocks(const DeviceMatrix<T>& c) {
  return blocks_for(tiles_for(c.rows, c.cols), 1);
}

template <class T>
cudaError_t linear_forward(const DeviceMatrix<T>& y, const DeviceMatrix<T>& x, const DeviceMatrix<T>& w,
                           cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  if (tiled_pays(y.rows, y.cols, x.cols)) {
    return launch<LinearForwardTiledBody<T>>(tile_blocks(y), kThreads, 0, stream, y, x, w);
  }
  return launch<LinearForwardBody<T>>(plain_blocks(y), kThreads, 0, stream, y, x, w);
}

template <class T>
cudaError_t linear_reverse_data(const DeviceMatrix<T>& grad_x, const DeviceMatrix<T>& grad_y, const DeviceMatrix<T>& w,
                                Update update, cudaStream_t stream) {
  if (grad_x.size() == 0) return cudaSuccess;
  if (tiled_pays(grad_x.rows, grad_x.cols, grad_y.cols)) {
    return launch<LinearReverseDataTiledBody<T>>(tile_blocks(grad_x), kThreads, 0, stream, grad_x, grad_y, w, update);
  }
  return launch<LinearReverseDataBody<T>>(plain_blocks(grad_x), kThreads, 0, stream, grad_x, grad_y, w, update);
}

template <class T>
cudaError_t linear_reverse_weights(const DeviceMatrix<T>& grad_w, const DeviceMatrix<T>& grad_y,
                                   const DeviceMatrix<T>& x, Update update, cudaStream_t stream) {
  if (grad_w.size() == 0) return cudaSuccess;
  if (tiled_pays(grad_w.rows, grad_w.cols, x.rows)) {
    return launch<LinearReverseWeightsTiledBody<T>>(tile_blocks(grad_w), kThreads, 0, stream, grad_w, grad_y, x,
                                                    update);
  }
  return launch<LinearReverseWeightsBody<T>>(plain_blocks(grad_w), kThreads, 0, stream, grad_w, grad_y, x, update);
}

}  // namespace

void CudaOps::do_linear_forward(Tensor y, Tensor x, Tensor w, const ProductEpilogue& epilogue) {
  if (uses_tensor_cores(y.dtype(), {y.rows(), y.cols(), x.cols()})) {
    const TensorPlan plan = tensor_plan(y.rows(), y.cols(), x.cols(), math_mode(), multiprocessors_);
    check(linear_forward_sm80(device_matrix<float>(y), device_matrix<float>(x), device_matrix<float>(w), plan,
                              tensor_device(plan.partial_sums), device_epilogue(epilogue, y.cols())),
          "linear_forward", y);
    return;
  }
  const Tensor& product = epilogue.product(y);
  check(dispatch(y.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_forward(device_matrix<T>(product), device_matrix<T>(x),
                                                         device_matrix<T>(w), stream_);
                 }),
        "linear_forward", y);
  finish_product(y, w.rows(), epilogue);
}

void CudaOps::do_linear_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, Update update) {
  if (uses_tensor_cores(grad_x.dtype(), {grad_x.rows(), grad_x.cols(), grad_y.cols()})) {
    const TensorPlan plan = tensor_plan(grad_x.rows(), grad_x.cols(), grad_y.cols(), math_mode(), multiprocessors_);
    check(linear_reverse_data_sm80(device_matrix<float>(grad_x), device_matrix<float>(grad_y), device_matrix<float>(w),
                                   update, plan, tensor_device(plan.partial_sums)),
          "linear_reverse_data", grad_x);
    return;
  }
  check(dispatch(grad_x.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_reverse_data(device_matrix<T>(grad_x), device_matrix<T>(grad_y),
                                                              device_matrix<T>(w), update, stream_);
                 }),
        "linear_reverse_data", grad_x);
}

void CudaOps::do_linear_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, Update update) {
  if (uses_tensor_cores(grad_w.dtype(), {grad_w.rows(), grad_w.cols(), x.rows()})) {
    const TensorPlan plan = tensor_plan(grad_w.rows(), grad_w.cols(), x.rows(), math_mode(), multiprocessors_);
    check(linear_reverse_weights_sm80(device_matrix<float>(grad_w), device_matrix<float>(grad_y),
                                      device_matrix<float>(x), update, plan, tensor_device(plan.partial_sums)),
          "linear_reverse_weights", grad_w);
    return;
  }
  check(dispatch(grad_w.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::linear_reverse_weights(device_matrix<T>(grad_w), device_matrix<T>(grad_y),
                                                                 device_matrix<T>(x), update, stream_);
                 }),
        "linear_reverse_weights", grad_w);
}

}  // namespace bracket::BRACKET_TARGET
