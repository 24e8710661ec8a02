// Windows that tile images: sums over them (average and sum pool) and spreads into them (nearest upsample), each the
// adjoint of the other; and the largest element of each with its place. A row is an image in the order (y, x, channel);
// loops run over channels innermost, where memory is contiguous in both images.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"

namespace bracket {
namespace {

/// Per element of the large image, in the unit of parallel_rows; bound by memory.
constexpr std::int64_t kFlopsPerElement = 2;

/// Calls f(large_offset, small_offset, place in the window) for every pixel of the large image, row by row.
template <class F>
void visit_pixels(const Window& map, F&& f) {
  const std::int64_t small_width = map.width / map.window;
  for (std::int64_t y = 0; y < map.height; ++y) {
    const std::int64_t small_row = y / map.window * small_width;
    for (std::int64_t x = 0; x < small_width; ++x) {
      for (std::int64_t kx = 0; kx < map.window; ++kx) {
        f((y * map.width + x * map.window + kx) * map.channels, (small_row + x) * map.channels,
          y % map.window * map.window + kx);
      }
    }
  }
}

/// Calls f.operator()<kChannels>() with 1 or 3 where that is the number of channels, else 0. Loops of a known length
/// need no set-up for every pixel.
template <class F>
void dispatch_channels(std::int64_t channels, F&& f) {
  if (channels == 1) return f.template operator()<1>();
  if (channels == 3) return f.template operator()<3>();
  f.template operator()<0>();
}

/// to[c] += scale from[c], kChannels or (0) `channels` of them.
template <int kChannels, class T>
void add_scaled(T* to, const T* from, T scale, std::int64_t channels) {
  const std::int64_t count = kChannels > 0 ? kChannels : channels;
#pragma omp simd
  for (std::int64_t c = 0; c < count; ++c) to[c] += scale * from[c];
}

template <int kChannels, class T>
void copy_scaled(T* to, const T* from, T scale, std::int64_t channels) {
  const std::int64_t count = kChannels > 0 ? kChannels : channels;
#pragma omp simd
  for (std::int64_t c = 0; c < count; ++c) to[c] = scale * from[c];
}

/// Channels compared at once by the largest-element scan; their flags stay in the first-level cache.
constexpr std::int64_t kScan = 256;

/// Where from[c] is larger than best[c], or no number, it takes its place, and at[c] becomes `place`. Three loops, of
/// one element size each: of a single one the compiler makes no vectors.
template <class T>
void take_larger(T* best, std::uint8_t* at, const T* from, std::uint8_t place, std::int64_t channels) {
  std::uint8_t better[kScan];
  for (std::int64_t first = 0; first < channels; first += kScan) {
    const std::int64_t count = std::min(kScan, channels - first);
    const T* const values = from + first;
    T* const largest = best + first;
    std::uint8_t* const places = at + first;
#pragma omp simd
    for (std::int64_t c = 0; c < count; ++c) better[c] = !(values[c] <= largest[c]) && largest[c] == largest[c] ? 1 : 0;
#pragma omp simd
    for (std::int64_t c = 0; c < count; ++c) largest[c] = better[c] != 0 ? values[c] : largest[c];
#pragma omp simd
    for (std::int64_t c = 0; c < count; ++c) places[c] = better[c] != 0 ? place : places[c];
  }
}

}  // namespace

void CpuOps::do_window_sum(Tensor y, Tensor x, const Window& map, Update update) {
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), in = matrix<T>(x);
    const T scale = static_cast<T>(map.scale);
    const auto images = [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* const to = out.row(i);
        const T* const from = in.row(i);
        if (update == Update::overwrite) std::fill_n(to, out.cols, T{0});
        dispatch_channels(map.channels, [&]<int kChannels>() {
          visit_pixels(map, [&](std::int64_t large, std::int64_t small, std::int64_t) {
            add_scaled<kChannels>(to + small, from + large, scale, map.channels);
          });
        });
      }
    };
    parallel_rows(in.rows, kFlopsPerElement * in.cols, team_, images, 1);
  });
}

void CpuOps::do_window_spread(Tensor y, Tensor x, const Window& map, Update update) {
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), in = matrix<T>(x);
    const T scale = static_cast<T>(map.scale);
    const auto images = [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* const to = out.row(i);
        const T* const from = in.row(i);
        dispatch_channels(map.channels, [&]<int kChannels>() {
          visit_pixels(map, [&](std::int64_t large, std::int64_t small, std::int64_t) {
            if (update == Update::overwrite) {
              copy_scaled<kChannels>(to + large, from + small, scale, map.channels);
            } else {
              add_scaled<kChannels>(to + large, from + small, scale, map.channels);
            }
          });
        });
      }
    };
    parallel_rows(out.rows, kFlopsPerElement * out.cols, team_, images, 1);
  });
}

void CpuOps::do_max_pool_forward(Tensor y, Tensor choice, Tensor x, const Window& map) {
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), in = matrix<T>(x);
    const Matrix<std::uint8_t> places = matrix<std::uint8_t>(choice);
    const auto images = [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        visit_pixels(map, [&](std::int64_t large, std::int64_t small, std::int64_t place) {
          T* const best = out.row(i) + small;
          std::uint8_t* const at = places.row(i) + small;
          const T* const from = in.row(i) + large;
          if (place == 0) {
            std::copy_n(from, map.channels, best);
            std::fill_n(at, map.channels, std::uint8_t{0});
            return;
          }
          take_larger(best, at, from, static_cast<std::uint8_t>(place), map.channels);
        });
      }
    };
    parallel_rows(in.rows, kFlopsPerElement * in.cols, team_, images, 1);
  });
}

void CpuOps::do_max_pool_reverse(Tensor grad_x, Tensor grad_y, Tensor choice, const Window& map) {
  dispatch(grad_x.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(grad_x), seed = matrix<T>(grad_y);
    const Matrix<std::uint8_t> places = matrix<std::uint8_t>(choice);
    const auto images = [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        visit_pixels(map, [&](std::int64_t large, std::int64_t small, std::int64_t place) {
          T* const to = out.row(i) + large;
          const T* const from = seed.row(i) + small;
          const std::uint8_t* const at = places.row(i) + small;
#pragma omp simd
          for (std::int64_t c = 0; c < map.channels; ++c) to[c] = at[c] == place ? from[c] : T{0};
        });
      }
    };
    parallel_rows(out.rows, kFlopsPerElement * out.cols, team_, images, 1);
  });
}

}  // namespace bracket
