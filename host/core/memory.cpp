#include "bracket/memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include "bracket/error.h"
#include "host/core/byte_count.h"
#include "host/core/text.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

// In front of and behind every guarded buffer. A whole alignment unit, so that guarded addresses stay aligned.
constexpr std::int64_t kGuardBytes = kMemoryAlignment;
constexpr int kCanary = 0xC5;
constexpr int kNanBytes = 0xFF;  // NaN in f32 and f64, -1 in integers

constexpr std::int64_t kMaxRequest = std::int64_t{1} << 60;

// From here on a quarter would be too much to waste; large requests are few and repeat exactly.
constexpr std::int64_t kLargeBlock = std::int64_t{16} << 20;
constexpr std::int64_t kLargeBlockStep = std::int64_t{2} << 20;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// The smallest of {5, 6, 7, 8} 2^k that holds `bytes`, in alignment units; whole steps for large requests.
std::int64_t block_size(std::int64_t bytes) {
  if (bytes <= kMemoryAlignment) return kMemoryAlignment;
  if (bytes > kLargeBlock) return round_up(bytes, kLargeBlockStep);
  const auto value = static_cast<std::uint64_t>(bytes - 1);
  const int shift = static_cast<int>(std::bit_width(value)) - 3;
  return round_up(static_cast<std::int64_t>(((value >> shift) + 1) << shift), kMemoryAlignment);
}

std::string quoted(std::string_view name) { return name.empty() ? std::string() : " for '" + std::string(name) + "'"; }

}  // namespace

double MemoryReport::rounding_share() const noexcept {
  const MemoryStatistics& s = statistics;
  return s.bytes_in_use == 0 ? 0 : 1 - static_cast<double>(s.bytes_requested) / static_cast<double>(s.bytes_in_use);
}

double MemoryReport::cached_share() const noexcept {
  const MemoryStatistics& s = statistics;
  return s.bytes_reserved == 0 ? 0 : 1 - static_cast<double>(s.bytes_in_use) / static_cast<double>(s.bytes_reserved);
}

std::string summary(const MemoryReport& report) {
  const MemoryStatistics& s = report.statistics;
  std::string text =
      "in use " + byte_count(s.bytes_in_use) + " (requested " + byte_count(s.bytes_requested) + "), peak " +
      byte_count(s.peak_bytes_in_use) + ", reserved " + byte_count(s.bytes_reserved) + "\n" +
      formatted("rounding takes %.1f %% of what is in use, the cache %.1f %% of what is reserved\n",
                100 * report.rounding_share(), 100 * report.cached_share()) +
      std::to_string(s.allocations) + " allocations, " + std::to_string(s.upstream_allocations) + " from the device\n";
  for (const MemoryReport::SizeClass& c : report.classes)
    text += formatted("%12s  %6lld blocks, %lld cached\n", byte_count(c.block_bytes).c_str(),
                      static_cast<long long>(c.blocks), static_cast<long long>(c.cached));
  return text;
}

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  Buffer previous(std::move(other));
  std::swap(pool_, previous.pool_);
  std::swap(data_, previous.data_);
  std::swap(bytes_, previous.bytes_);
  return *this;
}

Buffer::~Buffer() {
  if (pool_) pool_->release(data_, bytes_);
}

MemoryPool::MemoryPool(Ops& ops, std::int64_t limit, bool guard) : ops_(ops), limit_(limit), guard_(guard) {
  if (limit < 0) {
    throw InvalidArgument("memory limit is " + std::to_string(limit) + " bytes; use a positive number, or 0 for none");
  }
}

MemoryPool::~MemoryPool() { trim(); }

Buffer MemoryPool::allocate(std::int64_t bytes, std::string_view name) {
  throw_recorded_violation();
  if (bytes < 0 || bytes > kMaxRequest) {
    throw InvalidArgument("cannot allocate " + std::to_string(bytes) + " bytes" + quoted(name) + "; 0 to " +
                          std::to_string(kMaxRequest) + " can be asked for");
  }
  if (bytes == 0) return {};
  const std::int64_t block = block_size(guard_ ? bytes + 2 * kGuardBytes : bytes);
  char* address = static_cast<char*>(take_block(block, bytes, name));
  statistics_.bytes_in_use += block;
  if (!guard_) {
    count_allocation(bytes);
    return {this, address, bytes};
  }
  void* const data = address + kGuardBytes;
  try {
    write_guards(data, bytes);
    live_.emplace(data, Guarded{bytes, statistics_.allocations, std::string(name)});
  } catch (...) {
    classes_[block].cached.push_back(address);
    statistics_.bytes_in_use -= block;
    throw;
  }
  count_allocation(bytes);
  return {this, data, bytes};
}

void MemoryPool::count_allocation(std::int64_t bytes) noexcept {
  ++statistics_.allocations;
  statistics_.bytes_requested += bytes;
  statistics_.peak_bytes_in_use = std::max(statistics_.peak_bytes_in_use, statistics_.bytes_in_use);
}

MemoryReport MemoryPool::report() const {
  MemoryReport report{statistics_, {}};
  for (const auto& [block, size_class] : classes_) {
    if (size_class.blocks == 0) continue;
    report.classes.push_back(
        {block, static_cast<std::int64_t>(size_class.blocks), static_cast<std::int64_t>(size_class.cached.size())});
  }
  return report;
}

std::int64_t MemoryPool::available_bytes() const {
  std::int64_t free_bytes = 0, total_bytes = 0;
  ops_.memory_info(free_bytes, total_bytes);
  std::int64_t available = -1;
  if (total_bytes > 0) available = free_bytes + statistics_.bytes_reserved - statistics_.bytes_in_use;
  if (limit_ == 0) return available;
  const std::int64_t below_limit = std::max<std::int64_t>(limit_ - statistics_.bytes_in_use, 0);
  return available < 0 ? below_limit : std::min(available, below_limit);
}

void* MemoryPool::take_block(std::int64_t block, std::int64_t bytes, std::string_view name) {
  SizeClass& size_class = classes_[block];
  if (!size_class.cached.empty()) {
    void* const address = size_class.cached.back();
    size_class.cached.pop_back();
    return address;
  }
  const auto within_limit = [&] { return limit_ == 0 || statistics_.bytes_reserved <= limit_ - block; };
  void* address = within_limit() ? new_block(size_class, block) : nullptr;
  if (address == nullptr) {
    trim();
    if (within_limit()) address = new_block(size_class, block);
  }
  if (address == nullptr) throw_out_of_memory(bytes, block, name);
  return address;
}

void* MemoryPool::new_block(SizeClass& size_class, std::int64_t block) {
  size_class.cached.reserve(size_class.blocks + 1);
  void* const address = ops_.allocate_memory(block);
  if (address == nullptr) return nullptr;
  if (reinterpret_cast<std::uintptr_t>(address) % kMemoryAlignment != 0) {
    ops_.release_memory(address, block);
    throw InvalidArgument("the allocator returned an address that is not a multiple of " +
                          std::to_string(kMemoryAlignment) + " bytes; align what AllocatorCallbacks::allocate returns");
  }
  ++size_class.blocks;
  ++statistics_.upstream_allocations;
  statistics_.bytes_reserved += block;
  return address;
}

void MemoryPool::throw_out_of_memory(std::int64_t bytes, std::int64_t block, std::string_view name) {
  std::int64_t free_bytes = 0;
  std::int64_t total_bytes = 0;
  ops_.memory_info(free_bytes, total_bytes);
  const bool limited = limit_ != 0 && statistics_.bytes_reserved > limit_ - block;
  std::string text = "out of memory: " + byte_count(bytes) + quoted(name) + " requested; in use " +
                     byte_count(statistics_.bytes_in_use) + ", cached " +
                     byte_count(statistics_.bytes_reserved - statistics_.bytes_in_use) + ", limit " +
                     (limit_ == 0 ? "none" : byte_count(limit_)) + ", device free " +
                     (total_bytes == 0 ? "unknown" : byte_count(free_bytes) + " of " + byte_count(total_bytes)) + "; ";
  text += limited ? "raise the memory limit, or use a smaller batch or network"
                  : "use a smaller batch or network, or free memory other programs hold on this device";
  throw OutOfMemory(text, bytes);
}

void MemoryPool::release(void* data, std::int64_t bytes) noexcept {
  const std::int64_t block = block_size(guard_ ? bytes + 2 * kGuardBytes : bytes);
  void* address = data;
  if (guard_) {
    const auto entry = live_.find(data);
    try {
      std::string violation = violation_of(data, entry->second);
      if (!violated_ && !violation.empty()) {
        violated_ = true;
        violation_ = std::move(violation);
      }
    } catch (...) {
      violated_ = true;
    }
    live_.erase(entry);
    address = static_cast<char*>(data) - kGuardBytes;
  }
  classes_.find(block)->second.cached.push_back(address);
  statistics_.bytes_in_use -= block;
  statistics_.bytes_requested -= bytes;
}

void MemoryPool::trim() noexcept {
  for (auto& [block, size_class] : classes_) {
    for (void* const address : size_class.cached) ops_.release_memory(address, block);
    size_class.blocks -= size_class.cached.size();
    statistics_.bytes_reserved -= block * static_cast<std::int64_t>(size_class.cached.size());
    size_class.cached.clear();
  }
}

void MemoryPool::write_guards(void* data, std::int64_t bytes) {
  char* const begin = static_cast<char*>(data);
  ops_.fill_bytes(begin - kGuardBytes, kCanary, kGuardBytes);
  ops_.fill_bytes(begin, kNanBytes, bytes);
  ops_.fill_bytes(begin + bytes, kCanary, kGuardBytes);
}

std::string MemoryPool::violation_of(void* data, const Guarded& guarded) {
  std::array<unsigned char, 2 * kGuardBytes> canaries;
  const char* const begin = static_cast<const char*>(data);
  ops_.copy_bytes_to_host(canaries.data(), begin - kGuardBytes, kGuardBytes);
  ops_.copy_bytes_to_host(canaries.data() + kGuardBytes, begin + guarded.bytes, kGuardBytes);
  const auto damaged = [&](std::int64_t i) { return canaries[static_cast<std::size_t>(i)] != kCanary; };
  std::string where;
  for (std::int64_t i = kGuardBytes - 1; i >= 0 && where.empty(); --i) {
    if (damaged(i)) where = std::to_string(kGuardBytes - i) + " bytes before its start";
  }
  for (std::int64_t i = kGuardBytes; i < 2 * kGuardBytes && where.empty(); ++i) {
    if (damaged(i)) where = std::to_string(i - kGuardBytes + 1) + " bytes past its end";
  }
  if (where.empty()) return {};
  return "memory guard violated: something wrote " + where + ", buffer number " + std::to_string(guarded.number) +
         quoted(guarded.name) + " of " + byte_count(guarded.bytes) +
         "; this is a defect in an operation, please report it";
}

void MemoryPool::throw_recorded_violation() {
  if (!std::exchange(violated_, false)) return;
  const std::string violation = std::exchange(violation_, {});
  throw Error(ExitCode::internal,
              violation.empty() ? "the memory guards of a released buffer could not be read" : violation);
}

void MemoryPool::check_guards() {
  if (!guard_) return;
  throw_recorded_violation();
  for (const auto& [data, guarded] : live_) {
    const std::string violation = violation_of(data, guarded);
    if (!violation.empty()) throw Error(ExitCode::internal, violation);
  }
}

}  // namespace bracket
