// What AddressSanitizer and ThreadSanitizer must be told about fibers and shared memory; nothing without them.
//
// ThreadSanitizer: compile the executor's own files WITHOUT -fsanitize=thread but with -DSIMT_TSAN, kernels and tests
// with it. The executor's bookkeeping then stays invisible, and the annotations below alone order memory, as the
// barriers do on a GPU: TSan turns into a race detector for shared and global memory.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(SIMT_TSAN)
#if defined(__SANITIZE_THREAD__)
#error "compile the SIMT executor without -fsanitize=thread; -DSIMT_TSAN is enough"
#endif
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace simt::detail {

inline void asan_poison([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#if defined(SIMT_ASAN)
  __asan_poison_memory_region(address, bytes);
#endif
}

inline void asan_unpoison([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#if defined(SIMT_ASAN)
  __asan_unpoison_memory_region(address, bytes);
#endif
}

/// Everything before release(x) happens before everything after a later acquire(x).
inline void tsan_acquire([[maybe_unused]] const void* object) {
#if defined(SIMT_TSAN)
  __tsan_acquire(const_cast<void*>(object));
#endif
}
inline void tsan_release([[maybe_unused]] const void* object) {
#if defined(SIMT_TSAN)
  __tsan_release(const_cast<void*>(object));
#endif
}

/// Hides the memory accesses in between: the executor moves data in them as the hardware would.
inline void tsan_ignore_begin() {
#if defined(SIMT_TSAN)
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
}
inline void tsan_ignore_end() {
#if defined(SIMT_TSAN)
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
}

}  // namespace simt::detail
