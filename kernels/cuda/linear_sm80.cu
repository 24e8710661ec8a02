// The three products of dense layers (linear.cu) in f32 on tensor cores, for every math mode but fp32:
//   forward y = x w^T,  reverse data grad_x (+)= grad_y w,  reverse weights grad_w (+)= grad_y^T x
// as one product C[m, n] (+)= sum over p of A(m, p) B(p, n) with the operands of linear.cu. Bias and non-linearity behind
// a forward product, where they are asked for, are applied as C is stored, or as its chunks are added
// (common/product_epilogue.cuh).
//
// Flops        2 m n p per call, three times that on the tensor cores in tf32x3.
// Bytes        a tile of side S reads 4 (1/S + 1/S) bytes of A and B per multiply-add: 16 flops per byte for each 32 of
//              S, 64 with the large tile, from the second-level cache or memory. C is written once; in chunks
//              (tensor_plan.h) 8 bytes of partial sums per chunk and element besides.
// Bound        tensor cores for deep products with the large tile; the second-level cache with the small one; launch
//              latency where one wave of chunks is too shallow to hide it.
// Operands     in fp32 and in either order, as they lie: each lane of mma.sync loads its words from shared memory and
//              rounds them in registers. Copies of weights, rounded and transposed beforehand, would serve operands of
//              wgmma alone, which reads tf32 from shared memory in K-major order only; Adam therefore writes none.
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
// large tile   166 / 184   214 / 214   163 / 198    one block per multiprocessor
// small tile   134 / 164   138 / 138   186 / 240    two or three
// with an epilogue
// large tile   174 / 176   216 / 218   176 / 183
// small tile   116 / 118   140 / 140   140 / 141
#include <type_traits>

#include "kernels/cuda/common/product_epilogue.cuh"
#include "kernels/cuda/common/resident_launch.cuh"
#include "kernels/cuda/common/tensor_product.cuh"
#include "kernels/cuda/linear_sm80.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- kernels ---------------------------------------------------------------------------------------------------

/// Tiles of C, chunk after chunk of p. `c` holds the [m, n] of each chunk one below the other, or C itself where there
/// is one chunk; an epilogue needs the latter.
template <class TileType, Contiguous kA, Contiguous kB, class Epilogue>
struct MatrixWork {
  using Tile = TileType;
  using A = MatrixSlices<Tile, kA>;
  using B = MatrixSlices<Tile, kB>;

  const DeviceMatrix<float>& c;
  const DeviceMatrix<float>& a_matrix;
  const DeviceMatrix<float>& b_matrix;
  std::int64_t m;
  std::int64_t chunk_depth;
  Update update;
  const Epilogue& epilogue;
  int tiles_n;
  int tiles;
  int items;

  BRACKET_DEVICE MatrixWork(const DeviceMatrix<float>& result, std::int64_t rows, const DeviceMatrix<float>& a_operand,
                            const DeviceMatrix<float>& b_operand, std::int64_t depth, Update how,
                            const Epilogue& behind)
      : c(result),
        a_matrix(a_operand),
        b_matrix(b_operand),
        m(rows),
        chunk_depth(depth),
        update(how),
        epilogue(behind),
        tiles_n(tiles_along<Tile>(result.cols)),
        tiles(tiles_along<Tile>(rows) * tiles_n),
        items(static_cast<int>(Division(result.rows, rows).quotient) * tiles) {}

  static BRACKET_DEVICE int first() { return static_cast<int>(blockIdx.x); }
  static BRACKET_DEVICE int next(int item) { return item + static_cast<int>(gridDim.x); }

  BRACKET_DEVICE std::int64_t chunk(int item) const { return item / tiles; }
  BRACKET_DEVICE std::int64_t tile_m(int item) const { return std::int64_t{item % tiles / tiles_n} * Tile::kSide; }
  BRACKET_DEVICE std::int64_t tile_n(int item) const { return std::int64_t{item % tiles % tiles_n} * Tile::kSide; }
  BRACKET_DEVICE int slices(int item) const {
    const std::int64_t left =
        (kA == Contiguous::contraction ? a_matrix.cols : a_matrix.rows) - chunk(item) * chunk_depth;
    return static_cast<int>(((left < chunk_depth ? left : chunk_depth) + kSlice - 1) / kSlice);
  }
  BRACKET_DEVICE A a(int item) const { return A(a_matrix, tile_m(item), chunk(item) * chunk_depth); }
  BRACKET_DEVICE B b(int item) const { return B(b_matrix, tile_n(item), chunk(item) * chunk_depth); }

  BRACKET_DEVICE void store(int item, const TileSums<Tile>& sums) const {
    const std::int64_t first_m = tile_m(item), first_n = tile_n(item), first_row = chunk(item) * m;
    if constexpr (std::is_same_v<Epilogue, DeviceEpilogue>) {
      store_tile<Tile>(c, epilogue, sums, first_n, [&](int row) {
        const bool exists = first_m + row < m;
        return TileRow{exists ? first_m + row : 0, 0, exists};
      });
      return;
    }
    for_each_pair<Tile>(sums, [&](int row, int column, float first_sum, float second_sum) {
      if (first_m + row >= m) return;
      const std::int64_t n = first_n + column;
      float* const target = c.row(first_row + first_m + row) + n;
      if (n < c.cols) BRACKET_TARGET::store(target[0], first_sum, update);
      if (n + 1 < c.cols) BRACKET_TARGET::store(target[1], second_sum, update);
    });
  }
};

template <MathMode kMode, class Tile, Contiguous kA, Contiguous kB, class Epilogue>
__global__ void __launch_bounds__(Tile::kThreads, kResidentBlocks<Tile>)
    linear_tensor_kernel(const __grid_constant__ DeviceMatrix<float> c, std::int64_t m,
                         const __grid_constant__ DeviceMatrix<float> a, const __grid_constant__ DeviceMatrix<float> b,
                         std::int64_t chunk, Update update, const __grid_constant__ Epilogue epilogue) {
  BRACKET_DYNAMIC_SHARED(float, shared);
  tensor_products<kMode>(MatrixWork<Tile, kA, kB, Epilogue>(c, m, a, b, chunk, update, epilogue), shared);
}

constexpr int kThreads = 256;
constexpr int kSumsUnderWay = 8;  // see kSumCycles

/// The sum of element (row, column) of all chunks of C.
BRACKET_DEVICE float sum_of_chunks(const DeviceMatrix<float>& c, const DeviceMatrix<float>& chunk_sums,
                                   std::int64_t row, std::int64_t column) {
  float sum = 0;
  const float* partial = chunk_sums.row(row) + column;
  const std::int64_t step = c.rows * chunk_sums.ld;
  std::int64_t left = chunk_sums.rows / c.rows;
  // Loads do not wait for one another, the sums are added in order.
  for (; left >= kSumsUnderWay; left -= kSumsUnderWay) {
    float next[kSumsUnderWay];
    BRACKET_UNROLL
    for (int k = 0; k < kSumsUnderWay; ++k) next[k] = partial[k * step];
    BRACKET_UNROLL
    for (int k = 0; k < kSumsUnderWay; ++k) sum += next[k];
    partial += kSumsUnderWay * step;
  }
  for (; left > 0; --left, partial += step) sum += *partial;
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(DeviceMatrix<float> c, DeviceMatrix<float> chunk_sums, Update update) {
  for (std::int64_t item = first_item(); item < c.size(); item += item_stride()) {
    const Division place(item, c.cols);
    store(c.row(place.quotient)[place.rest], sum_of_chunks(c, chunk_sums, place.quotient, place.rest), update);
  }
}

/// Rows are padded to whole bytes of a mask, whose eight elements adjacent lanes then hold.
__global__ void __launch_bounds__(kThreads)
    add_chunks_epilogue_kernel(DeviceMatrix<float> y, DeviceMatrix<float> chunk_sums, DeviceEpilogue epilogue) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const std::int64_t pitch = 8 * epilogue.pixel_bytes;
  for (std::int64_t first = first_item() - lane; first < y.rows * pitch; first += item_stride()) {
    const bool exists = first + lane < y.rows * pitch;
    const Division place(exists ? first + lane : 0, pitch);
    const bool inside = exists && place.rest < y.cols;
    const float sum = inside ? sum_of_chunks(y, chunk_sums, place.quotient, place.rest) : 0;
    store_element(y, epilogue, place.quotient, place.rest, inside, sum);
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <MathMode kMode, class Tile, Contiguous kA, Contiguous kB, class Epilogue>
cudaError_t launch_tiles(const DeviceMatrix<float>& c, std::int64_t m, const DeviceMatrix<float>& a,
                         const DeviceMatrix<float>& b, const TensorPlan& plan, Update update, const Epilogue& epilogue,
                         const TensorDevice& device) {
  const std::int64_t items = tensor_tiles<Tile>(m, c.cols) * plan.splits;
  constexpr std::size_t kBytes = kTensorSharedBytes<MatrixSlices<Tile, kA>, MatrixSlices<Tile, kB>>;
  return launch_resident<linear_tensor_kernel<kMode, Tile, kA, kB, Epilogue>>(
      items, device.multiprocessors, Tile::kThreads, kBytes, device.stream, c, m, a, b, plan.chunk, update, epilogue);
}

template <MathMode kMode, Contiguous kA, Contiguous kB, class Epilogue>
cudaError_t launch_product(const DeviceMatrix<float>& c, std::int64_t m, const DeviceMatrix<float>& a,
                           const DeviceMatrix<float>& b, const TensorPlan& plan, Update update,
                           const Epilogue& epilogue, const TensorDevice& device) {
  return plan.large_tile ? launch_tiles<kMode, LargeTile, kA, kB>(c, m, a, b, plan, update, epilogue, device)
                         : launch_tiles<kMode, SmallTile, kA, kB>(c, m, a, b, plan, update, epilogue, device);
}

template <MathMode kMode, Contiguous kA, Contiguous kB>
cudaError_t product_in_mode(const DeviceMatrix<float>& c, const DeviceMatrix<float>& a, const DeviceMatrix<float>& b,
                            Update update, const TensorPlan& plan, const TensorDevice& device,
                            const DeviceEpilogue& epilogue) {
  if (device.scratch.elements * std::int64_t{2} < plan.partial_sums) return cudaErrorInvalidValue;
  const bool plain = epilogue.kind == DeviceEpilogue::Kind::none;
  if (plan.splits == 1) {
    const auto launch_with = [&](const auto& behind) {
      return launch_product<kMode, kA, kB>(c, c.rows, a, b, plan, update, behind, device);
    };
    // Forward products alone have an epilogue.
    if constexpr (kB == Contiguous::contraction) return with_epilogue(epilogue, launch_with);
    return launch_with(NoEpilogue{});
  }
  const DeviceMatrix<float> sums{reinterpret_cast<float*>(device.scratch.data), plan.splits * c.rows, c.cols, c.cols};
  const cudaError_t status =
      launch_product<kMode, kA, kB>(sums, c.rows, a, b, plan, Update::overwrite, NoEpilogue{}, device);
  if (status != cudaSuccess) return status;
  if (plain) return add_chunks(c, sums, update, device.stream);
  return launch<add_chunks_epilogue_kernel>(blocks_for(c.rows * 8 * epilogue.pixel_bytes, kThreads), kThreads, 0,
                                            device.stream, c, sums, epilogue);
}

template <Contiguous kA, Contiguous kB>
cudaError_t product(const DeviceMatrix<float>& c, const DeviceMatrix<float>& a, const DeviceMatrix<float>& b,
                    Update update, const TensorPlan& plan, const TensorDevice& device,
                    const DeviceEpilogue& epilogue = {}) {
  switch (device.mode) {
    case MathMode::tf32x3:
      return product_in_mode<MathMode::tf32x3, kA, kB>(c, a, b, update, plan, device, epilogue);
    case MathMode::tf32:
      return product_in_mode<MathMode::tf32, kA, kB>(c, a, b, update, plan, device, epilogue);
    case MathMode::bf16:
      return product_in_mode<MathMode::bf16, kA, kB>(c, a, b, update, plan, device, epilogue);
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
                                const DeviceMatrix<float>& w, const TensorPlan& plan, const TensorDevice& device,
                                const DeviceEpilogue& epilogue) {
  return product<Contiguous::contraction, Contiguous::contraction>(y, x, w, Update::overwrite, plan, device, epilogue);
}

cudaError_t linear_reverse_data_sm80(const DeviceMatrix<float>& grad_x, const DeviceMatrix<float>& grad_y,
                                     const DeviceMatrix<float>& w, Update update, const TensorPlan& plan,
                                     const TensorDevice& device) {
  return product<Contiguous::contraction, Contiguous::outer>(grad_x, grad_y, w, update, plan, device);
}

cudaError_t linear_reverse_weights_sm80(const DeviceMatrix<float>& grad_w, const DeviceMatrix<float>& grad_y,
                                        const DeviceMatrix<float>& x, Update update, const TensorPlan& plan,
                                        const TensorDevice& device) {
  return product<Contiguous::outer, Contiguous::outer>(grad_w, grad_y, x, update, plan, device);
}

}  // namespace bracket::BRACKET_TARGET
