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

inline Layer staircase(std::int64_t cols, const Staircase& map) {
  Layer layer;
  layer.x_cols = cols;
  layer.theta_cols = map.parameters();
  layer.y_cols = cols;
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
  layer.reference = [cols, map](const HostMatrix&, const RowProblem& problem) {
    return solve_row(
        [cols, map]<class S>(const std::vector<S>& input) {
          std::vector<S> y(input.begin(), input.begin() + cols);
          const auto knots = static_cast<std::size_t>(map.knots);
          for (std::int64_t column = 0; column < map.active_count; ++column) {
            const S* const p = input.data() + cols + column * (2 + 3 * map.knots);
            const S a = input[static_cast<std::size_t>(map.active_first + column)];
            S sum = S(map.max_slope) * sigmoid(p[0]) * a + bounded(p[1], 8);
            for (std::size_t k = 0; k < knots; ++k) {
              const S z = exp(bounded(p[2 + knots + k], 4)) * (a - bounded(p[2 + 2 * knots + k], 8));
              sum = sum + S(map.max_height) * sigmoid(p[2 + k]) * sigmoid(z);
            }
            y[static_cast<std::size_t>(map.active_first + column)] = sum;
          }
          return y;
        },
        problem);
  };
  layer.forward = [map](Ops& ops, Stacked y, Stacked x, Stacked theta, Tensor, const Rows& rows) {
    ops.monotone_staircase_forward(y, x, theta, map, rows);
  };
  layer.reverse = [map](Ops& ops, Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked x, Stacked theta, Tensor,
                        const Rows& rows,
                        Update) { ops.monotone_staircase_reverse(grad_x, grad_theta, grad_y, x, theta, map, rows); };
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
inline constexpr Confinement kWall{1, 25, 1.5};

inline std::vector<std::pair<std::string, Layer>> all_layers() {
  return {{"fourier 2 -> 32", fourier_features(2, 32)},
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
          {"confinement 2", confinement(2, kWall)},
          {"confinement 37", confinement(37, {0.5, 3, 6.5})},
          {"confinement 1, no wall", confinement(1, {1, 0, 0})},
          {"affine 2", affine_columns(2)},
          {"affine 33", affine_columns(33)}};
}

}  // namespace bracket::test
