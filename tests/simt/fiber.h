// A stack of its own and the switch between stacks.
//
// x86-64 has its own switch: a barrier costs 25 ns a thread, against 187 ns with swapcontext, which saves the signal
// mask with a system call (g++ 12 -O2, AMD EPYC, block of 256). Other processors use swapcontext, and so does
// -DSIMT_UCONTEXT.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif
#if defined(SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt::detail {

class Fiber {
 public:
  /// Stands for the stack the calling OS thread already runs on.
  Fiber();
  /// A fresh stack with an inaccessible guard below it, on which `entry` starts at the first switch and never returns.
  /// Throws Error when no memory is left.
  Fiber(std::size_t stack_bytes, void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Abandons whatever is suspended on this stack; the next switch starts `entry` anew.
  void reset();
  /// Leaves `from`, the running fiber, and continues `to`; returns when something switches back to `from`.
  static void switch_to(Fiber& from, Fiber& to);
  /// The first statement of every `entry`.
  static void complete_first_switch();

  bool guard_contains(const void* address) const;
  std::size_t stack_bytes() const { return stack_bytes_; }
  /// The highest address of the stack.
  char* stack_end() const { return stack_ + stack_bytes_; }

 private:
  char* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
  char* stack_ = nullptr;
  std::size_t stack_bytes_ = 0;
  void (*entry_)() = nullptr;
#if defined(SIMT_UCONTEXT)
  ucontext_t context_ = {};
#else
  void* stack_pointer_ = nullptr;
#endif
  void* asan_fake_stack_ = nullptr;
  void* tsan_fiber_ = nullptr;
};

}  // namespace simt::detail
