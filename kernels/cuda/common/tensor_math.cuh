// The math modes: what a lane keeps of the operands of one step, and how two of them are multiplied (mma.sync).
//
// A step is kQuads quads of p; a lane = 4 g + t holds of each quad element t, of rows g (and g + 8) of A or of column g
// of B. For tf32 that is the fragment the instruction wants. A bf16 instruction wants p = 2t, 2t + 1, 2t + 8, 2t + 9 of
// 16, and gets t, t + 4, t + 8, t + 12: the same permutation of p on both sides, so the sum has the same terms. Shared
// memory is then read alike, and without bank conflicts, in every mode.
//
//   tf32x3   x = big + small + rest, big = tf32(x), small = tf32(x - big), |rest| <= 2^-22 |x|;
//            a b ~ small big + big small + big big: what is left out is below 3 2^-22 |a b|. The instruction cuts its
//            sums off instead of rounding them, so each step starts at 0 and is added to the fp32 sum outside it
//            (Ootomo and Yokota, 2203.03341): 4 additions per lane beside 3 instructions.
//   bf16     operands are stored in fp32 and rounded on the way to the instruction: shared memory is read as often as
//            for tf32 per element of p, which makes it the bound (48 loads per 16 instructions of a 64 x 32 warp tile).
#pragma once

#include "bracket/math_mode.h"
#include "kernels/cuda/common/tensor_core.cuh"

namespace bracket::BRACKET_TARGET {

/// kHalves = 2: sixteen rows of A; 1: eight columns of B. Registers in the order of the instruction.
template <int kHalves>
struct RoundedFragment {
  unsigned words[2 * kHalves];
};
template <int kHalves>
struct SplitFragment {
  unsigned big[2 * kHalves];
  unsigned small[2 * kHalves];
};

template <MathMode kMode>
struct TensorMath;

template <>
struct TensorMath<MathMode::tf32> {
  static constexpr int kQuads = 2;
  template <int kHalves>
  using Fragment = RoundedFragment<kHalves>;

  template <int kHalves>
  static BRACKET_DEVICE void round(Fragment<kHalves>& fragment, const float (&x)[kHalves][kQuads]) {
    BRACKET_UNROLL
    for (int i = 0; i < 2 * kHalves; ++i) fragment.words[i] = to_tf32(x[i % kHalves][i / kHalves]);
  }
  static BRACKET_DEVICE void multiply(float (&sums)[4], const Fragment<2>& a, const Fragment<1>& b) {
    mma_m16n8k8_tf32(sums, a.words, b.words);
  }
};

template <>
struct TensorMath<MathMode::tf32x3> {
  static constexpr int kQuads = 2;
  template <int kHalves>
  using Fragment = SplitFragment<kHalves>;

  template <int kHalves>
  static BRACKET_DEVICE void round(Fragment<kHalves>& fragment, const float (&x)[kHalves][kQuads]) {
    BRACKET_UNROLL
    for (int i = 0; i < 2 * kHalves; ++i) {
      const float value = x[i % kHalves][i / kHalves];
      fragment.big[i] = to_tf32(value);
      fragment.small[i] = to_tf32(value - __uint_as_float(fragment.big[i]));
    }
  }
  static BRACKET_DEVICE void multiply(float (&sums)[4], const Fragment<2>& a, const Fragment<1>& b) {
    float step[4] = {0, 0, 0, 0};
    mma_m16n8k8_tf32(step, a.small, b.big);
    mma_m16n8k8_tf32(step, a.big, b.small);
    mma_m16n8k8_tf32(step, a.big, b.big);
    BRACKET_UNROLL
    for (int i = 0; i < 4; ++i) sums[i] += step[i];
  }
};

template <>
struct TensorMath<MathMode::bf16> {
  static constexpr int kQuads = 4;
  template <int kHalves>
  using Fragment = RoundedFragment<kHalves>;

  template <int kHalves>
  static BRACKET_DEVICE void round(Fragment<kHalves>& fragment, const float (&x)[kHalves][kQuads]) {
    BRACKET_UNROLL
    for (int i = 0; i < 2 * kHalves; ++i) {
      const float(&row)[kQuads] = x[i % kHalves];
      fragment.words[i] = to_bf16x2(row[i / kHalves * 2], row[i / kHalves * 2 + 1]);
    }
  }
  static BRACKET_DEVICE void multiply(float (&sums)[4], const Fragment<2>& a, const Fragment<1>& b) {
    mma_m16n8k16_bf16(sums, a.words, b.words);
  }
};

}  // namespace bracket::BRACKET_TARGET
