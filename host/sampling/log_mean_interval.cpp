#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "bracket/annealed_importance.h"
#include "bracket/error.h"
#include "host/core/text.h"
#include "host/sampling/normal_quantile.h"

namespace bracket {
namespace {

// Student's quantile of n - 1 degrees of freedom, expanded in 1 / (n - 1) (Abramowitz and Stegun 26.7.5): below 1 % off
// from 5 degrees on.
double student_quantile(double confidence, double n) {
  const double z = normal_quantile(confidence), z3 = z * z * z, z5 = z3 * z * z, v = n - 1;
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v);
}

}  // namespace

double normal_quantile(double confidence) {
  double low = 0, high = 40;
  while (high - low > 1e-12 * high) {
    const double middle = 0.5 * (low + high);
    (std::erfc(middle / std::numbers::sqrt2) > 1 - confidence ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

LogMeanInterval log_mean_interval(std::span<const double> log_weights, double confidence) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw InvalidArgument("log_mean_interval: " + what);
  };
  require(log_weights.size() >= 2, "needs at least 2 weights, got " + std::to_string(log_weights.size()));
  require(confidence > 0 && confidence < 1, "confidence is " + format_number(confidence) + ", must lie in (0, 1)");
  const auto bad = std::find_if(log_weights.begin(), log_weights.end(), [](double w) { return !(w < HUGE_VAL); });
  require(bad == log_weights.end(), "a log weight is NaN or infinite");
  const double largest = *std::max_element(log_weights.begin(), log_weights.end());
  require(std::isfinite(largest), "every weight is zero");

  const auto n = static_cast<double>(log_weights.size());
  double mean = 0, second = 0, third = 0;
  for (const double w : log_weights) mean += std::exp(w - largest) / n;
  for (const double w : log_weights) {
    const double deviation = std::exp(w - largest) / mean - 1;
    second += deviation * deviation / n;
    third += deviation * deviation * deviation / n;
  }
  LogMeanInterval result;
  result.estimate = largest + std::log(mean);
  result.ess = 1 / (1 + second);
  result.skewness = second > 0 ? third / std::pow(second, 1.5) : 0;
  result.standard_error = std::sqrt(second / (n - 1));
  result.markov_lower = result.estimate + std::log1p(-confidence);
  const double t = student_quantile(confidence, n), s = result.standard_error;
  const double widening = std::max(0.0, result.skewness) * (1 + 2 * t * t) / (6 * std::sqrt(n));
  result.lower = t * s < 1 ? result.estimate + std::log1p(-t * s) : -std::numeric_limits<double>::infinity();
  result.upper = result.estimate + std::log1p(s * (t + widening));
  return result;
}

}  // namespace bracket
