// Row dots, row norms, whole-tensor sums and the finite check.
//   row_dot       y_i = <a_i, b_i>           reads 2 n c elements, 2 n c flops
//   row_norm      y_i = |x_i|                reads n c elements (twice when squares leave the range of a double)
//   sum           sum of x, squared_norm: sum of x^2;   reads all elements once
//   finite_check  lowest element that is NaN or infinite; reads all elements once
// All are bound by memory. Rows may be strided; no alignment beyond the element's. No operand may alias an output.
//
// Determinism: accumulation in f64; the grid of a whole-tensor reduction depends on the number of elements only, each
// block leaves one partial result in the workspace and a second launch of one block combines them in a fixed order.
//
// | variant                       | idea                                | time                     |
// | row_dot, row_norm             | one warp per row                    | not yet measured on a GPU |
// | sum, squared_norm, finite     | chunk per block, then one block     | not yet measured on a GPU |
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"

namespace bracket::BRACKET_TARGET::reduction_kernels {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpThreads;
/// Elements per thread below which another block would only add a partial result.
constexpr std::int64_t kElementsPerThread = 16;
/// In the workspace of finite_check: larger than any element number. Those are exact in a double up to 2^53.
constexpr double kNoElement = 1e300;

// ---- device functions -----------------------------------------------------------------------------------------------

/// Sum over the lanes of a warp; every lane receives it.
BRACKET_DEVICE double warp_sum(double value) {
  BRACKET_UNROLL
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}

BRACKET_DEVICE double warp_max(double value) {
  BRACKET_UNROLL
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    const double other = __shfl_xor_sync(kFullWarp, value, offset);
    value = value < other ? other : value;
  }
  return value;
}

BRACKET_DEVICE bool finite(double x) { return x - x == 0; }

/// Norm of one row by one warp. A sum of squares outside [2^-960, inf) has overflowed or lost bits to denormals; then
/// the elements are scaled by a power of two that makes the largest about 1.
template <class T>
BRACKET_DEVICE double warp_norm(const T* x, std::int64_t count, int lane) {
  double squares = 0;
  for (std::int64_t j = lane; j < count; j += kWarpThreads) {
    const double value = static_cast<double>(x[j]);
    squares += value * value;
  }
  squares = warp_sum(squares);
  if ((squares >= 0x1p-960 && finite(squares)) || squares != squares) return sqrt(squares);
  double largest = 0;
  for (std::int64_t j = lane; j < count; j += kWarpThreads) {
    const double magnitude = fabs(static_cast<double>(x[j]));
    largest = largest < magnitude ? magnitude : largest;
  }
  largest = warp_max(largest);
  if (largest == 0 || !finite(largest)) return largest;
  int exponent = ilogb(largest);
  exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
  const double scale = ldexp(1.0, -exponent);
  double scaled = 0;
  for (std::int64_t j = lane; j < count; j += kWarpThreads) {
    const double value = static_cast<double>(x[j]) * scale;
    scaled += value * value;
  }
  return ldexp(sqrt(warp_sum(scaled)), exponent);
}

template <class T>
BRACKET_DEVICE double element(const DeviceMatrix<T>& x, std::int64_t e) {
  if (x.rows == 1) return static_cast<double>(x.data[e]);
  const std::int64_t row = e / x.cols;
  return static_cast<double>(x.row(row)[e - row * x.cols]);
}

/// The part of a tensor that this block reduces.
struct Chunk {
  std::int64_t first;
  std::int64_t last;
};
BRACKET_DEVICE Chunk chunk_of_block(const Block& block, std::int64_t size) {
  const std::int64_t length = (size + block.grid_x - 1) / block.grid_x;
  const std::int64_t first = block.x * length;
  return {first, first + length < size ? first + length : size};
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
struct RowDotBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, a, b;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
    for (std::int64_t i = block.first_item() / kWarpThreads; i < a.rows; i += block.item_stride() / kWarpThreads) {
      double sum = 0;
      for (std::int64_t j = lane; j < a.cols; j += kWarpThreads) {
        sum += static_cast<double>(a.row(i)[j]) * static_cast<double>(b.row(i)[j]);
      }
      sum = warp_sum(sum);
      if (lane == 0) *y.row(i) = static_cast<T>(sum);
    }
  }
};

template <class T>
struct RowNormBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, x;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
    for (std::int64_t i = block.first_item() / kWarpThreads; i < x.rows; i += block.item_stride() / kWarpThreads) {
      const double norm = warp_norm(x.row(i), x.cols, lane);
      if (lane == 0) *y.row(i) = static_cast<T>(norm);
    }
  }
};

template <class T, bool kSquared>
struct SumChunksBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  double* partial;
  DeviceMatrix<T> x;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const Chunk chunk = chunk_of_block(block, x.size());
    double sum = 0;
    for (std::int64_t e = chunk.first + threadIdx.x; e < chunk.last; e += kThreads) {
      const double value = element(x, e);
      sum += kSquared ? value * value : value;
    }
    sum = block_sum<double, kThreads>(sum);
    if (threadIdx.x == 0) partial[block.x] = sum;
  }
};

struct SumPartialsBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  double* result;
  const double* partial;
  int count;

  BRACKET_DEVICE void operator()(const Block&) const {
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) sum += partial[i];
    sum = block_sum<double, kThreads>(sum);
    if (threadIdx.x == 0) *result = sum;
  }
};

template <class T>
struct FiniteCheckChunksBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  double* lowest;
  DeviceMatrix<T> x;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const Chunk chunk = chunk_of_block(block, x.size());
    double found = kNoElement;
    for (std::int64_t e = chunk.first + threadIdx.x; e < chunk.last && found == kNoElement; e += kThreads) {
      if (!finite(element(x, e))) found = static_cast<double>(e);
    }
    found = block_min<double, kThreads>(found);
    if (threadIdx.x == 0) lowest[block.x] = found;
  }
};

struct FiniteCheckRecordBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  StepState* state;
  const double* lowest;
  int count;
  std::int64_t tag;

  BRACKET_DEVICE void operator()(const Block&) const {
    double found = kNoElement;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) found = lowest[i] < found ? lowest[i] : found;
    found = block_min<double, kThreads>(found);
    if (threadIdx.x == 0 && found != kNoElement && state->nonfinite_tensor == 0) {
      state->nonfinite_tensor = tag;
      state->nonfinite_element = static_cast<std::int64_t>(found);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::reduction_kernels
