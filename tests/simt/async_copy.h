// Asynchronous copies from global to shared memory (PTX cp.async), as late as the PTX ISA allows: the destination is
// NaN from the call on, and the data arrive when the thread that asked for them waits. A wait that is missing or too
// lenient, and a read without the barrier that shows them to other threads, therefore find NaN or old data.
//
// The words are moved here rather than in the executor, so that the sanitizers see them as the thread's own accesses.
#pragma once

#include "simt/executor.h"

namespace simt {
namespace detail {

using CopiedWord [[gnu::may_alias]] = unsigned;

struct AsyncCopy {
  CopiedWord* destination;
  const CopiedWord* source;
  int words;
  int source_words;
};

/// Checks and remembers a copy of the running thread.
void begin_copy(void* destination, const void* source, int bytes, int source_bytes, Site site);
void commit_copies();
/// The oldest copy that is due when all but the newest `pending_groups` groups must be done; false: none is.
bool take_due_copy(int pending_groups, AsyncCopy& copy);

}  // namespace detail

/// The first source_bytes of kBytes are copied, the rest becomes 0. Both addresses are multiples of kBytes; without
/// source_bytes the source is not read.
template <int kBytes>
void cp_async(void* destination, const void* source, int source_bytes, SIMT_CALL_SITE) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  detail::begin_copy(destination, source, kBytes, source_bytes, SIMT_SITE);
  for (int i = 0; i < kBytes / 4; ++i) static_cast<detail::CopiedWord*>(destination)[i] = 0xffffffffu;
}

/// The copies since the last commit become a group.
inline void cp_async_commit() { detail::commit_copies(); }

/// All groups but the newest kPendingGroups are done. Other threads see their data after a barrier.
template <int kPendingGroups>
void cp_async_wait() {
  detail::AsyncCopy copy;
  while (detail::take_due_copy(kPendingGroups, copy)) {
    for (int i = 0; i < copy.words; ++i) copy.destination[i] = i < copy.source_words ? copy.source[i] : 0;
  }
}

}  // namespace simt
