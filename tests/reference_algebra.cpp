#include "tests/reference_algebra.h"

#include <Eigen/Dense>
#include <cmath>
#include <memory>
#include <span>
#include <utility>

namespace bracket::test {

MatrixXd normal_matrix(std::int64_t rows, std::int64_t cols, std::mt19937_64& engine) {
  std::normal_distribution<double> normal;
  MatrixXd m(rows, cols);
  for (std::int64_t j = 0; j < cols; ++j)
    for (std::int64_t i = 0; i < rows; ++i) m(i, j) = normal(engine);
  return m;
}

MatrixXd orthonormal_factor(const MatrixXd& m) {
  return Eigen::HouseholderQR<MatrixXd>(m).householderQ() * MatrixXd::Identity(m.rows(), m.cols());
}

MatrixXd orthonormal_columns(std::int64_t rows, std::int64_t cols, std::mt19937_64& engine) {
  return orthonormal_factor(normal_matrix(rows, cols, engine));
}

MatrixXd with_singular_values(std::int64_t D, const std::vector<double>& s, std::mt19937_64& engine) {
  const auto d = static_cast<std::int64_t>(s.size());
  const MatrixXd u = orthonormal_columns(D, d, engine), v = orthonormal_columns(d, d, engine);
  return u * Eigen::Map<const VectorXd>(s.data(), d).asDiagonal() * v.transpose();
}

std::vector<double> geometric_spectrum(std::int64_t d, double smallest, double condition) {
  std::vector<double> s(static_cast<std::size_t>(d));
  for (std::size_t k = 0; k < s.size(); ++k)
    s[k] = smallest * (d == 1 ? 1 : std::pow(condition, static_cast<double>(k) / static_cast<double>(d - 1)));
  return s;
}

VectorXd singular_values_of(const MatrixXd& j) { return Eigen::JacobiSVD<MatrixXd>(j).singularValues().reverse(); }

RightVectors right_singular_vectors(const MatrixXd& j) {
  const Eigen::JacobiSVD<MatrixXd> svd(j, Eigen::ComputeFullV);
  return {svd.matrixV().rowwise().reverse(), svd.singularValues().reverse()};
}

VectorXd extended_singular_values_of(const MatrixXd& j) {
  using Extended = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic>;
  return Eigen::JacobiSVD<Extended>(j.cast<long double>()).singularValues().reverse().cast<double>();
}

VectorXd eigenvalues_of(const MatrixXd& symmetric) {
  return Eigen::SelfAdjointEigenSolver<MatrixXd>(symmetric, Eigen::EigenvaluesOnly).eigenvalues();
}

MatrixXd logarithm_of(const MatrixXd& symmetric) {
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(symmetric);
  const VectorXd logs = solver.eigenvalues().array().log();
  return solver.eigenvectors() * logs.asDiagonal() * solver.eigenvectors().transpose();
}

MatrixXd inverse_of(const MatrixXd& m) { return m.inverse(); }

MatrixXd pseudo_inverse_of(const MatrixXd& m) { return m.completeOrthogonalDecomposition().pseudoInverse(); }

double log_abs_determinant(const MatrixXd& m) { return std::log(std::abs(m.determinant())); }

VectorXd solve(const MatrixXd& positive_definite, const VectorXd& right) {
  return positive_definite.ldlt().solve(right);
}

MatrixXd rounded(const MatrixXd& m, DType dtype) {
  return dtype == DType::f32 ? MatrixXd(m.cast<float>().cast<double>()) : m;
}

CallbackJacobian matrix_jacobian(std::vector<MatrixXd> matrices, DType dtype, std::int64_t d, std::int64_t D) {
  const auto shared = std::make_shared<const std::vector<MatrixXd>>(std::move(matrices));
  const auto n = static_cast<std::int64_t>(shared->size());
  if (n > 0) {
    d = shared->front().cols();
    D = shared->front().rows();
  }
  JacobianCallbacks callbacks;
  callbacks.apply = [shared, n, d, D](std::int64_t rows, std::span<const double> x, std::span<double> y) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t k = rows / n;
      const Eigen::Map<const RowMatrix> in(x.data() + i * k * d, k, d);
      Eigen::Map<RowMatrix>(y.data() + i * k * D, k, D) = in * (*shared)[static_cast<std::size_t>(i)].transpose();
    }
  };
  callbacks.apply_transpose = [shared, n, d, D](std::int64_t rows, std::span<const double> y, std::span<double> x) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t k = rows / n;
      const Eigen::Map<const RowMatrix> in(y.data() + i * k * D, k, D);
      Eigen::Map<RowMatrix>(x.data() + i * k * d, k, d) = in * (*shared)[static_cast<std::size_t>(i)];
    }
  };
  return {n, d, D, dtype, std::move(callbacks)};
}

}  // namespace bracket::test
