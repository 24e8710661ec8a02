// fill, copy and axpy on the host.
#include <algorithm>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"

namespace bracket {
namespace {

// Memory-bound: about 4 elements per ns and core, which is what 2 flops per element say (see kSerialFlops).
constexpr std::int64_t kFlopsPerElement = 2;

/// Contiguous operands are cut into rows of this length, so that a long vector is shared by all threads.
constexpr std::int64_t kRowElements = 4096;

/// Calls f(y_row, x_row, length) for pieces of matching elements; x may be the same matrix as y.
template <class Y, class X, class F>
void for_each_row(const Matrix<Y>& y, const Matrix<X>& x, ThreadTeam& team, F&& f) {
  const bool flat = (y.rows <= 1 || y.ld == y.cols) && (x.rows <= 1 || x.ld == x.cols);
  if (!flat) {
    parallel_rows(y.rows, kFlopsPerElement * y.cols, team, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) f(y.row(i), x.row(i), y.cols);
    });
    return;
  }
  const std::int64_t size = y.rows * y.cols;
  parallel_rows((size + kRowElements - 1) / kRowElements, kFlopsPerElement * kRowElements, team,
                [&](std::int64_t first, std::int64_t last) {
                  const std::int64_t begin = first * kRowElements;
                  f(y.data + begin, x.data + begin, std::min(size, last * kRowElements) - begin);
                });
}

}  // namespace

void CpuOps::do_fill(Tensor y, double value) {
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> destination = matrix<T>(y);
    for_each_row(destination, destination, team_,
                 [value](T* row, const T*, std::int64_t length) { std::fill_n(row, length, static_cast<T>(value)); });
  });
}

void CpuOps::do_copy(Tensor y, Tensor x) {
  dispatch(y.dtype(), [&]<class Y>() {
    dispatch(x.dtype(), [&]<class X>() {
      for_each_row(matrix<Y>(y), matrix<X>(x), team_, [](Y* to, const X* from, std::int64_t length) {
        for (std::int64_t j = 0; j < length; ++j) to[j] = static_cast<Y>(from[j]);
      });
    });
  });
}

void CpuOps::do_axpy(Tensor y, double alpha, Tensor x) {
  dispatch(y.dtype(), [&]<class T>() {
    const T factor = static_cast<T>(alpha);
    for_each_row(matrix<T>(y), matrix<T>(x), team_, [factor](T* to, const T* from, std::int64_t length) {
      for (std::int64_t j = 0; j < length; ++j) to[j] += factor * from[j];
    });
  });
}

}  // namespace bracket
