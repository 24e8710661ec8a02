#include <algorithm>
#include <cstdint>
#include <utility>

#include "bracket/error.h"
#include "bracket/memory.h"
#include "host/core/byte_count.h"

namespace bracket {
namespace {

// Where a plan starts: not a canonical address of any 64-bit machine, so that using a planned tensor faults at once.
constexpr std::uintptr_t kPlanBase = std::uintptr_t{1} << 62;
constexpr std::int64_t kPlanLimit = std::int64_t{1} << 60;

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment;
}

}  // namespace

Arena::Arena(MemoryPool& pool, std::int64_t bytes) : pool_(&pool) {
  if (bytes < 0 || bytes > kPlanLimit) {
    throw InvalidArgument("an arena of " + std::to_string(bytes) + " bytes was asked for; plan it with Arena() first");
  }
  capacity_ = aligned(bytes);
  if (!pool.guarded()) buffer_ = pool.allocate(bytes, "arena");
}

Tensor Arena::allocate(DType dtype, std::initializer_list<std::int64_t> shape) {
  const std::int64_t bytes = Tensor(nullptr, dtype, shape).bytes();
  const std::int64_t limit = planning() ? kPlanLimit : capacity_;
  if (bytes > limit - used_) {
    throw OutOfMemory("the arena of " + byte_count(limit) + " is too small: " + byte_count(bytes) + " requested, " +
                          byte_count(used_) + " in use; the step differs from the one that was planned",
                      bytes);
  }
  void* data = nullptr;
  if (planning()) {
    data = reinterpret_cast<void*>(kPlanBase + static_cast<std::uintptr_t>(used_));
  } else if (pool_->guarded()) {
    GuardedTensor tensor{used_, pool_->allocate(bytes, "arena tensor")};
    data = tensor.buffer.data();
    guarded_.push_back(std::move(tensor));
  } else if (buffer_.data() != nullptr) {
    data = static_cast<char*>(buffer_.data()) + used_;
  }
  used_ += aligned(bytes);
  high_water_ = std::max(high_water_, used_);
  return Tensor(data, dtype, shape);
}

void Arena::rewind(std::int64_t mark) noexcept {
  while (!guarded_.empty() && guarded_.back().offset >= mark) guarded_.pop_back();
  used_ = mark;
}

}  // namespace bracket
