// Derivatives of the slope of one knot of the monotone staircase, for the logarithm of the slope and its gradients.
//
// With the knot's share y = H s(h) sig(z), z = beta (a - c~), beta = exp(b~), of the staircase at a (H = max_height), the
// share of the slope is
//   u = dy/da = H s beta q,  q = sig'(z),
// and along a direction v = (v_a, v_h, v_b, v_c), with A = b~' v_b and d = v_a - c~' v_c, so that z_v = z A + beta d,
//   u_v = H beta (q (s' v_h + s A) + s q' z_v).
#pragma once

#include "kernels/formula/host_device.h"

namespace bracket::formula {

/// A knot: primes are derivatives of the bounded or squashed parameters in the parameters as they come.
template <class T>
struct SlopeKnot {
  T s, s1, s2;  ///< sig(h), sig', sig''
  T q, q1, q2;  ///< sig', sig'', sig''' at z
  T beta, z;
  T b1, b2;  ///< b~', b~''
  T c1, c2;  ///< c~', c~''
};

/// From what kernels know of squashed parameters: q = sig', tau = tanh(x / m), m = 2 (h, z), 4 (b), 8 (c).
template <class T>
BRACKET_HOST_DEVICE SlopeKnot<T> slope_knot(T sigmoid_h, T q_h, T tau_h, T q_z, T tau_z, T beta, T z, T q_b, T tau_b,
                                            T q_c, T tau_c) {
  return {
      sigmoid_h, q_h,        -q_h * tau_h,        q_z,        -q_z * tau_z, q_z * (tau_z * tau_z - T{2} * q_z), beta,
      z,         T{4} * q_b, T{-2} * q_b * tau_b, T{4} * q_c, -q_c * tau_c};
}

template <class T>
struct KnotVector {
  T a, h, b, c;
};

/// du / d(a, h, b, c), divided by H.
template <class T>
BRACKET_HOST_DEVICE KnotVector<T> slope_gradient(const SlopeKnot<T>& k) {
  const T along_z = k.beta * k.s * k.q1;
  return {along_z * k.beta, k.s1 * k.beta * k.q, k.b1 * (along_z * k.z + k.s * k.q * k.beta), -along_z * k.beta * k.c1};
}

/// The gradient of u_v: the Hessian of u applied to v, divided by H.
template <class T>
BRACKET_HOST_DEVICE KnotVector<T> slope_hessian_product(const SlopeKnot<T>& k, const KnotVector<T>& v) {
  const T log_beta_v = k.b1 * v.b;  // A
  const T d = v.a - k.c1 * v.c;
  const T z_v = k.z * log_beta_v + k.beta * d;
  const T height_v = k.s1 * v.h + k.s * log_beta_v;
  const T share = k.q * height_v + k.s * k.q1 * z_v;  // u_v / (H beta)
  // Partial derivatives in z, beta, A and d.
  const T along_z = k.beta * (k.q1 * height_v + k.s * (k.q2 * z_v + k.q1 * log_beta_v));
  const T along_beta = share + k.beta * k.s * k.q1 * d;
  const T along_log = k.beta * k.s * (k.q + k.q1 * k.z);
  const T along_d = k.beta * k.beta * k.s * k.q1;
  return {along_z * k.beta, k.beta * (k.q * (k.s2 * v.h + k.s1 * log_beta_v) + k.s1 * k.q1 * z_v),
          k.b1 * (along_z * k.z + along_beta * k.beta) + along_log * k.b2 * v.b,
          -along_z * k.beta * k.c1 - along_d * k.c2 * v.c};
}

}  // namespace bracket::formula
