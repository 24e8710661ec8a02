// Spectral normalisation: power iterations and division by the norm they find.
//
// Sums run in double, per column row by row, or per chunk of rows, so that no number of threads changes a bit.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/column_blocks.h"
#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lane_sum.h"

namespace bracket {
namespace {

/// Most columns handled at once; a row of them is two cache lines of floats.
constexpr int kPanel = 32;

/// Calls f(first, count) for panels of up to kPanel columns; what f does to a column must not depend on the panel.
template <class F>
void column_panels(std::int64_t columns, std::int64_t cost_per_column, ThreadTeam& team, F&& f) {
  parallel_rows(columns, cost_per_column, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t j = first; j < last; j += kPanel) {
      f(j, static_cast<int>(std::min<std::int64_t>(kPanel, last - j)));
    }
  });
}

/// Sum over rows in at most this many chunks, each summed by one thread and then added in order.
constexpr std::int64_t kRowChunks = 64;

template <class RowTerm>
double sum_of_rows(std::int64_t rows, std::int64_t cost_per_row, ThreadTeam& team, RowTerm&& row_term) {
  std::array<double, kRowChunks> partial{};
  const std::int64_t chunk = (rows + kRowChunks - 1) / kRowChunks;
  parallel_rows(kRowChunks, chunk * cost_per_row, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c) {
      double sum = 0;
      for (std::int64_t i = c * chunk; i < std::min(rows, (c + 1) * chunk); ++i) sum += row_term(i);
      partial[static_cast<std::size_t>(c)] = sum;
    }
  });
  double total = 0;
  for (const double value : partial) total += value;
  return total;
}

/// x <- x / max(|x|, epsilon)
template <class T>
void normalize(T* x, std::int64_t count, double epsilon) {
  const double norm = std::max(std::sqrt(inner_product(x, x, count)), epsilon);
  for (std::int64_t i = 0; i < count; ++i) x[i] = static_cast<T>(static_cast<double>(x[i]) / norm);
}

/// u = w v
template <class T>
void multiply(T* u, const Matrix<T>& w, const T* v, ThreadTeam& team) {
  parallel_rows(w.rows, 2 * w.cols, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) u[i] = static_cast<T>(inner_product(w.row(i), v, w.cols));
  });
}

/// v = w^T u
template <class T>
void multiply_transposed(T* v, const Matrix<T>& w, const T* u, ThreadTeam& team) {
  column_panels(w.cols, 2 * w.rows, team, [&](std::int64_t first, int count) {
    double sums[kPanel] = {};
    add_columns(sums, w.rows, count, [&](std::int64_t i, int j) {
      return static_cast<double>(w.row(i)[first + j]) * static_cast<double>(u[i]);
    });
    for (int j = 0; j < count; ++j) v[first + j] = static_cast<T>(sums[j]);
  });
}

}  // namespace

void CpuOps::do_spectral_norm_forward(Tensor w_normalized, Tensor sigma, Tensor u, Tensor v, Tensor w, int iterations,
                                      double epsilon) {
  dispatch(w.dtype(), [&]<class T>() {
    const Matrix<T> weights = matrix<T>(w), out = matrix<T>(w_normalized);
    T* const left = u.as<T>();
    T* const right = v.as<T>();
    for (int iteration = 0; iteration < iterations; ++iteration) {
      multiply(left, weights, right, team_);
      normalize(left, weights.rows, epsilon);
      multiply_transposed(right, weights, left, team_);
      normalize(right, weights.cols, epsilon);
    }
    const T norm = static_cast<T>(sum_of_rows(weights.rows, 2 * weights.cols, team_, [&](std::int64_t i) {
      return static_cast<double>(left[i]) * inner_product(weights.row(i), right, weights.cols);
    }));
    *sigma.as<T>() = norm;
    parallel_rows(weights.rows, 4 * weights.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const T* const from = weights.row(i);
        T* const to = out.row(i);
#pragma omp simd
        for (std::int64_t j = 0; j < weights.cols; ++j) to[j] = from[j] / norm;
      }
    });
  });
}

void CpuOps::do_spectral_norm_reverse(Tensor grad_w, Tensor grad_w_normalized, Tensor w_normalized, Tensor sigma,
                                      Tensor u, Tensor v, Update update) {
  dispatch(grad_w.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(grad_w), seed = matrix<T>(grad_w_normalized), weights = matrix<T>(w_normalized);
    const T* const left = u.as<T>();
    const T* const right = v.as<T>();
    const T norm = *sigma.as<T>();
    const double radial = sum_of_rows(seed.rows, 2 * seed.cols, team_, [&](std::int64_t i) {
      return inner_product(seed.row(i), weights.row(i), seed.cols);
    });
    parallel_rows(seed.rows, 6 * seed.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const T along = static_cast<T>(radial * static_cast<double>(left[i]));
        const T* const from = seed.row(i);
        T* const to = out.row(i);
        if (update == Update::accumulate) {
          for (std::int64_t j = 0; j < seed.cols; ++j) to[j] += (from[j] - along * right[j]) / norm;
        } else {
          for (std::int64_t j = 0; j < seed.cols; ++j) to[j] = (from[j] - along * right[j]) / norm;
        }
      }
    });
  });
}

}  // namespace bracket
