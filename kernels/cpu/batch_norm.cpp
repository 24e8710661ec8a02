// Batch normalisation, training and inference.
//
// Column sums run in double: a panel of rows by one thread, tile by tile of rows that stay in the first-level cache,
// and the panels in order; panels depend on the shape alone, so that no number of threads changes a bit. Means and
// squared deviations of tiles are merged as by Chan, Golub and LeVeque (1983), which reads memory once and cancels
// nothing. The maps run over runs of elements (channel_runs.h), as the rows of images, one per pixel, have few columns.
//
// With a single row the batch variance is 0 and says nothing about the population: running_variance then stays as it
// is, while running_mean moves. Without rows nothing moves, and mean = 0.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/channel_runs.h"
#include "kernels/cpu/column_blocks.h"
#include "kernels/cpu/cpu_ops.h"

namespace bracket {
namespace {

/// Most columns summed at once; a row of them is two cache lines of floats.
constexpr int kBlock = 32;
/// Rows of a tile: with kBlock columns of doubles they take 16 KiB, half of the smallest first-level cache in use.
constexpr std::int64_t kTileRows = 64;
/// Work per element of a sum and of a map, in the unit of parallel_rows.
constexpr std::int64_t kFlopsPerSum = 8;
constexpr std::int64_t kFlopsPerMap = 4;

template <class T>
T* vector_or_null(const Tensor& tensor) {
  return tensor.absent() ? nullptr : tensor.as<T>();
}

template <class T>
void store(T* y, double value, Update update) {
  *y = static_cast<T>(update == Update::accumulate ? static_cast<double>(*y) + value : value);
}

/// Two numbers per column of each panel of rows, [panels, 2, cols]; they live until the next call.
struct PanelSums {
  double* data;
  std::int64_t panels;
  std::int64_t panel_rows;
  std::int64_t cols;
  double* first(std::int64_t panel) const { return data + panel * 2 * cols; }
  double* second(std::int64_t panel) const { return first(panel) + cols; }
};

/// Calls add(first sums, second sums, begin, end, rows of the panel before them, column, count) for every tile, rows
/// [begin, end) and `count` columns from `column` on, with the panel's sums of those columns, which start as 0.
template <class Add>
PanelSums sum_panels(std::int64_t rows, std::int64_t cols, ThreadTeam& team, Add&& add) {
  const std::int64_t cost = kFlopsPerSum * cols;
  const std::int64_t step = panel_rows(rows, cost);
  const std::int64_t panels = (rows + step - 1) / step;
  const PanelSums sums{panel_sums<double>(std::max<std::int64_t>(panels, 1) * 2 * cols), panels, step, cols};
  std::fill_n(sums.data, std::max<std::int64_t>(panels, 1) * 2 * cols, 0.0);
  parallel_rows(rows, cost, team, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t panel = begin / step;
    for (std::int64_t row = begin; row < end; row += kTileRows) {
      for (std::int64_t column = 0; column < cols; column += kBlock) {
        const auto count = static_cast<int>(std::min<std::int64_t>(kBlock, cols - column));
        add(sums.first(panel) + column, sums.second(panel) + column, row, std::min(end, row + kTileRows), row - begin,
            column, count);
      }
    }
  });
  return sums;
}

/// Adds the columns of `seed`, and of seed (x - center) factor, rows [begin, end). Either kind may be null; `x` is read
/// for the products only.
template <class T>
void add_gradients(double* sums, double* products, const Matrix<T>& seed, const Matrix<T>& x, const T* center,
                   const T* factor, std::int64_t begin, std::int64_t end, std::int64_t column, int count) {
  const T* const grads = seed.row(begin) + column;
  if (sums) {
    add_columns(sums, end - begin, count,
                [=, ld = seed.ld](std::int64_t i, int j) { return static_cast<double>(grads[i * ld + j]); });
  }
  if (!products) return;
  const T* const values = x.row(begin) + column;
  add_columns(products, end - begin, count, [=, ld = seed.ld, x_ld = x.ld](std::int64_t i, int j) {
    const T normalized = (values[i * x_ld + j] - center[j]) * factor[j];
    return static_cast<double>(grads[i * ld + j]) * static_cast<double>(normalized);
  });
}

/// The sums of panel 0 become those of all panels.
void add_up(const PanelSums& sums) {
  for (std::int64_t panel = 1; panel < sums.panels; ++panel) {
    for (std::int64_t j = 0; j < 2 * sums.cols; ++j) sums.data[j] += sums.first(panel)[j];
  }
}

/// Merges mean and squared deviations of `count` rows into those of `before` rows.
void merge_moments(double& mean, double& squares, double before, double other_mean, double other_squares,
                   double count) {
  const double delta = other_mean - mean;
  const double share = count / (before + count);
  mean += delta * share;
  squares += other_squares + delta * delta * before * share;
}

/// Means and sums of squared deviations of the columns of x, in panel 0.
template <class T>
PanelSums column_moments(const Matrix<T>& x, ThreadTeam& team) {
  const auto add = [&](double* means, double* squares, std::int64_t begin, std::int64_t end, std::int64_t before,
                       std::int64_t column, int count) {
    const auto rows = static_cast<double>(end - begin);
    double center[kBlock] = {};
    double deviations[kBlock] = {};
    add_columns(center, end - begin, count,
                [&](std::int64_t i, int j) { return static_cast<double>(x.row(begin + i)[column + j]); });
    for (int j = 0; j < count; ++j) center[j] /= rows;
    add_columns(deviations, end - begin, count, [&](std::int64_t i, int j) {
      const double deviation = static_cast<double>(x.row(begin + i)[column + j]) - center[j];
      return deviation * deviation;
    });
    for (int j = 0; j < count; ++j) {
      merge_moments(means[j], squares[j], static_cast<double>(before), center[j], deviations[j], rows);
    }
  };
  const PanelSums sums = sum_panels(x.rows, x.cols, team, add);
  for (std::int64_t panel = 1; panel < sums.panels; ++panel) {
    const std::int64_t before = panel * sums.panel_rows;
    const auto rows = static_cast<double>(std::min(sums.panel_rows, x.rows - before));
    for (std::int64_t j = 0; j < x.cols; ++j) {
      merge_moments(sums.first(0)[j], sums.second(0)[j], static_cast<double>(before), sums.first(panel)[j],
                    sums.second(panel)[j], rows);
    }
  }
  return sums;
}

/// The constants of a run's columns, laid out element by element.
template <class T, int kCount>
struct RunConstants {
  T values[kCount][kRun];
  void lay_out(int which, std::int64_t width, std::int64_t elements, const T* of_columns) {
    for (std::int64_t i = 0; i < elements; ++i) values[which][i] = of_columns[i % width];
  }
};

/// map(constants, row, column, elements) for all runs of a matrix of `rows` rows; constants_of(which, column) is the
/// value of one of kCount constants.
template <class T, int kCount, class ConstantOf, class Map>
void map_runs(std::int64_t rows, std::int64_t cols, bool contiguous, ThreadTeam& team, ConstantOf&& constant_of,
              Map&& map) {
  if (rows == 0 || cols == 0) return;
  const ChannelRuns runs(cols, cols, contiguous);
  const Rows primal{rows, 0, 0, 0};
  parallel_rows(rows, kFlopsPerMap * cols, team, [&](std::int64_t begin, std::int64_t end) {
    RunConstants<T, kCount> constants;
    T of_columns[kRun];
    const auto start = [&](std::int64_t first, std::int64_t width) {
      for (int which = 0; which < kCount; ++which) {
        for (std::int64_t j = 0; j < width; ++j) of_columns[j] = constant_of(which, first + j);
        constants.lay_out(which, width, runs.longest(width), of_columns);
      }
    };
    const auto run = [&](std::int64_t row, std::int64_t column, std::int64_t n, bool) {
      map(constants.values, row, column, n);
    };
    visit_runs(runs, begin, end, primal, start, run, [](std::int64_t, std::int64_t) {});
  });
}

template <class... Matrices>
bool touching(const Matrices&... matrices) {
  return ((matrices.ld == matrices.cols) && ...);
}

/// y = x factor, or 0 without x.
template <class T, class FactorOf>
void scale_columns(const Matrix<T>& y, const Matrix<T>& x, ThreadTeam& team, FactorOf&& factor_of) {
  const auto constant_of = [&](int, std::int64_t column) { return factor_of(column); };
  map_runs<T, 1>(y.rows, y.cols, touching(y, x), team, constant_of,
                 [&](const T(&constants)[1][kRun], std::int64_t row, std::int64_t column, std::int64_t n) {
                   T* const to = element(y, row, column);
                   if (x.data == nullptr) {
                     std::fill_n(to, n, T{0});
                   } else {
                     multiply_run(to, constants[0], element(x, row, column), n);
                   }
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
    const std::int64_t n = in.rows;
    const auto rows = static_cast<double>(n);
    const auto move = [momentum](T& running, double batch) {
      running = static_cast<T>((1 - momentum) * static_cast<double>(running) + momentum * batch);
    };
    const PanelSums moments = column_moments(in, team_);
    for (std::int64_t j = 0; j < in.cols; ++j) {
      const double center = moments.first(0)[j];
      const double squares = moments.second(0)[j];
      means[j] = static_cast<T>(center);
      inv_stds[j] = static_cast<T>(1 / std::sqrt((n > 0 ? squares / rows : 0.0) + epsilon));
      if (running_means && n > 0) move(running_means[j], center);
      if (running_variances && n > 1) move(running_variances[j], squares / (rows - 1));
    }
    const T* const vectors[4] = {means, inv_stds, gamma.as<T>(), beta.as<T>()};
    const auto constant_of = [&](int which, std::int64_t column) { return vectors[which][column]; };
    map_runs<T, 4>(n, in.cols, touching(out, in), team_, constant_of,
                   [&](const T(&constants)[4][kRun], std::int64_t row, std::int64_t column, std::int64_t count) {
                     const auto& [center, inverse, scale, shift] = constants;
                     T* const to = out.row(row) + column;
                     const T* const from = in.row(row) + column;
#pragma omp simd
                     for (std::int64_t i = 0; i < count; ++i) {
                       to[i] = scale[i] * ((from[i] - center[i]) * inverse[i]) + shift[i];
                     }
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
    const PanelSums sums = sum_panels(n, in.cols, team_,
                                      [&](double* shifts, double* scales, std::int64_t begin, std::int64_t end,
                                          std::int64_t, std::int64_t column, int count) {
                                        add_gradients(shifts, scales, seed, in, means + column, inv_stds + column,
                                                      begin, end, column, count);
                                      });
    add_up(sums);
    const double* const shifts = sums.first(0);
    const double* const scales = sums.second(0);
    for (std::int64_t j = 0; j < in.cols; ++j) {
      if (grad_scale) store(grad_scale + j, scales[j], update);
      if (grad_shift) store(grad_shift + j, shifts[j], update);
    }
    const auto rows = static_cast<double>(n);
    const auto constant_of = [&](int which, std::int64_t j) {
      switch (which) {
        case 0:
          return means[j];
        case 1:
          return inv_stds[j];
        case 2:
          return scale[j] * inv_stds[j];
        case 3:
          return static_cast<T>(shifts[j] / rows);
        default:
          return static_cast<T>(scales[j] / rows);
      }
    };
    map_runs<T, 5>(n, in.cols, touching(out, in, seed), team_, constant_of,
                   [&](const T(&constants)[5][kRun], std::int64_t row, std::int64_t column, std::int64_t count) {
                     const auto& [center, inverse, factor, mean_shift, mean_scale] = constants;
                     T* const to = out.row(row) + column;
                     const T* const from = in.row(row) + column;
                     const T* const grad = seed.row(row) + column;
#pragma omp simd
                     for (std::int64_t i = 0; i < count; ++i) {
                       const T normalized = (from[i] - center[i]) * inverse[i];
                       to[i] = factor[i] * (grad[i] - mean_shift[i] - normalized * mean_scale[i]);
                     }
                   });
  });
}

void CpuOps::do_batch_norm_infer_forward(Stacked y, Stacked x, Tensor gamma, Tensor beta, Tensor running_mean,
                                         Tensor running_variance, double epsilon, const Rows&) {
  dispatch(gamma.dtype(), [&]<class T>() {
    const T* const scale = gamma.as<T>();
    const T* const variances = running_variance.as<T>();
    const auto factor_of = [&](std::int64_t j) {
      return static_cast<T>(static_cast<double>(scale[j]) / std::sqrt(static_cast<double>(variances[j]) + epsilon));
    };
    if (!y.primal.absent()) {
      const Matrix<T> out = matrix<T>(y.primal), in = matrix<T>(x.primal);
      const T* const vectors[3] = {nullptr, running_mean.as<T>(), beta.as<T>()};
      const auto constant_of = [&](int which, std::int64_t j) { return which == 0 ? factor_of(j) : vectors[which][j]; };
      map_runs<T, 3>(out.rows, out.cols, touching(out, in), team_, constant_of,
                     [&](const T(&constants)[3][kRun], std::int64_t row, std::int64_t column, std::int64_t count) {
                       const auto& [factor, center, shift] = constants;
                       T* const to = out.row(row) + column;
                       const T* const from = in.row(row) + column;
#pragma omp simd
                       for (std::int64_t i = 0; i < count; ++i) to[i] = (from[i] - center[i]) * factor[i] + shift[i];
                     });
    }
    if (!y.tangent.absent()) scale_columns(matrix<T>(y.tangent), matrix<T>(x.tangent), team_, factor_of);
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
    const std::int64_t cols = gamma.rows();
    const auto inverse_of = [&](std::int64_t j) { return 1 / std::sqrt(static_cast<double>(variances[j]) + epsilon); };
    // The tangents' share of grad_gamma is added to that of the primal rows; grad_x may lie over grad_y, so both first.
    for (const bool tangent : {false, true}) {
      const Matrix<T> seed = matrix<T>(tangent ? grad_y.tangent : grad_y.primal);
      const Matrix<T> in = matrix<T>(tangent ? x.tangent : x.primal);
      if (grad_scale == nullptr && (tangent || grad_shift == nullptr)) continue;
      const PanelSums sums =
          sum_panels(seed.rows, cols, team_,
                     [&](double* shifts, double* scales, std::int64_t begin, std::int64_t end, std::int64_t,
                         std::int64_t column, int count) {
                       T center[kBlock] = {};
                       T factor[kBlock];
                       std::fill_n(factor, count, T{1});
                       if (!tangent) std::copy_n(means + column, count, center);
                       add_gradients(!tangent && grad_shift ? shifts : nullptr, grad_scale ? scales : nullptr, seed, in,
                                     center, factor, begin, end, column, count);
                     });
      add_up(sums);
      for (std::int64_t j = 0; j < cols; ++j) {
        if (!tangent && grad_shift) store(grad_shift + j, sums.first(0)[j], update);
        if (grad_scale) {
          store(grad_scale + j, sums.second(0)[j] * inverse_of(j), tangent ? Update::accumulate : update);
        }
      }
    }
    const auto factor_of = [&](std::int64_t j) {
      return static_cast<T>(static_cast<double>(scale[j]) * inverse_of(j));
    };
    scale_columns(matrix<T>(grad_x.primal), matrix<T>(grad_y.primal), team_, factor_of);
    scale_columns(matrix<T>(grad_x.tangent), matrix<T>(grad_y.tangent), team_, factor_of);
  });
}

}  // namespace bracket
