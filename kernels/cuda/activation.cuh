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
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/matrix.cuh"

namespace bracket::BRACKET_TARGET::activation_kernels {

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
struct BiasActivationForwardBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  ForwardParams<T> params;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const PointwiseInput<T>& input = params.input;
    for (std::int64_t item = block.first_item(); item < input.x.primal.size(); item += block.item_stride()) {
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
};

template <class T>
struct BiasActivationReverseBody {
  static constexpr int kBlockThreads = kThreads;

  ReverseParams<T> params;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const PointwiseInput<T>& input = params.input;
    for (std::int64_t item = block.first_item(); item < input.x.primal.size(); item += block.item_stride()) {
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
};

}  // namespace bracket::BRACKET_TARGET::activation_kernels
