// Dense linear algebra that tests judge kernels by: Eigen, compiled once for all of them.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <random>
#include <vector>

#include "bracket/jacobian.h"
#include "bracket/tensor.h"

namespace bracket::test {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

MatrixXd normal_matrix(std::int64_t rows, std::int64_t cols, std::mt19937_64& engine);

/// Q of the Householder QR of m: as many orthonormal columns as m has.
MatrixXd orthonormal_factor(const MatrixXd& m);
MatrixXd orthonormal_columns(std::int64_t rows, std::int64_t cols, std::mt19937_64& engine);

/// J [D, d] = U diag(s) V^T with random orthogonal factors, d = s.size().
MatrixXd with_singular_values(std::int64_t D, const std::vector<double>& s, std::mt19937_64& engine);

/// From `smallest` up to condition times that, ratios equal.
std::vector<double> geometric_spectrum(std::int64_t d, double smallest, double condition);

/// Ascending, by two-sided Jacobi, which finds small values to relative accuracy where scaling allows it.
VectorXd singular_values_of(const MatrixXd& j);
/// The same with the right singular vectors as columns.
struct RightVectors {
  MatrixXd vectors;
  VectorXd values;
};
RightVectors right_singular_vectors(const MatrixXd& j);
/// The same in long double, rounded at the end: known to some 1e-19 s_d.
VectorXd extended_singular_values_of(const MatrixXd& j);
/// Ascending, of a symmetric matrix.
VectorXd eigenvalues_of(const MatrixXd& symmetric);

/// Of a symmetric positive definite matrix.
MatrixXd logarithm_of(const MatrixXd& symmetric);

MatrixXd inverse_of(const MatrixXd& m);         ///< by partial pivoting
MatrixXd pseudo_inverse_of(const MatrixXd& m);  ///< of Moore and Penrose
double log_abs_determinant(const MatrixXd& m);
VectorXd solve(const MatrixXd& positive_definite, const VectorXd& right);

MatrixXd rounded(const MatrixXd& m, DType dtype);

/// Products with one matrix [D, d] per sample, behind the callbacks that an embedding program would use. d and D where
/// there is no matrix.
CallbackJacobian matrix_jacobian(std::vector<MatrixXd> matrices, DType dtype = DType::f64, std::int64_t d = 1,
                                 std::int64_t D = 1);

}  // namespace bracket::test
