// Everything a CUDA kernel needs to compile with a C++ compiler and run on the SIMT executor (executor.h).
// Never include it together with cuda_runtime.h: both define the CUDA names in the global namespace.
#pragma once

#if defined(__CUDACC__) || defined(__CUDA_RUNTIME_H__)
#error "simt/simt.h replaces the CUDA runtime headers; include one of them, not both"
#endif

#include "simt/async_copy.h"
#include "simt/atomics.h"
#include "simt/cuda_runtime_shim.h"
#include "simt/executor.h"
#include "simt/math_functions.h"
#include "simt/synchronization.h"
#include "simt/tensor_core.h"
#include "simt/vector_access.h"
#include "simt/vector_types.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#if defined(__clang__)
#define SIMT_UNROLL _Pragma("unroll")
#else
#define SIMT_UNROLL _Pragma("GCC unroll 8")
#endif

/// SIMT_SHARED(float, tile, [32][33]); declares `tile` as a reference into the shared memory of the running block.
#define SIMT_SHARED(T, name, ...)                                                                        \
  using name##_simt_type = T __VA_ARGS__;                                                                \
  static constinit const ::simt::detail::SharedVariable name##_simt_variable{                            \
      #name, sizeof(name##_simt_type), alignof(name##_simt_type) < 16 ? 16 : alignof(name##_simt_type)}; \
  name##_simt_type& name = *static_cast<name##_simt_type*>(::simt::detail::shared_variable(name##_simt_variable))

/// Declares `name` as a pointer to the dynamic shared memory of the launch, aligned to 128 bytes.
#define SIMT_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::simt::detail::dynamic_shared())
