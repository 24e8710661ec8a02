// One wrapper per PTX instruction of sm_80 that the products on tensor cores use. On the SIMT executor the functions of
// the same name in tests/simt/tensor_core.h, where the fragments are drawn, and tests/simt/async_copy.h stand for them.
//
//   to_tf32(x), to_bf16x2(low, high)            operands, rounded to nearest
//   mma_m16n8k8_tf32, mma_m16n8k16_bf16(d, a, b)   d += a b by all 32 lanes of a warp, sums in fp32
//   cp_async<bytes>(shared, global, n)          queues a copy of 4, 8 or 16 bytes, of which the first n are read and
//                                               the others 0
//   cp_async_commit()                           the copies queued since the last call become a group
//   cp_async_wait<n>()                          this thread's groups but the newest n are done; others see their data
//                                               after a barrier
#pragma once

#include "kernels/cuda/common/portable.cuh"

namespace bracket::BRACKET_TARGET {

#if defined(BRACKET_SIMT)

using ::simt::cp_async;
using ::simt::cp_async_commit;
using ::simt::cp_async_wait;
using ::simt::mma_m16n8k16_bf16;
using ::simt::mma_m16n8k8_tf32;
using ::simt::to_bf16x2;
using ::simt::to_tf32;

#elif defined(__CUDACC__)

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "Bracket's tensor-core products need compute capability 8.0; set CMAKE_CUDA_ARCHITECTURES to 80 or later"
#endif

BRACKET_DEVICE unsigned to_tf32(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

BRACKET_DEVICE unsigned to_bf16x2(float low, float high) {
  unsigned bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

BRACKET_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

BRACKET_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// 16 bytes pass the first-level cache by, where a slice that is read once would only displace others.
template <int kBytes>
BRACKET_DEVICE void cp_async(void* shared, const void* global, int source_bytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(global), "n"(kBytes),
                 "r"(source_bytes)
                 : "memory");
  }
}

BRACKET_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kPendingGroups>
BRACKET_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPendingGroups) : "memory");
}

#endif

}  // namespace bracket::BRACKET_TARGET
