// Operators with known matrices, one per sample, behind the callbacks that an embedding program would use.
#pragma once

#include <Eigen/Dense>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "bracket/jacobian.h"
#include "tests/ops_fixture.h"

namespace bracket::test {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline std::mt19937_64 test_engine(std::uint64_t salt) {
  std::seed_seq sequence{test_seed(), salt};
  return std::mt19937_64(sequence);
}

inline MatrixXd normal_matrix(std::int64_t rows, std::int64_t cols, std::mt19937_64& engine) {
  std::normal_distribution<double> normal;
  MatrixXd m(rows, cols);
  for (std::int64_t j = 0; j < cols; ++j)
    for (std::int64_t i = 0; i < rows; ++i) m(i, j) = normal(engine);
  return m;
}

inline MatrixXd orthonormal_columns(std::int64_t rows, std::int64_t cols, std::mt19937_64& engine) {
  const Eigen::HouseholderQR<MatrixXd> qr(normal_matrix(rows, cols, engine));
  return qr.householderQ() * MatrixXd::Identity(rows, cols);
}

/// J [D, d] = U diag(s) V^T with random orthogonal factors, d = s.size().
inline MatrixXd with_singular_values(std::int64_t D, const std::vector<double>& s, std::mt19937_64& engine) {
  const auto d = static_cast<std::int64_t>(s.size());
  const MatrixXd u = orthonormal_columns(D, d, engine), v = orthonormal_columns(d, d, engine);
  return u * Eigen::Map<const VectorXd>(s.data(), d).asDiagonal() * v.transpose();
}

/// From `smallest` up to condition times that, ratios equal.
inline std::vector<double> geometric_spectrum(std::int64_t d, double smallest, double condition) {
  std::vector<double> s(static_cast<std::size_t>(d));
  for (std::size_t k = 0; k < s.size(); ++k)
    s[k] = smallest * (d == 1 ? 1 : std::pow(condition, static_cast<double>(k) / static_cast<double>(d - 1)));
  return s;
}

/// Singular values ascending, by LAPACK-quality two-sided Jacobi.
inline VectorXd singular_values_of(const MatrixXd& j) {
  return Eigen::JacobiSVD<MatrixXd>(j).singularValues().reverse();
}

inline MatrixXd rounded(const MatrixXd& j, DType dtype) {
  return dtype == DType::f32 ? MatrixXd(j.cast<float>().cast<double>()) : j;
}

/// Products with one matrix [D, d] per sample.
inline CallbackJacobian matrix_jacobian(std::vector<MatrixXd> matrices, DType dtype = DType::f64, std::int64_t d = 1,
                                        std::int64_t D = 1) {
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

/// Row block [rows, cols] of a downloaded matrix.
inline MatrixXd block_rows(const HostMatrix& m, std::int64_t first, std::int64_t count) {
  return Eigen::Map<const RowMatrix>(m.values.data() + first * m.cols, count, m.cols);
}

inline HostMatrix host_matrix(const MatrixXd& m) {
  HostMatrix result(m.rows(), m.cols());
  Eigen::Map<RowMatrix>(result.values.data(), m.rows(), m.cols()) = m;
  return result;
}

/// What a planned arena's work downloads, from the run that computes.
template <class Result>
Result planned(Context& context, const std::function<Result(Ops&, Arena&)>& work) {
  Result result;
  with_planned_arena(context, [&](Ops& ops, Arena& arena) {
    Result now = work(ops, arena);
    if (!ops.planning()) result = std::move(now);
  });
  return result;
}

/// Nothing to read in a dry run.
inline HostMatrix download_from(Context& context, Ops& ops, const Tensor& x) {
  if (x.absent()) return {};
  if (ops.planning()) return HostMatrix(x.rows(), x.cols());
  return download(context, x);
}

}  // namespace bracket::test
