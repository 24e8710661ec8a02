// The layers of calibrated densities as the tests see them: reference formula, ops, problems on hosts and devices.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "differentiable_reference.h"
#include "ops_fixture.h"

namespace bracket::test {

/// Primal and tangent rows on the host and on the device.
struct HostStacked {
  HostMatrix primal;
  HostMatrix tangent;
};

struct DeviceStacked {
  DeviceTensor primal;
  DeviceTensor tangent;
  Stacked stacked() const { return {primal, tangent}; }
};

/// A layer as the tests see it: inputs x and parameters theta per row (theta may have no columns).
struct Layer {
  std::int64_t x_cols = 0;
  std::int64_t theta_cols = 0;
  std::int64_t y_cols = 0;
  bool theta_has_gradient = false;
  bool accumulates = true;  ///< the reverse op has an Update argument
  HostMatrix constants;     ///< frequencies, or scale and shift
  double x_scale = 1;
  double theta_scale = 1;
  std::function<RowSolution(const HostMatrix& constants, const RowProblem&)> reference;
  std::function<void(Ops&, Stacked y, Stacked x, Stacked theta, Tensor constants, const Rows&)> forward;
  std::function<void(Ops&, Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked x, Stacked theta,
                     Tensor constants, const Rows&, Update)>
      reverse;
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

/// Inputs, seeds and initial gradients of one call.
struct Problem {
  Rows rows;
  HostStacked x, theta, grad_y, grad_x, grad_theta;
};

inline Problem make_problem(const Layer& layer, const Rows& rows, DType dtype) {
  const auto stacked = [&](std::int64_t cols, std::uint64_t salt, double scale) {
    return HostStacked{random_matrix(rows.primal, cols, salt, -scale, scale).rounded(dtype),
                       random_matrix(rows.tangent_rows(), cols, salt + 1).rounded(dtype)};
  };
  return {rows,
          stacked(layer.x_cols, 21, layer.x_scale),
          stacked(layer.theta_cols, 23, layer.theta_scale),
          stacked(layer.y_cols, 25, 1),
          stacked(layer.x_cols, 27, 1),
          stacked(layer.theta_cols, 29, 1)};
}

/// Values and rounding-error bounds of a stacked result.
struct BoundedMatrix {
  HostMatrix value;
  HostMatrix error;
  BoundedMatrix(std::int64_t rows, std::int64_t cols) : value(rows, cols), error(rows, cols) {}
  void set(std::int64_t i, std::int64_t j, const Rounded& entry) {
    value(i, j) = entry.value;
    error(i, j) = entry.error;
  }
};

struct Expected {
  BoundedMatrix y, tan_y, grad_x, grad_tan_x, grad_theta, grad_tan_theta;
};

inline std::vector<double> concatenated(const HostMatrix& a, std::int64_t i, const HostMatrix& b) {
  std::vector<double> row;
  for (std::int64_t j = 0; j < a.cols; ++j) row.push_back(a(i, j));
  for (std::int64_t j = 0; j < b.cols; ++j) row.push_back(b(i, j));
  return row;
}

inline Expected solve(const Layer& layer, const Problem& problem, DType dtype, bool accumulate) {
  Rounded::unit = unit_roundoff(dtype);
  const Rows& rows = problem.rows;
  const std::int64_t n = rows.primal, m = rows.tangent_rows();
  const HostMatrix constants = layer.constants.rounded(dtype);
  const HostMatrix none(std::max(n, m), 0);
  Expected expected{{n, layer.y_cols}, {m, layer.y_cols},     {n, layer.x_cols},
                    {m, layer.x_cols}, {n, layer.theta_cols}, {m, layer.theta_cols}};
  for (std::int64_t i = 0; i < n; ++i) {
    RowProblem row;
    row.input = concatenated(problem.x.primal, i, problem.theta.primal);
    row.grad_output = concatenated(problem.grad_y.primal, i, none);
    const bool has_tangents = i >= rows.first && i < rows.first + rows.count;
    const std::int64_t first = (i - rows.first) * rows.tangents;
    for (std::int64_t k = 0; has_tangents && k < rows.tangents; ++k) {
      row.tangents.push_back(concatenated(problem.x.tangent, first + k, problem.theta.tangent));
      row.grad_tangents.push_back(concatenated(problem.grad_y.tangent, first + k, none));
    }
    const RowSolution solution = layer.reference(constants, row);
    const auto split = [&](const std::vector<Rounded>& grad, std::int64_t r, BoundedMatrix& grad_x,
                           const HostMatrix& initial, BoundedMatrix& grad_theta) {
      for (std::int64_t j = 0; j < layer.x_cols; ++j) {
        const Rounded& entry = grad[static_cast<std::size_t>(j)];
        grad_x.set(r, j, accumulate ? Rounded(initial(r, j)) + entry : entry);
      }
      for (std::int64_t j = 0; j < layer.theta_cols; ++j) {
        grad_theta.set(r, j, grad[static_cast<std::size_t>(layer.x_cols + j)]);
      }
    };
    for (std::int64_t j = 0; j < layer.y_cols; ++j) expected.y.set(i, j, solution.output[static_cast<std::size_t>(j)]);
    split(solution.grad_input, i, expected.grad_x, problem.grad_x.primal, expected.grad_theta);
    for (std::size_t k = 0; k < row.tangents.size(); ++k) {
      const std::int64_t r = first + static_cast<std::int64_t>(k);
      for (std::int64_t j = 0; j < layer.y_cols; ++j) {
        expected.tan_y.set(r, j, solution.tangents[k][static_cast<std::size_t>(j)]);
      }
      split(solution.grad_tangents[k], r, expected.grad_tan_x, problem.grad_x.tangent, expected.grad_tan_theta);
    }
  }
  return expected;
}

/// The kernels evaluate the same formulas in other forms and orders: four times the bound of the plain evaluation.
inline ::testing::AssertionResult within_bounds(const HostMatrix& actual, const BoundedMatrix& expected) {
  constexpr double kOtherForms = 4;
  if (actual.rows != expected.value.rows || actual.cols != expected.value.cols) {
    return ::testing::AssertionFailure() << "shape";
  }
  for (std::size_t e = 0; e < actual.values.size(); ++e) {
    const double limit = kOtherForms * expected.error.values[e];
    if (std::abs(actual.values[e] - expected.value.values[e]) <= limit) continue;
    return ::testing::AssertionFailure() << "element " << e << " of [" << actual.rows << ", " << actual.cols
                                         << "]: " << actual.values[e] << ", expected " << expected.value.values[e]
                                         << " within " << limit;
  }
  return ::testing::AssertionSuccess();
}

/// One problem on a device. `padding` elements lie between the rows.
class DeviceProblem {
 public:
  DeviceProblem(Context& context, const Layer& layer, const Problem& problem, DType dtype, std::int64_t padding)
      : context_(context), layer_(layer), rows_(problem.rows) {
    const auto put = [&](const HostStacked& host) {
      return DeviceStacked{upload(context, host.primal, dtype, padding), upload(context, host.tangent, dtype, padding)};
    };
    x_ = put(problem.x);
    theta_ = put(problem.theta);
    grad_y_ = put(problem.grad_y);
    grad_x_ = put(problem.grad_x);
    grad_theta_ = put(problem.grad_theta);
    constants_ = upload(context, layer.constants, dtype);
    y_ = {empty_matrix(context, dtype, rows_.primal, layer.y_cols, padding),
          empty_matrix(context, dtype, rows_.tangent_rows(), layer.y_cols, padding)};
  }

  void forward(bool primal = true, bool tangent = true) {
    const Stacked y{primal ? y_.primal.tensor() : Tensor(), tangent ? y_.tangent.tensor() : Tensor()};
    layer_.forward(context_.ops(), y, x_.stacked(), theta_.stacked(), constants_, rows_);
  }
  void reverse(Update update, bool primal = true, bool tangent = true, bool second_order = true) {
    const Stacked grad_x{primal ? grad_x_.primal.tensor() : Tensor(), tangent ? grad_x_.tangent.tensor() : Tensor()};
    Stacked grad_theta;
    if (layer_.theta_has_gradient) {
      grad_theta = {primal ? grad_theta_.primal.tensor() : Tensor(), tangent ? grad_theta_.tangent.tensor() : Tensor()};
    }
    Stacked grad_y = grad_y_.stacked();
    Stacked x = x_.stacked(), theta = theta_.stacked();
    if (!second_order) x.tangent = theta.tangent = Tensor();
    if (!second_order && !tangent) grad_y.tangent = Tensor();
    layer_.reverse(context_.ops(), grad_x, grad_theta, grad_y, x, theta, constants_, rows_, update);
  }

  HostStacked y() const { return {download(context_, y_.primal), download(context_, y_.tangent)}; }
  HostStacked grad_x() const { return {download(context_, grad_x_.primal), download(context_, grad_x_.tangent)}; }
  HostStacked grad_theta() const {
    return {download(context_, grad_theta_.primal), download(context_, grad_theta_.tangent)};
  }

 private:
  Context& context_;
  const Layer& layer_;
  Rows rows_;
  DeviceStacked x_, theta_, grad_y_, grad_x_, grad_theta_, y_;
  DeviceTensor constants_;
};

inline void check_layer(Context& context, const Layer& layer, const Rows& rows, DType dtype, std::int64_t padding) {
  SCOPED_TRACE(::testing::Message() << "rows " << rows.primal << ", tangents " << rows.tangents << " on [" << rows.first
                                    << ", +" << rows.count << "), " << dtype_name(dtype) << ", padding " << padding);
  const Problem problem = make_problem(layer, rows, dtype);
  for (const Update update : {Update::overwrite, Update::accumulate}) {
    if (update == Update::accumulate && !layer.accumulates) continue;
    const Expected expected = solve(layer, problem, dtype, update == Update::accumulate);
    DeviceProblem device(context, layer, problem, dtype, padding);
    device.forward();
    EXPECT_TRUE(within_bounds(device.y().primal, expected.y)) << "y";
    EXPECT_TRUE(within_bounds(device.y().tangent, expected.tan_y)) << "y tangent";
    device.reverse(update);
    EXPECT_TRUE(within_bounds(device.grad_x().primal, expected.grad_x)) << "grad_x";
    EXPECT_TRUE(within_bounds(device.grad_x().tangent, expected.grad_tan_x)) << "grad_x tangent";
    if (layer.theta_has_gradient) {
      EXPECT_TRUE(within_bounds(device.grad_theta().primal, expected.grad_theta)) << "grad_theta";
      EXPECT_TRUE(within_bounds(device.grad_theta().tangent, expected.grad_tan_theta)) << "grad_theta tangent";
    }
    if (::testing::Test::HasFailure()) return;
  }
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
          {"confinement 2", confinement(2, kWall)},
          {"confinement 37", confinement(37, {0.5, 3, 6.5})},
          {"confinement 1, no wall", confinement(1, {1, 0, 0})},
          {"affine 2", affine_columns(2)},
          {"affine 33", affine_columns(33)}};
}

}  // namespace bracket::test
