// Layers of calibrated densities on stacked rows: Fourier features, monotone staircase, confinement, affine columns.
//
// A primal row and its tangents are one task: what both need (sines, knots, a norm) is computed once.
#include <cmath>
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/fourier_rows.h"
#include "kernels/cpu/stacked_rows.h"
#include "kernels/cpu/staircase_rows.h"
#include "kernels/cpu/staircase_slope_rows.h"

namespace bracket {
namespace {

// ---- confinement ----------------------------------------------------------------------------------------------------

/// The energy c(x) = quadratic/2 |x|^2 + wall relu(|x| - radius)^2 at one point: grad c = slope x, and
/// Hessian v = slope v + curvature <x, v> x. On the wall's edge the derivatives are those of the inside.
template <class T>
struct ConfinementPoint {
  ConfinementPoint(const T* x, std::int64_t count, const Confinement& map) {
    const double squares = static_cast<double>(dot(x, x, count));
    const double norm = std::sqrt(squares);
    const double excess = norm - map.radius;
    const bool outside = !(excess <= 0);
    value = static_cast<T>(map.quadratic / 2 * squares + (outside ? map.wall * excess * excess : 0.0));
    slope = static_cast<T>(map.quadratic + (outside ? 2 * map.wall * (excess / norm) : 0.0));
    curvature = static_cast<T>(outside ? 2 * map.wall * map.radius / (norm * squares) : 0.0);
  }
  T value;
  T slope;
  T curvature;
};

template <class T>
void confinement_rows_forward(const StackedMatrix<T>& y, const StackedMatrix<T>& e, const StackedMatrix<T>& x,
                              const Confinement& map, const Rows& rows, ThreadTeam& team) {
  const std::int64_t cols = x.primal.cols;
  parallel_rows(rows.primal, stacked_cost(2 * cols + 40, 2 * cols, rows), team,
                [&](std::int64_t first, std::int64_t last) {
                  for (std::int64_t i = first; i < last; ++i) {
                    const T* const point = x.primal.row(i);
                    const ConfinementPoint<T> c(point, cols, map);
                    if (y.has_primal) *y.primal.row(i) = *e.primal.row(i) + c.value;
                    if (!y.has_tangent) continue;
                    const TangentRange tangents(rows, i);
                    for (std::int64_t t = tangents.first; t < tangents.last; ++t) {
                      *y.tangent.row(t) = *e.tangent.row(t) + c.slope * dot(point, x.tangent.row(t), cols);
                    }
                  }
                });
}

template <class T>
void confinement_rows_reverse(const StackedMatrix<T>& grad_x, const StackedMatrix<T>& grad_y, const StackedMatrix<T>& x,
                              const Confinement& map, const Rows& rows, Update update, ThreadTeam& team) {
  const std::int64_t cols = x.primal.cols;
  parallel_rows(rows.primal, stacked_cost(4 * cols + 40, 6 * cols, rows), team,
                [&](std::int64_t first, std::int64_t last) {
                  for (std::int64_t i = first; i < last; ++i) {
                    const T* const point = x.primal.row(i);
                    const ConfinementPoint<T> c(point, cols, map);
                    const TangentRange tangents(rows, i);
                    for (std::int64_t t = tangents.first; grad_x.has_tangent && t < tangents.last; ++t) {
                      update_row(grad_x.tangent.row(t), point, *grad_y.tangent.row(t) * c.slope, cols, update);
                    }
                    if (!grad_x.has_primal) continue;
                    T along_point = (grad_y.has_primal ? *grad_y.primal.row(i) : T{0}) * c.slope;
                    for (std::int64_t t = tangents.first; grad_y.has_tangent && t < tangents.last; ++t) {
                      along_point += *grad_y.tangent.row(t) * c.curvature * dot(point, x.tangent.row(t), cols);
                    }
                    T* const target = grad_x.primal.row(i);
                    update_row(target, point, along_point, cols, update);
                    for (std::int64_t t = tangents.first; grad_y.has_tangent && t < tangents.last; ++t) {
                      update_row(target, x.tangent.row(t), *grad_y.tangent.row(t) * c.slope, cols, Update::accumulate);
                    }
                  }
                });
}

// ---- affine columns -------------------------------------------------------------------------------------------------

template <class T>
void affine_rows_forward(const Matrix<T>& y, const Matrix<T>& x, const T* scale, const T* shift, ThreadTeam& team) {
  parallel_rows(y.rows, 2 * y.cols, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const T* const source = x.row(i);
      T* const target = y.row(i);
      for (std::int64_t j = 0; j < y.cols; ++j) target[j] = source[j] * scale[j] + (shift ? shift[j] : T{-0.0});
    }
  });
}

template <class T>
void affine_rows_reverse(const Matrix<T>& grad_x, const Matrix<T>& grad_y, const T* scale, Update update,
                         ThreadTeam& team) {
  parallel_rows(grad_x.rows, 2 * grad_x.cols, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const T* const source = grad_y.row(i);
      T* const target = grad_x.row(i);
      for (std::int64_t j = 0; j < grad_x.cols; ++j) {
        const T product = source[j] * scale[j];
        target[j] = update == Update::overwrite ? product : target[j] + product;
      }
    }
  });
}

}  // namespace

void CpuOps::do_fourier_features_forward(Stacked y, Stacked x, Tensor frequencies, const Rows& rows) {
  dispatch(frequencies.dtype(), [&]<class T>() {
    fourier_rows_forward(StackedMatrix<T>(y), StackedMatrix<T>(x), matrix<T>(frequencies), rows, team_);
  });
}

void CpuOps::do_fourier_features_reverse(Stacked grad_x, Stacked grad_y, Stacked x, Tensor frequencies,
                                         const Rows& rows, Update update) {
  dispatch(frequencies.dtype(), [&]<class T>() {
    fourier_rows_reverse(StackedMatrix<T>(grad_x), StackedMatrix<T>(grad_y), StackedMatrix<T>(x),
                         matrix<T>(frequencies), rows, update, team_);
  });
}

void CpuOps::do_monotone_staircase_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta, const Staircase& map,
                                           const Rows& rows) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    const StackedMatrix<T> point(x), parameters(theta), slopes(log_slope);
    staircase_rows_forward(StackedMatrix<T>(y), point, parameters, map, rows, team_);
    if (slopes.has_primal || slopes.has_tangent) {
      staircase_slope_rows_forward(slopes, point, parameters, map, rows, team_);
    }
  });
}

void CpuOps::do_monotone_staircase_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope,
                                           Stacked x, Stacked theta, const Staircase& map, const Rows& rows) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    const StackedMatrix<T> to(grad_x), to_theta(grad_theta), point(x), parameters(theta), slopes(grad_log_slope);
    staircase_rows_reverse(to, to_theta, StackedMatrix<T>(grad_y), point, parameters, map, rows, team_);
    if (slopes.has_primal || slopes.has_tangent) {
      staircase_slope_rows_reverse(to, to_theta, slopes, point, parameters, map, rows, team_);
    }
  });
}

void CpuOps::do_confinement_forward(Stacked y, Stacked e, Stacked x, const Confinement& map, const Rows& rows) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    confinement_rows_forward(StackedMatrix<T>(y), StackedMatrix<T>(e), StackedMatrix<T>(x), map, rows, team_);
  });
}

void CpuOps::do_confinement_reverse(Stacked grad_x, Stacked grad_y, Stacked x, const Confinement& map, const Rows& rows,
                                    Update update) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    confinement_rows_reverse(StackedMatrix<T>(grad_x), StackedMatrix<T>(grad_y), StackedMatrix<T>(x), map, rows, update,
                             team_);
  });
}

void CpuOps::do_affine_columns_forward(Stacked y, Stacked x, Tensor scale, Tensor shift, const Rows&) {
  dispatch(scale.dtype(), [&]<class T>() {
    const T* const s = scale.as<T>();
    if (!y.primal.absent()) affine_rows_forward(matrix<T>(y.primal), matrix<T>(x.primal), s, shift.as<T>(), team_);
    if (!y.tangent.absent()) {
      affine_rows_forward<T>(matrix<T>(y.tangent), matrix<T>(x.tangent), s, nullptr, team_);
    }
  });
}

void CpuOps::do_affine_columns_reverse(Stacked grad_x, Stacked grad_y, Tensor scale, const Rows&, Update update) {
  dispatch(scale.dtype(), [&]<class T>() {
    const T* const s = scale.as<T>();
    if (!grad_x.primal.absent()) {
      affine_rows_reverse(matrix<T>(grad_x.primal), matrix<T>(grad_y.primal), s, update, team_);
    }
    if (!grad_x.tangent.absent()) {
      affine_rows_reverse(matrix<T>(grad_x.tangent), matrix<T>(grad_y.tangent), s, update, team_);
    }
  });
}

}  // namespace bracket
