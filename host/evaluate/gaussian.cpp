#include "host/evaluate/gaussian.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Eigenvalues>

#include "bracket/error.h"

namespace bracket {
namespace {

// The degree of a network's output as a polynomial of its input, by the types of its layers.
enum class Degree { affine, quadratic, unknown };

Degree degree_of(const NetworkSpec& spec) {
  Degree degree = Degree::affine;
  std::vector<Degree> outputs;
  for (const LayerSpec& layer : spec.layers) {
    if (const auto* confinement = std::get_if<ConfinementSpec>(&layer)) {
      const bool affine_input =
          confinement->input_layer < 0 || outputs[static_cast<std::size_t>(confinement->input_layer)] == Degree::affine;
      degree =
          degree != Degree::unknown && affine_input && confinement->wall == 0 ? Degree::quadratic : Degree::unknown;
    } else if (const auto* activation = std::get_if<ActivationSpec>(&layer)) {
      if (activation->function != Activation::identity) degree = Degree::unknown;
    } else if (!std::holds_alternative<LinearSpec>(layer) && !std::holds_alternative<AffineSpec>(layer) &&
               !std::holds_alternative<BatchNormSpec>(layer)) {
      degree = Degree::unknown;
    }
    outputs.push_back(degree);
  }
  return degree;
}

// Lower end of the spectrum of B from the gradients c, B e_1 - e_1 + c, ... of phi at 0, e_1, .., e_d. A gradient is
// off by `rounding` per entry, B by twice that, so its eigenvalues by at most 2 d rounding (Weyl, Frobenius norm).
double smallest_eigenvalue(const std::vector<double>& gradients, std::int64_t d, double unit_roundoff) {
  Eigen::MatrixXd hessian(d, d);
  double largest = 0;
  for (const double g : gradients) largest = std::max(largest, std::abs(g));
  for (std::int64_t k = 0; k < d; ++k)
    for (std::int64_t j = 0; j < d; ++j)
      hessian(j, k) = gradients[static_cast<std::size_t>((k + 1) * d + j)] - gradients[static_cast<std::size_t>(j)] +
                      (j == k ? 1 : 0);
  // Entries come out of a handful of matrix products, each good to about d roundings of the largest partial sum; 16 of
  // them is an allowance, not a bound: it fails only for cancellation beyond 16 d within one entry.
  const double rounding = 16 * static_cast<double>(d) * unit_roundoff * (largest + 1);
  const Eigen::MatrixXd symmetric = 0.5 * (hessian + hessian.transpose());
  return Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(symmetric, Eigen::EigenvaluesOnly).eigenvalues()(0) -
         2 * static_cast<double>(d) * rounding;
}

}  // namespace

std::optional<GaussianPair> gaussian_pair(const NetworkPair& pair) {
  const std::int64_t d = pair.generator.input_size();
  if (d != pair.energy.input_size() || degree_of(pair.generator.spec()) != Degree::affine ||
      degree_of(pair.energy.spec()) != Degree::quadratic)
    return std::nullopt;
  const std::int64_t rows = 3 * d + 1;  // 0, e_1, .., e_d, then sqrt(d) e_k and -sqrt(d) e_k in turn
  std::vector<double> z(static_cast<std::size_t>(rows * d));
  for (std::int64_t k = 0; k < d; ++k) {
    const double radius = std::sqrt(static_cast<double>(d));
    z[static_cast<std::size_t>((1 + k) * d + k)] = 1;
    z[static_cast<std::size_t>((1 + d + 2 * k) * d + k)] = radius;
    z[static_cast<std::size_t>((2 + d + 2 * k) * d + k)] = -radius;
  }
  const GeneratedPoints points = generated_points(pair, z, rows);
  if (!std::all_of(points.energy.begin(), points.energy.end(), [](double e) { return std::isfinite(e); }))
    throw Diverged("the energy of generated points is not finite; evaluate an earlier checkpoint", "energy", 0);
  const double unit_roundoff = pair.energy.dtype() == DType::f32 ? 0x1p-24 : 0x1p-53;
  GaussianPair result;
  result.log_sobolev_constant = smallest_eigenvalue(points.phi_gradient, d, unit_roundoff);
  if (!(result.log_sobolev_constant > 0)) return std::nullopt;
  const auto nodes = static_cast<double>(2 * d);
  for (std::int64_t i = d + 1; i < rows; ++i) {
    result.mean_phi += points.phi[static_cast<std::size_t>(i)] / nodes;
    for (std::int64_t j = 0; j < d; ++j) {
      const double g = points.phi_gradient[static_cast<std::size_t>(i * d + j)];
      result.penalty += 0.5 * g * g / nodes;
    }
  }
  return result;
}

}  // namespace bracket
