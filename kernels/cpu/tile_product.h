// Products of matrices, C (+)= A B, from register tiles: up to six rows by two packets of C (twelve by two or six by
// four with AVX-512) stay in registers while one column of A and one row of B pass by. A is read element by element, in
// either order, and rows of B are whole packets; of a large B, strips are copied to where they lie together.
//
// An element of C is one sum over the depth in order (multiply_by_few: of four packets of partial sums), of fused
// multiply-adds where the processor has them: the same bits for any tiles, panels and threads.
//
// GFLOP/s on one thread of a Xeon with AVX-512, float, medians of 40 taken in turn (2026-12-01; in whole layers:
// bench/results/linear_cpu.json):
//   C rows x columns, depth     Eigen, AVX2    these, AVX2    these, AVX-512
//    48 x   64,   64                 -              81             155
//   104 x  100,  100                 -              74             136
//   256 x  512,  256                69              75             142
//   256 x  256,  576                79              77             147
//    64 x 8192,  128                63              59             112
//   512 x  256,  256 (A^T)          76              75             146
#pragma once

#include <algorithm>
#include <cmath>
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
/// Larger right operands are copied strip by strip: their rows are so far apart that they would fall into a few sets of
/// the first-level cache. GFLOP/s without copies for 48 rows, one core of an EPYC 7003: 82 at 64 KiB, 84 at 128, 76 at
/// 512, 70 at 1,024.
inline constexpr std::int64_t kMaxTileBytes = std::int64_t{128} << 10;
/// Such a strip: 24 KiB of a first-level cache of 32; 32 of the 48 that processors with AVX-512 have, worth 8 % there.
inline constexpr std::int64_t kStripBytes = 256;
inline constexpr std::int64_t kStripDepth = 96;
inline constexpr std::int64_t kAvx512StripDepth = 128;

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

template <class T>
T multiply_add(T a, T b, T c) {
#ifdef __FMA__
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// c (+)= a b for a depth of one or two, a row of c at a time: bound by writing c.
template <class T, int kDepth>
void multiply_shallow(const Matrix<T>& c, const LeftOperand<T>& a, const T* b, std::int64_t ldb, bool accumulate) {
  const T* last = b + (kDepth - 1) * ldb;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const T* left = a.data + i * a.row_step;
    const T x = left[0], x_last = left[(kDepth - 1) * a.depth_step];
    T* out = c.row(i);
    const auto sum = [&](std::int64_t j, T first) {
      const T one = multiply_add(x, b[j], first);
      return kDepth == 1 ? one : multiply_add(x_last, last[j], one);
    };
    if (accumulate) {
#pragma omp simd
      for (std::int64_t j = 0; j < c.cols; ++j) out[j] = sum(j, out[j]);
    } else {
#pragma omp simd
      for (std::int64_t j = 0; j < c.cols; ++j) out[j] = sum(j, T{0});
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

/// Columns of a strip of a large right operand.
template <class T>
inline constexpr std::int64_t kStripCols = kStripBytes / static_cast<std::int64_t>(sizeof(T));

/// A right operand [depth, cols] in strips of kStripCols columns, each with its rows behind one another.
template <class T>
struct StripOperand {
  T* data = nullptr;
  std::int64_t depth = 0;
  std::int64_t cols = 0;

  static std::int64_t elements(std::int64_t depth, std::int64_t cols) {
    return (cols + kStripCols<T> - 1) / kStripCols<T> * kStripCols<T> * depth;
  }
  /// Row k of the strip that begins with column j.
  T* strip(std::int64_t k, std::int64_t j) const { return data + (j / kStripCols<T> * depth + k) * kStripCols<T>; }
  /// Rows from the first on.
  StripOperand rows_from(std::int64_t first) const { return {data + first * kStripCols<T>, depth, cols}; }
};

/// c (+)= a b, where strip_of(k, j, rows, width) is that part of b, with rows kStripCols apart.
template <class T, class StripOf>
void multiply_by_strips(const Matrix<T>& c, const LeftOperand<T>& a, std::int64_t depth, Update update,
                        StripOf&& strip_of) {
  const std::int64_t step = has_avx512_tiles() ? kAvx512StripDepth : kStripDepth;
  std::int64_t k = 0;
  do {  // once where the depth is 0: a sum of nothing overwrites, too
    const std::int64_t rows = std::min(step, depth - k);
    for (std::int64_t j = 0; j < c.cols; j += kStripCols<T>) {
      const std::int64_t width = std::min(kStripCols<T>, c.cols - j);
      multiply_tiles(Matrix<T>{c.data + j, c.rows, width, c.ld}, {a.data + k * a.depth_step, a.row_step, a.depth_step},
                     strip_of(k, j, rows, width), kStripCols<T>, rows, k > 0 ? Update::accumulate : update);
    }
    k += step;
  } while (k < depth);
}

/// c (+)= a b for the first `depth` rows of b.
template <class T>
void multiply_strips(const Matrix<T>& c, const LeftOperand<T>& a, const StripOperand<T>& b, std::int64_t depth,
                     Update update) {
  multiply_by_strips(c, a, depth, update,
                     [&](std::int64_t k, std::int64_t j, std::int64_t, std::int64_t) { return b.strip(k, j); });
}

/// multiply_tiles for right operands of any size.
template <class T>
void multiply_panel(const Matrix<T>& c, const LeftOperand<T>& a, const T* b, std::int64_t ldb, std::int64_t depth,
                    Update update) {
  if (depth * c.cols <= kMaxTileBytes / static_cast<std::int64_t>(sizeof(T)))
    return multiply_tiles(c, a, b, ldb, depth, update);
  alignas(64) T strip[kStripCols<T> * kAvx512StripDepth];
  multiply_by_strips(c, a, depth, update, [&](std::int64_t k, std::int64_t j, std::int64_t rows, std::int64_t width) {
    for (std::int64_t i = 0; i < rows; ++i) std::copy_n(b + (k + i) * ldb + j, width, strip + i * kStripCols<T>);
    return strip;
  });
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

template <class T>
Matrix<T> rows_from(const Matrix<T>& m, std::int64_t first, std::int64_t count) {
  return {m.row(first), count, m.cols, m.ld};
}

struct TransposedWeights;

/// w^T in memory of the calling thread.
template <class T>
StripOperand<T> transposed(const Matrix<T>& w, ThreadTeam& team) {
  const std::int64_t size = StripOperand<T>::elements(w.cols, w.rows);
  const StripOperand<T> result{thread_buffer<T, TransposedWeights>(size), w.cols, w.rows};
  const std::int64_t strips = (w.rows + kStripCols<T> - 1) / kStripCols<T>;
  parallel_tasks(strips, size * kWriteCost, team, [&](std::int64_t s) {
    const std::int64_t first = s * kStripCols<T>, count = std::min(kStripCols<T>, w.rows - first);
    View<T>(result.strip(0, first), w.cols, count, Eigen::OuterStride<>(kStripCols<T>)) =
        rows_of(w, first, count).transpose();
  });
  return result;
}

}  // namespace bracket
