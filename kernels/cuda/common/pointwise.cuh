// The pointwise non-linearities, with their first and second derivatives.
#pragma once

#include "bracket/activation.h"
#include "kernels/cuda/common/portable.cuh"

namespace bracket::BRACKET_TARGET {

BRACKET_DEVICE bool curved(Activation function) {
  return function == Activation::tanh || function == Activation::sigmoid || function == Activation::silu ||
         function == Activation::softplus;
}

template <class T>
struct Pointwise {
  T value;
  T first;   ///< f'
  T second;  ///< f''
};

/// tanh |v| = (1 - e) / (1 + e) and 1 - tanh^2 = 4 e / (1 + e)^2 with e = exp(-2 |v|), 1 - e without cancellation.
template <class T>
BRACKET_DEVICE Pointwise<T> evaluate_tanh(T v) {
  const T minus_one = expm1(T{-2} * fabs(v));
  const T inverse = T{1} / (T{2} + minus_one);
  const T value = copysign(minus_one * inverse, v);
  const T first = T{4} * exp(T{-2} * fabs(v)) * inverse * inverse;
  return {value, first, T{-2} * value * first};
}

/// sigmoid(|v|) = 1 / (1 + e), sigmoid(-|v|) = e / (1 + e) with e = exp(-|v|): no cancellation on either side.
template <class T>
BRACKET_DEVICE Pointwise<T> evaluate_sigmoid_family(Activation function, T v) {
  const T e = exp(-fabs(v));
  const T large = T{1} / (T{1} + e);
  const T small = e * large;
  const T up = v < T{0} ? small : large;    // sigmoid(v)
  const T down = v < T{0} ? large : small;  // sigmoid(-v) = 1 - sigmoid(v)
  const T first = large * small;            // sigmoid'(v)
  if (function == Activation::sigmoid) return {up, first, first * (down - up)};
  if (function == Activation::silu) return {v * up, up + v * first, first * (T{2} + v * (down - up))};
  return {(v < T{0} ? T{0} : v) + log1p(e), up, first};  // softplus
}

/// f(v), f'(v) and f''(v). `function` is the same for all threads, so the branches cost a comparison each. A kink takes
/// the derivative of its negative side, as PyTorch does.
template <class T>
BRACKET_DEVICE Pointwise<T> evaluate(Activation function, T v, T slope) {
  switch (function) {
    case Activation::identity:
      return {v, T{1}, T{0}};
    case Activation::relu:
      return {v <= T{0} ? T{0} : v, v <= T{0} ? T{0} : T{1}, T{0}};
    case Activation::leaky_relu:
    case Activation::prelu:
      return {v <= T{0} ? slope * v : v, v <= T{0} ? slope : T{1}, T{0}};
    case Activation::tanh:
      return evaluate_tanh(v);
    default:
      return evaluate_sigmoid_family(function, v);
  }
}

}  // namespace bracket::BRACKET_TARGET
