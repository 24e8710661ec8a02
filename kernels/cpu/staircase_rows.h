// The monotone staircase on stacked rows, a round of knots at a time. Both directions use that the second-order term
//   sum_k Hessian(x) x'_k grad_y'_k = Hessian(x) sum_k x'_k grad_y'_k
// is one Hessian-vector product per row, however many tangents it has. Where theta comes with its Jacobian B in the
// passive columns, its tangents are theta'_k = sum_j x'_kj B_j, so
//   y'_k = dy/da a'_k + sum_j <dy/dtheta, B_j> x'_kj,   sum_k theta'_k grad_y'_k = sum_j B_j sum_k x'_kj grad_y'_k.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/stacked_rows.h"
#include "kernels/cpu/staircase_knots.h"

namespace bracket {

/// In the unit of parallel_rows (an eighth of a nanosecond). Measured for 12 knots, float, one core: 130 ns a row (two
/// exponentials and two divisions per parameter and their latency), 14 ns a tangent, 145 ns a row in reverse.
inline constexpr std::int64_t kStaircaseCost = 28;
inline constexpr std::int64_t kStaircaseReverseCost = 31;

/// Columns outside the active range.
template <class T>
void copy_passive(T* target, const T* source, std::int64_t cols, const Staircase& map) {
  std::copy_n(source, map.active_first, target);
  const std::int64_t behind = map.active_first + map.active_count;
  std::copy_n(source + behind, cols - behind, target + behind);
}

template <class T>
void copy_passive(const StackedMatrix<T>& target, const StackedMatrix<T>& source, std::int64_t i,
                  const TangentRange& tangents, const Staircase& map) {
  if (target.has_primal) {
    if (source.has_primal) {
      copy_passive(target.primal.row(i), source.primal.row(i), target.primal.cols, map);
    } else {
      std::fill_n(target.primal.row(i), target.primal.cols, T{0});
    }
  }
  for (std::int64_t t = tangents.first; target.has_tangent && t < tangents.last; ++t) {
    copy_passive(target.tangent.row(t), source.tangent.row(t), target.tangent.cols, map);
  }
}

/// <gradient, row> over the slots of a round; `row` is one column's share of a row of theta.
template <class T>
T along_gradient(const KnotRound<T>& round, std::int64_t knots, const T* gradient, const T* row) {
  T sum = 0;
  round.for_each_run(
      knots, [&](int slot, std::int64_t index, int length) { sum += dot(gradient + slot, row + index, length); });
  return sum;
}

/// Column of x that passive column j is.
inline std::int64_t passive_column(const Staircase& map, std::int64_t j) {
  return j < map.active_first ? j : j + map.active_count;
}

/// sum_k x'_k[x_column] y'_k[y_column] over the tangents of one row.
template <class T>
T tangent_dot(const Matrix<T>& x, std::int64_t x_column, const Matrix<T>& y, std::int64_t y_column,
              const TangentRange& tangents) {
  T sum = 0;
  for (std::int64_t t = tangents.first; t < tangents.last; ++t) sum += x.row(t)[x_column] * y.row(t)[y_column];
  return sum;
}

/// y'_k[y_column] (+)= factor x'_k[x_column].
template <class T>
void update_tangents(const Matrix<T>& y, std::int64_t y_column, const Matrix<T>& x, std::int64_t x_column, T factor,
                     const TangentRange& tangents, Update update) {
  for (std::int64_t t = tangents.first; t < tangents.last; ++t) {
    T& target = y.row(t)[y_column];
    const T term = factor * x.row(t)[x_column];
    target = update == Update::overwrite ? term : target + term;
  }
}

template <class T>
void staircase_rows_forward(const StackedMatrix<T>& y, const StackedMatrix<T>& x, const StackedMatrix<T>& theta,
                            const Staircase& map, const Rows& rows, ThreadTeam& team) {
  const T max_slope = static_cast<T>(map.max_slope), max_height = static_cast<T>(map.max_height);
  const std::int64_t per_column = 2 + 3 * map.knots;
  const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
  const std::int64_t cost = stacked_cost(kStaircaseCost * map.parameters(), 3 * map.parameters(), theta_rows);
  parallel_rows(rows.primal, cost, team, [&](std::int64_t first, std::int64_t last) {
    StaircaseKnots<T> knots;
    T gradient[kSlots];
    for (std::int64_t i = first; i < last; ++i) copy_passive(y, x, i, TangentRange(rows, i), map);
    for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
      const KnotRound<T> round(round_first, map.knots);
      const Update update = round_first == 0 ? Update::overwrite : Update::accumulate;
      for (std::int64_t i = first; i < last; ++i) {
        const TangentRange tangents(rows, i), thetas(theta_rows, i);
        const bool pushes = y.has_tangent && tangents.first < tangents.last;
        if (!y.has_primal && !pushes) continue;
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          const std::int64_t active = map.active_first + column, base = column * per_column;
          const T a = x.primal.row(i)[active];
          knots.evaluate(round, map.knots, theta.primal.row(i) + base, a, max_slope, max_height);
          if (y.has_primal) {
            T& target = y.primal.row(i)[active];
            target = update == Update::overwrite ? knots.value() : target + knots.value();
          }
          if (!pushes) continue;
          knots.gradient(gradient, round, a, max_slope, max_height);
          update_tangents(y.tangent, active, x.tangent, active, knots.slope(), tangents, update);
          for (std::int64_t t = thetas.first; t < thetas.last; ++t) {
            const T push = along_gradient(round, map.knots, gradient, theta.tangent.row(t) + base);
            if (map.passive_jacobian) {
              update_tangents(y.tangent, active, x.tangent, passive_column(map, t - thetas.first), push, tangents,
                              Update::accumulate);
            } else {
              y.tangent.row(t)[active] += push;
            }
          }
        }
      }
    }
  });
}

template <class T>
void staircase_rows_reverse(const StackedMatrix<T>& grad_x, const StackedMatrix<T>& grad_theta,
                            const StackedMatrix<T>& grad_y, const StackedMatrix<T>& x, const StackedMatrix<T>& theta,
                            const Staircase& map, const Rows& rows, ThreadTeam& team) {
  const T max_slope = static_cast<T>(map.max_slope), max_height = static_cast<T>(map.max_height);
  const std::int64_t per_column = 2 + 3 * map.knots;
  const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
  const std::int64_t cost = stacked_cost(kStaircaseReverseCost * map.parameters(), 6 * map.parameters(), theta_rows);
  const bool primal = grad_x.has_primal || grad_theta.has_primal;
  parallel_rows(rows.primal, cost, team, [&](std::int64_t first, std::int64_t last) {
    StaircaseKnots<T> knots;
    T gradient[kSlots], direction[kSlots], result[kSlots];
    for (std::int64_t i = first; i < last; ++i) copy_passive(grad_x, grad_y, i, TangentRange(rows, i), map);
    for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
      const KnotRound<T> round(round_first, map.knots);
      const Update update = round_first == 0 ? Update::overwrite : Update::accumulate;
      for (std::int64_t i = first; i < last; ++i) {
        const TangentRange tangents(rows, i), thetas(theta_rows, i);
        const bool pulls = grad_y.has_tangent && (tangents.first < tangents.last || thetas.first < thetas.last);
        if (!primal && !pulls) continue;
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          const std::int64_t active = map.active_first + column, base = column * per_column;
          const T a = x.primal.row(i)[active];
          knots.evaluate(round, map.knots, theta.primal.row(i) + base, a, max_slope, max_height);
          knots.gradient(gradient, round, a, max_slope, max_height);
          const T seed = grad_y.has_primal ? grad_y.primal.row(i)[active] : T{0};
          T along_a = seed * knots.slope();
          for (int s = 0; s < round.slots; ++s) result[s] = seed * gradient[s];
          if (pulls && grad_x.has_tangent) {
            update_tangents(grad_x.tangent, active, grad_y.tangent, active, knots.slope(), tangents, update);
          }
          std::fill_n(direction, round.slots, T{0});
          for (std::int64_t t = thetas.first; pulls && t < thetas.last; ++t) {
            const std::int64_t passive = passive_column(map, t - thetas.first);
            if (map.passive_jacobian && grad_x.has_tangent) {
              const T pull = along_gradient(round, map.knots, gradient, theta.tangent.row(t) + base);
              update_tangents(grad_x.tangent, passive, grad_y.tangent, active, pull, tangents, Update::accumulate);
            }
            if (!primal && !grad_theta.has_tangent) continue;
            const T weight = map.passive_jacobian ? tangent_dot(x.tangent, passive, grad_y.tangent, active, tangents)
                                                  : grad_y.tangent.row(t)[active];
            round.for_each_run(map.knots, [&](int slot, std::int64_t index, int length) {
              if (primal) {
                const T* const tan_theta = theta.tangent.row(t) + base + index;
                for (int s = 0; s < length; ++s) direction[slot + s] += weight * tan_theta[s];
              }
              if (grad_theta.has_tangent) {
                T* const target = grad_theta.tangent.row(t) + base + index;
                for (int s = 0; s < length; ++s) target[s] = weight * gradient[slot + s];
              }
            });
          }
          if (pulls && primal) {
            const T direction_a = tangent_dot(x.tangent, active, grad_y.tangent, active, tangents);
            along_a += knots.add_hessian_product(result, round, direction, direction_a, a, max_slope, max_height);
          }
          if (grad_theta.has_primal) {
            T* const target = grad_theta.primal.row(i) + base;
            round.for_each_run(map.knots, [&](int slot, std::int64_t index, int length) {
              std::copy_n(result + slot, length, target + index);
            });
          }
          if (grad_x.has_primal) {
            T& target = grad_x.primal.row(i)[active];
            target = update == Update::overwrite ? along_a : target + along_a;
          }
        }
      }
    }
  });
}

}  // namespace bracket
