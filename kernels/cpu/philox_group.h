// Random words in groups that fill the SIMD registers.
#pragma once

#include <cstdint>

#include "kernels/formula/philox.h"

namespace bracket {

/// Philox blocks per group: 4 words x 32 blocks are sixteen AVX2 registers, and the scratch of a group stays in L1.
inline constexpr std::int64_t kGroupBlocks = 32;

/// Four arrays of words, word w of block first_block + j at [w][j].
struct WordGroup {
  std::uint32_t word[4][kGroupBlocks];
};

inline void fill_group(WordGroup& group, const formula::PhiloxKey& key, std::uint64_t first_block) {
  for (std::int64_t j = 0; j < kGroupBlocks; ++j) {
    const formula::PhiloxBlock block = formula::philox_block(key, first_block + static_cast<std::uint64_t>(j));
    for (int w = 0; w < 4; ++w) group.word[w][j] = block.word[w];
  }
}

}  // namespace bracket
