// Batches of stored pixels as numbers. Every element is a function of its key and number alone (kernels/formula/), so
// rows run on any number of threads.
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/philox_group.h"
#include "kernels/formula/image_noise.h"
#include "kernels/formula/permutation.h"

namespace bracket {
namespace {

static_assert(kGroupBlocks == formula::kNoiseBlocks, "a group of words is a group of columns");

/// Per element, in the unit of parallel_rows: a look-up, or a word of Philox and a multiplication in double.
constexpr std::int64_t kFlopsPerPixel = 4;
constexpr std::int64_t kFlopsPerNoisyPixel = 24;

/// `mirror` = the image with its rows of pixels reversed.
void mirror_image(std::uint8_t* mirror, const std::uint8_t* image, const ImageTransform& t) {
  for (std::int64_t y = 0; y < t.height; ++y) {
    for (std::int64_t x = 0; x < t.width; ++x) {
      std::copy_n(image + (y * t.width + (t.width - 1 - x)) * t.channels, t.channels,
                  mirror + (y * t.width + x) * t.channels);
    }
  }
}

template <class T>
void add_noise(T* y, const std::uint8_t* pixels, std::int64_t row, std::int64_t cols, const formula::PhiloxKey& key,
               const ImageTransform& t) {
  WordGroup words;
  for (std::int64_t first = 0; first < cols; first += formula::kNoiseColumns) {
    fill_group(words, key, formula::first_noise_block(row, first / formula::kNoiseColumns, cols));
    for (std::int64_t w = 0; w < 4; ++w) {
      const std::int64_t start = first + w * kGroupBlocks;
      const std::int64_t count = std::min(kGroupBlocks, cols - start);
      for (std::int64_t j = 0; j < count; ++j) {
        const double noise = formula::unit_uniform(words.word[w][j]);
        y[start + j] = static_cast<T>(formula::pixel_value(pixels[start + j], noise, t.scale, t.shift));
      }
    }
  }
}

}  // namespace

void CpuOps::do_gather_images(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter,
                              const ImageTransform& transform) {
  const ImageTransform t = transform;
  const std::uint64_t batch = formula::counted_step(key, counter);
  const auto table_rows = static_cast<std::uint64_t>(table.rows());
  const std::uint64_t first_draw = batch * static_cast<std::uint64_t>(y.rows());
  const formula::PhiloxKey words = formula::philox_key(key, batch);
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> target = matrix<T>(y);
    const Matrix<std::uint8_t> source = matrix<std::uint8_t>(table);
    std::array<T, 256> value_of{};
    for (int pixel = 0; pixel < 256; ++pixel) {
      value_of[static_cast<std::size_t>(pixel)] =
          static_cast<T>(formula::pixel_value(static_cast<std::uint8_t>(pixel), 0, t.scale, t.shift));
    }
    const auto images = [&](std::int64_t first, std::int64_t last) {
      static thread_local std::vector<std::uint8_t> mirror;  // kept: a steady-state step allocates nothing
      if (t.flip) mirror.resize(static_cast<std::size_t>(target.cols));
      std::uint64_t epoch = (first_draw + static_cast<std::uint64_t>(first)) / table_rows;
      formula::Permutation order = formula::permutation(key, epoch, table_rows);
      for (std::int64_t i = first; i < last; ++i) {
        const std::uint64_t draw = first_draw + static_cast<std::uint64_t>(i);
        if (draw / table_rows != epoch) {
          epoch = draw / table_rows;
          order = formula::permutation(key, epoch, table_rows);
        }
        const std::uint8_t* pixels =
            source.row(t.in_order ? i : static_cast<std::int64_t>(formula::permute(order, draw % table_rows)));
        if (t.flip && formula::mirrored(words, i)) {
          mirror_image(mirror.data(), pixels, t);
          pixels = mirror.data();
        }
        T* const to = target.row(i);
        if (t.dequantise) {
          add_noise(to, pixels, i, target.cols, words, t);
        } else {
          for (std::int64_t j = 0; j < target.cols; ++j) to[j] = value_of[pixels[j]];
        }
      }
    };
    const std::int64_t cost = target.cols * (t.dequantise ? kFlopsPerNoisyPixel : kFlopsPerPixel);
    parallel_rows(target.rows, cost, team_, images, 1);
  });
}

}  // namespace bracket
