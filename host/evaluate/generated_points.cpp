#include "host/evaluate/generated_points.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "bracket/entropy.h"
#include "bracket/error.h"
#include "bracket/jacobian.h"
#include "host/training/inference.h"
#include "host/training/row_chunks.h"
#include "host/training/smallest_singular.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kChunkRows = 4096;  // primal and tangent rows together; a 64-wide network's values take a few MB

// Jacobians of more columns are formed for the log-volume only, where nothing else gives it.
constexpr std::int64_t kMostColumns = 16;

// d log s_1 [count], NaN where no Jacobian is formed.
Tensor min_singular_volume(Ops& ops, Arena& arena, const EntropyPass& entropy, const Network& generator,
                           std::int64_t count) {
  const std::int64_t d = generator.input_size();
  Tensor jacobian = entropy.jacobian;
  if (jacobian.absent() && d > kMostColumns) {
    const Tensor unknown = arena.allocate(generator.dtype(), {count});
    ops.fill(unknown, std::numeric_limits<double>::quiet_NaN());
    return unknown;
  }
  if (jacobian.absent()) {
    jacobian = arena.allocate(generator.dtype(), {count * d, generator.output_size()});
    jacobian_columns(ops, arena, jacobian, NetworkJacobian(generator, entropy.primal));
  }
  return smallest_singular(ops, arena, jacobian, count, d).volume;
}

// The reverse pass of the generator with -grad E on its output and C on its tangents gives grad h - J^T grad E; with z
// added that is s - J^T grad E = -grad phi.
Tensor negative_phi_gradient(Ops& ops, Arena& arena, const NetworkPair& pair, const PrimalPass& energy,
                             const EntropyPass& entropy, std::int64_t rows) {
  const DType dtype = pair.generator.dtype();
  const Tensor seed = arena.allocate(dtype, {rows, 1});
  ops.fill(seed, -1);
  ReverseRequest of_energy, of_generator;
  of_energy.grad_input = arena.allocate(dtype, {rows, pair.energy.input_size()});
  pair.energy.reverse(ops, arena, energy, nullptr, seed, {}, of_energy);
  of_generator.grad_input = arena.allocate(dtype, {rows, pair.generator.input_size()});
  entropy_reverse(ops, arena, entropy, pair.generator, of_energy.grad_input, 1, of_generator);
  ops.axpy(of_generator.grad_input, 1, entropy.primal.input);
  return of_generator.grad_input;
}

}  // namespace

double GeneratedPoints::penalty() const {
  double sum = 0;
  for (const double g : phi_gradient) sum += g * g;
  return phi.empty() ? 0 : 0.5 * sum / static_cast<double>(phi.size());
}

GeneratedPoints generated_points(const NetworkPair& pair, std::span<const double> z, std::int64_t rows) {
  const std::int64_t d = pair.generator.input_size();
  if (rows < 0 || static_cast<std::int64_t>(z.size()) != rows * d)
    throw InvalidArgument("generated_points: expected " + std::to_string(rows) + " x " + std::to_string(d) +
                          " latent values, got " + std::to_string(z.size()));
  GeneratedPoints points;
  EntropyPass entropy;
  PrimalPass energy;
  EntropyConfig config;
  if (pair.generator.has_log_volume()) config.estimator = EntropyEstimator::triangular;
  const std::int64_t chunk = std::max<std::int64_t>(1, kChunkRows / (1 + d));
  for_row_chunks(pair.context, rows, chunk, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
    const Tensor latent = arena.allocate(pair.generator.dtype(), {count, d});
    to_device(ops, latent, z.subspan(static_cast<std::size_t>(first * d), static_cast<std::size_t>(count * d)));
    entropy_forward(ops, arena, entropy, pair.generator, pair.generator_parameters, latent, config);
    pair.energy.forward(ops, arena, energy, pair.energy_parameters, entropy.primal.output(), PassMode::inference);
    append_to_host(points.x, ops, entropy.primal.output());
    append_to_host(points.energy, ops, energy.output());
    append_to_host(points.log_volume, ops, entropy.value);
    append_to_host(points.phi_min_singular, ops, min_singular_volume(ops, arena, entropy, pair.generator, count));
    append_to_host(points.phi_gradient, ops, negative_phi_gradient(ops, arena, pair, energy, entropy, count));
  });
  for (double& g : points.phi_gradient) g = -g;
  const double log_normaliser = -0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi);
  points.phi.resize(points.energy.size());
  for (std::size_t i = 0; i < points.phi.size(); ++i) {
    double squared = 0;
    for (const double value : z.subspan(i * static_cast<std::size_t>(d), static_cast<std::size_t>(d)))
      squared += value * value;
    const double base = points.energy[i] + log_normaliser - 0.5 * squared;
    points.phi[i] = base - points.log_volume[i];
    points.phi_min_singular[i] = base - points.phi_min_singular[i];
  }
  return points;
}

SampleMoments sample_moments(std::span<const double> values) {
  SampleMoments moments;
  const auto n = static_cast<double>(values.size());
  if (values.empty()) return moments;
  for (const double value : values) moments.mean += value / n;
  if (values.size() < 2) return moments;
  for (const double value : values) moments.variance += (value - moments.mean) * (value - moments.mean);
  moments.variance /= n - 1;
  moments.standard_error = std::sqrt(moments.variance / n);
  return moments;
}

}  // namespace bracket
