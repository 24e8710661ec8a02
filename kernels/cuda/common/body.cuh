// Kernels whose blocks can also be played by another kernel (step_program.cu).
//
// Such a kernel is a Body: a trivially copyable struct of its arguments with
//   static constexpr int kBlockThreads             threads of a block, at most 256, in one dimension
//   static constexpr int kBlocks                   optional: blocks per multiprocessor that registers are left for
//   static constexpr std::size_t kSharedBytes      optional: shared memory of a block
//   static constexpr bool kDynamicShared = true    optional: shared memory as the launch asks for
//   static constexpr bool kMeets = true            its threads meet at barriers (also those of block_sum and the like).
//                                                  A kernel that plays its blocks then lets kMeetingThreads take part
//                                                  whatever the launch says; block.threads is their number
//                                                  and puts a barrier between two blocks
//   void operator()(const Block& block) const      what a thread does: `block` takes the place of blockIdx, gridDim and
//                                                  blockDim; threadIdx.x is the thread's own
// launch<Body>(grid, threads, shared_bytes, stream, members...) makes it a kernel of its own, body_kernel<Body>. A Body
// that a step of training uses belongs into the list of step_program.cu.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common/portable.cuh"

namespace bracket::BRACKET_TARGET {

/// The block a thread works for.
struct Block {
  unsigned x, y;  ///< its index in a grid of grid_x by grid_y
  unsigned grid_x, grid_y;
  unsigned threads;
  void* memory;  ///< its shared memory; undefined at first, aligned to 128 bytes; the next block played gets it too

  /// Number of this thread and of all threads of a grid in one dimension: a grid-stride loop.
  BRACKET_DEVICE std::int64_t first_item() const { return static_cast<std::int64_t>(x) * threads + threadIdx.x; }
  BRACKET_DEVICE std::int64_t item_stride() const { return static_cast<std::int64_t>(grid_x) * threads; }
  template <class T>
  BRACKET_DEVICE T& shared() const {
    return *static_cast<T*>(memory);
  }
};

/// Threads of a block played by another kernel.
inline constexpr int kMeetingThreads = 256;

/// Its address tells bodies apart.
template <class Body>
inline constexpr char body_key = 0;

namespace body_detail {

template <class Body>
constexpr std::size_t shared_bytes() {
  if constexpr (requires { Body::kSharedBytes; }) {
    return Body::kSharedBytes;
  } else {
    return 0;
  }
}

template <class Body>
constexpr int resident_blocks() {
  if constexpr (requires { Body::kBlocks; }) {
    return Body::kBlocks;
  } else {
    return 0;
  }
}

}  // namespace body_detail

// What a Body says of itself, or is when it says nothing.
template <class Body>
inline constexpr std::size_t kBodySharedBytes = body_detail::shared_bytes<Body>();
template <class Body>
inline constexpr bool kBodyHasMemory = kBodySharedBytes<Body> > 0 || requires {
  Body::kDynamicShared;
};
template <class Body>
inline constexpr bool kBodyMeets = requires {
  Body::kMeets;
};

#if defined(BRACKET_SIMT) || defined(__CUDACC__)

template <class Body>
__global__ void __launch_bounds__(Body::kBlockThreads, body_detail::resident_blocks<Body>())
    body_kernel(const Body body) {
  Block block{blockIdx.x, blockIdx.y, gridDim.x, gridDim.y, blockDim.x, nullptr};
  if constexpr (kBodyHasMemory<Body>) {
    BRACKET_DYNAMIC_SHARED(unsigned char, memory);
    block.memory = memory;
  }
  body(block);
}

template <class Body, class... Members>
cudaError_t launch(dim3 grid, unsigned threads, std::size_t shared_bytes, cudaStream_t stream,
                   Members... members) noexcept {
  static_assert(std::is_trivially_copyable_v<Body> && Body::kBlockThreads <= kMeetingThreads);
  const Body body{members...};
  const std::size_t bytes = std::max(shared_bytes, kBodySharedBytes<Body>);
  if (LaunchRecorder* const recorder = LaunchRecorder::of(stream)) {
    return recorder->append(&body_key<Body>, grid, threads, bytes, body);
  }
  return launch<body_kernel<Body>>(grid, dim3(threads), bytes, stream, body);
}

#endif

}  // namespace bracket::BRACKET_TARGET
