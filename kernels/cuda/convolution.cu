// Convolutions of images in NHWC rows, x [r, H W Ci], w [Co, k k Ci], y [r, Ho Wo Co]; see kernels/ops.h.
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ----------------------------------------------------------------------------------------------------

constexpr int kThreads = 256;

// ---- device helpers --------------------------------------------------------------------------------------------

/// A Convolution as kernels receive it. The op list keeps every product below 2^31.
struct Geometry {
  int in_height, in_width, in_channels;
  int out_height, out_width, out_channels;
  int kernel, stride, padding;

  explicit Geometry(const Convolution& map)
      : in_height(static_cast<int>(map.in_height)),
        in_width(static_cast<int>(map.in_width)),
        in_channels(static_cast<int>(map.in_channels)),
        out_height(static_cast<int>(map.out_height())),
        out_width(static_cast<int>(map.out_width())),
        out_channels(static_cast<int>(map.out_channels)),
        kernel(static_cast<int>(map.kernel)),
        stride(static_cast<int>(map.stride)),
        padding(static_cast<int>(map.padding)) {}
};

template <class T>
BRACKET_DEVICE void store(T& c, T sum, Update update) {
  c = update == Update::accumulate ? c + sum : sum;
}

// ---- kernels: plain --------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    conv2d_forward_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, DeviceMatrix<T> w, Geometry g) {
  for (std::int64_t item = first_item(); item < y.size(); item += item_stride()) {
    const T* image = x.row(item / y.cols);
    const int column = static_cast<int>(item % y.cols);
    const int out_x = column / g.out_channels % g.out_width;
    const int out_y = column / g.out_channels / g.out_width;
    const T* weights = w.row(column % g.out_channels);
    T sum = 0;
    for (int ky = 0; ky < g.kernel; ++ky) {
      const int in_y = out_y * g.stride + ky - g.padding;
      if (in_y < 0 || in_y >= g.in_height) continue;
      for (int kx = 0; kx < g.kernel; ++kx) {
        const int in_x = out_x * g.stride + kx - g.padding;
        if (in_x < 0 || in_x >= g.in_width) continue;
        const T* pixel = image + (in_y * g.in_width + in_x) * g.in_channels;
        const T* tap = weights + (ky * g.kernel + kx) * g.in_channels;
        for (int c = 0; c < g.in_channels; ++c) sum += pixel[c] * tap[c];
      }
    }
    y.row(item / y.cols)[column] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) conv2d_reverse_data_kernel(DeviceMatrix<T> grad_x, DeviceMatrix<T> grad_y,
                                                                       DeviceMatrix<T> w, Geometry g, Update update) {
  for (std::int64_t item = first_item(); item < grad_x.size(); item += item_stride()) {
    const T* image = grad_y.row(item / grad_x.cols);
    const int column = static_cast<int>(item % grad_x.cols);
    const int channel = column % g.in_channels;
    const int in_x = column / g.in_channels % g.in_width;
    const int in_y = column / g.in_channels / g.in_width;
    T sum = 0;
    for (int ky = 0; ky < g.kernel; ++ky) {
      const int reach_y = in_y + g.padding - ky;
      if (reach_y < 0 || reach_y % g.stride != 0 || reach_y / g.stride >= g.out_height) continue;
      for (int kx = 0; kx < g.kernel; ++kx) {
        const int reach_x = in_x + g.padding - kx;
        if (reach_x < 0 || reach_x % g.stride != 0 || reach_x / g.stride >= g.out_width) continue;
        const T* pixel = image + (reach_y / g.stride * g.out_width + reach_x / g.stride) * g.out_channels;
        const int tap = (ky * g.kernel + kx) * g.in_channels + channel;
        for (int o = 0; o < g.out_channels; ++o) sum += pixel[o] * w.row(o)[tap];
      }
    }
    store(grad_x.row(item / grad_x.cols)[column], sum, update);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    conv2d_reverse_weights_kernel(DeviceMatrix<T> grad_w, DeviceMatrix<T> grad_y, DeviceMatrix<T> x, Geometry g,
                                  Update update) {
  for (std::int64_t item = first_item(); item < grad_w.size(); item += item_stride()) {
    const int o = static_cast<int>(item / grad_w.cols);
    const int column = static_cast<int>(item % grad_w.cols);
    const int channel = column % g.in_channels;
    const int kx = column / g.in_channels % g.kernel;
    const int ky = column / g.in_channels / g.kernel;
    T sum = 0;
    for (std::int64_t i = 0; i < x.rows; ++i) {
      for (int out_y = 0; out_y < g.out_height; ++out_y) {
        const int in_y = out_y * g.stride + ky - g.padding;
        if (in_y < 0 || in_y >= g.in_height) continue;
        for (int out_x = 0; out_x < g.out_width; ++out_x) {
          const int in_x = out_x * g.stride + kx - g.padding;
          if (in_x < 0 || in_x >= g.in_width) continue;
          sum += grad_y.row(i)[(out_y * g.out_width + out_x) * g.out_channels + o] *
                 x.row(i)[(in_y * g.in_width + in_x) * g.in_channels + channel];
        }
      }
    }
    store(grad_w.row(o)[column], sum, update);
  }
}

// ---- launchers -------------------------------------------------------------------------------------------------

template <class T>
cudaError_t conv2d_forward(const DeviceMatrix<T>& y, const DeviceMatrix<T>& x, const DeviceMatrix<T>& w,
                           const Geometry& g, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<conv2d_forward_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, y, x, w, g);
}

template <class T>
cudaError_t conv2d_reverse_data(const DeviceMatrix<T>& grad_x, const DeviceMatrix<T>& grad_y, const DeviceMatrix<T>& w,
                                const Geometry& g, Update update, cudaStream_t stream) {
  if (grad_x.size() == 0) return cudaSuccess;
  return launch<conv2d_reverse_data_kernel<T>>(blocks_for(grad_x.size(), kThreads), kThreads, 0, stream, grad_x, grad_y,
                                               w, g, update);
}

template <class T>
cudaError_t conv2d_reverse_weights(const DeviceMatrix<T>& grad_w, const DeviceMatrix<T>& grad_y,
                                   const DeviceMatrix<T>& x, const Geometry& g, Update update, cudaStream_t stream) {
  return launch<conv2d_reverse_weights_kernel<T>>(blocks_for(grad_w.size(), kThreads), kThreads, 0, stream, grad_w,
                                                  grad_y, x, g, update);
}

}  // namespace

void CudaOps::do_conv2d_forward(Tensor y, Tensor x, Tensor w, const Convolution& map) {
  check(dispatch(y.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::conv2d_forward(device_matrix<T>(y), device_matrix<T>(x), device_matrix<T>(w),
                                                         Geometry(map), stream_);
                 }),
        "conv2d_forward", y);
}

void CudaOps::do_conv2d_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, const Convolution& map, Update update) {
  check(dispatch(grad_x.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::conv2d_reverse_data(device_matrix<T>(grad_x), device_matrix<T>(grad_y),
                                                              device_matrix<T>(w), Geometry(map), update, stream_);
                 }),
        "conv2d_reverse_data", grad_x);
}

void CudaOps::do_conv2d_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, const Convolution& map, Update update,
                                        Tensor /*workspace*/) {
  check(dispatch(grad_w.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::conv2d_reverse_weights(device_matrix<T>(grad_w), device_matrix<T>(grad_y),
                                                                 device_matrix<T>(x), Geometry(map), update, stream_);
                 }),
        "conv2d_reverse_weights", grad_w);
}

}  // namespace bracket::BRACKET_TARGET
