// Batch normalisation and pooling by cuDNN; the list of what cuDNN has. cudnn_convolution.cpp: convolutions.
#include "bench/libraries/cudnn_handle.h"

namespace bracket::bench {
namespace {

/// Images of which the rows of batch normalisation are the pixels, and the statistics of their channels.
struct NormImages {
  NormImages(std::int64_t rows, std::int64_t cols, std::int64_t side)
      : images(rows / (side * side), side, side, cols), channels(1, 1, 1, cols) {}
  ImageDescriptor images, channels;
};

/// The quicker of cuDNN's two ways where it has it for these images, else the other; tried out with `call`.
template <class F>
Call in_quickest_mode(const char* name, const F& call) {
  const bool persistent = call(CUDNN_BATCHNORM_SPATIAL_PERSISTENT) == CUDNN_STATUS_SUCCESS;
  const cudnnBatchNormMode_t mode = persistent ? CUDNN_BATCHNORM_SPATIAL_PERSISTENT : CUDNN_BATCHNORM_SPATIAL;
  return [=] { require(call(mode), name); };
}

Call batch_norm_train_forward(Operands& operands, Tensor y, Tensor mean, Tensor inv_std, Tensor x, Tensor gamma,
                              Tensor beta, double epsilon, std::int64_t side) {
  const auto handle = shared_handle<CudnnHandle>(operands.stream());
  const auto shapes = std::make_shared<NormImages>(x.rows(), x.cols(), side);
  return in_quickest_mode("cudnnBatchNormalizationForwardTraining", [=](cudnnBatchNormMode_t mode) {
    const float one = 1, zero = 0;
    return cudnnBatchNormalizationForwardTraining(*handle, mode, &one, &zero, shapes->images, x.data(), shapes->images,
                                                  y.data(), shapes->channels, gamma.data(), beta.data(), 1, nullptr,
                                                  nullptr, epsilon, mean.data(), inv_std.data());
  });
}

Call batch_norm_train_reverse(Operands& operands, Tensor grad_x, Tensor grad_gamma, Tensor grad_beta, Tensor grad_y,
                              Tensor x, Tensor gamma, Tensor mean, Tensor inv_std, double epsilon, std::int64_t side) {
  const auto handle = shared_handle<CudnnHandle>(operands.stream());
  const auto shapes = std::make_shared<NormImages>(x.rows(), x.cols(), side);
  return in_quickest_mode("cudnnBatchNormalizationBackward", [=](cudnnBatchNormMode_t mode) {
    const float one = 1, zero = 0;
    return cudnnBatchNormalizationBackward(*handle, mode, &one, &zero, &one, &zero, shapes->images, x.data(),
                                           shapes->images, grad_y.data(), shapes->images, grad_x.data(),
                                           shapes->channels, gamma.data(), grad_gamma.data(), grad_beta.data(), epsilon,
                                           mean.data(), inv_std.data());
  });
}

/// Square windows side by side, over the images of a large and of a small tensor.
class Pool {
 public:
  Pool(const Window& map, std::int64_t images, cudnnPoolingMode_t mode)
      : large(images, map.height, map.width, map.channels),
        small(images, map.height / map.window, map.width / map.window, map.channels) {
    require(cudnnCreatePoolingDescriptor(&descriptor_), "cudnnCreatePoolingDescriptor");
    const int window = as_int(map.window);
    require(
        cudnnSetPooling2dDescriptor(descriptor_, mode, CUDNN_NOT_PROPAGATE_NAN, window, window, 0, 0, window, window),
        "cudnnSetPooling2dDescriptor");
  }
  ~Pool() { static_cast<void>(cudnnDestroyPoolingDescriptor(descriptor_)); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  cudnnPoolingDescriptor_t descriptor() const { return descriptor_; }

  ImageDescriptor large, small;

 private:
  cudnnPoolingDescriptor_t descriptor_ = nullptr;
};

constexpr cudnnPoolingMode_t kAverage = CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING, kMaximum = CUDNN_POOLING_MAX;

/// Sums are averages times the size of the window.
float average_factor(const Window& map) {
  return static_cast<float>(map.scale * static_cast<double>(map.window * map.window));
}

Call pool_forward(Operands& operands, Tensor y, Tensor x, const Window& map, cudnnPoolingMode_t mode, float factor) {
  const auto handle = shared_handle<CudnnHandle>(operands.stream());
  const auto pool = std::make_shared<Pool>(map, x.rows(), mode);
  return [=] {
    const float zero = 0;
    require(
        cudnnPoolingForward(*handle, pool->descriptor(), &factor, pool->large, x.data(), &zero, pool->small, y.data()),
        "cudnnPoolingForward");
  };
}

/// y and x are what a forward pass wrote and read; an average looks at neither.
Call pool_reverse(Operands& operands, Tensor grad_x, Tensor grad_y, Tensor y, Tensor x, const Window& map,
                  cudnnPoolingMode_t mode, float factor) {
  const auto handle = shared_handle<CudnnHandle>(operands.stream());
  const auto pool = std::make_shared<Pool>(map, grad_y.rows(), mode);
  return [=] {
    const float zero = 0;
    require(cudnnPoolingBackward(*handle, pool->descriptor(), &factor, pool->small, y.data(), pool->small,
                                 grad_y.data(), pool->large, x.data(), &zero, pool->large, grad_x.data()),
            "cudnnPoolingBackward");
  };
}

Call window_sum(Operands& operands, Tensor y, Tensor x, const Window& map) {
  return pool_forward(operands, y, x, map, kAverage, average_factor(map));
}

Call window_spread(Operands& operands, Tensor y, Tensor x, const Window& map) {
  return pool_reverse(operands, y, x, x, y, map, kAverage, average_factor(map));
}

Call max_pool_forward(Operands& operands, Tensor y, Tensor x, const Window& map) {
  return pool_forward(operands, y, x, map, kMaximum, 1);
}

Call max_pool_reverse(Operands& operands, Tensor grad_x, Tensor grad_y, Tensor y, Tensor x, const Window& map) {
  return pool_reverse(operands, grad_x, grad_y, y, x, map, kMaximum, 1);
}

}  // namespace

const ImageLibrary* cudnn() {
  static const ImageLibrary library{.name = "cudnn",
                                    .version = std::to_string(CUDNN_MAJOR) + "." + std::to_string(CUDNN_MINOR) + "." +
                                               std::to_string(CUDNN_PATCHLEVEL),
                                    .conv2d_forward = cudnn_conv2d_forward,
                                    .conv2d_reverse_data = cudnn_conv2d_reverse_data,
                                    .conv2d_reverse_weights = cudnn_conv2d_reverse_weights,
                                    .batch_norm_train_forward = batch_norm_train_forward,
                                    .batch_norm_train_reverse = batch_norm_train_reverse,
                                    .window_sum = window_sum,
                                    .window_spread = window_spread,
                                    .max_pool_forward = max_pool_forward,
                                    .max_pool_reverse = max_pool_reverse};
  return &library;
}

}  // namespace bracket::bench
