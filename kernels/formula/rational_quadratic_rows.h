// Rational-quadratic splines on stacked rows, one active column of one row at a time: what a thread of either device
// does. With t_k the tangents of (a, theta) and T = sum_k y'_k t_k of the adjoints y'_k of the tangents, the reverse pass
// of each output is its gradient times its adjoint plus its Hessian applied to T; tangents get y'_k times the gradient.
#pragma once

#include <cstdint>

#include "kernels/formula/rational_quadratic.h"

namespace bracket::formula {

/// Column of x that passive column j is.
BRACKET_HOST_DEVICE std::int64_t spline_passive_column(const RationalQuadratic& map, std::int64_t j) {
  return j < map.active_first ? j : j + map.active_count;
}

/// Tangent rows [first, last) of primal row i.
struct RowTangents {
  std::int64_t first, last;
};
BRACKET_HOST_DEVICE RowTangents row_tangents(const Rows& rows, std::int64_t i) {
  if (i < rows.first || i >= rows.first + rows.count) return {0, 0};
  const std::int64_t first = (i - rows.first) * rows.tangents;
  return {first, first + rows.tangents};
}

/// Passive columns of primal row i and its tangents; zeros where the source has no primal part.
template <class StackedT>
BRACKET_HOST_DEVICE void spline_copy_passive(const StackedT& target, const StackedT& source,
                                             const RationalQuadratic& map, const Rows& rows, std::int64_t i,
                                             std::int64_t cols) {
  const RowTangents tangents = row_tangents(rows, i);
  for (std::int64_t j = 0; j < cols - map.active_count; ++j) {
    const std::int64_t column = spline_passive_column(map, j);
    if (target.has_primal) target.primal.row(i)[column] = source.has_primal ? source.primal.row(i)[column] : 0;
    for (std::int64_t t = tangents.first; target.has_tangent && t < tangents.last; ++t) {
      target.tangent.row(t)[column] = source.tangent.row(t)[column];
    }
  }
}

template <class T, class StackedT>
BRACKET_HOST_DEVICE void spline_forward(const StackedT& y, const StackedT& log_slope, const StackedT& x,
                                        const StackedT& theta, const RationalQuadratic& map, const Rows& rows,
                                        std::int64_t i, std::int64_t column) {
  const std::int64_t active = map.active_first + column, base = column * map.column_parameters();
  const SplineColumn<T> spline(map, theta.primal.row(i) + base, x.primal.row(i)[active]);
  if (y.has_primal) y.primal.row(i)[active] = spline.value();
  if (log_slope.has_primal) log_slope.primal.row(i)[column] = spline.log_slope();
  const RowTangents tangents = row_tangents(rows, i);
  if (!y.has_tangent && !log_slope.has_tangent) return;
  const auto none = [](std::int64_t) { return T{0}; };
  const SplineDirection<T> along_a =
      spline.inside() ? spline.direction(T{1}, none) : SplineDirection<T>{};  // along a alone
  const T slope = spline.inside() ? spline.template along<SplineOutput::value>(along_a) : T{1};
  const T bend =
      spline.inside() && log_slope.has_tangent ? spline.template along<SplineOutput::log_slope>(along_a) : T{0};
  for (std::int64_t t = tangents.first; t < tangents.last; ++t) {
    const T a = x.tangent.row(t)[active];
    if (y.has_tangent) y.tangent.row(t)[active] = slope * a;
    if (log_slope.has_tangent) log_slope.tangent.row(t)[column] = bend * a;
  }
  if (!spline.inside()) return;
  const RowTangents thetas = row_tangents(map.theta_rows(rows, x.primal.cols), i);
  for (std::int64_t s = thetas.first; s < thetas.last && tangents.first < tangents.last; ++s) {
    const T* const from = theta.tangent.row(s) + base;
    const SplineDirection<T> v = spline.direction(T{0}, [from](std::int64_t j) { return from[j]; });
    const T push = y.has_tangent ? spline.template along<SplineOutput::value>(v) : T{0};
    const T push_log = log_slope.has_tangent ? spline.template along<SplineOutput::log_slope>(v) : T{0};
    const RowTangents to = map.passive_jacobian ? tangents : RowTangents{s, s + 1};
    for (std::int64_t t = to.first; t < to.last; ++t) {
      const T weight = map.passive_jacobian ? x.tangent.row(t)[spline_passive_column(map, s - thetas.first)] : T{1};
      if (y.has_tangent) y.tangent.row(t)[active] += weight * push;
      if (log_slope.has_tangent) log_slope.tangent.row(t)[column] += weight * push_log;
    }
  }
}

/// Adjoints of the tangents of one output of a column, as weights of the tangents of its parameters.
template <class T, class MatrixT>
struct SplineWeights {
  const MatrixT& grad;  ///< [tangent rows, columns]
  std::int64_t column;
  const MatrixT& x;
  const RationalQuadratic& map;
  RowTangents tangents, thetas;

  /// sum_k x'_k[of] y'_k.
  BRACKET_HOST_DEVICE T dot(std::int64_t of) const {
    T sum = 0;
    for (std::int64_t t = tangents.first; t < tangents.last; ++t) sum += x.row(t)[of] * grad.row(t)[column];
    return sum;
  }
  /// Of tangent row s of theta.
  BRACKET_HOST_DEVICE T of_theta(std::int64_t s) const {
    return map.passive_jacobian ? dot(spline_passive_column(map, s - thetas.first)) : grad.row(s)[column];
  }
};

/// One output: `seed` its adjoint. Adds to grad_a and the rows of the gradients, or begins them where `overwrite`.
template <SplineOutput kOutput, class T, class StackedT, class MatrixT>
BRACKET_HOST_DEVICE void spline_reverse_output(const SplineColumn<T>& spline, T& grad_a, const StackedT& grad_x,
                                               const StackedT& grad_theta, T seed,
                                               const SplineWeights<T, MatrixT>& weights, const StackedT& theta,
                                               std::int64_t i, std::int64_t active, std::int64_t base, bool overwrite) {
  const RationalQuadratic& map = weights.map;
  const RowTangents& tangents = weights.tangents;
  const RowTangents& thetas = weights.thetas;
  const std::int64_t count = map.column_parameters();
  if (grad_x.has_primal || grad_theta.has_primal) {
    const auto v = [&](std::int64_t j) {
      T sum = 0;
      for (std::int64_t s = thetas.first; s < thetas.last; ++s)
        sum += weights.of_theta(s) * theta.tangent.row(s)[base + j];
      return sum;
    };
    const bool curved = tangents.first < tangents.last;
    const SplineDirection<T> direction = curved ? spline.direction(weights.dot(active), v) : SplineDirection<T>{};
    const SplineGradient<DualNumber<T>> g = spline.template gradient<kOutput>(direction);
    grad_a += seed * g.a.value + g.a.tangent;
    for (std::int64_t j = 0; grad_theta.has_primal && j < count; ++j) {
      const DualNumber<T> element = spline.element(g, direction, j, curved ? v(j) : T{0});
      T& target = grad_theta.primal.row(i)[base + j];
      target = (overwrite ? T{0} : target) + seed * element.value + element.tangent;
    }
  }
  if (thetas.first == thetas.last && tangents.first == tangents.last) return;
  if (!grad_x.has_tangent && !grad_theta.has_tangent) return;
  const SplineGradient<T> g = spline.template gradient<kOutput>();
  for (std::int64_t t = tangents.first; grad_x.has_tangent && t < tangents.last; ++t) {
    T& target = grad_x.tangent.row(t)[active];
    target = (overwrite ? T{0} : target) + g.a * weights.grad.row(t)[weights.column];
  }
  for (std::int64_t s = thetas.first; s < thetas.last; ++s) {
    if (map.passive_jacobian && grad_x.has_tangent) {
      const T* const from = theta.tangent.row(s) + base;
      const T pull = spline.template along<kOutput>(spline.direction(T{0}, [from](std::int64_t j) { return from[j]; }));
      const std::int64_t passive = spline_passive_column(map, s - thetas.first);
      for (std::int64_t t = tangents.first; t < tangents.last; ++t) {
        grad_x.tangent.row(t)[passive] += pull * weights.grad.row(t)[weights.column];
      }
    }
    if (!grad_theta.has_tangent) continue;
    const T weight = weights.of_theta(s);
    for (std::int64_t j = 0; j < count; ++j) {
      T& target = grad_theta.tangent.row(s)[base + j];
      target = (overwrite ? T{0} : target) + weight * spline.element(g, j);
    }
  }
}

/// The passive columns of grad_x hold their adjoints already.
template <class T, class StackedT>
BRACKET_HOST_DEVICE void spline_reverse(const StackedT& grad_x, const StackedT& grad_theta, const StackedT& grad_y,
                                        const StackedT& grad_log_slope, const StackedT& x, const StackedT& theta,
                                        const RationalQuadratic& map, const Rows& rows, std::int64_t i,
                                        std::int64_t column) {
  const std::int64_t active = map.active_first + column, base = column * map.column_parameters();
  const std::int64_t count = map.column_parameters();
  const SplineColumn<T> spline(map, theta.primal.row(i) + base, x.primal.row(i)[active]);
  RowTangents tangents = row_tangents(rows, i), thetas = row_tangents(map.theta_rows(rows, x.primal.cols), i);
  if (!grad_y.has_tangent) tangents.last = tangents.first, thetas.last = thetas.first;
  const T seed = grad_y.has_primal ? grad_y.primal.row(i)[active] : T{0};
  if (!spline.inside()) {
    if (grad_x.has_primal) grad_x.primal.row(i)[active] = seed;
    for (std::int64_t j = 0; grad_theta.has_primal && j < count; ++j) grad_theta.primal.row(i)[base + j] = T{0};
    for (std::int64_t t = tangents.first; grad_x.has_tangent && t < tangents.last; ++t) {
      grad_x.tangent.row(t)[active] = grad_y.tangent.row(t)[active];
    }
    for (std::int64_t s = thetas.first; grad_theta.has_tangent && s < thetas.last; ++s) {
      for (std::int64_t j = 0; j < count; ++j) grad_theta.tangent.row(s)[base + j] = T{0};
    }
    return;
  }
  using MatrixT = decltype(grad_y.tangent);
  T grad_a = 0;
  const SplineWeights<T, MatrixT> of_value{grad_y.tangent, active, x.tangent, map, tangents, thetas};
  spline_reverse_output<SplineOutput::value>(spline, grad_a, grad_x, grad_theta, seed, of_value, theta, i, active, base,
                                             true);
  if (grad_log_slope.has_primal || grad_log_slope.has_tangent) {
    if (!grad_log_slope.has_tangent) tangents.last = tangents.first, thetas.last = thetas.first;
    const SplineWeights<T, MatrixT> of_slope{grad_log_slope.tangent, column, x.tangent, map, tangents, thetas};
    const T slope_seed = grad_log_slope.has_primal ? grad_log_slope.primal.row(i)[column] : T{0};
    spline_reverse_output<SplineOutput::log_slope>(spline, grad_a, grad_x, grad_theta, slope_seed, of_slope, theta, i,
                                                   active, base, false);
  }
  if (grad_x.has_primal) grad_x.primal.row(i)[active] = grad_a;
}

}  // namespace bracket::formula
