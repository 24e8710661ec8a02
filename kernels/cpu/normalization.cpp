// Batch normalisation (training and inference) and spectral normalisation.
//
// Column statistics are summed in double, one column after the other row by row, so that neither threads nor the
// width of a panel change a bit. With a single row the batch variance is 0 and says nothing about the population:
// running_variance then stays as it is, while running_mean moves. Without rows nothing moves, and mean = 0.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

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

/// sums[j] += term(i, j) over all rows i, for kWidth columns from `first` on: their sums stay in registers.
template <int kWidth, class Term>
void add_block(double* sums, std::int64_t rows, int first, Term&& term) {
  double local[kWidth] = {};
  for (std::int64_t i = 0; i < rows; ++i) {
#pragma omp simd
    for (int j = 0; j < kWidth; ++j) local[j] += term(i, first + j);
  }
  for (int j = 0; j < kWidth; ++j) sums[first + j] += local[j];
}

/// sums[j] += term(i, j), j in [0, count), over all rows i.
template <class Term>
void add_columns(double* sums, std::int64_t rows, int count, Term&& term) {
  int j = 0;
  for (; j + 16 <= count; j += 16) add_block<16>(sums, rows, j, term);
  for (; j + 8 <= count; j += 8) add_block<8>(sums, rows, j, term);
  for (; j + 4 <= count; j += 4) add_block<4>(sums, rows, j, term);
  for (; j < count; ++j) add_block<1>(sums, rows, j, term);
}

/// y(i, j) = value(i, j) for columns [0, count) of every row. An output may lie over an input, element on element.
template <class T, class Value>
void map_columns(const Matrix<T>& y, std::int64_t first, int count, Value&& value) {
  for (std::int64_t i = 0; i < y.rows; ++i) {
    T* const row = y.row(i) + first;
#pragma omp simd
    for (int j = 0; j < count; ++j) row[j] = value(i, j);
  }
}

/// The elements of a vector that belong to a panel, where no store to a matrix can change them.
template <class T>
struct PanelOf {
  PanelOf(const T* vector, std::int64_t first, int count) { std::copy_n(vector + first, count, values); }
  T operator[](int j) const { return values[j]; }
  T values[kPanel];
};

template <class T>
T* vector_or_null(const Tensor& tensor) {
  return tensor.absent() ? nullptr : tensor.as<T>();
}

template <class T>
void store(T* y, double value, Update update) {
  *y = static_cast<T>(update == Update::accumulate ? static_cast<double>(*y) + value : value);
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

void CpuOps::do_batch_norm_train_forward(Tensor y, Tensor mean, Tensor inv_std, Tensor running_mean,
                                         Tensor running_variance, Tensor x, Tensor gamma, Tensor beta, double momentum,
                                         double epsilon) {
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), in = matrix<T>(x);
    T* const means = mean.as<T>();
    T* const inv_stds = inv_std.as<T>();
    T* const running_means = vector_or_null<T>(running_mean);
    T* const running_variances = vector_or_null<T>(running_variance);
    const T* const scale = gamma.as<T>();
    const T* const shift = beta.as<T>();
    const std::int64_t n = in.rows;
    const auto rows = static_cast<double>(n);
    const auto move = [momentum](T& running, double batch) {
      running = static_cast<T>((1 - momentum) * static_cast<double>(running) + momentum * batch);
    };
    column_panels(in.cols, 8 * n, team_, [&](std::int64_t first, int count) {
      double center[kPanel] = {};
      double squares[kPanel] = {};
      add_columns(center, n, count, [&](std::int64_t i, int j) { return static_cast<double>(in.row(i)[first + j]); });
      for (int j = 0; j < count; ++j) center[j] = n > 0 ? center[j] / rows : 0.0;
      add_columns(squares, n, count, [&](std::int64_t i, int j) {
        const double deviation = static_cast<double>(in.row(i)[first + j]) - center[j];
        return deviation * deviation;
      });
      T inverse[kPanel];
      for (int j = 0; j < count; ++j) {
        const double variance = n > 0 ? squares[j] / rows : 0.0;
        inverse[j] = static_cast<T>(1 / std::sqrt(variance + epsilon));
        means[first + j] = static_cast<T>(center[j]);
        inv_stds[first + j] = inverse[j];
        if (running_means && n > 0) move(running_means[first + j], center[j]);
        if (running_variances && n > 1) move(running_variances[first + j], squares[j] / (rows - 1));
      }
      const PanelOf<T> center_of(means, first, count), scale_of(scale, first, count), shift_of(shift, first, count);
      map_columns(out, first, count, [&](std::int64_t i, int j) {
        return scale_of[j] * ((in.row(i)[first + j] - center_of[j]) * inverse[j]) + shift_of[j];
      });
    });
  });
}

void CpuOps::do_batch_norm_train_reverse(Tensor grad_x, Tensor grad_gamma, Tensor grad_beta, Tensor grad_y, Tensor x,
                                         Tensor gamma, Tensor mean, Tensor inv_std, Update update) {
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(grad_x), in = matrix<T>(x), seed = matrix<T>(grad_y);
    T* const grad_scale = vector_or_null<T>(grad_gamma);
    T* const grad_shift = vector_or_null<T>(grad_beta);
    const T* const scale = gamma.as<T>();
    const T* const means = mean.as<T>();
    const T* const inv_stds = inv_std.as<T>();
    const std::int64_t n = in.rows;
    column_panels(in.cols, 10 * n, team_, [&](std::int64_t first, int count) {
      const PanelOf<T> center(means, first, count), inverse(inv_stds, first, count), scale_of(scale, first, count);
      double shifts[kPanel] = {};
      double scales[kPanel] = {};
      add_columns(shifts, n, count, [&](std::int64_t i, int j) { return static_cast<double>(seed.row(i)[first + j]); });
      add_columns(scales, n, count, [&](std::int64_t i, int j) {
        const T normalized = (in.row(i)[first + j] - center[j]) * inverse[j];
        return static_cast<double>(seed.row(i)[first + j]) * static_cast<double>(normalized);
      });
      T mean_shift[kPanel], mean_scale[kPanel];
      const double rows = static_cast<double>(std::max<std::int64_t>(n, 1));
      for (int j = 0; j < count; ++j) {
        mean_shift[j] = static_cast<T>(shifts[j] / rows);
        mean_scale[j] = static_cast<T>(scales[j] / rows);
        if (grad_scale) store(grad_scale + first + j, scales[j], update);
        if (grad_shift) store(grad_shift + first + j, shifts[j], update);
      }
      map_columns(out, first, count, [&](std::int64_t i, int j) {
        const T normalized = (in.row(i)[first + j] - center[j]) * inverse[j];
        return scale_of[j] * inverse[j] * (seed.row(i)[first + j] - mean_shift[j] - normalized * mean_scale[j]);
      });
    });
  });
}

void CpuOps::do_batch_norm_infer_forward(Stacked y, Stacked x, Tensor gamma, Tensor beta, Tensor running_mean,
                                         Tensor running_variance, double epsilon, const Rows&) {
  dispatch(gamma.dtype(), [&]<class T>() {
    const T* const scale = gamma.as<T>();
    const T* const shift = beta.as<T>();
    const T* const means = running_mean.as<T>();
    const T* const variances = running_variance.as<T>();
    const auto map_rows = [&]<bool kShifted>(const Matrix<T>& out, const Matrix<T>& in) {
      column_panels(out.cols, 4 * out.rows, team_, [&](std::int64_t first, int count) {
        T factor[kPanel];
        for (int j = 0; j < count; ++j) {
          const double deviation = std::sqrt(static_cast<double>(variances[first + j]) + epsilon);
          factor[j] = static_cast<T>(static_cast<double>(scale[first + j]) / deviation);
        }
        if constexpr (kShifted) {
          const PanelOf<T> center(means, first, count), shift_of(shift, first, count);
          map_columns(out, first, count, [&](std::int64_t i, int j) {
            return (in.row(i)[first + j] - center[j]) * factor[j] + shift_of[j];
          });
        } else {
          map_columns(out, first, count, [&](std::int64_t i, int j) { return in.row(i)[first + j] * factor[j]; });
        }
      });
    };
    if (!y.primal.absent()) map_rows.template operator()<true>(matrix<T>(y.primal), matrix<T>(x.primal));
    if (!y.tangent.absent()) map_rows.template operator()<false>(matrix<T>(y.tangent), matrix<T>(x.tangent));
  });
}

void CpuOps::do_batch_norm_infer_reverse(Stacked grad_x, Tensor grad_gamma, Tensor grad_beta, Stacked grad_y, Stacked x,
                                         Tensor gamma, Tensor running_mean, Tensor running_variance, double epsilon,
                                         const Rows&, Update update) {
  dispatch(gamma.dtype(), [&]<class T>() {
    T* const grad_scale = vector_or_null<T>(grad_gamma);
    T* const grad_shift = vector_or_null<T>(grad_beta);
    const T* const scale = gamma.as<T>();
    const T* const means = running_mean.as<T>();
    const T* const variances = running_variance.as<T>();
    const Matrix<T> seeds[2] = {matrix<T>(grad_y.primal), matrix<T>(grad_y.tangent)};
    const Matrix<T> inputs[2] = {matrix<T>(x.primal), matrix<T>(x.tangent)};
    const Matrix<T> outputs[2] = {matrix<T>(grad_x.primal), matrix<T>(grad_x.tangent)};
    column_panels(
        gamma.rows(), 6 * (outputs[0].rows + outputs[1].rows + seeds[0].rows + seeds[1].rows), team_,
        [&](std::int64_t first, int count) {
          double inverse[kPanel];
          double shifts[kPanel] = {};
          double scales[kPanel] = {};
          for (int j = 0; j < count; ++j) {
            inverse[j] = 1 / std::sqrt(static_cast<double>(variances[first + j]) + epsilon);
          }
          if (grad_shift) {
            add_columns(shifts, seeds[0].rows, count,
                        [&](std::int64_t i, int j) { return static_cast<double>(seeds[0].row(i)[first + j]); });
          }
          if (grad_scale) {
            const PanelOf<T> center(means, first, count);
            add_columns(scales, seeds[0].rows, count, [&](std::int64_t i, int j) {
              const T centered = inputs[0].row(i)[first + j] - center[j];
              return static_cast<double>(seeds[0].row(i)[first + j]) * static_cast<double>(centered);
            });
            add_columns(scales, seeds[1].rows, count, [&](std::int64_t i, int j) {
              return static_cast<double>(seeds[1].row(i)[first + j]) * static_cast<double>(inputs[1].row(i)[first + j]);
            });
          }
          for (int j = 0; j < count; ++j) {
            if (grad_scale) store(grad_scale + first + j, scales[j] * inverse[j], update);
            if (grad_shift) store(grad_shift + first + j, shifts[j], update);
          }
          T factor[kPanel];
          for (int j = 0; j < count; ++j)
            factor[j] = static_cast<T>(static_cast<double>(scale[first + j]) * inverse[j]);
          for (int part = 0; part < 2; ++part) {
            const Matrix<T>& seed = seeds[part];
            const Matrix<T>& out = outputs[part];
            if (seed.data) {
              map_columns(out, first, count, [&](std::int64_t i, int j) { return seed.row(i)[first + j] * factor[j]; });
            } else {
              map_columns(out, first, count, [](std::int64_t, int) { return T{0}; });
            }
          }
        });
  });
}

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
