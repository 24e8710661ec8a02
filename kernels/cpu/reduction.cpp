// Row dots, row norms, whole-tensor sums and the finite check.
//
// All accumulation is in double. Whole tensors are cut into chunks whose length depends on the number of elements
// only; the sums of the chunks go to the workspace and are added in order.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lane_sum.h"

namespace bracket {
namespace {

/// A chunk keeps a core busy for about a microsecond, so that its bookkeeping is free.
constexpr std::int64_t kMinChunk = 4096;

/// In the workspace of finite_check; element numbers are exact in a double up to 2^53.
constexpr double kNoElement = -1;

/// |x| without overflow or loss to underflow. The plain sum of squares is exact to rounding unless it leaves
/// [2^-960, inf): below, squares have lost bits to denormals (each at most 2^-1075, so 2^100 terms stay harmless
/// above the bound); then the elements are scaled by a power of two that makes the largest about 1.
template <class T>
double norm(const T* x, std::int64_t count) {
  const double squares = inner_product(x, x, count);
  if (squares >= 0x1p-960 && squares <= std::numeric_limits<double>::max()) return std::sqrt(squares);
  if (std::isnan(squares)) return squares;
  double largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(static_cast<double>(x[i])));
  if (largest == 0 || std::isinf(largest)) return largest;
  const int exponent = std::clamp(std::ilogb(largest), -1000, 1000);
  const double scale = std::ldexp(1.0, -exponent);
  const double scaled = lane_sum(count, [x, scale](std::int64_t i) {
    const double value = static_cast<double>(x[i]) * scale;
    return value * value;
  });
  return std::ldexp(std::sqrt(scaled), exponent);
}

/// A whole tensor as the runs of adjacent elements it consists of.
template <class T>
struct Elements {
  explicit Elements(const Tensor& tensor) : size(tensor.size()) {
    const Matrix<const T> m{tensor.as<T>(), tensor.rows(), tensor.cols(), tensor.row_stride()};
    matrix = tensor.contiguous() ? Matrix<const T>{m.data, 1, size, size} : m;
    chunk = std::max(kMinChunk, (size + kReductionWorkspace - 1) / kReductionWorkspace);
    chunks = (size + chunk - 1) / chunk;
  }

  /// Calls f(data, count, first) for each run of adjacent elements of chunk c; `first` is the number of its first
  /// element, counted row by row. f returns false to stop.
  template <class F>
  void runs(std::int64_t c, F&& f) const {
    const std::int64_t end = std::min(size, (c + 1) * chunk);
    for (std::int64_t first = c * chunk; first < end;) {
      const std::int64_t row = first / matrix.cols;
      const std::int64_t col = first - row * matrix.cols;
      const std::int64_t count = std::min(matrix.cols - col, end - first);
      if (!f(matrix.row(row) + col, count, first)) return;
      first += count;
    }
  }

  Matrix<const T> matrix;
  std::int64_t size;
  std::int64_t chunk;
  std::int64_t chunks;
};

template <class T, class RunSum>
void sum_of_runs(double* result, const Tensor& x, double* partial, ThreadTeam& team, RunSum&& run_sum) {
  const Elements<T> elements(x);
  parallel_rows(elements.chunks, 2 * elements.chunk, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c) {
      double sum = 0;
      elements.runs(c, [&](const T* data, std::int64_t count, std::int64_t) {
        sum += run_sum(data, count);
        return true;
      });
      partial[c] = sum;
    }
  });
  double total = 0;
  for (std::int64_t c = 0; c < elements.chunks; ++c) total += partial[c];
  *result = total;
}

/// Position of the first NaN or infinity, or -1.
template <class T>
std::int64_t first_nonfinite(const T* x, std::int64_t count) {
  // 0 x is 0 for a finite x and NaN for any other, and NaN survives addition: one vectorised pass for the usual case.
  if (lane_sum(count, [x](std::int64_t i) { return 0.0 * static_cast<double>(x[i]); }) == 0) return -1;
  return std::find_if(x, x + count, [](T value) { return !std::isfinite(value); }) - x;
}

}  // namespace

void CpuOps::do_row_dot(Tensor y, Tensor a, Tensor b) {
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), left = matrix<T>(a), right = matrix<T>(b);
    parallel_rows(left.rows, 2 * left.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        *out.row(i) = static_cast<T>(inner_product(left.row(i), right.row(i), left.cols));
      }
    });
  });
}

void CpuOps::do_row_norm(Tensor y, Tensor x) {
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), in = matrix<T>(x);
    parallel_rows(in.rows, 2 * in.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) *out.row(i) = static_cast<T>(norm(in.row(i), in.cols));
    });
  });
}

void CpuOps::do_sum(Tensor sum, Tensor x, Tensor workspace) {
  dispatch(x.dtype(), [&]<class T>() {
    sum_of_runs<T>(sum.as<double>(), x, workspace.as<double>(), team_, [](const T* data, std::int64_t count) {
      return lane_sum(count, [data](std::int64_t i) { return static_cast<double>(data[i]); });
    });
  });
}

void CpuOps::do_squared_norm(Tensor sum, Tensor x, Tensor workspace) {
  dispatch(x.dtype(), [&]<class T>() {
    sum_of_runs<T>(sum.as<double>(), x, workspace.as<double>(), team_,
                   [](const T* data, std::int64_t count) { return inner_product(data, data, count); });
  });
}

void CpuOps::do_finite_check(StepState* state, Tensor x, std::int64_t tag, Tensor workspace) {
  if (state->nonfinite_tensor != 0) return;
  dispatch(x.dtype(), [&]<class T>() {
    const Elements<T> elements(x);
    double* const lowest = workspace.as<double>();
    parallel_rows(elements.chunks, 2 * elements.chunk, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t c = first; c < last; ++c) {
        lowest[c] = kNoElement;
        elements.runs(c, [&](const T* data, std::int64_t count, std::int64_t start) {
          const std::int64_t position = first_nonfinite(data, count);
          if (position < 0) return true;
          lowest[c] = static_cast<double>(start + position);
          return false;
        });
      }
    });
    const double* const found =
        std::find_if(lowest, lowest + elements.chunks, [](double element) { return element != kNoElement; });
    if (found == lowest + elements.chunks) return;
    state->nonfinite_tensor = tag;
    state->nonfinite_element = static_cast<std::int64_t>(*found);
  });
}

}  // namespace bracket
