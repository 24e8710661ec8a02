#include "simt/cuda_runtime_shim.h"

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "simt/executor.h"
#include "simt/sanitizers.h"

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct CUstream_st {
  unsigned flags;
  CUgraph_st* capture = nullptr;  ///< what is being captured
};
struct CUevent_st {
  unsigned flags;
  bool recorded;
  std::chrono::steady_clock::time_point time;
};

namespace {

constexpr std::size_t kAlignment = 256;  // what cudaMalloc promises
constexpr unsigned char kFreshByte = 0xff;
#if defined(SIMT_ASAN)
constexpr std::size_t kCanaryBytes = 0;
#else
constexpr std::size_t kCanaryBytes = kAlignment;
#endif

struct Registry {
  std::mutex mutex;
  std::map<std::uintptr_t, std::size_t> device;  ///< address and size of what cudaMalloc handed out
  std::set<const void*> pinned;
  std::set<const void*> handles;  ///< live streams and events
  std::size_t device_bytes = 0;
};

// Never destroyed: device memory may be freed by destructors that run after main.
Registry& registry() {
  static Registry& immortal = *new Registry;
  return immortal;
}
// Made before any thread: this file is not instrumented, so TSan would not see the order that a first use creates.
[[maybe_unused]] const auto& kRegistry = registry();

thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaError_t described_error = cudaSuccess;
thread_local std::string failure_text;
thread_local int captures = 0;  ///< that this thread has begun

[[gnu::format(printf, 2, 3)]] cudaError_t refuse(cudaError_t code, const char* format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return simt::record_failure(code, text);
}

/// The allocation `address` lies in or just behind; null if it is host memory.
const std::pair<const std::uintptr_t, std::size_t>* find_allocation(const void* address) {
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(address);
  const auto next = registry().device.upper_bound(at);
  if (next == registry().device.begin()) return nullptr;
  const auto& candidate = *std::prev(next);
  return at < candidate.first + candidate.second + kCanaryBytes ? &candidate : nullptr;
}

cudaError_t check_range(const char* call, const char* role, const void* address, std::size_t bytes, bool on_device,
                        bool any_place) {
  if (address == nullptr) return refuse(cudaErrorInvalidValue, "%s: the %s is null", call, role);
  const auto* const allocation = find_allocation(address);
  if (!any_place && on_device != (allocation != nullptr)) {
    return refuse(cudaErrorInvalidValue, "%s: the %s %p is %s memory, the copy kind says otherwise", call, role,
                  address, allocation != nullptr ? "device" : "host");
  }
  if (allocation == nullptr) return cudaSuccess;
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(address) - allocation->first;
  if (offset > allocation->second || bytes > allocation->second - offset) {
    return refuse(cudaErrorInvalidValue, "%s: %zu bytes at offset %zu of the %s exceed its allocation of %zu bytes",
                  call, bytes, offset, role, allocation->second);
  }
  return cudaSuccess;
}

cudaError_t check_copy(const char* call, const void* destination, std::size_t destination_bytes, const void* source,
                       std::size_t source_bytes, cudaMemcpyKind kind) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) {
    return refuse(cudaErrorInvalidMemcpyDirection, "%s: %d is no copy kind", call, static_cast<int>(kind));
  }
  const std::lock_guard lock(registry().mutex);
  const bool any_place = kind == cudaMemcpyDefault;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const cudaError_t status = check_range(call, "destination", destination, destination_bytes, to_device, any_place);
  if (status != cudaSuccess) return status;
  return check_range(call, "source", source, source_bytes, from_device, any_place);
}

cudaError_t check_handle(const char* call, const char* role, const void* handle, bool may_be_null) {
  if (handle == nullptr && may_be_null) return cudaSuccess;
  const std::lock_guard lock(registry().mutex);
  if (registry().handles.count(handle) != 0) return cudaSuccess;
  return refuse(cudaErrorInvalidResourceHandle, "%s: %s %p does not exist or was destroyed", call, role, handle);
}

/// As check_handle, of a call that waits for the stream or lets the host touch its order.
cudaError_t check_waitable(const char* call, cudaStream_t stream) {
  const cudaError_t status = check_handle(call, "stream", stream, true);
  if (status != cudaSuccess || stream == nullptr || stream->capture == nullptr) return status;
  return refuse(cudaErrorStreamCaptureUnsupported, "%s: the stream is capturing", call);
}

cudaError_t check_no_capture(const char* call) {
  if (captures == 0) return cudaSuccess;
  return refuse(cudaErrorStreamCaptureUnsupported, "%s: this thread is capturing a stream", call);
}

template <class Handle>
Handle* new_handle(Handle* handle) {
  const std::lock_guard lock(registry().mutex);
  registry().handles.insert(handle);
  return handle;
}

cudaError_t run(const std::function<void()>& work) noexcept {
  try {
    work();
    return cudaSuccess;
  } catch (const simt::Error& error) {
    return simt::record_failure(
        error.kind() == simt::Error::Kind::configuration ? cudaErrorInvalidConfiguration : cudaErrorLaunchFailure,
        error.what());
  } catch (const std::bad_alloc& error) {
    return simt::record_failure(cudaErrorMemoryAllocation, error.what());
  } catch (const std::exception& error) {
    return simt::record_failure(cudaErrorUnknown, error.what());
  }
}

template <class Handle>
cudaError_t destroy_handle(const char* call, const char* role, Handle* handle) {
  const cudaError_t status = check_handle(call, role, handle, false);
  if (status != cudaSuccess) return status;
  const std::lock_guard lock(registry().mutex);
  registry().handles.erase(handle);
  delete handle;
  return cudaSuccess;
}

bool intact(const unsigned char* canary) {
  for (std::size_t i = 0; i < kCanaryBytes; ++i) {
    if (canary[i] != kFreshByte) return false;
  }
  return true;
}

// What a write outside this allocation left in its canaries, as a sentence; empty: nothing. Repairs them.
std::string repair_canaries(std::uintptr_t address, std::size_t bytes) {
  if (kCanaryBytes == 0) return {};
  unsigned char* const memory = reinterpret_cast<unsigned char*>(address);
  const bool before = !intact(memory - kCanaryBytes);
  const bool behind = !intact(memory + bytes);
  if (!before && !behind) return {};
  std::memset(memory - kCanaryBytes, kFreshByte, kCanaryBytes);
  std::memset(memory + bytes, kFreshByte, kCanaryBytes);
  return std::string("out of bounds: write ") + (before ? "before the start" : "past the end") +
         " of a device allocation of " + std::to_string(bytes) + " bytes";
}

}  // namespace

cudaError_t simt::record_failure(cudaError_t code, const std::string& text) {
  last_error = code;
  described_error = code;
  failure_text = text;
  return code;
}

cudaError_t simt::queue(cudaStream_t stream, std::function<void()> work) noexcept {
  const cudaError_t status = check_handle("launch", "stream", stream, true);
  if (status != cudaSuccess) return status;
  if (stream == nullptr || stream->capture == nullptr) return run(work);
  return run([&] { stream->capture->work.push_back(std::move(work)); });
}

std::string simt::device_memory_overrun() {
  if (kCanaryBytes == 0) return {};
  std::string first;
  const std::lock_guard lock(registry().mutex);
  for (const auto& [address, bytes] : registry().device) {
    const std::string overrun = repair_canaries(address, bytes);
    if (first.empty()) first = overrun;
  }
  return first;
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

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  if (free_bytes == nullptr || total_bytes == nullptr) {
    return refuse(cudaErrorInvalidValue, "cudaMemGetInfo: an argument is null");
  }
  const std::lock_guard lock(registry().mutex);
  *total_bytes = simt::options().device_memory_bytes;
  *free_bytes = *total_bytes - std::min(*total_bytes, registry().device_bytes);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (stream == nullptr || flags > cudaStreamNonBlocking) {
    return refuse(cudaErrorInvalidValue, "cudaStreamCreateWithFlags: stream is null or flags %u unknown", flags);
  }
  *stream = new_handle(new CUstream_st{flags});
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) { return destroy_handle("cudaStreamDestroy", "stream", stream); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return check_waitable("cudaStreamSynchronize", stream); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return check_waitable("cudaStreamQuery", stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const cudaError_t status = check_handle("cudaStreamWaitEvent", "stream", stream, true);
  return status != cudaSuccess ? status : check_handle("cudaStreamWaitEvent", "event", event, false);
}

// The null stream cannot be captured, as the legacy default stream.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr)
    return refuse(cudaErrorStreamCaptureUnsupported, "cudaStreamBeginCapture: the default stream cannot be captured");
  const cudaError_t status = check_handle("cudaStreamBeginCapture", "stream", stream, false);
  if (status != cudaSuccess) return status;
  if (stream->capture != nullptr) return refuse(cudaErrorIllegalState, "cudaStreamBeginCapture: it captures already");
  stream->capture = new_handle(new CUgraph_st);
  ++captures;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const cudaError_t status = check_handle("cudaStreamEndCapture", "stream", stream, false);
  if (status != cudaSuccess) return status;
  if (stream->capture == nullptr) return refuse(cudaErrorIllegalState, "cudaStreamEndCapture: it captures nothing");
  *graph = std::exchange(stream->capture, nullptr);
  --captures;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* capturing) {
  const cudaError_t status = check_handle("cudaStreamIsCapturing", "stream", stream, true);
  if (status != cudaSuccess) return status;
  *capturing =
      stream != nullptr && stream->capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const cudaError_t status = check_handle("cudaGraphInstantiateWithFlags", "graph", graph, false);
  if (status == cudaSuccess) *executable = new_handle(new CUgraphExec_st{graph->work});
  return status;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  cudaError_t status = check_handle("cudaGraphLaunch", "graph", executable, false);
  if (status == cudaSuccess) status = check_handle("cudaGraphLaunch", "stream", stream, true);
  for (std::size_t i = 0; status == cudaSuccess && i < executable->work.size(); ++i) status = run(executable->work[i]);
  return status;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy_handle("cudaGraphDestroy", "graph", graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return destroy_handle("cudaGraphExecDestroy", "graph", executable);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (event == nullptr) return refuse(cudaErrorInvalidValue, "cudaEventCreateWithFlags: event is null");
  *event = new_handle(new CUevent_st{flags, false, {}});
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy_handle("cudaEventDestroy", "event", event); }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  cudaError_t status = check_handle("cudaEventRecord", "event", event, false);
  if (status == cudaSuccess) status = check_handle("cudaEventRecord", "stream", stream, true);
  if (status != cudaSuccess) return status;
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return check_handle("cudaEventSynchronize", "event", event, false);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const cudaEvent_t event : {begin, end}) {
    if (const cudaError_t status = check_handle("cudaEventElapsedTime", "event", event, false); status != cudaSuccess) {
      return status;
    }
    if (!event->recorded || (event->flags & cudaEventDisableTiming) != 0) {
      return refuse(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime: an event has no time: %s",
                    event->recorded ? "created with cudaEventDisableTiming" : "never recorded");
    }
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (memory == nullptr) return refuse(cudaErrorInvalidValue, "cudaMalloc: memory is null");
  *memory = nullptr;
  if (const cudaError_t status = check_no_capture("cudaMalloc"); status != cudaSuccess) return status;
  if (bytes == 0) return cudaSuccess;
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const std::size_t limit = simt::options().device_memory_bytes;
  const std::size_t left = limit - std::min(limit, all.device_bytes);
  void* block = nullptr;
  if (bytes > left || posix_memalign(&block, kAlignment, bytes + 2 * kCanaryBytes) != 0) {
    return refuse(cudaErrorMemoryAllocation, "out of memory: %zu bytes asked for, %zu of %zu left", bytes, left, limit);
  }
  std::memset(block, kFreshByte, bytes + 2 * kCanaryBytes);
  *memory = static_cast<char*>(block) + kCanaryBytes;
  all.device.emplace(reinterpret_cast<std::uintptr_t>(*memory), bytes);
  all.device_bytes += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  if (const cudaError_t status = check_no_capture("cudaFree"); status != cudaSuccess) return status;
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto allocation = all.device.find(reinterpret_cast<std::uintptr_t>(memory));
  if (allocation == all.device.end()) {
    return refuse(cudaErrorInvalidValue, "cudaFree: %p was not allocated by cudaMalloc or is free already", memory);
  }
  const std::string overrun = repair_canaries(allocation->first, allocation->second);
  all.device_bytes -= allocation->second;
  all.device.erase(allocation);
  std::free(static_cast<char*>(memory) - kCanaryBytes);
  return overrun.empty() ? cudaSuccess : simt::record_failure(cudaErrorIllegalAddress, "cudaFree: " + overrun);
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  if (memory == nullptr) return refuse(cudaErrorInvalidValue, "cudaHostAlloc: memory is null");
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (posix_memalign(memory, kAlignment, bytes) != 0) {
    *memory = nullptr;
    return refuse(cudaErrorMemoryAllocation, "out of host memory: %zu bytes asked for", bytes);
  }
  std::memset(*memory, kFreshByte, bytes);
  const std::lock_guard lock(registry().mutex);
  registry().pinned.insert(*memory);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  const std::lock_guard lock(registry().mutex);
  if (registry().pinned.erase(memory) == 0) {
    return refuse(cudaErrorInvalidValue, "cudaFreeHost: %p was not allocated by cudaHostAlloc or is free already",
                  memory);
  }
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* destination, const void* source, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  cudaError_t status = kind == cudaMemcpyDeviceToDevice ? check_handle("cudaMemcpyAsync", "stream", stream, true)
                                                        : check_waitable("cudaMemcpyAsync", stream);
  if (status != cudaSuccess || bytes == 0) return status;
  status = check_copy("cudaMemcpyAsync", destination, bytes, source, bytes, kind);
  return status != cudaSuccess ? status : simt::queue(stream, [=] { std::memmove(destination, source, bytes); });
}

cudaError_t cudaMemcpy2DAsync(void* destination, std::size_t destination_pitch, const void* source,
                              std::size_t source_pitch, std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  cudaError_t status = kind == cudaMemcpyDeviceToDevice ? check_handle("cudaMemcpy2DAsync", "stream", stream, true)
                                                        : check_waitable("cudaMemcpy2DAsync", stream);
  if (status != cudaSuccess || width == 0 || height == 0) return status;
  if (width > destination_pitch || width > source_pitch) {
    return refuse(cudaErrorInvalidPitchValue, "cudaMemcpy2DAsync: rows of %zu bytes exceed a pitch, %zu to %zu", width,
                  source_pitch, destination_pitch);
  }
  status = check_copy("cudaMemcpy2DAsync", destination, (height - 1) * destination_pitch + width, source,
                      (height - 1) * source_pitch + width, kind);
  if (status != cudaSuccess) return status;
  return simt::queue(stream, [=] {
    for (std::size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<char*>(destination) + row * destination_pitch,
                   static_cast<const char*>(source) + row * source_pitch, width);
    }
  });
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  cudaError_t status = check_handle("cudaMemsetAsync", "stream", stream, true);
  if (status != cudaSuccess || bytes == 0) return status;
  {
    const std::lock_guard lock(registry().mutex);
    status = check_range("cudaMemsetAsync", "destination", memory, bytes, true, false);
  }
  return status != cudaSuccess ? status : simt::queue(stream, [=] { std::memset(memory, value, bytes); });
}
