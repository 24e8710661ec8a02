// Four correct kernels. -DBRACKET_MUTATION=1 to 23 plants one bug, each of a kind that real kernels have; mutations.sh
// proves that the SIMT executor and the sanitizers together catch every one.
#include "mutation_kernels.h"

#if !defined(BRACKET_MUTATION)
#define BRACKET_MUTATION 0
#endif

namespace bracket::BRACKET_TARGET {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

template <int kThreads>
BRACKET_DEVICE float block_sum(float value) {
  constexpr int kWarps = kThreads / 32;
  BRACKET_SHARED(float, partial, [kWarps]);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
#if BRACKET_MUTATION == 4  // half of the lanes are left out
  for (int offset = 8; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
#else
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
#endif
#if BRACKET_MUTATION != 2  // the next sum overwrites partial sums that are still read
  __syncthreads();
#endif
  if (lane == 0) partial[warp] = value;
#if BRACKET_MUTATION == 5  // divergent barrier
  if (warp == 0)
#endif
#if BRACKET_MUTATION != 1  // partial sums are read before they are written
    __syncthreads();
#endif
#if BRACKET_MUTATION == 7  // one past the array
  value = lane <= kWarps ? partial[lane] : 0.0f;
#else
  value = lane < kWarps ? partial[lane] : 0.0f;
#endif
#if BRACKET_MUTATION == 3  // wrong mask
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0x0000ffffu, value, offset);
#else
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
#endif
  return value;
}

template <int kThreads>
__global__ __launch_bounds__(kThreads) void row_moments_kernel(float* __restrict__ sums, float* __restrict__ squares,
                                                               const float* __restrict__ values, int columns) {
#if BRACKET_MUTATION == 6  // return before a barrier
  if (static_cast<int>(threadIdx.x) >= columns) return;
#endif
  const float* const row = values + static_cast<int64_t>(blockIdx.x) * columns;
  float sum = 0.0f;
  float square = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += kThreads) {
    sum += row[i];
    square += row[i] * row[i];
  }
  sum = block_sum<kThreads>(sum);
  square = block_sum<kThreads>(square);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = sum;
    squares[blockIdx.x] = square;
  }
}

constexpr int kTile = 16;       // of c, in both directions, and the depth of one step
constexpr int kTileGroups = 4;  // of four neighbouring columns, one per thread

// Four values of a row; outside the matrix they are 0.
BRACKET_DEVICE float4 load_four(const float* matrix, int row, int column, int rows, int columns, int ld, bool aligned) {
  float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#if BRACKET_MUTATION == 12  // reads rows that do not exist
  if (row > rows) return four;
#else
  if (row >= rows) return four;
#endif
  const float* const first = matrix + static_cast<int64_t>(row) * ld + column;
#if BRACKET_MUTATION == 13  // vector loads at any address
  aligned = true;
#endif
  if (aligned && column + 3 < columns) return *reinterpret_cast<const float4*>(first);
  if (column < columns) four.x = first[0];
  if (column + 1 < columns) four.y = first[1];
  if (column + 2 < columns) four.z = first[2];
  if (column + 3 < columns) four.w = first[3];
  return four;
}

__global__ __launch_bounds__(kTile* kTileGroups) void matrix_product_kernel(float* __restrict__ c,
                                                                            const float* __restrict__ a,
                                                                            const float* __restrict__ b, int m, int n,
                                                                            int k, int ld_c, int ld_a, int ld_b,
                                                                            bool aligned) {
  BRACKET_SHARED(float, tile_a, [2][kTile][kTile + 4]);
  BRACKET_SHARED(float, tile_b, [2][kTile][kTile + 4]);
  const int row = static_cast<int>(threadIdx.x) / kTileGroups;
  const int column = static_cast<int>(threadIdx.x) % kTileGroups * 4;
  const int first_row = static_cast<int>(blockIdx.y) * kTile;
  const int first_column = static_cast<int>(blockIdx.x) * kTile;
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int step = 0; step * kTile < k; ++step) {
#if BRACKET_MUTATION == 9  // one buffer instead of two
    const int buffer = 0;
#else
    const int buffer = step % 2;
#endif
    *reinterpret_cast<float4*>(&tile_a[buffer][row][column]) =
        load_four(a, first_row + row, step * kTile + column, m, k, ld_a, aligned);
    *reinterpret_cast<float4*>(&tile_b[buffer][row][column]) =
        load_four(b, step * kTile + row, first_column + column, k, n, ld_b, aligned);
#if BRACKET_MUTATION != 8  // tiles are read before they are written
    __syncthreads();
#endif
    for (int i = 0; i < kTile; ++i) {
      BRACKET_UNROLL
      for (int j = 0; j < 4; ++j) {
#if BRACKET_MUTATION == 10  // leaves the row
        sums[j] += tile_a[buffer][row][i + 5] * tile_b[buffer][i][column + j];
#elif BRACKET_MUTATION == 14  // row and column exchanged
        sums[j] += tile_a[buffer][row][i] * tile_b[buffer][column + j][i];
#else
        sums[j] += tile_a[buffer][row][i] * tile_b[buffer][i][column + j];
#endif
      }
    }
  }
  if (first_row + row >= m) return;
  BRACKET_UNROLL
  for (int j = 0; j < 4; ++j) {
#if BRACKET_MUTATION == 11  // one column too many
    if (first_column + column + j <= n) {
#else
    if (first_column + column + j < n) {
#endif
      c[static_cast<int64_t>(first_row + row) * ld_c + first_column + column + j] = sums[j];
    }
  }
}

__global__ void histogram_kernel(int* __restrict__ counts, const int* __restrict__ values, int64_t num_values,
                                 int num_bins) {
  BRACKET_DYNAMIC_SHARED(int, bins);
  const int thread = static_cast<int>(threadIdx.x);
  const int num_threads = static_cast<int>(blockDim.x);
#if BRACKET_MUTATION == 17  // one past the dynamic shared memory
  for (int bin = thread; bin <= num_bins; bin += num_threads) bins[bin] = 0;
#else
  for (int bin = thread; bin < num_bins; bin += num_threads) bins[bin] = 0;
#endif
#if BRACKET_MUTATION != 18  // counts before the bins are zero
  __syncthreads();
#endif
  int outside = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * num_threads;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * num_threads; first < num_values; first += stride) {
    const int64_t i = first + thread;
#if BRACKET_MUTATION == 20  // one value too many
    const bool exists = i <= num_values;
#else
    const bool exists = i < num_values;
#endif
    const int bin = exists ? values[i] : -1;
    const bool inside = bin >= 0 && bin < num_bins;
    if (inside) {
#if BRACKET_MUTATION == 15  // an update that is not atomic, in shared memory
      bins[bin] = bins[bin] + 1;
#else
      atomicAdd(&bins[bin], 1);
#endif
    }
#if BRACKET_MUTATION == 23  // only some lanes reach the vote
    if (exists) outside += __popc(__ballot_sync(kAllLanes, exists && !inside));
#else
    outside += __popc(__ballot_sync(kAllLanes, exists && !inside));
#endif
  }
  if (thread % 32 == 0) atomicAdd(&counts[num_bins], outside);
#if BRACKET_MUTATION != 19  // bins are read while others count
  __syncthreads();
#endif
  for (int bin = thread; bin < num_bins; bin += num_threads) {
#if BRACKET_MUTATION == 16  // an update that is not atomic, between blocks
    counts[bin] = counts[bin] + bins[bin];
#else
    atomicAdd(&counts[bin], bins[bin]);
#endif
  }
}

template <int kThreads>
__global__ __launch_bounds__(kThreads) void reverse_runs_kernel(double* __restrict__ out, const double* __restrict__ in,
                                                                int64_t num_values) {
  BRACKET_SHARED(double, runs, [kThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  const int first_of_warp = thread / 32 * 32;
  const int64_t run = static_cast<int64_t>(blockIdx.x) * kThreads + first_of_warp;
  const int length = static_cast<int>(min(num_values - run, static_cast<int64_t>(32)));
  const int lane = thread % 32;
  if (lane < length) runs[thread] = in[run + lane];
#if BRACKET_MUTATION == 22  // half of the warp
  __syncwarp(0x0000ffffu);
#elif BRACKET_MUTATION != 21  // values are read before they are written
  __syncwarp();
#endif
  if (lane < length) out[run + lane] = runs[first_of_warp + length - 1 - lane];
}

}  // namespace

cudaError_t row_moments(float* sums, float* squares, const float* values, int rows, int columns, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return launch<row_moments_kernel<128>>(dim3(static_cast<unsigned>(rows)), dim3(128), 0, stream, sums, squares, values,
                                         columns);
}

cudaError_t matrix_product(float* c, const float* a, const float* b, int m, int n, int k, int ld_c, int ld_a, int ld_b,
                           cudaStream_t stream) {
  if (m == 0 || n == 0) return cudaSuccess;
  const auto tiles = [](int size) { return static_cast<unsigned>((size + kTile - 1) / kTile); };
  const auto misaligned = [](const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 != 0; };
  const bool aligned = !misaligned(a) && !misaligned(b) && ld_a % 4 == 0 && ld_b % 4 == 0;
  return launch<matrix_product_kernel>(dim3(tiles(n), tiles(m)), dim3(kTile * kTileGroups), 0, stream, c, a, b, m, n, k,
                                       ld_c, ld_a, ld_b, aligned);
}

cudaError_t histogram(int* counts, const int* values, int64_t num_values, int num_bins, cudaStream_t stream) {
  if (num_values == 0) return cudaSuccess;
  return launch<histogram_kernel>(dim3(4), dim3(96), static_cast<std::size_t>(num_bins) * sizeof(int), stream, counts,
                                  values, num_values, num_bins);
}

cudaError_t reverse_runs(double* out, const double* in, int64_t num_values, cudaStream_t stream) {
  if (num_values == 0) return cudaSuccess;
  constexpr int kThreads = 64;
  const auto blocks = static_cast<unsigned>((num_values + kThreads - 1) / kThreads);
  return launch<reverse_runs_kernel<kThreads>>(dim3(blocks), dim3(kThreads), 0, stream, out, in, num_values);
}

}  // namespace bracket::BRACKET_TARGET
