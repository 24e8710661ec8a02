// Golub-Kahan bidiagonalisation per row (Golub and Kahan 1965), reorthogonalised on the side of the directions only
// (Simon and Zha 2000; Barlow 2013), and what is read off B. A row is the work of one thread; sums are in double.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lane_sum.h"
#include "kernels/formula/bidiagonal.h"

namespace bracket {
namespace {

template <class T>
double length(const T* x, std::int64_t count) {
  return euclidean_length(count, [x](std::int64_t j) { return static_cast<double>(x[j]); });
}

/// x <- x / norm, zero where norm is; 1 / norm may be infinite.
template <class T>
void divide(T* y, const T* x, std::int64_t count, double norm) {
  for (std::int64_t j = 0; j < count; ++j) y[j] = static_cast<T>(norm == 0 ? 0 : static_cast<double>(x[j]) / norm);
}

/// r <- r - c v
template <class T>
void subtract(T* r, double c, const T* v, std::int64_t count) {
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j)
    r[j] = static_cast<T>(static_cast<double>(r[j]) - c * static_cast<double>(v[j]));
}

/// r <- r - V^T V r for rows [first, first + count) of V, twice.
template <class T>
void remove_span(T* r, const Matrix<T>& basis, std::int64_t first, std::int64_t count) {
  for (int turn = 0; turn < 2; ++turn) {
    for (std::int64_t j = first; j < first + count; ++j) {
      const T* const v = basis.row(j);
      subtract(r, inner_product(r, v, basis.cols), v, basis.cols);
    }
  }
}

/// r = the coordinate direction furthest from the span of rows [first, first + count) of V, the first of several.
template <class T>
void furthest_coordinate(T* r, const Matrix<T>& basis, std::int64_t first, std::int64_t count) {
  std::int64_t chosen = 0;
  double least = std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < basis.cols; ++j) {
    double inside = 0;
    for (std::int64_t k = first; k < first + count; ++k)
      inside += static_cast<double>(basis.row(k)[j]) * static_cast<double>(basis.row(k)[j]);
    if (inside < least) {
      least = inside;
      chosen = j;
    }
  }
  std::fill_n(r, basis.cols, T{0});
  r[chosen] = 1;
}

}  // namespace

void CpuOps::do_normalize_rows(Tensor y, Tensor norm, Tensor x) {
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(y), in = matrix<T>(x);
    double* const norms = norm.as<double>();
    parallel_rows(in.rows, 4 * in.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        norms[i] = length(in.row(i), in.cols);
        divide(out.row(i), in.row(i), in.cols, norms[i]);
      }
    });
  });
}

void CpuOps::do_golub_kahan_left(Tensor u, Tensor alpha, Tensor jv, Tensor beta, std::int64_t step) {
  dispatch(u.dtype(), [&]<class T>() {
    const Matrix<T> left = matrix<T>(u), image = matrix<T>(jv);
    const Matrix<double> diagonal = matrix<double>(alpha), above = matrix<double>(beta);
    parallel_rows(left.rows, 8 * left.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* const to = left.row(i);
        const T* const from = image.row(i);
        const double before = length(from, left.cols), off = step == 0 ? 0 : above.row(i)[step - 1];
        for (std::int64_t j = 0; j < left.cols; ++j) {
          const double other = step == 0 ? 0 : static_cast<double>(to[j]);
          to[j] = static_cast<T>(static_cast<double>(from[j]) - off * other);
        }
        double norm = length(to, left.cols);
        if (norm <= formula::kBreakdown<T> * before) norm = 0;
        divide(to, to, left.cols, norm);
        diagonal.row(i)[step] = norm;
      }
    });
  });
}

void CpuOps::do_golub_kahan_right(Tensor basis, Tensor beta, Tensor w, Tensor alpha, std::int64_t step) {
  dispatch(w.dtype(), [&]<class T>() {
    const Matrix<T> directions = matrix<T>(basis), right = matrix<T>(w);
    const Matrix<double> diagonal = matrix<double>(alpha), above = matrix<double>(beta);
    const std::int64_t d = right.cols, k = diagonal.cols;
    parallel_rows(right.rows, 8 * (step + 2) * d, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* const r = right.row(i);
        const double before = length(r, d);
        subtract(r, diagonal.row(i)[step], directions.row(i * k + step), d);
        remove_span(r, directions, i * k, step + 1);
        double norm = length(r, d);
        if (norm <= formula::kBreakdown<T> * before || step + 1 == d) norm = 0;
        above.row(i)[step] = norm;
        if (step + 1 == k) continue;
        if (norm == 0 && step + 1 < d) {
          furthest_coordinate(r, directions, i * k, step + 1);
          remove_span(r, directions, i * k, step + 1);
          norm = length(r, d);
        }
        divide(directions.row(i * k + step + 1), r, d, norm);
      }
    });
  });
}

void CpuOps::do_bidiagonal(Tensor a, Tensor alpha, Tensor beta) {
  const Matrix<double> diagonal = matrix<double>(alpha), above = matrix<double>(beta);
  const std::int64_t k = a.extent(1);
  double* const blocks = a.as<double>();
  parallel_rows(a.extent(0), k * k, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      double* const block = blocks + i * k * k;
      std::fill_n(block, k * k, 0.0);
      for (std::int64_t j = 0; j < k; ++j) {
        block[j * k + j] = diagonal.row(i)[j];
        if (j + 1 < k) block[(j + 1) * k + j] = above.row(i)[j];
      }
    }
  });
}

void CpuOps::do_quadrature_rules(Tensor nodes, Tensor shares, Tensor alpha, Tensor beta, Tensor lower,
                                 Tensor /*workspace*/) {
  const Matrix<double> diagonal = matrix<double>(alpha), above = matrix<double>(beta), ends = matrix<double>(lower);
  const Matrix<double> points = matrix<double>(nodes), parts = matrix<double>(shares);
  const std::int64_t k = points.rows, m = diagonal.rows, per_end = ends.rows == 0 ? 1 : m / ends.rows;
  const std::int64_t rules = m == 0 ? 0 : points.cols / m;
  parallel_rows(points.cols, 300 * k * k + 200, team_, [&](std::int64_t first, std::int64_t last) {
    thread_local std::vector<double> memory;
    memory.resize(static_cast<std::size_t>(3 * k));
    const formula::BidiagonalRow work{memory.data(), memory.data() + k, memory.data() + 2 * k, 1};
    for (std::int64_t column = first; column < last; ++column) {
      const std::int64_t i = column % m, size = k - rules + 1 + column / m, empty = k - size;
      const double* const x = diagonal.row(i);
      const double* const y = above.row(i);
      const double end = ends.rows == 0 ? -1 : formula::radau_element(x, y, k - 1, *ends.row(i / per_end));
      formula::gauss_rule(work, x, y, end, size, formula::kSweepsPerValue * size);
      for (std::int64_t j = 0; j < k; ++j) {
        points.row(j)[column] = j < empty ? 0 : work.d[j - empty];
        parts.row(j)[column] = j < empty ? 0 : work.z[j - empty];
      }
    }
  });
}

void CpuOps::do_quadrature(Tensor sum, Tensor zeros, Tensor nodes, Tensor shares, Tensor norm, Tensor weight,
                           const SpectralFunction& f, double tolerance) {
  const Matrix<double> points = matrix<double>(nodes), parts = matrix<double>(shares), weights = matrix<double>(weight);
  const std::int64_t m = norm.rows(), rules = weights.rows == 0 ? 1 : weights.rows;
  const double* const norms = norm.as<double>();
  double* const out = sum.as<double>();
  double* const marks = zeros.as<double>();
  parallel_rows(m, 40 * rules * points.rows, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      out[i] = marks[i] = 0;
      for (std::int64_t j = 0; j < rules; ++j) {
        const double factor = (weights.rows == 0 ? 1 : weights.row(j)[i]) * norms[i] * norms[i];
        if (factor == 0) continue;
        const std::int64_t column = j * m + i;
        const formula::RuleSum rule =
            formula::rule_sum(points.data + column, parts.data + column, points.ld, points.rows, f, tolerance);
        out[i] += formula::weighted_sum(factor, rule.value);
        if (rule.zero) marks[i] = 1;
      }
    }
  });
}

void CpuOps::do_spectral_coefficients(Tensor coefficients, Tensor values, Tensor vectors, Tensor norm,
                                      const SpectralFunction& f, double tolerance) {
  dispatch(coefficients.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(coefficients);
    const Matrix<double> singular = matrix<double>(values);
    const double* const v = vectors.as<double>();
    const double* const norms = norm.as<double>();
    const std::int64_t k = singular.cols;
    parallel_rows(out.rows, 40 * k * k + out.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const double* const s = singular.row(i);
        for (std::int64_t j = 0; j < out.cols; ++j)
          out.row(i)[j] =
              static_cast<T>(j < k ? norms[i] * formula::spectral_component(s, v + i * k * k, k, f, tolerance, j) : 0);
      }
    });
  });
}

void CpuOps::do_singular_certificate(Tensor h, Tensor scale, Tensor mu, Tensor distance, Tensor w, Tensor v, Tensor jv,
                                     double dimension) {
  dispatch(v.dtype(), [&]<class T>() {
    const Matrix<T> product = matrix<T>(w), direction = matrix<T>(v), image = matrix<T>(jv), factor = matrix<T>(scale);
    double* const volumes = h.as<double>();
    double* const quotients = mu.as<double>();
    double* const bounds = distance.as<double>();
    parallel_rows(
        direction.rows, 2 * image.cols + 8 * direction.cols + 100, team_, [&](std::int64_t first, std::int64_t last) {
          for (std::int64_t i = first; i < last; ++i) {
            const T* const x = direction.row(i);
            const T* const y = product.row(i);
            const double size = length(x, direction.cols), value = length(image.row(i), image.cols) / size;
            // J^T u - mu v: divided by mu first, what J^T J v or mu^2 lose to underflow makes it larger, not smaller.
            const double residual = euclidean_length(direction.cols, [&](std::int64_t j) {
              return static_cast<double>(y[j]) / value - value * static_cast<double>(x[j]);
            });
            quotients[i] = value;
            volumes[i] = dimension * std::log(value);
            *factor.row(i) = value == 0 ? T{0} : formula::stored_factor<T>(dimension / value / size / value / size);
            bounds[i] = value == 0 ? 0 : formula::nearest_distance(value, residual / size);
          }
        });
  });
}

}  // namespace bracket
