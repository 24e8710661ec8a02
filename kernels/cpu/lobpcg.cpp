// The smallest singular value of every sample's Jacobian by locally optimal block preconditioned conjugate gradients
// (Knyazev 2001; one vector, no preconditioner). A sample is the work of one thread; sums are in double.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lane_sum.h"
#include "kernels/formula/rayleigh_ritz.h"

namespace bracket {
namespace {

using formula::kRitzVectors;

template <class T>
double squares(const Matrix<T>& x, std::int64_t i) {
  return inner_product(x.row(i), x.row(i), x.cols);
}

/// first <- sum_k c.v[k] b_k, last <- sum_k c.p[k] b_k for b = (first, middle, last).
template <class T>
void recombine(T* first, const T* middle, T* last, std::int64_t count, const formula::RitzCoefficients& c) {
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j) {
    const auto x = static_cast<double>(first[j]), y = static_cast<double>(middle[j]), z = static_cast<double>(last[j]);
    first[j] = static_cast<T>(c.v[0] * x + c.v[1] * y + c.v[2] * z);
    last[j] = static_cast<T>(c.p[0] * x + c.p[1] * y + c.p[2] * z);
  }
}

}  // namespace

void CpuOps::do_lobpcg_residual(Tensor r, Tensor w, Tensor v, Tensor jv) {
  dispatch(v.dtype(), [&]<class T>() {
    const Matrix<T> out = matrix<T>(r), product = matrix<T>(w), direction = matrix<T>(v), image = matrix<T>(jv);
    parallel_rows(out.rows, 2 * image.cols + 8 * out.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const T* const to = product.row(i);
        const T* const from = direction.row(i);
        const double quotient = squares(image, i) / squares(direction, i);
        const auto residual = [=](std::int64_t j) {
          return static_cast<double>(to[j]) - quotient * static_cast<double>(from[j]);
        };
        const double norm = euclidean_length(out.cols, residual);
        T* const result = out.row(i);
        for (std::int64_t j = 0; j < out.cols; ++j) result[j] = static_cast<T>(norm == 0 ? 0 : residual(j) / norm);
      }
    });
  });
}

void CpuOps::do_lobpcg_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, Tensor largest) {
  dispatch(v.dtype(), [&]<class T>() {
    const Matrix<T> basis[kRitzVectors] = {matrix<T>(v), matrix<T>(r), matrix<T>(p)};
    const Matrix<T> image[kRitzVectors] = {matrix<T>(jv), matrix<T>(jr), matrix<T>(jp)};
    const Matrix<double> ends = matrix<double>(largest);
    const std::int64_t rows = basis[0].rows, d = basis[0].cols, D = image[0].cols;
    parallel_rows(rows, 24 * (d + D) + 2000, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        formula::RitzProducts products;
        for (int a = 0; a < kRitzVectors; ++a) {
          for (int b = 0; b <= a; ++b) {
            products.basis[a][b] = products.basis[b][a] = inner_product(basis[a].row(i), basis[b].row(i), d);
            products.image[a][b] = products.image[b][a] = inner_product(image[a].row(i), image[b].row(i), D);
          }
        }
        const formula::RitzCoefficients c = formula::ritz_step(products, formula::kRoundoff<T>);
        recombine(basis[0].row(i), basis[1].row(i), basis[2].row(i), d, c);
        recombine(image[0].row(i), image[1].row(i), image[2].row(i), D, c);
        if (ends.rows > 0) *ends.row(i) = std::max(*ends.row(i), c.largest);
      }
    });
  });
}

void CpuOps::do_lobpcg_volume(Tensor h, Tensor scale, Tensor v, Tensor jv) {
  dispatch(v.dtype(), [&]<class T>() {
    const Matrix<T> log_volume = matrix<T>(h), factor = matrix<T>(scale);
    const Matrix<T> direction = matrix<T>(v), image = matrix<T>(jv);
    const auto dimension = static_cast<double>(direction.cols);
    parallel_rows(direction.rows, 2 * (direction.cols + image.cols) + 60, team_,
                  [&](std::int64_t first, std::int64_t last) {
                    for (std::int64_t i = first; i < last; ++i) {
                      const double length = squares(image, i);
                      const double squared = length > 0 ? length : formula::not_a_number();
                      *log_volume.row(i) = static_cast<T>(dimension / 2 * std::log(squared / squares(direction, i)));
                      *factor.row(i) = static_cast<T>(dimension / squared);
                    }
                  });
  });
}

}  // namespace bracket
