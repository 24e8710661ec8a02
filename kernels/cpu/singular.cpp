// Factors of Jacobians that never square their condition number, in double. A sample is the work of one thread.
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

/// Of magnitudes; a NaN is none.
double largest_of(const double* x, std::int64_t count) {
  double largest = 0;
  for (std::int64_t e = 0; e < count; ++e) largest = std::max(largest, std::abs(x[e]));
  return largest;
}

void scale_by_power(double* x, std::int64_t count, int exponent) {
  for (std::int64_t e = 0; e < count; ++e) x[e] = std::ldexp(x[e], exponent);
}

/// T = L Q of one sample: row-major T is column-major J, whose QR factorisation Eigen computes, of elements of about 1
/// at most, whose squares stay in range.
void factor_sample(double* l, const Matrix<double>& t, std::int64_t k) {
  if (k == 0) return;
  using Columns = Eigen::Map<Eigen::MatrixXd, 0, Eigen::OuterStride<>>;
  Columns columns(t.data, t.cols, k, Eigen::OuterStride<>(t.ld));
  double largest = 0;
  for (std::int64_t i = 0; i < k; ++i) largest = std::max(largest, largest_of(t.row(i), t.cols));
  const int exponent = formula::scaling_exponent(largest);
  for (std::int64_t i = 0; i < k && exponent != 0; ++i) scale_by_power(t.row(i), t.cols, -exponent);
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(columns);
  columns = qr.householderQ() * Eigen::MatrixXd::Identity(t.cols, k);
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < k; ++j) l[i * k + j] = j <= i ? qr.matrixQR()(j, i) : 0;
  }
  for (std::int64_t j = 0; j < k; ++j) {
    if (!(l[j * k + j] < 0)) continue;
    for (std::int64_t i = j; i < k; ++i) l[i * k + j] = -l[i * k + j];
    columns.col(j) = -columns.col(j);
  }
  if (exponent != 0) scale_by_power(l, k * k, exponent);
}

/// Rotates rows p and q of a, and of v, until those of a are orthogonal; false when they are. Inner products of k terms
/// are known to about sqrt(k) roundings. Rows of no length are orthogonal to all: one that is in the span of the others
/// shrinks from sweep to sweep until its squares underflow.
bool orthogonalize(double* a, double* v, std::int64_t k, std::int64_t p, std::int64_t q) {
  double* const x = a + p * k;
  double* const y = a + q * k;
  const double xx = inner_product(x, x, k), yy = inner_product(y, y, k), xy = inner_product(x, y, k);
  if (xx < formula::kLeastSquares || yy < formula::kLeastSquares) return false;
  if (std::abs(xy) <= 0x1p-52 * std::sqrt(static_cast<double>(k)) * std::sqrt(xx) * std::sqrt(yy)) return false;
  const formula::JacobiRotation rotation = formula::jacobi_rotation(xx, yy, xy);
  rotate(x, y, k, rotation.cosine, rotation.sine);
  rotate(v + p * k, v + q * k, k, rotation.cosine, rotation.sine);
  return true;
}

/// One-sided Jacobi (Hestenes 1958; accuracy: Demmel and Veselic 1992) on elements of about 1 at most.
void singular_sample(double* values, double* vectors, double* a, std::int64_t k) {
  if (not_finite(values, vectors, a, k)) return;
  const int exponent = formula::scaling_exponent(largest_of(a, k * k));
  scale_by_power(a, k * k, -exponent);
  thread_local std::vector<double> rotations;
  rotations.resize(static_cast<std::size_t>(k * k));
  double* const v = rotations.data();
  set_identity(v, k);
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMaxJacobiSweeps; ++sweep) {
    rotated = false;
    for (std::int64_t p = 0; p < k; ++p) {
      for (std::int64_t q = p + 1; q < k; ++q) rotated = orthogonalize(a, v, k, p, q) || rotated;
    }
  }
  if (rotated) std::fill_n(a, k * k, std::numeric_limits<double>::quiet_NaN());
  if (not_finite(values, vectors, a, k)) return;
  write_ascending(values, vectors, v, k, [=](std::int64_t i) {
    const double squares = inner_product(a + i * k, a + i * k, k);
    return squares < formula::kLeastSquares ? 0 : std::ldexp(std::sqrt(squares), exponent);
  });
}

}  // namespace

void CpuOps::do_lq_factor(Tensor l, Tensor t) {
  const std::int64_t k = l.extent(1);
  const Matrix<double> rows = matrix<double>(t);
  double* const factors = l.as<double>();
  parallel_rows(
      l.rows(), 4 * k * k * rows.cols + 1000, team_,
      [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i)
          factor_sample(factors + i * k * k, Matrix<double>{rows.row(i * k), k, rows.cols, rows.ld}, k);
      },
      1);
}

void CpuOps::do_singular_values(Tensor values, Tensor vectors, Tensor a) {
  const std::int64_t k = a.extent(1);
  const Matrix<double> singular = matrix<double>(values);
  double* const v = vectors.as<double>();
  double* const matrices = a.as<double>();
  parallel_rows(a.rows(), 60 * k * k * k + 200, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i)
      singular_sample(singular.row(i), v + i * k * k, matrices + i * k * k, k);
  });
}

void CpuOps::do_log_volume(Tensor h, Tensor deficiency, Tensor values, double tolerance) {
  const Matrix<double> singular = matrix<double>(values);
  double* const volumes = h.as<double>();
  double* const missing = deficiency.as<double>();
  parallel_rows(singular.rows, 40 * singular.cols, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const double* const s = singular.row(i);
      const std::int64_t k = singular.cols;
      double sum = 0;
      std::int64_t small = 0;
      for (std::int64_t j = 0; j < k; ++j) {
        sum += std::log(s[j]);
        if (s[j] <= tolerance * s[k - 1]) ++small;
      }
      volumes[i] = small > 0 ? -std::numeric_limits<double>::infinity() : sum;
      missing[i] = static_cast<double>(small);
    }
  });
}

void CpuOps::do_rank_threshold(Tensor h, Tensor scale, Tensor deficient, Tensor mu, Tensor largest, double tolerance) {
  dispatch(scale.dtype(), [&]<class T>() {
    T* const scales = scale.as<T>();
    double* const volumes = h.as<double>();
    double* const missing = deficient.as<double>();
    const double* const values = mu.as<double>();
    const double* const ends = largest.as<double>();
    const std::int64_t n = largest.rows(), block = n == 0 ? 0 : mu.rows() / n;
    for (std::int64_t i = 0; i < n; ++i) {
      missing[i] = 0;
      for (std::int64_t k = i * block; k < (i + 1) * block; ++k) {
        if (!(values[k] <= tolerance * ends[i])) continue;
        volumes[k] = -std::numeric_limits<double>::infinity();
        scales[k] = 0;
        ++missing[i];
      }
    }
  });
}

}  // namespace bracket
