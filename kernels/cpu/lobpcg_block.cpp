// The smallest singular values of every sample's Jacobian by locally optimal block preconditioned conjugate gradients
// (Knyazev 2001). A sample is the work of one thread; sums are in double.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lane_sum.h"
#include "kernels/formula/block_ritz.h"

namespace bracket {
namespace {

/// A team of one.
template <int B>
struct OneThread {
  static constexpr int kVectors = formula::BlockRitz<B>::kVectors;

  static int first() { return 0; }
  static int count() { return 1; }
  static void sync() {}
  static void diagonalize(double* a, double* vectors, int size) {
    double matrix[kVectors][kVectors], rotations[kVectors][kVectors];
    std::copy_n(a, kVectors * kVectors, &matrix[0][0]);
    formula::diagonalize_small<kVectors>(matrix, rotations, size);
    std::copy_n(&matrix[0][0], kVectors * kVectors, a);
    std::copy_n(&rotations[0][0], kVectors * kVectors, vectors);
  }
};

/// Rows of one sample in the order of the basis {V, P, R}.
template <int B, class T>
void sample_rows(T** rows, const Matrix<T>& v, const Matrix<T>& p, const Matrix<T>& r, std::int64_t sample) {
  for (int k = 0; k < B; ++k) {
    rows[k] = v.row(sample * B + k);
    rows[B + k] = p.row(sample * B + k);
    rows[2 * B + k] = r.row(sample * B + k);
  }
}

template <int B, class T>
void inner_products(double* products, T* const* rows, std::int64_t count) {
  constexpr int kVectors = formula::BlockRitz<B>::kVectors;
  for (int i = 0; i < kVectors; ++i) {
    for (int j = 0; j <= i; ++j)
      products[i * kVectors + j] = products[j * kVectors + i] = inner_product(rows[i], rows[j], count);
  }
}

template <int B, class T>
void recombine(T* const* rows, std::int64_t count, const formula::BlockRitz<B>& solution) {
  constexpr int kVectors = formula::BlockRitz<B>::kVectors;
  // Columns at a time whose sums stay in the first-level cache.
  constexpr std::int64_t kColumns = 128;
  for (std::int64_t first = 0; first < count; first += kColumns) {
    const std::int64_t width = std::min(kColumns, count - first);
    double sums[2 * B][kColumns] = {};
    for (int i = 0; i < kVectors; ++i) {
      const T* const x = rows[i] + first;
      for (int k = 0; k < B; ++k) {
        const double v = solution.v[k * kVectors + i], p = solution.p[k * kVectors + i];
#pragma omp simd
        for (std::int64_t j = 0; j < width; ++j) {
          sums[k][j] += v * static_cast<double>(x[j]);
          sums[B + k][j] += p * static_cast<double>(x[j]);
        }
      }
    }
    for (int k = 0; k < 2 * B; ++k) {
      for (std::int64_t j = 0; j < width; ++j) rows[k][first + j] = static_cast<T>(sums[k][j]);
    }
  }
}

/// Matrices of the basis and of its images, in the order {V, P, R}.
template <class T>
struct Groups {
  Matrix<T> v, p, r;
};

template <int B, class T>
void update_samples(const Groups<T>& basis, const Groups<T>& image, const Matrix<double>& largest, ThreadTeam& team) {
  constexpr int kVectors = formula::BlockRitz<B>::kVectors;
  const std::int64_t d = basis.v.cols, D = image.v.cols;
  // 8 sweeps of Jacobi, and the rest of the small problem.
  constexpr std::int64_t kSolve = std::int64_t{60} * kVectors * kVectors * kVectors;
  parallel_rows(
      basis.v.rows / B, 2 * kVectors * kVectors * (d + D) + kSolve, team,
      [&](std::int64_t first, std::int64_t last) {
        formula::BlockRitz<B> solution;
        OneThread<B> alone;
        for (std::int64_t i = first; i < last; ++i) {
          T* vectors[kVectors];
          T* images[kVectors];
          sample_rows<B>(vectors, basis.v, basis.p, basis.r, i);
          sample_rows<B>(images, image.v, image.p, image.r, i);
          inner_products<B>(solution.basis, vectors, d);
          inner_products<B>(solution.image, images, D);
          formula::block_ritz_step<B>(alone, solution, formula::kRoundoff<T>);
          recombine<B>(vectors, d, solution);
          recombine<B>(images, D, solution);
          if (largest.rows > 0) *largest.row(i) = std::max(*largest.row(i), solution.largest);
        }
      },
      1);
}

template <class T>
void exchange_rows(const Matrix<T>& x, std::int64_t a, std::int64_t b) {
  std::swap_ranges(x.row(a), x.row(a) + x.cols, x.row(b));
}

}  // namespace

void CpuOps::do_lobpcg_block_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, std::int64_t block,
                                    Tensor largest) {
  dispatch(v.dtype(), [&]<class T>() {
    const Groups<T> basis{matrix<T>(v), matrix<T>(p), matrix<T>(r)};
    const Groups<T> image{matrix<T>(jv), matrix<T>(jp), matrix<T>(jr)};
    const Matrix<double> ends = matrix<double>(largest);
    if (block == 1) update_samples<1>(basis, image, ends, team_);
    if (block == 2) update_samples<2>(basis, image, ends, team_);
    if (block == 3) update_samples<3>(basis, image, ends, team_);
    if (block == 4) update_samples<4>(basis, image, ends, team_);
  });
}

void CpuOps::do_lobpcg_block_order(Tensor v, Tensor jv, Tensor scale, Tensor h, Tensor mu, Tensor distance,
                                   std::int64_t block) {
  dispatch(v.dtype(), [&]<class T>() {
    const Matrix<T> direction = matrix<T>(v), image = matrix<T>(jv), factor = matrix<T>(scale);
    const Matrix<double> volume = matrix<double>(h), value = matrix<double>(mu), bound = matrix<double>(distance);
    for (std::int64_t first = 0; first < direction.rows; first += block) {
      for (std::int64_t k = first; k < first + block; ++k) {
        std::int64_t least = k;
        for (std::int64_t l = k + 1; l < first + block; ++l) {
          if (*value.row(l) < *value.row(least)) least = l;
        }
        if (least == k) continue;
        exchange_rows(direction, k, least);
        exchange_rows(image, k, least);
        exchange_rows(factor, k, least);
        exchange_rows(volume, k, least);
        exchange_rows(value, k, least);
        exchange_rows(bound, k, least);
      }
    }
  });
}

}  // namespace bracket
