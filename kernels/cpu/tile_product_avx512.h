// The register tiles of tile_product.h on processors with AVX-512, which are chosen when the program runs: twice the
// lanes and twice the registers. Every element of C is the same sum of fused multiply-adds in the same order, so the
// bits of a build do not depend on the processor.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_common.h"

namespace bracket {

/// Element (i, k) of the left operand: data[i row_step + k depth_step].
template <class T>
struct LeftOperand {
  const T* data = nullptr;
  std::int64_t row_step = 0;
  std::int64_t depth_step = 0;
};

/// Whether this processor and its operating system run them, and the other tiles use fused multiply-adds too.
bool has_avx512_tiles() noexcept;

/// c (+)= a b; b [depth, c.cols], rows `ldb` apart. float and double; any sizes.
template <class T>
void multiply_tiles_avx512(const Matrix<T>& c, LeftOperand<T> a, const T* b, std::int64_t ldb, std::int64_t depth,
                           bool accumulate);

}  // namespace bracket
