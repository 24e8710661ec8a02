#include "host/toy_density.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "bracket/error.h"
#include "kernels/formula/toy.h"

namespace bracket {
namespace {

using std::numbers::pi;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Gauss-Legendre on [-1, 1]; zeros of the Legendre polynomial by Newton's method from Chebyshev's points.
struct GaussLegendre {
  static constexpr int kPoints = 16;
  std::array<double, kPoints> node{};
  std::array<double, kPoints> weight{};
  GaussLegendre() {
    for (std::size_t i = 0; i < node.size(); ++i) {
      double x = std::cos(pi * (static_cast<double>(i) + 0.75) / (kPoints + 0.5));
      double derivative = 1;
      for (int iteration = 0; iteration < 6; ++iteration) {
        double previous = 1, value = x;
        for (int n = 2; n <= kPoints; ++n) {
          const double next = ((2 * n - 1) * x * value - (n - 1) * previous) / n;
          previous = value;
          value = next;
        }
        derivative = kPoints * (x * value - previous) / (x * x - 1);
        x -= value / derivative;
      }
      node[i] = x;
      weight[i] = 2 / ((1 - x * x) * derivative * derivative);
    }
  }
};

/// Panels of this many noise deviations: sixteen Gauss-Legendre points integrate a Gaussian over them to 1e-15.
constexpr double kPanelDeviations = 4;

/// log(exp(-x) I_0(x)): the library's function while it does not overflow, else Hankel's expansion, whose seventh term
/// is below 1e-12 of the sum for x >= 100.
double log_scaled_bessel(double x) {
  if (x < 100) return std::log(std::cyl_bessel_i(0.0, x)) - x;
  double term = 1, series = 1;
  for (int k = 1; k <= 7; ++k) {
    term *= (2 * k - 1) * (2 * k - 1) / (8 * x * k);
    series += term;
  }
  return std::log(series) - std::log(2 * pi * x) / 2;
}

/// log Phi(x), the standard normal distribution function, for any x.
double log_normal_cdf(double x) {
  if (x > -20) return std::log(std::erfc(-x * std::numbers::sqrt2 / 2) / 2);
  const double inverse = 1 / (x * x);
  return -x * x / 2 - std::log(-x) - std::log(2 * pi) / 2 +
         std::log1p(-inverse * (1 - 3 * inverse * (1 - 5 * inverse)));
}

/// log(Phi(high) - Phi(low)), low < high, without underflow.
double log_normal_interval(double low, double high) {
  if (low > 0) return log_normal_interval(-high, -low);
  const double top = log_normal_cdf(high);
  return top + std::log1p(-std::exp(log_normal_cdf(low) - top));
}

double normal_interval(double low, double high) {
  return (std::erf(high * std::numbers::sqrt2 / 2) - std::erf(low * std::numbers::sqrt2 / 2)) / 2;
}

/// log(exp(a) + exp(b))
double log_add(double a, double b) {
  const double larger = std::max(a, b);
  return larger == -kInfinity ? larger : larger + std::log1p(std::exp(std::min(a, b) - larger));
}

/// Where the pinwheel looks for sign changes, fine enough to separate its solutions outside the folds.
struct PinwheelScan {
  static constexpr std::size_t kSteps = 256;
  std::array<double, kSteps + 1> angle{};
  std::array<double, kSteps + 1> cosine{};
  PinwheelScan() {
    for (std::size_t i = 0; i < angle.size(); ++i) {
      angle[i] = pi * (2 * static_cast<double>(i) / kSteps - 1);
      cosine[i] = std::cos(angle[i]);
    }
  }
};

constexpr double kSpiralBoxWidth = formula::kSpiralJitter / formula::kSpiralScale;

}  // namespace

void ToyDensity::Nodes::add(double node_x, double node_y, double node_weight) {
  x.push_back(node_x);
  y.push_back(node_y);
  weight.push_back(node_weight);
}

/// Curve(u) is a point for u in (0, 1); `length_bound` bounds |d curve / du|.
template <class Curve>
void ToyDensity::add_curve(double share, double length_bound, Curve&& curve) {
  static const GaussLegendre rule;
  const auto panels = static_cast<std::int64_t>(std::ceil(length_bound / (kPanelDeviations * noise_)));
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    for (std::size_t i = 0; i < rule.node.size(); ++i) {
      const double u = (static_cast<double>(panel) + (rule.node[i] + 1) / 2) / static_cast<double>(panels);
      const std::array<double, 3> point = curve(u);
      nodes_.add(point[0], point[1], share * point[2] * rule.weight[i] / (2 * static_cast<double>(panels)));
    }
  }
}

void ToyDensity::add_modes(double scale, double noise) {
  noise_ = noise / scale;
  for (std::array<double, 2>& centre : centres_) {
    centre = {centre[0] / scale, centre[1] / scale};
    nodes_.add(centre[0], centre[1], 1 / static_cast<double>(centres_.size()));
    half_width_ = std::max({half_width_, std::abs(centre[0]), std::abs(centre[1])});
  }
  half_width_ += 7 * noise_;
  // The modes lie at least 40 deviations apart: their overlap changes the entropy by less than exp(-200).
  entropy_ = std::log(static_cast<double>(centres_.size())) + std::log(2 * pi * std::numbers::e * noise_ * noise_);
}

// The entropies are sums of -p log p over lattices, converged to all digits given (pinwheel: to 1e-7) between spacings
// noise / 3 and noise / 4 (noise / 9). tests/toy_density_test.cpp repeats them.
ToyDensity::ToyDensity(ToyData data) : data_(data) {
  const auto swiss_roll = [this](double noise, double scale) {
    noise_ = noise / scale;
    half_width_ = (14.2 + 7 * noise) / scale;
    const double last = 2 * pi * (formula::kRollFirstTurn + formula::kRollTurns);
    add_curve(1, 2 * pi * formula::kRollTurns * std::hypot(1, last) / scale, [scale](double u) {
      const double t = 2 * pi * (formula::kRollFirstTurn + formula::kRollTurns * u);
      return std::array{t * std::cos(t) / scale, t * std::sin(t) / scale, 1.0};
    });
  };
  switch (data) {
    case ToyData::gaussians25:
      for (int i = 0; i < 25; ++i) {
        centres_.push_back({formula::kGaussians25Spacing * (i / 5 - 2), formula::kGaussians25Spacing * (i % 5 - 2)});
      }
      add_modes(formula::kGaussians25Scale, formula::kGaussians25Noise);
      return;
    case ToyData::gaussians8:
      for (int i = 0; i < 8; ++i) {
        centres_.push_back(
            {formula::kGaussians8Radius * std::cos(pi * i / 4), formula::kGaussians8Radius * std::sin(pi * i / 4)});
      }
      add_modes(formula::kGaussians8Scale, formula::kGaussians8Noise);
      return;
    case ToyData::swiss_roll:
      entropy_ = 2.669646174;
      swiss_roll(formula::kSwissRollNoise, formula::kSwissRollScale);
      return;
    case ToyData::swiss_roll_thin:
      entropy_ = 0.458119619;
      swiss_roll(formula::kThinRollNoise, formula::kThinRollScale);
      return;
    case ToyData::two_moons:
      entropy_ = 1.007584835;
      noise_ = formula::kMoonsNoise;
      half_width_ = 2.7;
      add_curve(0.5, pi, [](double u) { return std::array{std::cos(pi * u), std::sin(pi * u), 1.0}; });
      add_curve(0.5, pi, [](double u) { return std::array{1 - std::cos(pi * u), 0.5 - std::sin(pi * u), 1.0}; });
      return;
    case ToyData::rings:
      entropy_ = 2.623182770;
      noise_ = formula::kRingsNoise;
      for (int k = 1; k <= 4; ++k) radii_.push_back(k * formula::kRingsRadius);
      half_width_ = radii_.back() + 7 * noise_;
      return;
    case ToyData::circles:
      entropy_ = 3.268135712;
      noise_ = formula::kCirclesScale * formula::kCirclesNoise;
      radii_ = {formula::kCirclesScale * formula::kCirclesFactor, formula::kCirclesScale};
      half_width_ = radii_.back() + 7 * noise_;
      return;
    case ToyData::pinwheel:
      entropy_ = 2.317788000;
      noise_ = formula::kPinwheelScale * formula::kPinwheelTangential;
      half_width_ = formula::kPinwheelScale * (1 + 6.5 * formula::kPinwheelRadial);
      return;
    case ToyData::checkerboard:
      entropy_ = std::log(32.0);
      half_width_ = 4;
      return;
    case ToyData::two_spirals: {
      entropy_ = 2.645450284;
      noise_ = formula::kSpiralNoise;
      const double last = 2 * pi * formula::kSpiralTurns;
      half_width_ = (last + formula::kSpiralJitter) / formula::kSpiralScale + 7 * noise_;
      // Uniform in t with the density 2 t / last^2 that t = last sqrt(u) has.
      add_curve(1, last * std::hypot(1, last) / formula::kSpiralScale, [last](double v) {
        const double t = last * v;
        return std::array{-t * std::cos(t) / formula::kSpiralScale, t * std::sin(t) / formula::kSpiralScale, 2 * v};
      });
      return;
    }
  }
  throw InvalidArgument("toy data set " + std::to_string(static_cast<std::int32_t>(data)) +
                        " is not known; see ToyData in kernels/ops.h");
}

double ToyDensity::log_density(double x, double y) const {
  if (std::isnan(x) || std::isnan(y)) return std::numeric_limits<double>::quiet_NaN();
  if (!std::isfinite(x) || !std::isfinite(y)) return -kInfinity;
  switch (data_) {
    case ToyData::rings:
    case ToyData::circles:
      return log_circles(x, y);
    case ToyData::pinwheel:
      return log_pinwheel(x, y);
    case ToyData::two_spirals:
      return log_spirals(x, y);
    case ToyData::checkerboard: {
      const double a = x / formula::kCheckerboardScale, b = y / formula::kCheckerboardScale;
      if (a < -2 || a >= 2) return -kInfinity;
      const double row = b - (std::floor(a) - 2 * std::floor(std::floor(a) / 2));
      return (row >= 0 && row < 1) || (row >= -2 && row < -1) ? -std::log(32.0) : -kInfinity;
    }
    default:
      return log_noisy_nodes(x, y);
  }
}

std::vector<double> ToyDensity::log_densities(std::span<const double> points) const {
  std::vector<double> result(points.size() / 2);
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = log_density(points[2 * i], points[2 * i + 1]);
  return result;
}

/// log sum_i w_i N((x, y); node_i, noise^2)
double ToyDensity::log_noisy_nodes(double x, double y) const {
  const std::size_t count = nodes_.x.size();
  double nearest = kInfinity;
  for (std::size_t i = 0; i < count; ++i) {
    const double dx = x - nodes_.x[i], dy = y - nodes_.y[i];
    nearest = std::min(nearest, dx * dx + dy * dy);
  }
  const double precision = 1 / (2 * noise_ * noise_);
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double dx = x - nodes_.x[i], dy = y - nodes_.y[i];
    const double exponent = precision * (dx * dx + dy * dy - nearest);
    if (exponent < 40) sum += nodes_.weight[i] * std::exp(-exponent);  // e^-40 is below the rounding of the sum
  }
  return std::log(sum) - precision * nearest - std::log(2 * pi * noise_ * noise_);
}

/// A circle of radius R, uniformly covered, with Gaussian noise s: p = exp(-(r^2 + R^2) / 2 s^2) I_0(r R / s^2) /
/// (2 pi s^2) at radius r.
double ToyDensity::log_circles(double x, double y) const {
  const double r = std::hypot(x, y), precision = 1 / (noise_ * noise_);
  double result = -kInfinity;
  for (const double radius : radii_) {
    const double distance = r - radius;
    result = log_add(result, -distance * distance * precision / 2 + log_scaled_bessel(r * radius * precision));
  }
  return result + std::log(precision / (2 * pi)) - std::log(static_cast<double>(radii_.size()));
}

/// With f = rho (cos a, sin a), rho = |(x, y)| / 2, an arm's sample points in the direction psi = a - arm - g(a),
/// g(a) = rate exp(rho cos a). The five arms together ask for a - g(a) = psi modulo 2 pi / 5; each solution in a
/// contributes p(f) / (5 scale^2 |1 - g'(a)|). Folds, where 1 - g' <= 0, hold about 1e-9 of the mass. Twenty deviations
/// out the arms wind so tightly that solutions fill whole steps of the scan; their sum is then an integral over a.
double ToyDensity::log_pinwheel(double x, double y) const {
  constexpr double kScale = formula::kPinwheelScale, kRate = formula::kPinwheelRate;
  constexpr double kRadial = formula::kPinwheelRadial, kTangential = formula::kPinwheelTangential;
  constexpr double kArmAngle = 2 * pi / formula::kPinwheelArms;
  constexpr double kDenseSolutions = 64;
  static const PinwheelScan scan;
  const double rho = std::hypot(x, y) / kScale, psi = std::atan2(y, x);
  const auto arms_at = [&](double a, double cosine) { return (a - kRate * std::exp(rho * cosine) - psi) / kArmAngle; };
  const auto arms = [&](double a) { return arms_at(a, std::cos(a)); };
  const auto log_weight = [&](double a) {
    const double u = (rho * std::cos(a) - 1) / kRadial, v = rho * std::sin(a) / kTangential;
    return -(u * u + v * v) / 2;
  };
  double result = -kInfinity;
  double low = scan.angle[0], at_low = arms_at(low, scan.cosine[0]);
  for (std::size_t step = 1; step < scan.angle.size(); ++step) {
    const double high = scan.angle[step], at_high = arms_at(high, scan.cosine[step]);
    if (std::abs(at_high - at_low) < kDenseSolutions) {
      for (double level = std::ceil(std::min(at_low, at_high)); level < std::max(at_low, at_high); ++level) {
        double left = low, right = high;
        const bool rising = at_low < at_high;
        for (int halving = 0; halving < 50; ++halving) {
          const double middle = (left + right) / 2;
          ((arms(middle) < level) == rising ? left : right) = middle;
        }
        const double a = (left + right) / 2;
        const double stretch = std::abs(1 + kRate * std::exp(rho * std::cos(a)) * rho * std::sin(a));
        result = log_add(result, log_weight(a) - std::log(stretch));
      }
    } else {
      const double average = log_add(log_weight(low), log_weight(high)) - std::numbers::ln2;
      result = log_add(result, average + std::log((high - low) / kArmAngle));
    }
    low = high;
    at_low = at_high;
  }
  return result - std::log(2 * pi * kRadial * kTangential * kScale * kScale * formula::kPinwheelArms);
}

/// Noise and the jitter's box of width w make B(s) = (Phi(s / n) - Phi((s - w) / n)) / w per coordinate. Nodes whose
/// box is so far that they add less than e^-40 of the nearest one's share are skipped.
double ToyDensity::log_spirals(double x, double y) const {
  constexpr double kNegligible = 40;
  const double width = kSpiralBoxWidth;
  const auto outside = [width](double s) { return s < 0 ? -s : std::max(0.0, s - width); };
  const auto squared_distance = [&](double sign, std::size_t i) {
    const double dx = outside(sign * x - nodes_.x[i]), dy = outside(sign * y - nodes_.y[i]);
    return dx * dx + dy * dy;
  };
  double nearest = kInfinity;
  for (const double sign : {1.0, -1.0}) {
    for (std::size_t i = 0; i < nodes_.x.size(); ++i) nearest = std::min(nearest, squared_distance(sign, i));
  }
  // Up to four deviations away plain probabilities keep eleven digits; beyond, their logarithms are added.
  const bool plain = nearest < 16 * noise_ * noise_;
  double sum = 0, log_sum = -kInfinity;
  for (const double sign : {1.0, -1.0}) {
    for (std::size_t i = 0; i < nodes_.x.size(); ++i) {
      if (squared_distance(sign, i) - nearest > 2 * kNegligible * noise_ * noise_) continue;
      const double right = (sign * x - nodes_.x[i]) / noise_, left = right - width / noise_;
      const double top = (sign * y - nodes_.y[i]) / noise_, bottom = top - width / noise_;
      if (plain) {
        sum += nodes_.weight[i] * normal_interval(left, right) * normal_interval(bottom, top);
      } else {
        log_sum = log_add(
            log_sum, std::log(nodes_.weight[i]) + log_normal_interval(left, right) + log_normal_interval(bottom, top));
      }
    }
  }
  return (plain ? std::log(sum) : log_sum) - std::log(2 * width * width);
}

}  // namespace bracket
