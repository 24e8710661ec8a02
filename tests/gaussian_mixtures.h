// Targets whose log Z is known: Gaussians of any covariance and mixtures of them.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <span>
#include <vector>

#include "bracket/annealed_importance.h"

namespace bracket::test {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// sum_k a_k N(m_k, S_k), times exp(log_z).
struct GaussianMixture {
  std::vector<double> share;
  std::vector<Eigen::VectorXd> mean;
  std::vector<Eigen::MatrixXd> root;  // S = root root^T, lower triangles
  double log_z = 0;

  std::int64_t dimension() const { return mean.front().size(); }

  PotentialFunction potential() const {
    std::vector<Eigen::MatrixXd> inverse;
    for (const Eigen::MatrixXd& r : root) inverse.push_back(r.inverse());
    return [this, inverse](std::span<const double> x, std::int64_t rows, std::span<double> value,
                           std::span<double> gradient) {
      const std::int64_t d = dimension();
      const Eigen::Map<const RowMatrix> points(x.data(), rows, d);
      Eigen::Map<RowMatrix> grad(gradient.data(), rows, d);
      const auto parts = static_cast<std::int64_t>(share.size());
      RowMatrix log_part(rows, parts);
      std::vector<RowMatrix> slope;
      for (std::int64_t k = 0; k < parts; ++k) {
        const auto at = static_cast<std::size_t>(k);
        const bool round = inverse[at].isDiagonal();
        const auto scaled = [&](const RowMatrix& r, bool transposed) -> RowMatrix {
          if (round) return r.array().rowwise() * inverse[at].diagonal().transpose().array();
          return transposed ? RowMatrix(r * inverse[at].transpose()) : RowMatrix(r * inverse[at]);
        };
        const RowMatrix white = scaled(points.rowwise() - mean[at].transpose(), true);
        slope.push_back(scaled(white, false));
        log_part.col(k) = -0.5 * white.rowwise().squaredNorm();
        log_part.col(k).array() += std::log(share[at]) - root[at].diagonal().array().log().sum() -
                                   0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi);
      }
      grad.setZero();
      for (std::int64_t i = 0; i < rows; ++i) {
        const double largest = log_part.row(i).maxCoeff();
        const Eigen::RowVectorXd weight = (log_part.row(i).array() - largest).exp();
        value[static_cast<std::size_t>(i)] = -(largest + std::log(weight.sum())) - log_z;
        for (std::int64_t k = 0; k < parts; ++k)
          grad.row(i) += weight(k) / weight.sum() * slope[static_cast<std::size_t>(k)].row(i);
      }
    };
  }

  std::vector<double> sample(std::int64_t rows, std::uint64_t seed) const {
    std::mt19937_64 engine(seed);
    std::normal_distribution<double> normal;
    std::discrete_distribution<std::size_t> choice(share.begin(), share.end());
    std::vector<double> x;
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::size_t k = choice(engine);
      Eigen::VectorXd z(dimension());
      for (double& value : z) value = normal(engine);
      z = mean[k] + root[k].triangularView<Eigen::Lower>() * z;
      x.insert(x.end(), z.begin(), z.end());
    }
    return x;
  }

  // N(mean, covariance) of the mixture, its deviations widened.
  GaussianBase base(double widening, bool diagonal) const {
    const std::int64_t d = dimension();
    Eigen::VectorXd centre = Eigen::VectorXd::Zero(d);
    for (std::size_t k = 0; k < share.size(); ++k) centre += share[k] * mean[k];
    Eigen::MatrixXd covariance = Eigen::MatrixXd::Zero(d, d);
    for (std::size_t k = 0; k < share.size(); ++k)
      covariance += share[k] * (root[k] * root[k].transpose() + (mean[k] - centre) * (mean[k] - centre).transpose());
    const RowMatrix factor = widening * covariance.llt().matrixL().toDenseMatrix();
    if (diagonal) {
      const Eigen::VectorXd deviation = widening * covariance.diagonal().array().sqrt();
      return {{centre.begin(), centre.end()}, {deviation.begin(), deviation.end()}};
    }
    return {{centre.begin(), centre.end()}, {factor.data(), factor.data() + factor.size()}};
  }
};

// Deviations from 0.3 to 3 along random axes.
inline Eigen::MatrixXd random_root(std::int64_t d, std::mt19937_64& engine) {
  std::normal_distribution<double> normal;
  Eigen::MatrixXd noise(d, d);
  for (double& value : noise.reshaped()) value = normal(engine);
  const Eigen::MatrixXd axes = noise.householderQr().householderQ();
  Eigen::VectorXd variance(d);
  for (std::int64_t i = 0; i < d; ++i)
    variance(i) =
        std::pow(100.0, static_cast<double>(i) / static_cast<double>(std::max<std::int64_t>(d - 1, 1))) * 0.09;
  return (axes * variance.asDiagonal() * axes.transpose()).llt().matrixL();
}

inline GaussianMixture gaussian(std::int64_t d) {
  std::mt19937_64 engine(static_cast<std::uint64_t>(d));
  return {{1}, {Eigen::VectorXd::LinSpaced(d, -1, 2)}, {random_root(d, engine)}, 3.5};
}

// Three round parts, two of them 4 deviations of a part from the first.
inline GaussianMixture mixture(std::int64_t d) {
  GaussianMixture m{{0.5, 0.3, 0.2}, {}, {}, -2.25};
  for (int k = 0; k < 3; ++k) {
    m.mean.push_back(Eigen::VectorXd::Constant(d, 0.1));
    if (k > 0) m.mean.back()(k == 1 ? 0 : d - 1) += k == 1 ? 4 : -4;
    m.root.push_back((k == 2 ? 0.8 : 1.0) * Eigen::MatrixXd::Identity(d, d));
  }
  return m;
}

}  // namespace bracket::test
