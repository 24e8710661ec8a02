// Targets of annealing: in the coordinates of a base, and of networks.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "bracket/error.h"
#include "host/core/host_values.h"
#include "host/core/text.h"
#include "host/sampling/annealing.h"
#include "host/training/row_chunks.h"

namespace bracket {
namespace {

constexpr std::int64_t kRowsAtOnce = 4096;
constexpr std::uint64_t kJitterElement = (std::uint64_t{1} << 40) + 1;  // beyond all chains

void require(bool holds, const std::string& what) {
  if (!holds) throw InvalidArgument("annealing: " + what);
}

}  // namespace

WhitenedPotential::WhitenedPotential(const GaussianBase& base, const PotentialFunction& target)
    : base_(base), target_(target) {
  const std::size_t n = base.mean.size();
  require(target != nullptr, "no target function");
  require(
      n > 0 && (base.factor.size() == n || base.factor.size() == n * n),
      "a base with " + std::to_string(n) + " means and a factor of " + std::to_string(base.factor.size()) + " values");
  for (std::size_t i = 0; i < n; ++i) {
    const double pivot = diagonal() ? base.factor[i] : base.factor[i * n + i];
    require(std::isfinite(base.mean[i]) && pivot > 0 && std::isfinite(pivot),
            "the base has mean " + format_number(base.mean[i]) + " and factor " + format_number(pivot) + " in column " +
                std::to_string(i) + "; both must be finite, the factor positive");
    log_determinant_ += std::log(pivot);
    for (std::size_t j = 0; !diagonal() && j < n; ++j)
      require(std::isfinite(base.factor[i * n + j]) && (j <= i || base.factor[i * n + j] == 0),
              "the factor of the base is not a finite lower triangle");
  }
}

std::vector<double> WhitenedPotential::points(std::span<const double> u) const {
  const std::size_t n = base_.mean.size();
  std::vector<double> x(u.size());
  for (std::size_t row = 0; row < u.size(); row += n)
    for (std::size_t i = 0; i < n; ++i) {
      double sum = base_.mean[i];
      if (diagonal()) sum += base_.factor[i] * u[row + i];
      for (std::size_t j = 0; !diagonal() && j <= i; ++j) sum += base_.factor[i * n + j] * u[row + j];
      x[row + i] = sum;
    }
  return x;
}

std::vector<double> WhitenedPotential::coordinates(std::span<const double> x) const {
  const std::size_t n = base_.mean.size();
  std::vector<double> u(x.size());
  for (std::size_t row = 0; row < x.size(); row += n)
    for (std::size_t i = 0; i < n; ++i) {
      double rest = x[row + i] - base_.mean[i];
      for (std::size_t j = 0; !diagonal() && j < i; ++j) rest -= base_.factor[i * n + j] * u[row + j];
      u[row + i] = rest / (diagonal() ? base_.factor[i] : base_.factor[i * n + i]);
    }
  return u;
}

void WhitenedPotential::evaluate(Ops& ops, Arena&, std::vector<double>& values, const Tensor& gradient,
                                 const Tensor& states) const {
  if (ops.planning()) return;
  const std::size_t n = base_.mean.size(), rows = static_cast<std::size_t>(states.rows());
  std::vector<double> x = points(to_host(ops, states)), grad(x.size()), potential(rows);
  std::vector<bool> lost(rows);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!std::isfinite(x[i])) lost[i / n] = true;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (lost[i / n]) x[i] = base_.mean[i % n];
  target_(x, states.rows(), potential, grad);
  std::vector<double> pulled(n);  // C^T g of a row
  for (std::size_t row = 0; row < rows; ++row) {
    values.push_back(lost[row] ? std::numeric_limits<double>::quiet_NaN() : potential[row] - log_determinant_);
    double* const g = grad.data() + row * n;
    std::fill(pulled.begin(), pulled.end(), 0);
    for (std::size_t i = 0; i < n; ++i) {
      if (diagonal()) pulled[i] = base_.factor[i] * g[i];
      const double* const c = base_.factor.data() + i * n;
      for (std::size_t j = 0; !diagonal() && j <= i; ++j) pulled[j] += c[j] * g[i];
    }
    for (std::size_t j = 0; j < n; ++j) g[j] = std::isfinite(pulled[j]) ? pulled[j] : 0;
  }
  to_device(ops, gradient, grad);
}

std::vector<double> log_ratios(const ChainPlaces& at, std::int64_t dimension) {
  std::vector<double> ratio(at.target.size());
  const double normaliser = 0.5 * static_cast<double>(dimension) * std::log(2 * std::numbers::pi);
  for (std::size_t i = 0; i < ratio.size(); ++i) {
    if (std::isnan(at.target[i]) || at.target[i] == -std::numeric_limits<double>::infinity())
      throw Diverged("annealing: the potential of a chain is " + format_number(at.target[i]) +
                         ", so the target has no density; use an earlier checkpoint",
                     "energy", 0);
    ratio[i] = at.half_square[i] + normaliser - at.target[i];
  }
  return ratio;
}

double jittered(double step_size, std::uint64_t seed, std::uint64_t step) {
  return step_size * (0.8 + 0.4 * random_uniform({seed, RandomStream::markov_acceptance, step}, kJitterElement));
}

PotentialFunction network_potential(Context& context, const SamplerTarget& target) {
  check_target(target, "annealing");
  return [&context, target](std::span<const double> x, std::int64_t rows, std::span<double> potential,
                            std::span<double> gradient) {
    const NetworkPotential network(target);
    const std::int64_t cols = network.dimension();
    require(static_cast<std::int64_t>(x.size()) == rows * cols,
            std::to_string(x.size()) + " values are not " + std::to_string(rows) + " points of the network's " +
                std::to_string(cols) + " columns; the base has other columns");
    for_row_chunks(context, rows, kRowsAtOnce, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
      const auto at = static_cast<std::size_t>(first * cols), size = static_cast<std::size_t>(count * cols);
      const Tensor states = arena.allocate(network.dtype(), {count, cols});
      const Tensor grad = arena.allocate(network.dtype(), {count, cols});
      to_device(ops, states, x.subspan(at, size));
      std::vector<double> values;
      network.evaluate(ops, arena, values, grad, states);
      if (ops.planning()) return;
      std::copy(values.begin(), values.end(), potential.begin() + first);
      const std::vector<double> g = to_host(ops, grad);
      std::copy(g.begin(), g.end(), gradient.begin() + static_cast<std::ptrdiff_t>(at));
    });
    if (target.generator == nullptr) return;
    for (std::size_t i = 0; i < x.size(); ++i) {
      gradient[i] += x[i];
      potential[i / static_cast<std::size_t>(cols)] += 0.5 * x[i] * x[i];
    }
  };
}

}  // namespace bracket
