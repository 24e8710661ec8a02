// Golub-Kahan bidiagonalisation per row: J V = U B with V orthonormal by full reorthogonalisation, U by the recurrence
// alone (Golub and Kahan 1965; Simon and Zha 2000; Barlow 2013), and what is read off B. m rows, steps k < K.
//
//   left         u <- (jv - beta u) / alpha                         3 m D elements moved (twice read)    m 6 D flops
//   right        v <- J^T u without its part in v_0 .. v_k, twice    m (k + 1) d elements read 4 times    m 8 (k + 1) d
//   bidiagonal, quadrature, singular_certificate, normalize_rows     once per estimate
// An iteration is one left and one right, each behind one product with J or J^T. All are bound by memory. Rows may be
// strided; no alignment beyond the element's. Sums are in f64 in an order fixed by the block size.
//
// | variant              | idea                                                       | time                      |
// | left                 | block per row                                              | not yet measured on a GPU |
// | right                | block per row: a warp per inner product, then recombination | not yet measured on a GPU |
// | bidiagonal           | thread per element                                         | not yet measured on a GPU |
// | quadrature           | thread per row                                             | not yet measured on a GPU |
// | singular_certificate | block per row                                              | not yet measured on a GPU |
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/bidiagonal.h"

namespace bracket::BRACKET_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpThreads;
/// Directions whose inner products are formed before any is subtracted: what shared memory holds.
constexpr int kGroup = 512;

template <class T>
BRACKET_DEVICE double block_length(const T* x, std::int64_t count) {
  double sum = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) {
    const double value = static_cast<double>(x[j]);
    sum += value * value;
  }
  return sqrt(block_sum<double, kThreads>(sum));
}

template <class T>
BRACKET_DEVICE void divide(T* y, const T* x, std::int64_t count, double norm) {
  const double factor = norm == 0 ? 0 : 1 / norm;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads)
    y[j] = static_cast<T>(factor * static_cast<double>(x[j]));
}

/// r <- r - V^T V r for rows [first, first + count) of V, twice: classical Gram-Schmidt within a group.
template <class T>
BRACKET_DEVICE void remove_span(T* r, const DeviceMatrix<T>& basis, std::int64_t first, std::int64_t count,
                                double* overlaps) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpThreads, warp = thread / kWarpThreads;
  const std::int64_t groups = (count + kGroup - 1) / kGroup;
  for (std::int64_t pass = 0; pass < 2 * groups; ++pass) {
    const std::int64_t group = pass % groups * kGroup;
    const int size = static_cast<int>(count - group < kGroup ? count - group : kGroup);
    for (int k = warp; k < size; k += kWarps) {
      const T* const v = basis.row(first + group + k);
      double sum = 0;
      for (std::int64_t j = lane; j < basis.cols; j += kWarpThreads)
        sum += static_cast<double>(r[j]) * static_cast<double>(v[j]);
      BRACKET_UNROLL
      for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
      if (lane == 0) overlaps[k] = sum;
    }
    __syncthreads();
    for (std::int64_t j = thread; j < basis.cols; j += kThreads) {
      double value = static_cast<double>(r[j]);
      for (int k = 0; k < size; ++k) value -= overlaps[k] * static_cast<double>(basis.row(first + group + k)[j]);
      r[j] = static_cast<T>(value);
    }
    __syncthreads();
  }
}

/// r = the coordinate direction furthest from the span of rows [first, first + count) of V, the first of several.
template <class T>
BRACKET_DEVICE void furthest_coordinate(T* r, const DeviceMatrix<T>& basis, std::int64_t first, std::int64_t count) {
  double least = HUGE_VAL, chosen = 0;
  for (std::int64_t j = threadIdx.x; j < basis.cols; j += kThreads) {
    double inside = 0;
    for (std::int64_t k = first; k < first + count; ++k) {
      const double value = static_cast<double>(basis.row(k)[j]);
      inside += value * value;
    }
    if (inside < least) {
      least = inside;
      chosen = static_cast<double>(j);
    }
  }
  const double smallest = block_min<double, kThreads>(least);
  const double index = block_min<double, kThreads>(least == smallest ? chosen : HUGE_VAL);
  for (std::int64_t j = threadIdx.x; j < basis.cols; j += kThreads)
    r[j] = static_cast<double>(j) == index ? T(1) : T(0);
  __syncthreads();
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
__global__ void normalize_rows_kernel(DeviceMatrix<T> y, double* norm, DeviceMatrix<T> x) {
  for (std::int64_t i = blockIdx.x; i < x.rows; i += gridDim.x) {
    const double length = block_length(x.row(i), x.cols);
    if (threadIdx.x == 0) norm[i] = length;
    divide(y.row(i), x.row(i), x.cols, length);
  }
}

template <class T>
__global__ void golub_kahan_left_kernel(DeviceMatrix<T> u, DeviceMatrix<double> alpha, DeviceMatrix<T> jv,
                                        DeviceMatrix<double> beta, std::int64_t step) {
  for (std::int64_t i = blockIdx.x; i < u.rows; i += gridDim.x) {
    T* const to = u.row(i);
    const T* const from = jv.row(i);
    const double before = block_length(from, u.cols), off = step == 0 ? 0 : beta.row(i)[step - 1];
    for (std::int64_t j = threadIdx.x; j < u.cols; j += kThreads) {
      const double other = step == 0 ? 0 : static_cast<double>(to[j]);
      to[j] = static_cast<T>(static_cast<double>(from[j]) - off * other);
    }
    double norm = block_length(to, u.cols);  // of elements that this thread has written
    if (norm <= formula::kBreakdown<T> * before) norm = 0;
    divide(to, to, u.cols, norm);
    if (threadIdx.x == 0) alpha.row(i)[step] = norm;
  }
}

template <class T>
__global__ void golub_kahan_right_kernel(DeviceMatrix<T> basis, DeviceMatrix<double> beta, DeviceMatrix<T> w,
                                         DeviceMatrix<double> alpha, std::int64_t step) {
  BRACKET_SHARED(double, overlaps, [kGroup]);
  for (std::int64_t i = blockIdx.x; i < w.rows; i += gridDim.x) {
    T* const r = w.row(i);
    const std::int64_t first = i * alpha.cols;
    const double before = block_length(r, w.cols), diagonal = alpha.row(i)[step];
    const T* const last = basis.row(first + step);
    for (std::int64_t j = threadIdx.x; j < w.cols; j += kThreads)
      r[j] = static_cast<T>(static_cast<double>(r[j]) - diagonal * static_cast<double>(last[j]));
    __syncthreads();
    remove_span(r, basis, first, step + 1, overlaps);
    double norm = block_length(r, w.cols);
    if (norm <= formula::kBreakdown<T> * before || step + 1 == w.cols) norm = 0;
    if (threadIdx.x == 0) beta.row(i)[step] = norm;
    if (step + 1 == alpha.cols) continue;
    if (norm == 0 && step + 1 < w.cols) {
      furthest_coordinate(r, basis, first, step + 1);
      remove_span(r, basis, first, step + 1, overlaps);
      norm = block_length(r, w.cols);
    }
    divide(basis.row(first + step + 1), r, w.cols, norm);
  }
}

__global__ void bidiagonal_kernel(double* a, std::int64_t blocks, std::int64_t k, DeviceMatrix<double> alpha,
                                  DeviceMatrix<double> beta, DeviceMatrix<double> lower) {
  const std::int64_t per_end = lower.rows == 0 ? 1 : blocks / lower.rows;
  for (std::int64_t e = first_item(); e < blocks * k * k; e += item_stride()) {
    const std::int64_t block = e / (k * k), i = e / k % k, j = e % k;
    const double* const x = alpha.row(block);
    const double* const y = beta.row(block);
    const bool last = lower.rows > 0 && i == k - 1 && j == k - 1;
    const double end = last ? formula::radau_element(x, y, k - 1, *lower.row(block / per_end)) : -1;
    a[e] = formula::bidiagonal_element(x, y, k, end, i, j);
  }
}

__global__ void quadrature_kernel(double* sum, DeviceMatrix<double> values, const double* vectors, const double* norm,
                                  const double* weight, SpectralFunction f, bool accumulate) {
  const std::int64_t k = values.cols;
  for (std::int64_t i = first_item(); i < values.rows; i += item_stride()) {
    const double factor = (weight == nullptr ? 1 : weight[i]) * norm[i] * norm[i];
    const double term =
        formula::weighted_sum(factor, formula::quadrature_sum(values.row(i), vectors + i * k * k, k, f));
    sum[i] = accumulate ? sum[i] + term : term;
  }
}

template <class T>
struct CertificateRows {
  double *h, *mu, *distance;
  DeviceMatrix<T> scale, w, v, jv;
};

template <class T>
__global__ void singular_certificate_kernel(CertificateRows<T> rows, double dimension) {
  for (std::int64_t i = blockIdx.x; i < rows.v.rows; i += gridDim.x) {
    const T* const x = rows.v.row(i);
    const T* const y = rows.w.row(i);
    const double size = block_length(x, rows.v.cols), value = block_length(rows.jv.row(i), rows.jv.cols) / size;
    double sum = 0;
    for (std::int64_t j = threadIdx.x; j < rows.v.cols; j += kThreads) {
      const double r = static_cast<double>(y[j]) - value * value * static_cast<double>(x[j]);
      sum += r * r;
    }
    const double squares = block_sum<double, kThreads>(sum);
    if (threadIdx.x != 0) continue;
    rows.mu[i] = value;
    rows.h[i] = dimension * log(value);
    *rows.scale.row(i) = static_cast<T>(value == 0 ? 0 : dimension / (value * value * size * size));
    rows.distance[i] = value == 0 ? 0 : formula::nearest_distance(value, sqrt(squares) / (value * size));
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t normalize_rows(Tensor y, Tensor norm, Tensor x, cudaStream_t stream) {
  if (x.rows() == 0) return cudaSuccess;
  return launch<normalize_rows_kernel<T>>(blocks_for(x.rows(), 1), kThreads, 0, stream, device_matrix<T>(y),
                                          norm.as<double>(), device_matrix<T>(x));
}

template <class T>
cudaError_t golub_kahan_left(Tensor u, Tensor alpha, Tensor jv, Tensor beta, std::int64_t step, cudaStream_t stream) {
  if (u.rows() == 0) return cudaSuccess;
  return launch<golub_kahan_left_kernel<T>>(blocks_for(u.rows(), 1), kThreads, 0, stream, device_matrix<T>(u),
                                            device_matrix<double>(alpha), device_matrix<T>(jv),
                                            device_matrix<double>(beta), step);
}

template <class T>
cudaError_t golub_kahan_right(Tensor basis, Tensor beta, Tensor w, Tensor alpha, std::int64_t step,
                              cudaStream_t stream) {
  if (w.rows() == 0) return cudaSuccess;
  return launch<golub_kahan_right_kernel<T>>(blocks_for(w.rows(), 1), kThreads, 0, stream, device_matrix<T>(basis),
                                             device_matrix<double>(beta), device_matrix<T>(w),
                                             device_matrix<double>(alpha), step);
}

template <class T>
cudaError_t singular_certificate(Tensor h, Tensor scale, Tensor mu, Tensor distance, Tensor w, Tensor v, Tensor jv,
                                 double dimension, cudaStream_t stream) {
  if (v.rows() == 0) return cudaSuccess;
  const CertificateRows<T> rows{h.as<double>(),          mu.as<double>(),     distance.as<double>(),
                                device_matrix<T>(scale), device_matrix<T>(w), device_matrix<T>(v),
                                device_matrix<T>(jv)};
  return launch<singular_certificate_kernel<T>>(blocks_for(v.rows(), 1), kThreads, 0, stream, rows, dimension);
}

}  // namespace

void CudaOps::do_normalize_rows(Tensor y, Tensor norm, Tensor x) {
  check(dispatch(x.dtype(), [&]<class T>() { return BRACKET_TARGET::normalize_rows<T>(y, norm, x, stream_); }),
        "normalize_rows", x);
}

void CudaOps::do_golub_kahan_left(Tensor u, Tensor alpha, Tensor jv, Tensor beta, std::int64_t step) {
  const cudaError_t code = dispatch(
      u.dtype(), [&]<class T>() { return BRACKET_TARGET::golub_kahan_left<T>(u, alpha, jv, beta, step, stream_); });
  check(code, "golub_kahan_left", u);
}

void CudaOps::do_golub_kahan_right(Tensor basis, Tensor beta, Tensor w, Tensor alpha, std::int64_t step) {
  const cudaError_t code = dispatch(
      w.dtype(), [&]<class T>() { return BRACKET_TARGET::golub_kahan_right<T>(basis, beta, w, alpha, step, stream_); });
  check(code, "golub_kahan_right", basis);
}

void CudaOps::do_bidiagonal(Tensor a, Tensor alpha, Tensor beta, Tensor lower) {
  if (a.size() == 0) return;
  check(launch<bidiagonal_kernel>(blocks_for(a.size(), kThreads), kThreads, 0, stream_, a.as<double>(), a.rows(),
                                  a.extent(1), device_matrix<double>(alpha), device_matrix<double>(beta),
                                  device_matrix<double>(lower)),
        "bidiagonal", a);
}

void CudaOps::do_quadrature(Tensor sum, Tensor values, Tensor vectors, Tensor norm, Tensor weight,
                            const SpectralFunction& f, Update update) {
  if (sum.rows() == 0) return;
  check(launch<quadrature_kernel>(blocks_for(sum.rows(), kThreads), kThreads, 0, stream_, sum.as<double>(),
                                  device_matrix<double>(values), vectors.as<double>(), norm.as<double>(),
                                  device_vector<double>(weight), f, update == Update::accumulate),
        "quadrature", values);
}

void CudaOps::do_singular_certificate(Tensor h, Tensor scale, Tensor mu, Tensor distance, Tensor w, Tensor v, Tensor jv,
                                      double dimension) {
  const cudaError_t code = dispatch(v.dtype(), [&]<class T>() {
    return BRACKET_TARGET::singular_certificate<T>(h, scale, mu, distance, w, v, jv, dimension, stream_);
  });
  check(code, "singular_certificate", jv);
}

}  // namespace bracket::BRACKET_TARGET
