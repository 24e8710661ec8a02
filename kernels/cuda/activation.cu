// Bias and pointwise non-linearity on stacked rows, v = x + bias, row-major [rows, c], any row strides:
//   forward   y = f(v),  y' = f'(v) x'
//   reverse   grad_x' = f'(v) grad_y',  grad_x = f'(v) grad_y + f''(v) sum_k x'_k grad_y'_k
//   bias      grad_bias (+)= column sums of grad_x
//   slope     grad_slope (+)= sum of min(v, 0) grad_y + [v <= 0] sum_k x'_k grad_y'_k, per column or over all (PReLU)
//
// Bytes        forward (2 + 2 K) b, reverse (3 + 3 K) b per primal element with K tangents (b = 4 or 8); 1 b more for
//              the bias sum and (2 + 2 K) b for the slope sum, which the second-level cache mostly holds.
// Flops        up to 40 per primal element (silu, reverse) and 3 per tangent: bound by memory.
// Alignment    that of the element; neighbouring threads touch neighbouring elements of a row.
// Aliasing     y may be x, grad_x may be grad_y, element by element: a thread reads all it needs of an element and its
//              tangents before it writes them; the slope sum runs before grad_y is overwritten.
// Determinism  elementwise, or sums in an order fixed by the shape: a lane adds its rows in ascending order, the lanes
//              of a column are added in a tree.
//
// Variant            idea                                                              measured
// elementwise        one thread per primal element, which takes its tangents along     not yet measured on a GPU
// sums by 8 columns  block of 8 columns x 64 lanes over all rows, 32-byte sectors      not yet measured on a GPU
// sums by 1 column   block of 512 lanes over all rows, for few columns or one slope    not yet measured on a GPU
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ----------------------------------------------------------------------------------------------------

// Eight warps hide the latency of the loads of one another; no shared memory, so occupancy depends on registers alone.
constexpr int kThreads = 256;

// Column sums: one block does all rows of its columns, as a second pass over partial sums would need memory of its own.
// 16 warps then have 512 loads in flight; 8 neighbouring floats are one sector of memory.
constexpr int kSumThreads = 512;
constexpr int kSumColumns = 8;
// Blocks per multiprocessor the compiler leaves registers for. Grids are a few blocks; without this number it gives 32
// registers to each thread, for four blocks, and spills some of them in double.
constexpr int kSumBlocks = 2;

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
  const T* bias;   ///< [c], or null
  const T* slope;  ///< [1] or [c], or null
  std::int64_t slope_stride;
  T constant_slope;
  Activation function;
  Rows rows;

  BRACKET_DEVICE T shifted(std::int64_t row, std::int64_t column) const {
    const T value = x.primal.row(row)[column];
    return bias == nullptr ? value : value + bias[column];
  }
  BRACKET_DEVICE T slope_of(std::int64_t column) const {
    return slope == nullptr ? constant_slope : slope[column * slope_stride];
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

/// Row and column of an element. Divisions of 32 bits are several times as quick as those of 64.
struct Position {
  std::int64_t row;
  std::int64_t column;
  BRACKET_DEVICE Position(std::int64_t item, std::int64_t cols) {
    if (((item | cols) >> 32) == 0) {
      row = static_cast<unsigned>(item) / static_cast<unsigned>(cols);
    } else {
      row = item / cols;
    }
    column = item - row * cols;
  }
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

/// out[column] (+)= sum over rows of term(row, column), for the kColumns columns of this block.
template <int kColumns, class T, class Term>
BRACKET_DEVICE void sum_columns(T* out, std::int64_t rows, std::int64_t cols, Update update, Term term) {
  constexpr int kLanes = kSumThreads / kColumns;
  BRACKET_SHARED(T, sums, [kSumThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int64_t first = std::int64_t{kColumns} * blockIdx.x; first < cols;
       first += std::int64_t{kColumns} * gridDim.x) {
    const std::int64_t column = first + thread % kColumns;
    T sum = 0;
    if (column < cols) {
      for (std::int64_t row = thread / kColumns; row < rows; row += kLanes) sum += term(row, column);
    }
    sums[thread] = sum;
    __syncthreads();
    for (int half = kSumThreads / 2; half >= kColumns; half /= 2) {
      if (thread < half) sums[thread] += sums[thread + half];
      __syncthreads();
    }
    if (thread < kColumns && column < cols) {
      out[column] = update == Update::accumulate ? out[column] + sums[thread] : sums[thread];
    }
    __syncthreads();
  }
}

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_activation_forward_kernel(const __grid_constant__ ForwardParams<T> params) {
  const PointwiseInput<T>& input = params.input;
  for (std::int64_t item = first_item(); item < input.x.primal.size(); item += item_stride()) {
    const Position at(item, input.x.primal.cols);
    const Pointwise<T> f = evaluate(input.function, input.shifted(at.row, at.column), input.slope_of(at.column));
    if (params.y.primal.data != nullptr) params.y.primal.row(at.row)[at.column] = f.value;
    if (params.y.tangent.data == nullptr || !input.carries_tangents(at.row)) continue;
    const std::int64_t first = input.first_tangent(at.row);
    for (std::int64_t k = 0; k < input.rows.tangents; ++k) {
      params.y.tangent.row(first + k)[at.column] = f.first * input.x.tangent.row(first + k)[at.column];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_activation_reverse_kernel(const __grid_constant__ ReverseParams<T> params) {
  const PointwiseInput<T>& input = params.input;
  for (std::int64_t item = first_item(); item < input.x.primal.size(); item += item_stride()) {
    const Position at(item, input.x.primal.cols);
    const Pointwise<T> f = evaluate(input.function, input.shifted(at.row, at.column), input.slope_of(at.column));
    if (params.grad_x.primal.data != nullptr) {
      T grad = f.first * grad_y_of(params, at.row, at.column);
      if (curved(input.function)) grad += f.second * tangent_products(params, at.row, at.column);
      params.grad_x.primal.row(at.row)[at.column] = grad;
    }
    if (params.grad_x.tangent.data == nullptr || !input.carries_tangents(at.row)) continue;
    const std::int64_t first = input.first_tangent(at.row);
    for (std::int64_t k = 0; k < input.rows.tangents; ++k) {
      const bool given = params.grad_y.tangent.data != nullptr;
      params.grad_x.tangent.row(first + k)[at.column] =
          given ? f.first * params.grad_y.tangent.row(first + k)[at.column] : T{0};
    }
  }
}

template <int kColumns, class T>
__global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    bias_activation_reverse_bias_kernel(T* grad_bias, DeviceMatrix<T> grad_x, Update update) {
  sum_columns<kColumns>(grad_bias, grad_x.rows, grad_x.cols, update,
                        [&](std::int64_t row, std::int64_t column) { return grad_x.row(row)[column]; });
}

template <class T>
BRACKET_DEVICE T slope_term(const ReverseParams<T>& params, std::int64_t row, std::int64_t column) {
  const T v = params.input.shifted(row, column);
  return v <= T{0} ? v * grad_y_of(params, row, column) + tangent_products(params, row, column) : T{0};
}

template <int kColumns, class T>
__global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    bias_activation_reverse_slopes_kernel(T* grad_slope, const __grid_constant__ ReverseParams<T> params,
                                          Update update) {
  const DeviceMatrix<T>& x = params.input.x.primal;
  sum_columns<kColumns>(grad_slope, x.rows, x.cols, update,
                        [&](std::int64_t row, std::int64_t column) { return slope_term(params, row, column); });
}

/// One slope for all columns: the elements are the rows of a single column.
template <class T>
__global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    bias_activation_reverse_slope_kernel(T* grad_slope, const __grid_constant__ ReverseParams<T> params,
                                         Update update) {
  const DeviceMatrix<T>& x = params.input.x.primal;
  sum_columns<1>(grad_slope, x.size(), 1, update, [&](std::int64_t item, std::int64_t) {
    const Position at(item, x.cols);
    return slope_term(params, at.row, at.column);
  });
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
          slope.size() > 1 ? 1 : 0,
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
cudaError_t reverse_bias(T* grad_bias, const DeviceMatrix<T>& grad_x, Update update, cudaStream_t stream) {
  if (grad_x.cols == 0) return cudaSuccess;
  if (grad_x.cols < kSumColumns) {
    return launch<bias_activation_reverse_bias_kernel<1, T>>(blocks_for(grad_x.cols, 1), kSumThreads, 0, stream,
                                                             grad_bias, grad_x, update);
  }
  return launch<bias_activation_reverse_bias_kernel<kSumColumns, T>>(blocks_for(grad_x.cols, kSumColumns), kSumThreads,
                                                                     0, stream, grad_bias, grad_x, update);
}

template <class T>
cudaError_t reverse_slope(const Tensor& grad_slope, const ReverseParams<T>& params, Update update,
                          cudaStream_t stream) {
  T* out = device_vector<T>(grad_slope);
  const std::int64_t slopes = grad_slope.size();
  if (slopes == 0) return cudaSuccess;
  if (slopes == 1) {
    return launch<bias_activation_reverse_slope_kernel<T>>(1, kSumThreads, 0, stream, out, params, update);
  }
  if (slopes < kSumColumns) {
    return launch<bias_activation_reverse_slopes_kernel<1, T>>(blocks_for(slopes, 1), kSumThreads, 0, stream, out,
                                                               params, update);
  }
  return launch<bias_activation_reverse_slopes_kernel<kSumColumns, T>>(blocks_for(slopes, kSumColumns), kSumThreads, 0,
                                                                       stream, out, params, update);
}

template <class T>
cudaError_t bias_activation_reverse(const ReverseParams<T>& params, const Tensor& grad_bias, const Tensor& grad_slope,
                                    Update update, cudaStream_t stream) {
  // grad_x may be grad_y, which the slopes need; the bias needs grad_x.
  if (!grad_slope.absent()) {
    const cudaError_t code = reverse_slope(grad_slope, params, update, stream);
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
  return reverse_bias(device_vector<T>(grad_bias), params.grad_x.primal, update, stream);
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
  check(dispatch(x.primal.dtype(),
                 [&]<class T>() {
                   const ReverseParams<T> params{stacked_matrix<T>(grad_x), stacked_matrix<T>(grad_y),
                                                 pointwise_input<T>(x, bias, slope, kind, rows)};
                   return BRACKET_TARGET::bias_activation_reverse(params, grad_bias, grad_slope, update, stream_);
                 }),
        "bias_activation_reverse", x.primal);
}

}  // namespace bracket::BRACKET_TARGET
