// How a product C[m, n] (+)= sum over p of A(m, p) B(p, n) is shared out among the blocks of the tensor-core kernels.
// Plain C++: the rules are tested without a device.
//
// Which products   at least half a small tile both ways and half a slice deep, m >= 32, n >= 32, p >= 16. Others would
//                  mostly multiply the zeros of the padding; the fp32 kernels take them, in every mode.
// Splits           p is cut into `splits` chunks whose partial sums are added in order by a second launch, where tiles
//                  alone are too few: splits = min(kWantedBlocks / small tiles, p / kMinChunk, scratch / (m n)).
//                  A chunk costs 8 bytes of partial sums per element of C, written and read, against 8 chunk / 64 bytes
//                  of operands: a quarter at 256 p. A function of the shape alone, as the sums depend on it.
// Tile             the one that is done first, cost = waves x cycles per p of a block, the large one on a tie:
//                    waves  = ceil(blocks / multiprocessors)        blocks = ceil(m / side) ceil(n / side) splits
//                    cycles = max(side^2 products / 512, 2 side 4 bytes / 32)
//                  with the products per element pair that the mode needs (1, 3 for tf32x3, 1/2 for bf16), 512
//                  multiply-adds of tf32 and 32 bytes from the second-level cache per cycle and multiprocessor (A100).
//                  The large tile needs 32 cycles, the small one 16 for a quarter of the work: it waits for its
//                  operands. Every element of C is the same sum whichever tile it lies in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "bracket/math_mode.h"

namespace bracket {

inline constexpr std::int64_t kLargeTensorTile = 128;
inline constexpr std::int64_t kSmallTensorTile = 64;
inline constexpr std::int64_t kTensorDepth = 32;  ///< p of a slice

struct TensorPlan {
  bool large_tile = false;
  std::int64_t splits = 1;
  std::int64_t chunk = 0;  ///< p of a split, whole slices
};

constexpr std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

constexpr bool tensor_cores_pay(std::int64_t m, std::int64_t n, std::int64_t p) {
  return m >= kSmallTensorTile / 2 && n >= kSmallTensorTile / 2 && p >= kTensorDepth / 2;
}

constexpr double tensor_cost(std::int64_t side, std::int64_t m, std::int64_t n, std::int64_t splits, MathMode mode,
                             int multiprocessors) {
  const std::int64_t blocks = ceil_divide(m, side) * ceil_divide(n, side) * splits;
  const double products = mode == MathMode::tf32x3 ? 3 : mode == MathMode::bf16 ? 0.5 : 1;
  const double width = static_cast<double>(side);
  const double cycles = std::max(width * width * products / 512, 2 * width * 4 / 32);
  return static_cast<double>(ceil_divide(blocks, multiprocessors)) * cycles;
}

/// `scratch_floats`: room for partial sums.
constexpr TensorPlan tensor_plan(std::int64_t m, std::int64_t n, std::int64_t p, MathMode mode, int multiprocessors,
                                 std::int64_t scratch_floats) {
  constexpr std::int64_t kWantedBlocks = 256;  // two for each multiprocessor of the largest GPUs, about
  constexpr std::int64_t kMinChunk = 256;
  TensorPlan plan;
  const std::int64_t tiles = ceil_divide(m, kSmallTensorTile) * ceil_divide(n, kSmallTensorTile);
  const std::int64_t wanted = std::min({kWantedBlocks / tiles, p / kMinChunk, scratch_floats / (m * n)});
  plan.chunk = ceil_divide(ceil_divide(p, std::max<std::int64_t>(wanted, 1)), kTensorDepth) * kTensorDepth;
  plan.splits = ceil_divide(p, plan.chunk);
  plan.large_tile = tensor_cost(kLargeTensorTile, m, n, plan.splits, mode, multiprocessors) <=
                    tensor_cost(kSmallTensorTile, m, n, plan.splits, mode, multiprocessors);
  return plan;
}

}  // namespace bracket
