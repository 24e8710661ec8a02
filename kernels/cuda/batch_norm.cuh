// Batch normalisation, training and inference. x [n, c]; gamma, beta, statistics [c].
//
//   train forward   y = gamma (x - mean) inv_std + beta,  inv_std = (variance + epsilon)^(-1/2), variance biased
//   train reverse   grad_x = gamma inv_std (grad_y - mean(grad_y) - x^ mean(grad_y x^)),  x^ = (x - mean) inv_std
//                   grad_gamma (+)= sum grad_y x^,  grad_beta (+)= sum grad_y
//   infer           the same affine map with the running statistics; tangents get the factor only
// A single row leaves running_variance as it is (its unbiased variance does not exist); no rows leave both, mean = 0.
//
// Traffic in elements: train forward 4 n c (three reads, of which the second-level cache may hold two), train reverse
// 5 n c, infer forward 2 n c, infer reverse up to 4 n c. Flops at most 8 per element: bound by memory. Rows may be
// strided; no alignment beyond the element's; grad_x may alias grad_y, y may alias x.
// Determinism: column sums in f64 in an order fixed by the shape (common/column_sums.cuh).
//
// | variant             | idea                                                           | time                      |
// | train_*             | 32 columns per block, 8 threads down each column, one launch   | not yet measured on a GPU |
// | train, many rows    | column sums by chunks of rows, then a map over all rows        | not yet measured on a GPU |
// | maps                | 32 columns by 8 rows a block, four rows a thread               | not yet measured on a GPU |
// sm_90: at most 46 registers, no spills.
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/reduce.cuh"

namespace bracket::BRACKET_TARGET::batch_norm_kernels {

constexpr int kThreads = 256;
/// A warp maps 32 adjacent columns of one row; eight warps share the rows.
constexpr int kColumns = kWarpThreads;
constexpr int kRowThreads = kThreads / kColumns;
/// Rows a thread maps with one set of column constants.
constexpr int kRowsPerThread = 4;
/// From here on a thread of the one-launch kernels would add over a hundred rows one by one: an image batch's 65,536
/// rows of 64 channels would keep two blocks busy.
constexpr std::int64_t kManyRows = 1024;
/// The means that the map of reverse needs lie at the start of the scratch memory; wider ones take the one launch, for
/// which they are blocks enough.
constexpr std::int64_t kMostColumns = 8192;

template <class T>
struct BatchNormForward {
  DeviceMatrix<T> y, x;
  T *mean, *inv_std, *running_mean, *running_variance;
  const T *gamma, *beta;
  double momentum, epsilon;
};

template <class T>
struct BatchNormReverse {
  DeviceMatrix<T> grad_x, grad_y, x;
  T *grad_gamma, *grad_beta;
  const T *gamma, *mean, *inv_std;
  Update update;
};

template <class T>
struct BatchNormInferReverse {
  DeviceMatrix<T> grad_primal, primal, grad_tangent, tangent;
  T *grad_gamma, *grad_beta;
  const T *running_mean, *running_variance;
  double epsilon;
  std::int64_t columns;
  Update update;
};

// ---- device functions -----------------------------------------------------------------------------------------------

BRACKET_DEVICE int column_thread() { return static_cast<int>(threadIdx.x) % kColumns; }
BRACKET_DEVICE int row_thread() { return static_cast<int>(threadIdx.x) / kColumns; }
BRACKET_DEVICE std::int64_t block_column(const Block& block) {
  return static_cast<std::int64_t>(block.x) * kColumns + column_thread();
}

/// Sum of term(i) over the rows of this thread's column, received by all threads of the column. All threads call it.
using ColumnPartials = double[kRowThreads][kColumns];
template <class Term>
BRACKET_DEVICE double column_sum(ColumnPartials& partial, std::int64_t rows, bool active, Term term) {
  double sum = 0;
  if (active) {
    for (std::int64_t i = row_thread(); i < rows; i += kRowThreads) sum += term(i);
  }
  partial[row_thread()][column_thread()] = sum;
  __syncthreads();
  sum = 0;
  for (int k = 0; k < kRowThreads; ++k) sum += partial[k][column_thread()];
  __syncthreads();
  return sum;
}

template <class T>
BRACKET_DEVICE void store(T* y, double value, Update update) {
  *y = static_cast<T>(update == Update::accumulate ? static_cast<double>(*y) + value : value);
}

template <class T>
BRACKET_DEVICE void move_towards(T* running, double value, double momentum) {
  *running = static_cast<T>((1 - momentum) * static_cast<double>(*running) + momentum * value);
}

template <class T>
struct MeanStore {
  T *mean, *running_mean;
  double rows, momentum;
  BRACKET_DEVICE void operator()(std::int64_t j, double sum) const {
    mean[j] = static_cast<T>(sum / rows);
    if (running_mean != nullptr) move_towards(running_mean + j, sum / rows, momentum);
  }
};

/// Deviations from a mean that was rounded to T, and their squares: the former correct the latter.
template <class T>
struct DeviationTerm {
  DeviceMatrix<T> x;
  const T* mean;
  BRACKET_DEVICE SumPair operator()(std::int64_t i, std::int64_t j) const {
    const double deviation = static_cast<double>(x.row(i)[j]) - static_cast<double>(mean[j]);
    return {deviation, deviation * deviation};
  }
};

template <class T>
struct VarianceStore {
  T *inv_std, *running_variance;
  double rows, momentum, epsilon;
  BRACKET_DEVICE void operator()(std::int64_t j, const SumPair& sums) const {
    const double corrected = sums.second - sums.first * sums.first / rows;
    const double squares = corrected < 0 ? 0.0 : corrected;
    inv_std[j] = static_cast<T>(1 / sqrt(squares / rows + epsilon));
    if (running_variance != nullptr) move_towards(running_variance + j, squares / (rows - 1), momentum);
  }
};

template <class T>
struct ElementTerm {
  DeviceMatrix<T> x;
  BRACKET_DEVICE double operator()(std::int64_t i, std::int64_t j) const { return static_cast<double>(x.row(i)[j]); }
};

/// grad_y and grad_y (x - mean) factor; without inv_std the factor is 1, without mean nothing is subtracted.
template <class T>
struct GradientTerm {
  DeviceMatrix<T> grad_y, x;
  const T *mean, *inv_std;
  BRACKET_DEVICE SumPair operator()(std::int64_t i, std::int64_t j) const {
    const T grad = grad_y.row(i)[j];
    if (x.data == nullptr) return {static_cast<double>(grad), 0.0};
    const T centered = mean == nullptr ? x.row(i)[j] : x.row(i)[j] - mean[j];
    const T normalized = inv_std == nullptr ? centered : centered * inv_std[j];
    return {static_cast<double>(grad), static_cast<double>(grad) * static_cast<double>(normalized)};
  }
};

template <class T>
struct TrainGradientStore {
  T *grad_gamma, *grad_beta;
  double* means;  ///< [2, cols]: mean(grad_y), mean(grad_y x^)
  std::int64_t cols;
  double rows;
  Update update;
  BRACKET_DEVICE void operator()(std::int64_t j, const SumPair& sums) const {
    if (grad_beta != nullptr) store(grad_beta + j, sums.first, update);
    if (grad_gamma != nullptr) store(grad_gamma + j, sums.second, update);
    means[j] = sums.first / rows;
    means[cols + j] = sums.second / rows;
  }
};

template <class T>
struct InferGradientStore {
  T *grad_gamma, *grad_beta;
  const T* running_variance;
  double epsilon;
  Update update;
  BRACKET_DEVICE void operator()(std::int64_t j, const SumPair& sums) const {
    if (grad_beta != nullptr) store(grad_beta + j, sums.first, update);
    if (grad_gamma == nullptr) return;
    store(grad_gamma + j, sums.second / sqrt(static_cast<double>(running_variance[j]) + epsilon), update);
  }
};

BRACKET_DEVICE std::int64_t first_row(const Block& block) {
  return static_cast<std::int64_t>(block.y) * kRowThreads + row_thread();
}
BRACKET_DEVICE std::int64_t row_stride(const Block& block) {
  return static_cast<std::int64_t>(block.grid_y) * kRowThreads;
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
struct BatchNormTrainForwardBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr std::size_t kSharedBytes = sizeof(ColumnPartials);
  static constexpr bool kMeets = true;

  BatchNormForward<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    ColumnPartials& partial = block.shared<ColumnPartials>();
    const std::int64_t j = block_column(block);
    const std::int64_t n = p.x.rows;
    const bool active = j < p.x.cols;
    const double rows = n > 0 ? static_cast<double>(n) : 1.0;
    const double mean =
        column_sum(partial, n, active, [&](std::int64_t i) { return static_cast<double>(p.x.row(i)[j]); }) / rows;
    const double squares = column_sum(partial, n, active, [&](std::int64_t i) {
      const double deviation = static_cast<double>(p.x.row(i)[j]) - mean;
      return deviation * deviation;
    });
    if (!active) return;
    const T center = static_cast<T>(mean);
    const T inverse = static_cast<T>(1 / sqrt(squares / rows + p.epsilon));
    if (row_thread() == 0) {
      p.mean[j] = center;
      p.inv_std[j] = inverse;
      if (p.running_mean != nullptr && n > 0) move_towards(p.running_mean + j, mean, p.momentum);
      if (p.running_variance != nullptr && n > 1)
        move_towards(p.running_variance + j, squares / (rows - 1), p.momentum);
    }
    for (std::int64_t i = row_thread(); i < n; i += kRowThreads) {
      p.y.row(i)[j] = p.gamma[j] * ((p.x.row(i)[j] - center) * inverse) + p.beta[j];
    }
  }
};

template <class T>
struct BatchNormTrainReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr std::size_t kSharedBytes = sizeof(ColumnPartials);
  static constexpr bool kMeets = true;

  BatchNormReverse<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    ColumnPartials& partial = block.shared<ColumnPartials>();
    const std::int64_t j = block_column(block);
    const std::int64_t n = p.x.rows;
    const bool active = j < p.x.cols;
    const T mean = active ? p.mean[j] : T(0);
    const T inverse = active ? p.inv_std[j] : T(0);
    const double shift =
        column_sum(partial, n, active, [&](std::int64_t i) { return static_cast<double>(p.grad_y.row(i)[j]); });
    const double scale = column_sum(partial, n, active, [&](std::int64_t i) {
      const T normalized = (p.x.row(i)[j] - mean) * inverse;
      return static_cast<double>(p.grad_y.row(i)[j]) * static_cast<double>(normalized);
    });
    if (!active) return;
    if (row_thread() == 0) {
      if (p.grad_gamma != nullptr) store(p.grad_gamma + j, scale, p.update);
      if (p.grad_beta != nullptr) store(p.grad_beta + j, shift, p.update);
    }
    if (n == 0) return;
    const T mean_shift = static_cast<T>(shift / static_cast<double>(n));
    const T mean_scale = static_cast<T>(scale / static_cast<double>(n));
    for (std::int64_t i = row_thread(); i < n; i += kRowThreads) {
      const T normalized = (p.x.row(i)[j] - mean) * inverse;
      p.grad_x.row(i)[j] = p.gamma[j] * inverse * (p.grad_y.row(i)[j] - mean_shift - normalized * mean_scale);
    }
  }
};

/// The map of train forward from statistics that are known.
template <class T>
struct BatchNormTrainForwardMapBody {
  static constexpr int kBlockThreads = kThreads;

  BatchNormForward<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t j = block_column(block);
    if (j >= p.x.cols) return;
    const T center = p.mean[j], inverse = p.inv_std[j], scale = p.gamma[j], shift = p.beta[j];
    for (std::int64_t i = first_row(block); i < p.x.rows; i += row_stride(block)) {
      p.y.row(i)[j] = scale * ((p.x.row(i)[j] - center) * inverse) + shift;
    }
  }
};

/// The map of train reverse from sums that are known; means as TrainGradientStore leaves them.
template <class T>
struct BatchNormTrainReverseMapBody {
  static constexpr int kBlockThreads = kThreads;

  BatchNormReverse<T> p;
  const double* means;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t j = block_column(block);
    if (j >= p.x.cols) return;
    const T center = p.mean[j], inverse = p.inv_std[j], factor = p.gamma[j] * inverse;
    const T mean_shift = static_cast<T>(means[j]), mean_scale = static_cast<T>(means[p.x.cols + j]);
    for (std::int64_t i = first_row(block); i < p.x.rows; i += row_stride(block)) {
      const T normalized = (p.x.row(i)[j] - center) * inverse;
      p.grad_x.row(i)[j] = factor * (p.grad_y.row(i)[j] - mean_shift - normalized * mean_scale);
    }
  }
};

/// y = (x - mean) factor + shift with factor = gamma (variance + epsilon)^(-1/2); without `shift` no mean either.
/// Without x.data y = 0.
template <class T>
struct BatchNormAffineBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, x;
  const T* gamma;
  const T* shift;
  const T* mean;
  const T* variance;
  double epsilon;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t j = block_column(block);
    if (j >= y.cols) return;
    const T factor = static_cast<T>(static_cast<double>(gamma[j]) / sqrt(static_cast<double>(variance[j]) + epsilon));
    for (std::int64_t i = first_row(block); i < y.rows; i += row_stride(block)) {
      if (x.data == nullptr) {
        y.row(i)[j] = T(0);
      } else if (shift != nullptr) {
        y.row(i)[j] = (x.row(i)[j] - mean[j]) * factor + shift[j];
      } else {
        y.row(i)[j] = x.row(i)[j] * factor;
      }
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::batch_norm_kernels
