// Shared memory with its canaries, faults, and the texts of errors.
#include <signal.h>
#include <ucontext.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <string>

#include "simt/block_executor.h"
#include "simt/sanitizers.h"

namespace simt::detail {
namespace {

constexpr std::size_t kCanaryBytes = 64;
constexpr char kCanary = static_cast<char>(0xcb);
// CUDA refuses to compile a kernel with more.
constexpr std::size_t kStaticSharedLimitBytes = 48 * 1024;

std::uint32_t poison_word(std::uint64_t seed) {
  switch (seed % 3) {
    case 0:
      return 0xffffffffu;  // NaN as float and double
    case 1:
      return 0x7149f2cau;  // 1e30f; as double 3e237
    default:
      return 0xf149f2cau;  // -1e30f; as double -3e237
  }
}

}  // namespace

void* BlockExecutor::shared(const SharedVariable& variable) {
  for (const SharedRange& range : shared_ranges_) {
    if (range.variable == &variable) return range.begin;
  }
  static_shared_bytes_ += variable.bytes;
  if (static_shared_bytes_ > kStaticSharedLimitBytes) {
    fail(last_site(), "static shared memory of %zu bytes with '%s' exceeds the limit of %zu; use dynamic shared memory",
         static_shared_bytes_, variable.name, kStaticSharedLimitBytes);
  }
  return place_shared(&variable, variable.bytes, variable.alignment);
}

void* BlockExecutor::dynamic_shared() {
  for (const SharedRange& range : shared_ranges_) {
    if (range.variable == nullptr) return range.begin;
  }
  return place_shared(nullptr, launch_->call.shared_bytes, 128);
}

char* BlockExecutor::place_shared(const SharedVariable* variable, std::size_t bytes, std::size_t alignment) {
  const std::size_t total = static_shared_bytes_ + launch_->call.shared_bytes;
  const std::uintptr_t base = reinterpret_cast<std::uintptr_t>(arena_.get());
  const std::size_t offset = (base + arena_used_ + alignment - 1) / alignment * alignment - base;
  if (total > launch_->options.shared_limit_bytes || offset + bytes + kCanaryBytes > arena_bytes_) {
    fail(last_site(), "shared memory of %zu bytes (%zu static, %zu dynamic) exceeds the limit of %zu", total,
         static_shared_bytes_, launch_->call.shared_bytes, launch_->options.shared_limit_bytes);
  }
  char* const begin = arena_.get() + offset;
  asan_unpoison(begin, bytes + kCanaryBytes);
  tsan_ignore_begin();
  const std::uint32_t word = poison_word(launch_->options.seed);
  for (std::size_t i = 0; i < bytes; ++i) begin[i] = static_cast<char>(word >> (i % 4 * 8));
  std::memset(begin + bytes, kCanary, kCanaryBytes);
  tsan_ignore_end();
  asan_poison(begin + bytes, kCanaryBytes);
  arena_used_ = offset + bytes + kCanaryBytes;
  shared_ranges_.push_back({variable, begin, bytes});
  return begin;
}

void BlockExecutor::check_shared_canaries() {
  for (const SharedRange& range : shared_ranges_) {
    const char* const canary = range.begin + range.bytes;
    asan_unpoison(canary, kCanaryBytes);
    for (std::size_t i = 0; i < kCanaryBytes; ++i) {
      if (canary[i] == kCanary) continue;
      std::array<char, 256> message;
      std::snprintf(message.data(), message.size(), "write %zu byte(s) past the end of shared memory '%s' of %zu bytes",
                    i, range.variable != nullptr ? range.variable->name : "dynamic", range.bytes);
      record({"", 0}, message.data(), false);
      return;
    }
  }
}

// Names every place where threads wait, with their number.
void BlockExecutor::report_deadlock() {
  struct Place {
    const Thread* first;
    int count;
  };
  std::array<Place, 6> places;
  std::size_t num_places = 0;
  int num_elsewhere = 0;
  for (int id = 0; id < num_threads_; ++id) {
    const Thread& thread = threads_[static_cast<std::size_t>(id)];
    if (thread.state == State::returned) continue;
    std::size_t i = 0;
    while (i < num_places && !(places[i].first->site.line == thread.site.line &&
                               std::strcmp(places[i].first->site.file, thread.site.file) == 0)) {
      ++i;
    }
    if (i == places.size()) {
      ++num_elsewhere;
    } else if (i == num_places) {
      places[num_places++] = {&thread, 1};
    } else {
      ++places[i].count;
    }
  }
  std::array<char, 900> text;
  int length = 0;
  const auto append = [&](const char* format, auto... values) {
    if (length < static_cast<int>(text.size())) {
      length += std::snprintf(text.data() + length, text.size() - static_cast<std::size_t>(length), format, values...);
    }
  };
  text[0] = '\0';
  for (std::size_t i = 0; i < num_places; ++i) {
    const Thread& first = *places[i].first;
    append("%s%d thread(s), first %d, at %s:%d in %s", i == 0 ? "" : "; ", places[i].count, first.id, first.site.file,
           first.site.line, first.operation);
  }
  if (num_elsewhere != 0) append("; %d elsewhere", num_elsewhere);
  const Site site = num_places != 0 ? places[0].first->site : last_site();
  fail(site, "deadlock: no thread can go on, %d returned; waiting: %s", num_returned_, text.data());
}

void BlockExecutor::record(Site site, const char* message, bool by_thread) {
  // Bounded copies: a name or path of any length leaves room for the rest.
  const std::string launch = describe_launch(*launch_);
  std::array<char, 300> place = {};
  std::array<char, 80> thread = {};
  if (site.line != 0) std::snprintf(place.data(), place.size(), "%s:%d: ", site.file, site.line);
  if (by_thread) {
    std::snprintf(thread.data(), thread.size(), ", thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
  }
  std::snprintf(error_.data(), error_.size(), "%s%s; block (%u,%u,%u)%s, %.600s", place.data(), message, blockIdx.x,
                blockIdx.y, blockIdx.z, thread.data(), launch.c_str());
}

void BlockExecutor::divert_fault([[maybe_unused]] int signal, [[maybe_unused]] int code,
                                 [[maybe_unused]] const void* address, [[maybe_unused]] void* machine_context) {
#if defined(__x86_64__)
  fault_signal_ = signal;
  fault_code_ = code;
  fault_address_ = address;
  // The faulting stack is lost, full perhaps: start again at its end.
  greg_t* const registers = static_cast<ucontext_t*>(machine_context)->uc_mcontext.gregs;
  char* const stack = current_->fiber->stack_end() - 16;
  registers[REG_RSP] = reinterpret_cast<greg_t>(stack) - 8;  // as after a call: 8 below a multiple of 16
  registers[REG_RIP] = reinterpret_cast<greg_t>(&BlockExecutor::exit_after_fault);
#endif
}

void BlockExecutor::exit_after_fault() {
  BlockExecutor& self = *running();
  const Site site = self.last_site();
  if (self.current_->fiber->guard_contains(self.fault_address_)) {
    self.fail(site, "stack overflow: the kernel needs more than %zu KiB a thread; raise SIMT_STACK_KB",
              self.current_->fiber->stack_bytes() / 1024);
  }
  if (self.fault_signal_ == SIGBUS || self.fault_code_ == SI_KERNEL) {
    self.fail(site, "memory fault: misaligned vector access or wild address, after the place named here");
  }
  self.fail(site, "memory fault: no memory at address %p, after the place named here", self.fault_address_);
}

}  // namespace simt::detail
