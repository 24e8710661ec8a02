// What the ops made of dense products share: Eigen's views of matrices, panels for the threads, buffers per thread.
//
// Panels depend on the shapes alone, and threads share them: the same bits for any number of threads.
#pragma once

#ifndef EIGEN_DONT_PARALLELIZE
#define EIGEN_DONT_PARALLELIZE
#endif
#include <Eigen/Core>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/cpu_common.h"
#include "kernels/ops.h"

namespace bracket {

/// Panels split the rows in eight, within these limits: copying strips of w for every panel costs 10 % at 32 rows and
/// under 2 % beyond 256.
inline constexpr std::int64_t kPanels = 8;
inline constexpr std::int64_t kMinProductRows = 32;
inline constexpr std::int64_t kMaxProductRows = 256;

/// Time estimates in units of 10 ps: 100 flops per ns, 8 written elements per ns.
inline constexpr std::int64_t kWriteCost = 12;
/// Below 3 us a second thread does not pay.
inline constexpr std::int64_t kSerialCost = std::int64_t{300} * 1000;

template <class T>
using Dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using View = Eigen::Map<Dense<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

template <class T>
View<T> rows_of(const Matrix<T>& m, std::int64_t first, std::int64_t count) {
  return {m.row(first), count, m.cols, Eigen::OuterStride<>(m.ld)};
}

/// A contiguous [rows, cols].
template <class T>
View<T> block(T* data, std::int64_t rows, std::int64_t cols) {
  return {data, rows, cols, Eigen::OuterStride<>(cols)};
}

inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Rows of a result per panel.
inline std::int64_t product_rows(std::int64_t rows) {
  const std::int64_t even = round_up((rows + kPanels - 1) / kPanels, kPanelRowMultiple);
  return std::clamp(even, kMinProductRows, kMaxProductRows);
}

/// f(task) for every task, on as many threads as there are and the work deserves.
template <class F>
void parallel_tasks(std::int64_t tasks, std::int64_t cost, ThreadTeam& team, F&& f) {
  if (cost < kSerialCost) {
    for (std::int64_t task = 0; task < tasks; ++task) f(task);
  } else {
    team.run(tasks, f);
  }
}

/// product(first, count) for every panel of the rows of a result.
template <class F>
void parallel_panels(std::int64_t rows, std::int64_t cost_per_row, ThreadTeam& team, F&& product) {
  const std::int64_t step = product_rows(rows);
  parallel_tasks((rows + step - 1) / step, rows * cost_per_row, team, [&](std::int64_t panel) {
    const std::int64_t first = panel * step;
    product(first, std::min(step, rows - first));
  });
}

template <class C, class Product>
void store(C&& c, const Product& product, Update update) {
  if (update == Update::accumulate) {
    c.noalias() += product;
  } else {
    c.noalias() = product;
  }
}

/// Memory of the calling thread, of undefined content, one block per T and Use; it grows and stays.
template <class T, class Use>
T* thread_buffer(std::int64_t size) {
  static thread_local std::vector<T> elements;
  if (static_cast<std::int64_t>(elements.size()) < size) elements.resize(static_cast<std::size_t>(size));
  return elements.data();
}

}  // namespace bracket
