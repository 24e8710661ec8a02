// Problems for the layers of density_layers.h: operands on the host and on a device, the expected results.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "density_layers.h"
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

/// Inputs, seeds and initial gradients of one call.
struct Problem {
  Rows rows;
  HostStacked x, theta, grad_y, grad_x, grad_theta;
};

inline Problem make_problem(const Layer& layer, const Rows& rows, DType dtype) {
  const auto stacked = [dtype](const Rows& all, std::int64_t cols, std::uint64_t salt, double scale) {
    return HostStacked{random_matrix(all.primal, cols, salt, -scale, scale).rounded(dtype),
                       random_matrix(all.tangent_rows(), cols, salt + 1).rounded(dtype)};
  };
  const Rows theta_rows = layer.theta_rows(rows);
  return {rows,
          stacked(rows, layer.x_cols, 21, layer.x_scale),
          stacked(theta_rows, layer.theta_cols, 23, layer.theta_scale),
          stacked(rows, layer.y_cols, 25, 1),
          stacked(rows, layer.x_cols, 27, 1),
          stacked(theta_rows, layer.theta_cols, 29, 1)};
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

inline std::vector<Rounded> row_of(const HostMatrix& a, std::int64_t i) {
  std::vector<Rounded> row;
  for (std::int64_t j = 0; j < a.cols; ++j) row.emplace_back(a(i, j));
  return row;
}

/// Tangent k of theta of the row with number `row` among those that carry tangents.
inline std::vector<Rounded> theta_tangent(const Layer& layer, const Problem& problem, std::int64_t row,
                                          std::int64_t k) {
  const std::int64_t t = row * problem.rows.tangents + k;
  if (!layer.jacobian_columns) return row_of(problem.theta.tangent, t);
  std::vector<Rounded> sum(static_cast<std::size_t>(layer.theta_cols));
  std::int64_t jacobian_row = row * layer.theta_rows(problem.rows).tangents;
  for (const std::int64_t column : *layer.jacobian_columns) {
    const std::vector<Rounded> derivative = row_of(problem.theta.tangent, jacobian_row++);
    for (std::size_t m = 0; m < sum.size(); ++m) {
      sum[m] = sum[m] + Rounded(problem.x.tangent(t, column)) * derivative[m];
    }
  }
  return sum;
}

inline Expected solve(const Layer& layer, const Problem& problem, DType dtype, bool accumulate) {
  Rounded::unit = unit_roundoff(dtype);
  const Rows& rows = problem.rows;
  const Rows theta_rows = layer.theta_rows(rows);
  const std::int64_t n = rows.primal, m = rows.tangent_rows();
  const auto x_cols = static_cast<std::size_t>(layer.x_cols), theta_cols = static_cast<std::size_t>(layer.theta_cols);
  const HostMatrix constants = layer.constants.rounded(dtype);
  const HostMatrix none(std::max(n, m), 0);
  Expected expected{{n, layer.y_cols}, {m, layer.y_cols},     {n, layer.x_cols},
                    {m, layer.x_cols}, {n, layer.theta_cols}, {theta_rows.tangent_rows(), layer.theta_cols}};
  for (std::int64_t i = 0; i < n; ++i) {
    RowProblem row;
    row.input = concatenated(problem.x.primal, i, problem.theta.primal);
    row.grad_output = concatenated(problem.grad_y.primal, i, none);
    const bool has_tangents = i >= rows.first && i < rows.first + rows.count;
    const std::int64_t first = (i - rows.first) * rows.tangents;
    for (std::int64_t k = 0; has_tangents && k < rows.tangents; ++k) {
      row.tangents.push_back(row_of(problem.x.tangent, first + k));
      const std::vector<Rounded> theta = theta_tangent(layer, problem, i - rows.first, k);
      row.tangents.back().insert(row.tangents.back().end(), theta.begin(), theta.end());
      row.grad_tangents.push_back(concatenated(problem.grad_y.tangent, first + k, none));
    }
    RowSolution solution = layer.reference(constants, row);
    // grad_B_j = sum_k x'_kj grad_theta'_k, and theta'_k = sum_j x'_kj B_j gives grad_x'_kj a part.
    std::vector<std::vector<Rounded>> grad_jacobian;
    for (std::size_t j = 0; has_tangents && layer.jacobian_columns && j < layer.jacobian_columns->size(); ++j) {
      const auto column = static_cast<std::size_t>((*layer.jacobian_columns)[j]);
      const std::int64_t jacobian_row = (i - rows.first) * theta_rows.tangents + static_cast<std::int64_t>(j);
      std::vector<Rounded>& grad = grad_jacobian.emplace_back(theta_cols);
      for (std::size_t k = 0; k < row.tangents.size(); ++k) {
        std::vector<Rounded>& from = solution.grad_tangents[k];
        for (std::size_t p = 0; p < theta_cols; ++p) {
          const Rounded derivative = problem.theta.tangent(jacobian_row, static_cast<std::int64_t>(p));
          grad[p] = grad[p] + row.tangents[k][column] * from[x_cols + p];
          from[column] = from[column] + derivative * from[x_cols + p];
        }
      }
    }
    const auto set_x = [&](BoundedMatrix& grad_x, std::int64_t r, const std::vector<Rounded>& grad,
                           const HostMatrix& initial) {
      for (std::int64_t j = 0; j < layer.x_cols; ++j) {
        const Rounded& entry = grad[static_cast<std::size_t>(j)];
        grad_x.set(r, j, accumulate ? Rounded(initial(r, j)) + entry : entry);
      }
    };
    const auto set_theta = [&](BoundedMatrix& grad_theta, std::int64_t r, const Rounded* grad) {
      for (std::int64_t j = 0; j < layer.theta_cols; ++j) grad_theta.set(r, j, grad[j]);
    };
    for (std::int64_t j = 0; j < layer.y_cols; ++j) expected.y.set(i, j, solution.output[static_cast<std::size_t>(j)]);
    set_x(expected.grad_x, i, solution.grad_input, problem.grad_x.primal);
    set_theta(expected.grad_theta, i, solution.grad_input.data() + x_cols);
    for (std::size_t k = 0; k < row.tangents.size(); ++k) {
      const std::int64_t r = first + static_cast<std::int64_t>(k);
      for (std::int64_t j = 0; j < layer.y_cols; ++j) {
        expected.tan_y.set(r, j, solution.tangents[k][static_cast<std::size_t>(j)]);
      }
      set_x(expected.grad_tan_x, r, solution.grad_tangents[k], problem.grad_x.tangent);
      if (!layer.jacobian_columns) set_theta(expected.grad_tan_theta, r, solution.grad_tangents[k].data() + x_cols);
    }
    for (std::size_t j = 0; j < grad_jacobian.size(); ++j) {
      const std::int64_t r = (i - rows.first) * theta_rows.tangents + static_cast<std::int64_t>(j);
      set_theta(expected.grad_tan_theta, r, grad_jacobian[j].data());
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
    if (!second_order && !layer_.jacobian_columns) x.tangent = theta.tangent = Tensor();
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

}  // namespace bracket::test
