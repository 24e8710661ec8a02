#include "bracket/random.h"

#include "kernels/formula/philox.h"

namespace bracket {

std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  const formula::PhiloxBlock block =
      formula::philox4x32_10(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
  return {block.word[0], block.word[1], block.word[2], block.word[3]};
}

std::uint32_t random_word(const RandomKey& key, std::uint64_t element) {
  return formula::philox_block(formula::philox_key(key, key.step), element / 4).word[element % 4];
}

double random_uniform(const RandomKey& key, std::uint64_t element) {
  return formula::unit_uniform(random_word(key, element));
}

}  // namespace bracket
