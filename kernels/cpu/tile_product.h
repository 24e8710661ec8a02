// Products of small matrices, C (+)= A B, from register tiles: up to six rows by two packets of C stay in registers
// while one column of A and one row of B pass by. Neither operand is packed: A is read element by element, in either
// order, and rows of B are whole packets. That is where it gains on a general product: 48 x 64 x 64, a panel of a step
// on 2-D data, takes 4.3 us where Eigen takes 4.7 (one core of an EPYC 7003 at full clock, float).
//
// An element of C is one sum over the depth in order (multiply_by_few: of four packets of partial sums), of fused
// multiply-adds where the processor has them; in an order that the shapes alone decide.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_product_avx512.h"

namespace bracket {

template <class T>
using Packet = typename Eigen::internal::packet_traits<T>::type;
template <class T>
inline constexpr std::int64_t kLanes = Eigen::internal::packet_traits<T>::size;

inline constexpr std::int64_t kTileRows = 6;
inline constexpr int kTilePackets = 2;
/// Of results with one or two rows: enough sums to hide the latency of an addition.
inline constexpr int kFlatTilePackets = 6;
inline constexpr std::int64_t kFlatRows = 2;
/// Left operands of up to this depth stay in registers while a row of the result is written.
inline constexpr std::int64_t kShallowDepth = 2;
/// Depth of a block: its strip of B, two packets wide, takes half of the first-level cache.
inline constexpr std::int64_t kTileDepth = 256;
/// Right operands beyond this are left to Eigen, which packs. GFLOP/s of both for 48 rows, one core of an EPYC 7003:
/// 82 and 71 at 64 KiB, 84 and 87 at 128, 76 and 85 at 512, 70 and 83 at 1,024.
inline constexpr std::int64_t kMaxTileBytes = std::int64_t{128} << 10;

template <class T, int kRows, int kPackets>
void multiply_tile(T* c, std::int64_t ldc, const LeftOperand<T>& a, const T* b, std::int64_t ldb, std::int64_t depth,
                   bool accumulate) {
  using Eigen::internal::ploadu, Eigen::internal::pset1, Eigen::internal::pmadd, Eigen::internal::pstoreu;
  Packet<T> sums[kRows][kPackets];
  for (int i = 0; i < kRows; ++i) {
    for (int p = 0; p < kPackets; ++p)
      sums[i][p] = accumulate ? ploadu<Packet<T>>(c + i * ldc + p * kLanes<T>) : pset1<Packet<T>>(T{0});
  }
  const T* left = a.data;
  for (std::int64_t k = 0; k < depth; ++k, left += a.depth_step, b += ldb) {
    Packet<T> right[kPackets];
    for (int p = 0; p < kPackets; ++p) right[p] = ploadu<Packet<T>>(b + p * kLanes<T>);
    for (int i = 0; i < kRows; ++i) {
      const Packet<T> value = pset1<Packet<T>>(left[i * a.row_step]);
      for (int p = 0; p < kPackets; ++p) sums[i][p] = pmadd(value, right[p], sums[i][p]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int p = 0; p < kPackets; ++p) pstoreu(c + i * ldc + p * kLanes<T>, sums[i][p]);
  }
}

template <class T, int kPackets>
void multiply_tile(std::int64_t rows, T* c, std::int64_t ldc, const LeftOperand<T>& a, const T* b, std::int64_t ldb,
                   std::int64_t depth, bool accumulate) {
  switch (rows) {
    case 1:
      return multiply_tile<T, 1, kPackets>(c, ldc, a, b, ldb, depth, accumulate);
    case 2:
      return multiply_tile<T, 2, kPackets>(c, ldc, a, b, ldb, depth, accumulate);
    case 3:
      return multiply_tile<T, 3, kPackets>(c, ldc, a, b, ldb, depth, accumulate);
    case 4:
      return multiply_tile<T, 4, kPackets>(c, ldc, a, b, ldb, depth, accumulate);
    case 5:
      return multiply_tile<T, 5, kPackets>(c, ldc, a, b, ldb, depth, accumulate);
    default:
      return multiply_tile<T, 6, kPackets>(c, ldc, a, b, ldb, depth, accumulate);
  }
}

template <class T>
void multiply_flat_tile(std::int64_t rows, T* c, std::int64_t ldc, const LeftOperand<T>& a, const T* b,
                        std::int64_t ldb, std::int64_t depth, bool accumulate) {
  if (rows == 1) return multiply_tile<T, 1, kFlatTilePackets>(c, ldc, a, b, ldb, depth, accumulate);
  multiply_tile<T, 2, kFlatTilePackets>(c, ldc, a, b, ldb, depth, accumulate);
}

/// The last columns, fewer than a packet: on copies that zeros fill up.
template <class T>
void multiply_last_columns(const Matrix<T>& c, std::int64_t row, std::int64_t rows, std::int64_t column,
                           const LeftOperand<T>& a, const T* strip, std::int64_t depth, bool accumulate) {
  T tile[kTileRows * kLanes<T>] = {};
  const std::int64_t width = c.cols - column;
  for (std::int64_t i = 0; accumulate && i < rows; ++i)
    std::copy_n(c.row(row + i) + column, width, tile + i * kLanes<T>);
  multiply_tile<T, 1>(rows, tile, kLanes<T>, a, strip, kLanes<T>, depth, accumulate);
  for (std::int64_t i = 0; i < rows; ++i) std::copy_n(tile + i * kLanes<T>, width, c.row(row + i) + column);
}

/// c (+)= a b for a depth of one or two, a row of c at a time: bound by writing c.
template <class T, int kDepth>
void multiply_shallow(const Matrix<T>& c, const LeftOperand<T>& a, const T* b, std::int64_t ldb, bool accumulate) {
  const T* last = b + (kDepth - 1) * ldb;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const T* left = a.data + i * a.row_step;
    const T x = left[0], x_last = left[(kDepth - 1) * a.depth_step];
    T* out = c.row(i);
    const auto product = [&](std::int64_t j) { return kDepth == 1 ? x * b[j] : x * b[j] + x_last * last[j]; };
    if (accumulate) {
#pragma omp simd
      for (std::int64_t j = 0; j < c.cols; ++j) out[j] += product(j);
    } else {
#pragma omp simd
      for (std::int64_t j = 0; j < c.cols; ++j) out[j] = product(j);
    }
  }
}

/// c (+)= a b by the packets that everything is compiled for.
template <class T>
void multiply_packet_tiles(const Matrix<T>& c, LeftOperand<T> a, const T* b, std::int64_t ldb, std::int64_t depth,
                           bool accumulate) {
  const std::int64_t wide = (c.rows <= kFlatRows ? kFlatTilePackets : kTilePackets) * kLanes<T>;
  const std::int64_t tiles = (c.rows + kTileRows - 1) / kTileRows;
  std::int64_t remaining = depth;
  do {  // once where the depth is 0: a sum of nothing overwrites, too
    const std::int64_t block = std::min(remaining, kTileDepth);
    std::int64_t width = 0;
    for (std::int64_t j = 0; j < c.cols; j += width) {
      const std::int64_t left = c.cols - j;
      width = left >= wide ? wide : std::min(left, kLanes<T>);
      T strip[kTileDepth * kLanes<T>];
      if (width < kLanes<T>) {
        for (std::int64_t k = 0; k < block; ++k) {
          std::copy_n(b + k * ldb + j, width, strip + k * kLanes<T>);
          std::fill_n(strip + k * kLanes<T> + width, kLanes<T> - width, T{0});
        }
      }
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        // Even heights: a tile of one row would wait for its own additions.
        const std::int64_t first = c.rows * tile / tiles, rows = c.rows * (tile + 1) / tiles - first;
        const LeftOperand<T> panel{a.data + first * a.row_step, a.row_step, a.depth_step};
        if (width < kLanes<T>) {
          multiply_last_columns(c, first, rows, j, panel, strip, block, accumulate);
        } else if (width == kLanes<T>) {
          multiply_tile<T, 1>(rows, c.row(first) + j, c.ld, panel, b + j, ldb, block, accumulate);
        } else if (c.rows <= kFlatRows) {
          multiply_flat_tile<T>(rows, c.row(first) + j, c.ld, panel, b + j, ldb, block, accumulate);
        } else {
          multiply_tile<T, kTilePackets>(rows, c.row(first) + j, c.ld, panel, b + j, ldb, block, accumulate);
        }
      }
    }
    a.data += block * a.depth_step;
    b += block * ldb;
    remaining -= block;
    accumulate = true;
  } while (remaining > 0);
}

/// c (+)= a b; b [depth, c.cols], rows `ldb` apart.
template <class T>
void multiply_tiles(const Matrix<T>& c, const LeftOperand<T>& a, const T* b, std::int64_t ldb, std::int64_t depth,
                    Update update) {
  const bool accumulate = update == Update::accumulate;
  if (depth == 1) return multiply_shallow<T, 1>(c, a, b, ldb, accumulate);
  if (depth == kShallowDepth) return multiply_shallow<T, kShallowDepth>(c, a, b, ldb, accumulate);
  if (has_avx512_tiles() && c.rows > kFlatRows && c.cols > kLanes<T>)
    return multiply_tiles_avx512(c, a, b, ldb, depth, accumulate);
  multiply_packet_tiles(c, a, b, ldb, depth, accumulate);
}

/// c (+)= a b^T for few columns of c: dot products of rows of a [c.rows, depth] and b [c.cols, depth].
template <class T>
void multiply_by_few(const Matrix<T>& c, const Matrix<T>& a, const T* b, std::int64_t ldb, Update update) {
  using Eigen::internal::ploadu, Eigen::internal::pset1, Eigen::internal::pmadd, Eigen::internal::padd,
      Eigen::internal::predux;
  constexpr int kSums = 4;
  const std::int64_t depth = a.cols;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const T* left = a.row(i);
    for (std::int64_t j = 0; j < c.cols; ++j) {
      const T* right = b + j * ldb;
      Packet<T> sums[kSums];
      for (auto& sum : sums) sum = pset1<Packet<T>>(T{0});
      std::int64_t k = 0;
      for (; k + kSums * kLanes<T> <= depth; k += kSums * kLanes<T>) {
        for (int s = 0; s < kSums; ++s) {
          const std::int64_t at = k + s * kLanes<T>;
          sums[s] = pmadd(ploadu<Packet<T>>(left + at), ploadu<Packet<T>>(right + at), sums[s]);
        }
      }
      for (; k + kLanes<T> <= depth; k += kLanes<T>)
        sums[0] = pmadd(ploadu<Packet<T>>(left + k), ploadu<Packet<T>>(right + k), sums[0]);
      T dot = predux(padd(padd(sums[0], sums[1]), padd(sums[2], sums[3])));
      for (; k < depth; ++k) dot += left[k] * right[k];
      T& out = c.row(i)[j];
      out = update == Update::accumulate ? out + dot : dot;
    }
  }
}

/// to [m.cols, m.rows], rows `ld` apart.
template <class T>
void transpose(T* to, std::int64_t ld, const Matrix<T>& m) {
  Eigen::Map<Dense<T>, Eigen::Unaligned, Eigen::OuterStride<>>(to, m.cols, m.rows, Eigen::OuterStride<>(ld)) =
      rows_of(m, 0, m.rows).transpose();
}

}  // namespace bracket
