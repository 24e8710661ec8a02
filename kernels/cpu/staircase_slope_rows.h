// log u of the monotone staircase on stacked rows, u = dy/da per active column, beside staircase_rows.h: with
// T = sum_k l'_k t_k of the adjoints l'_k of the tangents of log u and the tangents t_k of (a, theta),
//   reverse   (l - <grad u, T> / u) grad u / u + Hessian(u) T / u  in (a, theta),   l'_k grad u / u  in their tangents.
// u is a sum over all rounds, so the reverse pass goes through them twice.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/staircase_rows.h"

namespace bracket {

/// As kStaircaseCost: gradients of u take no exponentials beside those of the evaluation.
inline constexpr std::int64_t kSlopeCost = 21;
inline constexpr std::int64_t kSlopeTangentCost = 6;
inline constexpr std::int64_t kSlopeReverseCost = 35;
inline constexpr std::int64_t kSlopeReverseTangentCost = 12;

template <class T>
void scale_tangents(const Matrix<T>& y, std::int64_t column, const PointValues<T>& factor, const TangentGroup& group) {
  std::int64_t t = group.first;
  for (int lane = 0; lane < group.count; ++lane) {
    for (std::int64_t k = 0; k < group.tangents; ++k, ++t) y.row(t)[column] *= factor.at[lane];
  }
}

template <class T>
void staircase_slope_rows_forward(const StackedMatrix<T>& log_slope, const StackedMatrix<T>& x,
                                  const StackedMatrix<T>& theta, const Staircase& map, const Rows& rows,
                                  ThreadTeam& team) {
  const std::int64_t per_column = 2 + 3 * map.knots;
  const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
  const std::int64_t cost =
      stacked_cost(kSlopeCost * map.parameters(), kSlopeTangentCost * map.parameters(), theta_rows);
  parallel_rows(rows.primal, cost, team, [&](std::int64_t begin, std::int64_t end) {
    StaircaseKnots<T> knots(map.max_slope, map.max_height);
    SlotValues<T> parameters, gradient, tangent;
    visit_lane_groups(begin, end, rows, [&](std::int64_t first, int count, bool carries) {
      const bool pushes = log_slope.has_tangent && carries && rows.tangents > 0;
      if (!log_slope.has_primal && !pushes) return;
      const TangentGroup tangents(rows, first, count), thetas(theta_rows, first, count);
      for (std::int64_t column = 0; column < map.active_count; ++column) {
        const std::int64_t active = map.active_first + column, base = column * per_column;
        const PointValues<T> a = points(x.primal, first, count, active);
        PointValues<T> slope, along_a;
        for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
          const KnotRound round(round_first, map.knots);
          load(parameters, {theta.primal.row(first) + base, theta.primal.ld, count}, round);
          knots.evaluate(round, parameters, a);
          for (int lane = 0; lane < kLanes; ++lane) slope.at[lane] += knots.slope().at[lane];
          if (!pushes) continue;
          knots.slope_gradient(gradient, along_a, round);
          update_tangents(log_slope.tangent, column, x.tangent, active, along_a, tangents,
                          round_first == 0 ? Update::overwrite : Update::accumulate);
          for (std::int64_t j = 0; j < thetas.tangents; ++j) {
            load(tangent, thetas.rows(theta.tangent, j, base), round);
            const PointValues<T> push = slot_dot(gradient, tangent, round.slots);
            if (map.passive_jacobian) {
              update_tangents(log_slope.tangent, column, x.tangent, passive_column(map, j), push, tangents,
                              Update::accumulate);
            } else {
              const PointRows<T> target = tangents.rows(log_slope.tangent, j, column);
              for (int lane = 0; lane < count; ++lane) target.data[lane * target.stride] += push.at[lane];
            }
          }
        }
        PointValues<T> logarithm, inverse;
        for (int lane = 0; lane < count; ++lane) {
          logarithm.at[lane] = std::log(slope.at[lane]);
          inverse.at[lane] = T{1} / slope.at[lane];
        }
        if (log_slope.has_primal) {
          update_points(log_slope.primal, first, count, column, logarithm, Update::overwrite);
        }
        if (pushes) scale_tangents(log_slope.tangent, column, inverse, tangents);
      }
    });
  });
}

/// One round of one column at a lane group: the gradient of u and the direction T.
template <class T>
struct SlopeRound {
  SlotValues<T> gradient, direction;
  PointValues<T> gradient_a, direction_a;
};

/// Weight of theta's tangent j in T.
template <class T>
PointValues<T> slope_weight(const StackedMatrix<T>& grad, std::int64_t column, const StackedMatrix<T>& x,
                            const Staircase& map, const TangentGroup& tangents, std::int64_t j) {
  if (map.passive_jacobian) return tangent_dot(x.tangent, passive_column(map, j), grad.tangent, column, tangents);
  PointValues<T> weight;
  const PointRows<T> from = tangents.rows(grad.tangent, j, column);
  for (int lane = 0; lane < tangents.count; ++lane) weight.at[lane] = from.data[lane * from.stride];
  return weight;
}

/// Adds to grad_x and grad_theta.
template <class T>
void staircase_slope_rows_reverse(const StackedMatrix<T>& grad_x, const StackedMatrix<T>& grad_theta,
                                  const StackedMatrix<T>& grad, const StackedMatrix<T>& x,
                                  const StackedMatrix<T>& theta, const Staircase& map, const Rows& rows,
                                  ThreadTeam& team) {
  const std::int64_t per_column = 2 + 3 * map.knots;
  const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
  const std::int64_t cost =
      stacked_cost(kSlopeReverseCost * map.parameters(), kSlopeReverseTangentCost * map.parameters(), theta_rows);
  const bool primal = grad_x.has_primal || grad_theta.has_primal;
  const bool pulls_passive = map.passive_jacobian && grad_x.has_tangent;
  parallel_rows(rows.primal, cost, team, [&](std::int64_t begin, std::int64_t end) {
    StaircaseKnots<T> knots(map.max_slope, map.max_height);
    SlotValues<T> parameters, tangent, result, before;
    SlopeRound<T> at;
    visit_lane_groups(begin, end, rows, [&](std::int64_t first, int count, bool carries) {
      const bool pulls = grad.has_tangent && carries;
      if (!(primal && grad.has_primal) && !pulls) return;
      const TangentGroup tangents(rows, first, count), thetas(theta_rows, first, count);
      for (std::int64_t column = 0; column < map.active_count; ++column) {
        const std::int64_t active = map.active_first + column, base = column * per_column;
        const PointValues<T> a = points(x.primal, first, count, active);
        const auto evaluate = [&](const KnotRound& round) {
          load(parameters, {theta.primal.row(first) + base, theta.primal.ld, count}, round);
          knots.evaluate(round, parameters, a);
          knots.slope_gradient(at.gradient, at.gradient_a, round);
          std::fill_n(at.direction.at, round.slots * kLanes, T{0});
          for (std::int64_t j = 0; pulls && primal && j < thetas.tangents; ++j) {
            load(tangent, thetas.rows(theta.tangent, j, base), round);
            update_slots(at.direction, tangent, slope_weight(grad, column, x, map, tangents, j), round.slots,
                         Update::accumulate);
          }
        };
        at.direction_a = {};
        if (pulls && primal) at.direction_a = tangent_dot(x.tangent, active, grad.tangent, column, tangents);

        PointValues<T> slope, along;  // u and <grad u, T>
        for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
          const KnotRound round(round_first, map.knots);
          evaluate(round);
          const PointValues<T> product = slot_dot(at.gradient, at.direction, round.slots);
          for (int lane = 0; lane < kLanes; ++lane) {
            slope.at[lane] += knots.slope().at[lane];
            along.at[lane] += product.at[lane] + at.gradient_a.at[lane] * at.direction_a.at[lane];
          }
        }
        PointValues<T> seed, inverse, factor;
        if (grad.has_primal) seed = points(grad.primal, first, count, column);
        for (int lane = 0; lane < kLanes; ++lane) {
          inverse.at[lane] = T{1} / slope.at[lane];
          factor.at[lane] = (seed.at[lane] - along.at[lane] * inverse.at[lane]) * inverse.at[lane];
        }
        for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
          const KnotRound round(round_first, map.knots);
          if (map.knots > kKnots) evaluate(round);  // of one round all is still there
          if (primal) {
            PointValues<T> along_a;
            for (int lane = 0; lane < kLanes; ++lane) along_a.at[lane] = factor.at[lane] * at.gradient_a.at[lane];
            update_slots(result, at.gradient, factor, round.slots, Update::overwrite);
            if (pulls) {
              knots.add_slope_hessian_product(result, along_a, round, at.direction, at.direction_a, inverse);
            }
            if (grad_theta.has_primal) {
              const PointRows<T> target{grad_theta.primal.row(first) + base, grad_theta.primal.ld, count};
              load(before, target, round);
              for (int s = 0; s < round.slots * kLanes; ++s) before.at[s] += result.at[s];
              store(target, before, round);
            }
            if (grad_x.has_primal) update_points(grad_x.primal, first, count, active, along_a, Update::accumulate);
          }
          if (!pulls) continue;
          if (grad_x.has_tangent) {
            PointValues<T> along_a;
            for (int lane = 0; lane < kLanes; ++lane) along_a.at[lane] = inverse.at[lane] * at.gradient_a.at[lane];
            update_tangents(grad_x.tangent, active, grad.tangent, column, along_a, tangents, Update::accumulate);
          }
          for (std::int64_t j = 0; (pulls_passive || grad_theta.has_tangent) && j < thetas.tangents; ++j) {
            if (pulls_passive) {
              load(tangent, thetas.rows(theta.tangent, j, base), round);
              PointValues<T> pull = slot_dot(at.gradient, tangent, round.slots);
              for (int lane = 0; lane < kLanes; ++lane) pull.at[lane] *= inverse.at[lane];
              update_tangents(grad_x.tangent, passive_column(map, j), grad.tangent, column, pull, tangents,
                              Update::accumulate);
            }
            if (!grad_theta.has_tangent) continue;
            PointValues<T> weight = slope_weight(grad, column, x, map, tangents, j);
            for (int lane = 0; lane < kLanes; ++lane) weight.at[lane] *= inverse.at[lane];
            const PointRows<T> target = thetas.rows(grad_theta.tangent, j, base);
            load(before, target, round);
            update_slots(before, at.gradient, weight, round.slots, Update::accumulate);
            store(target, before, round);
          }
        }
      }
    });
  });
}

}  // namespace bracket
