// Device mathematics that <math.h> lacks, under the CUDA names. The approximate intrinsics are exact here.
#pragma once

#include <math.h>

#include <bit>
#include <cstdint>

namespace simt::detail {
// Keeps the compiler from contracting the product or sum that made `value` into a fused multiply-add.
template <class T>
inline T rounded(T value) {
#if defined(__x86_64__)
  asm("" : "+x"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#else
  volatile T stored = value;
  value = stored;
#endif
  return value;
}
}  // namespace simt::detail

template <class T>
inline T __ldg(const T* address) {
  return *address;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

inline float __fadd_rn(float x, float y) { return ::simt::detail::rounded(x + y); }
inline float __fsub_rn(float x, float y) { return ::simt::detail::rounded(x - y); }
inline float __fmul_rn(float x, float y) { return ::simt::detail::rounded(x * y); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return ::simt::detail::rounded(x + y); }
inline double __dsub_rn(double x, double y) { return ::simt::detail::rounded(x - y); }
inline double __dmul_rn(double x, double y) { return ::simt::detail::rounded(x * y); }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

inline int min(int x, int y) { return y < x ? y : x; }
inline unsigned min(unsigned x, unsigned y) { return y < x ? y : x; }
inline long min(long x, long y) { return y < x ? y : x; }
inline unsigned long min(unsigned long x, unsigned long y) { return y < x ? y : x; }
inline long long min(long long x, long long y) { return y < x ? y : x; }
inline unsigned long long min(unsigned long long x, unsigned long long y) { return y < x ? y : x; }
inline float min(float x, float y) { return fminf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline int max(int x, int y) { return x < y ? y : x; }
inline unsigned max(unsigned x, unsigned y) { return x < y ? y : x; }
inline long max(long x, long y) { return x < y ? y : x; }
inline unsigned long max(unsigned long x, unsigned long y) { return x < y ? y : x; }
inline long long max(long long x, long long y) { return x < y ? y : x; }
inline unsigned long long max(unsigned long long x, unsigned long long y) { return x < y ? y : x; }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double max(double x, double y) { return fmax(x, y); }

inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>((std::uint64_t{x} * y) >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  const std::uint64_t x_low = x & 0xffffffffu, x_high = x >> 32, y_low = y & 0xffffffffu, y_high = y >> 32;
  const std::uint64_t middle = x_high * y_low + ((x_low * y_low) >> 32);
  const std::uint64_t carry = x_low * y_high + (middle & 0xffffffffu);
  return x_high * y_high + (middle >> 32) + (carry >> 32);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }

inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
