// Batches of stored pixels as numbers; formulas in kernels/formula/{image_noise,permutation}.h, shared with the CPU.
//   y_ij = scale (pixel + noise) + shift,  pixel = table[permute((b n + i) mod N)][j, or its mirror],
//   noise in (0, 1), or 0
//
// Shapes        y [n, H W C], table u8[N, H W C], rows may be strided.
// Bytes         reads 1 and writes b (4 or 8) per element; 2 f64 flops, and about 20 integer multiplications per four
//               elements with noise: bound by memory, or by f64 where that runs at 1/64 of f32.
// Alignment     that of the element; the lanes of a warp read and write adjacent pixels (mirrored: in descending
// order). Determinism   every element is a function of the key and its number: same bits as the CPU, for any grid.
//
// | variant         | idea                                                          | time                      |
// | gather_images   | one warp per 128 columns of a row, four a lane, 32 apart      | not yet measured on a GPU |
// sm_90: 46 registers, no spills.
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/image_noise.h"
#include "kernels/formula/permutation.h"

namespace bracket::BRACKET_TARGET {
namespace {

// Register-heavy integer code: four warps a block let the scheduler fit as many as the registers allow.
constexpr int kThreads = 128;

static_assert(formula::kNoiseBlocks == kWarpThreads, "a lane makes the noise of its four columns from one block");

/// Column of the stored image that shows at `column`.
BRACKET_DEVICE std::int64_t source_column(std::int64_t column, bool mirror, const ImageTransform& t) {
  if (!mirror) return column;
  const Division pixel(column, t.channels);
  const Division row(pixel.quotient, t.width);
  return (row.quotient * t.width + (t.width - 1 - row.rest)) * t.channels + pixel.rest;
}

/// Every lane evaluates the permutation of its warp's row: the same work in lockstep costs nothing and needs no
/// broadcast.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_images_kernel(DeviceMatrix<T> y, DeviceMatrix<std::uint8_t> table, RandomKey key,
                         const std::int64_t* counter, const __grid_constant__ ImageTransform t) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const auto table_rows = static_cast<std::uint64_t>(table.rows);
  const std::uint64_t batch = formula::counted_step(key, counter);
  const formula::PhiloxKey words = formula::philox_key(key, batch);
  const std::int64_t groups = (y.cols + formula::kNoiseColumns - 1) / formula::kNoiseColumns;
  for (std::int64_t item = first_item() / kWarpThreads; item < y.rows * groups; item += item_stride() / kWarpThreads) {
    const Division at(item, groups);
    const std::int64_t i = at.quotient;
    std::int64_t image = i;
    if (!t.in_order) {
      const std::uint64_t draw = batch * static_cast<std::uint64_t>(y.rows) + static_cast<std::uint64_t>(i);
      const std::uint64_t epoch = draw / table_rows;
      const formula::Permutation order = formula::permutation(key, epoch, table_rows);
      image = static_cast<std::int64_t>(formula::permute(order, draw - epoch * table_rows));
    }
    const std::uint8_t* const source = table.row(image);
    const bool mirror = t.flip && formula::mirrored(words, i);
    formula::PhiloxBlock noise{};
    if (t.dequantise) {
      noise =
          formula::philox_block(words, formula::first_noise_block(i, at.rest, y.cols) + static_cast<unsigned>(lane));
    }
    BRACKET_UNROLL
    for (int w = 0; w < 4; ++w) {
      const std::int64_t j = at.rest * formula::kNoiseColumns + w * kWarpThreads + lane;
      if (j >= y.cols) continue;
      const double added = t.dequantise ? formula::unit_uniform(noise.word[w]) : 0.0;
      y.row(i)[j] = static_cast<T>(formula::pixel_value(source[source_column(j, mirror, t)], added, t.scale, t.shift));
    }
  }
}

template <class T>
cudaError_t gather_images(const Tensor& y, const Tensor& table, const RandomKey& key, const std::int64_t* counter,
                          const ImageTransform& transform, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  const std::int64_t groups = (y.cols() + formula::kNoiseColumns - 1) / formula::kNoiseColumns;
  return launch<gather_images_kernel<T>>(blocks_for(y.rows() * groups, kThreads / kWarpThreads), kThreads, 0, stream,
                                         device_matrix<T>(y), device_matrix<std::uint8_t>(table), key, counter,
                                         transform);
}

}  // namespace

void CudaOps::do_gather_images(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter,
                               const ImageTransform& transform) {
  const cudaError_t code = dispatch(y.dtype(), [&]<class T>() {
    return BRACKET_TARGET::gather_images<T>(y, table, key, counter, transform, stream_);
  });
  check(code, "gather_images", y);
}

}  // namespace bracket::BRACKET_TARGET
