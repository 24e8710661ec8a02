// Small dense algebra per sample, in f64 whatever the dtype T of the tangents. n samples, K tangents of D elements.
//
//   gram              g = t t^T                   n K^2 D flops            reads n K D elements
//   cholesky          lower factor in place       n K^3 / 3 flops          NaN where a pivot is not positive and finite
//   triangular_solve  l x = b or l^T x = b        n K^2 D flops            x may alias b
//   symmetric_eigen   cyclic Jacobi               about 8 sweeps of 6 n K^3 flops
//   combine_tangents  y_i = sum_k v_ik t_(iK+k)   2 n K D flops            f64 accumulation: along v the rows cancel
//   min_singular, log_diagonal_sum, scale_rows, tile_identity: element-wise
// Rows of tangents may be strided; no alignment beyond the element's. Any K: what does not fit into kSharedBytes of
// shared memory works in global memory. Determinism: every order of summation is fixed by K and D.
//
// | variant                   | idea                                                  | time                      |
// | gram                      | one thread per entry, for K < 8                       | not yet measured on a GPU |
// | gram_tiled                | 16 x 16 tile of entries per block, 32 columns a step  | not yet measured on a GPU |
// | cholesky                  | one thread per sample, for K <= 8                     | not yet measured on a GPU |
// | cholesky_block            | block per sample, right-looking                       | not yet measured on a GPU |
// | triangular_solve          | one thread per column, solution in shared memory      | not yet measured on a GPU |
// | symmetric_eigen           | block per sample, K/2 disjoint rotations at a time    | not yet measured on a GPU |
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/jacobi.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"

namespace bracket::BRACKET_TARGET::dense_kernels {

constexpr int kThreads = 256;
/// What every device grants a block without an opt-in; two such blocks still share a multiprocessor of any of them.
constexpr std::int64_t kSharedBytes = 48 * 1024;
/// Up to this K the work of a sample is too little to share among threads.
constexpr std::int64_t kThreadK = 8;
constexpr int kGramTile = 16;
constexpr int kGramStep = 32;
constexpr int kCholeskyThreads = 128;
constexpr int kMaxSolveThreads = 128;

// ---- device functions -----------------------------------------------------------------------------------------------

BRACKET_DEVICE bool finite(double x) { return x - x == 0; }
BRACKET_DEVICE double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }
BRACKET_DEVICE bool usable_pivot(double pivot) { return pivot > 0 && finite(pivot); }

// ---- gram -----------------------------------------------------------------------------------------------------------

template <class T>
struct GramBody {
  static constexpr int kBlockThreads = kThreads;

  double* g;
  DeviceMatrix<T> t;
  std::int64_t samples, k;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t e = block.first_item(); e < samples * k * k; e += block.item_stride()) {
      const std::int64_t sample = e / (k * k);
      const std::int64_t i = e / k % k;
      const std::int64_t j = e % k;
      if (j > i) continue;
      const T* const left = t.row(sample * k + i);
      const T* const right = t.row(sample * k + j);
      double sum = 0;
      for (std::int64_t c = 0; c < t.cols; ++c) sum += static_cast<double>(left[c]) * static_cast<double>(right[c]);
      g[(sample * k + i) * k + j] = sum;
      g[(sample * k + j) * k + i] = sum;
    }
  }
};

struct GramSlices {
  // One element of padding: the threads of a warp read 16 different rows of `right` at the same column.
  double left[kGramTile][kGramStep + 1];
  double right[kGramTile][kGramStep + 1];
};

/// Work item = one tile on or below the diagonal of one sample's g.
template <class T>
struct GramTiledBody {
  static constexpr int kBlockThreads = kGramTile * kGramTile;
  static constexpr std::size_t kSharedBytes = sizeof(GramSlices);
  static constexpr bool kMeets = true;

  double* g;
  DeviceMatrix<T> t;
  std::int64_t samples, k, tiles;

  BRACKET_DEVICE void operator()(const Block& block) const {
    auto& [left, right] = block.shared<GramSlices>();
    const int thread = static_cast<int>(threadIdx.x);
    const int x = thread % kGramTile, y = thread / kGramTile;
    const std::int64_t per_sample = tiles * (tiles + 1) / 2;
    for (std::int64_t item = block.x; item < samples * per_sample; item += block.grid_x) {
      const std::int64_t sample = item / per_sample;
      std::int64_t tile_column = item - sample * per_sample;
      std::int64_t tile_row = 0;
      while (tile_column > tile_row) tile_column -= ++tile_row;
      const std::int64_t i0 = tile_row * kGramTile, j0 = tile_column * kGramTile;
      double sum = 0;
      for (std::int64_t first = 0; first < t.cols; first += kGramStep) {
        for (int e = thread; e < kGramTile * kGramStep; e += kGramTile * kGramTile) {
          const int row = e / kGramStep, step = e % kGramStep;
          const std::int64_t column = first + step;
          const bool inside = column < t.cols;
          left[row][step] = inside && i0 + row < k ? static_cast<double>(t.row(sample * k + i0 + row)[column]) : 0;
          right[row][step] = inside && j0 + row < k ? static_cast<double>(t.row(sample * k + j0 + row)[column]) : 0;
        }
        __syncthreads();
        BRACKET_UNROLL
        for (int step = 0; step < kGramStep; ++step) sum += left[y][step] * right[x][step];
        __syncthreads();
      }
      const std::int64_t i = i0 + y, j = j0 + x;
      if (i < k && j <= i) {
        g[(sample * k + i) * k + j] = sum;
        g[(sample * k + j) * k + i] = sum;
      }
    }
  }
};

// ---- cholesky -------------------------------------------------------------------------------------------------------

struct CholeskyBody {
  static constexpr int kBlockThreads = kThreads;

  double* g;
  std::int64_t samples;
  int k;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t sample = block.first_item(); sample < samples; sample += block.item_stride()) {
      double* const a = g + sample * k * k;
      bool positive = true;
      for (int i = 0; i < k && positive; ++i) {
        for (int j = 0; j <= i; ++j) {
          double value = a[i * k + j];
          for (int l = 0; l < j; ++l) value -= a[i * k + l] * a[j * k + l];
          if (j < i) {
            a[i * k + j] = value / a[j * k + j];
          } else {
            positive = usable_pivot(value);
            a[i * k + i] = sqrt(value);
          }
        }
        for (int j = i + 1; j < k; ++j) a[i * k + j] = 0;
      }
      if (positive) continue;
      for (int e = 0; e < k * k; ++e) a[e] = not_a_number();
    }
  }
};

/// In shared memory when the launch has some, else in place.
struct CholeskyBlockBody {
  static constexpr int kBlockThreads = kCholeskyThreads;
  // Registers for as many blocks per multiprocessor; left alone the compiler takes fewer and spills.
  static constexpr int kBlocks = 8;
  static constexpr bool kDynamicShared = true;
  static constexpr bool kMeets = true;

  double* g;
  std::int64_t samples;
  int k;
  bool shared;

  BRACKET_DEVICE void operator()(const Block& block) const {
    double* const storage = &block.shared<double>();
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(block.threads);
    for (std::int64_t sample = block.x; sample < samples; sample += block.grid_x) {
      double* const result = g + sample * k * k;
      double* const a = shared ? storage : result;
      if (shared) {
        for (int e = thread; e < k * k; e += threads) a[e] = result[e];
      }
      __syncthreads();
      bool positive = true;
      for (int j = 0; j < k; ++j) {
        const double pivot = a[j * k + j];
        positive = usable_pivot(pivot);
        if (!positive) break;  // all threads read the same pivot
        const double root = sqrt(pivot);
        for (int i = j + 1 + thread; i < k; i += threads) a[i * k + j] /= root;
        __syncthreads();
        if (thread == 0) a[j * k + j] = root;
        const int rest = k - j - 1;
        for (int e = thread; e < rest * rest; e += threads) {
          const int i = j + 1 + e / rest, l = j + 1 + e % rest;
          if (l <= i) a[i * k + l] -= a[i * k + j] * a[l * k + j];
        }
        __syncthreads();
      }
      __syncthreads();  // working in place, nobody may overwrite a pivot that another thread has yet to read
      for (int e = thread; e < k * k; e += threads) {
        const double value = e / k < e % k ? 0 : a[e];
        result[e] = positive ? value : not_a_number();
      }
      __syncthreads();
    }
  }
};

// ---- triangular solve -----------------------------------------------------------------------------------------------

/// One thread per (sample, column). The solution is kept in f64 in shared memory, element i of a thread i block.threads
/// apart, or where that does not fit (`shared` false) in x itself, rounded to T between the steps.
template <class T>
struct TriangularSolveBody {
  static constexpr int kBlockThreads = kMaxSolveThreads;
  static constexpr bool kDynamicShared = true;

  DeviceMatrix<T> x;
  const double* l;
  DeviceMatrix<T> b;
  std::int64_t samples;
  int k;
  bool transposed, shared;

  BRACKET_DEVICE void operator()(const Block& block) const {
    double* const storage = &block.shared<double>();
    const int threads = static_cast<int>(block.threads), thread = static_cast<int>(threadIdx.x);
    for (std::int64_t item = block.first_item(); item < samples * b.cols; item += block.item_stride()) {
      const std::int64_t sample = item / b.cols;
      const std::int64_t column = item - sample * b.cols;
      const double* const factor = l + sample * k * k;
      for (int step = 0; step < k; ++step) {
        const int i = transposed ? k - 1 - step : step;
        double value = static_cast<double>(b.row(sample * k + i)[column]);
        for (int solved = 0; solved < step; ++solved) {
          const int j = transposed ? k - 1 - solved : solved;
          const double coefficient = transposed ? factor[j * k + i] : factor[i * k + j];
          const double known =
              shared ? storage[j * threads + thread] : static_cast<double>(x.row(sample * k + j)[column]);
          value -= coefficient * known;
        }
        value /= factor[i * k + i];
        if (shared) storage[i * threads + thread] = value;
        x.row(sample * k + i)[column] = static_cast<T>(value);
      }
    }
  }
};

template <class T>
struct LogDiagonalSumBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> h;
  const double* l;
  std::int64_t k;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t i = block.first_item(); i < h.rows; i += block.item_stride()) {
      double sum = 0;
      for (std::int64_t j = 0; j < k; ++j) sum += log(l[i * k * k + j * k + j]);
      *h.row(i) = static_cast<T>(sum);
    }
  }
};

// ---- eigenvalues ----------------------------------------------------------------------------------------------------

/// Shared memory: planes, ranks, and with `shared` the matrix and its vectors; else those stay in a and vectors.
struct SymmetricEigenBody {
  static constexpr int kBlockThreads = kThreads;
  // Registers for as many blocks per multiprocessor; left alone the compiler takes fewer and spills.
  static constexpr int kBlocks = 2;
  static constexpr bool kDynamicShared = true;
  static constexpr bool kMeets = true;

  DeviceMatrix<double> values;
  double* vectors;
  double* matrices;
  std::int64_t samples;
  int k;
  bool shared;

  BRACKET_DEVICE void operator()(const Block& block) const {
    double* const storage = &block.shared<double>();
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(block.threads);
    const int elements = k * k;
    double* const shared_end = shared ? storage + 2 * elements : storage;
    JacobiPlane* const planes = reinterpret_cast<JacobiPlane*>(shared_end);
    int* const ranks = reinterpret_cast<int*>(planes + (k + 1) / 2);
    for (std::int64_t sample = block.x; sample < samples; sample += block.grid_x) {
      double* const input = matrices + sample * elements;
      double* const output = vectors + sample * elements;
      double* const a = shared ? storage : input;
      double* const v = shared ? storage + elements : output;
      int bad = 0;
      for (int e = thread; e < elements; e += threads) {
        const double element = input[e];
        if (!finite(element)) bad = 1;
        if (shared) a[e] = element;
      }
      if (__syncthreads_or(bad) != 0) {
        for (int e = thread; e < elements; e += threads) output[e] = not_a_number();
        for (int i = thread; i < k; i += threads) values.row(sample)[i] = not_a_number();
        __syncthreads();
        continue;
      }
      jacobi_diagonalize(a, v, planes, k, threads);
      __syncthreads();
      for (int i = thread; i < k; i += threads) {
        ranks[i] = rank_of(a, k, i);
        values.row(sample)[ranks[i]] = a[i * k + i];
        fix_sign(v + i * k, k);
      }
      __syncthreads();
      // From shared memory straight to the output; in place through the matrix, which is no longer needed.
      double* const sorted = shared ? output : a;
      for (int e = thread; e < elements; e += threads) sorted[ranks[e / k] * k + e % k] = v[e];
      __syncthreads();
      if (!shared) {
        for (int e = thread; e < elements; e += threads) output[e] = sorted[e];
      }
      __syncthreads();
    }
  }
};

template <class T>
struct MinSingularBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> h, v, scale;
  DeviceMatrix<double> values;
  const double* vectors;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t k = values.cols;
    for (std::int64_t e = block.first_item(); e < values.rows * k; e += block.item_stride()) {
      const std::int64_t i = e / k;
      const std::int64_t j = e - i * k;
      v.row(i)[j] = static_cast<T>(vectors[i * k * k + j]);
      if (j > 0) continue;
      // A Gram matrix has no negative eigenvalue: zero or less means singular to rounding.
      const double smallest = *values.row(i) > 0 ? *values.row(i) : not_a_number();
      *h.row(i) = static_cast<T>(static_cast<double>(k) / 2 * log(smallest));
      *scale.row(i) = static_cast<T>(static_cast<double>(k) / smallest);
    }
  }
};

// ---- rows -----------------------------------------------------------------------------------------------------------

template <class T>
struct CombineTangentsBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, t, v;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t e = block.first_item(); e < y.size(); e += block.item_stride()) {
      const std::int64_t i = e / y.cols;
      const std::int64_t c = e - i * y.cols;
      double sum = 0;
      for (std::int64_t j = 0; j < v.cols; ++j) {
        sum += static_cast<double>(v.row(i)[j]) * static_cast<double>(t.row(i * v.cols + j)[c]);
      }
      y.row(i)[c] = static_cast<T>(sum);
    }
  }
};

template <class T>
struct ScaleRowsBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, x, scale;
  double factor;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t e = block.first_item(); e < y.size(); e += block.item_stride()) {
      const std::int64_t i = e / y.cols;
      const std::int64_t j = e - i * y.cols;
      y.row(i)[j] = static_cast<T>(factor * static_cast<double>(*scale.row(i))) * x.row(i)[j];
    }
  }
};

template <class T>
struct TileIdentityBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> t;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t e = block.first_item(); e < t.size(); e += block.item_stride()) {
      const std::int64_t i = e / t.cols;
      const std::int64_t j = e - i * t.cols;
      t.row(i)[j] = i % t.cols == j ? T(1) : T(0);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::dense_kernels
