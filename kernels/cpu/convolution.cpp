// Convolutions of images in NHWC rows, x [r, H W Ci], w [Co, k k Ci], y [r, Ho Wo Co].
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"

namespace bracket {
namespace {

/// f(out pixel, in pixel, tap) for every kernel element that lies on the image.
template <class F>
void for_each_tap(const Convolution& m, F&& f) {
  for (std::int64_t oy = 0; oy < m.out_height(); ++oy) {
    for (std::int64_t ox = 0; ox < m.out_width(); ++ox) {
      for (std::int64_t ky = 0; ky < m.kernel; ++ky) {
        const std::int64_t y = oy * m.stride + ky - m.padding;
        if (y < 0 || y >= m.in_height) continue;
        for (std::int64_t kx = 0; kx < m.kernel; ++kx) {
          const std::int64_t x = ox * m.stride + kx - m.padding;
          if (x < 0 || x >= m.in_width) continue;
          f(oy * m.out_width() + ox, y * m.in_width + x, ky * m.kernel + kx);
        }
      }
    }
  }
}

std::int64_t row_flops(const Convolution& m) { return 2 * m.out_columns() * m.weight_columns(); }

template <class T>
void forward(const Matrix<T>& y, const Matrix<T>& x, const Matrix<T>& w, const Convolution& m, ThreadTeam& team) {
  parallel_rows(y.rows, row_flops(m), team, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::fill(y.row(i), y.row(i) + y.cols, T{0});
      for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t tap) {
        const T* pixel = x.row(i) + in * m.in_channels;
        for (std::int64_t o = 0; o < m.out_channels; ++o) {
          const T* weights = w.row(o) + tap * m.in_channels;
          T sum = 0;
          for (std::int64_t c = 0; c < m.in_channels; ++c) sum += pixel[c] * weights[c];
          y.row(i)[out * m.out_channels + o] += sum;
        }
      });
    }
  });
}

template <class T>
void reverse_data(const Matrix<T>& grad_x, const Matrix<T>& grad_y, const Matrix<T>& w, const Convolution& m,
                  Update update, ThreadTeam& team) {
  parallel_rows(grad_x.rows, row_flops(m), team, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (update == Update::overwrite) std::fill(grad_x.row(i), grad_x.row(i) + grad_x.cols, T{0});
      for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t tap) {
        T* pixel = grad_x.row(i) + in * m.in_channels;
        for (std::int64_t o = 0; o < m.out_channels; ++o) {
          const T* weights = w.row(o) + tap * m.in_channels;
          const T factor = grad_y.row(i)[out * m.out_channels + o];
          for (std::int64_t c = 0; c < m.in_channels; ++c) pixel[c] += factor * weights[c];
        }
      });
    }
  });
}

template <class T>
void reverse_weights(const Matrix<T>& grad_w, const Matrix<T>& grad_y, const Matrix<T>& x, const Convolution& m,
                     Update update, ThreadTeam& team) {
  parallel_rows(grad_w.rows, x.rows * row_flops(m) / m.out_channels, team, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = begin; o < end; ++o) {
      if (update == Update::overwrite) std::fill(grad_w.row(o), grad_w.row(o) + grad_w.cols, T{0});
      for (std::int64_t i = 0; i < x.rows; ++i) {
        for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t tap) {
          const T* pixel = x.row(i) + in * m.in_channels;
          T* weights = grad_w.row(o) + tap * m.in_channels;
          const T factor = grad_y.row(i)[out * m.out_channels + o];
          for (std::int64_t c = 0; c < m.in_channels; ++c) weights[c] += factor * pixel[c];
        });
      }
    }
  });
}

}  // namespace

void CpuOps::do_conv2d_forward(Tensor y, Tensor x, Tensor w, const Convolution& map) {
  dispatch(y.dtype(), [&]<class T>() { forward(matrix<T>(y), matrix<T>(x), matrix<T>(w), map, team_); });
}

void CpuOps::do_conv2d_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, const Convolution& map, Update update) {
  dispatch(grad_x.dtype(),
           [&]<class T>() { reverse_data(matrix<T>(grad_x), matrix<T>(grad_y), matrix<T>(w), map, update, team_); });
}

void CpuOps::do_conv2d_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, const Convolution& map, Update update,
                                       Tensor /*workspace*/) {
  dispatch(grad_w.dtype(),
           [&]<class T>() { reverse_weights(matrix<T>(grad_w), matrix<T>(grad_y), matrix<T>(x), map, update, team_); });
}

}  // namespace bracket
