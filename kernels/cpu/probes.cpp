// Stochastic traces per row: probes, conjugate gradients for their derivatives, and the sums that end an estimate.
#include "kernels/formula/probes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lane_sum.h"
#include "kernels/formula/philox.h"

namespace bracket {
namespace {

/// A team of one.
struct OneThread {
  static std::int64_t first() { return 0; }
  static std::int64_t count() { return 1; }
  static double sum(double value) { return value; }
};

}  // namespace

void CpuOps::do_conjugate_gradient_step(Tensor x, Tensor r, Tensor p, Tensor residual, Tensor w, Tensor jp, Tensor norm,
                                        double tolerance, Tensor energy) {
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> solution = matrix<T>(x), rest = matrix<T>(r), search = matrix<T>(p), product = matrix<T>(w),
                    image = matrix<T>(jp);
    double* const lengths = residual.as<double>();
    const double* const sizes = norm.as<double>();
    const Matrix<double> energies = matrix<double>(energy);
    const bool plain = energies.rows == 0;
    const std::int64_t d = solution.cols;
    parallel_rows(solution.rows, 2 * image.cols + 14 * d, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const double curvature = inner_product(image.row(i), image.row(i), image.cols);
        const double gain = plain ? lengths[i] * lengths[i] : *energies.row(i);
        if (lengths[i] <= tolerance * sizes[i] || curvature == 0 || gain <= 0) continue;
        const double step = gain / curvature;
        T* const to = solution.row(i);
        T* const remainder = rest.row(i);
        T* const direction = search.row(i);
        const T* const moved = product.row(i);
        for (std::int64_t j = 0; j < d; ++j) {
          to[j] = static_cast<T>(static_cast<double>(to[j]) + step * static_cast<double>(direction[j]));
          remainder[j] = static_cast<T>(static_cast<double>(remainder[j]) - step * static_cast<double>(moved[j]));
        }
        const double after = std::sqrt(inner_product(remainder, remainder, d)), ratio = after / lengths[i];
        lengths[i] = after;
        if (!plain) continue;
        for (std::int64_t j = 0; j < d; ++j)
          direction[j] =
              static_cast<T>(static_cast<double>(remainder[j]) + ratio * ratio * static_cast<double>(direction[j]));
      }
    });
  });
}

void CpuOps::do_conjugate_direction(Tensor p, Tensor energy, Tensor z, Tensor r) {
  dispatch(p.dtype(), [&]<class T>() {
    const Matrix<T> search = matrix<T>(p), turned = matrix<T>(z), rest = matrix<T>(r);
    double* const energies = energy.as<double>();
    parallel_rows(search.rows, 5 * search.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* const direction = search.row(i);
        const T* const step = turned.row(i);
        const double after = inner_product(step, rest.row(i), search.cols);
        const double ratio = energies[i] == 0 ? 0 : after / energies[i];
        for (std::int64_t j = 0; j < search.cols; ++j)
          direction[j] = static_cast<T>(static_cast<double>(step[j]) + ratio * static_cast<double>(direction[j]));
        energies[i] = after;
      }
    });
  });
}

void CpuOps::do_random_signs(Tensor y, const RandomKey& key, const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  dispatch(y.dtype(), [&]<class T>() {
    T* const out = y.as<T>();
    const std::int64_t size = y.size();
    parallel_rows((size + 3) / 4, 100, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t q = first; q < last; ++q) {
        const formula::PhiloxBlock block = formula::philox_block(philox, static_cast<std::uint64_t>(q));
        for (std::int64_t e = 4 * q; e < 4 * q + 4 && e < size; ++e)
          out[e] = block.word[e % 4] >> 31 != 0 ? T{1} : T{-1};
      }
    });
  });
}

void CpuOps::do_project_rows(Tensor x, Tensor q, std::int64_t samples) {
  if (samples == 0) return;
  dispatch(x.dtype(), [&]<class T>() {
    const Matrix<T> rows = matrix<T>(x), basis = matrix<T>(q);
    const std::int64_t per_sample = rows.rows / samples, vectors = basis.rows / samples;
    parallel_rows(rows.rows, 8 * vectors * rows.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* const row = rows.row(i);
        for (int turn = 0; turn < 2; ++turn) {
          for (std::int64_t k = 0; k < vectors; ++k) {
            const T* const v = basis.row(i / per_sample * vectors + k);
            const double overlap = inner_product(row, v, rows.cols);
            for (std::int64_t j = 0; j < rows.cols; ++j)
              row[j] = static_cast<T>(static_cast<double>(row[j]) - overlap * static_cast<double>(v[j]));
          }
        }
      }
    });
  });
}

void CpuOps::do_clear_rows(Tensor y, Tensor marks) {
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> rows = matrix<T>(y);
    const double* const marked = marks.as<double>();
    const std::int64_t per_mark = rows.rows == 0 ? 1 : rows.rows / marks.rows();
    parallel_rows(rows.rows, rows.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        if (marked[i / per_mark] > 0) std::fill_n(rows.row(i), rows.cols, T{0});
      }
    });
  });
}

void CpuOps::do_probe_mean(Tensor value, Tensor error, Tensor samples, double correction) {
  const std::int64_t n = value.rows(), count = n == 0 ? 0 : samples.rows() / n;
  const double* const all = samples.as<double>();
  double* const means = value.as<double>();
  double* const errors = error.as<double>();
  parallel_rows(n, 4 * count, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const formula::MeanAndError result = formula::mean_and_error(all + i * count, count, correction);
      means[i] = result.mean;
      errors[i] = result.error;
    }
  });
}

void CpuOps::do_roulette_weights(Tensor weights, std::int64_t certain, double survival, const RandomKey& key,
                                 const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  const Matrix<double> out = matrix<double>(weights);
  parallel_rows(out.cols, 60 * out.rows, team_, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const formula::PhiloxBlock block = formula::philox_block(philox, static_cast<std::uint64_t>(i / 2));
      const double uniform = formula::roulette_uniform(block.word[i % 2 * 2], block.word[i % 2 * 2 + 1]);
      for (std::int64_t j = 0; j < out.rows; ++j)
        out.row(j)[i] = formula::roulette_weight(j, out.rows, certain, survival, uniform);
    }
  });
}

void CpuOps::do_leave_one_out_trace(Tensor value, Tensor error, Tensor gram_image, Tensor gram_basis, Tensor inverse,
                                    Tensor forms) {
  const std::int64_t r = inverse.extent(1);
  const double* const given = forms.absent() ? nullptr : forms.as<double>();
  double* const means = value.as<double>();
  double* const errors = error.as<double>();
  parallel_rows(
      inverse.extent(0), 8 * r * r * r + 20, team_,
      [&](std::int64_t first, std::int64_t last) {
        std::vector<double> traces(static_cast<std::size_t>(r));
        for (std::int64_t i = first; i < last; ++i) {
          const formula::LeaveOneOut products{gram_image.as<double>() + 4 * i * r * r,
                                              gram_basis.as<double>() + 4 * i * r * r, inverse.as<double>() + i * r * r,
                                              given == nullptr ? nullptr : given + i * r};
          for (std::int64_t k = 0; k < r; ++k)
            traces[static_cast<std::size_t>(k)] = formula::leave_one_out(OneThread{}, products, r, k);
          const formula::MeanAndError result = formula::mean_and_error(traces.data(), r, 1);
          means[i] = result.mean;
          errors[i] = result.error;
        }
      },
      1);
}

}  // namespace bracket
