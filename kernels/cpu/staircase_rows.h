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

/// Per parameter, in the unit of parallel_rows (an eighth of a nanosecond). Measured for 12 knots, float, one core of
/// an EPYC 7003: 89 ns a row and 13 ns a row of theta's tangents; in reverse 121 and 54. Vectors along the parameters
/// of one row (12 knots are one and a half of them, and the parts of theta begin between two) took 1.9 and 1.4 times as
/// long.
inline constexpr std::int64_t kStaircaseCost = 19;
inline constexpr std::int64_t kStaircaseTangentCost = 3;
inline constexpr std::int64_t kStaircaseReverseCost = 25;
inline constexpr std::int64_t kStaircaseReverseTangentCost = 11;

/// Column of x that passive column j is.
inline std::int64_t passive_column(const Staircase& map, std::int64_t j) {
  return j < map.active_first ? j : j + map.active_count;
}

/// Passive columns of rows [first, last), zeros without a source. Column by column: rows are short, and calls of
/// memmove cost 14 ns per primal row with two tangents.
template <class T>
void copy_passive(const Matrix<T>& target, const Matrix<T>& source, std::int64_t first, std::int64_t last,
                  const Staircase& map) {
  for (std::int64_t j = 0; j < target.cols - map.active_count; ++j) {
    const std::int64_t column = passive_column(map, j);
    for (std::int64_t i = first; i < last; ++i) {
      target.row(i)[column] = source.data == nullptr ? T{0} : source.row(i)[column];
    }
  }
}

template <class T>
void copy_passive(const StackedMatrix<T>& target, const StackedMatrix<T>& source, std::int64_t first, std::int64_t last,
                  const Staircase& map, const Rows& rows) {
  if (target.has_primal) copy_passive(target.primal, source.primal, first, last, map);
  if (!target.has_tangent) return;
  const auto tangents_before = [&rows](std::int64_t i) {
    return std::clamp<std::int64_t>(i - rows.first, 0, rows.count) * rows.tangents;
  };
  copy_passive(target.tangent, source.tangent, tangents_before(first), tangents_before(last), map);
}

/// Calls visit(first, count, carries) for groups of up to kLanes of the rows [first, last); `carries`: all of them are
/// among the rows with tangents, else none is.
template <class F>
void visit_lane_groups(std::int64_t first, std::int64_t last, const Rows& rows, F&& visit) {
  const std::int64_t range_last = rows.first + rows.count;
  for (std::int64_t row = first; row < last;) {
    const bool carries = row >= rows.first && row < range_last;
    std::int64_t end = std::min(last, row + kLanes);
    if (carries) end = std::min(end, range_last);
    if (row < rows.first) end = std::min(end, rows.first);
    visit(row, static_cast<int>(end - row), carries);
    row = end;
  }
}

/// One column of `count` rows.
template <class T>
PointValues<T> points(const Matrix<T>& m, std::int64_t row, int count, std::int64_t column) {
  PointValues<T> values;
  for (int lane = 0; lane < kLanes; ++lane) values.at[lane] = m.row(row + std::min(lane, count - 1))[column];
  return values;
}

template <class T>
void update_points(const Matrix<T>& m, std::int64_t row, int count, std::int64_t column, const PointValues<T>& values,
                   Update update) {
  for (int lane = 0; lane < count; ++lane) {
    T& target = m.row(row + lane)[column];
    target = update == Update::overwrite ? values.at[lane] : target + values.at[lane];
  }
}

/// The tangent rows of the primal rows [row, row + count), K each.
struct TangentGroup {
  TangentGroup(const Rows& rows, std::int64_t row, int num_rows)
      : first((row - rows.first) * rows.tangents), tangents(rows.tangents), count(num_rows) {}
  std::int64_t first;  ///< tangent 0 of the first row
  std::int64_t tangents;
  int count;

  /// Tangent k of every row, from `column` on.
  template <class T>
  PointRows<T> rows(const Matrix<T>& m, std::int64_t k, std::int64_t column) const {
    return {m.row(first + k) + column, tangents * m.ld, count};
  }
};

/// y'_k[y_column] (+)= factor x'_k[x_column] for every tangent.
template <class T>
void update_tangents(const Matrix<T>& y, std::int64_t y_column, const Matrix<T>& x, std::int64_t x_column,
                     const PointValues<T>& factor, const TangentGroup& group, Update update) {
  std::int64_t t = group.first;
  for (int lane = 0; lane < group.count; ++lane) {
    for (std::int64_t k = 0; k < group.tangents; ++k, ++t) {
      T& target = y.row(t)[y_column];
      const T term = factor.at[lane] * x.row(t)[x_column];
      target = update == Update::overwrite ? term : target + term;
    }
  }
}

/// sum_k x'_k[x_column] y'_k[y_column] over the tangents of each row.
template <class T>
PointValues<T> tangent_dot(const Matrix<T>& x, std::int64_t x_column, const Matrix<T>& y, std::int64_t y_column,
                           const TangentGroup& group) {
  PointValues<T> sums;
  std::int64_t t = group.first;
  for (int lane = 0; lane < group.count; ++lane) {
    for (std::int64_t k = 0; k < group.tangents; ++k, ++t) sums.at[lane] += x.row(t)[x_column] * y.row(t)[y_column];
  }
  return sums;
}

template <class T>
PointValues<T> slot_dot(const SlotValues<T>& a, const SlotValues<T>& b, int slots) {
  PointValues<T> sums;
  for (int s = 0; s < slots; ++s) {
    for (int lane = 0; lane < kLanes; ++lane) sums.at[lane] += a.slot(s)[lane] * b.slot(s)[lane];
  }
  return sums;
}

/// y (+)= factor x.
template <class T>
void update_slots(SlotValues<T>& y, const SlotValues<T>& x, const PointValues<T>& factor, int slots, Update update) {
  const bool add = update == Update::accumulate;
  for (int s = 0; s < slots; ++s) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const T term = factor.at[lane] * x.slot(s)[lane];
      y.slot(s)[lane] = add ? y.slot(s)[lane] + term : term;
    }
  }
}

template <class T>
void staircase_rows_forward(const StackedMatrix<T>& y, const StackedMatrix<T>& x, const StackedMatrix<T>& theta,
                            const Staircase& map, const Rows& rows, ThreadTeam& team) {
  const std::int64_t per_column = 2 + 3 * map.knots;
  const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
  const std::int64_t cost =
      stacked_cost(kStaircaseCost * map.parameters(), kStaircaseTangentCost * map.parameters(), theta_rows);
  parallel_rows(rows.primal, cost, team, [&](std::int64_t begin, std::int64_t end) {
    StaircaseKnots<T> knots(map.max_slope, map.max_height);
    SlotValues<T> parameters, gradient, tangent;
    copy_passive(y, x, begin, end, map, rows);
    for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
      const KnotRound round(round_first, map.knots);
      const Update update = round_first == 0 ? Update::overwrite : Update::accumulate;
      visit_lane_groups(begin, end, rows, [&](std::int64_t first, int count, bool carries) {
        const bool pushes = y.has_tangent && carries && rows.tangents > 0;
        if (!y.has_primal && !pushes) return;
        const TangentGroup tangents(rows, first, count), thetas(theta_rows, first, count);
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          const std::int64_t active = map.active_first + column, base = column * per_column;
          const PointValues<T> a = points(x.primal, first, count, active);
          load(parameters, {theta.primal.row(first) + base, theta.primal.ld, count}, round);
          knots.evaluate(round, parameters, a);
          if (y.has_primal) update_points(y.primal, first, count, active, knots.value(), update);
          if (!pushes) continue;
          knots.gradient(gradient, round, a);
          update_tangents(y.tangent, active, x.tangent, active, knots.slope(), tangents, update);
          for (std::int64_t j = 0; j < thetas.tangents; ++j) {
            load(tangent, thetas.rows(theta.tangent, j, base), round);
            const PointValues<T> push = slot_dot(gradient, tangent, round.slots);
            if (map.passive_jacobian) {
              update_tangents(y.tangent, active, x.tangent, passive_column(map, j), push, tangents, Update::accumulate);
            } else {
              const PointRows<T> target = tangents.rows(y.tangent, j, active);
              for (int lane = 0; lane < count; ++lane) target.data[lane * target.stride] += push.at[lane];
            }
          }
        }
      });
    }
  });
}

template <class T>
void staircase_rows_reverse(const StackedMatrix<T>& grad_x, const StackedMatrix<T>& grad_theta,
                            const StackedMatrix<T>& grad_y, const StackedMatrix<T>& x, const StackedMatrix<T>& theta,
                            const Staircase& map, const Rows& rows, ThreadTeam& team) {
  const std::int64_t per_column = 2 + 3 * map.knots;
  const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
  const std::int64_t cost = stacked_cost(kStaircaseReverseCost * map.parameters(),
                                         kStaircaseReverseTangentCost * map.parameters(), theta_rows);
  const bool primal = grad_x.has_primal || grad_theta.has_primal;
  const bool pulls_passive = map.passive_jacobian && grad_x.has_tangent;
  parallel_rows(rows.primal, cost, team, [&](std::int64_t begin, std::int64_t end) {
    StaircaseKnots<T> knots(map.max_slope, map.max_height);
    SlotValues<T> parameters, gradient, tangent, direction, result;
    copy_passive(grad_x, grad_y, begin, end, map, rows);
    for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
      const KnotRound round(round_first, map.knots);
      const Update update = round_first == 0 ? Update::overwrite : Update::accumulate;
      visit_lane_groups(begin, end, rows, [&](std::int64_t first, int count, bool carries) {
        const bool pulls = grad_y.has_tangent && carries;
        if (!primal && !pulls) return;
        const TangentGroup tangents(rows, first, count), thetas(theta_rows, first, count);
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          const std::int64_t active = map.active_first + column, base = column * per_column;
          const PointValues<T> a = points(x.primal, first, count, active);
          load(parameters, {theta.primal.row(first) + base, theta.primal.ld, count}, round);
          knots.evaluate(round, parameters, a);
          knots.gradient(gradient, round, a);
          PointValues<T> seed, along_a;
          if (grad_y.has_primal) seed = points(grad_y.primal, first, count, active);
          for (int lane = 0; lane < kLanes; ++lane) along_a.at[lane] = seed.at[lane] * knots.slope().at[lane];
          update_slots(result, gradient, seed, round.slots, Update::overwrite);
          if (pulls && grad_x.has_tangent) {
            update_tangents(grad_x.tangent, active, grad_y.tangent, active, knots.slope(), tangents, update);
          }
          std::fill_n(direction.at, round.slots * kLanes, T{0});
          for (std::int64_t j = 0; pulls && j < thetas.tangents; ++j) {
            if (primal || pulls_passive) load(tangent, thetas.rows(theta.tangent, j, base), round);
            if (pulls_passive) {
              update_tangents(grad_x.tangent, passive_column(map, j), grad_y.tangent, active,
                              slot_dot(gradient, tangent, round.slots), tangents, Update::accumulate);
            }
            if (!primal && !grad_theta.has_tangent) continue;
            PointValues<T> weight;
            if (map.passive_jacobian) {
              weight = tangent_dot(x.tangent, passive_column(map, j), grad_y.tangent, active, tangents);
            } else {
              const PointRows<T> from = tangents.rows(grad_y.tangent, j, active);
              for (int lane = 0; lane < count; ++lane) weight.at[lane] = from.data[lane * from.stride];
            }
            if (primal) update_slots(direction, tangent, weight, round.slots, Update::accumulate);
            if (!grad_theta.has_tangent) continue;
            update_slots(tangent, gradient, weight, round.slots, Update::overwrite);
            store(thetas.rows(grad_theta.tangent, j, base), tangent, round);
          }
          if (pulls && primal) {
            const PointValues<T> direction_a = tangent_dot(x.tangent, active, grad_y.tangent, active, tangents);
            knots.add_hessian_product(result, along_a, round, direction, direction_a, a);
          }
          if (grad_theta.has_primal) {
            store({grad_theta.primal.row(first) + base, grad_theta.primal.ld, count}, result, round);
          }
          if (grad_x.has_primal) update_points(grad_x.primal, first, count, active, along_a, update);
        }
      });
    }
  });
}

}  // namespace bracket
