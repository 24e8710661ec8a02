#include "host/evaluate/images/cluster.h"

#include <algorithm>
#include <limits>
#include <string>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>

#include "bracket/error.h"

namespace bracket {
namespace {

constexpr int kLloydIterations = 100;
constexpr std::int64_t kPanelRows = 1024;  // the distances of a panel to 20 centres stay in the L2 cache

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MatrixView = Eigen::Map<const Matrix>;

// Centres far apart: each further one is a row drawn with probability proportional to its squared distance from the
// nearest centre so far, or any row when all rows coincide with one.
Matrix spread_centres(const MatrixView& x, std::int64_t clusters, const RandomKey& key) {
  const std::int64_t rows = x.rows();
  const auto uniform_row = [&](std::uint64_t draw) {
    return std::min(rows - 1, static_cast<std::int64_t>(random_uniform(key, draw) * static_cast<double>(rows)));
  };
  Matrix centres(clusters, x.cols());
  centres.row(0) = x.row(uniform_row(0));
  Eigen::VectorXd nearest = Eigen::VectorXd::Constant(rows, std::numeric_limits<double>::infinity());
  for (std::int64_t k = 1; k < clusters; ++k) {
    nearest = nearest.cwiseMin((x.rowwise() - centres.row(k - 1)).rowwise().squaredNorm());
    const double total = nearest.sum();
    std::int64_t chosen = uniform_row(static_cast<std::uint64_t>(k));
    if (total > 0) {
      double left = random_uniform(key, static_cast<std::uint64_t>(k)) * total;
      chosen = 0;
      for (std::int64_t i = 0; i < rows; ++i) {
        if (nearest(i) > 0) chosen = i;  // rounding may leave a rest behind the last row with a share
        left -= nearest(i);
        if (left <= 0 && nearest(i) > 0) break;
      }
    }
    centres.row(k) = x.row(chosen);
  }
  return centres;
}

// The nearest centre minimises |c|^2 / 2 - <x, c>; the lowest index wins a tie.
bool assign(std::vector<std::int64_t>& labels, const MatrixView& x, const Matrix& centres) {
  const Eigen::RowVectorXd half_norms = 0.5 * centres.rowwise().squaredNorm().transpose();
  bool changed = false;
  Matrix distance;
  for (std::int64_t first = 0; first < x.rows(); first += kPanelRows) {
    const std::int64_t count = std::min(kPanelRows, x.rows() - first);
    distance.noalias() = -x.middleRows(first, count) * centres.transpose();
    distance.rowwise() += half_norms;
    for (std::int64_t i = 0; i < count; ++i) {
      Eigen::Index best = 0;
      distance.row(i).minCoeff(&best);
      std::int64_t& label = labels[static_cast<std::size_t>(first + i)];
      changed = changed || label != best;
      label = best;
    }
  }
  return changed;
}

void move_centres(Matrix& centres, const MatrixView& x, const std::vector<std::int64_t>& labels) {
  Matrix sums = Matrix::Zero(centres.rows(), centres.cols());
  std::vector<std::int64_t> counts(static_cast<std::size_t>(centres.rows()));
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    const std::int64_t label = labels[static_cast<std::size_t>(i)];
    sums.row(label) += x.row(i);
    ++counts[static_cast<std::size_t>(label)];
  }
  for (std::int64_t k = 0; k < centres.rows(); ++k)
    if (const std::int64_t count = counts[static_cast<std::size_t>(k)]; count > 0)
      centres.row(k) = sums.row(k) / static_cast<double>(count);
}

}  // namespace

std::vector<std::int64_t> k_means(std::span<const double> x, std::int64_t rows, std::int64_t cols,
                                  std::int64_t clusters, const RandomKey& key) {
  const auto size = static_cast<std::int64_t>(x.size());
  if (rows < 0 || cols < 1 || size % cols != 0 || size / cols != rows)
    throw InvalidArgument("k_means: " + std::to_string(size) + " values are not " + std::to_string(rows) + " rows of " +
                          std::to_string(cols));
  if (clusters < 1 || clusters > rows)
    throw InvalidArgument("k_means: cannot make " + std::to_string(clusters) + " clusters of " + std::to_string(rows) +
                          " rows; give 1 to as many as there are rows");
  const MatrixView view(x.data(), rows, cols);
  Matrix centres = spread_centres(view, clusters, key);
  std::vector<std::int64_t> labels(static_cast<std::size_t>(rows), -1);
  for (int iteration = 0; iteration < kLloydIterations && assign(labels, view, centres); ++iteration)
    move_centres(centres, view, labels);
  return labels;
}

}  // namespace bracket
