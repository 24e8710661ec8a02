// Up to kKnots knots of one monotone staircase at kLanes points side by side: value, gradient and Hessian-vector
// product, by loops over [parameter][point] that compilers vectorise without tails.
//
// One column of kernels/ops.h, Staircase, with sig the sigmoid and m the bounds 8 (t, c) and 4 (b):
//   y = max_slope sig(s) a + t~ + sum_k max_height sig(h_k) sig(z_k),  z_k = beta_k (a - c~_k),
//   beta_k = exp(b~_k), x~ = m tanh(x / m).
// All bounded or squashed parameters come from one pass of e = exp(-|x| 2 / m) (sigmoid: exp(-|x|)), with
//   tau = tanh(x / m) (sigmoid: tanh(x / 2)),  q = e / (1 + e)^2:
//   sig' = q, sig'' = -q tau,  x~' = 4 q, x~'' = -8 q tau / m.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/pointwise.h"
#include "kernels/formula/staircase_slope.h"

namespace bracket {

inline constexpr double kOffsetBound = 8;     ///< |t~|, |c~|
inline constexpr double kSharpnessBound = 4;  ///< |b~|

/// Points side by side: an AVX2 register of floats.
inline constexpr int kLanes = 8;
/// A staircase with more knots takes several rounds, so that scratch arrays stay in the first-level cache.
inline constexpr int kKnots = 16;
/// s, t and three parameters per knot.
inline constexpr int kSlots = 2 + 3 * kKnots;

/// One value per point.
template <class T>
struct alignas(64) PointValues {
  T at[kLanes] = {};
};

/// One value per parameter and point: [slot][point].
template <class T>
struct alignas(64) SlotValues {
  T at[kSlots * kLanes];
  T* slot(int s) { return at + s * kLanes; }
  const T* slot(int s) const { return at + s * kLanes; }
};

/// Where the parameters of one round lie among the slots: [s, t,] h .., b .., c ... The first round has s and t.
struct KnotRound {
  std::int64_t first = 0;  ///< first knot
  std::int64_t knots = 0;  ///< of the staircase
  int count = 0;           ///< knots of this round
  int lead = 0;            ///< 2 in the first round, else 0
  int slots = 0;

  KnotRound(std::int64_t first_knot, std::int64_t all_knots)
      : first(first_knot),
        knots(all_knots),
        count(static_cast<int>(std::min<std::int64_t>(all_knots - first_knot, kKnots))),
        lead(first_knot == 0 ? 2 : 0),
        slots(lead + 3 * count) {}
  int h() const { return lead; }
  int b() const { return lead + count; }
  int c() const { return lead + 2 * count; }

  /// f(slot, index, length): slots that are neighbours among one column's parameters [s, t, h.., b.., c..].
  template <class F>
  void for_each_run(F&& f) const {
    if (slots == 2 + 3 * knots) return f(0, 0, slots);
    if (lead != 0) f(0, 0, lead);
    for (int part = 0; part < 3; ++part) f(lead + part * count, 2 + part * knots + first, count);
  }
};

/// Rows of a matrix for the points: `count` of them, `stride` apart. Points without a row repeat the last one.
template <class T>
struct PointRows {
  T* data = nullptr;
  std::int64_t stride = 0;
  int count = 0;
};

template <class T>
void load(SlotValues<T>& values, const PointRows<T>& rows, const KnotRound& round) {
  round.for_each_run([&](int slot, std::int64_t index, int length) {
    const T* source[kLanes];
    for (int lane = 0; lane < kLanes; ++lane)
      source[lane] = rows.data + std::min(lane, rows.count - 1) * rows.stride + index;
    for (int s = 0; s < length; ++s) {
      for (int lane = 0; lane < kLanes; ++lane) values.slot(slot + s)[lane] = source[lane][s];
    }
  });
}

template <class T>
void store(const PointRows<T>& rows, const SlotValues<T>& values, const KnotRound& round) {
  round.for_each_run([&](int slot, std::int64_t index, int length) {
    for (int lane = 0; lane < rows.count; ++lane) {
      T* const target = rows.data + lane * rows.stride + index;
      const T* const source = values.slot(slot) + lane;
      for (int s = 0; s < length; ++s) target[s] = source[s * kLanes];
    }
  });
}

template <class T>
void repeat(T* target, const PointValues<T>& values, int times) {
  for (int k = 0; k < times; ++k) std::copy_n(values.at, kLanes, target + k * kLanes);
}

/// sums += values [groups][point], summed over the groups in order.
template <class T>
void add_groups(PointValues<T>& sums, const T* values, int groups) {
  for (int k = 0; k < groups; ++k) {
    for (int lane = 0; lane < kLanes; ++lane) sums.at[lane] += values[k * kLanes + lane];
  }
}

template <class T>
class StaircaseKnots {
 public:
  StaircaseKnots(double max_slope, double max_height)
      : max_slope_(static_cast<T>(max_slope)), max_height_(static_cast<T>(max_height)) {}

  /// Evaluates the round at the points a. The scratch arrays hold tau, q and the sigmoids of the slots.
  void evaluate(const KnotRound& round, const SlotValues<T>& theta, const PointValues<T>& a) {
    if (round.lead != 0) {
      squash(theta, 0, 1, 2);
      squash(theta, 1, 1, kOffsetBound);
    }
    squash(theta, round.h(), round.count, 2);
    squash(theta, round.b(), round.count, kSharpnessBound);
    squash(theta, round.c(), round.count, kOffsetBound);

    const T* const tau_b = tau_.slot(round.b());
    const T* const tau_c = tau_.slot(round.c());
    const T* const sigmoid_h = sigmoid_.slot(round.h());
    // exp(4 tau) as e^4 exp(4 tau - 4), whose argument is not positive.
    constexpr T kLargestSharpness = static_cast<T>(54.598150033144239);
    alignas(64) T points[kKnots * kLanes], heights[kKnots * kLanes], slopes[kKnots * kLanes];
    repeat(points, a, round.count);
#pragma omp simd
    for (int k = 0; k < round.count * kLanes; ++k) {
      const T bounded = T{kSharpnessBound} * tau_b[k];
      beta_[k] = kLargestSharpness * exp_nonpositive(bounded - T{kSharpnessBound}).value;
      z_[k] = beta_[k] * (points[k] - T{kOffsetBound} * tau_c[k]);
      const Exponential<T> e = exp_nonpositive(-std::abs(z_[k]));
      const T inverse = T{1} / (T{1} + e.value);
      tau_z_[k] = std::copysign(e.minus_one * inverse, z_[k]);
      q_z_[k] = e.value * inverse * inverse;
      step_[k] = z_[k] < T{0} ? e.value * inverse : inverse;
      heights[k] = sigmoid_h[k] * step_[k];
      slopes[k] = sigmoid_h[k] * q_z_[k] * beta_[k];
    }
    value_ = slope_ = {};
    add_groups(value_, heights, round.count);
    add_groups(slope_, slopes, round.count);
    for (int lane = 0; lane < kLanes; ++lane) {
      value_.at[lane] *= max_height_;
      slope_.at[lane] *= max_height_;
    }
    for (int lane = 0; round.lead != 0 && lane < kLanes; ++lane) {
      const T slope = max_slope_ * sigmoid_.slot(0)[lane];
      value_.at[lane] += slope * a.at[lane] + T{kOffsetBound} * tau_.slot(1)[lane];
      slope_.at[lane] += slope;
    }
  }

  const PointValues<T>& value() const { return value_; }  ///< the round's share of y
  const PointValues<T>& slope() const { return slope_; }  ///< of u = dy/da

  /// dy / dtheta of the round's slots, after evaluate().
  void gradient(SlotValues<T>& result, const KnotRound& round, const PointValues<T>& a) const {
    for (int lane = 0; round.lead != 0 && lane < kLanes; ++lane) {
      result.slot(0)[lane] = max_slope_ * q_.slot(0)[lane] * a.at[lane];
      result.slot(1)[lane] = T{4} * q_.slot(1)[lane];
    }
    const int h = round.h(), b = round.b(), c = round.c();
    const T *const q_h = q_.slot(h), *const q_b = q_.slot(b), *const q_c = q_.slot(c);
    const T* const sigmoid_h = sigmoid_.slot(h);
    T *const along_h = result.slot(h), *const along_b = result.slot(b), *const along_c = result.slot(c);
#pragma omp simd
    for (int k = 0; k < round.count * kLanes; ++k) {
      const T weight = max_height_ * sigmoid_h[k] * q_z_[k];
      along_h[k] = max_height_ * q_h[k] * step_[k];
      along_b[k] = weight * z_[k] * T{4} * q_b[k];
      along_c[k] = -weight * beta_[k] * T{4} * q_c[k];
    }
  }

  /// Adds the Hessian of y, applied to (direction_a, direction), to result and its component in a to grad_a.
  void add_hessian_product(SlotValues<T>& result, PointValues<T>& grad_a, const KnotRound& round,
                           const SlotValues<T>& direction, const PointValues<T>& direction_a,
                           const PointValues<T>& a) const {
    const int h = round.h(), b = round.b(), c = round.c();
    alignas(64) T v_a[kKnots * kLanes], along_a[kKnots * kLanes];
    repeat(v_a, direction_a, round.count);
    const T *const v_h = direction.slot(h), *const v_b = direction.slot(b), *const v_c = direction.slot(c);
    const T *const q_h = q_.slot(h), *const q_b = q_.slot(b), *const q_c = q_.slot(c);
    const T *const tau_h = tau_.slot(h), *const tau_b = tau_.slot(b), *const tau_c = tau_.slot(c);
    const T* const sigmoid_h = sigmoid_.slot(h);
    T *const to_h = result.slot(h), *const to_b = result.slot(b), *const to_c = result.slot(c);
#pragma omp simd
    for (int k = 0; k < round.count * kLanes; ++k) {
      const T slope_b = T{4} * q_b[k];                   // b~'
      const T slope_c = T{4} * q_c[k];                   // c~'
      const T z_b = slope_b * z_[k];                     // dz/db
      const T z_c = -beta_[k] * slope_c;                 // dz/dc
      const T z_bb = (slope_b - tau_b[k] / T{2}) * z_b;  // b~'' = -b~' tau / 2
      const T z_cc = beta_[k] * q_c[k] * tau_c[k];
      const T z_bc = slope_b * z_c;
      const T z_ab = slope_b * beta_[k];
      const T z_dot = z_b * v_b[k] + z_c * v_c[k] + beta_[k] * v_a[k];
      // Derivatives of q_h v_h g(z) + sig_h q_z z_dot, divided by max_height.
      const T along_z = q_h[k] * v_h[k] * q_z_[k] - sigmoid_h[k] * q_z_[k] * tau_z_[k] * z_dot;
      const T weight = sigmoid_h[k] * q_z_[k];
      along_a[k] = max_height_ * (along_z * beta_[k] + weight * z_ab * v_b[k]);
      to_h[k] += max_height_ * q_h[k] * (q_z_[k] * z_dot - tau_h[k] * v_h[k] * step_[k]);
      to_b[k] += max_height_ * (along_z * z_b + weight * (z_bb * v_b[k] + z_bc * v_c[k] + z_ab * v_a[k]));
      to_c[k] += max_height_ * (along_z * z_c + weight * (z_bc * v_b[k] + z_cc * v_c[k]));
    }
    add_groups(grad_a, along_a, round.count);
    for (int lane = 0; round.lead != 0 && lane < kLanes; ++lane) {
      const T v_s = direction.slot(0)[lane], q_s = max_slope_ * q_.slot(0)[lane];
      grad_a.at[lane] += q_s * v_s;
      result.slot(0)[lane] += q_s * (direction_a.at[lane] - tau_.slot(0)[lane] * v_s * a.at[lane]);
      result.slot(1)[lane] -= q_.slot(1)[lane] * tau_.slot(1)[lane] * direction.slot(1)[lane];
    }
  }

  /// du / dtheta of the round's slots, and its share of du / da, after evaluate().
  void slope_gradient(SlotValues<T>& result, PointValues<T>& grad_a, const KnotRound& round) const {
    for (int lane = 0; round.lead != 0 && lane < kLanes; ++lane) {
      result.slot(0)[lane] = max_slope_ * q_.slot(0)[lane];
      result.slot(1)[lane] = T{0};
    }
    alignas(64) T along_a[kKnots * kLanes];
    T *const to_h = result.slot(round.h()), *const to_b = result.slot(round.b()), *const to_c = result.slot(round.c());
#pragma omp simd
    for (int k = 0; k < round.count * kLanes; ++k) {
      const formula::KnotVector<T> gradient = formula::slope_gradient(knot(round, k));
      along_a[k] = max_height_ * gradient.a;
      to_h[k] = max_height_ * gradient.h;
      to_b[k] = max_height_ * gradient.b;
      to_c[k] = max_height_ * gradient.c;
    }
    grad_a = {};
    add_groups(grad_a, along_a, round.count);
  }

  /// Adds the Hessian of u, applied to (direction_a, direction), times factor to result and its component in a to
  /// grad_a.
  void add_slope_hessian_product(SlotValues<T>& result, PointValues<T>& grad_a, const KnotRound& round,
                                 const SlotValues<T>& direction, const PointValues<T>& direction_a,
                                 const PointValues<T>& factor) const {
    alignas(64) T v_a[kKnots * kLanes], scale[kKnots * kLanes], along_a[kKnots * kLanes];
    repeat(v_a, direction_a, round.count);
    repeat(scale, factor, round.count);
    const T *const v_h = direction.slot(round.h()), *const v_b = direction.slot(round.b()),
                   *const v_c = direction.slot(round.c());
    T *const to_h = result.slot(round.h()), *const to_b = result.slot(round.b()), *const to_c = result.slot(round.c());
#pragma omp simd
    for (int k = 0; k < round.count * kLanes; ++k) {
      const formula::KnotVector<T> product =
          formula::slope_hessian_product(knot(round, k), formula::KnotVector<T>{v_a[k], v_h[k], v_b[k], v_c[k]});
      const T weight = max_height_ * scale[k];
      along_a[k] = weight * product.a;
      to_h[k] += weight * product.h;
      to_b[k] += weight * product.b;
      to_c[k] += weight * product.c;
    }
    add_groups(grad_a, along_a, round.count);
    for (int lane = 0; round.lead != 0 && lane < kLanes; ++lane) {
      result.slot(0)[lane] -=
          factor.at[lane] * max_slope_ * q_.slot(0)[lane] * tau_.slot(0)[lane] * direction.slot(0)[lane];
    }
  }

 private:
  formula::SlopeKnot<T> knot(const KnotRound& round, int k) const {
    const int h = round.h() * kLanes + k, b = round.b() * kLanes + k, c = round.c() * kLanes + k;
    return formula::slope_knot(sigmoid_.at[h], q_.at[h], tau_.at[h], q_z_[k], tau_z_[k], beta_[k], z_[k], q_.at[b],
                               tau_.at[b], q_.at[c], tau_.at[c]);
  }

  /// tau, q and the sigmoid of `count` slots with the bound m (2: a sigmoid).
  void squash(const SlotValues<T>& theta, int first, int count, double m) {
    const T scale = static_cast<T>(-2 / m);
    const T* const x = theta.slot(first);
    T *const tau = tau_.slot(first), *const q = q_.slot(first), *const sigmoid = sigmoid_.slot(first);
#pragma omp simd
    for (int k = 0; k < count * kLanes; ++k) {
      const Exponential<T> e = exp_nonpositive(scale * std::abs(x[k]));
      const T inverse = T{1} / (T{1} + e.value);
      tau[k] = std::copysign(e.minus_one * inverse, x[k]);
      q[k] = e.value * inverse * inverse;
      sigmoid[k] = x[k] < T{0} ? e.value * inverse : inverse;
    }
  }

  T max_slope_;
  T max_height_;
  SlotValues<T> tau_, q_, sigmoid_;
  alignas(64) T beta_[kKnots * kLanes], z_[kKnots * kLanes];
  alignas(64) T tau_z_[kKnots * kLanes], q_z_[kKnots * kLanes], step_[kKnots * kLanes];
  PointValues<T> value_, slope_;
};

}  // namespace bracket
