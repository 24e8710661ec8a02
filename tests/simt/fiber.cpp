#include "simt/fiber.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "simt/executor.h"
#include "simt/sanitizers.h"

#if !defined(SIMT_UCONTEXT)
// Saves the callee-saved registers of the System V ABI, exchanges the stacks, restores. rdi: where to save, rsi: what
// to load.
extern "C" void simt_switch_stacks(void** saved, void* loaded);
asm(R"(
.text
.globl simt_switch_stacks
.type simt_switch_stacks, @function
simt_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stacks, .-simt_switch_stacks
)");
#endif

namespace simt::detail {
namespace {
// Larger than any single frame a kernel is likely to have, so that an overflow cannot step over it.
constexpr std::size_t kGuardBytes = 64 * 1024;
}  // namespace

Fiber::Fiber() {
  pthread_attr_t attributes;
  void* lowest = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &lowest, &stack_bytes_);
    pthread_attr_destroy(&attributes);
  }
  stack_ = static_cast<char*>(lowest);
#if defined(SIMT_TSAN)
  tsan_fiber_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(std::size_t stack_bytes, void (*entry)()) : entry_(entry) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  stack_bytes_ = (stack_bytes + page - 1) / page * page;
  mapping_bytes_ = stack_bytes_ + kGuardBytes;
  void* const mapping = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED || mprotect(mapping, kGuardBytes, PROT_NONE) != 0) {
    const int error = errno;
    if (mapping != MAP_FAILED) munmap(mapping, mapping_bytes_);
    throw Error(Error::Kind::configuration, "cannot map a kernel stack of " + std::to_string(stack_bytes_) +
                                                " bytes: " + std::strerror(error) + "; lower SIMT_STACK_KB");
  }
  mapping_ = static_cast<char*>(mapping);
  stack_ = mapping_ + kGuardBytes;
  reset();
}

Fiber::~Fiber() {
  if (mapping_ == nullptr) return;
#if defined(SIMT_TSAN)
  __tsan_destroy_fiber(tsan_fiber_);
#endif
  asan_unpoison(stack_, stack_bytes_);
  munmap(mapping_, mapping_bytes_);
}

void Fiber::reset() {
  asan_unpoison(stack_, stack_bytes_);
  asan_fake_stack_ = nullptr;
#if defined(SIMT_TSAN)
  if (tsan_fiber_ != nullptr) {
    // Puts what the abandoned thread did before all that follows; otherwise the next user of this stack would race with
    // it.
    void* const running = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
    __tsan_release(this);
    __tsan_switch_to_fiber(running, __tsan_switch_to_fiber_no_sync);
    __tsan_acquire(this);
    __tsan_destroy_fiber(tsan_fiber_);
  }
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
#if defined(SIMT_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = stack_bytes_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry_, 0);
#else
  // What simt_switch_stacks pops: six registers, then `entry`, which must find the stack pointer 8 below a multiple
  // of 16.
  void** slot = reinterpret_cast<void**>(stack_end());
  *--slot = nullptr;
  *--slot = reinterpret_cast<void*>(entry_);
  for (int i = 0; i < 6; ++i) *--slot = nullptr;
  stack_pointer_ = slot;
#endif
}

[[gnu::noinline]] void Fiber::switch_to(Fiber& from, Fiber& to) {
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(&from.asan_fake_stack_, to.stack_, to.stack_bytes_);
#endif
#if defined(SIMT_TSAN)
  __tsan_switch_to_fiber(to.tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(SIMT_UCONTEXT)
  swapcontext(&from.context_, &to.context_);
#else
  simt_switch_stacks(&from.stack_pointer_, to.stack_pointer_);
#endif
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(from.asan_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::complete_first_switch() {
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

bool Fiber::guard_contains(const void* address) const {
  const std::uintptr_t guard = reinterpret_cast<std::uintptr_t>(mapping_);
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(address);
  return mapping_ != nullptr && at >= guard && at < guard + kGuardBytes;
}

}  // namespace simt::detail
