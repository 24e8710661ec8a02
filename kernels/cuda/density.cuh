// Layers of calibrated densities on stacked rows (formulas: kernels/ops.h).
//   fourier_features    y = [x, sin p, cos p], p = x f^T. x [r, D], f [F, D], y [r, D + 2 F]
//                       grad_p = cos p gs - sin p gc - sum_k p'_k (sin p gs'_k + cos p gc'_k), grad_x = gx + grad_p f
//   monotone_staircase  K knots per active column; theta [r, active (2 + 3 K)]
//   confinement         e + quadratic/2 |x|^2 + wall relu(|x| - radius)^2
//   affine_columns      x scale + shift
// A primal row and its tangents are one task: sines, knots and norms are computed once for all of them. In reverse the
// second-order term sum_k Hessian x'_k grad_y'_k is one Hessian-vector product with sum_k x'_k grad_y'_k.
//
// Bytes        every operand once; the staircase is bound by its 5 exponentials and 3 hyperbolic tangents per knot, the
//              others by memory, and all of them by latency at batches of a few hundred rows.
// Alignment    that of the element, any row stride; affine_columns takes 16 bytes at a time where all operands allow
//              (common/vector_access.cuh).
// Determinism  one warp owns a row; its sums are butterflies in a fixed order. No aliasing but y with e.
//
// | variant                          | idea                                     | time                      |
// | fourier_features_forward         | one thread per row and output column     | not yet measured on a GPU |
// | fourier_features_reverse         | one warp per row, lanes over features    | not yet measured on a GPU |
// | monotone_staircase               | one warp per row and column, lanes: knots| not yet measured on a GPU |
// |   logarithms of its slopes       | the same, a kernel of their own          | not yet measured on a GPU |
// | confinement                      | one warp per row                         | not yet measured on a GPU |
// | affine_columns                   | one thread per 1, 2 or 4 elements        | not yet measured on a GPU |
//
// ptxas of CUDA 13.0, sm_90, float / double: staircase forward 104 / 128 registers, reverse 208 / 238; Fourier features
// in reverse 72 / 106; slopes of staircases 90 / 98, in reverse 164 / 209. Nothing spills; sin and cos keep 32 / 40 bytes
// of stack for arguments beyond their fast range.
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"
#include "kernels/cuda/common/vector_access.cuh"
#include "kernels/cuda/staircase.cuh"

namespace bracket::BRACKET_TARGET::density_kernels {

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
struct FourierFeaturesForwardBody {
  static constexpr int kBlockThreads = kThreads;

  StackedMatrix<T> y, x;
  DeviceMatrix<T> frequencies;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t inputs = frequencies.cols, features = frequencies.rows, width = inputs + features;
    for (std::int64_t item = block.first_item(); item < rows.primal * width; item += block.item_stride()) {
      const std::int64_t i = item / width, column = item - i * width;
      const TangentRange tangents = tangents_of(rows, i);
      if (column < inputs) {
        if (y.has_primal) y.primal.row(i)[column] = x.primal.row(i)[column];
        for (std::int64_t t = tangents.first; y.has_tangent && t < tangents.last; ++t) {
          y.tangent.row(t)[column] = x.tangent.row(t)[column];
        }
        continue;
      }
      if (!y.has_primal && tangents.first == tangents.last) continue;
      const T* const frequency = frequencies.row(column - inputs);
      const T angle = dot(frequency, x.primal.row(i), inputs);
      const T sine = sin(angle), cosine = cos(angle);
      if (y.has_primal) {
        y.primal.row(i)[column] = sine;
        y.primal.row(i)[column + features] = cosine;
      }
      for (std::int64_t t = tangents.first; y.has_tangent && t < tangents.last; ++t) {
        const T tan_angle = dot(frequency, x.tangent.row(t), inputs);
        y.tangent.row(t)[column] = cosine * tan_angle;
        y.tangent.row(t)[column + features] = -sine * tan_angle;
      }
    }
  }
};

template <class T>
struct FourierFeaturesReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  StackedMatrix<T> grad_x, grad_y, x;
  DeviceMatrix<T> frequencies;
  Rows rows;
  bool overwrite;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t inputs = frequencies.cols, features = frequencies.rows;
    const int lane = lane_of_thread();
    for (std::int64_t i = block.first_item() / kWarpThreads; i < rows.primal; i += block.item_stride() / kWarpThreads) {
      const TangentRange tangents = tangents_of(rows, i);
      // The lane that updates a coordinate here is not the one that adds to it below.
      for (std::int64_t d = lane; d < inputs; d += kWarpThreads) {
        if (grad_x.has_primal) {
          update(grad_x.primal.row(i)[d], grad_y.has_primal ? grad_y.primal.row(i)[d] : T{0}, overwrite);
        }
        for (std::int64_t t = tangents.first; grad_x.has_tangent && t < tangents.last; ++t) {
          update(grad_x.tangent.row(t)[d], grad_y.tangent.row(t)[d], overwrite);
        }
      }
      __syncwarp();
      for (std::int64_t first = 0; first < features; first += kWarpThreads) {
        const std::int64_t j = first + lane;
        const bool active = j < features;
        const T* const frequency = frequencies.row(active ? j : 0);
        const T angle = dot(frequency, x.primal.row(i), inputs);
        const T sine = active ? sin(angle) : T{0}, cosine = active ? cos(angle) : T{0};
        const std::int64_t to_sine = inputs + (active ? j : 0), to_cosine = to_sine + features;
        T grad_angle = 0;
        if (grad_y.has_primal) {
          grad_angle = cosine * grad_y.primal.row(i)[to_sine] - sine * grad_y.primal.row(i)[to_cosine];
        }
        for (std::int64_t t = tangents.first; grad_y.has_tangent && t < tangents.last; ++t) {
          const T grad_sine = grad_y.tangent.row(t)[to_sine], grad_cosine = grad_y.tangent.row(t)[to_cosine];
          if (grad_x.has_primal) {
            const T tan_angle = dot(frequency, x.tangent.row(t), inputs);
            grad_angle -= tan_angle * (sine * grad_sine + cosine * grad_cosine);
          }
          for (std::int64_t d = 0; grad_x.has_tangent && d < inputs; ++d) {
            const T pull = warp_sum((cosine * grad_sine - sine * grad_cosine) * frequency[d]);
            if (lane == 0) grad_x.tangent.row(t)[d] += pull;
          }
        }
        for (std::int64_t d = 0; grad_x.has_primal && d < inputs; ++d) {
          const T pull = warp_sum(grad_angle * frequency[d]);
          if (lane == 0) grad_x.primal.row(i)[d] += pull;
        }
      }
    }
  }
};

/// c(x) = quadratic/2 |x|^2 + wall relu(|x| - radius)^2 at one point, by one warp: grad c = slope x and
/// Hessian v = slope v + curvature <x, v> x. On the wall's edge the derivatives are those of the inside.
struct ConfinementPoint {
  double value;
  double slope;
  double curvature;
};
template <class T>
BRACKET_DEVICE ConfinementPoint confine(const T* x, std::int64_t count, const Confinement& map) {
  const double squares = static_cast<double>(warp_dot(x, x, count));
  const double norm = sqrt(squares);
  const double excess = norm - map.radius;
  if (excess <= 0) return {map.quadratic / 2 * squares, map.quadratic, 0};
  return {map.quadratic / 2 * squares + map.wall * excess * excess, map.quadratic + 2 * map.wall * (excess / norm),
          2 * map.wall * map.radius / (norm * squares)};
}

template <class T>
struct ConfinementForwardBody {
  static constexpr int kBlockThreads = kThreads;

  StackedMatrix<T> y, e, x;
  Confinement map;
  Rows rows;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = lane_of_thread();
    for (std::int64_t i = block.first_item() / kWarpThreads; i < rows.primal; i += block.item_stride() / kWarpThreads) {
      const T* const point = x.primal.row(i);
      const ConfinementPoint c = confine(point, x.primal.cols, map);
      if (y.has_primal && lane == 0) *y.primal.row(i) = *e.primal.row(i) + static_cast<T>(c.value);
      const TangentRange tangents = tangents_of(rows, i);
      for (std::int64_t t = tangents.first; y.has_tangent && t < tangents.last; ++t) {
        const T along = warp_dot(point, x.tangent.row(t), x.primal.cols);
        if (lane == 0) *y.tangent.row(t) = *e.tangent.row(t) + static_cast<T>(c.slope) * along;
      }
    }
  }
};

template <class T>
struct ConfinementReverseBody {
  static constexpr int kBlockThreads = kThreads;

  StackedMatrix<T> grad_x, grad_y, x;
  Confinement map;
  Rows rows;
  bool overwrite;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = lane_of_thread();
    const std::int64_t cols = x.primal.cols;
    for (std::int64_t i = block.first_item() / kWarpThreads; i < rows.primal; i += block.item_stride() / kWarpThreads) {
      const T* const point = x.primal.row(i);
      const ConfinementPoint c = confine(point, cols, map);
      const T slope = static_cast<T>(c.slope), curvature = static_cast<T>(c.curvature);
      const TangentRange tangents = tangents_of(rows, i);
      T along_point = (grad_y.has_primal ? *grad_y.primal.row(i) : T{0}) * slope;
      for (std::int64_t t = tangents.first; grad_y.has_tangent && t < tangents.last; ++t) {
        const T weight = *grad_y.tangent.row(t);
        if (grad_x.has_primal) along_point += weight * curvature * warp_dot(point, x.tangent.row(t), cols);
        for (std::int64_t j = lane; grad_x.has_tangent && j < cols; j += kWarpThreads) {
          update(grad_x.tangent.row(t)[j], weight * slope * point[j], overwrite);
        }
      }
      for (std::int64_t j = lane; grad_x.has_primal && j < cols; j += kWarpThreads) {
        T sum = along_point * point[j];
        for (std::int64_t t = tangents.first; grad_y.has_tangent && t < tangents.last; ++t) {
          sum += *grad_y.tangent.row(t) * slope * x.tangent.row(t)[j];
        }
        update(grad_x.primal.row(i)[j], sum, overwrite);
      }
    }
  }
};

/// shift null: tangents and reverse.
template <class T, int kWidth>
struct AffineColumnsBody {
  static constexpr int kBlockThreads = kThreads;
  /// Without this number the compiler spills 16 bytes of f64 on sm_90.
  static constexpr int kBlocks = 4;

  DeviceMatrix<T> y, x;
  const T* scale;
  const T* shift;
  bool overwrite;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const VectorGrid grid(y.rows, y.cols, kWidth);
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      T* const target = y.row(at.row) + at.column;
      Vector<T, kWidth> v = load_vector<kWidth>(x.row(at.row) + at.column, at.count);
      const Vector<T, kWidth> factor = load_vector<kWidth>(scale + at.column, at.count);
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) v[k] = v[k] * factor[k];
      if (shift != nullptr) {
        const Vector<T, kWidth> added = load_vector<kWidth>(shift + at.column, at.count);
        BRACKET_UNROLL
        for (int k = 0; k < kWidth; ++k) v[k] += added[k];
      }
      if (!overwrite) {
        const Vector<T, kWidth> before = load_vector<kWidth>(target, at.count);
        BRACKET_UNROLL
        for (int k = 0; k < kWidth; ++k) v[k] = before[k] + v[k];
      }
      store_vector(target, v, at.count);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::density_kernels
