// Stacked rows as CPU loops see them: a primal row with its tangent rows, and the row operations they share.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/ops.h"

namespace bracket {

/// The primal and tangent part of one activation; `rows` of an absent part is 0 and has() says so.
template <class T>
struct StackedMatrix {
  explicit StackedMatrix(const Stacked& stacked)
      : primal(matrix<T>(stacked.primal)),
        tangent(matrix<T>(stacked.tangent)),
        has_primal(!stacked.primal.absent()),
        has_tangent(!stacked.tangent.absent()) {}
  /// Rows of each part touch in memory.
  bool contiguous() const { return primal.ld == primal.cols && tangent.ld == tangent.cols; }
  Matrix<T> primal;
  Matrix<T> tangent;
  bool has_primal;
  bool has_tangent;
};

/// The tangent rows [first, last) of primal row i.
struct TangentRange {
  TangentRange(const Rows& rows, std::int64_t i) {
    if (i < rows.first || i >= rows.first + rows.count) return;
    first = (i - rows.first) * rows.tangents;
    last = first + rows.tangents;
  }
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// Cost of a primal row with its share of the tangent rows, for parallel_rows.
inline std::int64_t stacked_cost(std::int64_t primal_cost, std::int64_t tangent_cost, const Rows& rows) {
  if (rows.primal == 0) return primal_cost;
  return primal_cost + tangent_cost * ((rows.tangent_rows() + rows.primal - 1) / rows.primal);
}

template <class T>
T dot(const T* a, const T* b, std::int64_t count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
void update_row(T* target, const T* source, T factor, std::int64_t count, Update update) {
  if (update == Update::overwrite) {
    for (std::int64_t j = 0; j < count; ++j) target[j] = factor * source[j];
  } else {
    for (std::int64_t j = 0; j < count; ++j) target[j] += factor * source[j];
  }
}

}  // namespace bracket
