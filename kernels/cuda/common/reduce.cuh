// Reductions over the threads of a block, in an order fixed by the block size: same bits on every run.
//
// All threads of a one-dimensional block of kThreads threads (a multiple of 32, at most 1024) call them together, and
// all receive the result. Two barriers each; calls may follow one another directly.
#pragma once

#include "kernels/cuda/common/portable.cuh"

namespace bracket::BRACKET_TARGET {

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned kFullWarp = 0xffffffffu;

/// `combine` is associative up to rounding and commutative; the butterfly then gives every lane the same bits.
template <class T, int kThreads, class Combine>
BRACKET_DEVICE T block_reduce(T value, Combine combine) {
  static_assert(kThreads % kWarpThreads == 0 && kThreads <= 1024);
  constexpr int kWarps = kThreads / kWarpThreads;
  BRACKET_UNROLL
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kFullWarp, value, offset));
  }
  if constexpr (kWarps > 1) {
    BRACKET_SHARED(T, warp_results, [kWarps]);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread % kWarpThreads == 0) warp_results[thread / kWarpThreads] = value;
    __syncthreads();
    value = warp_results[0];
    for (int warp = 1; warp < kWarps; ++warp) value = combine(value, warp_results[warp]);
    __syncthreads();
  }
  return value;
}

template <class T, int kThreads>
BRACKET_DEVICE T block_sum(T value) {
  return block_reduce<T, kThreads>(value, [](T a, T b) { return a + b; });
}

template <class T, int kThreads>
BRACKET_DEVICE T block_min(T value) {
  return block_reduce<T, kThreads>(value, [](T a, T b) { return b < a ? b : a; });
}

template <class T, int kThreads>
BRACKET_DEVICE T block_max(T value) {
  return block_reduce<T, kThreads>(value, [](T a, T b) { return a < b ? b : a; });
}

}  // namespace bracket::BRACKET_TARGET
