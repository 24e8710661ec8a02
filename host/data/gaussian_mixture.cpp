#include "host/data/gaussian_mixture.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "bracket/dataset.h"
#include "bracket/error.h"
#include "bracket/random.h"

namespace bracket {
namespace {

constexpr double kCentreDeviation = 2;
constexpr std::uint64_t kSeed = 16;
// Steps of the stream `data` that no run of training reaches.
constexpr std::uint64_t kFirstStep = std::uint64_t{1} << 47;
constexpr std::uint64_t kStepsPerSet = 2;  // modes, noise

// Box-Muller on pairs of uniforms.
std::vector<double> normals(std::int64_t count, std::uint64_t step) {
  const RandomKey key{kSeed, RandomStream::data, kFirstStep + step};
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double radius = std::sqrt(-2 * std::log(random_uniform(key, i / 2 * 2)));
    const double angle = 2 * std::numbers::pi * random_uniform(key, i / 2 * 2 + 1);
    values[i] = radius * (i % 2 == 0 ? std::sin(angle) : std::cos(angle));
  }
  return values;
}

}  // namespace

GaussianMixture::GaussianMixture(std::int64_t dims) : dims_(dims) {
  if (dims < 1) throw InvalidArgument("a mixture of " + std::to_string(dims) + " dimensions; at least 1 is needed");
  centres_ = normals(kModes * dims, 0);
  for (double& value : centres_) value *= kCentreDeviation;
}

std::optional<GaussianMixture> GaussianMixture::named(const std::string& name) {
  constexpr std::pair<const char*, std::int64_t> kNamed[] = {{"mixture-8", 8}, {"mixture-32", 32}, {"mixture-64", 64}};
  for (const auto& [known, dims] : kNamed)
    if (name == known) return GaussianMixture(dims);
  return {};
}

double GaussianMixture::log_density(std::span<const double> x) const {
  double logarithms[kModes], largest = -HUGE_VAL, sum = 0;
  for (std::size_t mode = 0; mode < kModes; ++mode) {
    double squares = 0;
    for (std::size_t j = 0; j < x.size(); ++j) {
      const double u = (x[j] - centres_[mode * x.size() + j]) / kDeviation;
      squares += u * u;
    }
    logarithms[mode] = -squares / 2;
    largest = std::max(largest, logarithms[mode]);
  }
  for (const double logarithm : logarithms) sum += std::exp(logarithm - largest);
  return largest + std::log(sum) - std::log(static_cast<double>(kModes)) -
         static_cast<double>(dims_) * std::log(2 * std::numbers::pi * kDeviation * kDeviation) / 2;
}

std::vector<double> GaussianMixture::sample(std::int64_t count, std::uint64_t set) const {
  const std::uint64_t step = 1 + kStepsPerSet * set;
  const RandomKey modes{kSeed, RandomStream::data, kFirstStep + step};
  std::vector<double> values = normals(count * dims_, step + 1);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto mode =
        static_cast<std::int64_t>(static_cast<double>(kModes) * random_uniform(modes, static_cast<std::uint64_t>(i)));
    for (std::int64_t j = 0; j < dims_; ++j) {
      double& value = values[static_cast<std::size_t>(i * dims_ + j)];
      value = centres_[static_cast<std::size_t>(mode * dims_ + j)] + kDeviation * value;
    }
  }
  return values;
}

GaussianMixture::Entropy GaussianMixture::entropy(std::int64_t count, std::uint64_t set) const {
  if (count < 2) throw InvalidArgument("an entropy of " + std::to_string(count) + " samples has no standard error");
  // Less half the squared distance from the own mode, whose mean is known: what is left varies with overlaps alone.
  const std::vector<double> x = sample(count, set), u = normals(count * dims_, 2 + kStepsPerSet * set);
  const auto n = static_cast<double>(count);
  std::vector<double> values;
  Entropy entropy;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto first = static_cast<std::size_t>(i * dims_), size = static_cast<std::size_t>(dims_);
    const double squares = std::inner_product(u.begin() + i * dims_, u.begin() + (i + 1) * dims_, u.begin() + i * dims_,
                                              -static_cast<double>(dims_));
    values.push_back(-log_density(std::span(x).subspan(first, size)) - squares / 2);
    entropy.value += values.back() / n;
  }
  double squares = 0;
  for (const double value : values) squares += (value - entropy.value) * (value - entropy.value);
  entropy.standard_error = std::sqrt(squares / (n - 1) / n);
  return entropy;
}

}  // namespace bracket
