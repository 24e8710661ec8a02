// Up to kKnots knots of one monotone staircase at one point: value, gradient and Hessian-vector product, by loops over
// adjacent parameters that compilers vectorise.
//
// One column of kernels/ops.h, Staircase, with sig the sigmoid and m the bounds 8 (t, c) and 4 (b):
//   y = max_slope sig(s) a + t~ + sum_k max_height sig(h_k) sig(z_k),  z_k = beta_k (a - c~_k),
//   beta_k = exp(b~_k), x~ = m tanh(x / m).
// All bounded or squashed parameters come from one pass of e = exp(-|x| 2 / m) (sigmoid: exp(-|x|)), with
//   tau = tanh(x / m) (sigmoid: tanh(x / 2)),  q = e / (1 + e)^2:
//   sig' = q, sig'' = -q tau,  x~' = 4 q, x~'' = -8 q tau / m.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu/pointwise.h"

namespace bracket {

inline constexpr double kOffsetBound = 8;     ///< |t~|, |c~|
inline constexpr double kSharpnessBound = 4;  ///< |b~|

/// Two AVX2 registers of floats; a staircase with more knots takes several rounds.
inline constexpr int kKnots = 16;
inline constexpr int kSlotLanes = 8;
/// s, t and three parameters per knot, rounded up to whole registers.
inline constexpr int kSlots = 3 * kKnots + kSlotLanes;

/// Where the parameters of one round lie in the scratch arrays: [s, t,] h .., b .., c ... The first round has s and t.
template <class T>
struct KnotRound {
  std::int64_t first = 0;  ///< first knot
  int count = 0;           ///< knots of this round
  int lead = 0;            ///< 2 in the first round, else 0
  int slots = 0;
  T exponent_scale[kSlots] = {};  ///< -2 / m, or -1 for sigmoids

  KnotRound(std::int64_t first_knot, std::int64_t knots) : first(first_knot) {
    count = static_cast<int>(knots - first < kKnots ? knots - first : kKnots);
    lead = first == 0 ? 2 : 0;
    slots = lead + 3 * count;
    for (int i = 0; i < slots; ++i) {
      const bool sigmoid = i < lead ? i == 0 : i < b() && i >= h();
      const bool sharpness = i >= b() && i < c();
      exponent_scale[i] = static_cast<T>(sigmoid ? -1 : -2 / (sharpness ? kSharpnessBound : kOffsetBound));
    }
  }
  int h() const { return lead; }
  int b() const { return lead + count; }
  int c() const { return lead + 2 * count; }

  /// The round's parameters of one column, in slot order; theta is that column's [s, t, h.., b.., c..].
  template <class F>
  void for_each_run(std::int64_t knots, F&& f) const {
    if (lead + 3 * static_cast<std::int64_t>(count) == 2 + 3 * knots) return f(0, 0, slots);
    if (lead != 0) f(0, 0, lead);
    for (int part = 0; part < 3; ++part) f(lead + part * count, 2 + part * knots + first, count);
  }
};

template <class T>
class StaircaseKnots {
 public:
  /// Evaluates the round at a. The scratch arrays hold tau, q and the sigmoids of the slots.
  void evaluate(const KnotRound<T>& round, std::int64_t knots, const T* theta, T a, T max_slope, T max_height) {
    alignas(64) T x[kSlots];
    const int padded = (round.slots + kSlotLanes - 1) / kSlotLanes * kSlotLanes;
    round.for_each_run(knots, [&](int slot, std::int64_t index, int length) {
      for (int i = 0; i < length; ++i) x[slot + i] = theta[index + i];
    });
    for (int i = round.slots; i < padded; ++i) x[i] = 0;
#pragma omp simd
    for (int i = 0; i < padded; ++i) {
      const Exponential<T> e = exp_nonpositive(round.exponent_scale[i] * std::abs(x[i]));
      const T inverse = T{1} / (T{1} + e.value);
      tau_[i] = std::copysign(e.minus_one * inverse, x[i]);
      q_[i] = e.value * inverse * inverse;
      sigmoid_[i] = x[i] < T{0} ? e.value * inverse : inverse;
    }
    const int n = round.count;
    const T* const tau_b = tau_ + round.b();
    const T* const tau_c = tau_ + round.c();
    // exp(4 tau) as e^4 exp(4 tau - 4), whose argument is not positive.
    constexpr T kLargestSharpness = static_cast<T>(54.598150033144239);
#pragma omp simd
    for (int k = 0; k < n; ++k) {
      const T bounded = T{kSharpnessBound} * tau_b[k];
      beta_[k] = kLargestSharpness * exp_nonpositive(bounded - T{kSharpnessBound}).value;
      z_[k] = beta_[k] * (a - T{kOffsetBound} * tau_c[k]);
      const Exponential<T> e = exp_nonpositive(-std::abs(z_[k]));
      const T inverse = T{1} / (T{1} + e.value);
      tau_z_[k] = std::copysign(e.minus_one * inverse, z_[k]);
      q_z_[k] = e.value * inverse * inverse;
      step_[k] = z_[k] < T{0} ? e.value * inverse : inverse;
    }
    const T* const sigmoid_h = sigmoid_ + round.h();
    T sum = 0;
    T slope = 0;
#pragma omp simd reduction(+ : sum, slope)
    for (int k = 0; k < n; ++k) {
      sum += sigmoid_h[k] * step_[k];
      slope += sigmoid_h[k] * q_z_[k] * beta_[k];
    }
    value_ = max_height * sum;
    slope_ = max_height * slope;
    if (round.lead != 0) {
      value_ += max_slope * sigmoid_[0] * a + T{kOffsetBound} * tau_[1];
      slope_ += max_slope * sigmoid_[0];
    }
  }

  T value() const { return value_; }  ///< the round's share of y
  T slope() const { return slope_; }  ///< of dy/da

  /// dy / dtheta of the round's slots, after evaluate().
  void gradient(T* result, const KnotRound<T>& round, T a, T max_slope, T max_height) const {
    const int h = round.h(), b = round.b(), c = round.c();
    if (round.lead != 0) {
      result[0] = max_slope * q_[0] * a;
      result[1] = T{4} * q_[1];
    }
#pragma omp simd
    for (int k = 0; k < round.count; ++k) {
      const T weight = max_height * sigmoid_[h + k] * q_z_[k];
      result[h + k] = max_height * q_[h + k] * step_[k];
      result[b + k] = weight * z_[k] * T{4} * q_[b + k];
      result[c + k] = -weight * beta_[k] * T{4} * q_[c + k];
    }
  }

  /// Adds the Hessian of y, applied to (direction_a, direction), to result; returns its component in a.
  T add_hessian_product(T* result, const KnotRound<T>& round, const T* direction, T direction_a, T a, T max_slope,
                        T max_height) const {
    const int h = round.h(), b = round.b(), c = round.c();
    T along_a = 0;
#pragma omp simd reduction(+ : along_a)
    for (int k = 0; k < round.count; ++k) {
      const T vh = direction[h + k], vb = direction[b + k], vc = direction[c + k];
      const T slope_b = T{4} * q_[b + k];                   // b~'
      const T slope_c = T{4} * q_[c + k];                   // c~'
      const T z_b = slope_b * z_[k];                        // dz/db
      const T z_c = -beta_[k] * slope_c;                    // dz/dc
      const T z_bb = (slope_b - tau_[b + k] / T{2}) * z_b;  // b~'' = -b~' tau / 2
      const T z_cc = beta_[k] * q_[c + k] * tau_[c + k];
      const T z_bc = slope_b * z_c;
      const T z_ab = slope_b * beta_[k];
      const T z_dot = z_b * vb + z_c * vc + beta_[k] * direction_a;
      const T height = sigmoid_[h + k];
      // Derivatives of q_h v_h g(z) + sig_h q_z z_dot, divided by max_height.
      const T along_z = q_[h + k] * vh * q_z_[k] - height * q_z_[k] * tau_z_[k] * z_dot;
      const T weight = height * q_z_[k];
      along_a += along_z * beta_[k] + weight * z_ab * vb;
      result[h + k] += max_height * q_[h + k] * (q_z_[k] * z_dot - tau_[h + k] * vh * step_[k]);
      result[b + k] += max_height * (along_z * z_b + weight * (z_bb * vb + z_bc * vc + z_ab * direction_a));
      result[c + k] += max_height * (along_z * z_c + weight * (z_bc * vb + z_cc * vc));
    }
    along_a *= max_height;
    if (round.lead != 0) {
      along_a += max_slope * q_[0] * direction[0];
      result[0] += max_slope * q_[0] * (direction_a - tau_[0] * direction[0] * a);
      result[1] -= q_[1] * tau_[1] * direction[1];
    }
    return along_a;
  }

 private:
  alignas(64) T tau_[kSlots];
  alignas(64) T q_[kSlots];
  alignas(64) T sigmoid_[kSlots];
  alignas(64) T beta_[kKnots], z_[kKnots], tau_z_[kKnots], q_z_[kKnots], step_[kKnots];
  T value_ = 0;
  T slope_ = 0;
};

}  // namespace bracket
