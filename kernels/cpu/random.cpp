// Random fills and shuffled batches. Every element is a function of its key and number alone (kernels/formula/), so
// panels of elements run on any number of threads, and words are made in groups that fill the SIMD registers.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/philox_group.h"
#include "kernels/formula/permutation.h"

namespace bracket {
namespace {

using formula::PhiloxKey;

constexpr std::int64_t kGroupElements = 4 * kGroupBlocks;

/// About 3 ns an element on one core, in the unit of parallel_rows.
constexpr std::int64_t kFlopsPerGroup = 24 * kGroupElements;

/// Calls transform(values, group) for each group of kGroupElements elements and stores as many as are wanted.
template <class T, class Transform>
void fill_by_groups(T* y, std::int64_t size, const PhiloxKey& key, ThreadTeam& team, Transform&& transform) {
  const std::int64_t groups = (size + kGroupElements - 1) / kGroupElements;
  parallel_rows(groups, kFlopsPerGroup, team, [&](std::int64_t first, std::int64_t last) {
    WordGroup words;
    T values[4][kGroupBlocks];
    for (std::int64_t g = first; g < last; ++g) {
      fill_group(words, key, static_cast<std::uint64_t>(g * kGroupBlocks));
      transform(values, words);
      T* const target = y + g * kGroupElements;
      const std::int64_t count = std::min(kGroupElements, size - g * kGroupElements);
      for (std::int64_t j = 0; j < count / 4; ++j) {
        for (int w = 0; w < 4; ++w) target[4 * j + w] = values[w][j];
      }
      for (std::int64_t e = count / 4 * 4; e < count; ++e) target[e] = values[e % 4][e / 4];
    }
  });
}

}  // namespace

void CpuOps::do_random_uniform(Tensor y, const RandomKey& key, double low, double high, const std::int64_t* counter) {
  const PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  dispatch(y.dtype(), [&]<class T>() {
    const auto range = formula::uniform_range<T>(low, high);
    fill_by_groups(y.as<T>(), y.size(), philox, team_, [&](T(&values)[4][kGroupBlocks], const WordGroup& words) {
      for (int w = 0; w < 4; ++w) {
        for (std::int64_t j = 0; j < kGroupBlocks; ++j) values[w][j] = formula::uniform_in(range, words.word[w][j]);
      }
    });
  });
}

void CpuOps::do_random_normal(Tensor y, const RandomKey& key, const std::int64_t* counter) {
  const PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  dispatch(y.dtype(), [&]<class T>() {
    fill_by_groups(y.as<T>(), y.size(), philox, team_, [](T(&values)[4][kGroupBlocks], const WordGroup& words) {
      for (int w = 0; w < 4; w += 2) {
        for (std::int64_t j = 0; j < kGroupBlocks; ++j) {
          const formula::NormalPair pair = formula::normal_pair(words.word[w][j], words.word[w + 1][j]);
          values[w][j] = static_cast<T>(pair.first);
          values[w + 1][j] = static_cast<T>(pair.second);
        }
      }
    });
  });
}

void CpuOps::do_gather_batch(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter) {
  const auto batch_rows = static_cast<std::uint64_t>(y.rows());
  const auto table_rows = static_cast<std::uint64_t>(table.rows());
  const std::uint64_t first_draw = formula::counted_step(key, counter) * batch_rows;
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> target = matrix<T>(y);
    const Matrix<T> source = matrix<T>(table);
    const auto row_bytes = static_cast<std::size_t>(target.cols) * sizeof(T);
    // One evaluation of the permutation is about 300 integer operations.
    parallel_rows(target.rows, 300 + target.cols, team_, [&](std::int64_t first, std::int64_t last) {
      std::uint64_t epoch = (first_draw + static_cast<std::uint64_t>(first)) / table_rows;
      formula::Permutation order = formula::permutation(key, epoch, table_rows);
      for (std::int64_t i = first; i < last; ++i) {
        const std::uint64_t draw = first_draw + static_cast<std::uint64_t>(i);
        if (draw / table_rows != epoch) {
          epoch = draw / table_rows;
          order = formula::permutation(key, epoch, table_rows);
        }
        const auto row = static_cast<std::int64_t>(formula::permute(order, draw % table_rows));
        std::memcpy(target.row(i), source.row(row), row_bytes);
      }
    });
  });
}

}  // namespace bracket
