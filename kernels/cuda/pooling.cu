// Windows that tile images, rows in the order (y, x, channel):
//   window_sum      y_p (+)= scale * sum of x over the window of p        x [r, H W C], y [r, H/w W/w C]
//   window_spread   y (+)= scale * x_p of the window it lies in           x [r, H/w W/w C], y [r, H W C]
//   max_pool        y_p = largest x of the window of p, choice u8 = its place; grad_x = grad_y at the place, else 0
//
// Bytes        window_sum (1 + 1/w^2) b per large element (b = 4 or 8) and b/w^2 to accumulate; window_spread
//              (1 + 1/w^2) b and b to accumulate; max_pool, both ways, (1 + 1/w^2) b and 1/w^2. Flops at most 2:
//              bound by memory.
// Alignment    that of the element; neighbouring threads touch neighbouring channels. Rows may be strided.
// Aliasing     none. Determinism: a thread adds its window in the order (y, x).
//
// Variant      idea                                    measured
// plain        one thread per element of the output    not yet measured on a GPU
//              (sm_90: at most 40 registers, no spills)
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// Eight warps hide the latency of the loads of one another; no shared memory, so occupancy depends on registers alone.
constexpr int kThreads = 256;

/// Channel and pixel of an element of an image of `width` pixels a row.
struct PixelPosition {
  std::int64_t y, x, channel;
  BRACKET_DEVICE PixelPosition(std::int64_t column, std::int64_t width, std::int64_t channels) {
    const Division pixel(column, channels);
    const Division row(pixel.quotient, width);
    y = row.quotient;
    x = row.rest;
    channel = pixel.rest;
  }
};

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    window_sum_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, Window map, T scale, bool overwrite) {
  for (std::int64_t item = first_item(); item < y.size(); item += item_stride()) {
    const Division at(item, y.cols);
    const PixelPosition small(at.rest, map.width / map.window, map.channels);
    const T* const corner =
        x.row(at.quotient) + (small.y * map.width + small.x) * map.window * map.channels + small.channel;
    T sum = 0;
    for (std::int64_t ky = 0; ky < map.window; ++ky) {
      for (std::int64_t kx = 0; kx < map.window; ++kx) sum += corner[(ky * map.width + kx) * map.channels];
    }
    T& target = y.row(at.quotient)[at.rest];
    target = overwrite ? scale * sum : target + scale * sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    window_spread_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, Window map, T scale, bool overwrite) {
  for (std::int64_t item = first_item(); item < y.size(); item += item_stride()) {
    const Division at(item, y.cols);
    const PixelPosition large(at.rest, map.width, map.channels);
    const std::int64_t pixel =
        Division(large.y, map.window).quotient * (map.width / map.window) + Division(large.x, map.window).quotient;
    const T value = scale * x.row(at.quotient)[pixel * map.channels + large.channel];
    T& target = y.row(at.quotient)[at.rest];
    target = overwrite ? value : target + value;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    max_pool_forward_kernel(DeviceMatrix<T> y, DeviceMatrix<std::uint8_t> choice, DeviceMatrix<T> x, Window map) {
  for (std::int64_t item = first_item(); item < y.size(); item += item_stride()) {
    const Division at(item, y.cols);
    const PixelPosition small(at.rest, map.width / map.window, map.channels);
    const T* const corner =
        x.row(at.quotient) + (small.y * map.width + small.x) * map.window * map.channels + small.channel;
    T best = *corner;
    std::int64_t place = 0;
    for (std::int64_t k = 1; k < map.window * map.window; ++k) {
      const Division in_window(k, map.window);
      const T value = corner[(in_window.quotient * map.width + in_window.rest) * map.channels];
      if (!(value <= best) && best == best) {
        best = value;
        place = k;
      }
    }
    y.row(at.quotient)[at.rest] = best;
    choice.row(at.quotient)[at.rest] = static_cast<std::uint8_t>(place);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) max_pool_reverse_kernel(DeviceMatrix<T> grad_x, DeviceMatrix<T> grad_y,
                                                                    DeviceMatrix<std::uint8_t> choice, Window map) {
  for (std::int64_t item = first_item(); item < grad_x.size(); item += item_stride()) {
    const Division at(item, grad_x.cols);
    const PixelPosition large(at.rest, map.width, map.channels);
    const Division y(large.y, map.window), x(large.x, map.window);
    const std::int64_t column = (y.quotient * (map.width / map.window) + x.quotient) * map.channels + large.channel;
    const bool chosen = choice.row(at.quotient)[column] == y.rest * map.window + x.rest;
    grad_x.row(at.quotient)[at.rest] = chosen ? grad_y.row(at.quotient)[column] : T{0};
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
cudaError_t window_sum(const Tensor& y, const Tensor& x, const Window& map, Update update, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<window_sum_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, device_matrix<T>(y),
                                      device_matrix<T>(x), map, static_cast<T>(map.scale), update == Update::overwrite);
}

template <class T>
cudaError_t window_spread(const Tensor& y, const Tensor& x, const Window& map, Update update, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<window_spread_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, device_matrix<T>(y),
                                         device_matrix<T>(x), map, static_cast<T>(map.scale),
                                         update == Update::overwrite);
}

template <class T>
cudaError_t max_pool_forward(const Tensor& y, const Tensor& choice, const Tensor& x, const Window& map,
                             cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<max_pool_forward_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, device_matrix<T>(y),
                                            device_matrix<std::uint8_t>(choice), device_matrix<T>(x), map);
}

template <class T>
cudaError_t max_pool_reverse(const Tensor& grad_x, const Tensor& grad_y, const Tensor& choice, const Window& map,
                             cudaStream_t stream) {
  if (grad_x.size() == 0) return cudaSuccess;
  return launch<max_pool_reverse_kernel<T>>(blocks_for(grad_x.size(), kThreads), kThreads, 0, stream,
                                            device_matrix<T>(grad_x), device_matrix<T>(grad_y),
                                            device_matrix<std::uint8_t>(choice), map);
}

}  // namespace

void CudaOps::do_window_sum(Tensor y, Tensor x, const Window& map, Update update) {
  check(dispatch(x.dtype(), [&]<class T>() { return BRACKET_TARGET::window_sum<T>(y, x, map, update, stream_); }),
        "window_sum", x);
}

void CudaOps::do_window_spread(Tensor y, Tensor x, const Window& map, Update update) {
  check(dispatch(x.dtype(), [&]<class T>() { return BRACKET_TARGET::window_spread<T>(y, x, map, update, stream_); }),
        "window_spread", x);
}

void CudaOps::do_max_pool_forward(Tensor y, Tensor choice, Tensor x, const Window& map) {
  check(dispatch(x.dtype(), [&]<class T>() { return BRACKET_TARGET::max_pool_forward<T>(y, choice, x, map, stream_); }),
        "max_pool_forward", x);
}

void CudaOps::do_max_pool_reverse(Tensor grad_x, Tensor grad_y, Tensor choice, const Window& map) {
  check(dispatch(grad_x.dtype(),
                 [&]<class T>() { return BRACKET_TARGET::max_pool_reverse<T>(grad_x, grad_y, choice, map, stream_); }),
        "max_pool_reverse", grad_x);
}

}  // namespace bracket::BRACKET_TARGET
