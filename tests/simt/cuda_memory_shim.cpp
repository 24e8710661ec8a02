// Memory and copies.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "simt/cuda_shim.h"
#include "simt/executor.h"
#include "simt/sanitizers.h"

using simt::detail::check_no_capture;
using simt::detail::check_stream;
using simt::detail::check_waitable;
using simt::detail::refuse;

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
  std::size_t device_bytes = 0;
};

// Never destroyed: device memory may be freed by destructors that run after main.
Registry& registry() {
  static Registry& immortal = *new Registry;
  return immortal;
}
// Made before any thread, as in cuda_stream_shim.cpp.
[[maybe_unused]] const auto& kRegistry = registry();

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

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  if (free_bytes == nullptr || total_bytes == nullptr) {
    return refuse(cudaErrorInvalidValue, "cudaMemGetInfo: an argument is null");
  }
  const std::lock_guard lock(registry().mutex);
  *total_bytes = simt::options().device_memory_bytes;
  *free_bytes = *total_bytes - std::min(*total_bytes, registry().device_bytes);
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
  cudaError_t status = kind == cudaMemcpyDeviceToDevice ? check_stream("cudaMemcpyAsync", stream)
                                                        : check_waitable("cudaMemcpyAsync", stream);
  if (status != cudaSuccess || bytes == 0) return status;
  status = check_copy("cudaMemcpyAsync", destination, bytes, source, bytes, kind);
  return status != cudaSuccess ? status : simt::queue(stream, [=] { std::memmove(destination, source, bytes); });
}

cudaError_t cudaMemcpy2DAsync(void* destination, std::size_t destination_pitch, const void* source,
                              std::size_t source_pitch, std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  cudaError_t status = kind == cudaMemcpyDeviceToDevice ? check_stream("cudaMemcpy2DAsync", stream)
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
  cudaError_t status = check_stream("cudaMemsetAsync", stream);
  if (status != cudaSuccess || bytes == 0) return status;
  {
    const std::lock_guard lock(registry().mutex);
    status = check_range("cudaMemsetAsync", "destination", memory, bytes, true, false);
  }
  return status != cudaSuccess ? status : simt::queue(stream, [=] { std::memset(memory, value, bytes); });
}
