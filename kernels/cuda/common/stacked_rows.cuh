// Stacked rows as kernels see them: a primal row with its tangent rows, owned by one warp or thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/ops.h"

namespace bracket::BRACKET_TARGET {

/// Present parts of one activation.
template <class T>
struct StackedMatrix {
  DeviceMatrix<T> primal;
  DeviceMatrix<T> tangent;
  bool has_primal;
  bool has_tangent;
};

template <class T>
StackedMatrix<T> stacked(const Stacked& operand) noexcept {
  return {device_matrix<T>(operand.primal), device_matrix<T>(operand.tangent), !operand.primal.absent(),
          !operand.tangent.absent()};
}

/// The tangent rows [first, last) of primal row i.
struct TangentRange {
  std::int64_t first;
  std::int64_t last;
};
BRACKET_DEVICE TangentRange tangents_of(const Rows& rows, std::int64_t i) {
  if (i < rows.first || i >= rows.first + rows.count) return {0, 0};
  const std::int64_t first = (i - rows.first) * rows.tangents;
  return {first, first + rows.tangents};
}

BRACKET_DEVICE int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarpThreads; }

/// Sum over the lanes of a warp; every lane receives it.
template <class T>
BRACKET_DEVICE T warp_sum(T value) {
  BRACKET_UNROLL
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}

/// <a, b> by one warp.
template <class T>
BRACKET_DEVICE T warp_dot(const T* a, const T* b, std::int64_t count) {
  T sum = 0;
  for (std::int64_t j = lane_of_thread(); j < count; j += kWarpThreads) sum += a[j] * b[j];
  return warp_sum(sum);
}

/// <a, b> by one thread.
template <class T>
BRACKET_DEVICE T dot(const T* a, const T* b, std::int64_t count) {
  T sum = 0;
  for (std::int64_t j = 0; j < count; ++j) sum += a[j] * b[j];
  return sum;
}

template <class T>
BRACKET_DEVICE void update(T& target, T value, bool overwrite) {
  target = overwrite ? value : target + value;
}

}  // namespace bracket::BRACKET_TARGET
