// The dense product C(m, n) = sum over p of A(m, p) B(p, n) of floats on tensor cores: a square tile of C per block,
// A and B through shared memory in slices of 32 p, copied asynchronously while the slices before them are multiplied.
// Every element of C is one sum over p in ascending steps, whichever tile it lies in.
//
// A launch multiplies items: tiles of C, or of one chunk of p of it. It has as many blocks as the device holds at once
// (common/resident_launch.cuh), and a block takes every gridDim.x-th item. Its copies go on with the first slices of
// the next item while the last ones of an item are multiplied and its sums stored: with one block of large tiles per
// multiprocessor nothing else would hide those latencies. What a launch multiplies is its Work,
//   using A, B                            the operands
//   int items                             of all blocks
//   std::int64_t first(), next(item)      this block's; `items` or more: no further one
//   std::int64_t slices(item)             its depth, 1 or more
//   A a(item), B b(item)                  called in this order by all threads, before the item's first copies
//   void store(item, sums)                the place of sums in the tile: for_each_pair
//
// An operand has
//   void copy(float* slice)                        queues this thread's share of the next slice; elements beyond the
//                                                  end become 0, which adds nothing to C
//   static constexpr Contiguous kContiguous        which of its indices neighbours in memory share
//   using Slice = TensorSlice<Tile, kContiguous>   how a slice lies in shared memory
//
// Shared memory. A slice keeps the order of global memory, so that it is copied in vectors: rows of 32 p, or 32 rows of
// a tile's width. Each row is padded so that the 32 words a warp reads at once, (outer g, p = t) with g < 8, t < 4, lie
// in 32 banks:  rows of p: pitch 36, bank 36 g + t = 4 g + t;  rows of outer: pitch 136 or 72, bank 8 t + g (mod 32).
// Copies of 16 bytes fill whole rows, 128 bytes at a time, without conflicts either; both pitches keep them aligned.
//
// Pipeline. kTensorStages slices lie in a ring, those of an item behind those of the item before. Before slice s is
// multiplied its copies are waited for, and one barrier both shows them to all threads and says that slice s - 1 has
// been read by all: its place takes slice s + 2.
#pragma once

#include "kernels/cuda/common/tensor_math.cuh"
#include "kernels/cuda/common/tensor_plan.h"
#include "kernels/cuda/common/tiled_product.cuh"

namespace bracket::BRACKET_TARGET {

inline constexpr int kTensorStages = 3;
inline constexpr int kSlice = static_cast<int>(kTensorDepth);

/// A tile of kTileSide x kTileSide elements of C, shared by kWarpsM x kWarpsN warps.
template <int kTileSideValue, int kWarpsM, int kWarpsN>
struct TensorTile {
  static constexpr int kSide = kTileSideValue;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kWarpRows = kSide / kWarpsM;
  static constexpr int kWarpColumns = kSide / kWarpsN;
  static constexpr int kMmaRows = kWarpRows / 16;  // instructions of 16 x 8 per warp
  static constexpr int kMmaColumns = kWarpColumns / 8;

  /// Where in the tile the elements of this warp begin.
  static BRACKET_DEVICE int warp_row() { return static_cast<int>(threadIdx.x) / 32 / kWarpsN * kWarpRows; }
  static BRACKET_DEVICE int warp_column() { return static_cast<int>(threadIdx.x) / 32 % kWarpsN * kWarpColumns; }
};
/// 64 x 32 elements per warp, 64 sums per lane: 16 instructions for 24 loads from shared memory.
using LargeTile = TensorTile<static_cast<int>(kLargeTensorTile), 2, 4>;
/// 32 x 32 elements per warp, 32 sums per lane: 8 instructions for 16 loads.
using SmallTile = TensorTile<static_cast<int>(kSmallTensorTile), 2, 2>;

/// Tiles along one side of C, and of C. A C of 2^31 tiles of 32 x 32 elements or more would take 8 TiB.
template <class Tile>
BRACKET_HOST_DEVICE int tiles_along(std::int64_t elements) {
  return static_cast<int>((elements + Tile::kSide - 1) / Tile::kSide);
}
template <class Tile>
std::int64_t tensor_tiles(std::int64_t m, std::int64_t n) {
  return std::int64_t{tiles_along<Tile>(m)} * tiles_along<Tile>(n);
}

/// Blocks per multiprocessor that the registers must leave room for: what the shared memory of sm_80 has room for. That
/// of sm_90 could hold two large tiles, but with 128 registers most of their kernels spill.
template <class Tile>
inline constexpr int kResidentBlocks = Tile::kSide == kLargeTensorTile ? 1 : 2;

template <class TileType, Contiguous kContiguous>
struct TensorSlice {
  using Tile = TileType;
  static constexpr bool kRowsAreOuter = kContiguous == Contiguous::contraction;
  static constexpr int kRows = kRowsAreOuter ? Tile::kSide : kSlice;
  static constexpr int kWidth = kRowsAreOuter ? kSlice : Tile::kSide;
  static constexpr int kPitch = kWidth + (kRowsAreOuter ? 4 : 8);
  static constexpr int kFloats = kRows * kPitch;

  static BRACKET_DEVICE int offset(int outer, int p) { return kRowsAreOuter ? outer * kPitch + p : p * kPitch + outer; }
};

/// Shared memory of a block in bytes.
template <class A, class B>
inline constexpr std::size_t kTensorSharedBytes = sizeof(float) *
                                                  (A::Slice::kFloats + B::Slice::kFloats) * kTensorStages;

/// The widest copies, in bytes, that start and row stride of a matrix allow, and runs of `run` elements.
BRACKET_DEVICE int copy_bytes(const DeviceMatrix<float>& matrix, std::int64_t run = 4) {
  const std::uint64_t bits =
      reinterpret_cast<std::uint64_t>(matrix.data) | static_cast<std::uint64_t>(matrix.ld | run) * 4;
  return bits % 16 == 0 ? 16 : bits % 8 == 0 ? 8 : 4;
}

/// The vectors of a slice that this thread copies, kBytes each: one column of every kRowStep-th row.
template <class Slice, int kBytes>
struct SliceVectors {
  static constexpr int kWords = kBytes / 4;
  static constexpr int kPerRow = Slice::kWidth / kWords;
  static constexpr int kRowStep = Slice::Tile::kThreads / kPerRow;
  static_assert(Slice::Tile::kThreads % kPerRow == 0 && Slice::kRows % kRowStep == 0);
  static BRACKET_DEVICE int column() { return static_cast<int>(threadIdx.x) % kPerRow * kWords; }
  static BRACKET_DEVICE int first_row() { return static_cast<int>(threadIdx.x) / kPerRow; }
};

/// f.template operator()<bytes>().
template <class F>
BRACKET_DEVICE void with_copy_bytes(int bytes, const F& f) {
  if (bytes == 16) {
    f.template operator()<16>();
  } else if (bytes == 8) {
    f.template operator()<8>();
  } else {
    f.template operator()<4>();
  }
}

/// Rows (p contiguous) or columns of a matrix, from element (first_outer, first_p) on.
template <class Tile, Contiguous kContiguousIndex>
struct MatrixSlices {
  static constexpr Contiguous kContiguous = kContiguousIndex;
  using Slice = TensorSlice<Tile, kContiguous>;

  const float* data;  // of the next slice
  std::int64_t ld;
  std::int64_t rows;     // from there to the end of the matrix, which may lie inside the slice
  std::int64_t columns;  // likewise
  int bytes;             // of a copy

  BRACKET_DEVICE MatrixSlices(const DeviceMatrix<float>& matrix, std::int64_t first_outer, std::int64_t first_p)
      : ld(matrix.ld), bytes(copy_bytes(matrix)) {
    const std::int64_t first_row = Slice::kRowsAreOuter ? first_outer : first_p;
    const std::int64_t first_column = Slice::kRowsAreOuter ? first_p : first_outer;
    data = matrix.row(first_row) + first_column;
    rows = matrix.rows - first_row;
    columns = matrix.cols - first_column;
  }

  BRACKET_DEVICE void copy(float* slice) {
    with_copy_bytes(bytes, [&]<int kBytes>() { copy_vectors<kBytes>(slice); });
    if constexpr (Slice::kRowsAreOuter) {
      data += kSlice;
      columns -= kSlice;
    } else {
      data += kSlice * ld;
      rows -= kSlice;
    }
  }

 private:
  template <int kBytes>
  BRACKET_DEVICE void copy_vectors(float* slice) const {
    using Vectors = SliceVectors<Slice, kBytes>;
    const int column = Vectors::column();
    const std::int64_t left = columns - column;
    const int present = left >= Vectors::kWords ? kBytes : left > 0 ? static_cast<int>(left) * 4 : 0;
    const float* source = data + Vectors::first_row() * ld + column;
    BRACKET_UNROLL
    for (int row = 0; row < Slice::kRows; row += Vectors::kRowStep) {
      const int r = Vectors::first_row() + row;
      cp_async<kBytes>(slice + r * Slice::kPitch + column, source, r < rows ? present : 0);
      source += Vectors::kRowStep * ld;
    }
  }
};

template <class Tile>
using TileSums = float[Tile::kMmaRows][Tile::kMmaColumns][4];

/// What this lane multiplies of 8 kHalves rows of A, or columns of B, from `outer` on in the step that begins at p.
template <class Slice, int kHalves, int kQuads>
BRACKET_DEVICE void read_step(float (&x)[kHalves][kQuads], const float* slice, int outer, int p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  BRACKET_UNROLL
  for (int half = 0; half < kHalves; ++half) {
    BRACKET_UNROLL
    for (int quad = 0; quad < kQuads; ++quad) {
      x[half][quad] = slice[Slice::offset(outer + 8 * half + lane / 4, p + 4 * quad + lane % 4)];
    }
  }
}

/// sums += A B over the step of a slice that begins at p.
template <MathMode kMode, class A, class B>
BRACKET_DEVICE void multiply_step(TileSums<typename A::Slice::Tile>& sums, const float* a_slice, const float* b_slice,
                                  int p) {
  using Math = TensorMath<kMode>;
  using Tile = typename A::Slice::Tile;
  typename Math::template Fragment<1> b[Tile::kMmaColumns];
  BRACKET_UNROLL
  for (int j = 0; j < Tile::kMmaColumns; ++j) {
    float x[1][Math::kQuads];
    read_step<typename B::Slice>(x, b_slice, Tile::warp_column() + 8 * j, p);
    Math::template round<1>(b[j], x);
  }
  BRACKET_UNROLL
  for (int i = 0; i < Tile::kMmaRows; ++i) {
    typename Math::template Fragment<2> a;
    float x[2][Math::kQuads];
    read_step<typename A::Slice>(x, a_slice, Tile::warp_row() + 16 * i, p);
    Math::template round<2>(a, x);
    BRACKET_UNROLL
    for (int j = 0; j < Tile::kMmaColumns; ++j) Math::multiply(sums[i][j], a, b[j]);
  }
}

/// sums += A B over one slice. Unrolled, the loads of one step hide behind the instructions of the one before; tf32x3
/// has instructions enough in each step, and no registers to spare.
template <MathMode kMode, class A, class B>
BRACKET_DEVICE void multiply_slices(TileSums<typename A::Slice::Tile>& sums, const float* a_slice,
                                    const float* b_slice) {
  constexpr int kStep = 4 * TensorMath<kMode>::kQuads;
  if constexpr (kMode == MathMode::tf32x3) {
    BRACKET_NO_UNROLL
    for (int p = 0; p < kSlice; p += kStep) multiply_step<kMode, A, B>(sums, a_slice, b_slice, p);
  } else {
    BRACKET_UNROLL
    for (int p = 0; p < kSlice; p += kStep) multiply_step<kMode, A, B>(sums, a_slice, b_slice, p);
  }
}

template <class Tile>
BRACKET_DEVICE void clear(TileSums<Tile>& sums) {
  BRACKET_UNROLL
  for (int i = 0; i < Tile::kMmaRows; ++i) {
    BRACKET_UNROLL
    for (int j = 0; j < Tile::kMmaColumns; ++j) {
      BRACKET_UNROLL
      for (int k = 0; k < 4; ++k) sums[i][j][k] = 0;
    }
  }
}

/// All items of this block; all its threads take part, once. `shared` holds kTensorSharedBytes<A, B>.
template <MathMode kMode, class Work>
BRACKET_DEVICE void tensor_products(const Work& work, float* shared) {
  using A = typename Work::A;
  using B = typename Work::B;
  using Tile = typename A::Slice::Tile;
  int multiplied = work.first();
  if (multiplied >= work.items) return;  // the whole block
  int copied = multiplied;               // ahead by the slices in the ring
  A a = work.a(copied);
  B b = work.b(copied);
  int to_copy = work.slices(copied);
  int to_multiply = to_copy;
  TileSums<Tile> sums;
  clear<Tile>(sums);
  float* const b_shared = shared + kTensorStages * A::Slice::kFloats;
  int read = 1;  // the place of the slice to multiply, modulo kTensorStages; those of the first turns are no slices
  int written = 0;
  for (int filling = kTensorStages - 1;;) {
    if (filling == 0) {
      // One group per turn: the slice to multiply is in all but the newest kTensorStages - 2.
      cp_async_wait<kTensorStages - 2>();
      __syncthreads();
    }
    if (to_copy > 0) {
      a.copy(shared + written * A::Slice::kFloats);
      b.copy(b_shared + written * B::Slice::kFloats);
      if (--to_copy == 0) {
        copied = work.next(copied);
        if (copied < work.items) {
          a = work.a(copied);
          b = work.b(copied);
          to_copy = work.slices(copied);
        }
      }
    }
    cp_async_commit();
    if (filling > 0) {
      --filling;
    } else {
      multiply_slices<kMode, A, B>(sums, shared + read * A::Slice::kFloats, b_shared + read * B::Slice::kFloats);
      if (--to_multiply == 0) {
        work.store(multiplied, sums);
        multiplied = work.next(multiplied);
        if (multiplied >= work.items) return;
        clear<Tile>(sums);
        to_multiply = work.slices(multiplied);
      }
    }
    read = read == kTensorStages - 1 ? 0 : read + 1;
    written = written == kTensorStages - 1 ? 0 : written + 1;
  }
}

/// f(row, column, two neighbouring sums) for every pair of this lane: the place of the first one in the tile.
template <class Tile, class F>
BRACKET_DEVICE void for_each_pair(const TileSums<Tile>& sums, const F& f) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  BRACKET_UNROLL
  for (int i = 0; i < Tile::kMmaRows; ++i) {
    BRACKET_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = Tile::warp_row() + 16 * i + 8 * half + lane / 4;
      BRACKET_UNROLL
      for (int j = 0; j < Tile::kMmaColumns; ++j) {
        f(row, Tile::warp_column() + 8 * j + 2 * (lane % 4), sums[i][j][2 * half], sums[i][j][2 * half + 1]);
      }
    }
  }
}

}  // namespace bracket::BRACKET_TARGET
