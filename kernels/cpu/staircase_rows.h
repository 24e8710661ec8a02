// The monotone staircase on stacked rows, a round of knots at a time. Both directions use that the second-order term
//   sum_k Hessian(x) x'_k grad_y'_k = Hessian(x) sum_k x'_k grad_y'_k
// is one Hessian-vector product per row, however many tangents it has.
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

template <class T>
void staircase_rows_forward(const StackedMatrix<T>& y, const StackedMatrix<T>& x, const StackedMatrix<T>& theta,
                            const Staircase& map, const Rows& rows, ThreadTeam& team) {
  const T max_slope = static_cast<T>(map.max_slope), max_height = static_cast<T>(map.max_height);
  const std::int64_t per_column = 2 + 3 * map.knots;
  const std::int64_t cost = stacked_cost(kStaircaseCost * map.parameters(), 3 * map.parameters(), rows);
  parallel_rows(rows.primal, cost, team, [&](std::int64_t first, std::int64_t last) {
    StaircaseKnots<T> knots;
    T gradient[kSlots];
    for (std::int64_t i = first; i < last; ++i) copy_passive(y, x, i, TangentRange(rows, i), map);
    for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
      const KnotRound<T> round(round_first, map.knots);
      for (std::int64_t i = first; i < last; ++i) {
        const TangentRange tangents(rows, i);
        const bool pushes = y.has_tangent && tangents.first < tangents.last;
        if (!y.has_primal && !pushes) continue;
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          const std::int64_t active = map.active_first + column, base = column * per_column;
          const T a = x.primal.row(i)[active];
          knots.evaluate(round, map.knots, theta.primal.row(i) + base, a, max_slope, max_height);
          if (y.has_primal) {
            T& target = y.primal.row(i)[active];
            target = round_first == 0 ? knots.value() : target + knots.value();
          }
          if (!pushes) continue;
          knots.gradient(gradient, round, a, max_slope, max_height);
          for (std::int64_t t = tangents.first; t < tangents.last; ++t) {
            const T* const tan_theta = theta.tangent.row(t) + base;
            T push = knots.slope() * x.tangent.row(t)[active];
            round.for_each_run(map.knots, [&](int slot, std::int64_t index, int length) {
              push += dot(gradient + slot, tan_theta + index, length);
            });
            T& target = y.tangent.row(t)[active];
            target = round_first == 0 ? push : target + push;
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
  const std::int64_t cost = stacked_cost(kStaircaseReverseCost * map.parameters(), 6 * map.parameters(), rows);
  parallel_rows(rows.primal, cost, team, [&](std::int64_t first, std::int64_t last) {
    StaircaseKnots<T> knots;
    T gradient[kSlots], direction[kSlots], result[kSlots];
    for (std::int64_t i = first; i < last; ++i) copy_passive(grad_x, grad_y, i, TangentRange(rows, i), map);
    for (std::int64_t round_first = 0; round_first == 0 || round_first < map.knots; round_first += kKnots) {
      const KnotRound<T> round(round_first, map.knots);
      const bool start = round_first == 0;
      for (std::int64_t i = first; i < last; ++i) {
        const TangentRange tangents(rows, i);
        const bool pulls = grad_y.has_tangent && tangents.first < tangents.last;
        const bool primal = grad_x.has_primal || grad_theta.has_primal;
        if (!primal && !pulls) continue;
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          const std::int64_t active = map.active_first + column, base = column * per_column;
          const T a = x.primal.row(i)[active];
          knots.evaluate(round, map.knots, theta.primal.row(i) + base, a, max_slope, max_height);
          knots.gradient(gradient, round, a, max_slope, max_height);
          const T seed = grad_y.has_primal ? grad_y.primal.row(i)[active] : T{0};
          T along_a = seed * knots.slope();
          for (int s = 0; s < round.slots; ++s) result[s] = seed * gradient[s];
          if (pulls) {
            T direction_a = 0;
            std::fill_n(direction, round.slots, T{0});
            for (std::int64_t t = tangents.first; t < tangents.last; ++t) {
              const T weight = grad_y.tangent.row(t)[active];
              if (primal) {
                direction_a += weight * x.tangent.row(t)[active];
                const T* const tan_theta = theta.tangent.row(t) + base;
                round.for_each_run(map.knots, [&](int slot, std::int64_t index, int length) {
                  for (int s = 0; s < length; ++s) direction[slot + s] += weight * tan_theta[index + s];
                });
              }
              if (grad_theta.has_tangent) {
                T* const target = grad_theta.tangent.row(t) + base;
                round.for_each_run(map.knots, [&](int slot, std::int64_t index, int length) {
                  for (int s = 0; s < length; ++s) target[index + s] = weight * gradient[slot + s];
                });
              }
              if (grad_x.has_tangent) {
                T& target = grad_x.tangent.row(t)[active];
                const T pull = weight * knots.slope();
                target = start ? pull : target + pull;
              }
            }
            if (primal) {
              along_a += knots.add_hessian_product(result, round, direction, direction_a, a, max_slope, max_height);
            }
          }
          if (grad_theta.has_primal) {
            T* const target = grad_theta.primal.row(i) + base;
            round.for_each_run(map.knots, [&](int slot, std::int64_t index, int length) {
              std::copy_n(result + slot, length, target + index);
            });
          }
          if (grad_x.has_primal) {
            T& target = grad_x.primal.row(i)[active];
            target = start ? along_a : target + along_a;
          }
        }
      }
    }
  });
}

}  // namespace bracket
