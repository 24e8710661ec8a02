// Sums over rows in double, for adjacent columns whose sums stay in registers.
#pragma once

#include <cstdint>

namespace bracket {

/// sums[j] += term(i, j) over all rows i, for kWidth columns from `first` on: their sums stay in registers.
template <int kWidth, class Term>
void add_block(double* sums, std::int64_t rows, int first, Term&& term) {
  double local[kWidth] = {};
  for (std::int64_t i = 0; i < rows; ++i) {
#pragma omp simd
    for (int j = 0; j < kWidth; ++j) local[j] += term(i, first + j);
  }
  for (int j = 0; j < kWidth; ++j) sums[first + j] += local[j];
}

/// sums[j] += term(i, j), j in [0, count), over all rows i.
template <class Term>
void add_columns(double* sums, std::int64_t rows, int count, Term&& term) {
  int j = 0;
  for (; j + 16 <= count; j += 16) add_block<16>(sums, rows, j, term);
  for (; j + 8 <= count; j += 8) add_block<8>(sums, rows, j, term);
  for (; j + 4 <= count; j += 4) add_block<4>(sums, rows, j, term);
  for (; j < count; ++j) add_block<1>(sums, rows, j, term);
}

}  // namespace bracket
