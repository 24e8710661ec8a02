// Launchers of the kernels on which the executor is proved to catch bugs. Pointers are device memory; results are exact
// for small whole numbers.
#pragma once

#include <cstdint>

#include "common/portable.cuh"

namespace bracket::BRACKET_TARGET {

/// sums[r] and squares[r]: sum of the `columns` values of row r and of their squares.
cudaError_t row_moments(float* sums, float* squares, const float* values, int rows, int columns, cudaStream_t stream);

/// c (m, n) = a (m, k) b (k, n), row-major with leading dimensions.
cudaError_t matrix_product(float* c, const float* a, const float* b, int m, int n, int k, int ld_c, int ld_a, int ld_b,
                           cudaStream_t stream);

/// Adds to counts[bin] how many of the values lie in each bin, and to counts[num_bins] how many in none.
cudaError_t histogram(int* counts, const int* values, int64_t num_values, int num_bins, cudaStream_t stream);

/// Reverses each run of 32 values; the last, shorter run too.
cudaError_t reverse_runs(double* out, const double* in, int64_t num_values, cudaStream_t stream);

}  // namespace bracket::BRACKET_TARGET
