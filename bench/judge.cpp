#include "bench/judge.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace bracket::bench {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kMostCopies = 1024;
constexpr double kMostInFloat = 1e-5;

}  // namespace

double worst_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) return kInfinity;
  double scale = 0;
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(actual[i]) || !std::isfinite(expected[i])) return kInfinity;
    scale = std::max(scale, std::abs(expected[i]));
    worst = std::max(worst, std::abs(actual[i] - expected[i]));
  }
  return scale == 0 ? kInfinity : worst / scale;
}

double product_gate(DType type, MathMode math, std::int64_t depth) {
  if (math == MathMode::tf32) return 4 * 0x1p-11;
  if (math == MathMode::bf16) return 4 * 0x1p-8;
  const double units = 2 * std::sqrt(static_cast<double>(depth)) + 16;
  return type == DType::f32 ? std::min(units * 0x1p-24, kMostInFloat) : units * 0x1p-53;
}

double deviation(const std::vector<double>& values, double mean, double variance, double fourth) {
  const auto count = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value - mean;
    squares += (value - mean) * (value - mean);
  }
  const double of_mean = sum / std::sqrt(count * variance);
  const double of_variance = (squares - count * variance) / std::sqrt(count * (fourth - variance * variance));
  const double larger = std::max(std::abs(of_mean), std::abs(of_variance));
  return std::isfinite(squares) ? larger : kInfinity;
}

double eigen_error(const std::vector<double>& matrices, const std::vector<double>& values,
                   const std::vector<double>& vectors, std::int64_t size) {
  const auto k = static_cast<std::size_t>(size);
  const std::size_t samples = values.size() / k;
  double worst = 0;
  const auto judge = [&](double error) { worst = std::isfinite(error) ? std::max(worst, std::abs(error)) : kInfinity; };
  for (std::size_t n = 0; n < samples; ++n) {
    const double* const a = &matrices[n * k * k];
    const double* const v = &vectors[n * k * k];
    const double* const l = &values[n * k];
    double scale = 0;
    for (std::size_t i = 0; i < k; ++i) scale = std::max(scale, std::abs(l[i]));
    for (std::size_t i = 0; i < k; ++i) {
      for (std::size_t j = 0; j < k; ++j) {
        double product = 0, inner = 0;
        for (std::size_t m = 0; m < k; ++m) {
          product += a[j * k + m] * v[i * k + m];
          inner += v[i * k + m] * v[j * k + m];
        }
        judge((product - l[i] * v[i * k + j]) / scale);
        judge(inner - (i == j ? 1 : 0));
        if (worst == kInfinity) return worst;
      }
    }
  }
  return worst;
}

std::optional<std::int64_t> cold_copies(double bytes, std::int64_t cache_bytes) {
  const double copies = std::ceil(3 * static_cast<double>(cache_bytes) / bytes);
  if (!(copies <= kMostCopies)) return std::nullopt;
  return std::max(std::int64_t{2}, static_cast<std::int64_t>(copies));
}

}  // namespace bracket::bench
