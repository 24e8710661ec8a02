// A block as 32 columns of a matrix by 8 threads down each: a warp reads 32 adjacent elements of one row.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/reduce.cuh"

namespace bracket::BRACKET_TARGET::column_block {

inline constexpr int kThreads = kMeetingThreads;
inline constexpr int kColumns = kWarpThreads;
inline constexpr int kRowThreads = kThreads / kColumns;

BRACKET_DEVICE int column_thread() { return static_cast<int>(threadIdx.x) % kColumns; }
BRACKET_DEVICE int row_thread() { return static_cast<int>(threadIdx.x) / kColumns; }
BRACKET_DEVICE std::int64_t block_column(const Block& block) {
  return static_cast<std::int64_t>(block.x) * kColumns + column_thread();
}

template <class Sum>
using ColumnPartials = Sum[kRowThreads][kColumns];

/// Sum of term(i) over the rows of this thread's column, received by all threads of the column. All threads call it.
template <class Sum, class Term>
BRACKET_DEVICE Sum column_sum(ColumnPartials<Sum>& partial, std::int64_t rows, bool active, Term term) {
  Sum sum{};
  if (active) {
    for (std::int64_t i = row_thread(); i < rows; i += kRowThreads) sum = sum + term(i);
  }
  partial[row_thread()][column_thread()] = sum;
  __syncthreads();
  sum = Sum{};
  for (int k = 0; k < kRowThreads; ++k) sum = sum + partial[k][column_thread()];
  __syncthreads();
  return sum;
}

}  // namespace bracket::BRACKET_TARGET::column_block
