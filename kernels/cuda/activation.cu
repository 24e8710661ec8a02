// Bias and pointwise non-linearity on stacked rows, v = x + bias, row-major [rows, c], any row strides:
//   forward   y = f(v),  y' = f'(v) x'
//   reverse   grad_x' = f'(v) grad_y',  grad_x = f'(v) grad_y + f''(v) sum_k x'_k grad_y'_k
//   bias      grad_bias (+)= sums of grad_x per channel
//   slope     grad_slope (+)= sum of min(v, 0) grad_y + [v <= 0] sum_k x'_k grad_y'_k, per channel or over all (PReLU)
// Column j is channel j mod (the size of bias, or slope): a dense layer has one pixel of c channels, an image many.
//
// Bytes        forward (2 + 2 K) b, reverse (3 + 3 K) b per primal element with K tangents (b = 4 or 8); 1 b more for
//              the bias sum and (2 + 2 K) b for the slope sum, which the second-level cache mostly holds.
// Flops        up to 40 per primal element (silu, reverse) and 3 per tangent: bound by memory.
// Alignment    that of the element; neighbouring threads touch neighbouring elements of a row.
// Aliasing     y may be x, grad_x may be grad_y, element by element: a thread reads all it needs of an element and its
//              tangents before it writes them; the slope sum runs before grad_y is overwritten.
// Determinism  elementwise, or sums in an order fixed by the shape (common/column_sums.cuh).
//
// Variant        idea                                                              measured
// elementwise    one thread per primal element, which takes its tangents along     not yet measured on a GPU
// channel sums   chunks of rows by blocks on adjacent columns, then their sums     not yet measured on a GPU
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ----------------------------------------------------------------------------------------------------

// Eight warps hide the latency of the loads of one another; no shared memory, so occupancy depends on registers alone.
constexpr int kThreads = 256;
/// Blocks per multiprocessor the compiler leaves registers for; without this number it spills 4 bytes of forward on
/// sm_80.
constexpr int kResidentBlocks = 4;

// ---- device helpers --------------------------------------------------------------------------------------------

BRACKET_DEVICE bool curved(Activation function) {
  return function == Activation::tanh || function == Activation::sigmoid || function == Activation::silu ||
         function == Activation::softplus;
}

template <class T>
struct Pointwise {
  T value;
  T first;   ///< f'
  T second;  ///< f''
};

/// tanh |v| = (1 - e) / (1 + e) and 1 - tanh^2 = 4 e / (1 + e)^2 with e = exp(-2 |v|), 1 - e without cancellation.
template <class T>
BRACKET_DEVICE Pointwise<T> evaluate_tanh(T v) {
  const T minus_one = expm1(T{-2} * fabs(v));
  const T inverse = T{1} / (T{2} + minus_one);
  const T value = copysign(minus_one * inverse, v);
  const T first = T{4} * exp(T{-2} * fabs(v)) * inverse * inverse;
  return {value, first, T{-2} * value * first};
}

/// sigmoid(|v|) = 1 / (1 + e), sigmoid(-|v|) = e / (1 + e) with e = exp(-|v|): no cancellation on either side.
template <class T>
BRACKET_DEVICE Pointwise<T> evaluate_sigmoid_family(Activation function, T v) {
  const T e = exp(-fabs(v));
  const T large = T{1} / (T{1} + e);
  const T small = e * large;
  const T up = v < T{0} ? small : large;    // sigmoid(v)
  const T down = v < T{0} ? large : small;  // sigmoid(-v) = 1 - sigmoid(v)
  const T first = large * small;            // sigmoid'(v)
  if (function == Activation::sigmoid) return {up, first, first * (down - up)};
  if (function == Activation::silu) return {v * up, up + v * first, first * (T{2} + v * (down - up))};
  return {(v < T{0} ? T{0} : v) + log1p(e), up, first};  // softplus
}

/// f(v), f'(v) and f''(v). `function` is the same for all threads, so the branches cost a comparison each. A kink takes
/// the derivative of its negative side, as PyTorch does.
template <class T>
BRACKET_DEVICE Pointwise<T> evaluate(Activation function, T v, T slope) {
  switch (function) {
    case Activation::identity:
      return {v, T{1}, T{0}};
    case Activation::relu:
      return {v <= T{0} ? T{0} : v, v <= T{0} ? T{0} : T{1}, T{0}};
    case Activation::leaky_relu:
    case Activation::prelu:
      return {v <= T{0} ? slope * v : v, v <= T{0} ? slope : T{1}, T{0}};
    case Activation::tanh:
      return evaluate_tanh(v);
    default:
      return evaluate_sigmoid_family(function, v);
  }
}

/// Primal and tangent rows; either may be absent.
template <class T>
struct StackedMatrix {
  DeviceMatrix<T> primal;
  DeviceMatrix<T> tangent;
};

/// What v, f and its slope are made of.
template <class T>
struct PointwiseInput {
  StackedMatrix<T> x;
  const T* bias;   ///< [channels], or null
  const T* slope;  ///< [1] or [channels], or null
  bool slope_per_channel;
  std::int64_t channels;
  T constant_slope;
  Activation function;
  Rows rows;

  BRACKET_DEVICE std::int64_t channel_of(std::int64_t column) const {
    return channels == x.primal.cols ? column : Division(column, channels).rest;
  }
  BRACKET_DEVICE T shifted(std::int64_t row, std::int64_t column) const {
    const T value = x.primal.row(row)[column];
    return bias == nullptr ? value : value + bias[channel_of(column)];
  }
  BRACKET_DEVICE T slope_of(std::int64_t column) const {
    if (slope == nullptr) return constant_slope;
    return slope_per_channel ? slope[channel_of(column)] : slope[0];
  }
  BRACKET_DEVICE bool carries_tangents(std::int64_t row) const {
    return row >= rows.first && row < rows.first + rows.count;
  }
  BRACKET_DEVICE std::int64_t first_tangent(std::int64_t row) const { return (row - rows.first) * rows.tangents; }
};

template <class T>
struct ForwardParams {
  StackedMatrix<T> y;
  PointwiseInput<T> input;
};

template <class T>
struct ReverseParams {
  StackedMatrix<T> grad_x;
  StackedMatrix<T> grad_y;
  PointwiseInput<T> input;
};

/// sum_k x'_k grad_y'_k of one element; 0 where one of them is absent.
template <class T>
BRACKET_DEVICE T tangent_products(const ReverseParams<T>& params, std::int64_t row, std::int64_t column) {
  const PointwiseInput<T>& input = params.input;
  if (params.grad_y.tangent.data == nullptr || input.x.tangent.data == nullptr || !input.carries_tangents(row)) {
    return T{0};
  }
  const std::int64_t first = input.first_tangent(row);
  T sum = 0;
  for (std::int64_t k = 0; k < input.rows.tangents; ++k) {
    sum += input.x.tangent.row(first + k)[column] * params.grad_y.tangent.row(first + k)[column];
  }
  return sum;
}

template <class T>
BRACKET_DEVICE T grad_y_of(const ReverseParams<T>& params, std::int64_t row, std::int64_t column) {
  return params.grad_y.primal.data == nullptr ? T{0} : params.grad_y.primal.row(row)[column];
}

/// The part of grad_slope that one element gives: of pixel q of all rows and a channel, or of element q for one slope.
template <class T>
struct SlopeTerm {
  ReverseParams<T> params;
  std::int64_t pixels;    ///< per row
  std::int64_t channels;  ///< slopes
  BRACKET_DEVICE T operator()(std::int64_t q, std::int64_t channel) const {
    const Division at(q, pixels);
    const std::int64_t row = at.quotient;
    const std::int64_t column = at.rest * channels + channel;
    const T v = params.input.shifted(row, column);
    return v <= T{0} ? v * grad_y_of(params, row, column) + tangent_products(params, row, column) : T{0};
  }
};

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    bias_activation_forward_kernel(const __grid_constant__ ForwardParams<T> params) {
  const PointwiseInput<T>& input = params.input;
  for (std::int64_t item = first_item(); item < input.x.primal.size(); item += item_stride()) {
    const Division at(item, input.x.primal.cols);
    const Pointwise<T> f = evaluate(input.function, input.shifted(at.quotient, at.rest), input.slope_of(at.rest));
    if (params.y.primal.data != nullptr) params.y.primal.row(at.quotient)[at.rest] = f.value;
    if (params.y.tangent.data == nullptr || !input.carries_tangents(at.quotient)) continue;
    const std::int64_t first = input.first_tangent(at.quotient);
    for (std::int64_t k = 0; k < input.rows.tangents; ++k) {
      params.y.tangent.row(first + k)[at.rest] = f.first * input.x.tangent.row(first + k)[at.rest];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_activation_reverse_kernel(const __grid_constant__ ReverseParams<T> params) {
  const PointwiseInput<T>& input = params.input;
  for (std::int64_t item = first_item(); item < input.x.primal.size(); item += item_stride()) {
    const Division at(item, input.x.primal.cols);
    const Pointwise<T> f = evaluate(input.function, input.shifted(at.quotient, at.rest), input.slope_of(at.rest));
    if (params.grad_x.primal.data != nullptr) {
      T grad = f.first * grad_y_of(params, at.quotient, at.rest);
      if (curved(input.function)) grad += f.second * tangent_products(params, at.quotient, at.rest);
      params.grad_x.primal.row(at.quotient)[at.rest] = grad;
    }
    if (params.grad_x.tangent.data == nullptr || !input.carries_tangents(at.quotient)) continue;
    const std::int64_t first = input.first_tangent(at.quotient);
    for (std::int64_t k = 0; k < input.rows.tangents; ++k) {
      const bool given = params.grad_y.tangent.data != nullptr;
      params.grad_x.tangent.row(first + k)[at.rest] =
          given ? f.first * params.grad_y.tangent.row(first + k)[at.rest] : T{0};
    }
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
StackedMatrix<T> stacked_matrix(const Stacked& stacked) {
  return {device_matrix<T>(stacked.primal), device_matrix<T>(stacked.tangent)};
}

template <class T>
PointwiseInput<T> pointwise_input(const Stacked& x, const Tensor& bias, const Tensor& slope, const ActivationKind& kind,
                                  const Rows& rows) {
  return {stacked_matrix<T>(x),
          device_vector<T>(bias),
          device_vector<T>(slope),
          slope.size() > 1,
          bias.absent() ? slope.size() : bias.size(),
          static_cast<T>(kind.negative_slope),
          kind.function,
          rows};
}

template <class T>
cudaError_t bias_activation_forward(const ForwardParams<T>& params, cudaStream_t stream) {
  const std::int64_t size = params.input.x.primal.size();
  if (size == 0) return cudaSuccess;
  return launch<bias_activation_forward_kernel<T>>(blocks_for(size, kThreads), kThreads, 0, stream, params);
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
  const std::int64_t size = params.input.x.primal.size();
  const bool wanted = params.grad_x.primal.data != nullptr || params.grad_x.tangent.data != nullptr;
  if (size > 0 && wanted) {
    const cudaError_t code =
        launch<bias_activation_reverse_kernel<T>>(blocks_for(size, kThreads), kThreads, 0, stream, params);
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
                   const ForwardParams<T> params{stacked_matrix<T>(y), pointwise_input<T>(x, bias, slope, kind, rows)};
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
                   const ReverseParams<T> params{stacked_matrix<T>(grad_x), stacked_matrix<T>(grad_y),
                                                 pointwise_input<T>(x, bias, slope, kind, rows)};
                   return BRACKET_TARGET::bias_activation_reverse(params, grad_bias, grad_slope, update, memory,
                                                                  stream_);
                 }),
        "bias_activation_reverse", x.primal);
}

}  // namespace bracket::BRACKET_TARGET
