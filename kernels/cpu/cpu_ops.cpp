#include "kernels/cpu/cpu_ops.h"

#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "bracket/error.h"

namespace bracket {
namespace {

// Copies at once, so that one slot does for two.
class HostUploadQueue final : public UploadQueue {
 public:
  explicit HostUploadQueue(std::int64_t bytes) : slot_(static_cast<std::size_t>(bytes)) {}
  void* next_slot() override { return slot_.data(); }
  void upload(void* device, std::int64_t bytes) override {
    if (bytes > 0) std::memcpy(device, slot_.data(), static_cast<std::size_t>(bytes));
  }

 private:
  std::vector<std::byte> slot_;
};

}  // namespace

CpuOps::CpuOps(const AllocatorCallbacks& allocator, int threads) : allocator_(allocator), team_(threads) {}

void* CpuOps::allocate_memory(std::int64_t bytes) {
  if (allocator_.allocate) return allocator_.allocate(allocator_.user, bytes, nullptr);
  return ::operator new (static_cast<std::size_t>(bytes), std::align_val_t{kMemoryAlignment}, std::nothrow);
}

void CpuOps::release_memory(void* address, std::int64_t bytes) noexcept {
  if (allocator_.release) {
    allocator_.release(allocator_.user, address, bytes, nullptr);
  } else {
    ::operator delete (address, std::align_val_t{kMemoryAlignment});
  }
}

void CpuOps::memory_info(std::int64_t& free_bytes, std::int64_t& total_bytes) {
  const std::int64_t page = sysconf(_SC_PAGESIZE);
  const std::int64_t free_pages = sysconf(_SC_AVPHYS_PAGES);
  const std::int64_t total_pages = sysconf(_SC_PHYS_PAGES);
  const bool known = page > 0 && free_pages >= 0 && total_pages > 0;
  free_bytes = known ? free_pages * page : 0;
  total_bytes = known ? total_pages * page : 0;
}

void CpuOps::copy_bytes_to_device(void* device, const void* host, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(device, host, static_cast<std::size_t>(bytes));
}

void CpuOps::copy_bytes_to_host(void* host, const void* device, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(host, device, static_cast<std::size_t>(bytes));
}

void CpuOps::fill_bytes(void* device, int value, std::int64_t bytes) {
  if (bytes > 0) std::memset(device, value, static_cast<std::size_t>(bytes));
}

std::unique_ptr<UploadQueue> CpuOps::make_upload_queue(std::int64_t bytes) {
  try {
    return std::make_unique<HostUploadQueue>(bytes);
  } catch (const std::bad_alloc&) {
    throw OutOfMemory("no host memory for uploads of " + std::to_string(bytes) + " bytes; lower batch_size", bytes);
  }
}

}  // namespace bracket
