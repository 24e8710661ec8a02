// Random fills and shuffled batches; formulas in kernels/formula/{philox,permutation}.h, shared with the CPU.
//   random_uniform  element e from word e of the key
//   random_normal   elements 2 j, 2 j + 1 by Box-Muller from words 2 j, 2 j + 1, in double for both dtypes
//   gather_batch    row i of y [n, D] is row permute((b n + i) mod N) of table [N, D]
//
// Bytes         fills write n elements; gather_batch reads and writes n D.
// Operations    about 20 integer multiplications per Philox block of four elements; a normal adds about 45 f64
//               operations. At half-rate f64 (A100, H200) a fill of normals is bound by arithmetic, elsewhere too.
// Alignment     that of the element; the four stores of a thread are adjacent.
// Determinism   every element is a function of the key and its number: same bits as the CPU, for any grid.
//
// | variant                     | idea                                         | time                      |
// | random_uniform, _normal     | one thread per Philox block of four elements | not yet measured on a GPU |
// | gather_batch                | one warp per row                             | not yet measured on a GPU |
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/formula/permutation.h"
#include "kernels/formula/philox.h"

namespace bracket::BRACKET_TARGET::random_kernels {

// Register-heavy f64 code: four warps a block let the scheduler fit as many as the registers allow.
constexpr int kThreads = 128;
constexpr int kWarp = 32;

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
struct RandomUniformBody {
  static constexpr int kBlockThreads = kThreads;

  T* y;
  std::int64_t size;
  RandomKey key;
  formula::UniformRange<T> range;
  const std::int64_t* counter;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
    for (std::int64_t q = block.first_item(); 4 * q < size; q += block.item_stride()) {
      const formula::PhiloxBlock words = formula::philox_block(philox, static_cast<std::uint64_t>(q));
      BRACKET_UNROLL
      for (int w = 0; w < 4; ++w) {
        if (4 * q + w < size) y[4 * q + w] = formula::uniform_in(range, words.word[w]);
      }
    }
  }
};

template <class T>
struct RandomNormalBody {
  static constexpr int kBlockThreads = kThreads;

  T* y;
  std::int64_t size;
  RandomKey key;
  const std::int64_t* counter;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
    for (std::int64_t q = block.first_item(); 4 * q < size; q += block.item_stride()) {
      const formula::PhiloxBlock words = formula::philox_block(philox, static_cast<std::uint64_t>(q));
      BRACKET_UNROLL
      for (int w = 0; w < 4; w += 2) {
        const formula::NormalPair pair = formula::normal_pair(words.word[w], words.word[w + 1]);
        if (4 * q + w < size) y[4 * q + w] = static_cast<T>(pair.first);
        if (4 * q + w + 1 < size) y[4 * q + w + 1] = static_cast<T>(pair.second);
      }
    }
  }
};

/// Every lane evaluates the permutation of its warp's row: the same work in lockstep costs nothing and needs no
/// broadcast.
template <class T>
struct GatherBatchBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, table;
  RandomKey key;
  const std::int64_t* counter;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const auto table_rows = static_cast<std::uint64_t>(table.rows);
    const std::uint64_t first_draw = formula::counted_step(key, counter) * static_cast<std::uint64_t>(y.rows);
    for (std::int64_t i = block.first_item() / kWarp; i < y.rows; i += block.item_stride() / kWarp) {
      const std::uint64_t draw = first_draw + static_cast<std::uint64_t>(i);
      const std::uint64_t epoch = draw / table_rows;
      const formula::Permutation order = formula::permutation(key, epoch, table_rows);
      const T* const source = table.row(static_cast<std::int64_t>(formula::permute(order, draw - epoch * table_rows)));
      T* const target = y.row(i);
      for (std::int64_t j = lane; j < y.cols; j += kWarp) target[j] = source[j];
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::random_kernels
