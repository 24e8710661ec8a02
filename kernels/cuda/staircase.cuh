// Device side of the monotone staircase of density.cuh: one warp per row and active column, lanes over knots. In
// reverse with theta's Jacobian one warp does all columns of a row, since each adds to the tangents of the passive
// ones.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"

namespace bracket::BRACKET_TARGET::density_kernels {

// Four warps: enough independent rows per block to hide latency, few enough that a batch of 128 rows fills 32 SMs.
constexpr int kThreads = 128;
constexpr int kWarpsPerBlock = kThreads / kWarpThreads;
/// Blocks per multiprocessor the compiler leaves registers for. Without this number it spills 20 to 52 bytes of the
/// staircases and 44 of Fourier features in reverse; at 3 it still spills the reverse staircase.
constexpr int kResidentBlocks = 2;

/// A squashed parameter: tau = tanh(x / m), q = e / (1 + e)^2 with e = exp(-2 |x| / m), so that (m tau)' = 4 q and
/// (m tau)'' = -8 q tau / m. With m = 2 also sigmoid(x), sigmoid' = q and sigmoid'' = -q tau.
template <class T>
struct Squashed {
  T tau;
  T q;
  T sigmoid;
};
template <class T>
BRACKET_DEVICE Squashed<T> squash(T x, T m) {
  const T e = exp(T{-2} / m * fabs(x));
  const T inverse = T{1} / (T{1} + e);
  return {tanh(x / m), e * inverse * inverse, x < T{0} ? e * inverse : inverse};
}

/// One knot at the point a.
template <class T>
struct Knot {
  Squashed<T> h, b, c, z;
  T argument;  ///< z = beta (a - c~)
  T beta;

  /// Parameters of a knot; a lane without one (`present` false) computes with zeros.
  BRACKET_DEVICE Knot(const T* theta, std::int64_t knots, std::int64_t k, bool present, T a)
      : h(squash(present ? theta[2 + k] : T{0}, T{2})),
        b(squash(present ? theta[2 + knots + k] : T{0}, T{4})),
        c(squash(present ? theta[2 + 2 * knots + k] : T{0}, T{8})) {
    beta = exp(T{4} * b.tau);
    argument = beta * (a - T{8} * c.tau);
    z = squash(argument, T{2});
  }
  BRACKET_DEVICE T z_b() const { return T{4} * b.q * argument; }  ///< dz/db
  BRACKET_DEVICE T z_c() const { return T{-4} * c.q * beta; }     ///< dz/dc
  BRACKET_DEVICE T weight() const { return h.sigmoid * z.q; }     ///< dy/dz
};

/// Column of x that passive column j is.
BRACKET_DEVICE std::int64_t passive_column(const Staircase& map, std::int64_t j) {
  return j < map.active_first ? j : j + map.active_count;
}

/// sum_k x'_k[x_column] y'_k[y_column] over the tangents of one row; the same in every lane.
template <class T>
BRACKET_DEVICE T tangent_dot(const DeviceMatrix<T>& x, std::int64_t x_column, const DeviceMatrix<T>& y,
                             std::int64_t y_column, const TangentRange& tangents) {
  T sum = 0;
  for (std::int64_t t = tangents.first; t < tangents.last; ++t) sum += x.row(t)[x_column] * y.row(t)[y_column];
  return sum;
}

/// y'_k[y_column] (+)= factor x'_k[x_column]. A lane always has the same tangents, so calls need no barrier in between.
template <class T>
BRACKET_DEVICE void update_tangents(const DeviceMatrix<T>& y, std::int64_t y_column, const DeviceMatrix<T>& x,
                                    std::int64_t x_column, T factor, const TangentRange& tangents, bool overwrite) {
  for (std::int64_t t = tangents.first + lane_of_thread(); t < tangents.last; t += kWarpThreads) {
    update(y.row(t)[y_column], factor * x.row(t)[x_column], overwrite);
  }
}

/// dy/dtheta of a lane's knot, and of s and t in the lane that carries them (elsewhere 0).
template <class T>
struct StaircaseGradient {
  T s, t, h, b, c;
};
template <class T>
BRACKET_DEVICE T lane_product(const StaircaseGradient<T>& gradient, const T* row, std::int64_t knots, std::int64_t k,
                              bool lead) {
  T sum = lead ? gradient.s * row[0] + gradient.t * row[1] : T{0};
  if (k < knots) sum += gradient.h * row[2 + k] + gradient.b * row[2 + knots + k] + gradient.c * row[2 + 2 * knots + k];
  return sum;
}

/// Warp task `column` of a row: an active column, or, behind the last one, the copy of the passive columns.
template <class T>
BRACKET_DEVICE void copy_passive(const DeviceMatrix<T>& target, const DeviceMatrix<T>& source, bool zero,
                                 std::int64_t row, const Staircase& map) {
  for (std::int64_t j = lane_of_thread(); j < target.cols; j += kWarpThreads) {
    if (j >= map.active_first && j < map.active_first + map.active_count) continue;
    target.row(row)[j] = zero ? T{0} : source.row(row)[j];
  }
}

template <class T>
struct MonotoneStaircaseForwardBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  StackedMatrix<T> y, x, theta;
  Staircase map;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = lane_of_thread();
    const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
    const T max_slope = static_cast<T>(map.max_slope), max_height = static_cast<T>(map.max_height);
    const std::int64_t knots = map.knots, tasks = map.active_count + 1;
    for (std::int64_t task = block.first_item() / kWarpThreads; task < rows.primal * tasks;
         task += block.item_stride() / kWarpThreads) {
      const std::int64_t i = task / tasks, column = task - i * tasks;
      const TangentRange tangents = tangents_of(rows, i);
      if (column == map.active_count) {
        if (y.has_primal) copy_passive(y.primal, x.primal, false, i, map);
        for (std::int64_t t = tangents.first; y.has_tangent && t < tangents.last; ++t) {
          copy_passive(y.tangent, x.tangent, false, t, map);
        }
        continue;
      }
      const std::int64_t active = map.active_first + column, base = column * (2 + 3 * knots);
      const TangentRange thetas = tangents_of(theta_rows, i);
      const T* const p = theta.primal.row(i) + base;
      const T a = x.primal.row(i)[active];
      const Squashed<T> s = squash(p[0], T{2}), t_bound = squash(p[1], T{8});
      T value = lane == 0 ? max_slope * s.sigmoid * a + T{8} * t_bound.tau : T{0};
      for (std::int64_t first = 0; first == 0 || first < knots; first += kWarpThreads) {
        const std::int64_t k = first + lane;
        const bool start = first == 0, lead = start && lane == 0;
        StaircaseGradient<T> gradient{max_slope * s.q * a, T{4} * t_bound.q, 0, 0, 0};
        T slope = lead ? max_slope * s.sigmoid : T{0};
        if (k < knots) {
          const Knot<T> knot(p, knots, k, true, a);
          value += max_height * knot.h.sigmoid * knot.z.sigmoid;
          const T weight = max_height * knot.weight();
          gradient.h = max_height * knot.h.q * knot.z.sigmoid;
          gradient.b = weight * knot.z_b();
          gradient.c = weight * knot.z_c();
          slope += weight * knot.beta;
        }
        if (!y.has_tangent) continue;
        slope = warp_sum(slope);
        update_tangents(y.tangent, active, x.tangent, active, slope, tangents, start);
        for (std::int64_t t = thetas.first; t < thetas.last; ++t) {
          const T push = warp_sum(lane_product(gradient, theta.tangent.row(t) + base, knots, k, lead));
          if (map.passive_jacobian) {
            update_tangents(y.tangent, active, x.tangent, passive_column(map, t - thetas.first), push, tangents, false);
          } else if (lane == (t - tangents.first) % kWarpThreads) {
            y.tangent.row(t)[active] += push;
          }
        }
      }
      value = warp_sum(value);
      if (lane == 0 && y.has_primal) y.primal.row(i)[active] = value;
    }
  }
};

/// One active column of row i.
template <class T>
BRACKET_DEVICE void reverse_column(const StackedMatrix<T>& grad_x, const StackedMatrix<T>& grad_theta,
                                   const StackedMatrix<T>& grad_y, const StackedMatrix<T>& x,
                                   const StackedMatrix<T>& theta, const Staircase& map, std::int64_t i,
                                   std::int64_t column, const TangentRange& tangents, const TangentRange& thetas) {
  const int lane = lane_of_thread();
  const T max_slope = static_cast<T>(map.max_slope), max_height = static_cast<T>(map.max_height);
  const bool primal = grad_x.has_primal || grad_theta.has_primal;
  const std::int64_t knots = map.knots;
  const std::int64_t active = map.active_first + column, base = column * (2 + 3 * knots);
  const T* const p = theta.primal.row(i) + base;
  const T a = x.primal.row(i)[active];
  const T seed = grad_y.has_primal ? grad_y.primal.row(i)[active] : T{0};
  const Squashed<T> s = squash(p[0], T{2}), t_bound = squash(p[1], T{8});
  const T va = primal ? tangent_dot(x.tangent, active, grad_y.tangent, active, tangents) : T{0};
  T grad_a = 0;
  for (std::int64_t first = 0; first == 0 || first < knots; first += kWarpThreads) {
    const std::int64_t k = first + lane;
    const bool active_lane = k < knots, start = first == 0, lead = start && lane == 0;
    const Knot<T> knot(p, knots, k, active_lane, a);
    const T weight = active_lane ? max_height * knot.weight() : T{0};
    const T height = active_lane ? max_height : T{0};
    const StaircaseGradient<T> gradient{max_slope * s.q * a, T{4} * t_bound.q, height * knot.h.q * knot.z.sigmoid,
                                        weight * knot.z_b(), weight * knot.z_c()};
    const T slope = warp_sum(weight * knot.beta + (lead ? max_slope * s.sigmoid : T{0}));
    if (grad_x.has_tangent) {
      update_tangents(grad_x.tangent, active, grad_y.tangent, active, slope, tangents, start);
    }
    // The weighted sum of theta's tangents, and the gradients of theirs.
    T vs = 0, vt = 0, vh = 0, vb = 0, vc = 0;
    for (std::int64_t t = thetas.first; t < thetas.last; ++t) {
      const std::int64_t passive = passive_column(map, t - thetas.first);
      if (map.passive_jacobian && grad_x.has_tangent) {
        const T pull = warp_sum(lane_product(gradient, theta.tangent.row(t) + base, knots, k, lead));
        update_tangents(grad_x.tangent, passive, grad_y.tangent, active, pull, tangents, false);
      }
      if (!primal && !grad_theta.has_tangent) continue;
      const T pull = map.passive_jacobian ? tangent_dot(x.tangent, passive, grad_y.tangent, active, tangents)
                                          : grad_y.tangent.row(t)[active];
      if (primal) {
        const T* const tan_p = theta.tangent.row(t) + base;
        vs += pull * tan_p[0];
        vt += pull * tan_p[1];
        if (active_lane) {
          vh += pull * tan_p[2 + k];
          vb += pull * tan_p[2 + knots + k];
          vc += pull * tan_p[2 + 2 * knots + k];
        }
      }
      if (grad_theta.has_tangent) {
        T* const target = grad_theta.tangent.row(t) + base;
        if (active_lane) {
          target[2 + k] = pull * gradient.h;
          target[2 + knots + k] = pull * gradient.b;
          target[2 + 2 * knots + k] = pull * gradient.c;
        }
        if (lead) {
          target[0] = pull * gradient.s;
          target[1] = pull * gradient.t;
        }
      }
    }
    if (!primal) continue;
    // Derivatives of q_h v_h sigmoid(z) + sigmoid_h z.q z_dot, z_dot = z_b v_b + z_c v_c + beta v_a.
    const T z_dot = knot.z_b() * vb + knot.z_c() * vc + knot.beta * va;
    const T along_z = height * knot.h.q * vh * knot.z.q - weight * knot.z.tau * z_dot;
    const T slope_b = T{4} * knot.b.q;
    const T second_a = warp_sum(along_z * knot.beta + weight * slope_b * knot.beta * vb);
    if (grad_theta.has_primal) {
      T* const target = grad_theta.primal.row(i) + base;
      if (active_lane) {
        const T z_bb = (slope_b - knot.b.tau / T{2}) * knot.z_b();
        const T z_cc = knot.beta * knot.c.q * knot.c.tau;
        target[2 + k] = seed * gradient.h + height * knot.h.q * (knot.z.q * z_dot - knot.h.tau * vh * knot.z.sigmoid);
        target[2 + knots + k] = seed * gradient.b + along_z * knot.z_b() +
                                weight * (z_bb * vb + slope_b * knot.z_c() * vc + slope_b * knot.beta * va);
        target[2 + 2 * knots + k] =
            seed * gradient.c + along_z * knot.z_c() + weight * (slope_b * knot.z_c() * vb + z_cc * vc);
      }
      if (lead) {
        target[0] = seed * gradient.s + max_slope * s.q * (va - s.tau * vs * a);
        target[1] = seed * gradient.t - t_bound.q * t_bound.tau * vt;
      }
    }
    grad_a += seed * slope + second_a + (start ? max_slope * s.q * vs : T{0});
  }
  if (lane == 0 && grad_x.has_primal) grad_x.primal.row(i)[active] = grad_a;
}

template <class T>
struct MonotoneStaircaseReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  StackedMatrix<T> grad_x, grad_theta, grad_y, x, theta;
  Staircase map;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t tasks = map.passive_jacobian ? 1 : map.active_count + 1;
    const Rows theta_rows = map.theta_rows(rows, x.primal.cols);
    for (std::int64_t task = block.first_item() / kWarpThreads; task < rows.primal * tasks;
         task += block.item_stride() / kWarpThreads) {
      const std::int64_t i = task / tasks, part = task - i * tasks;
      TangentRange tangents = tangents_of(rows, i), thetas = tangents_of(theta_rows, i);
      if (!grad_y.has_tangent) {
        tangents.last = tangents.first;
        thetas.last = thetas.first;
      }
      if (map.passive_jacobian || part == map.active_count) {
        if (grad_x.has_primal) copy_passive(grad_x.primal, grad_y.primal, !grad_y.has_primal, i, map);
        for (std::int64_t t = tangents.first; grad_x.has_tangent && t < tangents.last; ++t) {
          copy_passive(grad_x.tangent, grad_y.tangent, false, t, map);
        }
      }
      if (map.passive_jacobian) __syncwarp();  // lanes copied columns and now add to tangents
      const std::int64_t columns = map.passive_jacobian ? map.active_count : part + 1;
      for (std::int64_t column = part; column < columns && column < map.active_count; ++column) {
        reverse_column(grad_x, grad_theta, grad_y, x, theta, map, i, column, tangents, thetas);
      }
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::density_kernels
