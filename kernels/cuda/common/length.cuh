// Euclidean lengths whose squares may leave the range of a double.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/common/reduce.cuh"
#include "kernels/formula/elementary.h"

namespace bracket::BRACKET_TARGET {

/// sqrt(sum of value(j)^2); NaN where a value is not finite. All threads of the block, kThreads, call it and receive
/// it.
template <int kThreads, class Value>
BRACKET_DEVICE double euclidean_length(std::int64_t count, const Value& value) {
  double sum = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) sum += value(j) * value(j);
  sum = block_sum<double, kThreads>(sum);
  if (sum > formula::kLeastSquares && sum < formula::kMostSquares) return sqrt(sum);
  double largest = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) largest = fmax(largest, fabs(value(j)));
  largest = block_max<double, kThreads>(largest);
  if (largest == 0) return sum;
  double shares = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) {
    const double share = value(j) / largest;
    shares += share * share;
  }
  return largest * sqrt(block_sum<double, kThreads>(shares));
}

}  // namespace bracket::BRACKET_TARGET
