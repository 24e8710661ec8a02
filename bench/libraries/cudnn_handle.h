// What all calls of cuDNN share.
#pragma once

#include <cudnn.h>

#include <string>

#include "bench/libraries/cuda_objects.h"
#include "bench/libraries/libraries.h"

namespace bracket::bench {

/// As much as any algorithm for these layers that is worth having asks for.
inline constexpr std::size_t kCudnnWorkspace = std::size_t{256} << 20;

inline void require(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) throw_library_error("cuDNN", what, cudnnGetErrorString(status));
}

inline int as_int(std::int64_t value) { return static_cast<int>(value); }

class CudnnHandle {
 public:
  explicit CudnnHandle(void* stream) : workspace_(static_cast<std::int64_t>(kCudnnWorkspace)) {
    require(cudnnCreate(&handle_), "cudnnCreate");
    require(cudnnSetStream(handle_, static_cast<cudaStream_t>(stream)), "cudnnSetStream");
  }
  ~CudnnHandle() { static_cast<void>(cudnnDestroy(handle_)); }
  CudnnHandle(const CudnnHandle&) = delete;
  CudnnHandle& operator=(const CudnnHandle&) = delete;
  operator cudnnHandle_t() const { return handle_; }
  void* workspace() const { return workspace_.data(); }

 private:
  DeviceMemory workspace_;
  cudnnHandle_t handle_ = nullptr;
};

/// [images, height, width, channels] of numbers.
class ImageDescriptor {
 public:
  ImageDescriptor(std::int64_t images, std::int64_t height, std::int64_t width, std::int64_t channels,
                  cudnnTensorFormat_t layout = CUDNN_TENSOR_NHWC, cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    require(cudnnCreateTensorDescriptor(&descriptor_), "cudnnCreateTensorDescriptor");
    require(cudnnSetTensor4dDescriptor(descriptor_, layout, type, as_int(images), as_int(channels), as_int(height),
                                       as_int(width)),
            "cudnnSetTensor4dDescriptor");
  }
  ~ImageDescriptor() { static_cast<void>(cudnnDestroyTensorDescriptor(descriptor_)); }
  ImageDescriptor(const ImageDescriptor&) = delete;
  ImageDescriptor& operator=(const ImageDescriptor&) = delete;
  operator cudnnTensorDescriptor_t() const { return descriptor_; }

 private:
  cudnnTensorDescriptor_t descriptor_ = nullptr;
};

LibraryWork cudnn_conv2d_forward(Operands&, Tensor y, Tensor x, Tensor w, const Convolution&);
LibraryWork cudnn_conv2d_reverse_data(Operands&, Tensor grad_x, Tensor grad_y, Tensor w, const Convolution&);
LibraryWork cudnn_conv2d_reverse_weights(Operands&, Tensor grad_w, Tensor grad_y, Tensor x, const Convolution&);

}  // namespace bracket::bench
