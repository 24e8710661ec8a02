// Rational-quadratic couplings on stacked rows (formulas: kernels/formula/rational_quadratic.h): rows in parallel, the
// columns of a row one after the other.
#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/stacked_rows.h"
#include "kernels/formula/rational_quadratic_rows.h"

namespace bracket {
namespace {

// Per parameter, in the unit of parallel_rows (an eighth of a nanosecond).
constexpr std::int64_t kSplineCost = 80;
constexpr std::int64_t kSplineTangentCost = 80;
constexpr std::int64_t kSplineReverseCost = 240;
constexpr std::int64_t kSplineReverseTangentCost = 240;

}  // namespace

void CpuOps::do_rational_quadratic_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta,
                                           const RationalQuadratic& map, const Rows& rows) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    const StackedMatrix<T> to(y), slopes(log_slope), from(x), parameters(theta);
    const std::int64_t cost = stacked_cost(kSplineCost * map.parameters(), kSplineTangentCost * map.parameters(), rows);
    parallel_rows(rows.primal, cost, team_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        formula::spline_copy_passive(to, from, map, rows, i, from.primal.cols);
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          formula::spline_forward<T>(to, slopes, from, parameters, map, rows, i, column);
        }
      }
    });
  });
}

void CpuOps::do_rational_quadratic_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope,
                                           Stacked x, Stacked theta, const RationalQuadratic& map, const Rows& rows) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    const StackedMatrix<T> to(grad_x), to_theta(grad_theta), from(grad_y), slopes(grad_log_slope), point(x),
        parameters(theta);
    const std::int64_t cost =
        stacked_cost(kSplineReverseCost * map.parameters(), kSplineReverseTangentCost * map.parameters(), rows);
    parallel_rows(rows.primal, cost, team_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        formula::spline_copy_passive(to, from, map, rows, i, point.primal.cols);
        for (std::int64_t column = 0; column < map.active_count; ++column) {
          formula::spline_reverse<T>(to, to_theta, from, slopes, point, parameters, map, rows, i, column);
        }
      }
    });
  });
}

}  // namespace bracket
