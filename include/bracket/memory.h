// Memory: a pool with statistics, a limit and guards; move-only buffers; an arena whose size a dry run plans.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bracket/tensor.h"

namespace bracket {

class Ops;

/// Every buffer and every arena tensor starts at a multiple of this many bytes (a full cache line pair and any vector
/// load of either device).
inline constexpr std::int64_t kMemoryAlignment = 256;

/// Memory of the embedding program. Both functions null: the device's own allocator; one without the other is refused.
/// `allocate` returns null on failure; addresses must be multiples of kMemoryAlignment. `stream` is the context's
/// stream (null on the CPU): work queued on it may still use memory when `release` is called.
struct AllocatorCallbacks {
  void* (*allocate)(void* user, std::int64_t bytes, void* stream) = nullptr;
  void (*release)(void* user, void* address, std::int64_t bytes, void* stream) = nullptr;
  void* user = nullptr;
};

/// Counted in whole blocks, so that bytes_reserved - bytes_in_use is what the cache holds.
struct MemoryStatistics {
  std::int64_t bytes_requested = 0;       ///< asked for and not yet returned
  std::int64_t bytes_in_use = 0;          ///< the blocks that hold them
  std::int64_t peak_bytes_in_use = 0;     ///< largest value of bytes_in_use since start_phase()
  std::int64_t bytes_reserved = 0;        ///< taken from the allocator, in use or cached
  std::int64_t allocations = 0;           ///< requests served
  std::int64_t upstream_allocations = 0;  ///< requests passed on to the allocator
};

/// Where the memory of a pool is. In guard mode the guards count as rounding.
struct MemoryReport {
  struct SizeClass {
    std::int64_t block_bytes = 0;
    std::int64_t blocks = 0;  ///< in use or cached
    std::int64_t cached = 0;
  };
  MemoryStatistics statistics;
  std::vector<SizeClass> classes;  ///< those that have blocks, smallest first
  /// Share of the bytes in use that nobody asked for: blocks are rounded up.
  double rounding_share() const noexcept;
  /// Share of the reserved bytes that lies idle in the cache, for requests of the same size classes.
  double cached_share() const noexcept;
};
/// A few lines for people.
std::string summary(const MemoryReport& report);

class MemoryPool;

/// Move-only owner of one piece of pool memory. An empty buffer (no bytes) owns nothing.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  void* data() const noexcept { return data_; }
  std::int64_t bytes() const noexcept { return bytes_; }

 private:
  friend class MemoryPool;
  Buffer(MemoryPool* pool, void* data, std::int64_t bytes) : pool_(pool), data_(data), bytes_(bytes) {}

  MemoryPool* pool_ = nullptr;
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Caches blocks by size class for one context; released blocks are reused on the same stream, so reuse needs no wait.
/// Blocks are up to a quarter larger than what was asked for (four size classes per power of two), above 16 MiB up to
/// 2 MiB, and at least one alignment unit.
/// One thread at a time; pools of different contexts are independent.
class MemoryPool {
 public:
  /// `limit` in bytes, 0: none. `guard`: see ContextOptions::guard.
  MemoryPool(Ops& ops, std::int64_t limit, bool guard);
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  /// Throws OutOfMemory (requested, in use, cached, limit, free, what would help) and stays usable; before that it
  /// returns its cache to the allocator and tries again. `name` appears in error messages. 0 bytes: an empty buffer.
  /// In guard mode the memory is filled with NaN, and an earlier violation is thrown as by check_guards().
  Buffer allocate(std::int64_t bytes, std::string_view name = {});
  const MemoryStatistics& statistics() const noexcept { return statistics_; }
  MemoryReport report() const;
  /// The peak counts anew from what is in use now.
  void start_phase() noexcept { statistics_.peak_bytes_in_use = statistics_.bytes_in_use; }
  std::int64_t limit() const noexcept { return limit_; }  ///< 0: none
  /// Bytes that the limit and the device leave for more buffers, the cache counted as free; negative when neither is
  /// known.
  std::int64_t available_bytes() const;
  /// Returns cached blocks to the allocator.
  void trim() noexcept;
  bool guarded() const noexcept { return guard_; }
  /// Guard mode: checks the canaries of every live buffer now; throws Error (internal) naming the buffer. A violation
  /// found when a buffer was released, where nothing may be thrown, is thrown here or by the next allocate(). Waits.
  void check_guards();

 private:
  friend class Buffer;
  struct SizeClass {
    std::vector<void*> cached;
    std::size_t blocks = 0;  // cached or handed out; `cached` has room for all, so that a release never allocates
  };
  struct Guarded {
    std::int64_t bytes;
    std::int64_t number;
    std::string name;
  };

  void count_allocation(std::int64_t bytes) noexcept;
  void release(void* data, std::int64_t bytes) noexcept;
  void* take_block(std::int64_t block, std::int64_t bytes, std::string_view name);
  void* new_block(SizeClass& size_class, std::int64_t block);
  [[noreturn]] void throw_out_of_memory(std::int64_t bytes, std::int64_t block, std::string_view name);
  void write_guards(void* data, std::int64_t bytes);
  std::string violation_of(void* data, const Guarded& guarded);
  void throw_recorded_violation();

  Ops& ops_;
  std::int64_t limit_;
  bool guard_;
  MemoryStatistics statistics_;
  std::map<std::int64_t, SizeClass> classes_;  // by block size
  std::map<void*, Guarded> live_;              // guard mode only, by the address the user has
  bool violated_ = false;
  std::string violation_;
};

/// Bump allocator for the tensors of one step. `Arena()` plans: it hands out addresses that must not be dereferenced
/// and records the high-water mark; `Arena(pool, bytes)` then serves the same requests from one buffer. Of a guarded
/// pool every tensor is a buffer of its own, so that its guards are checked when the arena is rewound past it.
class Arena {
 public:
  Arena() = default;
  Arena(MemoryPool& pool, std::int64_t bytes);

  /// A contiguous tensor, valid until the arena is rewound past it. Throws OutOfMemory when the plan was too small.
  Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape);
  bool planning() const noexcept { return pool_ == nullptr; }
  std::int64_t mark() const noexcept { return used_; }
  /// Gives up everything allocated since mark() returned `mark`.
  void rewind(std::int64_t mark) noexcept;
  std::int64_t high_water_bytes() const noexcept { return high_water_; }

 private:
  struct GuardedTensor {
    std::int64_t offset;
    Buffer buffer;
  };

  MemoryPool* pool_ = nullptr;
  Buffer buffer_;
  std::vector<GuardedTensor> guarded_;
  std::int64_t capacity_ = 0;
  std::int64_t used_ = 0;
  std::int64_t high_water_ = 0;
};

}  // namespace bracket
