// Launchers of activation.cuh.
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace activation_kernels;

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
PointwiseInput<T> pointwise_input(const Stacked& x, const Tensor& bias, const Tensor& slope, const ActivationKind& kind,
                                  const Rows& rows) {
  return {stacked<T>(x),
          device_vector<T>(bias),
          device_vector<T>(slope),
          slope.size() > 1,
          bias.absent() ? slope.size() : bias.size(),
          static_cast<T>(kind.negative_slope),
          kind.function,
          rows};
}

/// Whether vectors of 16 bytes serve x, y (and others), and what belongs to their channels.
template <class T>
bool vectors_serve(const PointwiseInput<T>& input, const StackedMatrix<T>& y, const StackedMatrix<T>& other) {
  const T* const slope = input.slope_per_channel ? input.slope : nullptr;
  const bool has_channels = input.bias != nullptr || slope != nullptr;
  const bool whole = input.channels == input.x.primal.cols || input.channels % kVectorWidth<T> == 0;
  return (whole || !has_channels) && RowsAligned()
                                         .add(input.x.primal)
                                         .add(input.x.tangent)
                                         .add(y.primal)
                                         .add(y.tangent)
                                         .add(other.primal)
                                         .add(other.tangent)
                                         .add(input.bias)
                                         .add(slope);
}

template <class T>
unsigned blocks_of(const DeviceMatrix<T>& x, int width) {
  return blocks_for(VectorGrid(x.rows, x.cols, width).items(), kThreads);
}

template <class T>
cudaError_t bias_activation_forward(const ForwardParams<T>& params, cudaStream_t stream) {
  const DeviceMatrix<T>& x = params.input.x.primal;
  if (x.size() == 0) return cudaSuccess;
  return with_vector_width<T>(vectors_serve(params.input, params.y, {}), [&]<int kWidth>() {
    return launch<BiasActivationForwardBody<T, kWidth>>(blocks_of(x, kWidth), kThreads, 0, stream, params);
  });
}

template <class T>
cudaError_t reverse_bias(const Tensor& grad_bias, const DeviceMatrix<T>& grad_x, Update update, const Scratch& scratch,
                         cudaStream_t stream) {
  const std::int64_t channels = grad_bias.size();
  if (channels == 0) return cudaSuccess;
  return column_sums<T>(grad_x.size() / channels, channels, PixelTerm<T>(grad_x, channels),
                        StoreSum<T>{device_vector<T>(grad_bias), update}, scratch, stream);
}

template <class T>
cudaError_t reverse_slope(const Tensor& grad_slope, const ReverseParams<T>& params, Update update,
                          const Scratch& scratch, cudaStream_t stream) {
  const DeviceMatrix<T>& x = params.input.x.primal;
  const std::int64_t slopes = grad_slope.size();
  if (slopes == 0) return cudaSuccess;
  return column_sums<T>(x.size() / slopes, slopes, SlopeTerm<T>{params, x.cols / slopes, slopes},
                        StoreSum<T>{device_vector<T>(grad_slope), update}, scratch, stream);
}

template <class T>
cudaError_t bias_activation_reverse(const ReverseParams<T>& params, const Tensor& grad_bias, const Tensor& grad_slope,
                                    Update update, const Scratch& scratch, cudaStream_t stream) {
  // grad_x may be grad_y, which the slopes need; the bias needs grad_x.
  if (!grad_slope.absent()) {
    const cudaError_t code = reverse_slope(grad_slope, params, update, scratch, stream);
    if (code != cudaSuccess) return code;
  }
  const DeviceMatrix<T>& x = params.input.x.primal;
  const bool wanted = params.grad_x.primal.data != nullptr || params.grad_x.tangent.data != nullptr;
  if (x.size() > 0 && wanted) {
    const bool vectors = vectors_serve(params.input, params.grad_x, params.grad_y);
    const cudaError_t code = with_vector_width<T>(vectors, [&]<int kWidth>() {
      return launch<BiasActivationReverseBody<T, kWidth>>(blocks_of(x, kWidth), kThreads, 0, stream, params);
    });
    if (code != cudaSuccess) return code;
  }
  if (grad_bias.absent()) return cudaSuccess;
  return reverse_bias(grad_bias, params.grad_x.primal, update, scratch, stream);
}

}  // namespace

void CudaOps::do_bias_activation_forward(Stacked y, Stacked x, Tensor bias, Tensor slope, ActivationKind kind,
                                         const Rows& rows) {
  check(dispatch(x.primal.dtype(),
                 [&]<class T>() {
                   const ForwardParams<T> params{stacked<T>(y), pointwise_input<T>(x, bias, slope, kind, rows)};
                   return BRACKET_TARGET::bias_activation_forward(params, stream_);
                 }),
        "bias_activation_forward", x.primal);
}

void CudaOps::do_bias_activation_reverse(Stacked grad_x, Tensor grad_bias, Tensor grad_slope, Stacked grad_y, Stacked x,
                                         Tensor bias, Tensor slope, ActivationKind kind, const Rows& rows,
                                         Update update) {
  const bool sums = !grad_bias.absent() || !grad_slope.absent();
  const Scratch memory = sums ? scratch() : Scratch{};
  check(dispatch(x.primal.dtype(),
                 [&]<class T>() {
                   const ReverseParams<T> params{stacked<T>(grad_x), stacked<T>(grad_y),
                                                 pointwise_input<T>(x, bias, slope, kind, rows)};
                   return BRACKET_TARGET::bias_activation_reverse(params, grad_bias, grad_slope, update, memory,
                                                                  stream_);
                 }),
        "bias_activation_reverse", x.primal);
}

}  // namespace bracket::BRACKET_TARGET
