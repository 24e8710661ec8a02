// How a product C[m, n] (+)= sum over p of A(m, p) B(p, n) is shared out among the blocks of the tensor-core kernels.
// Plain C++: the rules are tested without a device.
//
// Which products   at least half a small tile both ways and half a slice deep, m >= 32, n >= 32, p >= 16. Others would
//                  mostly multiply the zeros of the padding; the fp32 kernels take them, in every mode.
// Time             in cycles, of blocks that walk over items, tiles of one of `splits` chunks of p:
//                    time   = waves (chunk cycles + side^2 4 / 32) + (second launch, of several chunks)
//                    waves  = ceil(items / multiprocessors)        items = ceil(m / side) ceil(n / side) splits
//                    cycles = max(side^2 products / 512, 2 side 4 bytes / 32)
//                    second = kLaunchCycles + splits (kSumCycles + 4 m n / (32 multiprocessors))
//                  with the products per element pair that the mode needs (1, 3 for tf32x3, 1/2 for bf16), 512
//                  multiply-adds of tf32 and 32 bytes from or to the second-level cache per cycle and multiprocessor
//                  (A100). The large tile needs 32 cycles per p, the small one 16 for a quarter of the work: it waits
//                  for its operands. Every element of C is the same sum whichever tile it lies in.
// Splits           p is cut into `splits` chunks whose partial sums are added in order by a second launch, where that
//                  is done first: too few tiles, or a last wave that is nearly empty. The sums depend on them, so they
//                  are those of one nominal GPU of kNominalMultiprocessors, a function of shape and mode alone.
//                  Partial sums take 4 m n splits bytes, at most what the second-level cache keeps.
// Tile             the one that is done first on the device at hand, the large one on a tie.
#pragma once

#include <algorithm>
#include <cstdint>

#include "bracket/math_mode.h"

namespace bracket {

inline constexpr std::int64_t kLargeTensorTile = 128;
inline constexpr std::int64_t kSmallTensorTile = 64;
inline constexpr std::int64_t kTensorDepth = 32;  ///< p of a slice

inline constexpr int kNominalMultiprocessors = 132;  ///< of an H100 or H200; an A100 has 108
/// Of a launch behind another in a CUDA graph: 1.3 us have been published for an H100, at some 1.6 GHz.
inline constexpr double kLaunchCycles = 2000;
/// Of a partial sum in the second launch, of which a thread has 8 under way: some 300 cycles to the second-level cache.
inline constexpr double kSumCycles = 40;
/// 32 MiB: the second-level cache of an A100 has 40, that of an H200 60.
inline constexpr std::int64_t kMostPartialSums = std::int64_t{1} << 23;
/// Four slices: fewer are not worth the two with which a block fills its ring. More chunks than 64 are worth it for
/// less than a tile of C only.
inline constexpr std::int64_t kMinChunk = 4 * kTensorDepth;
inline constexpr std::int64_t kMostSplits = 64;

struct TensorPlan {
  bool large_tile = false;
  std::int64_t splits = 1;
  std::int64_t chunk = 0;         ///< p of a split, whole slices
  std::int64_t partial_sums = 0;  ///< floats of workspace: splits m n, or 0 for one chunk
};

constexpr std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

constexpr bool tensor_cores_pay(std::int64_t m, std::int64_t n, std::int64_t p) {
  return m >= kSmallTensorTile / 2 && n >= kSmallTensorTile / 2 && p >= kTensorDepth / 2;
}

/// Cycles per p of a tile of C.
constexpr double tensor_tile_cycles(std::int64_t side, MathMode mode) {
  const double products = mode == MathMode::tf32x3 ? 3 : mode == MathMode::bf16 ? 0.5 : 1;
  const double width = static_cast<double>(side);
  return std::max(width * width * products / 512, 2 * width * 4 / 32);
}

/// Items that the busiest multiprocessor multiplies.
constexpr std::int64_t tensor_waves(std::int64_t side, std::int64_t m, std::int64_t n, std::int64_t splits,
                                    int multiprocessors) {
  return ceil_divide(ceil_divide(m, side) * ceil_divide(n, side) * splits, multiprocessors);
}

/// Waves times cycles per p: what decides between the tiles where the depth is the same.
constexpr double tensor_cost(std::int64_t side, std::int64_t m, std::int64_t n, std::int64_t splits, MathMode mode,
                             int multiprocessors) {
  return static_cast<double>(tensor_waves(side, m, n, splits, multiprocessors)) * tensor_tile_cycles(side, mode);
}

/// The whole product, in cycles.
constexpr double tensor_time(std::int64_t side, std::int64_t m, std::int64_t n, std::int64_t chunk, std::int64_t splits,
                             MathMode mode, int multiprocessors) {
  const double waves = static_cast<double>(tensor_waves(side, m, n, splits, multiprocessors));
  const double item =
      static_cast<double>(chunk) * tensor_tile_cycles(side, mode) + static_cast<double>(side * side) / 8;
  if (splits == 1) return waves * item;
  const double sum = kSumCycles + static_cast<double>(m * n) / (8.0 * multiprocessors);
  return waves * item + kLaunchCycles + static_cast<double>(splits) * sum;
}

constexpr TensorPlan tensor_plan(std::int64_t m, std::int64_t n, std::int64_t p, MathMode mode, int multiprocessors) {
  TensorPlan plan;
  const std::int64_t most = std::min({kMostSplits, p / kMinChunk, kMostPartialSums / (m * n)});
  double best = 0;
  for (std::int64_t wanted = 1; wanted == 1 || wanted <= most; ++wanted) {
    const std::int64_t chunk = ceil_divide(ceil_divide(p, wanted), kTensorDepth) * kTensorDepth;
    const std::int64_t splits = ceil_divide(p, chunk);
    const double time = std::min(tensor_time(kLargeTensorTile, m, n, chunk, splits, mode, kNominalMultiprocessors),
                                 tensor_time(kSmallTensorTile, m, n, chunk, splits, mode, kNominalMultiprocessors));
    if (plan.chunk != 0 && time >= best) continue;
    best = time;
    plan.splits = splits;
    plan.chunk = chunk;
  }
  plan.partial_sums = plan.splits == 1 ? 0 : plan.splits * m * n;
  plan.large_tile = tensor_time(kLargeTensorTile, m, n, plan.chunk, plan.splits, mode, multiprocessors) <=
                    tensor_time(kSmallTensorTile, m, n, plan.chunk, plan.splits, mode, multiprocessors);
  return plan;
}

}  // namespace bracket
