// Launchers of masked_activation.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/masked_activation.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace masked_activation_kernels;

// ---- launchers -------------------------------------------------------------------------------------------------

MaskGeometry mask_geometry(const Tensor& mask, std::int64_t channels) {
  return {device_matrix<std::uint8_t>(mask), channels, (channels + 7) / 8};
}

template <class T>
T negative_slope(const ActivationKind& kind) {
  return kind.function == Activation::relu ? T{0} : static_cast<T>(kind.negative_slope);
}

template <class T>
cudaError_t masked_activation_forward(const MaskedForward<T>& p, cudaStream_t stream) {
  const std::int64_t items = p.geometry.items();
  if (items == 0) return cudaSuccess;
  return launch<MaskedActivationForwardBody<T>>(blocks_for(items, kThreads), kThreads, 0, stream, p);
}

template <class T>
cudaError_t masked_activation_reverse(const MaskedReverse<T>& p, const Tensor& grad_bias, Update update,
                                      const Scratch& scratch, cudaStream_t stream) {
  const std::int64_t items = p.geometry.items();
  if (items > 0 && (p.grad_x.has_primal || p.grad_x.has_tangent)) {
    const cudaError_t code =
        launch<MaskedActivationReverseBody<T>>(blocks_for(items, kThreads), kThreads, 0, stream, p);
    if (code != cudaSuccess) return code;
  }
  if (grad_bias.absent()) return cudaSuccess;
  const std::int64_t channels = p.geometry.channels;
  return column_sums<T>(p.grad_x.primal.size() / channels, channels, PixelTerm<T>(p.grad_x.primal, channels),
                        StoreSum<T>{device_vector<T>(grad_bias), update}, scratch, stream);
}

}  // namespace

void CudaOps::do_masked_activation_forward(Stacked y, Tensor mask, Stacked x, Tensor bias, std::int64_t channels,
                                           ActivationKind kind, const Rows& rows) {
  const Tensor& operand = y.primal.absent() ? y.tangent : y.primal;
  const cudaError_t code = dispatch(operand.dtype(), [&]<class T>() {
    return BRACKET_TARGET::masked_activation_forward<T>(
        {stacked<T>(y), stacked<T>(x), mask_geometry(mask, channels), device_vector<T>(bias),
         kind.function == Activation::relu, negative_slope<T>(kind), rows},
        stream_);
  });
  check(code, "masked_activation_forward", operand);
}

void CudaOps::do_masked_activation_reverse(Stacked grad_x, Tensor grad_bias, Stacked grad_y, Tensor mask,
                                           std::int64_t channels, ActivationKind kind, const Rows& rows,
                                           Update update) {
  const Tensor& operand = grad_x.primal.absent() ? grad_x.tangent : grad_x.primal;
  const Scratch memory = grad_bias.absent() ? Scratch{} : scratch();
  const cudaError_t code = dispatch(operand.dtype(), [&]<class T>() {
    return BRACKET_TARGET::masked_activation_reverse<T>(
        {stacked<T>(grad_x), stacked<T>(grad_y), mask_geometry(mask, channels), negative_slope<T>(kind), rows},
        grad_bias, update, memory, stream_);
  });
  check(code, "masked_activation_reverse", operand);
}

}  // namespace bracket::BRACKET_TARGET
