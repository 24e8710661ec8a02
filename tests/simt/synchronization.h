// Barriers, warp votes and shuffles under their CUDA names. Each passes its place in the source to the executor.
//
// Left out on purpose: __activemask and the intrinsics without _sync, whose results depend on the schedule.
#pragma once

#include <bit>
#include <concepts>
#include <cstring>
#include <type_traits>

#include "simt/executor.h"

inline void __syncthreads(SIMT_CALL_SITE) {
  ::simt::detail::block_barrier(0, 0, ::simt::detail::Reduction::none, 0, "__syncthreads", SIMT_SITE);
}
inline int __syncthreads_or(int predicate, SIMT_CALL_SITE) {
  return ::simt::detail::block_barrier(0, 0, ::simt::detail::Reduction::any, predicate != 0, "__syncthreads_or",
                                       SIMT_SITE);
}
inline int __syncthreads_and(int predicate, SIMT_CALL_SITE) {
  return ::simt::detail::block_barrier(0, 0, ::simt::detail::Reduction::all, predicate != 0, "__syncthreads_and",
                                       SIMT_SITE);
}
inline int __syncthreads_count(int predicate, SIMT_CALL_SITE) {
  return ::simt::detail::block_barrier(0, 0, ::simt::detail::Reduction::count, predicate != 0, "__syncthreads_count",
                                       SIMT_SITE);
}

inline void __threadfence() { ::simt::detail::memory_fence(); }
inline void __threadfence_block() { ::simt::detail::memory_fence(); }

namespace simt {

/// PTX bar.sync: `num_threads` threads, a multiple of 32, meet at barrier 0 to 15.
inline void bar_sync(int barrier, int num_threads, SIMT_CALL_SITE) {
  detail::block_barrier(barrier, num_threads == 0 ? -1 : num_threads, detail::Reduction::none, 0, "bar_sync",
                        SIMT_SITE);
}

namespace detail {

/// The types CUDA's shuffles take.
template <class T>
concept Shuffled = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, long> ||
    std::same_as<T, unsigned long> || std::same_as<T, long long> || std::same_as<T, unsigned long long> ||
    std::same_as<T, float> || std::same_as<T, double>;

enum class Shuffle { index, up, down, exclusive_or };

constexpr int source_lane(Shuffle shuffle, int lane, int operand, int width) {
  const int first = lane & ~(width - 1);
  const int end = first + width;
  switch (shuffle) {
    case Shuffle::index:
      return first + (operand & (width - 1));
    case Shuffle::up:
      return lane - operand < first ? lane : lane - operand;
    case Shuffle::down:
      return lane + operand >= end ? lane : lane + operand;
    case Shuffle::exclusive_or:
      return (lane ^ operand) >= end ? lane : lane ^ operand;
  }
  return lane;
}

/// Ends the kernel with an error: `lane` reads `source`, which is not in `mask`.
[[noreturn]] void fail_shuffle(int lane, int source, unsigned mask);

template <class T, Shuffle kShuffle>
void exchange(unsigned mask, const LaneArguments* lanes) {
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    // A negative or huge operand selects no lane of the warp; 64 keeps the sum below from overflowing.
    const unsigned raw = static_cast<unsigned>(lanes[lane].operand);
    const int operand = kShuffle == Shuffle::index ? lanes[lane].operand : static_cast<int>(raw > 64u ? 64u : raw);
    const int source = source_lane(kShuffle, lane, operand, lanes[lane].width);
    if (source > 31 || (mask >> source & 1u) == 0) fail_shuffle(lane, source, mask);
    std::memcpy(lanes[lane].out, lanes[source].in, sizeof(T));
  }
}

template <Shuffle kShuffle, Shuffled T>
T shuffle(unsigned mask, T value, int operand, int width, const char* operation, Site site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    fail(site, "%s: width %d is not a power of two from 1 to 32", operation, width);
  }
  T result;
  warp_collective(mask, operation, exchange<T, kShuffle>, {&value, &result, operand, width}, false, site);
  return result;
}

enum class Vote { ballot, any, all };

template <Vote kVote>
void tally(unsigned mask, const LaneArguments* lanes) {
  unsigned yes = 0;
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    if (lanes[lane].operand != 0) yes |= 1u << lane;
  }
  const unsigned result = kVote == Vote::ballot ? yes : kVote == Vote::any ? unsigned{yes != 0} : unsigned{yes == mask};
  for (unsigned left = mask; left != 0; left &= left - 1) {
    *static_cast<unsigned*>(lanes[std::countr_zero(left)].out) = result;
  }
}

template <Vote kVote>
unsigned vote(unsigned mask, int predicate, const char* operation, Site site) {
  unsigned result = 0;
  warp_collective(mask, operation, tally<kVote>, {nullptr, &result, predicate, 0}, false, site);
  return result;
}

inline void meet(unsigned, const LaneArguments*) {}

}  // namespace detail
}  // namespace simt

/// Lanes of a partial last warp that do not exist count as not named by `mask`.
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_CALL_SITE) {
  ::simt::detail::warp_collective(mask, "__syncwarp", ::simt::detail::meet, {nullptr, nullptr, 0, 0}, true, SIMT_SITE);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
  return ::simt::detail::vote<::simt::detail::Vote::ballot>(mask, predicate, "__ballot_sync", SIMT_SITE);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
  return static_cast<int>(::simt::detail::vote<::simt::detail::Vote::any>(mask, predicate, "__any_sync", SIMT_SITE));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
  return static_cast<int>(::simt::detail::vote<::simt::detail::Vote::all>(mask, predicate, "__all_sync", SIMT_SITE));
}

template <::simt::detail::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_CALL_SITE) {
  return ::simt::detail::shuffle<::simt::detail::Shuffle::index>(mask, value, source, width, "__shfl_sync", SIMT_SITE);
}
template <::simt::detail::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALL_SITE) {
  return ::simt::detail::shuffle<::simt::detail::Shuffle::up>(mask, value, static_cast<int>(delta), width,
                                                              "__shfl_up_sync", SIMT_SITE);
}
template <::simt::detail::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALL_SITE) {
  return ::simt::detail::shuffle<::simt::detail::Shuffle::down>(mask, value, static_cast<int>(delta), width,
                                                                "__shfl_down_sync", SIMT_SITE);
}
template <::simt::detail::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_CALL_SITE) {
  return ::simt::detail::shuffle<::simt::detail::Shuffle::exclusive_or>(mask, value, lane_mask, width,
                                                                        "__shfl_xor_sync", SIMT_SITE);
}
