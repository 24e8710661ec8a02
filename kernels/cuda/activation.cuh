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
// Alignment    any; 16 bytes at a time where rows, bias and channels allow (common/vector_access.cuh).
// Aliasing     y may be x, grad_x may be grad_y, element by element: a thread reads all it needs of an element and its
//              tangents before it writes them; the slope sum runs before grad_y is overwritten.
// Determinism  elementwise, or sums in an order fixed by the shape (common/column_sums.cuh).
//
// Variant        idea                                                              measured
// width 1        one thread per primal element, which takes its tangents along     not yet measured on a GPU
// width 4, 2     one thread per 4 f32 or 2 f64 of a row, tangents likewise         not yet measured on a GPU
// channel sums   chunks of rows by blocks on adjacent columns, then their sums     not yet measured on a GPU
// sm_80 and sm_90: at most 64 registers, no spills.
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/pointwise.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"
#include "kernels/cuda/common/vector_access.cuh"

namespace bracket::BRACKET_TARGET::activation_kernels {

// ---- policy ----------------------------------------------------------------------------------------------------

// Eight warps hide the latency of the loads of one another; no shared memory, so occupancy depends on registers alone.
constexpr int kThreads = 256;
/// Blocks per multiprocessor the compiler leaves registers for; without this number it spills 4 bytes of forward on
/// sm_80.
constexpr int kResidentBlocks = 4;

// ---- device helpers --------------------------------------------------------------------------------------------

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
  /// v of the elements of a vector, and the slopes where it is negative.
  template <int kWidth>
  BRACKET_DEVICE Vector<T, kWidth> shifted(const VectorPlace& at) const {
    Vector<T, kWidth> v = load_vector<kWidth>(x.primal.row(at.row) + at.column, at.count);
    if (bias == nullptr) return v;
    const Vector<T, kWidth> b = load_vector<kWidth>(bias + channel_of(at.column), at.count);
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) v[k] = v[k] + b[k];
    return v;
  }
  template <int kWidth>
  BRACKET_DEVICE Vector<T, kWidth> slopes(const VectorPlace& at) const {
    if (slope != nullptr && slope_per_channel) return load_vector<kWidth>(slope + channel_of(at.column), at.count);
    Vector<T, kWidth> same;
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) same[k] = slope == nullptr ? constant_slope : slope[0];
    return same;
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

template <class T, int kWidth>
struct BiasActivationForwardBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  ForwardParams<T> params;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const PointwiseInput<T>& input = params.input;
    const VectorGrid grid(input.x.primal.rows, input.x.primal.cols, kWidth);
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      const Vector<T, kWidth> v = input.template shifted<kWidth>(at);
      const Vector<T, kWidth> slopes = input.template slopes<kWidth>(at);
      Vector<T, kWidth> value, first_derivative;
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) {
        const Pointwise<T> f = evaluate(input.function, v[k], slopes[k]);
        value[k] = f.value;
        first_derivative[k] = f.first;
      }
      if (params.y.primal.data != nullptr) store_vector(params.y.primal.row(at.row) + at.column, value, at.count);
      if (params.y.tangent.data == nullptr || !input.carries_tangents(at.row)) continue;
      const std::int64_t first = input.first_tangent(at.row);
      for (std::int64_t i = first; i < first + input.rows.tangents; ++i) {
        Vector<T, kWidth> tangent = load_vector<kWidth>(input.x.tangent.row(i) + at.column, at.count);
        BRACKET_UNROLL
        for (int k = 0; k < kWidth; ++k) tangent[k] = first_derivative[k] * tangent[k];
        store_vector(params.y.tangent.row(i) + at.column, tangent, at.count);
      }
    }
  }
};

/// sum_k x'_k grad_y'_k of the elements of a vector; 0 where one of them is absent.
template <int kWidth, class T>
BRACKET_DEVICE Vector<T, kWidth> tangent_products(const ReverseParams<T>& params, const VectorPlace& at) {
  const PointwiseInput<T>& input = params.input;
  Vector<T, kWidth> sum{};
  if (params.grad_y.tangent.data == nullptr || input.x.tangent.data == nullptr || !input.carries_tangents(at.row)) {
    return sum;
  }
  const std::int64_t first = input.first_tangent(at.row);
  for (std::int64_t i = first; i < first + input.rows.tangents; ++i) {
    const Vector<T, kWidth> x = load_vector<kWidth>(input.x.tangent.row(i) + at.column, at.count);
    const Vector<T, kWidth> grad = load_vector<kWidth>(params.grad_y.tangent.row(i) + at.column, at.count);
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) sum[k] += x[k] * grad[k];
  }
  return sum;
}

template <class T, int kWidth>
struct BiasActivationReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  ReverseParams<T> params;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const PointwiseInput<T>& input = params.input;
    const VectorGrid grid(input.x.primal.rows, input.x.primal.cols, kWidth);
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      const Vector<T, kWidth> v = input.template shifted<kWidth>(at);
      const Vector<T, kWidth> slopes = input.template slopes<kWidth>(at);
      Vector<T, kWidth> first_derivative, second_derivative;
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) {
        const Pointwise<T> f = evaluate(input.function, v[k], slopes[k]);
        first_derivative[k] = f.first;
        second_derivative[k] = f.second;
      }
      if (params.grad_x.primal.data != nullptr) {
        Vector<T, kWidth> grad{};
        if (params.grad_y.primal.data != nullptr)
          grad = load_vector<kWidth>(params.grad_y.primal.row(at.row) + at.column, at.count);
        BRACKET_UNROLL
        for (int k = 0; k < kWidth; ++k) grad[k] = first_derivative[k] * grad[k];
        if (curved(input.function)) {
          const Vector<T, kWidth> products = tangent_products<kWidth>(params, at);
          BRACKET_UNROLL
          for (int k = 0; k < kWidth; ++k) grad[k] += second_derivative[k] * products[k];
        }
        store_vector(params.grad_x.primal.row(at.row) + at.column, grad, at.count);
      }
      if (params.grad_x.tangent.data == nullptr || !input.carries_tangents(at.row)) continue;
      const std::int64_t first = input.first_tangent(at.row);
      for (std::int64_t i = first; i < first + input.rows.tangents; ++i) {
        Vector<T, kWidth> grad{};
        if (params.grad_y.tangent.data != nullptr) {
          grad = load_vector<kWidth>(params.grad_y.tangent.row(i) + at.column, at.count);
          BRACKET_UNROLL
          for (int k = 0; k < kWidth; ++k) grad[k] = first_derivative[k] * grad[k];
        }
        store_vector(params.grad_x.tangent.row(i) + at.column, grad, at.count);
      }
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::activation_kernels
