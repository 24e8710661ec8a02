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
// | gram_kernel               | one thread per entry, for K < 8                       | not yet measured on a GPU |
// | gram_tiled_kernel         | 16 x 16 tile of entries per block, 32 columns a step  | not yet measured on a GPU |
// | cholesky_kernel           | one thread per sample, for K <= 8                     | not yet measured on a GPU |
// | cholesky_block_kernel     | block per sample, right-looking                       | not yet measured on a GPU |
// | triangular_solve_kernel   | one thread per column, solution in shared memory      | not yet measured on a GPU |
// | symmetric_eigen_kernel    | block per sample, K/2 disjoint rotations at a time    | not yet measured on a GPU |
#include "kernels/cuda/common/jacobi.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

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
__global__ void gram_kernel(double* g, DeviceMatrix<T> t, std::int64_t samples, std::int64_t k) {
  for (std::int64_t e = first_item(); e < samples * k * k; e += item_stride()) {
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

/// Work item = one tile on or below the diagonal of one sample's g.
template <class T>
__global__ void gram_tiled_kernel(double* g, DeviceMatrix<T> t, std::int64_t samples, std::int64_t k,
                                  std::int64_t tiles) {
  // One element of padding: the threads of a warp read 16 different rows of `right` at the same column.
  BRACKET_SHARED(double, left, [kGramTile][kGramStep + 1]);
  BRACKET_SHARED(double, right, [kGramTile][kGramStep + 1]);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int thread = y * kGramTile + x;
  const std::int64_t per_sample = tiles * (tiles + 1) / 2;
  for (std::int64_t item = blockIdx.x; item < samples * per_sample; item += gridDim.x) {
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

// ---- cholesky -------------------------------------------------------------------------------------------------------

__global__ void cholesky_kernel(double* g, std::int64_t samples, int k) {
  for (std::int64_t sample = first_item(); sample < samples; sample += item_stride()) {
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

/// In shared memory when the launch has some, else in place.
__global__ void cholesky_block_kernel(double* g, std::int64_t samples, int k, bool shared) {
  BRACKET_DYNAMIC_SHARED(double, storage);
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int64_t sample = blockIdx.x; sample < samples; sample += gridDim.x) {
    double* const result = g + sample * k * k;
    double* const a = shared ? storage : result;
    if (shared) {
      for (int e = thread; e < k * k; e += kCholeskyThreads) a[e] = result[e];
    }
    __syncthreads();
    bool positive = true;
    for (int j = 0; j < k; ++j) {
      const double pivot = a[j * k + j];
      positive = usable_pivot(pivot);
      if (!positive) break;  // all threads read the same pivot
      const double root = sqrt(pivot);
      for (int i = j + 1 + thread; i < k; i += kCholeskyThreads) a[i * k + j] /= root;
      __syncthreads();
      if (thread == 0) a[j * k + j] = root;
      const int rest = k - j - 1;
      for (int e = thread; e < rest * rest; e += kCholeskyThreads) {
        const int i = j + 1 + e / rest, l = j + 1 + e % rest;
        if (l <= i) a[i * k + l] -= a[i * k + j] * a[l * k + j];
      }
      __syncthreads();
    }
    __syncthreads();  // working in place, nobody may overwrite a pivot that another thread has yet to read
    for (int e = thread; e < k * k; e += kCholeskyThreads) {
      const double value = e / k < e % k ? 0 : a[e];
      result[e] = positive ? value : not_a_number();
    }
    __syncthreads();
  }
}

// ---- triangular solve -----------------------------------------------------------------------------------------------

/// One thread per (sample, column). The solution is kept in f64 in shared memory, element i of a thread i blockDim.x
/// apart, or where that does not fit (`shared` false) in x itself, rounded to T between the steps.
template <class T>
__global__ void triangular_solve_kernel(DeviceMatrix<T> x, const double* l, DeviceMatrix<T> b, std::int64_t samples,
                                        int k, bool transposed, bool shared) {
  BRACKET_DYNAMIC_SHARED(double, storage);
  for (std::int64_t item = first_item(); item < samples * b.cols; item += item_stride()) {
    const std::int64_t sample = item / b.cols;
    const std::int64_t column = item - sample * b.cols;
    const double* const factor = l + sample * k * k;
    for (int step = 0; step < k; ++step) {
      const int i = transposed ? k - 1 - step : step;
      double value = static_cast<double>(b.row(sample * k + i)[column]);
      for (int solved = 0; solved < step; ++solved) {
        const int j = transposed ? k - 1 - solved : solved;
        const double coefficient = transposed ? factor[j * k + i] : factor[i * k + j];
        const double known = shared ? storage[j * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)]
                                    : static_cast<double>(x.row(sample * k + j)[column]);
        value -= coefficient * known;
      }
      value /= factor[i * k + i];
      if (shared) storage[i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)] = value;
      x.row(sample * k + i)[column] = static_cast<T>(value);
    }
  }
}

template <class T>
__global__ void log_diagonal_sum_kernel(DeviceMatrix<T> h, const double* l, std::int64_t k) {
  for (std::int64_t i = first_item(); i < h.rows; i += item_stride()) {
    double sum = 0;
    for (std::int64_t j = 0; j < k; ++j) sum += log(l[i * k * k + j * k + j]);
    *h.row(i) = static_cast<T>(sum);
  }
}

// ---- eigenvalues ----------------------------------------------------------------------------------------------------

/// Shared memory: planes, ranks, and with `shared` the matrix and its vectors; else those stay in a and vectors.
__global__ void symmetric_eigen_kernel(DeviceMatrix<double> values, double* vectors, double* matrices,
                                       std::int64_t samples, int k, bool shared) {
  BRACKET_DYNAMIC_SHARED(double, storage);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int elements = k * k;
  double* const shared_end = shared ? storage + 2 * elements : storage;
  JacobiPlane* const planes = reinterpret_cast<JacobiPlane*>(shared_end);
  int* const ranks = reinterpret_cast<int*>(planes + (k + 1) / 2);
  for (std::int64_t sample = blockIdx.x; sample < samples; sample += gridDim.x) {
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
    jacobi_diagonalize(a, v, planes, k);
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

template <class T>
__global__ void min_singular_kernel(DeviceMatrix<T> h, DeviceMatrix<T> v, DeviceMatrix<T> scale,
                                    DeviceMatrix<double> values, const double* vectors) {
  const std::int64_t k = values.cols;
  for (std::int64_t e = first_item(); e < values.rows * k; e += item_stride()) {
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

// ---- rows -----------------------------------------------------------------------------------------------------------

template <class T>
__global__ void combine_tangents_kernel(DeviceMatrix<T> y, DeviceMatrix<T> t, DeviceMatrix<T> v) {
  for (std::int64_t e = first_item(); e < y.size(); e += item_stride()) {
    const std::int64_t i = e / y.cols;
    const std::int64_t c = e - i * y.cols;
    double sum = 0;
    for (std::int64_t j = 0; j < v.cols; ++j) {
      sum += static_cast<double>(v.row(i)[j]) * static_cast<double>(t.row(i * v.cols + j)[c]);
    }
    y.row(i)[c] = static_cast<T>(sum);
  }
}

template <class T>
__global__ void scale_rows_kernel(DeviceMatrix<T> y, DeviceMatrix<T> x, DeviceMatrix<T> scale, double factor) {
  for (std::int64_t e = first_item(); e < y.size(); e += item_stride()) {
    const std::int64_t i = e / y.cols;
    const std::int64_t j = e - i * y.cols;
    y.row(i)[j] = static_cast<T>(factor * static_cast<double>(*scale.row(i))) * x.row(i)[j];
  }
}

template <class T>
__global__ void tile_identity_kernel(DeviceMatrix<T> t) {
  for (std::int64_t e = first_item(); e < t.size(); e += item_stride()) {
    const std::int64_t i = e / t.cols;
    const std::int64_t j = e - i * t.cols;
    t.row(i)[j] = i % t.cols == j ? T(1) : T(0);
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t gram(Tensor g, Tensor t, cudaStream_t stream) {
  const std::int64_t samples = g.rows(), k = g.extent(1);
  if (g.size() == 0) return cudaSuccess;
  double* const grams = g.as<double>();
  if (k < kThreadK) {
    return launch<gram_kernel<T>>(blocks_for(g.size(), kThreads), kThreads, 0, stream, grams, device_matrix<T>(t),
                                  samples, k);
  }
  const std::int64_t tiles = (k + kGramTile - 1) / kGramTile;
  return launch<gram_tiled_kernel<T>>(blocks_for(samples * (tiles * (tiles + 1) / 2), 1), dim3(kGramTile, kGramTile), 0,
                                      stream, grams, device_matrix<T>(t), samples, k, tiles);
}

cudaError_t cholesky(Tensor g, cudaStream_t stream) {
  const std::int64_t samples = g.rows(), k = g.extent(1);
  if (g.size() == 0) return cudaSuccess;
  if (k <= kThreadK) {
    return launch<cholesky_kernel>(blocks_for(samples, kThreads), kThreads, 0, stream, g.as<double>(), samples,
                                   static_cast<int>(k));
  }
  const std::int64_t bytes = k * k * dtype_bytes(DType::f64);
  const bool shared = bytes <= kSharedBytes;
  return launch<cholesky_block_kernel>(blocks_for(samples, 1), kCholeskyThreads,
                                       shared ? static_cast<std::size_t>(bytes) : 0, stream, g.as<double>(), samples,
                                       static_cast<int>(k), shared);
}

template <class T>
cudaError_t triangular_solve(Tensor x, Tensor l, Tensor b, bool transposed, cudaStream_t stream) {
  const std::int64_t samples = l.rows(), k = l.extent(1);
  if (b.size() == 0) return cudaSuccess;
  const std::int64_t bytes_per_thread = k * dtype_bytes(DType::f64);
  std::int64_t threads = kSharedBytes / bytes_per_thread / kWarpThreads * kWarpThreads;
  const bool shared = threads > 0;
  if (!shared || threads > kMaxSolveThreads) threads = kMaxSolveThreads;
  return launch<triangular_solve_kernel<T>>(
      blocks_for(samples * b.cols(), static_cast<int>(threads)), static_cast<unsigned>(threads),
      shared ? static_cast<std::size_t>(threads * bytes_per_thread) : 0, stream, device_matrix<T>(x), l.as<double>(),
      device_matrix<T>(b), samples, static_cast<int>(k), transposed, shared);
}

template <class T>
cudaError_t log_diagonal_sum(Tensor h, Tensor l, cudaStream_t stream) {
  if (h.rows() == 0) return cudaSuccess;
  return launch<log_diagonal_sum_kernel<T>>(blocks_for(h.rows(), kThreads), kThreads, 0, stream, device_matrix<T>(h),
                                            l.as<double>(), l.extent(1));
}

cudaError_t symmetric_eigen(Tensor values, Tensor vectors, Tensor a, cudaStream_t stream) {
  const std::int64_t samples = a.rows(), k = a.extent(1);
  if (a.size() == 0) return cudaSuccess;
  const std::int64_t matrices = 2 * k * k * dtype_bytes(DType::f64);
  const std::int64_t lists = (k + 1) / 2 * static_cast<std::int64_t>(sizeof(JacobiPlane)) + k * 4;
  const bool shared = matrices + lists <= kSharedBytes;
  // About one thread for every four elements of the matrix: each pair of planes holds four.
  const unsigned threads = k <= 16 ? 32 : k <= 32 ? 128 : kThreads;
  return launch<symmetric_eigen_kernel>(
      blocks_for(samples, 1), threads, static_cast<std::size_t>(shared ? matrices + lists : lists), stream,
      device_matrix<double>(values), vectors.as<double>(), a.as<double>(), samples, static_cast<int>(k), shared);
}

template <class T>
cudaError_t min_singular(Tensor h, Tensor v, Tensor scale, Tensor values, Tensor vectors, cudaStream_t stream) {
  if (values.size() == 0) return cudaSuccess;
  return launch<min_singular_kernel<T>>(blocks_for(values.size(), kThreads), kThreads, 0, stream, device_matrix<T>(h),
                                        device_matrix<T>(v), device_matrix<T>(scale), device_matrix<double>(values),
                                        vectors.as<double>());
}

template <class T>
cudaError_t combine_tangents(Tensor y, Tensor t, Tensor v, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<combine_tangents_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, device_matrix<T>(y),
                                            device_matrix<T>(t), device_matrix<T>(v));
}

template <class T>
cudaError_t scale_rows(Tensor y, Tensor x, Tensor scale, double factor, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<scale_rows_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, device_matrix<T>(y),
                                      device_matrix<T>(x), device_matrix<T>(scale), factor);
}

template <class T>
cudaError_t tile_identity(Tensor t, cudaStream_t stream) {
  if (t.size() == 0) return cudaSuccess;
  return launch<tile_identity_kernel<T>>(blocks_for(t.size(), kThreads), kThreads, 0, stream, device_matrix<T>(t));
}

}  // namespace

void CudaOps::do_gram(Tensor g, Tensor t) {
  check(dispatch(t.dtype(), [&]<class T>() { return BRACKET_TARGET::gram<T>(g, t, stream_); }), "gram", t);
}

void CudaOps::do_cholesky(Tensor g) { check(BRACKET_TARGET::cholesky(g, stream_), "cholesky", g); }

void CudaOps::do_triangular_solve(Tensor x, Tensor l, Tensor b, bool transposed) {
  const cudaError_t code =
      dispatch(x.dtype(), [&]<class T>() { return BRACKET_TARGET::triangular_solve<T>(x, l, b, transposed, stream_); });
  check(code, "triangular_solve", x);
}

void CudaOps::do_log_diagonal_sum(Tensor h, Tensor l) {
  const cudaError_t code =
      dispatch(h.dtype(), [&]<class T>() { return BRACKET_TARGET::log_diagonal_sum<T>(h, l, stream_); });
  check(code, "log_diagonal_sum", l);
}

void CudaOps::do_symmetric_eigen(Tensor values, Tensor vectors, Tensor a) {
  check(BRACKET_TARGET::symmetric_eigen(values, vectors, a, stream_), "symmetric_eigen", a);
}

void CudaOps::do_min_singular(Tensor h, Tensor v, Tensor scale, Tensor values, Tensor vectors) {
  const cudaError_t code = dispatch(
      h.dtype(), [&]<class T>() { return BRACKET_TARGET::min_singular<T>(h, v, scale, values, vectors, stream_); });
  check(code, "min_singular", values);
}

void CudaOps::do_combine_tangents(Tensor y, Tensor t, Tensor v) {
  const cudaError_t code =
      dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::combine_tangents<T>(y, t, v, stream_); });
  check(code, "combine_tangents", t);
}

void CudaOps::do_scale_rows(Tensor y, Tensor x, Tensor scale, double factor) {
  const cudaError_t code =
      dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::scale_rows<T>(y, x, scale, factor, stream_); });
  check(code, "scale_rows", y);
}

void CudaOps::do_tile_identity(Tensor t, std::int64_t) {
  check(dispatch(t.dtype(), [&]<class T>() { return BRACKET_TARGET::tile_identity<T>(t, stream_); }), "tile_identity",
        t);
}

}  // namespace bracket::BRACKET_TARGET
