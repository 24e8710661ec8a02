// Convolutions of floats on tensor cores; see convolution_sm80.cu. The shapes are those of tensor_cores_pay(m, n, p).
#pragma once

#include "kernels/cuda/linear_sm80.h"

namespace bracket::BRACKET_TARGET {

cudaError_t conv2d_forward_sm80(const DeviceMatrix<float>& y, const DeviceMatrix<float>& x,
                                const DeviceMatrix<float>& w, const Convolution& map, const TensorDevice& device,
                                const DeviceEpilogue& epilogue = {});
/// An epilogue only with Update::overwrite.
cudaError_t conv2d_reverse_data_sm80(const DeviceMatrix<float>& grad_x, const DeviceMatrix<float>& grad_y,
                                     const DeviceMatrix<float>& w, const Convolution& map, Update update,
                                     const TensorDevice& device, const DeviceEpilogue& epilogue = {});
/// workspace: map.weights_workspace(rows) elements; not read where that is 0.
cudaError_t conv2d_reverse_weights_sm80(const DeviceMatrix<float>& grad_w, const DeviceMatrix<float>& grad_y,
                                        const DeviceMatrix<float>& x, const Convolution& map, Update update,
                                        float* workspace, const TensorDevice& device);

}  // namespace bracket::BRACKET_TARGET
