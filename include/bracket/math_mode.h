// How the products of f32 networks are computed.
#pragma once

#include <cstdint>

namespace bracket {

/// Dense layers and convolutions in f32 on the tensor cores of a GPU. A permission, not a promise: the CPU, f64 and
/// products too small for tensor cores always compute in the precision of their operands. Nothing else ever leaves that
/// precision: Gram matrices, factorisations, eigenvalues, sums, statistics. The bits are the same on every run in every
/// mode. Largest relative error that rounding the operands makes in a product of two:
enum class MathMode : std::uint8_t {
  fp32,    ///< none: the operands as they are, fused multiply-adds
  tf32x3,  ///< 3 2^-22: two tf32 numbers for each operand, three products of them
  tf32,    ///< 2^-10: 11 significant bits
  bf16,    ///< 2^-7: 8 significant bits
};

const char* math_mode_name(MathMode mode) noexcept;  ///< "fp32", "tf32x3", "tf32", "bf16"

}  // namespace bracket
