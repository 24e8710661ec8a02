// log u of the monotone staircase, u = dy/da per active column, beside staircase.cuh (formulas:
// kernels/formula/staircase_slope.h): one warp per row and active column, lanes over knots. In reverse with theta's
// Jacobian one warp does all columns of a row. u is a sum over all knots, so the reverse pass goes through them twice.
// With T = sum_k l'_k t_k of the adjoints of the tangents of log u and the tangents t_k of (a, theta):
//   reverse   (l - <grad u, T> / u) grad u / u + Hessian(u) T / u  in (a, theta),   l'_k grad u / u  in their tangents.
#pragma once

#include <cstdint>

#include "kernels/cuda/staircase.cuh"
#include "kernels/formula/staircase_slope.h"

namespace bracket::BRACKET_TARGET::density_kernels {

/// One lane's knot: its share of u, of du / d(s, h, b, c) and of du / da. A lane without a knot has zeros.
template <class T>
struct SlopeLane {
  formula::SlopeKnot<T> knot;
  formula::KnotVector<T> gradient;
  T slope, s;
};
template <class T>
BRACKET_DEVICE SlopeLane<T> slope_lane(const T* p, const Staircase& map, std::int64_t k, bool lead, T a) {
  const bool present = k < map.knots;
  const T height = present ? static_cast<T>(map.max_height) : T{0}, max_slope = static_cast<T>(map.max_slope);
  const Knot<T> at(p, map.knots, k, present, a);
  SlopeLane<T> lane;
  lane.knot = formula::slope_knot(height * at.h.sigmoid, height * at.h.q, at.h.tau, at.z.q, at.z.tau, at.beta,
                                  at.argument, at.b.q, at.b.tau, at.c.q, at.c.tau);
  lane.gradient = formula::slope_gradient(lane.knot);
  lane.slope = lane.knot.s * at.beta * at.z.q;
  lane.s = 0;
  if (lead) {
    const Squashed<T> s = squash(p[0], T{2});
    lane.slope += max_slope * s.sigmoid;
    lane.s = max_slope * s.q;
  }
  return lane;
}

/// <du / dtheta, row> of a lane's share.
template <class T>
BRACKET_DEVICE T slope_product(const SlopeLane<T>& lane, const T* row, std::int64_t knots, std::int64_t k, bool lead) {
  T sum = lead ? lane.s * row[0] : T{0};
  if (k < knots) {
    sum +=
        lane.gradient.h * row[2 + k] + lane.gradient.b * row[2 + knots + k] + lane.gradient.c * row[2 + 2 * knots + k];
  }
  return sum;
}

template <class T>
struct StaircaseSlopeForwardBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  StackedMatrix<T> log_slope, x, theta;
  Staircase map;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = lane_of_thread();
    const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
    const std::int64_t knots = map.knots, tasks = map.active_count;
    for (std::int64_t task = block.first_item() / kWarpThreads; task < rows.primal * tasks;
         task += block.item_stride() / kWarpThreads) {
      const std::int64_t i = task / tasks, column = task - i * tasks;
      const std::int64_t active = map.active_first + column, base = column * (2 + 3 * knots);
      const TangentRange tangents = tangents_of(rows, i), thetas = tangents_of(theta_rows, i);
      const T* const p = theta.primal.row(i) + base;
      const T a = x.primal.row(i)[active];
      T slope = 0;
      for (std::int64_t first = 0; first == 0 || first < knots; first += kWarpThreads) {
        const std::int64_t k = first + lane;
        const bool start = first == 0, lead = start && lane == 0;
        const SlopeLane<T> at = slope_lane(p, map, k, lead, a);
        slope += at.slope;
        if (!log_slope.has_tangent) continue;
        const T along_a = warp_sum(at.gradient.a);
        update_tangents(log_slope.tangent, column, x.tangent, active, along_a, tangents, start);
        for (std::int64_t t = thetas.first; t < thetas.last; ++t) {
          const T push = warp_sum(slope_product(at, theta.tangent.row(t) + base, knots, k, lead));
          if (map.passive_jacobian) {
            update_tangents(log_slope.tangent, column, x.tangent, passive_column(map, t - thetas.first), push, tangents,
                            false);
          } else if (lane == (t - tangents.first) % kWarpThreads) {
            log_slope.tangent.row(t)[column] += push;
          }
        }
      }
      slope = warp_sum(slope);
      if (lane == 0 && log_slope.has_primal) log_slope.primal.row(i)[column] = log(slope);
      for (std::int64_t t = tangents.first + lane; log_slope.has_tangent && t < tangents.last; t += kWarpThreads) {
        log_slope.tangent.row(t)[column] /= slope;
      }
    }
  }
};

/// The share of one lane in T: of its knot and, in the lane that carries it, of s.
template <class T>
struct SlopeDirection {
  formula::KnotVector<T> knot;
  T s;
};

/// Adds to grad_x and grad_theta.
template <class T>
struct StaircaseSlopeReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  StackedMatrix<T> grad_x, grad_theta, grad, x, theta;
  Staircase map;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t tasks = map.passive_jacobian ? 1 : map.active_count;
    const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
    for (std::int64_t task = block.first_item() / kWarpThreads; task < rows.primal * tasks;
         task += block.item_stride() / kWarpThreads) {
      const std::int64_t i = task / tasks, part = task - i * tasks;
      TangentRange tangents = tangents_of(rows, i), thetas = tangents_of(theta_rows, i);
      if (!grad.has_tangent) {
        tangents.last = tangents.first;
        thetas.last = thetas.first;
      }
      const std::int64_t columns = map.passive_jacobian ? map.active_count : part + 1;
      for (std::int64_t column = part; column < columns; ++column) reverse(i, column, tangents, thetas);
    }
  }

 private:
  BRACKET_DEVICE T weight(std::int64_t column, std::int64_t t, const TangentRange& tangents,
                          const TangentRange& thetas) const {
    if (!map.passive_jacobian) return grad.tangent.row(t)[column];
    return tangent_dot(x.tangent, passive_column(map, t - thetas.first), grad.tangent, column, tangents);
  }

  BRACKET_DEVICE SlopeDirection<T> direction(std::int64_t column, std::int64_t k, bool lead, T along_a,
                                             const TangentRange& tangents, const TangentRange& thetas) const {
    SlopeDirection<T> sum{{along_a, 0, 0, 0}, 0};
    const std::int64_t base = column * (2 + 3 * map.knots);
    for (std::int64_t t = thetas.first; t < thetas.last; ++t) {
      const T w = weight(column, t, tangents, thetas);
      const T* const row = theta.tangent.row(t) + base;
      if (lead) sum.s += w * row[0];
      if (k < map.knots) {
        sum.knot.h += w * row[2 + k];
        sum.knot.b += w * row[2 + map.knots + k];
        sum.knot.c += w * row[2 + 2 * map.knots + k];
      }
    }
    return sum;
  }

  BRACKET_DEVICE void reverse(std::int64_t i, std::int64_t column, const TangentRange& tangents,
                              const TangentRange& thetas) const {
    const int lane = lane_of_thread();
    const bool primal = grad_x.has_primal || grad_theta.has_primal;
    const std::int64_t knots = map.knots, active = map.active_first + column, base = column * (2 + 3 * knots);
    const T* const p = theta.primal.row(i) + base;
    const T a = x.primal.row(i)[active];
    const bool curved = primal && tangents.first < tangents.last;
    const T along_a = curved ? tangent_dot(x.tangent, active, grad.tangent, column, tangents) : T{0};

    T slope = 0, along = 0;  // u and <grad u, T>
    for (std::int64_t first = 0; first == 0 || first < knots; first += kWarpThreads) {
      const std::int64_t k = first + lane;
      const bool lead = first == 0 && lane == 0;
      const SlopeLane<T> at = slope_lane(p, map, k, lead, a);
      slope += at.slope;
      if (!curved) continue;
      const SlopeDirection<T> v = direction(column, k, lead, along_a, tangents, thetas);
      along += at.gradient.a * v.knot.a + at.gradient.h * v.knot.h + at.gradient.b * v.knot.b +
               at.gradient.c * v.knot.c + at.s * v.s;
    }
    const T inverse = T{1} / warp_sum(slope);
    const T seed = grad.has_primal ? grad.primal.row(i)[column] : T{0};
    const T factor = (seed - warp_sum(along) * inverse) * inverse;

    T grad_a = 0, rate_a = 0;  // of this lane; rate_a: du / da
    for (std::int64_t first = 0; first == 0 || first < knots; first += kWarpThreads) {
      const std::int64_t k = first + lane;
      const bool lead = first == 0 && lane == 0;
      const SlopeLane<T> at = slope_lane(p, map, k, lead, a);
      rate_a += at.gradient.a;
      if (primal) {
        formula::KnotVector<T> second{0, 0, 0, 0};
        T second_s = 0;
        if (curved) {
          const SlopeDirection<T> v = direction(column, k, lead, along_a, tangents, thetas);
          second = formula::slope_hessian_product(at.knot, v.knot);
          if (lead) second_s = -at.s * squash(p[0], T{2}).tau * v.s;
        }
        grad_a += factor * at.gradient.a + inverse * second.a;
        if (grad_theta.has_primal) {
          T* const target = grad_theta.primal.row(i) + base;
          if (k < knots) {
            target[2 + k] += factor * at.gradient.h + inverse * second.h;
            target[2 + knots + k] += factor * at.gradient.b + inverse * second.b;
            target[2 + 2 * knots + k] += factor * at.gradient.c + inverse * second.c;
          }
          if (lead) target[0] += factor * at.s + inverse * second_s;
        }
      }
      for (std::int64_t t = thetas.first; t < thetas.last; ++t) {
        if (map.passive_jacobian && grad_x.has_tangent) {
          const T pull = warp_sum(slope_product(at, theta.tangent.row(t) + base, knots, k, lead)) * inverse;
          update_tangents(grad_x.tangent, passive_column(map, t - thetas.first), grad.tangent, column, pull, tangents,
                          false);
        }
        if (!grad_theta.has_tangent) continue;
        const T pull = weight(column, t, tangents, thetas) * inverse;
        T* const target = grad_theta.tangent.row(t) + base;
        if (k < knots) {
          target[2 + k] += pull * at.gradient.h;
          target[2 + knots + k] += pull * at.gradient.b;
          target[2 + 2 * knots + k] += pull * at.gradient.c;
        }
        if (lead) target[0] += pull * at.s;
      }
    }
    rate_a = warp_sum(rate_a) * inverse;
    if (grad_x.has_tangent) {
      update_tangents(grad_x.tangent, active, grad.tangent, column, rate_a, tangents, false);
    }
    grad_a = warp_sum(grad_a);
    if (lane == 0 && grad_x.has_primal) grad_x.primal.row(i)[active] += grad_a;
  }
};

}  // namespace bracket::BRACKET_TARGET::density_kernels
