// Launches of kernels whose blocks take one item after the other, item blockIdx.x, then every gridDim.x-th: as many
// blocks as the device holds at once, so that none waits for another to end, but no more than there are items.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common/portable.cuh"

namespace bracket::BRACKET_TARGET {

#if defined(BRACKET_SIMT)

/// The executor runs blocks to their end one by one; one block per multiprocessor makes each walk over several items.
template <auto Kernel>
cudaError_t resident_blocks(int& blocks, int /*threads*/, std::size_t /*shared_bytes*/) noexcept {
  blocks = 1;
  return cudaSuccess;
}

#elif defined(__CUDACC__)

/// Blocks of `Kernel` that a multiprocessor of the current device has registers and shared memory for.
template <auto Kernel>
cudaError_t resident_blocks(int& blocks, int threads, std::size_t shared_bytes) noexcept {
  // Without its limit raised, a kernel of more than 48 KiB has room for no block.
  const cudaError_t status =
      cudaFuncSetAttribute(Kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  if (status != cudaSuccess) return status;
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, Kernel, threads, shared_bytes);
}

#endif

/// `items` is 1 or more.
template <auto Kernel, class... Args>
cudaError_t launch_resident(std::int64_t items, int multiprocessors, int threads, std::size_t shared_bytes,
                            cudaStream_t stream, Args... args) noexcept {
  int resident = 0;
  const cudaError_t status = resident_blocks<Kernel>(resident, threads, shared_bytes);
  if (status != cudaSuccess) return status;
  const std::int64_t blocks = std::min(items, std::int64_t{multiprocessors} * std::max(resident, 1));
  return launch<Kernel>(static_cast<unsigned>(blocks), threads, shared_bytes, stream, args...);
}

}  // namespace bracket::BRACKET_TARGET
