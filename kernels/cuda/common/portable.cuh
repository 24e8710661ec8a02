// One kernel source, two compilers: nvcc for the GPU, and with -DBRACKET_SIMT a C++ compiler for the SIMT executor in
// tests/simt, which runs the kernel on the CPU.
//
// Kernels and launchers live in `namespace bracket::BRACKET_TARGET`, which is `gpu` or `simt`, so that one program can
// hold both. This is the only device header a kernel includes.
//
//   BRACKET_SHARED(float, tile, [32][33]);      shared memory; its content is undefined at first
//   BRACKET_DYNAMIC_SHARED(float, scratch);     pointer to the dynamic shared memory of a launch, aligned to 128 bytes
//   BRACKET_UNROLL, BRACKET_NO_UNROLL           before a loop
//   BRACKET_DEVICE, BRACKET_HOST_DEVICE         before an inline function
//   bar_sync(barrier, num_threads)              PTX bar.sync: num_threads threads, 32 n, meet at barrier 0 to 15
//   launch<kernel>(grid, block, shared_bytes, stream, arguments...)
//   launch<Body>(grid, threads, shared_bytes, stream, members...)      see body.cuh
//
// Kernels stay within what both can run: warp intrinsics with explicit masks, no implicit warp synchrony, no return
// before a barrier, no waiting for other blocks, vector loads through the types of vector_types.h, no inline PTX
// outside this folder.
//
// launch() is asynchronous on `stream`, never throws, and returns the error of the launch itself. Dynamic shared memory
// above 48 KiB is enabled as needed. On the executor the kernel has run when launch() returns; what went wrong inside
// it is cudaErrorLaunchFailure, and cudaGetErrorString() then names the place. Where a LaunchRecorder keeps the
// launches of a stream, nothing is launched on it, and a kernel that is no Body spoils the record.
#pragma once

#include <cstddef>

#if defined(BRACKET_SIMT)

#if defined(__CUDACC__)
#error "BRACKET_SIMT is for C++ compilers; nvcc builds for the GPU"
#endif
#include "simt/simt.h"

#define BRACKET_TARGET simt
#define BRACKET_UNROLL SIMT_UNROLL
#define BRACKET_NO_UNROLL
#define BRACKET_SHARED(T, name, ...) SIMT_SHARED(T, name, __VA_ARGS__)
#define BRACKET_DYNAMIC_SHARED(T, name) SIMT_DYNAMIC_SHARED(T, name)
#define BRACKET_DEVICE __forceinline__
#define BRACKET_HOST_DEVICE __forceinline__

#include "kernels/cuda/common/launch_recorder.h"

namespace bracket::BRACKET_TARGET {

using ::simt::bar_sync;

template <auto Kernel, class... Args>
cudaError_t launch(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, Args... args) noexcept {
  if (LaunchRecorder* const recorder = LaunchRecorder::of(stream)) return recorder->refuse();
  return ::simt::queue(stream, [=] { ::simt::launch<Kernel>(grid, block, shared_bytes, args...); });
}

}  // namespace bracket::BRACKET_TARGET

#else

#include <cuda_runtime.h>

#define BRACKET_TARGET gpu

#if defined(__CUDACC__)

#define BRACKET_UNROLL _Pragma("unroll")
#define BRACKET_NO_UNROLL _Pragma("unroll 1")
#define BRACKET_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
#define BRACKET_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(128) unsigned char bracket_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(bracket_dynamic_shared)
#define BRACKET_DEVICE __device__ __forceinline__
#define BRACKET_HOST_DEVICE __host__ __device__ __forceinline__

#include "kernels/cuda/common/launch_recorder.h"

namespace bracket::BRACKET_TARGET {

BRACKET_DEVICE void bar_sync(int barrier, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}

namespace detail {

template <class... Parameters, class... Args>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                          cudaStream_t stream, Args... args) noexcept {
  // What a kernel may use without asking.
  constexpr std::size_t kDefaultSharedBytes = 48 * 1024;
  if (shared_bytes > kDefaultSharedBytes) {
    const cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (status != cudaSuccess) return status;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...);
}

}  // namespace detail

template <auto Kernel, class... Args>
cudaError_t launch(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, Args... args) noexcept {
  if (LaunchRecorder* const recorder = LaunchRecorder::of(stream)) return recorder->refuse();
  return detail::launch_kernel(Kernel, grid, block, shared_bytes, stream, args...);
}

}  // namespace bracket::BRACKET_TARGET

#endif  // __CUDACC__
#endif  // BRACKET_SIMT
