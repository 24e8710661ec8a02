// The three products of dense layers (linear.cu) in f32 on tensor cores, for every math mode but fp32:
//   forward y = x w^T,  reverse data grad_x (+)= grad_y w,  reverse weights grad_w (+)= grad_y^T x
// as one product C[m, n] (+)= sum over p of A(m, p) B(p, n) with the operands of linear.cu.
//
// Flops        2 m n p per call, three times that on the tensor cores in tf32x3.
// Bytes        a tile of side S reads 4 (1/S + 1/S) bytes of A and B per multiply-add: 16 flops per byte for each 32 of
//              S, 64 with the large tile, from the second-level cache or memory. C is written once; in chunks
//              (tensor_plan.h) 8 bytes of partial sums per chunk and element besides.
// Bound        tensor cores for deep products with the large tile; the second-level cache with the small one; launch
//              latency and idle multiprocessors below one wave of tiles (64 x 64 x 17 of them on 132).
// Alignment    any: slices are copied 16, 8 or 4 bytes at a time, the most that start and row stride of an operand
//              allow. 4 bytes cost four times the copy instructions, not four times the bytes.
// Determinism  every element is one sum over p in ascending steps of 8 (bf16: 16) inside a chunk, then over the chunks
//              in order. The chunks depend on the shape alone, the tile does not change the sums: the same bits on
//              every run and for every number of multiprocessors. The order inside a step is the hardware's.
//
// Variant      idea                                                        shared memory   measured
// large tile   128 x 128 of C, 8 warps of 64 x 32, ring of 3 slices        102 to 108 KiB  not yet measured on a GPU
// small tile   64 x 64 of C, 4 warps of 32 x 32, ring of 3 slices          54 KiB          not yet measured on a GPU
// Registers, the most of the three products on sm_80 / sm_90 with CUDA 13.0, no spills:
//              tf32        tf32x3      bf16
// large tile   166 / 166   233 / 235   170 / 172
// small tile   220 / 250   246 / 244   255 / 255
#include "kernels/cuda/common/tensor_product.cuh"
#include "kernels/cuda/linear_sm80.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- kernels ---------------------------------------------------------------------------------------------------

/// One tile (blockIdx.x) of one chunk of p (blockIdx.y). `c` holds the [m, n] of each chunk one below the other, or C
/// itself where there is one chunk.
template <MathMode kMode, class Tile, Contiguous kA, Contiguous kB>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    linear_tensor_kernel(DeviceMatrix<float> c, std::int64_t m, DeviceMatrix<float> a_matrix,
                         DeviceMatrix<float> b_matrix, std::int64_t chunk, Update update) {
  BRACKET_DYNAMIC_SHARED(float, shared);
  const std::int64_t tiles_n = (c.cols + Tile::kSide - 1) / Tile::kSide;
  const std::int64_t tile_m = blockIdx.x / tiles_n * Tile::kSide;
  const std::int64_t tile_n = blockIdx.x % tiles_n * Tile::kSide;
  const std::int64_t first_p = blockIdx.y * chunk;
  const std::int64_t left = (kA == Contiguous::contraction ? a_matrix.cols : a_matrix.rows) - first_p;
  const std::int64_t depth = left < chunk ? left : chunk;
  MatrixSlices<Tile, kA> a(a_matrix, tile_m, first_p);
  MatrixSlices<Tile, kB> b(b_matrix, tile_n, first_p);
  TileSums<Tile> sums;
  tensor_product<kMode>(sums, a, b, (depth + kSlice - 1) / kSlice, shared);
  for_each_pair<Tile>(sums, [&](int row, int column, float first, float second) {
    if (tile_m + row >= m) return;
    const std::int64_t n = tile_n + column;
    float* const target = c.row(blockIdx.y * m + tile_m + row) + n;
    if (n < c.cols) store(target[0], first, update);
    if (n + 1 < c.cols) store(target[1], second, update);
  });
}

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(DeviceMatrix<float> c, DeviceMatrix<float> chunk_sums, Update update) {
  for (std::int64_t item = first_item(); item < c.size(); item += item_stride()) {
    const Division place(item, c.cols);
    float sum = 0;
    for (std::int64_t first = 0; first < chunk_sums.rows; first += c.rows) {
      sum += chunk_sums.row(first + place.quotient)[place.rest];
    }
    store(c.row(place.quotient)[place.rest], sum, update);
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <MathMode kMode, class Tile, Contiguous kA, Contiguous kB>
cudaError_t launch_tiles(const DeviceMatrix<float>& c, std::int64_t m, const DeviceMatrix<float>& a,
                         const DeviceMatrix<float>& b, const TensorPlan& plan, Update update, cudaStream_t stream) {
  const std::int64_t tiles = ceil_divide(m, Tile::kSide) * ceil_divide(c.cols, Tile::kSide);
  const dim3 grid(blocks_for(tiles, 1), static_cast<unsigned>(plan.splits));
  constexpr std::size_t kBytes = kTensorSharedBytes<MatrixSlices<Tile, kA>, MatrixSlices<Tile, kB>>;
  return launch<linear_tensor_kernel<kMode, Tile, kA, kB>>(grid, Tile::kThreads, kBytes, stream, c, m, a, b, plan.chunk,
                                                           update);
}

template <MathMode kMode, Contiguous kA, Contiguous kB>
cudaError_t product_in_mode(const DeviceMatrix<float>& c, const DeviceMatrix<float>& a, const DeviceMatrix<float>& b,
                            std::int64_t p, Update update, const TensorDevice& device) {
  float* const memory = reinterpret_cast<float*>(device.scratch.data);
  const TensorPlan plan =
      tensor_plan(c.rows, c.cols, p, kMode, device.multiprocessors, device.scratch.elements * std::int64_t{2});
  const bool direct = plan.splits == 1;
  const DeviceMatrix<float> sums = direct ? c : DeviceMatrix<float>{memory, plan.splits * c.rows, c.cols, c.cols};
  const Update first_update = direct ? update : Update::overwrite;
  const cudaError_t status =
      plan.large_tile ? launch_tiles<kMode, LargeTile, kA, kB>(sums, c.rows, a, b, plan, first_update, device.stream)
                      : launch_tiles<kMode, SmallTile, kA, kB>(sums, c.rows, a, b, plan, first_update, device.stream);
  if (status != cudaSuccess || direct) return status;
  return add_chunks(c, sums, update, device.stream);
}

template <Contiguous kA, Contiguous kB>
cudaError_t product(const DeviceMatrix<float>& c, const DeviceMatrix<float>& a, const DeviceMatrix<float>& b,
                    std::int64_t p, Update update, const TensorDevice& device) {
  switch (device.mode) {
    case MathMode::tf32x3:
      return product_in_mode<MathMode::tf32x3, kA, kB>(c, a, b, p, update, device);
    case MathMode::tf32:
      return product_in_mode<MathMode::tf32, kA, kB>(c, a, b, p, update, device);
    case MathMode::bf16:
      return product_in_mode<MathMode::bf16, kA, kB>(c, a, b, p, update, device);
    case MathMode::fp32:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t add_chunks(const DeviceMatrix<float>& c, const DeviceMatrix<float>& chunk_sums, Update update,
                       cudaStream_t stream) {
  return launch<add_chunks_kernel>(blocks_for(c.size(), kThreads), kThreads, 0, stream, c, chunk_sums, update);
}

cudaError_t linear_forward_sm80(const DeviceMatrix<float>& y, const DeviceMatrix<float>& x,
                                const DeviceMatrix<float>& w, const TensorDevice& device) {
  return product<Contiguous::contraction, Contiguous::contraction>(y, x, w, x.cols, Update::overwrite, device);
}

cudaError_t linear_reverse_data_sm80(const DeviceMatrix<float>& grad_x, const DeviceMatrix<float>& grad_y,
                                     const DeviceMatrix<float>& w, Update update, const TensorDevice& device) {
  return product<Contiguous::contraction, Contiguous::outer>(grad_x, grad_y, w, w.rows, update, device);
}

cudaError_t linear_reverse_weights_sm80(const DeviceMatrix<float>& grad_w, const DeviceMatrix<float>& grad_y,
                                        const DeviceMatrix<float>& x, Update update, const TensorDevice& device) {
  return product<Contiguous::outer, Contiguous::outer>(grad_w, grad_y, x, x.rows, update, device);
}

}  // namespace bracket::BRACKET_TARGET
