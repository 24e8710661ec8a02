// Random fills and shuffled batches; formulas in kernels/formula/{philox,permutation}.h, shared with the CPU.
//   random_uniform  element e from word e of the key
//   random_normal   elements 2 j, 2 j + 1 by Box-Muller from words 2 j, 2 j + 1, in double for both dtypes
//   gather_batch    row i of y [n, D] is row permute((b n + i) mod N) of table [N, D]
//
// Bytes         fills write n elements; gather_batch reads and writes n D.
// Operations    about 20 integer multiplications per Philox block of four elements; a normal adds about 45 f64
//               operations. At half-rate f64 (A100, H200) a fill of normals is bound by arithmetic, elsewhere too.
// Alignment     that of the element; the four stores of a thread are adjacent.
// Determinism   every element is a function of the key and its number: same bits as the CPU, for any grid.
//
// | variant                     | idea                                         | time                      |
// | random_uniform, _normal     | one thread per Philox block of four elements | not yet measured on a GPU |
// | gather_batch                | one warp per row                             | not yet measured on a GPU |
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/permutation.h"
#include "kernels/formula/philox.h"

namespace bracket::BRACKET_TARGET {
namespace {

// Register-heavy f64 code: four warps a block let the scheduler fit as many as the registers allow.
constexpr int kThreads = 128;
constexpr int kWarp = 32;

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_uniform_kernel(T* y, std::int64_t size, RandomKey key, formula::UniformRange<T> range,
                          const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  for (std::int64_t q = first_item(); 4 * q < size; q += item_stride()) {
    const formula::PhiloxBlock block = formula::philox_block(philox, static_cast<std::uint64_t>(q));
    BRACKET_UNROLL
    for (int w = 0; w < 4; ++w) {
      if (4 * q + w < size) y[4 * q + w] = formula::uniform_in(range, block.word[w]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_normal_kernel(T* y, std::int64_t size, RandomKey key, const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  for (std::int64_t q = first_item(); 4 * q < size; q += item_stride()) {
    const formula::PhiloxBlock block = formula::philox_block(philox, static_cast<std::uint64_t>(q));
    BRACKET_UNROLL
    for (int w = 0; w < 4; w += 2) {
      const formula::NormalPair pair = formula::normal_pair(block.word[w], block.word[w + 1]);
      if (4 * q + w < size) y[4 * q + w] = static_cast<T>(pair.first);
      if (4 * q + w + 1 < size) y[4 * q + w + 1] = static_cast<T>(pair.second);
    }
  }
}

/// Every lane evaluates the permutation of its warp's row: the same work in lockstep costs nothing and needs no
/// broadcast.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_batch_kernel(DeviceMatrix<T> y, DeviceMatrix<T> table, RandomKey key, const std::int64_t* counter) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto table_rows = static_cast<std::uint64_t>(table.rows);
  const std::uint64_t first_draw = formula::counted_step(key, counter) * static_cast<std::uint64_t>(y.rows);
  for (std::int64_t i = first_item() / kWarp; i < y.rows; i += item_stride() / kWarp) {
    const std::uint64_t draw = first_draw + static_cast<std::uint64_t>(i);
    const std::uint64_t epoch = draw / table_rows;
    const formula::Permutation order = formula::permutation(key, epoch, table_rows);
    const T* const source = table.row(static_cast<std::int64_t>(formula::permute(order, draw - epoch * table_rows)));
    T* const target = y.row(i);
    for (std::int64_t j = lane; j < y.cols; j += kWarp) target[j] = source[j];
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t random_uniform(const Tensor& y, const RandomKey& key, double low, double high, const std::int64_t* counter,
                           cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<random_uniform_kernel<T>>(blocks_for((y.size() + 3) / 4, kThreads), kThreads, 0, stream,
                                          device_vector<T>(y), y.size(), key, formula::uniform_range<T>(low, high),
                                          counter);
}

template <class T>
cudaError_t random_normal(const Tensor& y, const RandomKey& key, const std::int64_t* counter, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<random_normal_kernel<T>>(blocks_for((y.size() + 3) / 4, kThreads), kThreads, 0, stream,
                                         device_vector<T>(y), y.size(), key, counter);
}

template <class T>
cudaError_t gather_batch(const Tensor& y, const Tensor& table, const RandomKey& key, const std::int64_t* counter,
                         cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<gather_batch_kernel<T>>(blocks_for(y.rows(), kThreads / kWarp), kThreads, 0, stream,
                                        device_matrix<T>(y), device_matrix<T>(table), key, counter);
}

}  // namespace

void CudaOps::do_random_uniform(Tensor y, const RandomKey& key, double low, double high, const std::int64_t* counter) {
  check(dispatch(y.dtype(),
                 [&]<class T>() { return BRACKET_TARGET::random_uniform<T>(y, key, low, high, counter, stream_); }),
        "random_uniform", y);
}

void CudaOps::do_random_normal(Tensor y, const RandomKey& key, const std::int64_t* counter) {
  check(dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::random_normal<T>(y, key, counter, stream_); }),
        "random_normal", y);
}

void CudaOps::do_gather_batch(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter) {
  check(
      dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::gather_batch<T>(y, table, key, counter, stream_); }),
      "gather_batch", y);
}

}  // namespace bracket::BRACKET_TARGET
