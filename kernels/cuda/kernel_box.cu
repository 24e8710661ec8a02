// Kernels of convolutions summed over boxes of taps, w [Co, k k Ci], y [Co, K K Ci] or, transposed, [Ci, K K Co]:
//   forward   y[co, t, ci] = scale * sum of w[co, s, ci] over the taps s of the box of t; transposed: y[ci, t, co]
//   reverse   grad_w (+)= the adjoint, sums of the same kind over window^2 taps
//
// Bytes        (k^2 + K^2) b for each pair of channels (b = 4 or 8), which its source's taps are read from the caches
//              up to window^2 times; reverse K^2 b and k^2 b, twice that to accumulate. Flops at most window^2 per
//              element: bound by memory.
// Alignment    that of the element. Aliasing none. Determinism: a thread adds its box in the order (y, x).
//
// Variant      idea                                                    measured
// plain        one thread per element of the result                    not yet measured on a GPU
// tiled        where the two sides order the channels otherwise, 32    not yet measured on a GPU
//              x 32 channels through shared memory: both sides are
//              touched along their contiguous channels
// sm_80, sm_90: at most 64 registers, no spills; tiled 4.1 / 8.3 KiB of shared memory.
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/kernel_box.h"

namespace bracket::BRACKET_TARGET {
namespace {

// Eight warps hide the latency of the loads of one another.
constexpr int kThreads = 256;
/// Blocks per multiprocessor the compiler leaves registers for; without this number it spills up to 20 bytes.
constexpr int kResidentBlocks = 4;
constexpr int kTile = 32;
constexpr int kTileRows = kThreads / kTile;
/// Below a quarter of a tile on a side most of its threads would idle.
constexpr std::int64_t kMinTiledChannels = kTile / 4;

/// A kernel [rows, (size, size, channels)].
template <class T>
struct Taps {
  DeviceMatrix<T> matrix;
  std::int64_t size, channels;
  BRACKET_DEVICE T* at(std::int64_t row, std::int64_t y, std::int64_t x) const {
    return matrix.row(row) + (y * size + x) * channels;
  }
};

/// target[a, t, b] = scale * the sum of source[a, s, b], or (swapped) of source[b, s, a], over the taps s of t's box.
template <class T>
struct BoxSums {
  Taps<T> target, source;
  KernelBox map;
  bool reverse;
  T scale;
  bool overwrite;

  BRACKET_DEVICE formula::TapRange taps_of(std::int64_t t) const {
    return reverse ? formula::wide_taps(map, t) : formula::kernel_taps(map, t);
  }
  BRACKET_DEVICE T sum(std::int64_t y, std::int64_t x, std::int64_t row, std::int64_t channel) const {
    const formula::TapRange ys = taps_of(y), xs = taps_of(x);
    T sum = 0;
    for (std::int64_t from_y = ys.first; from_y <= ys.last; ++from_y) {
      for (std::int64_t from_x = xs.first; from_x <= xs.last; ++from_x) sum += source.at(row, from_y, from_x)[channel];
    }
    return scale * sum;
  }
  BRACKET_DEVICE void store(std::int64_t y, std::int64_t x, std::int64_t row, std::int64_t channel, T value) const {
    T& to = target.at(row, y, x)[channel];
    to = overwrite ? value : to + value;
  }
};

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads, kResidentBlocks) box_sums_kernel(BoxSums<T> box) {
  for (std::int64_t item = first_item(); item < box.target.matrix.size(); item += item_stride()) {
    const Division row(item, box.target.matrix.cols);
    const Division tap(row.rest, box.target.channels);
    const Division at(tap.quotient, box.target.size);
    const std::int64_t a = row.quotient, b = tap.rest;
    const bool swapped = box.map.transposed;
    box.store(at.quotient, at.rest, a, b, box.sum(at.quotient, at.rest, swapped ? b : a, swapped ? a : b));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    box_sums_tiled_kernel(BoxSums<T> box, std::int64_t row_tiles, std::int64_t channel_tiles) {
  BRACKET_SHARED(T, tile, [kTile][kTile + 1]);  // one column more: threads of a column meet different banks
  const std::int64_t tiles = box.target.size * box.target.size * row_tiles * channel_tiles;
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t item = blockIdx.x; item < tiles; item += gridDim.x) {
    const Division channels(item, channel_tiles);
    const Division rows(channels.quotient, row_tiles);
    const Division at(rows.quotient, box.target.size);
    const std::int64_t a = rows.rest * kTile, b = channels.rest * kTile;
    for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kTileRows) {
      if (b + i < box.target.channels && a + lane < box.target.matrix.rows)
        tile[i][lane] = box.sum(at.quotient, at.rest, b + i, a + lane);
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kTileRows) {
      if (a + i < box.target.matrix.rows && b + lane < box.target.channels)
        box.store(at.quotient, at.rest, a + i, b + lane, tile[lane][i]);
    }
    __syncthreads();
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
cudaError_t box_sums(const BoxSums<T>& box, cudaStream_t stream) {
  const std::int64_t rows = box.target.matrix.rows, channels = box.target.channels;
  if (box.map.transposed && rows >= kMinTiledChannels && channels >= kMinTiledChannels) {
    const std::int64_t row_tiles = (rows + kTile - 1) / kTile, channel_tiles = (channels + kTile - 1) / kTile;
    const std::int64_t tiles = box.target.size * box.target.size * row_tiles * channel_tiles;
    return launch<box_sums_tiled_kernel<T>>(blocks_for(tiles, 1), dim3(kTile, kTileRows), 0, stream, box, row_tiles,
                                            channel_tiles);
  }
  return launch<box_sums_kernel<T>>(blocks_for(box.target.matrix.size(), kThreads), kThreads, 0, stream, box);
}

template <class T>
Taps<T> kernel_of(const Tensor& w, const KernelBox& map) {
  return {device_matrix<T>(w), map.kernel, map.in_channels};
}

template <class T>
Taps<T> wide_kernel_of(const Tensor& y, const KernelBox& map) {
  return {device_matrix<T>(y), map.wide_kernel(), map.transposed ? map.out_channels : map.in_channels};
}

}  // namespace

void CudaOps::do_kernel_box_forward(Tensor y, Tensor w, const KernelBox& map) {
  check(dispatch(y.dtype(),
                 [&]<class T>() {
                   return box_sums<T>(
                       {wide_kernel_of<T>(y, map), kernel_of<T>(w, map), map, false, static_cast<T>(map.scale), true},
                       stream_);
                 }),
        "kernel_box_forward", y);
}

void CudaOps::do_kernel_box_reverse(Tensor grad_w, Tensor grad_y, const KernelBox& map, Update update) {
  check(dispatch(grad_w.dtype(),
                 [&]<class T>() {
                   return box_sums<T>({kernel_of<T>(grad_w, map), wide_kernel_of<T>(grad_y, map), map, true,
                                       static_cast<T>(map.scale), update == Update::overwrite},
                                      stream_);
                 }),
        "kernel_box_reverse", grad_w);
}

}  // namespace bracket::BRACKET_TARGET
