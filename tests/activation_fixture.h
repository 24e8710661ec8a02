// What the tests of bias_activation share: the formulas in double, one call with its operands, the error each result
// may have, and a runner for one context.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "ops_fixture.h"

namespace bracket::test {

inline constexpr std::array<Activation, 8> kFunctions{Activation::identity, Activation::relu,    Activation::leaky_relu,
                                                      Activation::prelu,    Activation::tanh,    Activation::sigmoid,
                                                      Activation::silu,     Activation::softplus};
inline constexpr std::array<const char*, 8> kNames{"identity", "relu",    "leaky_relu", "prelu",
                                                   "tanh",     "sigmoid", "silu",       "softplus"};
inline constexpr double kNegativeSlope = 0.125;  // exact in every dtype

inline std::string name_of(Activation function) { return kNames[static_cast<std::size_t>(function)]; }

struct Reference {
  double value;
  double first;
  double second;
  double second_scale;  ///< sum of the magnitudes of the terms of f'', which may cancel
};

/// Textbook formulas; `slope` for the leaky ones.
inline Reference reference(Activation function, double v, double slope) {
  const double s = 1 / (1 + std::exp(-v));
  const double complement = 1 / (1 + std::exp(v));
  const double d = s * complement;
  const double t = std::tanh(v);
  const double sech = 1 / std::cosh(v);
  switch (function) {
    case Activation::identity:
      return {v, 1, 0, 0};
    case Activation::relu:
      return {v > 0 ? v : 0, v > 0 ? 1.0 : 0.0, 0, 0};
    case Activation::leaky_relu:
    case Activation::prelu:
      return {v > 0 ? v : slope * v, v > 0 ? 1 : slope, 0, 0};
    case Activation::tanh:
      return {t, sech * sech, -2 * t * sech * sech, 2 * std::abs(t) * sech * sech};
    case Activation::sigmoid:
      return {s, d, d * (complement - s), d};
    case Activation::silu:
      return {v * s, s + v * d, d * (2 + v * (complement - s)), d * (2 + std::abs(v))};
    case Activation::softplus:
      return {std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v))), s, d, d};
  }
  return {};
}

/// f' of silu is a sum that may cancel: s + v d.
inline double first_scale(Activation function, double v, double first) {
  if (function != Activation::silu) return std::abs(first);
  const double s = 1 / (1 + std::exp(-v));
  return s + std::abs(v) * s / (1 + std::exp(v));
}

/// One call: operands on the host, rounded to the dtype.
struct Case {
  Activation function = Activation::identity;
  DType dtype = DType::f64;
  std::int64_t cols = 1;
  std::int64_t channels = 1;  ///< of bias and slopes; column j is channel j mod channels
  Rows rows;
  std::int64_t padding = 0;
  HostMatrix x, tan_x, grad_y, grad_tan_y;
  std::optional<HostMatrix> bias, slope;

  Case(Activation f, DType d, const Rows& r, std::int64_t c, bool with_bias, bool slope_per_column, double reach = 6,
       std::int64_t pixels = 1)
      : function(f), dtype(d), cols(c), channels(c / pixels), rows(r) {
    x = random_matrix(r.primal, c, 11, -reach, reach).rounded(d);
    tan_x = random_matrix(r.tangent_rows(), c, 12).rounded(d);
    grad_y = random_matrix(r.primal, c, 13).rounded(d);
    grad_tan_y = random_matrix(r.tangent_rows(), c, 14).rounded(d);
    if (with_bias) bias = random_matrix(channels, 1, 15).rounded(d);
    if (f == Activation::prelu) slope = random_matrix(slope_per_column ? channels : 1, 1, 16, 0.1, 0.4).rounded(d);
  }

  ActivationKind kind() const { return {function, kNegativeSlope}; }
  double slope_of(std::int64_t j) const {
    if (!slope) return kNegativeSlope;
    return slope->values[static_cast<std::size_t>(j % slope->size())];
  }
  /// x + bias as the dtype rounds it: what f is applied to.
  double shifted(std::int64_t i, std::int64_t j) const {
    const double v = x(i, j) + (bias ? bias->values[static_cast<std::size_t>(j % channels)] : 0);
    return dtype == DType::f32 ? static_cast<double>(static_cast<float>(v)) : v;
  }
  Reference at(std::int64_t i, std::int64_t j) const { return reference(function, shifted(i, j), slope_of(j)); }
  bool carries(std::int64_t i) const { return i >= rows.first && i < rows.first + rows.count; }

  std::string text() const {
    return name_of(function) + " " + dtype_name(dtype) + "[" + std::to_string(rows.primal) + ", " +
           std::to_string(cols) + "] of " + std::to_string(channels) + " channels, rows [" +
           std::to_string(rows.first) + ", +" + std::to_string(rows.count) + ") with " + std::to_string(rows.tangents) +
           " tangents, padding " + std::to_string(padding);
  }
};

/// Values with the error each may have.
struct Bounded {
  HostMatrix value;
  HostMatrix limit;
  Bounded(std::int64_t rows, std::int64_t cols) : value(rows, cols), limit(rows, cols) {}
};

inline void expect_within(const HostMatrix& actual, const Bounded& expected, const std::string& what) {
  ASSERT_EQ(actual.rows, expected.value.rows) << what;
  ASSERT_EQ(actual.cols, expected.value.cols) << what;
  for (std::int64_t i = 0; i < actual.rows; ++i) {
    for (std::int64_t j = 0; j < actual.cols; ++j) {
      ASSERT_TRUE(std::abs(actual(i, j) - expected.value(i, j)) <= expected.limit(i, j))
          << what << " at [" << i << ", " << j << "]: " << actual(i, j) << ", expected " << expected.value(i, j)
          << " within " << expected.limit(i, j);
    }
  }
}

/// f, f' and f'' are chains of at most eight roundings and one exp, log1p or division of at most 1 ulp = 2 u each, so
/// 16 u of the magnitude of their terms (u the unit round-off, to first order). For f64 the reference adds as much
/// again, and its 1 / (1 + exp(v)) a little more: hence 32.
inline double pointwise_error(DType dtype) { return (dtype == DType::f32 ? 16 : 32) * unit_roundoff(dtype); }

/// What reverse should give. Optional parts of the real call are left to the caller.
struct Gradients {
  Bounded x, tan_x, bias, slope;
};

inline Bounded expected_forward(const Case& c) {
  Bounded y(c.rows.primal, c.cols);
  for (std::int64_t i = 0; i < c.rows.primal; ++i) {
    for (std::int64_t j = 0; j < c.cols; ++j) {
      y.value(i, j) = c.at(i, j).value;
      y.limit(i, j) = pointwise_error(c.dtype) * std::abs(y.value(i, j));
    }
  }
  return y;
}

/// f' m per tangent row: m is x' in forward, grad_y' in reverse.
inline Bounded expected_tangent(const Case& c, const HostMatrix& m) {
  Bounded y(c.rows.tangent_rows(), c.cols);
  for (std::int64_t r = 0; r < y.value.rows; ++r) {
    const std::int64_t i = c.rows.first + r / c.rows.tangents;
    for (std::int64_t j = 0; j < c.cols; ++j) {
      const double first = c.at(i, j).first;
      y.value(r, j) = first * m(r, j);
      y.limit(r, j) = (pointwise_error(c.dtype) * first_scale(c.function, c.shifted(i, j), first)) * std::abs(m(r, j)) +
                      2 * unit_roundoff(c.dtype) * std::abs(y.value(r, j));
    }
  }
  return y;
}

/// Sums of n terms add sqrt-many roundings: 8 sqrt(n) u of the magnitudes, at most n u (see linear_test.cpp).
inline double sum_error(std::int64_t terms, DType dtype) {
  const auto n = static_cast<double>(terms + 1);
  return 2 * std::min(n, 8 * std::sqrt(n)) * unit_roundoff(dtype);
}

/// `start` is what bias and slope gradients accumulate onto.
inline Gradients expected_reverse(const Case& c, bool with_primal, bool with_tangents, double start) {
  const std::int64_t slopes = c.slope ? c.slope->size() : 0;
  Gradients g{Bounded(c.rows.primal, c.cols), expected_tangent(c, c.grad_tan_y), Bounded(c.channels, 1),
              Bounded(slopes, 1)};
  HostMatrix bias_scale(c.channels, 1, std::abs(start));
  HostMatrix slope_scale(slopes, 1, std::abs(start));
  std::fill(g.bias.value.values.begin(), g.bias.value.values.end(), start);
  std::fill(g.slope.value.values.begin(), g.slope.value.values.end(), start);
  for (std::int64_t i = 0; i < c.rows.primal; ++i) {
    for (std::int64_t j = 0; j < c.cols; ++j) {
      double products = 0, magnitude = 0;
      for (std::int64_t k = 0; with_tangents && c.carries(i) && k < c.rows.tangents; ++k) {
        const std::int64_t r = (i - c.rows.first) * c.rows.tangents + k;
        products += c.tan_x(r, j) * c.grad_tan_y(r, j);
        magnitude += std::abs(c.tan_x(r, j) * c.grad_tan_y(r, j));
      }
      const Reference f = c.at(i, j);
      const double v = c.shifted(i, j);
      const double grad_y = with_primal ? c.grad_y(i, j) : 0;
      const double scale = first_scale(c.function, v, f.first) * std::abs(grad_y) + f.second_scale * magnitude;
      const double grad = f.first * grad_y + f.second * products;
      g.x.value(i, j) = grad;
      g.x.limit(i, j) = (pointwise_error(c.dtype) + sum_error(c.rows.tangents + 1, c.dtype)) * scale;
      g.bias.value(j % c.channels, 0) += grad;
      bias_scale(j % c.channels, 0) += scale;
      if (slopes == 0 || v > 0) continue;
      const std::int64_t to = j % slopes;
      g.slope.value(to, 0) += v * grad_y + products;
      slope_scale(to, 0) += std::abs(v * grad_y) + magnitude;
    }
  }
  const double sums =
      pointwise_error(c.dtype) + sum_error(c.rows.tangents + 1, c.dtype) +
      sum_error(c.rows.primal * (slopes == 1 ? c.cols : c.cols / std::max<std::int64_t>(c.channels, 1)), c.dtype);
  for (std::int64_t j = 0; j < c.channels; ++j) g.bias.limit(j, 0) = sums * bias_scale(j, 0);
  for (std::int64_t j = 0; j < slopes; ++j) g.slope.limit(j, 0) = sums * slope_scale(j, 0);
  return g;
}

/// Which optional operands a reverse call has.
struct Parts {
  bool grad_x = true;
  bool grad_tan_x = true;
  bool grad_y = true;
  bool grad_tan_y = true;
  bool parameters = true;
  bool accumulate = false;
  bool in_place = false;
};

struct Results {
  HostMatrix x, tan_x, bias, slope;
};

/// Runs cases on one context.
class Runner {
 public:
  explicit Runner(Context& context) : context_(context) {}

  Results forward(const Case& c, bool primal = true, bool tangent = true, bool in_place = false) {
    const DeviceTensor x = upload(context_, c.x, c.dtype, c.padding);
    const DeviceTensor tan_x = upload(context_, c.tan_x, c.dtype, c.padding);
    const DeviceTensor y = empty_matrix(context_, c.dtype, c.rows.primal, c.cols, c.padding);
    const DeviceTensor tan_y = empty_matrix(context_, c.dtype, c.rows.tangent_rows(), c.cols, c.padding);
    const DeviceTensor bias = optional_vector(c.bias, c.dtype);
    const DeviceTensor slope = optional_vector(c.slope, c.dtype);
    Stacked out;
    if (primal) out.primal = in_place ? x : y;
    if (tangent) out.tangent = in_place ? tan_x : tan_y;
    context_.ops().bias_activation_forward(out, {x, tan_x}, bias, slope, c.kind(), c.rows);
    return {primal ? download(context_, out.primal) : HostMatrix(),
            tangent ? download(context_, out.tangent) : HostMatrix(),
            {},
            {}};
  }

  Results reverse(const Case& c, const Parts& parts, double start = 0) {
    const DeviceTensor x = upload(context_, c.x, c.dtype, c.padding);
    const DeviceTensor tan_x = upload(context_, c.tan_x, c.dtype, c.padding);
    const DeviceTensor grad_y = upload(context_, c.grad_y, c.dtype, c.padding);
    const DeviceTensor grad_tan_y = upload(context_, c.grad_tan_y, c.dtype, c.padding);
    const DeviceTensor grad_x = empty_matrix(context_, c.dtype, c.rows.primal, c.cols, c.padding);
    const DeviceTensor grad_tan_x = empty_matrix(context_, c.dtype, c.rows.tangent_rows(), c.cols, c.padding);
    const DeviceTensor bias = optional_vector(c.bias, c.dtype);
    const DeviceTensor slope = optional_vector(c.slope, c.dtype);
    // Overwriting must not read what was there, so that is NaN then.
    const double before = parts.accumulate ? start : std::numeric_limits<double>::quiet_NaN();
    DeviceTensor grad_bias, grad_slope;
    if (parts.parameters && parts.grad_x)
      grad_bias = upload_vector(context_, HostMatrix(c.channels, 1, before), c.dtype);
    if (parts.parameters && c.slope) {
      grad_slope = upload_vector(context_, HostMatrix(c.slope->size(), 1, before), c.dtype);
    }
    Stacked out, in;
    if (parts.grad_x) out.primal = parts.in_place ? grad_y : grad_x;
    if (parts.grad_tan_x) out.tangent = parts.in_place ? grad_tan_y : grad_tan_x;
    if (parts.grad_y) in.primal = grad_y;
    if (parts.grad_tan_y) in.tangent = grad_tan_y;
    context_.ops().bias_activation_reverse(out, grad_bias, grad_slope, in, {x, tan_x}, bias, slope, c.kind(), c.rows,
                                           parts.accumulate ? Update::accumulate : Update::overwrite);
    Results results;
    if (parts.grad_x) results.x = download(context_, out.primal);
    if (parts.grad_tan_x) results.tan_x = download(context_, out.tangent);
    if (!grad_bias.tensor().absent()) results.bias = download(context_, grad_bias);
    if (!grad_slope.tensor().absent()) results.slope = download(context_, grad_slope);
    return results;
  }

 private:
  DeviceTensor optional_vector(const std::optional<HostMatrix>& values, DType dtype) {
    return values ? upload_vector(context_, *values, dtype) : DeviceTensor();
  }

  Context& context_;
};

}  // namespace bracket::test
