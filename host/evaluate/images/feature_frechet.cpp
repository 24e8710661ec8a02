#include "host/evaluate/images/feature_frechet.h"

#include <algorithm>
#include <cmath>
#include <string>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>

#include "bracket/error.h"
#include "host/core/text.h"

namespace bracket {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MatrixView = Eigen::Map<const Matrix>;
using VectorView = Eigen::Map<const Eigen::VectorXd>;

// Eigenvalues that rounding has made negative count as zero: covariances of few or dead features are singular.
Matrix symmetric_root(const MatrixView& s) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> spectrum(s);
  const Eigen::VectorXd roots = spectrum.eigenvalues().cwiseMax(0).cwiseSqrt();
  return spectrum.eigenvectors() * roots.asDiagonal() * spectrum.eigenvectors().transpose();
}

void check(const FeatureMoments& m, std::size_t cols) {
  if (m.mean.size() == cols && m.covariance.size() == cols * cols) return;
  throw InvalidArgument("feature_frechet: expected moments of " + std::to_string(cols) + " features, got means of " +
                        std::to_string(m.mean.size()) + " and a covariance of " + std::to_string(m.covariance.size()) +
                        " values; both sets need the features of one classifier");
}

}  // namespace

FeatureMoments feature_moments(std::span<const double> features, std::int64_t rows, std::int64_t cols) {
  const auto size = static_cast<std::int64_t>(features.size());
  if (rows < 2 || cols < 1 || size % cols != 0 || size / cols != rows)
    throw InvalidArgument("feature_moments: " + std::to_string(size) + " values for " + std::to_string(rows) +
                          " rows of " + std::to_string(cols) +
                          " features; a covariance needs at least 2 rows and 1 feature");
  const auto bad = std::find_if(features.begin(), features.end(), [](double v) { return !std::isfinite(v); });
  if (bad != features.end())
    throw InvalidArgument("feature_moments: feature " + std::to_string((bad - features.begin()) % cols) + " of row " +
                          std::to_string((bad - features.begin()) / cols) + " is " + format_number(*bad) +
                          "; every value must be finite");
  const MatrixView x(features.data(), rows, cols);
  const Eigen::RowVectorXd mean = x.colwise().mean();
  const Matrix centred = x.rowwise() - mean;
  const Matrix covariance = centred.transpose() * centred / static_cast<double>(rows - 1);
  return {{mean.begin(), mean.end()}, {covariance.data(), covariance.data() + covariance.size()}};
}

double feature_frechet(const FeatureMoments& a, const FeatureMoments& b) {
  const std::size_t cols = a.mean.size();
  check(a, cols);
  check(b, cols);
  const auto n = static_cast<std::int64_t>(cols);
  const VectorView mean_a(a.mean.data(), n), mean_b(b.mean.data(), n);
  const MatrixView s_a(a.covariance.data(), n, n), s_b(b.covariance.data(), n, n);
  // tr (S1 S2)^(1/2) is the sum of the singular values of S1^(1/2) S2^(1/2). The eigenvalues of S1^(1/2) S2 S1^(1/2)
  // are their squares, where rounding of size 1e-16 in a null direction would return as 1e-8. A square matrix needs no
  // QR before its rotations.
  const Eigen::MatrixXd product = symmetric_root(s_a) * symmetric_root(s_b);
  const double root_trace =
      cols == 0 ? 0 : Eigen::JacobiSVD<Eigen::MatrixXd, Eigen::NoQRPreconditioner>(product).singularValues().sum();
  return std::max(0.0, (mean_a - mean_b).squaredNorm() + s_a.trace() + s_b.trace() - 2 * root_trace);
}

}  // namespace bracket
