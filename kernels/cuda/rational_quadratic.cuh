// Rational-quadratic couplings on stacked rows (formulas: kernels/formula/rational_quadratic.h).
//   theta [r, active (3 K - 1)], y [r, cols], log_slope [r, active]
//
// Bytes        every operand once, theta's rows again in each of the loops over bins; bound by the 2 K exponentials of
//              those loops, and by latency at batches of a few hundred rows.
// Alignment    that of the element, any row stride.
// Determinism  one thread owns an active column of a row (in reverse with theta's Jacobian all of them); no sums over
//              threads.
//
// | variant                    | idea                                  | time                      |
// | rational_quadratic_forward | one thread per row and active column  | not yet measured on a GPU |
// | rational_quadratic_reverse | the same                              | not yet measured on a GPU |
//
// ptxas of CUDA 13.0, sm_90, float / double: forward 124 / 176 registers, reverse 212 / 254. Nothing spills.
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"
#include "kernels/formula/rational_quadratic_rows.h"

namespace bracket::BRACKET_TARGET::rational_quadratic_kernels {

/// Few threads per block spread a batch of some hundred rows over the multiprocessors.
constexpr int kThreads = 64;
/// Blocks per multiprocessor the compiler leaves registers for. Without this number it spills 24 to 64 bytes.
constexpr int kResidentBlocks = 4;

template <class T>
struct RationalQuadraticForwardBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  StackedMatrix<T> y, log_slope, x, theta;
  RationalQuadratic map;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t tasks = map.active_count + 1;  // behind the active columns, the copy of the others
    for (std::int64_t item = block.first_item(); item < rows.primal * tasks; item += block.item_stride()) {
      const Division place(item, tasks);
      if (place.rest == map.active_count) {
        formula::spline_copy_passive(y, x, map, rows, place.quotient, x.primal.cols);
      } else {
        formula::spline_forward<T>(y, log_slope, x, theta, map, rows, place.quotient, place.rest);
      }
    }
  }
};

template <class T>
struct RationalQuadraticReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  StackedMatrix<T> grad_x, grad_theta, grad_y, grad_log_slope, x, theta;
  RationalQuadratic map;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    // With theta's Jacobian every column adds to the tangents of the passive ones: one thread does them all.
    const std::int64_t tasks = map.passive_jacobian ? 1 : map.active_count + 1;
    for (std::int64_t item = block.first_item(); item < rows.primal * tasks; item += block.item_stride()) {
      const Division place(item, tasks);
      const std::int64_t i = place.quotient;
      if (map.passive_jacobian || place.rest == map.active_count) {
        formula::spline_copy_passive(grad_x, grad_y, map, rows, i, x.primal.cols);
      }
      const std::int64_t end = map.passive_jacobian ? map.active_count : place.rest + 1;
      for (std::int64_t column = place.rest; column < end && column < map.active_count; ++column) {
        formula::spline_reverse<T>(grad_x, grad_theta, grad_y, grad_log_slope, x, theta, map, rows, i, column);
      }
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::rational_quadratic_kernels
