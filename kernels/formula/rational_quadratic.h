// One column of a monotone rational-quadratic spline (Durkan, Bekasov, Murray, Papamakarios 2019): value, logarithm of
// the slope, their gradients and Hessian-vector products. Definition and order of theta: `RationalQuadratic` in
// kernels/ops.h.
//
// Inside bin [x, x + w] with image [y, y + h] and the slopes d0, d1 at its ends, xi = (a - x) / w, s = h / w,
// p = xi (1 - xi):
//   value       y + h A / D,          A = s xi^2 + d0 p,   D = s + (d0 + d1 - 2 s) p
//   log slope   log (s^2 N / D^2),    N = d1 xi^2 + 2 s p + d0 (1 - xi)^2
// All terms of N and D are positive, so the slope has a small relative error. N >= min(s, d0, d1), and D lies between s
// and (2 s + d0 + d1) / 4: with s >= r = min_height and d in [e, 1 / e], e <= r < 1, the slope is at least
//   s^2 min(s, e) / max(s, 1 / e)^2 >= r^2 e^3.
// Gradients are written once for any number type; numbers with a derivative along a direction make them
// Hessian-vector products.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/formula/host_device.h"
#include "kernels/ops.h"

namespace bracket::formula {

/// value + tangent epsilon, epsilon^2 = 0.
template <class T>
struct DualNumber {
  T value = 0, tangent = 0;
};
template <class T>
BRACKET_HOST_DEVICE DualNumber<T> operator+(const DualNumber<T>& a, const DualNumber<T>& b) {
  return {a.value + b.value, a.tangent + b.tangent};
}
template <class T>
BRACKET_HOST_DEVICE DualNumber<T> operator-(const DualNumber<T>& a, const DualNumber<T>& b) {
  return {a.value - b.value, a.tangent - b.tangent};
}
template <class T>
BRACKET_HOST_DEVICE DualNumber<T> operator*(const DualNumber<T>& a, const DualNumber<T>& b) {
  return {a.value * b.value, a.value * b.tangent + a.tangent * b.value};
}
template <class T>
BRACKET_HOST_DEVICE DualNumber<T> operator/(const DualNumber<T>& a, const DualNumber<T>& b) {
  const T quotient = a.value / b.value;
  return {quotient, (a.tangent - quotient * b.tangent) / b.value};
}

/// The quantities of a point and its bin, or derivatives in them.
template <class S>
struct SplinePoint {
  S a, x, w, y, h, d0, d1;
};

enum class SplineOutput { value, log_slope };

/// The gradient of one output.
template <SplineOutput kOutput, class S>
BRACKET_HOST_DEVICE SplinePoint<S> spline_gradient(const SplinePoint<S>& at) {
  const S xi = (at.a - at.x) / at.w, s = at.h / at.w;
  const S one{1}, two{2};
  const S rest = one - xi, p = xi * rest, bend = one - two * xi;  // p' = 1 - 2 xi
  const S denominator = s + (at.d0 + at.d1 - two * s) * p;
  const S slope_part = at.d1 * xi * xi + two * s * p + at.d0 * rest * rest;  // N
  const S square = xi * xi;
  // Partial derivatives in (xi, s, d0, d1).
  S along_xi{0}, along_s{0}, along_d0{0}, along_d1{0};
  SplinePoint<S> g{};
  if constexpr (kOutput == SplineOutput::value) {
    const S share = (s * square + at.d0 * p) / denominator;  // A / D
    const S scale = at.h / denominator;
    along_xi = at.h * (s * slope_part / (denominator * denominator));
    along_s = scale * (square - share * (one - two * p));
    along_d0 = scale * (p - share * p);
    along_d1 = S{0} - scale * share * p;
    g.y = one;
    g.h = share;
  } else {
    along_xi = two * (at.d1 * xi + s * bend - at.d0 * rest) / slope_part -
               two * (at.d0 + at.d1 - two * s) * bend / denominator;
    along_s = two / s + two * p / slope_part - two * (one - two * p) / denominator;
    along_d0 = rest * rest / slope_part - two * p / denominator;
    along_d1 = square / slope_part - two * p / denominator;
    g.y = g.h = S{0};
  }
  g.a = along_xi / at.w;
  g.x = S{0} - g.a;
  g.w = (S{0} - (along_xi * xi + along_s * s)) / at.w;
  g.h = g.h + along_s / at.w;
  g.d0 = along_d0;
  g.d1 = along_d1;
  return g;
}

BRACKET_HOST_DEVICE float spline_exp(float x) { return ::expf(x); }
BRACKET_HOST_DEVICE double spline_exp(double x) { return ::exp(x); }
BRACKET_HOST_DEVICE float spline_log(float x) { return ::logf(x); }
BRACKET_HOST_DEVICE double spline_log(double x) { return ::log(x); }
BRACKET_HOST_DEVICE float spline_tanh(float x) { return ::tanhf(x); }
BRACKET_HOST_DEVICE double spline_tanh(double x) { return ::tanh(x); }

/// Bins as shares of the interval, share_k = minimum + unit softmax_k, as far as one of them needs it.
template <class T>
struct SplineBins {
  const T* logits;
  std::int64_t count;
  T minimum, unit;
  T largest, inverse_sum;   ///< of the logits; of exp(logit - largest)
  std::int64_t bin = 0;     ///< the one a point lies in
  T before = 0, share = 0;  ///< softmax summed over the bins before it, and its own

  BRACKET_HOST_DEVICE SplineBins(const T* values, std::int64_t k, double least)
      : logits(values),
        count(k),
        minimum(static_cast<T>(least)),
        unit(static_cast<T>(1 - static_cast<double>(k) * least)) {
    largest = logits[0];
    for (std::int64_t j = 1; j < k; ++j) largest = logits[j] > largest ? logits[j] : largest;
    T sum = 0;
    for (std::int64_t j = 0; j < k; ++j) sum += spline_exp(logits[j] - largest);
    inverse_sum = T{1} / sum;
  }
  BRACKET_HOST_DEVICE T softmax(std::int64_t j) const { return spline_exp(logits[j] - largest) * inverse_sum; }
  BRACKET_HOST_DEVICE T begin() const { return static_cast<T>(bin) * minimum + unit * before; }
  BRACKET_HOST_DEVICE T size() const { return minimum + unit * share; }

  /// Finds the bin of a place in [0, 1], measured as shares of the interval.
  BRACKET_HOST_DEVICE void find(T place) {
    share = softmax(0);
    while (bin + 1 < count && !(place < begin() + size())) step();
  }
  BRACKET_HOST_DEVICE void move_to(std::int64_t target) {
    share = softmax(0);
    while (bin < target) step();
  }

 private:
  BRACKET_HOST_DEVICE void step() {
    before += share;
    share = softmax(++bin);
  }
};

/// How bins move along a direction v of their logits.
template <class T>
struct BinsDirection {
  T mean;           ///< sum_j softmax_j v_j
  T before, share;  ///< tangents of SplineBins'
};

template <class T>
struct SplineDirection {
  SplinePoint<T> at;
  BinsDirection<T> widths, heights;
  T d0, d1;  ///< of the parameters of the slopes
};

/// The gradient in theta: element j of the widths is interval softmax_j ((j < bin) edge + (j = bin) own - mean).
template <class S>
struct BinsGradient {
  S edge, own, mean;
};
template <class S>
struct SplineGradient {
  S a;
  BinsGradient<S> widths, heights;
  S d0, d1;
};

template <class T>
class SplineColumn {
 public:
  using Dual = DualNumber<T>;

  BRACKET_HOST_DEVICE SplineColumn(const RationalQuadratic& map, const T* theta, T a)
      : interval_(static_cast<T>(2 * map.bound)),
        limit_(-spline_log(static_cast<T>(map.min_derivative))),
        slopes_(theta + 2 * map.bins),
        a_(a),
        inside_(a > static_cast<T>(-map.bound) && a < static_cast<T>(map.bound)),
        widths_(theta, map.bins, map.min_width),
        heights_(theta + map.bins, map.bins, map.min_height) {
    if (!inside_) return;
    const T bound = static_cast<T>(map.bound);
    widths_.find((a + bound) / interval_);
    heights_.move_to(widths_.bin);
    at_ = {a,
           interval_ * widths_.begin() - bound,
           interval_ * widths_.size(),
           interval_ * heights_.begin() - bound,
           interval_ * heights_.size(),
           T{1},
           T{1}};
    if (has_d0()) at_.d0 = spline_exp(limit_ * spline_tanh(d0_parameter() / limit_));
    if (has_d1()) at_.d1 = spline_exp(limit_ * spline_tanh(d1_parameter() / limit_));
  }

  BRACKET_HOST_DEVICE bool inside() const { return inside_; }
  BRACKET_HOST_DEVICE std::int64_t bin() const { return widths_.bin; }
  BRACKET_HOST_DEVICE std::int64_t bins() const { return widths_.count; }
  BRACKET_HOST_DEVICE T value() const {
    if (!inside_) return a_;
    const T xi = (at_.a - at_.x) / at_.w, s = at_.h / at_.w, p = xi * (T{1} - xi);
    return at_.y + at_.h * (s * xi * xi + at_.d0 * p) / (s + (at_.d0 + at_.d1 - T{2} * s) * p);
  }
  /// NaN where a is.
  BRACKET_HOST_DEVICE T log_slope() const {
    if (!inside_) return a_ == a_ ? T{0} : a_;
    const T xi = (at_.a - at_.x) / at_.w, s = at_.h / at_.w, rest = T{1} - xi, p = xi * rest;
    const T ratio = s / (s + (at_.d0 + at_.d1 - T{2} * s) * p);
    return spline_log(ratio * ratio * (at_.d1 * xi * xi + T{2} * s * p + at_.d0 * rest * rest));
  }

  /// v(j): element j of the direction of theta. The point must lie inside, here and below.
  template <class V>
  BRACKET_HOST_DEVICE SplineDirection<T> direction(T along_a, const V& v) const {
    SplineDirection<T> result;
    result.widths = bins_direction(widths_, 0, v);
    result.heights = bins_direction(heights_, bins(), v);
    result.d0 = has_d0() ? v(2 * bins() + bin() - 1) : T{0};
    result.d1 = has_d1() ? v(2 * bins() + bin()) : T{0};
    const T w = interval_ * widths_.unit, h = interval_ * heights_.unit;
    result.at = {along_a,
                 w * result.widths.before,
                 w * result.widths.share,
                 h * result.heights.before,
                 h * result.heights.share,
                 result.d0 * slope_rate(at_.d0, d0_tanh()),
                 result.d1 * slope_rate(at_.d1, d1_tanh())};
    return result;
  }

  template <SplineOutput kOutput>
  BRACKET_HOST_DEVICE T along(const SplineDirection<T>& v) const {
    const SplinePoint<T> g = spline_gradient<kOutput>(at_);
    return g.a * v.at.a + g.x * v.at.x + g.w * v.at.w + g.y * v.at.y + g.h * v.at.h + g.d0 * v.at.d0 + g.d1 * v.at.d1;
  }

  template <SplineOutput kOutput>
  BRACKET_HOST_DEVICE SplineGradient<T> gradient() const {
    const SplinePoint<T> g = spline_gradient<kOutput>(at_);
    return {g.a, bins_gradient(g.x, g.w, widths_.before, widths_.share),
            bins_gradient(g.y, g.h, heights_.before, heights_.share), g.d0 * slope_rate(at_.d0, d0_tanh()),
            g.d1 * slope_rate(at_.d1, d1_tanh())};
  }

  /// The gradient, its tangents along v: the Hessian applied to v.
  template <SplineOutput kOutput>
  BRACKET_HOST_DEVICE SplineGradient<Dual> gradient(const SplineDirection<T>& v) const {
    const SplinePoint<Dual> at{{at_.a, v.at.a}, {at_.x, v.at.x},   {at_.w, v.at.w},  {at_.y, v.at.y},
                               {at_.h, v.at.h}, {at_.d0, v.at.d0}, {at_.d1, v.at.d1}};
    const SplinePoint<Dual> g = spline_gradient<kOutput>(at);
    const auto bins_of = [](const Dual& edge, const Dual& own, const SplineBins<T>& bins, const BinsDirection<T>& d) {
      return bins_gradient(edge, own, Dual{bins.before, d.before}, Dual{bins.share, d.share});
    };
    const auto slope = [this](const Dual& g_d, T d, T tau, T along_d) {
      const T rate = slope_rate(d, tau), bend = T{1} - tau * tau;
      return g_d * Dual{rate, along_d * rate * (bend - T{2} * tau / limit_)};
    };
    return {g.a, bins_of(g.x, g.w, widths_, v.widths), bins_of(g.y, g.h, heights_, v.heights),
            slope(g.d0, at_.d0, d0_tanh(), v.d0), slope(g.d1, at_.d1, d1_tanh(), v.d1)};
  }

  /// Element j of a gradient in theta.
  BRACKET_HOST_DEVICE T element(const SplineGradient<T>& g, std::int64_t j) const {
    if (j < bins()) return bins_element(g.widths, widths_, j, widths_.softmax(j));
    if (j < 2 * bins()) return bins_element(g.heights, heights_, j - bins(), heights_.softmax(j - bins()));
    return slope_element(g, j);
  }
  /// With v_j of the direction that the gradient was taken along.
  BRACKET_HOST_DEVICE Dual element(const SplineGradient<Dual>& g, const SplineDirection<T>& v, std::int64_t j,
                                   T v_j) const {
    if (j < bins()) return bins_element(g.widths, widths_, j, moved(widths_, v.widths, j, v_j));
    if (j < 2 * bins()) {
      return bins_element(g.heights, heights_, j - bins(), moved(heights_, v.heights, j - bins(), v_j));
    }
    return slope_element(g, j);
  }

 private:
  BRACKET_HOST_DEVICE bool has_d0() const { return bin() > 0; }
  BRACKET_HOST_DEVICE bool has_d1() const { return bin() + 1 < bins(); }
  BRACKET_HOST_DEVICE T d0_parameter() const { return slopes_[bin() - 1]; }
  BRACKET_HOST_DEVICE T d1_parameter() const { return slopes_[bin()]; }
  BRACKET_HOST_DEVICE T d0_tanh() const { return has_d0() ? spline_tanh(d0_parameter() / limit_) : T{1}; }
  BRACKET_HOST_DEVICE T d1_tanh() const { return has_d1() ? spline_tanh(d1_parameter() / limit_) : T{1}; }
  /// of d = exp(m tanh(theta / m)) in theta; 0 of the constant ends, tau = 1.
  BRACKET_HOST_DEVICE static T slope_rate(T d, T tau) { return d * (T{1} - tau * tau); }

  template <class V>
  BRACKET_HOST_DEVICE static BinsDirection<T> bins_direction(const SplineBins<T>& bins, std::int64_t first,
                                                             const V& v) {
    T sum = 0, before = 0;
    for (std::int64_t j = 0; j < bins.count; ++j) {
      const T term = bins.softmax(j) * v(first + j);
      if (j < bins.bin) before += term;
      sum += term;
    }
    return {sum, before - bins.before * sum, bins.share * (v(first + bins.bin) - sum)};
  }
  template <class S>
  BRACKET_HOST_DEVICE static BinsGradient<S> bins_gradient(const S& edge, const S& own, const S& before,
                                                           const S& share) {
    return {edge, own, edge * before + own * share};
  }
  BRACKET_HOST_DEVICE static Dual moved(const SplineBins<T>& bins, const BinsDirection<T>& v, std::int64_t j, T v_j) {
    const T softmax = bins.softmax(j);
    return {softmax, softmax * (v_j - v.mean)};
  }
  template <class S>
  BRACKET_HOST_DEVICE S bins_element(const BinsGradient<S>& g, const SplineBins<T>& bins, std::int64_t j,
                                     const S& softmax) const {
    const S weight = (j < bins.bin ? g.edge : j == bins.bin ? g.own : S{0}) - g.mean;
    return S{interval_ * bins.unit} * softmax * weight;
  }
  template <class S>
  BRACKET_HOST_DEVICE S slope_element(const SplineGradient<S>& g, std::int64_t j) const {
    const std::int64_t end = j - 2 * bins();  // between bins `end` and `end` + 1
    return end + 1 == bin() ? g.d0 : end == bin() ? g.d1 : S{0};
  }

  T interval_, limit_;
  const T* slopes_;
  T a_;
  bool inside_;
  SplineBins<T> widths_, heights_;
  SplinePoint<T> at_{};
};

}  // namespace bracket::formula
