// Samples of the toy densities, y [n, 2]; formulas in kernels/formula/toy.h, shared with the CPU.
//
// Bytes         writes 2 n elements, reads nothing.
// Operations    one or two Philox blocks and 100 to 200 f64 operations per sample: bound by arithmetic.
// Alignment     that of the element.
// Determinism   sample i is a function of the key and i: same bits as the CPU, for any grid.
//
// | variant | idea                  | time                      |
// | plain   | one thread per sample | not yet measured on a GPU |
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/formula/toy.h"

namespace bracket::BRACKET_TARGET::toy_kernels {

// As in random.cu: f64 code with many live registers.
constexpr int kThreads = 128;

template <class T>
struct ToySamplesBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y;
  ToyData data;
  RandomKey key;
  const std::int64_t* counter;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
    for (std::int64_t i = block.first_item(); i < y.rows; i += block.item_stride()) {
      const formula::ToyPoint point = formula::toy_point(data, philox, static_cast<std::uint64_t>(i));
      y.row(i)[0] = static_cast<T>(point.x);
      y.row(i)[1] = static_cast<T>(point.y);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::toy_kernels
