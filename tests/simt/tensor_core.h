// The warp-level matrix products of sm_80 (PTX mma.sync) and the conversions that make their operands.
//
// Fragments, as the PTX ISA lays them out: lane = 4 g + t holds, of A [16, k] row by row, B [k, 8] and C, D [16, 8],
//   m16n8k8 tf32, one element per register     m16n8k16 bf16, two per register, the lower half first
//   a0 (g, t)        a1 (g + 8, t)             a0 (g, 2t), (g, 2t + 1)          a1 (g + 8, 2t), (g + 8, 2t + 1)
//   a2 (g, t + 4)    a3 (g + 8, t + 4)         a2 (g, 2t + 8), (g, 2t + 9)      a3 (g + 8, 2t + 8), (g + 8, 2t + 9)
//   b0 (t, g)        b1 (t + 4, g)             b0 (2t, g), (2t + 1, g)          b1 (2t + 8, g), (2t + 9, g)
//   c0 (g, 2t)       c1 (g, 2t + 1)            c2 (g + 8, 2t)                   c3 (g + 8, 2t + 1)
//
// Arithmetic. Of a tf32 operand the low 13 bits are ignored. The PTX ISA leaves order and rounding of the sums open;
// here c and the products, which are exact, are cut off, not rounded, at the 24th bit below the top of the largest of
// them, added exactly, and the sum cut off at 24 bits. Fasi, Higham, Mikaitis and Pranesh (PeerJ Comput. Sci. 7:e330,
// 2021) found this on Volta, Turing and Ampere but with up to two more bits, in groups of fewer addends: a bound on the
// errors that holds here holds there.
#pragma once

#include <bit>

#include "simt/executor.h"

namespace simt {

/// PTX cvt.rna.tf32.f32: the nearest number of 11 significant bits, of two the one further from zero.
inline unsigned to_tf32(float value) {
  const unsigned bits = std::bit_cast<unsigned>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffe000u;  // NaN
  return (bits + 0x1000u) & 0xffffe000u;
}

/// PTX cvt.rn.bf16x2.f32: each the nearest number of 8 significant bits, of two the even one.
inline unsigned to_bf16x2(float low, float high) {
  const auto half = [](float value) {
    const unsigned bits = std::bit_cast<unsigned>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  };
  return half(high) << 16 | half(low);
}

/// d += a b for the whole warp, which must call together.
void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SIMT_CALL_SITE);
void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SIMT_CALL_SITE);

}  // namespace simt
