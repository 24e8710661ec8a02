// Formulas that both devices evaluate to the same bits. BRACKET_HOST_DEVICE marks a function for both compilers; in a
// CUDA source, kernels/cuda/common/portable.cuh comes first and has defined it.
#pragma once

#ifndef BRACKET_HOST_DEVICE
#if defined(__CUDACC__)
#define BRACKET_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define BRACKET_HOST_DEVICE inline __attribute__((always_inline))
#endif
#endif
