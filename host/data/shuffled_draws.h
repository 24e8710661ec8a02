// The order in which `gather_batch` and `gather_images` serve the rows of a table, for the host.
#pragma once

#include <cstdint>
#include <vector>

#include "bracket/random.h"
#include "kernels/formula/permutation.h"

namespace bracket {

/// The table rows of draws [first, first + count): shuffled epochs of `rows` rows, draw g being row permute(g mod rows)
/// of epoch g / rows.
inline std::vector<std::int64_t> shuffled_draws(const RandomKey& key, std::int64_t rows, std::int64_t first,
                                                std::int64_t count) {
  const auto size = static_cast<std::uint64_t>(rows);
  std::vector<std::int64_t> result;
  result.reserve(static_cast<std::size_t>(count));
  formula::Permutation order{};
  std::uint64_t epoch = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto draw = static_cast<std::uint64_t>(first + i);
    if (i == 0 || draw / size != epoch) {
      epoch = draw / size;
      order = formula::permutation(key, epoch, size);
    }
    result.push_back(static_cast<std::int64_t>(formula::permute(order, draw % size)));
  }
  return result;
}

}  // namespace bracket
