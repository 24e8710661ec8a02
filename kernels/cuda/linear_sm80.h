// Dense layers of floats on tensor cores; see linear_sm80.cu. For shapes with tensor_cores_pay(m, n, p) only; plan is
// tensor_plan(m, n, p, device.mode, ...), for which device.scratch has room: else cudaErrorInvalidValue.
#pragma once

#include "bracket/math_mode.h"
#include "kernels/cuda/common/device_epilogue.cuh"
#include "kernels/cuda/common/tensor_plan.h"

namespace bracket::BRACKET_TARGET {

/// Where a product on tensor cores runs, and how exactly. `mode` is not fp32.
struct TensorDevice {
  MathMode mode;
  int multiprocessors;
  Scratch scratch;  ///< partial sums
  cudaStream_t stream;
};

/// c (+)= the sum of the matrices of c's shape that lie one below the other in chunk_sums, in their order.
cudaError_t add_chunks(const DeviceMatrix<float>& c, const DeviceMatrix<float>& chunk_sums, Update update,
                       cudaStream_t stream);

cudaError_t linear_forward_sm80(const DeviceMatrix<float>& y, const DeviceMatrix<float>& x,
                                const DeviceMatrix<float>& w, const TensorPlan& plan, const TensorDevice& device,
                                const DeviceEpilogue& epilogue = {});
cudaError_t linear_reverse_data_sm80(const DeviceMatrix<float>& grad_x, const DeviceMatrix<float>& grad_y,
                                     const DeviceMatrix<float>& w, Update update, const TensorPlan& plan,
                                     const TensorDevice& device);
cudaError_t linear_reverse_weights_sm80(const DeviceMatrix<float>& grad_w, const DeviceMatrix<float>& grad_y,
                                        const DeviceMatrix<float>& x, Update update, const TensorPlan& plan,
                                        const TensorDevice& device);

}  // namespace bracket::BRACKET_TARGET
