// The layers of calibrated densities as the tests see them: reference formula and ops.
#pragma once

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "differentiable_reference.h"
#include "ops_fixture.h"

namespace bracket::test {

/// A layer as the tests see it: inputs x and parameters theta per row (theta may have no columns).
struct Layer {
  std::int64_t x_cols = 0;
  std::int64_t theta_cols = 0;
  std::int64_t y_cols = 0;
  bool theta_has_gradient = false;
  bool accumulates = true;  ///< the reverse op has an Update argument
  HostMatrix constants;     ///< frequencies, or scale and shift
  /// Columns of x in which theta.tangent holds derivatives; without a value it holds tangents.
  std::optional<std::vector<std::int64_t>> jacobian_columns;
  double x_scale = 1;
  double theta_scale = 1;
  std::function<RowSolution(const HostMatrix& constants, const RowProblem&)> reference;
  std::function<void(Ops&, Stacked y, Stacked x, Stacked theta, Tensor constants, const Rows&)> forward;
  std::function<void(Ops&, Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked x, Stacked theta,
                     Tensor constants, const Rows&, Update)>
      reverse;

  Rows theta_rows(const Rows& rows) const {
    Rows theta = rows;
    if (jacobian_columns) theta.tangents = static_cast<std::int64_t>(jacobian_columns->size());
    return theta;
  }
};

template <class S>
S bounded(const S& x, double limit) {
  return S(limit) * tanh(x / S(limit));
}

inline Layer fourier_features(std::int64_t dims, std::int64_t features, double frequency_scale = 3) {
  Layer layer;
  layer.x_cols = dims;
  layer.y_cols = dims + 2 * features;
  layer.constants = random_matrix(features, dims, 11, -frequency_scale, frequency_scale);
  layer.reference = [](const HostMatrix& f, const RowProblem& problem) {
    return solve_row(
        [&f]<class S>(const std::vector<S>& x) {
          std::vector<S> y = x;
          for (int part = 0; part < 2; ++part) {
            for (std::int64_t j = 0; j < f.rows; ++j) {
              S angle(0.0);
              for (std::int64_t d = 0; d < f.cols; ++d) angle = angle + S(f(j, d)) * x[static_cast<std::size_t>(d)];
              y.push_back(part == 0 ? sin(angle) : cos(angle));
            }
          }
          return y;
        },
        problem);
  };
  layer.forward = [](Ops& ops, Stacked y, Stacked x, Stacked, Tensor f, const Rows& rows) {
    ops.fourier_features_forward(y, x, f, rows);
  };
  layer.reverse = [](Ops& ops, Stacked grad_x, Stacked, Stacked grad_y, Stacked x, Stacked, Tensor f, const Rows& rows,
                     Update update) { ops.fourier_features_reverse(grad_x, grad_y, x, f, rows, update); };
  return layer;
}

/// The columns of y and, behind them, those of the logarithms of slopes.
inline Stacked columns_of(const Stacked& y, std::int64_t first, std::int64_t count) {
  const auto part = [&](const Tensor& t) { return t.absent() || count == 0 ? Tensor() : t.slice_cols(first, count); };
  return {part(y.primal), part(y.tangent)};
}

/// A map of active columns; `log_slopes` more columns of y are the logarithms of its slopes.
template <class MapT>
Layer coupling(std::int64_t cols, const MapT& map, bool log_slopes) {
  Layer layer;
  layer.x_cols = cols;
  layer.theta_cols = map.parameters();
  layer.y_cols = cols + (log_slopes ? map.active_count : 0);
  layer.theta_has_gradient = true;
  layer.accumulates = false;
  layer.x_scale = 2;
  layer.theta_scale = 1.5;
  if (map.passive_jacobian) {
    layer.jacobian_columns.emplace();
    for (std::int64_t j = 0; j < cols; ++j) {
      if (j < map.active_first || j >= map.active_first + map.active_count) layer.jacobian_columns->push_back(j);
    }
  }
  return layer;
}

inline Layer staircase(std::int64_t cols, const Staircase& map, bool log_slopes = false) {
  Layer layer = coupling(cols, map, log_slopes);
  layer.reference = [cols, map, log_slopes](const HostMatrix&, const RowProblem& problem) {
    return solve_row(
        [cols, map, log_slopes]<class S>(const std::vector<S>& input) {
          std::vector<S> y(input.begin(), input.begin() + cols);
          const auto knots = static_cast<std::size_t>(map.knots);
          for (std::int64_t column = 0; column < map.active_count; ++column) {
            const S* const p = input.data() + cols + column * (2 + 3 * map.knots);
            const S a = input[static_cast<std::size_t>(map.active_first + column)];
            S slope = S(map.max_slope) * sigmoid(p[0]);
            S sum = slope * a + bounded(p[1], 8);
            for (std::size_t k = 0; k < knots; ++k) {
              const S beta = exp(bounded(p[2 + knots + k], 4));
              const S z = beta * (a - bounded(p[2 + 2 * knots + k], 8));
              const S height = S(map.max_height) * sigmoid(p[2 + k]);
              sum = sum + height * sigmoid(z);
              slope = slope + height * beta * sigmoid(z) * sigmoid(-z);
            }
            y[static_cast<std::size_t>(map.active_first + column)] = sum;
            if (log_slopes) y.push_back(log(slope));
          }
          return y;
        },
        problem);
  };
  const std::int64_t slopes = layer.y_cols - cols;
  layer.forward = [=](Ops& ops, Stacked y, Stacked x, Stacked theta, Tensor, const Rows& rows) {
    ops.monotone_staircase_forward(columns_of(y, 0, cols), columns_of(y, cols, slopes), x, theta, map, rows);
  };
  layer.reverse = [=](Ops& ops, Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked x, Stacked theta, Tensor,
                      const Rows& rows, Update) {
    ops.monotone_staircase_reverse(grad_x, grad_theta, columns_of(grad_y, 0, cols), columns_of(grad_y, cols, slopes), x,
                                   theta, map, rows);
  };
  return layer;
}

inline Layer spline(std::int64_t cols, const RationalQuadratic& map, bool log_slopes = false) {
  Layer layer = coupling(cols, map, log_slopes);
  layer.reference = [cols, map, log_slopes](const HostMatrix&, const RowProblem& problem) {
    return solve_row(
        [cols, map, log_slopes]<class S>(const std::vector<S>& input) {
          std::vector<S> y(input.begin(), input.begin() + cols);
          const auto bins = static_cast<std::size_t>(map.bins);
          const double m = -std::log(map.min_derivative);
          for (std::int64_t column = 0; column < map.active_count; ++column) {
            const S* const p = input.data() + cols + column * map.column_parameters();
            const S a = input[static_cast<std::size_t>(map.active_first + column)];
            S& to = y[static_cast<std::size_t>(map.active_first + column)];
            if (!(std::abs(primal_value(a)) < map.bound)) {
              if (log_slopes) y.push_back(primal_value(a) == primal_value(a) ? S(0.0) : a);
              continue;
            }
            const auto sizes = [&](const S* logits, double least) {
              S sum(0.0);
              for (std::size_t k = 0; k < bins; ++k) sum = sum + exp(logits[k]);
              std::vector<S> result;
              for (std::size_t k = 0; k < bins; ++k) {
                const S share = S(least) + S(1 - static_cast<double>(map.bins) * least) * (exp(logits[k]) / sum);
                result.push_back(S(2 * map.bound) * share);
              }
              return result;
            };
            const std::vector<S> widths = sizes(p, map.min_width), heights = sizes(p + bins, map.min_height);
            S left(-map.bound), low(-map.bound);
            std::size_t k = 0;
            while (k + 1 < bins && !(primal_value(a) < primal_value(left + widths[k]))) {
              left = left + widths[k];
              low = low + heights[k++];
            }
            const auto slope_behind = [&](std::size_t bin) { return exp(bounded(p[2 * bins + bin], m)); };
            const S d0 = k == 0 ? S(1.0) : slope_behind(k - 1), d1 = k + 1 == bins ? S(1.0) : slope_behind(k);
            const S xi = (a - left) / widths[k], rest = S(1.0) - xi, s = heights[k] / widths[k];
            const S denominator = s + (d0 + d1 - S(2.0) * s) * xi * rest;
            to = low + heights[k] * (s * xi * xi + d0 * xi * rest) / denominator;
            if (!log_slopes) continue;
            const S slope = s * s * (d1 * xi * xi + S(2.0) * s * xi * rest + d0 * rest * rest);
            y.push_back(log(slope / (denominator * denominator)));
          }
          return y;
        },
        problem);
  };
  const std::int64_t slopes = layer.y_cols - cols;
  layer.forward = [=](Ops& ops, Stacked y, Stacked x, Stacked theta, Tensor, const Rows& rows) {
    ops.rational_quadratic_forward(columns_of(y, 0, cols), columns_of(y, cols, slopes), x, theta, map, rows);
  };
  layer.reverse = [=](Ops& ops, Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked x, Stacked theta, Tensor,
                      const Rows& rows, Update) {
    ops.rational_quadratic_reverse(grad_x, grad_theta, columns_of(grad_y, 0, cols), columns_of(grad_y, cols, slopes), x,
                                   theta, map, rows);
  };
  return layer;
}

/// theta is the energy e.
inline Layer confinement(std::int64_t dims, const Confinement& map) {
  Layer layer;
  layer.x_cols = dims;
  layer.theta_cols = 1;
  layer.y_cols = 1;
  layer.x_scale = 2;
  layer.reference = [dims, map](const HostMatrix&, const RowProblem& problem) {
    return solve_row(
        [dims, map]<class S>(const std::vector<S>& input) {
          S squares(0.0);
          for (std::int64_t d = 0; d < dims; ++d) {
            squares = squares + input[static_cast<std::size_t>(d)] * input[static_cast<std::size_t>(d)];
          }
          S y = input[static_cast<std::size_t>(dims)] + S(map.quadratic / 2) * squares;
          if (primal_value(squares) > map.radius * map.radius) {
            const S excess = sqrt(squares) - S(map.radius);
            y = y + S(map.wall) * excess * excess;
          }
          return std::vector<S>{y};
        },
        problem);
  };
  layer.forward = [map](Ops& ops, Stacked y, Stacked x, Stacked e, Tensor, const Rows& rows) {
    ops.confinement_forward(y, e, x, map, rows);
  };
  layer.reverse = [map](Ops& ops, Stacked grad_x, Stacked, Stacked grad_y, Stacked x, Stacked, Tensor, const Rows& rows,
                        Update update) { ops.confinement_reverse(grad_x, grad_y, x, map, rows, update); };
  return layer;
}

inline Layer affine_columns(std::int64_t cols) {
  Layer layer;
  layer.x_cols = cols;
  layer.y_cols = cols;
  layer.constants = random_matrix(2, cols, 12, -2, 2);
  layer.reference = [](const HostMatrix& constants, const RowProblem& problem) {
    return solve_row(
        [&constants]<class S>(const std::vector<S>& x) {
          std::vector<S> y;
          for (std::int64_t j = 0; j < constants.cols; ++j) {
            y.push_back(x[static_cast<std::size_t>(j)] * S(constants(0, j)) + S(constants(1, j)));
          }
          return y;
        },
        problem);
  };
  const auto row = [](const Tensor& constants, std::int64_t i) {
    return constants.slice_rows(i, 1).reshaped({constants.cols()});
  };
  layer.forward = [row](Ops& ops, Stacked y, Stacked x, Stacked, Tensor constants, const Rows& rows) {
    ops.affine_columns_forward(y, x, row(constants, 0), row(constants, 1), rows);
  };
  layer.reverse = [row](Ops& ops, Stacked grad_x, Stacked, Stacked grad_y, Stacked, Stacked, Tensor constants,
                        const Rows& rows,
                        Update update) { ops.affine_columns_reverse(grad_x, grad_y, row(constants, 0), rows, update); };
  return layer;
}

inline constexpr Staircase kRecipe{1, 1, 12, 3, 2};
inline constexpr RationalQuadratic kSpline{1, 1, 5, 1.5, 0.02, 0.03, 0.1};  // some of the points lie outside
inline constexpr Confinement kWall{1, 25, 1.5};

inline std::vector<std::pair<std::string, Layer>> all_layers() {
  return {
      {"fourier 2 -> 32", fourier_features(2, 32)},
      {"fourier 3 -> 71", fourier_features(3, 71)},
      {"fourier 19 -> 5", fourier_features(19, 5, 0.5)},
      {"fourier 2 -> 0", fourier_features(2, 0)},
      {"staircase recipe", staircase(2, kRecipe)},
      {"staircase 33 knots", staircase(3, {0, 2, 33, 1.5, 1})},
      {"staircase no knots", staircase(2, {0, 1, 0, 3, 2})},
      {"staircase 1 knot, all columns", staircase(2, {0, 2, 1, 3, 2})},
      {"staircase nothing active", staircase(5, {2, 0, 4, 3, 2})},
      {"staircase recipe, Jacobian", staircase(2, {1, 1, 12, 3, 2, true})},
      {"staircase 33 knots between passive columns, Jacobian", staircase(5, {1, 2, 33, 1.5, 1, true})},
      {"staircase no knots, Jacobian", staircase(3, {0, 1, 0, 3, 2, true})},
      {"staircase no passive columns, Jacobian", staircase(2, {0, 2, 1, 3, 2, true})},
      {"staircase nothing active, Jacobian", staircase(5, {2, 0, 4, 3, 2, true})},
      {"staircase recipe, slopes", staircase(2, kRecipe, true)},
      {"staircase 33 knots, slopes", staircase(3, {0, 2, 33, 1.5, 1}, true)},
      {"staircase recipe, Jacobian, slopes", staircase(2, {1, 1, 12, 3, 2, true}, true)},
      {"staircase 33 knots between passive columns, Jacobian, slopes", staircase(5, {1, 2, 33, 1.5, 1, true}, true)},
      {"staircase all columns, slopes", staircase(2, {0, 2, 1, 3, 2}, true)},
      {"spline", spline(2, kSpline)},
      {"spline, slopes", spline(2, kSpline, true)},
      {"spline of 3 columns, 33 bins, slopes", spline(4, {0, 3, 33, 3, 1e-3, 1e-3, 1e-3}, true)},
      {"spline of one bin, slopes", spline(3, {2, 1, 1, 1.5, 0.1, 0.1, 0.1}, true)},
      {"spline nothing active", spline(3, {1, 0, 3, 1.5, 0.1, 0.1, 0.1})},
      {"spline, Jacobian", spline(2, {1, 1, 5, 1.5, 0.02, 0.03, 0.1, true})},
      {"spline between passive columns, Jacobian, slopes", spline(5, {1, 2, 4, 2.5, 0.02, 0.03, 0.1, true}, true)},
      {"confinement 2", confinement(2, kWall)},
      {"confinement 37", confinement(37, {0.5, 3, 6.5})},
      {"confinement 1, no wall", confinement(1, {1, 0, 0})},
      {"affine 2", affine_columns(2)},
      {"affine 33", affine_columns(33)}};
}

}  // namespace bracket::test
