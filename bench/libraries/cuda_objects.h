// What calls of CUDA libraries have in common: memory that lives as long as a call, one handle per stream, errors.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "bracket/tensor.h"

namespace bracket::bench {

[[noreturn]] inline void throw_library_error(const char* library, const char* call, const char* text) {
  static_cast<void>(cudaGetLastError());
  throw CudaError(std::string("benchmark: ") + library + ": " + call + " failed: " + text);
}

inline void require_cuda(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw_library_error("CUDA", what, cudaGetErrorString(code));
}

class DeviceMemory {
 public:
  explicit DeviceMemory(std::int64_t bytes) {
    require_cuda(cudaMalloc(&memory_, static_cast<std::size_t>(bytes)), "cudaMalloc");
  }
  ~DeviceMemory() { static_cast<void>(cudaFree(memory_)); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

/// Addresses, on the device, of the `count` equal parts of a tensor, as batched calls want them.
class PointerArray {
 public:
  PointerArray(const Tensor& tensor, std::int64_t count) : memory_(count * static_cast<std::int64_t>(sizeof(void*))) {
    std::vector<void*> addresses;
    const std::int64_t bytes = tensor.size() / count * dtype_bytes(tensor.dtype());
    for (std::int64_t i = 0; i < count; ++i) addresses.push_back(static_cast<std::byte*>(tensor.data()) + i * bytes);
    require_cuda(cudaMemcpy(memory_.data(), addresses.data(), addresses.size() * sizeof(void*), cudaMemcpyHostToDevice),
                 "cudaMemcpy");
  }
  template <class T>
  T** as() const {
    return static_cast<T**>(memory_.data());
  }

 private:
  DeviceMemory memory_;
};

/// The handle of a stream: the same one as long as some call keeps it, since each takes memory and time to make.
template <class HandleT>
std::shared_ptr<HandleT> shared_handle(void* stream) {
  static std::weak_ptr<HandleT> kept;
  static void* kept_stream = nullptr;
  std::shared_ptr<HandleT> handle = kept_stream == stream ? kept.lock() : nullptr;
  if (!handle) {
    handle = std::make_shared<HandleT>(stream);
    kept = handle;
    kept_stream = stream;
  }
  return handle;
}

}  // namespace bracket::bench
