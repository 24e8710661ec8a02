// Fourier features y = [x, sin(x f^T), cos(x f^T)] on stacked rows, a round of features at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/sine_cosine.h"
#include "kernels/cpu/stacked_rows.h"

namespace bracket {

/// Features per round: eight AVX2 registers of floats.
inline constexpr std::int64_t kFeatureRound = 64;
/// With few coordinates the loops run over features, on a transposed copy; with more, over coordinates.
inline constexpr std::int64_t kTransposedCoordinates = 8;

/// The frequencies of features [first, first + count).
template <class T>
class FrequencyRound {
 public:
  FrequencyRound(const Matrix<T>& frequencies, std::int64_t first)
      : frequencies_(frequencies), first_(first), count_(std::min(kFeatureRound, frequencies.rows - first)) {
    if (!transposed()) return;
    for (std::int64_t d = 0; d < frequencies.cols; ++d) {
      for (std::int64_t j = 0; j < count_; ++j) columns_[d][j] = frequencies.row(first + j)[d];
    }
  }

  std::int64_t first() const { return first_; }
  std::int64_t count() const { return count_; }

  /// angle_j = <f_j, x>
  void project(T* angle, const T* x) const {
    if (!transposed()) {
      for (std::int64_t j = 0; j < count_; ++j) angle[j] = dot(frequencies_.row(first_ + j), x, frequencies_.cols);
      return;
    }
    std::fill_n(angle, count_, T{0});
    for (std::int64_t d = 0; d < frequencies_.cols; ++d) {
      const T* const column = columns_[d];
      const T coordinate = x[d];
      for (std::int64_t j = 0; j < count_; ++j) angle[j] += column[j] * coordinate;
    }
  }

  /// grad_x += sum_j grad_angle_j f_j
  void add_back(T* grad_x, const T* grad_angle) const {
    for (std::int64_t d = 0; transposed() && d < frequencies_.cols; ++d) {
      grad_x[d] += dot(columns_[d], grad_angle, count_);
    }
    for (std::int64_t j = 0; !transposed() && j < count_; ++j) {
      const T* const frequency = frequencies_.row(first_ + j);
      for (std::int64_t d = 0; d < frequencies_.cols; ++d) grad_x[d] += grad_angle[j] * frequency[d];
    }
  }

 private:
  bool transposed() const { return frequencies_.cols <= kTransposedCoordinates; }

  Matrix<T> frequencies_;
  std::int64_t first_;
  std::int64_t count_;
  T columns_[kTransposedCoordinates][kFeatureRound];
};

template <class T>
void fourier_rows_forward(const StackedMatrix<T>& y, const StackedMatrix<T>& x, const Matrix<T>& frequencies,
                          const Rows& rows, ThreadTeam& team) {
  const std::int64_t inputs = frequencies.cols, features = frequencies.rows;
  const std::int64_t cost = stacked_cost(inputs + features * (2 * inputs + 12), features * (2 * inputs + 2), rows);
  parallel_rows(rows.primal, cost, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      if (y.has_primal) std::copy_n(x.primal.row(i), inputs, y.primal.row(i));
      const TangentRange tangents(rows, i);
      for (std::int64_t t = tangents.first; y.has_tangent && t < tangents.last; ++t) {
        std::copy_n(x.tangent.row(t), inputs, y.tangent.row(t));
      }
    }
    T angle[kFeatureRound], sine[kFeatureRound], cosine[kFeatureRound];
    for (std::int64_t round_first = 0; round_first < features; round_first += kFeatureRound) {
      const FrequencyRound<T> round(frequencies, round_first);
      const std::int64_t n = round.count();
      const std::int64_t sines = inputs + round_first, cosines = sines + features;
      for (std::int64_t i = first; i < last; ++i) {
        const TangentRange tangents(rows, i);
        const bool pushes = y.has_tangent && tangents.first < tangents.last;
        if (!y.has_primal && !pushes) continue;
        round.project(angle, x.primal.row(i));
        sines_and_cosines(sine, cosine, angle, n);
        if (y.has_primal) {
          std::copy_n(sine, n, y.primal.row(i) + sines);
          std::copy_n(cosine, n, y.primal.row(i) + cosines);
        }
        for (std::int64_t t = tangents.first; pushes && t < tangents.last; ++t) {
          round.project(angle, x.tangent.row(t));
          T* const tan_sine = y.tangent.row(t) + sines;
          T* const tan_cosine = y.tangent.row(t) + cosines;
          for (std::int64_t j = 0; j < n; ++j) tan_sine[j] = cosine[j] * angle[j];
          for (std::int64_t j = 0; j < n; ++j) tan_cosine[j] = -sine[j] * angle[j];
        }
      }
    }
  });
}

/// With angle p = <f, x>, y = (sin p, cos p):  grad_p' = cos p gs' - sin p gc',
/// grad_p = cos p gs - sin p gc - sum_k p'_k (sin p gs'_k + cos p gc'_k).
template <class T>
void fourier_rows_reverse(const StackedMatrix<T>& grad_x, const StackedMatrix<T>& grad_y, const StackedMatrix<T>& x,
                          const Matrix<T>& frequencies, const Rows& rows, Update update, ThreadTeam& team) {
  const std::int64_t inputs = frequencies.cols, features = frequencies.rows;
  const std::int64_t cost = stacked_cost(inputs + features * (4 * inputs + 16), features * (6 * inputs + 8), rows);
  parallel_rows(rows.primal, cost, team, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      if (grad_x.has_primal && grad_y.has_primal) {
        update_row(grad_x.primal.row(i), grad_y.primal.row(i), T{1}, inputs, update);
      } else if (grad_x.has_primal && update == Update::overwrite) {
        std::fill_n(grad_x.primal.row(i), inputs, T{0});
      }
      const TangentRange tangents(rows, i);
      for (std::int64_t t = tangents.first; grad_x.has_tangent && t < tangents.last; ++t) {
        update_row(grad_x.tangent.row(t), grad_y.tangent.row(t), T{1}, inputs, update);
      }
    }
    T angle[kFeatureRound], sine[kFeatureRound], cosine[kFeatureRound];
    T grad_angle[kFeatureRound], grad_tan_angle[kFeatureRound];
    for (std::int64_t round_first = 0; round_first < features; round_first += kFeatureRound) {
      const FrequencyRound<T> round(frequencies, round_first);
      const std::int64_t n = round.count();
      const std::int64_t sines = inputs + round_first, cosines = sines + features;
      for (std::int64_t i = first; i < last; ++i) {
        const TangentRange tangents(rows, i);
        const bool pulls = grad_y.has_tangent && tangents.first < tangents.last;
        if (!grad_x.has_primal && !pulls) continue;
        round.project(angle, x.primal.row(i));
        sines_and_cosines(sine, cosine, angle, n);
        if (grad_y.has_primal) {
          const T* const grad_sine = grad_y.primal.row(i) + sines;
          const T* const grad_cosine = grad_y.primal.row(i) + cosines;
          for (std::int64_t j = 0; j < n; ++j) grad_angle[j] = cosine[j] * grad_sine[j] - sine[j] * grad_cosine[j];
        } else {
          std::fill_n(grad_angle, n, T{0});
        }
        for (std::int64_t t = tangents.first; pulls && t < tangents.last; ++t) {
          const T* const grad_sine = grad_y.tangent.row(t) + sines;
          const T* const grad_cosine = grad_y.tangent.row(t) + cosines;
          if (grad_x.has_tangent) {
            for (std::int64_t j = 0; j < n; ++j) {
              grad_tan_angle[j] = cosine[j] * grad_sine[j] - sine[j] * grad_cosine[j];
            }
            round.add_back(grad_x.tangent.row(t), grad_tan_angle);
          }
          if (!grad_x.has_primal) continue;
          round.project(angle, x.tangent.row(t));
          for (std::int64_t j = 0; j < n; ++j) {
            grad_angle[j] -= angle[j] * (sine[j] * grad_sine[j] + cosine[j] * grad_cosine[j]);
          }
        }
        if (grad_x.has_primal) round.add_back(grad_x.primal.row(i), grad_angle);
      }
    }
  });
}

}  // namespace bracket
