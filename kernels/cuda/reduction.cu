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
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

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
BRACKET_DEVICE Chunk chunk_of_block(std::int64_t size) {
  const std::int64_t length = (size + gridDim.x - 1) / gridDim.x;
  const std::int64_t first = blockIdx.x * length;
  return {first, first + length < size ? first + length : size};
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
__global__ void row_dot_kernel(DeviceMatrix<T> y, DeviceMatrix<T> a, DeviceMatrix<T> b) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  for (std::int64_t i = first_item() / kWarpThreads; i < a.rows; i += item_stride() / kWarpThreads) {
    double sum = 0;
    for (std::int64_t j = lane; j < a.cols; j += kWarpThreads) {
      sum += static_cast<double>(a.row(i)[j]) * static_cast<double>(b.row(i)[j]);
    }
    sum = warp_sum(sum);
    if (lane == 0) *y.row(i) = static_cast<T>(sum);
  }
}

template <class T>
__global__ void row_norm_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  for (std::int64_t i = first_item() / kWarpThreads; i < x.rows; i += item_stride() / kWarpThreads) {
    const double norm = warp_norm(x.row(i), x.cols, lane);
    if (lane == 0) *y.row(i) = static_cast<T>(norm);
  }
}

template <class T, bool kSquared>
__global__ void sum_chunks_kernel(double* partial, DeviceMatrix<T> x) {
  const Chunk chunk = chunk_of_block(x.size());
  double sum = 0;
  for (std::int64_t e = chunk.first + threadIdx.x; e < chunk.last; e += kThreads) {
    const double value = element(x, e);
    sum += kSquared ? value * value : value;
  }
  sum = block_sum<double, kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void sum_partials_kernel(double* result, const double* partial, int count) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) sum += partial[i];
  sum = block_sum<double, kThreads>(sum);
  if (threadIdx.x == 0) *result = sum;
}

template <class T>
__global__ void finite_check_chunks_kernel(double* lowest, DeviceMatrix<T> x) {
  const Chunk chunk = chunk_of_block(x.size());
  double found = kNoElement;
  for (std::int64_t e = chunk.first + threadIdx.x; e < chunk.last && found == kNoElement; e += kThreads) {
    if (!finite(element(x, e))) found = static_cast<double>(e);
  }
  found = block_min<double, kThreads>(found);
  if (threadIdx.x == 0) lowest[blockIdx.x] = found;
}

__global__ void finite_check_record_kernel(StepState* state, const double* lowest, int count, std::int64_t tag) {
  double found = kNoElement;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) found = lowest[i] < found ? lowest[i] : found;
  found = block_min<double, kThreads>(found);
  if (threadIdx.x == 0 && found != kNoElement && state->nonfinite_tensor == 0) {
    state->nonfinite_tensor = tag;
    state->nonfinite_element = static_cast<std::int64_t>(found);
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

/// A contiguous tensor as one row, so that kernels need no division.
template <class T>
DeviceMatrix<T> elements(const Tensor& x) {
  const DeviceMatrix<T> m = device_matrix<T>(x);
  return x.contiguous() ? DeviceMatrix<T>{m.data, 1, m.size(), m.size()} : m;
}

unsigned chunks(std::int64_t size) {
  const unsigned wanted = blocks_for(size, static_cast<int>(kThreads * kElementsPerThread));
  constexpr auto kMost = static_cast<unsigned>(kReductionWorkspace);
  return wanted < kMost ? wanted : kMost;
}

template <class T>
cudaError_t row_dot(Tensor y, Tensor a, Tensor b, cudaStream_t stream) {
  if (a.rows() == 0) return cudaSuccess;
  return launch<row_dot_kernel<T>>(blocks_for(a.rows(), kRowsPerBlock), kThreads, 0, stream, device_matrix<T>(y),
                                   device_matrix<T>(a), device_matrix<T>(b));
}

template <class T>
cudaError_t row_norm(Tensor y, Tensor x, cudaStream_t stream) {
  if (x.rows() == 0) return cudaSuccess;
  return launch<row_norm_kernel<T>>(blocks_for(x.rows(), kRowsPerBlock), kThreads, 0, stream, device_matrix<T>(y),
                                    device_matrix<T>(x));
}

/// An empty x has no chunks; its sum is the sum of no partial results.
template <class T, bool kSquared>
cudaError_t sum(double* result, Tensor x, double* workspace, cudaStream_t stream) {
  const unsigned blocks = chunks(x.size());
  if (blocks > 0) {
    const cudaError_t code =
        launch<sum_chunks_kernel<T, kSquared>>(blocks, kThreads, 0, stream, workspace, elements<T>(x));
    if (code != cudaSuccess) return code;
  }
  return launch<sum_partials_kernel>(1, kThreads, 0, stream, result, workspace, static_cast<int>(blocks));
}

template <class T>
cudaError_t finite_check(StepState* state, Tensor x, std::int64_t tag, double* workspace, cudaStream_t stream) {
  const unsigned blocks = chunks(x.size());
  if (blocks == 0) return cudaSuccess;
  const cudaError_t code =
      launch<finite_check_chunks_kernel<T>>(blocks, kThreads, 0, stream, workspace, elements<T>(x));
  if (code != cudaSuccess) return code;
  return launch<finite_check_record_kernel>(1, kThreads, 0, stream, state, workspace, static_cast<int>(blocks), tag);
}

}  // namespace

void CudaOps::do_row_dot(Tensor y, Tensor a, Tensor b) {
  const cudaError_t code = dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::row_dot<T>(y, a, b, stream_); });
  check(code, "row_dot", y);
}

void CudaOps::do_row_norm(Tensor y, Tensor x) {
  const cudaError_t code = dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::row_norm<T>(y, x, stream_); });
  check(code, "row_norm", y);
}

void CudaOps::do_sum(Tensor sum, Tensor x, Tensor workspace) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::sum<T, false>(sum.as<double>(), x, workspace.as<double>(), stream_);
  });
  check(code, "sum", x);
}

void CudaOps::do_squared_norm(Tensor sum, Tensor x, Tensor workspace) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::sum<T, true>(sum.as<double>(), x, workspace.as<double>(), stream_);
  });
  check(code, "squared_norm", x);
}

void CudaOps::do_finite_check(StepState* state, Tensor x, std::int64_t tag, Tensor workspace) {
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    return BRACKET_TARGET::finite_check<T>(state, x, tag, workspace.as<double>(), stream_);
  });
  check(code, "finite_check", x);
}

}  // namespace bracket::BRACKET_TARGET
