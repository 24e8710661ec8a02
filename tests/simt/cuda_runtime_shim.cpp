#include "simt/cuda_runtime_shim.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <thread>
#include <utility>

#include "simt/cuda_shim.h"
#include "simt/executor.h"

using simt::detail::refuse;

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaError_t described_error = cudaSuccess;
thread_local std::string failure_text;

}  // namespace

cudaError_t simt::record_failure(cudaError_t code, const std::string& text) {
  last_error = code;
  described_error = code;
  failure_text = text;
  return code;
}

cudaError_t simt::detail::refuse(cudaError_t code, const char* format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return simt::record_failure(code, text);
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define SIMT_NAME(name) \
  case name:            \
    return #name
    SIMT_NAME(cudaSuccess);
    SIMT_NAME(cudaErrorInvalidValue);
    SIMT_NAME(cudaErrorMemoryAllocation);
    SIMT_NAME(cudaErrorInitializationError);
    SIMT_NAME(cudaErrorCudartUnloading);
    SIMT_NAME(cudaErrorInvalidConfiguration);
    SIMT_NAME(cudaErrorInvalidPitchValue);
    SIMT_NAME(cudaErrorInvalidMemcpyDirection);
    SIMT_NAME(cudaErrorInsufficientDriver);
    SIMT_NAME(cudaErrorNoDevice);
    SIMT_NAME(cudaErrorInvalidDevice);
    SIMT_NAME(cudaErrorNoKernelImageForDevice);
    SIMT_NAME(cudaErrorInvalidResourceHandle);
    SIMT_NAME(cudaErrorNotReady);
    SIMT_NAME(cudaErrorIllegalAddress);
    SIMT_NAME(cudaErrorLaunchOutOfResources);
    SIMT_NAME(cudaErrorLaunchFailure);
    SIMT_NAME(cudaErrorNotSupported);
    SIMT_NAME(cudaErrorStreamCaptureUnsupported);
    SIMT_NAME(cudaErrorIllegalState);
    SIMT_NAME(cudaErrorUnknown);
#undef SIMT_NAME
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  return error != cudaSuccess && error == described_error ? failure_text.c_str() : cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  if (count == nullptr) return refuse(cudaErrorInvalidValue, "cudaGetDeviceCount: count is null");
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device == 0) return cudaSuccess;
  return refuse(cudaErrorInvalidDevice, "device %d does not exist: the SIMT executor is device 0", device);
}

cudaError_t cudaGetDevice(int* device) {
  if (device == nullptr) return refuse(cudaErrorInvalidValue, "cudaGetDevice: device is null");
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (properties == nullptr) return refuse(cudaErrorInvalidValue, "cudaGetDeviceProperties: properties is null");
  if (const cudaError_t status = cudaSetDevice(device); status != cudaSuccess) return status;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "SIMT executor");
  properties->totalGlobalMem = simt::options().device_memory_bytes;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->sharedMemPerBlockOptin = simt::options().shared_limit_bytes;
  properties->warpSize = warpSize;
  properties->maxThreadsPerBlock = 1024;
  properties->multiProcessorCount = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (value == nullptr || attribute != cudaDevAttrMultiProcessorCount) {
    return refuse(cudaErrorInvalidValue, "cudaDeviceGetAttribute: value is null or attribute %d unknown",
                  static_cast<int>(attribute));
  }
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, device);
  if (status == cudaSuccess) *value = properties.multiProcessorCount;
  return status;
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
