// Calls of the CUDA runtime on behalf of CudaOps: their errors, and the device they are made on.
#pragma once

#include <string>

#include "bracket/error.h"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {

inline std::string describe(cudaError_t code) {
  return std::string(cudaGetErrorString(code)) + " (CUDA error " + std::to_string(static_cast<int>(code)) + ")";
}

inline void require(cudaError_t code, const std::string& what) {
  if (code == cudaSuccess) return;
  // A failed call leaves its code behind for the next cudaGetLastError of the embedding program; it is reported here.
  static_cast<void>(cudaGetLastError());
  throw CudaError(what + " failed: " + describe(code));
}

/// Whether something captures the stream, or keeps it from being asked.
inline bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) == cudaSuccess) return status != cudaStreamCaptureStatusNone;
  static_cast<void>(cudaGetLastError());
  return true;
}

/// Makes a device current for a scope and restores the caller's.
class CurrentDevice {
 public:
  explicit CurrentDevice(CudaOps& ops) : ops_(ops), previous_(ops.enter_device()) {}
  ~CurrentDevice() { ops_.leave_device(previous_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  CudaOps& ops_;
  int previous_;
};

}  // namespace bracket::BRACKET_TARGET
