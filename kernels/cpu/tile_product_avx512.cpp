// Compiled for the same processors as everything else; the functions marked below alone use AVX-512. They take no part
// in what a linker merges: all are local to this file.
#include "kernels/cpu/tile_product_avx512.h"

#include <algorithm>

#if defined(__x86_64__) && defined(__FMA__)
#include <immintrin.h>
#define BRACKET_AVX512 __attribute__((target("avx512f")))
/// Without it some of a tile's sums would live in memory.
#define BRACKET_UNROLL_TILE _Pragma("GCC unroll 16")
#define BRACKET_AVX512_INLINE __attribute__((target("avx512f"), always_inline)) static inline
#endif

namespace bracket {

#if defined(BRACKET_AVX512)

namespace {

/// Depth of a block: its strip of B, four packets wide, takes two thirds of a first-level cache of 48 KiB.
constexpr std::int64_t kDepth = 128;
constexpr std::int64_t kMostPackets = 4;
/// Rows of a tile by its packets: 24 sums in 32 registers; one packet alone hides the latency of an addition with 12.
constexpr int kMostRows[kMostPackets + 1] = {0, 12, 12, 8, 6};

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  using Packet = __m512;
  using Mask = __mmask16;
  static constexpr std::int64_t kCount = 16;
  BRACKET_AVX512_INLINE Packet load(Mask mask, const float* x) { return _mm512_maskz_loadu_ps(mask, x); }
  BRACKET_AVX512_INLINE void store(float* y, Mask mask, Packet x) { _mm512_mask_storeu_ps(y, mask, x); }
  BRACKET_AVX512_INLINE Packet all(float x) { return _mm512_set1_ps(x); }
  BRACKET_AVX512_INLINE Packet multiply_add(Packet a, Packet b, Packet c) { return _mm512_fmadd_ps(a, b, c); }
};

template <>
struct Lanes<double> {
  using Packet = __m512d;
  using Mask = __mmask8;
  static constexpr std::int64_t kCount = 8;
  BRACKET_AVX512_INLINE Packet load(Mask mask, const double* x) { return _mm512_maskz_loadu_pd(mask, x); }
  BRACKET_AVX512_INLINE void store(double* y, Mask mask, Packet x) { _mm512_mask_storeu_pd(y, mask, x); }
  BRACKET_AVX512_INLINE Packet all(double x) { return _mm512_set1_pd(x); }
  BRACKET_AVX512_INLINE Packet multiply_add(Packet a, Packet b, Packet c) { return _mm512_fmadd_pd(a, b, c); }
};

/// A tile of kRows rows and kPackets packets, of the last of which `last` lanes exist.
template <class T, int kPackets, int kRows>
BRACKET_AVX512 void tile(T* c, std::int64_t ldc, const LeftOperand<T>& a, const T* b, std::int64_t ldb,
                         std::int64_t depth, bool accumulate, std::int64_t last) {
  using L = Lanes<T>;
  using Mask = typename L::Mask;
  typename L::Packet sums[kRows][kPackets];
  Mask masks[kPackets];
  BRACKET_UNROLL_TILE
  for (int p = 0; p < kPackets; ++p) masks[p] = static_cast<Mask>((1U << (p + 1 < kPackets ? L::kCount : last)) - 1U);
  BRACKET_UNROLL_TILE
  for (int i = 0; i < kRows; ++i) {
    BRACKET_UNROLL_TILE
    for (int p = 0; p < kPackets; ++p)
      sums[i][p] = accumulate ? L::load(masks[p], c + i * ldc + p * L::kCount) : L::all(T{0});
  }
  const T* left = a.data;
  for (std::int64_t k = 0; k < depth; ++k, left += a.depth_step, b += ldb) {
    typename L::Packet right[kPackets];
    BRACKET_UNROLL_TILE
    for (int p = 0; p < kPackets; ++p) right[p] = L::load(masks[p], b + p * L::kCount);
    BRACKET_UNROLL_TILE
    for (int i = 0; i < kRows; ++i) {
      const typename L::Packet value = L::all(left[i * a.row_step]);
      BRACKET_UNROLL_TILE
      for (int p = 0; p < kPackets; ++p) sums[i][p] = L::multiply_add(value, right[p], sums[i][p]);
    }
  }
  BRACKET_UNROLL_TILE
  for (int i = 0; i < kRows; ++i) {
    BRACKET_UNROLL_TILE
    for (int p = 0; p < kPackets; ++p) L::store(c + i * ldc + p * L::kCount, masks[p], sums[i][p]);
  }
}

/// `rows` in [1, kRows].
template <class T, int kPackets, int kRows = kMostRows[kPackets]>
void tile_of(std::int64_t rows, T* c, std::int64_t ldc, const LeftOperand<T>& a, const T* b, std::int64_t ldb,
             std::int64_t depth, bool accumulate, std::int64_t last) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of<T, kPackets, kRows - 1>(rows, c, ldc, a, b, ldb, depth, accumulate, last);
  }
  tile<T, kPackets, kRows>(c, ldc, a, b, ldb, depth, accumulate, last);
}

/// Columns [first, first + kPackets packets) of c, the last packet with `last` lanes.
template <class T, int kPackets>
void columns(const Matrix<T>& c, std::int64_t first, const LeftOperand<T>& a, const T* b, std::int64_t ldb,
             std::int64_t depth, bool accumulate, std::int64_t last) {
  // Even heights: a tile of one row would wait for its own additions.
  const std::int64_t tiles = (c.rows + kMostRows[kPackets] - 1) / kMostRows[kPackets];
  for (std::int64_t t = 0; t < tiles; ++t) {
    const std::int64_t row = c.rows * t / tiles, rows = c.rows * (t + 1) / tiles - row;
    tile_of<T, kPackets>(rows, c.row(row) + first, c.ld, {a.data + row * a.row_step, a.row_step, a.depth_step},
                         b + first, ldb, depth, accumulate, last);
  }
}

}  // namespace

bool has_avx512_tiles() noexcept {
  static const bool kHas = __builtin_cpu_supports("avx512f") != 0;
  return kHas;
}

template <class T>
void multiply_tiles_avx512(const Matrix<T>& c, LeftOperand<T> a, const T* b, std::int64_t ldb, std::int64_t depth,
                           bool accumulate) {
  constexpr std::int64_t kCount = Lanes<T>::kCount;
  const std::int64_t packets = (c.cols + kCount - 1) / kCount;
  const std::int64_t strips = (packets + kMostPackets - 1) / kMostPackets;
  std::int64_t remaining = depth;
  do {  // once where the depth is 0: a sum of nothing overwrites, too
    const std::int64_t block = std::min(remaining, kDepth);
    for (std::int64_t strip = 0; strip < strips; ++strip) {
      const std::int64_t begin = packets * strip / strips, end = packets * (strip + 1) / strips;
      const std::int64_t first = begin * kCount, last = std::min(kCount, c.cols - (end - 1) * kCount);
      switch (end - begin) {
        case 1:
          columns<T, 1>(c, first, a, b, ldb, block, accumulate, last);
          break;
        case 2:
          columns<T, 2>(c, first, a, b, ldb, block, accumulate, last);
          break;
        case 3:
          columns<T, 3>(c, first, a, b, ldb, block, accumulate, last);
          break;
        default:
          columns<T, 4>(c, first, a, b, ldb, block, accumulate, last);
      }
    }
    a.data += block * a.depth_step;
    b += block * ldb;
    remaining -= block;
    accumulate = true;
  } while (remaining > 0);
}

#else

bool has_avx512_tiles() noexcept { return false; }

template <class T>
void multiply_tiles_avx512(const Matrix<T>&, LeftOperand<T>, const T*, std::int64_t, std::int64_t, bool) {}

#endif

template void multiply_tiles_avx512(const Matrix<float>&, LeftOperand<float>, const float*, std::int64_t, std::int64_t,
                                    bool);
template void multiply_tiles_avx512(const Matrix<double>&, LeftOperand<double>, const double*, std::int64_t,
                                    std::int64_t, bool);

}  // namespace bracket
