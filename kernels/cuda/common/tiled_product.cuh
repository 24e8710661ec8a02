// The dense product C(m, n) = sum over p of A(m, p) B(p, n), a 64 x 64 tile of C per block of 256 threads and 4 x 4
// elements of it per thread. A and B pass through double-buffered shared memory in slices of 16 p; where the elements
// of A and B lie is up to the operands. Every element of C is one sum over p in ascending order, by one thread.
//
// An operand has
//   void fetch(T (&fragment)[kSliceLoads], std::int64_t first_p)   the thread's elements of the slice that begins at
//                                                                  first_p; slices are asked for once each, in order
//   static constexpr Contiguous kContiguous                        which of its indices neighbours in memory share
// and returns 0 beyond its end: that adds nothing to C, and the C of a padding row or column is not stored.
#pragma once

#include "kernels/cuda/common/matrix.cuh"
#include "kernels/ops.h"

namespace bracket::BRACKET_TARGET {

inline constexpr int kTileThreads = 256;
inline constexpr int kTile = 64;        // rows and columns of C per block
inline constexpr int kTileMicro = 4;    // rows and columns of C per thread: 16 accumulators, 8 operands
inline constexpr int kSliceDepth = 16;  // p per slice: 256 multiply-adds per thread between two barriers
// Words added to each row of a slice. 4 keeps rows aligned for 16-byte loads and puts the 8 p x 4 m that a warp writes
// from a p-contiguous operand into 32 different banks: 68 p + m = 4 p + m modulo 32.
inline constexpr int kSlicePadding = 4;

inline constexpr int kTileSide = kTile / kTileMicro;
inline constexpr int kSliceLoads = kTile * kSliceDepth / kTileThreads;  // elements of an operand per thread and slice
static_assert(kTileSide * kTileSide == kTileThreads && kSliceLoads == 4);

/// Which index of an operand is contiguous in memory: p, over which the sum runs, or m (of A), n (of B).
enum class Contiguous { contraction, outer };

/// The elements of a slice that this thread moves. A warp reads whole 32-byte sectors of memory: 8 consecutive p of
/// four rows where p is contiguous (p of loads 0 and 1, then 8 more for 2 and 3), else 32 consecutive outer indices
/// (p of load 0, then 4 more for each).
template <Contiguous kContiguous>
struct SlicePosition {
  static BRACKET_DEVICE int outer(int load) {
    const int thread = static_cast<int>(threadIdx.x);
    return kContiguous == Contiguous::contraction ? thread / 8 + load % 2 * 32 : thread % kTile;
  }
  static BRACKET_DEVICE int p(int load) {
    const int thread = static_cast<int>(threadIdx.x);
    return kContiguous == Contiguous::contraction ? thread % 8 + load / 2 * 8
                                                  : thread / kTile + load * (kTileThreads / kTile);
  }
};

/// Rows (p contiguous) or columns of a matrix, from `first` on.
template <class T, Contiguous kContiguousIndex>
struct MatrixOperand {
  static constexpr Contiguous kContiguous = kContiguousIndex;
  const T* data;  // element (first, p = 0)
  std::int64_t ld;
  std::int64_t outers;  // up to the end of the matrix, which may lie inside the tile
  std::int64_t depth;

  BRACKET_DEVICE MatrixOperand(const DeviceMatrix<T>& matrix, std::int64_t first)
      : data(kContiguous == Contiguous::contraction ? matrix.row(first) : matrix.data + first),
        ld(matrix.ld),
        outers((kContiguous == Contiguous::contraction ? matrix.rows : matrix.cols) - first),
        depth(kContiguous == Contiguous::contraction ? matrix.cols : matrix.rows) {}

  BRACKET_DEVICE void fetch(T (&fragment)[kSliceLoads], std::int64_t first_p) const {
    BRACKET_UNROLL
    for (int load = 0; load < kSliceLoads; ++load) {
      const std::int64_t outer = SlicePosition<kContiguous>::outer(load);
      const std::int64_t p = first_p + SlicePosition<kContiguous>::p(load);
      const std::int64_t offset = kContiguous == Contiguous::contraction ? outer * ld + p : p * ld + outer;
      fragment[load] = outer < outers && p < depth ? data[offset] : T{0};
    }
  }
};

template <class T>
using Slice = T[kSliceDepth][kTile + kSlicePadding];

/// Shared memory of a tile.
template <class T>
struct TileSlices {
  Slice<T> a[2], b[2];
};

template <Contiguous kContiguous, class T>
BRACKET_DEVICE void put_slice(Slice<T>& slice, const T (&fragment)[kSliceLoads]) {
  BRACKET_UNROLL
  for (int load = 0; load < kSliceLoads; ++load) {
    slice[SlicePosition<kContiguous>::p(load)][SlicePosition<kContiguous>::outer(load)] = fragment[load];
  }
}

/// The first row and column of the thread's part of the tile.
BRACKET_DEVICE int tile_thread_m() { return static_cast<int>(threadIdx.x) / kTileSide * kTileMicro; }
BRACKET_DEVICE int tile_thread_n() { return static_cast<int>(threadIdx.x) % kTileSide * kTileMicro; }

/// sums += A B over one slice, for the 4 x 4 elements of this thread.
template <class T>
BRACKET_DEVICE void multiply_slice(T (&sums)[kTileMicro][kTileMicro], const Slice<T>& a_slice,
                                   const Slice<T>& b_slice) {
  const int m = tile_thread_m();
  const int n = tile_thread_n();
  BRACKET_UNROLL
  for (int p = 0; p < kSliceDepth; ++p) {
    T a[kTileMicro];
    T b[kTileMicro];
    BRACKET_UNROLL
    for (int i = 0; i < kTileMicro; ++i) {
      a[i] = a_slice[p][m + i];
      b[i] = b_slice[p][n + i];
    }
    BRACKET_UNROLL
    for (int i = 0; i < kTileMicro; ++i) {
      BRACKET_UNROLL
      for (int j = 0; j < kTileMicro; ++j) sums[i][j] += a[i] * b[j];
    }
  }
}

/// The sums of this thread over all p < depth; all threads of the block take part, tile after tile.
template <class T, class A, class B>
BRACKET_DEVICE void tile_product(T (&sums)[kTileMicro][kTileMicro], TileSlices<T>& slices, A& a, B& b,
                                 std::int64_t depth) {
  T a_fragment[kSliceLoads];
  T b_fragment[kSliceLoads];
  BRACKET_UNROLL
  for (int i = 0; i < kTileMicro; ++i) {
    BRACKET_UNROLL
    for (int j = 0; j < kTileMicro; ++j) sums[i][j] = 0;
  }
  if (depth == 0) return;
  a.fetch(a_fragment, 0);
  b.fetch(b_fragment, 0);
  put_slice<A::kContiguous>(slices.a[0], a_fragment);
  put_slice<B::kContiguous>(slices.b[0], b_fragment);
  __syncthreads();
  int current = 0;
  for (std::int64_t p = 0; p < depth; p += kSliceDepth) {
    // The loads of the next slice are in flight while this one is multiplied. It goes to the other buffer, which
    // nobody reads any more since the last barrier; so one barrier per slice is enough.
    const bool more = p + kSliceDepth < depth;
    if (more) {
      a.fetch(a_fragment, p + kSliceDepth);
      b.fetch(b_fragment, p + kSliceDepth);
    }
    multiply_slice(sums, slices.a[current], slices.b[current]);
    current ^= 1;
    if (more) {
      put_slice<A::kContiguous>(slices.a[current], a_fragment);
      put_slice<B::kContiguous>(slices.b[current], b_fragment);
    }
    __syncthreads();
  }
}

/// What becomes of a finished sum.
template <class T>
BRACKET_DEVICE void store(T& c, T sum, Update update) {
  c = update == Update::accumulate ? c + sum : sum;
}

inline std::int64_t tiles_for(std::int64_t m, std::int64_t n) {
  return (m + kTile - 1) / kTile * ((n + kTile - 1) / kTile);
}

}  // namespace bracket::BRACKET_TARGET
