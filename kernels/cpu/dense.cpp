// Small dense algebra per sample, in double whatever the dtype of the tangents. A sample is the work of one thread.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/jacobi.h"
#include "kernels/cpu/lane_sum.h"
#include "kernels/formula/jacobi.h"

namespace bracket {
namespace {

using RowMajorMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// From this K on Eigen's blocked kernels beat plain loops.
constexpr std::int64_t kBlockedK = 8;
/// Columns of a tangent block converted to double at a time: with K = 128 they fill a 128 KiB half of an L2 cache.
constexpr std::int64_t kPanel = 128;

/// Memory of this thread that only ever grows, so that a steady state allocates nothing.
double* scratch(std::int64_t elements) {
  thread_local std::vector<double> memory;
  if (memory.size() < static_cast<std::size_t>(elements)) memory.resize(static_cast<std::size_t>(elements));
  return memory.data();
}

Eigen::Map<RowMajorMatrix, 0, Eigen::OuterStride<>> panel_view(double* panel, std::int64_t k, std::int64_t width) {
  return {panel, k, width, Eigen::OuterStride<>(kPanel)};
}

/// g = t t^T for one sample; t holds k rows.
template <class T>
void gram_of_sample(double* g, const Matrix<T>& t, std::int64_t k) {
  if (k < kBlockedK) {
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) g[i * k + j] = g[j * k + i] = inner_product(t.row(i), t.row(j), t.cols);
    }
    return;
  }
  double* const panel = scratch(k * kPanel);
  Eigen::Map<RowMajorMatrix> product(g, k, k);
  product.setZero();
  for (std::int64_t first = 0; first < t.cols; first += kPanel) {
    const std::int64_t width = std::min(kPanel, t.cols - first);
    for (std::int64_t i = 0; i < k; ++i) std::copy_n(t.row(i) + first, width, panel + i * kPanel);
    product.selfadjointView<Eigen::Lower>().rankUpdate(panel_view(panel, k, width));
  }
  product.triangularView<Eigen::StrictlyUpper>() = product.transpose();
}

/// Lower factor in place, zeros above the diagonal. False, with g undefined, when a pivot is not positive and finite.
bool factorize(double* g, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i) {
    double* const row = g + i * k;
    for (std::int64_t j = 0; j < i; ++j) {
      row[j] = (row[j] - inner_product(row, g + j * k, j)) / g[j * k + j];
    }
    const double pivot = row[i] - inner_product(row, row, i);
    if (!(pivot > 0 && pivot <= std::numeric_limits<double>::max())) return false;
    row[i] = std::sqrt(pivot);
    std::fill(row + i + 1, row + k, 0.0);
  }
  return true;
}

/// L x = b or L^T x = b in place, on `width` columns kPanel apart.
void solve_panel(double* x, const double* l, std::int64_t k, std::int64_t width, bool transposed) {
  if (k >= kBlockedK) {
    auto columns = panel_view(x, k, width);
    const Eigen::Map<const RowMajorMatrix> factor(l, k, k);
    if (transposed) {
      factor.transpose().triangularView<Eigen::Upper>().solveInPlace(columns);
    } else {
      factor.triangularView<Eigen::Lower>().solveInPlace(columns);
    }
    return;
  }
  for (std::int64_t step = 0; step < k; ++step) {
    const std::int64_t i = transposed ? k - 1 - step : step;
    double* const row = x + i * kPanel;
    for (std::int64_t solved = 0; solved < step; ++solved) {
      const std::int64_t j = transposed ? k - 1 - solved : solved;
      const double factor = transposed ? l[j * k + i] : l[i * k + j];
      const double* const other = x + j * kPanel;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) row[c] -= factor * other[c];
    }
    const double pivot = l[i * k + i];
    for (std::int64_t c = 0; c < width; ++c) row[c] /= pivot;
  }
}

/// Off-diagonal elements this small next to their diagonal ones do not move the eigenvalues of a positive definite
/// matrix by more than rounding, relative to each eigenvalue (Demmel and Veselic, 1992).
bool negligible(double diagonal_p, double diagonal_q, double off) {
  return std::abs(off) <= 0x1p-53 * std::sqrt(std::abs(diagonal_p)) * std::sqrt(std::abs(diagonal_q));
}

/// The rotation in the plane (p, q) that makes a[p, q] zero; rows of v collect the rotations.
void annihilate(double* a, double* v, std::int64_t k, std::int64_t p, std::int64_t q) {
  const double off = a[p * k + q];
  const double diagonal_p = a[p * k + p], diagonal_q = a[q * k + q];
  const auto [c, s, tangent] = formula::jacobi_rotation(diagonal_p, diagonal_q, off);
  rotate(a + p * k, a + q * k, k, c, s);
  for (std::int64_t i = 0; i < k; ++i) {
    a[i * k + p] = a[p * k + i];
    a[i * k + q] = a[q * k + i];
  }
  a[p * k + p] = diagonal_p - tangent * off;
  a[q * k + q] = diagonal_q + tangent * off;
  a[p * k + q] = a[q * k + p] = 0;
  rotate(v + p * k, v + q * k, k, c, s);
}

/// a becomes diagonal, row i of v the eigenvector of a[i, i].
void diagonalize(double* a, double* v, std::int64_t k) {
  set_identity(v, k);
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMaxJacobiSweeps; ++sweep) {
    rotated = false;
    for (std::int64_t p = 0; p < k; ++p) {
      for (std::int64_t q = p + 1; q < k; ++q) {
        if (negligible(a[p * k + p], a[q * k + q], a[p * k + q])) continue;
        annihilate(a, v, k, p, q);
        rotated = true;
      }
    }
  }
}

/// The eigenpairs of one sample, ascending, each vector with its largest component positive.
void eigen_of_sample(double* values, double* vectors, double* a, std::int64_t k) {
  if (not_finite(values, vectors, a, k)) return;
  double* const v = scratch(k * k);
  diagonalize(a, v, k);
  write_ascending(values, vectors, v, k, [a, k](std::int64_t i) { return a[i * k + i]; });
}

}  // namespace

void CpuOps::do_gram(Tensor g, Tensor t) {
  const std::int64_t k = g.extent(1);
  dispatch(t.dtype(), [&]<class T>() {
    const Matrix<T> tangents = matrix<T>(t);
    double* const grams = g.as<double>();
    parallel_rows(g.rows(), k * k * (tangents.cols + 4), team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        gram_of_sample(grams + i * k * k, Matrix<T>{tangents.row(i * k), k, tangents.cols, tangents.ld}, k);
      }
    });
  });
}

void CpuOps::do_cholesky(Tensor g) {
  const std::int64_t k = g.extent(1);
  double* const grams = g.as<double>();
  parallel_rows(g.rows(), k * k * k / 3 + 40 * k, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      double* const factor = grams + i * k * k;
      if (!factorize(factor, k)) std::fill_n(factor, k * k, std::numeric_limits<double>::quiet_NaN());
    }
  });
}

void CpuOps::do_triangular_solve(Tensor x, Tensor l, Tensor b, bool transposed) {
  const std::int64_t k = l.extent(1);
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> solution = matrix<T>(x), right = matrix<T>(b);
    const double* const factors = l.as<double>();
    parallel_rows(l.rows(), k * (k + 6) * right.cols, team_, [&](std::int64_t first_sample, std::int64_t last) {
      double* const panel = scratch(k * kPanel);
      for (std::int64_t sample = first_sample; sample < last; ++sample) {
        for (std::int64_t first = 0; first < right.cols; first += kPanel) {
          const std::int64_t width = std::min(kPanel, right.cols - first);
          for (std::int64_t i = 0; i < k; ++i) {
            std::copy_n(right.row(sample * k + i) + first, width, panel + i * kPanel);
          }
          solve_panel(panel, factors + sample * k * k, k, width, transposed);
          for (std::int64_t i = 0; i < k; ++i) {
            std::transform(panel + i * kPanel, panel + i * kPanel + width, solution.row(sample * k + i) + first,
                           [](double value) { return static_cast<T>(value); });
          }
        }
      }
    });
  });
}

void CpuOps::do_log_diagonal_sum(Tensor h, Tensor l) {
  const std::int64_t k = l.extent(1);
  const double* const factors = l.as<double>();
  dispatch(h.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(h);
    parallel_rows(out.rows, 40 * k, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const double* const factor = factors + i * k * k;
        double sum = 0;
        for (std::int64_t j = 0; j < k; ++j) sum += std::log(factor[j * k + j]);
        *out.row(i) = static_cast<T>(sum);
      }
    });
  });
}

void CpuOps::do_symmetric_eigen(Tensor values, Tensor vectors, Tensor a) {
  const std::int64_t k = a.extent(1);
  const Matrix<double> eigenvalues = matrix<double>(values);
  double* const eigenvectors = vectors.as<double>();
  double* const matrices = a.as<double>();
  parallel_rows(a.rows(), 32 * k * k * k + 200, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      eigen_of_sample(eigenvalues.row(i), eigenvectors + i * k * k, matrices + i * k * k, k);
    }
  });
}

void CpuOps::do_min_singular(Tensor h, Tensor v, Tensor scale, Tensor values, Tensor vectors) {
  const Matrix<double> eigenvalues = matrix<double>(values);
  const double* const eigenvectors = vectors.as<double>();
  const std::int64_t k = eigenvalues.cols;
  const auto dimension = static_cast<double>(k);
  dispatch(h.dtype(), [&]<class T>() {
    const Matrix<T> log_volume = matrix<T>(h), vector = matrix<T>(v), factor = matrix<T>(scale);
    parallel_rows(eigenvalues.rows, k + 40, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        // A Gram matrix has no negative eigenvalue: zero or less means singular to rounding.
        const double smallest =
            *eigenvalues.row(i) > 0 ? *eigenvalues.row(i) : std::numeric_limits<double>::quiet_NaN();
        *log_volume.row(i) = static_cast<T>(dimension / 2 * std::log(smallest));
        *factor.row(i) = static_cast<T>(dimension / smallest);
        for (std::int64_t j = 0; j < k; ++j) vector.row(i)[j] = static_cast<T>(eigenvectors[i * k * k + j]);
      }
    });
  });
}

void CpuOps::do_combine_tangents(Tensor y, Tensor t, Tensor v) {
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), tangents = matrix<T>(t), weights = matrix<T>(v);
    const std::int64_t k = weights.cols;
    // In double: along the weakest direction the tangents cancel almost completely.
    parallel_rows(out.rows, 2 * k * out.cols, team_, [&](std::int64_t first_sample, std::int64_t last) {
      for (std::int64_t i = first_sample; i < last; ++i) {
        for (std::int64_t first = 0; first < out.cols; first += kPanel) {
          const std::int64_t width = std::min(kPanel, out.cols - first);
          double sums[kPanel];
          std::fill_n(sums, width, 0.0);
          for (std::int64_t j = 0; j < k; ++j) {
            const double weight = static_cast<double>(weights.row(i)[j]);
            const T* const tangent = tangents.row(i * k + j) + first;
            for (std::int64_t c = 0; c < width; ++c) sums[c] += weight * static_cast<double>(tangent[c]);
          }
          T* const to = out.row(i) + first;
          for (std::int64_t c = 0; c < width; ++c) to[c] = static_cast<T>(sums[c]);
        }
      }
    });
  });
}

void CpuOps::do_scale_rows(Tensor y, Tensor x, Tensor scale, double factor) {
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), in = matrix<T>(x), scales = matrix<T>(scale);
    parallel_rows(out.rows, out.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const T row_factor = static_cast<T>(factor * static_cast<double>(*scales.row(i)));
        for (std::int64_t j = 0; j < out.cols; ++j) out.row(i)[j] = row_factor * in.row(i)[j];
      }
    });
  });
}

void CpuOps::do_tile_identity(Tensor t, std::int64_t samples) {
  dispatch(t.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(t);
    const std::int64_t k = out.cols;
    parallel_rows(samples * k, k, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        std::fill_n(out.row(row), k, T{0});
        out.row(row)[row % k] = 1;
      }
    });
  });
}

}  // namespace bracket
