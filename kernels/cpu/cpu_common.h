// What every CPU op family shares: dispatch on the dtype, matrix views, and the one way to run rows in parallel.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "bracket/tensor.h"
#include "kernels/cpu/thread_team.h"

namespace bracket {

/// Calls f.template operator()<T>() with the element type of `dtype`, f32 or f64.
template <class F>
void dispatch(DType dtype, F&& f) {
  if (dtype == DType::f32) {
    std::forward<F>(f).template operator()<float>();
  } else if (dtype == DType::f64) {
    std::forward<F>(f).template operator()<double>();
  } else {
    throw InvalidArgument(std::string("arithmetic on ") + dtype_name(dtype) + "; convert to f32 or f64");
  }
}

/// A matrix in memory: row i starts at data + i ld.
template <class T>
struct Matrix {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t ld = 0;
  T* row(std::int64_t i) const { return data + i * ld; }
};

/// A vector of n elements becomes n rows of one column; an absent tensor a matrix of no rows.
template <class T>
Matrix<T> matrix(const Tensor& tensor) {
  if (tensor.absent()) return {};
  return {tensor.as<T>(), tensor.rows(), tensor.cols(), tensor.row_stride()};
}

/// Below this many operations (4 us at 8 flops per ns) a second thread does not pay.
inline constexpr std::int64_t kSerialFlops = std::int64_t{32} * 1000;
/// A panel is worth handing to a thread from about 2 us of work on.
inline constexpr std::int64_t kPanelFlops = std::int64_t{16} * 1000;
/// Enough panels for an even load on 16 threads.
inline constexpr std::int64_t kMaxPanels = 64;
/// Panels hold a multiple of this many rows, so that only the last one leaves a GEMM micro-kernel ragged.
inline constexpr std::int64_t kPanelRowMultiple = 8;

/// Rows per panel: a function of the problem alone, so that sums formed per panel have the same bits for any number
/// of threads. A power of two of panels: an even load on 2, 4, 8 threads.
inline std::int64_t panel_rows(std::int64_t rows, std::int64_t cost_per_row_in_flops,
                               std::int64_t multiple = kPanelRowMultiple) {
  const std::int64_t cost = std::max<std::int64_t>(cost_per_row_in_flops, 1);
  const std::int64_t least = std::max<std::int64_t>((kPanelFlops + cost - 1) / cost, 1);
  const std::int64_t most = std::clamp<std::int64_t>(rows / least, 1, kMaxPanels);
  const auto panels = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(most)));
  const std::int64_t wanted = std::max<std::int64_t>((rows + panels - 1) / panels, 1);
  return (wanted + multiple - 1) / multiple * multiple;
}

/// Calls f(first, last) for every panel of [0, rows). `multiple` 1 suits rows that are work enough alone, as images
/// are.
template <class F>
void parallel_rows(std::int64_t rows, std::int64_t cost_per_row_in_flops, ThreadTeam& team, F&& f,
                   std::int64_t multiple = kPanelRowMultiple) {
  if (rows <= 0) return;
  const std::int64_t step = panel_rows(rows, cost_per_row_in_flops, multiple);
  const std::int64_t panels = (rows + step - 1) / step;
  const auto panel = [&](std::int64_t i) { f(i * step, std::min(rows, (i + 1) * step)); };
  if (rows < kSerialFlops / std::max<std::int64_t>(cost_per_row_in_flops, 1)) {
    for (std::int64_t i = 0; i < panels; ++i) panel(i);
  } else {
    team.run(panels, panel);
  }
}

}  // namespace bracket
