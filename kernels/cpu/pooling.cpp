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
        visit_pixels(map, [&](std::int64_t large, std::int64_t small, std::int64_t) {
#pragma omp simd
          for (std::int64_t c = 0; c < map.channels; ++c) to[small + c] += scale * from[large + c];
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
        if (update == Update::overwrite) {
          visit_pixels(map, [&](std::int64_t large, std::int64_t small, std::int64_t) {
#pragma omp simd
            for (std::int64_t c = 0; c < map.channels; ++c) to[large + c] = scale * from[small + c];
          });
        } else {
          visit_pixels(map, [&](std::int64_t large, std::int64_t small, std::int64_t) {
#pragma omp simd
            for (std::int64_t c = 0; c < map.channels; ++c) to[large + c] += scale * from[small + c];
          });
        }
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
          const auto here = static_cast<std::uint8_t>(place);
#pragma omp simd
          for (std::int64_t c = 0; c < map.channels; ++c) {
            const bool better = from[c] > best[c] || from[c] != from[c];
            at[c] = better ? here : at[c];
            best[c] = better ? from[c] : best[c];
          }
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
