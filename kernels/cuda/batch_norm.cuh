// Batch normalisation, training and inference. x [n, c]; gamma, beta, statistics [c].
//
//   train forward   y = gamma (x - mean) inv_std + beta,  inv_std = (variance + epsilon)^(-1/2), variance biased
//   train reverse   grad_x = gamma inv_std (grad_y - mean(grad_y) - x^ mean(grad_y x^)),  x^ = (x - mean) inv_std
//                   grad_gamma (+)= sum grad_y x^,  grad_beta (+)= sum grad_y
//   infer           the same affine map with the running statistics; tangents get the factor only
// A single row leaves running_variance as it is (its unbiased variance does not exist); no rows leave both, mean = 0.
//
// Traffic in elements: train forward 3 n c (x for the statistics, x and y for the map; f64 reads x once more), train
// reverse 5 n c (x and grad_y for the sums, grad_gamma and grad_beta among them; both and grad_x for the map), infer
// forward 2 n c, infer reverse up to 4 n c. Flops at most 8 per element: bound by memory. Rows may be strided; 16 bytes
// at a time where they allow (common/vector_access.cuh); grad_x may alias grad_y, y may alias x.
// Statistics. f32: sums in f64 of d = x - x_0 and of d^2, x_0 the column's first element, in one pass:
//   mean = x_0 + sum d / n,  n variance = sum d^2 - (sum d)^2 / n
// which loses digits where K = (x_0 - mean)^2 / variance is large. x_0 is one of the n elements, hence K < n. With g
// additions in a row (a thread's rows, then the chunks) the variance is off by some 2 g (1 + K) 2^-53 of itself and
// inv_std by half of that: below half a unit of f32, 2^-24, in any column with g n < 2^29, and by g 2^-52 in most.
// f64 has no digits to spare and takes deviations from the mean in a second pass.
// Determinism: column sums in f64 in an order fixed by the shape (common/column_sums.cuh).
// The activation behind it cannot share the statistics' launch, which has to end before the first y exists. It could
// share the map's, which has in registers the 2 n c elements that relu with a mask reads and writes: a new op, for
// training passes alone.
//
// | variant             | idea                                                           | time                      |
// | train_*_kernel      | 32 columns per block, 8 threads down each column, one launch   | not yet measured on a GPU |
// | train, many rows    | column sums by chunks of rows, then a map over all rows        | not yet measured on a GPU |
// | maps                | 256 threads on adjacent columns, or on several rows of fewer;  | not yet measured on a GPU |
// |                     | 1, or 4 f32 or 2 f64 of four rows each                         |                           |
// sm_80 and sm_90: at most 56 registers, no spills.
#pragma once

#include "kernels/cuda/common/column_block.cuh"
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/vector_access.cuh"

namespace bracket::BRACKET_TARGET::batch_norm_kernels {

using namespace column_block;

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

template <class T>
BRACKET_DEVICE void store(T* y, double value, Update update) {
  *y = static_cast<T>(update == Update::accumulate ? static_cast<double>(*y) + value : value);
}

template <class T>
BRACKET_DEVICE void move_towards(T* running, double value, double momentum) {
  *running = static_cast<T>((1 - momentum) * static_cast<double>(*running) + momentum * value);
}

/// Deviations from the first element of the column, and their squares.
template <class T>
struct ShiftedTerm {
  DeviceMatrix<T> x;
  BRACKET_DEVICE SumPair operator()(std::int64_t i, std::int64_t j) const {
    const double deviation = static_cast<double>(x.row(i)[j]) - static_cast<double>(x.data[j]);
    return {deviation, deviation * deviation};
  }
};

/// The sum of squared deviations from the mean of n elements, from that of deviations from anything else. What rounding
/// leaves of 0 is not negative; NaN stays.
BRACKET_DEVICE double centered_squares(const SumPair& sums, double n) {
  const double corrected = sums.second - sums.first * sums.first / n;
  return corrected < 0 ? 0.0 : corrected;
}

template <class T>
struct StatisticsStore {
  DeviceMatrix<T> x;
  T *mean, *inv_std, *running_mean, *running_variance;
  double rows, momentum, epsilon;
  BRACKET_DEVICE void operator()(std::int64_t j, const SumPair& sums) const {
    const double center = static_cast<double>(x.data[j]) + sums.first / rows;
    const double squares = centered_squares(sums, rows);
    mean[j] = static_cast<T>(center);
    inv_std[j] = static_cast<T>(1 / sqrt(squares / rows + epsilon));
    if (running_mean != nullptr) move_towards(running_mean + j, center, momentum);
    if (running_variance != nullptr && rows > 1) move_towards(running_variance + j, squares / (rows - 1), momentum);
  }
};

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
    const double squares = centered_squares(sums, rows);
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

/// Which elements a thread of a map serves: a vector of up to kWidth adjacent columns, of every `step`-th row.
struct MapThread {
  std::int64_t column;
  int count;  ///< of columns; none for a thread too many
  std::int64_t first_row;
  std::int64_t step;
};

/// How many vectors of a row lie side by side in a block of a map, and how many rows one below the other.
struct MapShape {
  int vectors;
  int rows;
  BRACKET_HOST_DEVICE MapShape(std::int64_t cols, int width) {
    const std::int64_t per_row = (cols + width - 1) / width;
    vectors = per_row < kThreads ? static_cast<int>(per_row) : kThreads;
    rows = kThreads / vectors;
  }
};

/// Of a matrix of at least one column.
template <int kWidth>
BRACKET_DEVICE MapThread map_thread(const Block& block, std::int64_t cols) {
  const MapShape shape(cols, kWidth);
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / shape.vectors;
  const std::int64_t column = (static_cast<std::int64_t>(block.x) * shape.vectors + thread % shape.vectors) * kWidth;
  const std::int64_t left = row < shape.rows ? cols - column : 0;
  return {column, left >= kWidth ? kWidth : (left > 0 ? static_cast<int>(left) : 0),
          static_cast<std::int64_t>(block.y) * shape.rows + row, static_cast<std::int64_t>(block.grid_y) * shape.rows};
}

/// Column constants, which need no alignment; 0 behind the last column.
template <int kWidth, class T>
BRACKET_DEVICE Vector<T, kWidth> constants(const T* values, const MapThread& at) {
  Vector<T, kWidth> c;
  BRACKET_UNROLL
  for (int k = 0; k < kWidth; ++k) c[k] = k < at.count ? values[at.column + k] : T{0};
  return c;
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
struct BatchNormTrainForwardBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr std::size_t kSharedBytes = sizeof(ColumnPartials<SumPair>);
  static constexpr bool kMeets = true;

  BatchNormForward<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t j = block_column(block);
    const std::int64_t n = p.x.rows;
    const bool active = j < p.x.cols;
    const double rows = n > 0 ? static_cast<double>(n) : 1.0;
    double mean = 0;
    double squares = 0;
    if constexpr (sizeof(T) == sizeof(float)) {
      const double origin = active && n > 0 ? static_cast<double>(p.x.data[j]) : 0.0;  // before y, which may be x
      const ShiftedTerm<T> term{p.x};
      auto& partial = block.shared<ColumnPartials<SumPair>>();
      const SumPair sums = column_sum<SumPair>(partial, n, active, [&](std::int64_t i) { return term(i, j); });
      mean = origin + sums.first / rows;
      squares = centered_squares(sums, rows);
    } else {
      auto& partial = block.shared<ColumnPartials<double>>();
      const auto x = [&](std::int64_t i) { return static_cast<double>(p.x.row(i)[j]); };
      mean = column_sum<double>(partial, n, active, x) / rows;
      squares = column_sum<double>(partial, n, active, [&](std::int64_t i) {
        const double deviation = x(i) - mean;
        return deviation * deviation;
      });
    }
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
  static constexpr std::size_t kSharedBytes = sizeof(ColumnPartials<SumPair>);
  static constexpr bool kMeets = true;

  BatchNormReverse<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t j = block_column(block);
    const std::int64_t n = p.x.rows;
    const bool active = j < p.x.cols;
    const GradientTerm<T> term{p.grad_y, p.x, p.mean, p.inv_std};
    const SumPair sums = column_sum<SumPair>(block.shared<ColumnPartials<SumPair>>(), n, active,
                                             [&](std::int64_t i) { return term(i, j); });
    if (!active) return;
    if (row_thread() == 0) {
      if (p.grad_gamma != nullptr) store(p.grad_gamma + j, sums.second, p.update);
      if (p.grad_beta != nullptr) store(p.grad_beta + j, sums.first, p.update);
    }
    if (n == 0) return;
    const T mean = p.mean[j];
    const T inverse = p.inv_std[j];
    const T mean_shift = static_cast<T>(sums.first / static_cast<double>(n));
    const T mean_scale = static_cast<T>(sums.second / static_cast<double>(n));
    for (std::int64_t i = row_thread(); i < n; i += kRowThreads) {
      const T normalized = (p.x.row(i)[j] - mean) * inverse;
      p.grad_x.row(i)[j] = p.gamma[j] * inverse * (p.grad_y.row(i)[j] - mean_shift - normalized * mean_scale);
    }
  }
};

/// The map of train forward from statistics that are known.
template <class T, int kWidth>
struct BatchNormTrainForwardMapBody {
  static constexpr int kBlockThreads = kThreads;

  BatchNormForward<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const MapThread at = map_thread<kWidth>(block, p.x.cols);
    if (at.count == 0) return;
    const Vector<T, kWidth> center = constants<kWidth>(p.mean, at), inverse = constants<kWidth>(p.inv_std, at);
    const Vector<T, kWidth> scale = constants<kWidth>(p.gamma, at), shift = constants<kWidth>(p.beta, at);
    for (std::int64_t i = at.first_row; i < p.x.rows; i += at.step) {
      Vector<T, kWidth> v = load_vector<kWidth>(p.x.row(i) + at.column, at.count);
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) v[k] = scale[k] * ((v[k] - center[k]) * inverse[k]) + shift[k];
      store_vector(p.y.row(i) + at.column, v, at.count);
    }
  }
};

/// The map of train reverse from sums that are known; means as TrainGradientStore leaves them.
template <class T, int kWidth>
struct BatchNormTrainReverseMapBody {
  static constexpr int kBlockThreads = kThreads;

  BatchNormReverse<T> p;
  const double* means;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const MapThread at = map_thread<kWidth>(block, p.x.cols);
    if (at.count == 0) return;
    const Vector<T, kWidth> center = constants<kWidth>(p.mean, at), inverse = constants<kWidth>(p.inv_std, at);
    const Vector<T, kWidth> gamma = constants<kWidth>(p.gamma, at);
    const Vector<double, kWidth> shifts = constants<kWidth>(means, at);
    const Vector<double, kWidth> scales = constants<kWidth>(means + p.x.cols, at);
    for (std::int64_t i = at.first_row; i < p.x.rows; i += at.step) {
      const Vector<T, kWidth> x = load_vector<kWidth>(p.x.row(i) + at.column, at.count);
      Vector<T, kWidth> grad = load_vector<kWidth>(p.grad_y.row(i) + at.column, at.count);
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) {
        const T factor = gamma[k] * inverse[k];
        const T normalized = (x[k] - center[k]) * inverse[k];
        grad[k] = factor * (grad[k] - static_cast<T>(shifts[k]) - normalized * static_cast<T>(scales[k]));
      }
      store_vector(p.grad_x.row(i) + at.column, grad, at.count);
    }
  }
};

/// y = (x - mean) factor + shift with factor = gamma (variance + epsilon)^(-1/2); without `shift` no mean either.
/// Without x.data y = 0.
template <class T, int kWidth>
struct BatchNormAffineBody {
  static constexpr int kBlockThreads = kThreads;
  /// Without this number the compiler spills 4 bytes of four columns.
  static constexpr int kBlocks = 4;

  DeviceMatrix<T> y, x;
  const T* gamma;
  const T* shift;
  const T* mean;
  const T* variance;
  double epsilon;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const MapThread at = map_thread<kWidth>(block, y.cols);
    if (at.count == 0) return;
    Vector<T, kWidth> factor{}, center{}, added{};
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) {
      if (k >= at.count) continue;
      const std::int64_t j = at.column + k;
      factor[k] = static_cast<T>(static_cast<double>(gamma[j]) / sqrt(static_cast<double>(variance[j]) + epsilon));
      if (shift == nullptr) continue;
      center[k] = mean[j];
      added[k] = shift[j];
    }
    for (std::int64_t i = at.first_row; i < y.rows; i += at.step) {
      Vector<T, kWidth> v{};
      if (x.data != nullptr) {
        v = load_vector<kWidth>(x.row(i) + at.column, at.count);
        BRACKET_UNROLL
        for (int k = 0; k < kWidth; ++k) {
          v[k] = shift != nullptr ? (v[k] - center[k]) * factor[k] + added[k] : v[k] * factor[k];
        }
      }
      store_vector(y.row(i) + at.column, v, at.count);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::batch_norm_kernels
