// Kernels of convolutions summed over boxes of taps, and the adjoint: every tap of the result is scale times a sum of
// taps of the source. Loops run over the channels that both sides keep contiguous; where the two sides order the
// channels otherwise, over tiles that a first-level cache holds.
#include "kernels/formula/kernel_box.h"

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kTile = 32;
/// Per element of the result, in the unit of parallel_rows; bound by memory.
constexpr std::int64_t kFlopsPerElement = 4;

/// A kernel [rows, (size, size, channels)].
template <class T>
struct Taps {
  Matrix<T> matrix;
  std::int64_t size, channels;
  T* at(std::int64_t row, std::int64_t y, std::int64_t x) const { return matrix.row(row) + (y * size + x) * channels; }
};

/// sums[0, count) = the sum of source[row, y, x, first + .] over the taps of a box.
template <class T>
void add_box(T* sums, const Taps<T>& source, std::int64_t row, const formula::TapRange& ys, const formula::TapRange& xs,
             std::int64_t first, std::int64_t count) {
  std::fill_n(sums, count, T{0});
  for (std::int64_t y = ys.first; y <= ys.last; ++y) {
    for (std::int64_t x = xs.first; x <= xs.last; ++x) {
      const T* const from = source.at(row, y, x) + first;
#pragma omp simd
      for (std::int64_t c = 0; c < count; ++c) sums[c] += from[c];
    }
  }
}

template <class T>
void put(T& target, T value, Update update) {
  target = update == Update::accumulate ? target + value : value;
}

/// target[a, t, b] (+)= scale * the sum of source[a, s, b], or of source[b, s, a], over the taps s of range_of(t).
template <class T, class RangeOf>
void sum_boxes(const Taps<T>& target, const Taps<T>& source, bool swapped, T scale, Update update, ThreadTeam& team,
               const RangeOf& range_of) {
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    T sums[kTile][kTile];
    for (std::int64_t first = begin; first < end; first += kTile) {
      const std::int64_t count = std::min(kTile, end - first);
      for (std::int64_t tap = 0; tap < target.size * target.size; ++tap) {
        const std::int64_t y = tap / target.size, x = tap % target.size;
        for (std::int64_t column = 0; column < target.channels; column += kTile) {
          const std::int64_t width = std::min(kTile, target.channels - column);
          for (std::int64_t i = 0; i < (swapped ? width : count); ++i) {
            if (swapped)
              add_box(sums[i], source, column + i, range_of(y), range_of(x), first, count);
            else
              add_box(sums[i], source, first + i, range_of(y), range_of(x), column, width);
          }
          for (std::int64_t i = 0; i < count; ++i) {
            T* const to = target.at(first + i, y, x) + column;
            for (std::int64_t j = 0; j < width; ++j) put(to[j], scale * (swapped ? sums[j][i] : sums[i][j]), update);
          }
        }
      }
    }
  };
  parallel_rows(target.matrix.rows, kFlopsPerElement * target.matrix.cols, team, rows, kTile);
}

}  // namespace

void CpuOps::do_kernel_box_forward(Tensor y, Tensor w, const KernelBox& map) {
  dispatch(y.dtype(), [&]<class T>() {
    const std::int64_t channels = map.transposed ? map.out_channels : map.in_channels;
    sum_boxes(Taps<T>{matrix<T>(y), map.wide_kernel(), channels}, Taps<T>{matrix<T>(w), map.kernel, map.in_channels},
              map.transposed, static_cast<T>(map.scale), Update::overwrite, team_,
              [&](std::int64_t t) { return formula::kernel_taps(map, t); });
  });
}

void CpuOps::do_kernel_box_reverse(Tensor grad_w, Tensor grad_y, const KernelBox& map, Update update) {
  dispatch(grad_w.dtype(), [&]<class T>() {
    const std::int64_t channels = map.transposed ? map.out_channels : map.in_channels;
    sum_boxes(Taps<T>{matrix<T>(grad_w), map.kernel, map.in_channels},
              Taps<T>{matrix<T>(grad_y), map.wide_kernel(), channels}, map.transposed, static_cast<T>(map.scale),
              update, team_, [&](std::int64_t k) { return formula::wide_taps(map, k); });
  });
}

}  // namespace bracket
