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

/// Whether vectors of 16 bytes serve the operands. One pixel per row may end within a vector; its bias ends there too.
template <class T>
bool vectors_serve(const StackedMatrix<T>& a, const StackedMatrix<T>& b, const T* bias, const MaskGeometry& geometry) {
  const bool whole = geometry.mask.cols == geometry.pixel_bytes || geometry.channels % kVectorWidth<T> == 0;
  return whole && RowsAligned().add(a.primal).add(a.tangent).add(b.primal).add(b.tangent).add(bias);
}

template <class T>
cudaError_t masked_activation_forward(const MaskedForward<T>& p, cudaStream_t stream) {
  if (p.geometry.mask.size() == 0) return cudaSuccess;
  return with_vector_width<T>(vectors_serve(p.y, p.x, p.bias, p.geometry), [&]<int kWidth>() {
    const unsigned blocks = blocks_for(p.geometry.template items<kWidth>(), kThreads);
    return launch<MaskedActivationForwardBody<T, kWidth>>(blocks, kThreads, 0, stream, p);
  });
}

template <class T>
cudaError_t masked_activation_reverse(const MaskedReverse<T>& p, const Tensor& grad_bias, Update update,
                                      const Scratch& scratch, cudaStream_t stream) {
  if (p.geometry.mask.size() > 0 && (p.grad_x.has_primal || p.grad_x.has_tangent)) {
    const bool vectors = vectors_serve<T>(p.grad_x, p.grad_y, nullptr, p.geometry);
    const cudaError_t code = with_vector_width<T>(vectors, [&]<int kWidth>() {
      const unsigned blocks = blocks_for(p.geometry.template items<kWidth>(), kThreads);
      return launch<MaskedActivationReverseBody<T, kWidth>>(blocks, kThreads, 0, stream, p);
    });
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
