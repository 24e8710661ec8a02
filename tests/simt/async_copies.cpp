// The asynchronous copies of a block that are under way, thread by thread in the order of the calls.
#include <cstdint>

#include "simt/block_executor.h"

namespace simt::detail {

void BlockExecutor::begin_copy(void* destination, const void* source, int bytes, int source_bytes, Site site) {
  const auto misaligned = [bytes](const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) % static_cast<unsigned>(bytes) != 0;
  };
  if (misaligned(destination) || misaligned(source)) {
    fail(site, "cp.async: address %p or %p is not a multiple of its %d bytes", destination, source, bytes);
  }
  if (source_bytes < 0 || source_bytes > bytes || source_bytes % 4 != 0) {
    fail(site, "cp.async: %d of %d bytes cannot be read; use a multiple of 4 up to that", source_bytes, bytes);
  }
  const char* const first = static_cast<const char*>(destination);
  bool inside = false;
  for (const SharedRange& range : shared_ranges_) {
    inside = inside || (first >= range.begin && first + bytes <= range.begin + range.bytes);
  }
  if (!inside) fail(site, "cp.async: %d bytes at %p are not in the block's shared memory", bytes, destination);
  if (num_copies_ == kMaxCopies) fail(site, "cp.async: more than %d copies of a block are under way", kMaxCopies);

  Thread& self = *current_;
  const int index = free_copy_ >= 0 ? free_copy_ : num_copies_;
  if (free_copy_ >= 0) free_copy_ = copies_[static_cast<std::size_t>(free_copy_)].next;
  copies_[static_cast<std::size_t>(index)] = {
      {static_cast<CopiedWord*>(destination), static_cast<const CopiedWord*>(source), bytes / 4, source_bytes / 4},
      self.copy_group,
      -1};
  if (self.last_copy >= 0) {
    copies_[static_cast<std::size_t>(self.last_copy)].next = index;
  } else {
    self.first_copy = index;
  }
  self.last_copy = index;
  ++num_copies_;
}

void BlockExecutor::commit_copies() { ++current_->copy_group; }

bool BlockExecutor::take_due_copy(int pending_groups, AsyncCopy& copy) {
  Thread& self = *current_;
  if (self.first_copy < 0) return false;
  const int index = self.first_copy;
  PendingCopy& pending = copies_[static_cast<std::size_t>(index)];
  if (pending.group + pending_groups >= self.copy_group) return false;
  copy = pending.copy;
  self.first_copy = pending.next;
  if (self.first_copy < 0) self.last_copy = -1;
  pending.next = free_copy_;
  free_copy_ = index;
  --num_copies_;
  return true;
}

}  // namespace simt::detail
