// Golub-Kahan bidiagonalisation per row: J V = U B with V orthonormal by full reorthogonalisation, U by the recurrence
// alone (Golub and Kahan 1965; Simon and Zha 2000; Barlow 2013), and what is read off B. m rows, steps k < K.
//
//   left         u <- (jv - beta u) / alpha                         3 m D elements moved (twice read)    m 6 D flops
//   right        v <- J^T u without its part in v_0 .. v_k, twice    m (k + 1) d elements read 4 times    m 8 (k + 1) d
//   rules        QR on B, about 2.5 sweeps per node                  3 m c K doubles in caches    m c 1.3 K^2 rotations
//   the others   once per estimate
// An iteration is one left and one right, each behind one product with J or J^T. All are bound by memory but the rules,
// c per row (more than 1 for the roulette), which wait for divisions and square roots: two rotations, one from either
// side, at every place a sweep passes. Rows may be strided; no alignment beyond the element's. Sums are in f64 in an
// order fixed by the block size.
//
// | variant              | idea                                                       | time                      |
// | left                 | block per row                                              | not yet measured on a GPU |
// | right                | block per row: a warp per inner product, then recombination | not yet measured on a GPU |
// | bidiagonal           | thread per element                                         | not yet measured on a GPU |
// | quadrature_rules     | thread per rule; elements of neighbours are neighbours     | not yet measured on a GPU |
// | quadrature           | thread per row                                             | not yet measured on a GPU |
// | coefficients         | thread per element                                         | not yet measured on a GPU |
// | singular_certificate | block per row                                              | not yet measured on a GPU |
#include "kernels/cuda/common/length.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/bidiagonal.h"

namespace bracket::BRACKET_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpThreads;
/// Threads with a rule each go their own ways: blocks of one warp spread over the multiprocessors.
constexpr int kRuleThreads = kWarpThreads;
/// Directions whose inner products are formed before any is subtracted: what shared memory holds.
constexpr int kGroup = 512;

template <class T>
BRACKET_DEVICE double block_length(const T* x, std::int64_t count) {
  return euclidean_length<kThreads>(count, [x](std::int64_t j) { return static_cast<double>(x[j]); });
}

template <class T>
BRACKET_DEVICE void divide(T* y, const T* x, std::int64_t count, double norm) {
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads)
    y[j] = static_cast<T>(norm == 0 ? 0 : static_cast<double>(x[j]) / norm);
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
                                  DeviceMatrix<double> beta) {
  for (std::int64_t e = first_item(); e < blocks * k * k; e += item_stride()) {
    const std::int64_t block = e / (k * k), i = e / k % k, j = e % k;
    a[e] = i == j ? alpha.row(block)[i] : i == j + 1 ? beta.row(block)[j] : 0;
  }
}

__global__ void quadrature_rules_kernel(DeviceMatrix<double> nodes, DeviceMatrix<double> shares, double* workspace,
                                        DeviceMatrix<double> alpha, DeviceMatrix<double> beta,
                                        DeviceMatrix<double> lower) {
  const std::int64_t k = nodes.rows, m = alpha.rows, columns = nodes.cols;
  for (std::int64_t column = first_item(); column < columns; column += item_stride()) {
    const std::int64_t i = column % m, size = k - columns / m + 1 + column / m, empty = (k - size) * columns;
    for (std::int64_t e = column; e < column + empty; e += columns) nodes.data[e] = shares.data[e] = 0;
    const double* const x = alpha.row(i);
    const double* const y = beta.row(i);
    const double end = lower.rows == 0 ? -1 : formula::radau_element(x, y, k - 1, *lower.row(i / (m / lower.rows)));
    const formula::BidiagonalRow work{nodes.data + column + empty, workspace + column, shares.data + column + empty,
                                      columns};
    formula::gauss_rule(work, x, y, end, size, formula::kSweepsPerValue * size);
  }
}

struct Rules {
  DeviceMatrix<double> nodes, shares, weight;
  const double* norm;
};

__global__ void quadrature_kernel(double* sum, double* zeros, Rules rules, std::int64_t m, SpectralFunction f,
                                  double tolerance) {
  const std::int64_t columns = rules.nodes.cols;
  for (std::int64_t i = first_item(); i < m; i += item_stride()) {
    double total = 0, zero = 0;
    for (std::int64_t column = i; column < columns; column += m) {
      const double weight = rules.weight.rows == 0 ? 1 : rules.weight.row(column / m)[i];
      const double factor = weight * rules.norm[i] * rules.norm[i];
      if (factor == 0) continue;
      const formula::RuleSum rule = formula::rule_sum(rules.nodes.data + column, rules.shares.data + column, columns,
                                                      rules.nodes.rows, f, tolerance);
      total += formula::weighted_sum(factor, rule.value);
      if (rule.zero) zero = 1;
    }
    sum[i] = total;
    zeros[i] = zero;
  }
}

struct SmallSpectrum {
  DeviceMatrix<double> values;
  const double *vectors, *norm;
};

template <class T>
__global__ void spectral_coefficients_kernel(DeviceMatrix<T> coefficients, SmallSpectrum b, SpectralFunction f,
                                             double tolerance) {
  const std::int64_t k = b.values.cols;
  for (std::int64_t e = first_item(); e < coefficients.size(); e += item_stride()) {
    const std::int64_t i = e / coefficients.cols, j = e % coefficients.cols;
    const double component =
        j < k ? formula::spectral_component(b.values.row(i), b.vectors + i * k * k, k, f, tolerance, j) : 0;
    coefficients.row(i)[j] = static_cast<T>(b.norm[i] * component);
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
    const double residual = euclidean_length<kThreads>(rows.v.cols, [=](std::int64_t j) {
      return static_cast<double>(y[j]) / value - value * static_cast<double>(x[j]);
    });
    if (threadIdx.x != 0) continue;
    rows.mu[i] = value;
    rows.h[i] = dimension * log(value);
    *rows.scale.row(i) = value == 0 ? T(0) : formula::stored_factor<T>(dimension / value / size / value / size);
    rows.distance[i] = value == 0 ? 0 : formula::nearest_distance(value, residual / size);
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

void CudaOps::do_bidiagonal(Tensor a, Tensor alpha, Tensor beta) {
  if (a.size() == 0) return;
  check(launch<bidiagonal_kernel>(blocks_for(a.size(), kThreads), kThreads, 0, stream_, a.as<double>(), a.rows(),
                                  a.extent(1), device_matrix<double>(alpha), device_matrix<double>(beta)),
        "bidiagonal", a);
}

void CudaOps::do_quadrature_rules(Tensor nodes, Tensor shares, Tensor alpha, Tensor beta, Tensor lower,
                                  Tensor workspace) {
  if (nodes.size() == 0) return;
  check(launch<quadrature_rules_kernel>(blocks_for(nodes.cols(), kRuleThreads), kRuleThreads, 0, stream_,
                                        device_matrix<double>(nodes), device_matrix<double>(shares),
                                        workspace.as<double>(), device_matrix<double>(alpha),
                                        device_matrix<double>(beta), device_matrix<double>(lower)),
        "quadrature_rules", nodes);
}

void CudaOps::do_quadrature(Tensor sum, Tensor zeros, Tensor nodes, Tensor shares, Tensor norm, Tensor weight,
                            const SpectralFunction& f, double tolerance) {
  const std::int64_t m = sum.rows();
  if (m == 0) return;
  const Rules rules{device_matrix<double>(nodes), device_matrix<double>(shares), device_matrix<double>(weight),
                    norm.as<double>()};
  check(launch<quadrature_kernel>(blocks_for(m, kRuleThreads), kRuleThreads, 0, stream_, sum.as<double>(),
                                  zeros.as<double>(), rules, m, f, tolerance),
        "quadrature", nodes);
}

void CudaOps::do_spectral_coefficients(Tensor coefficients, Tensor values, Tensor vectors, Tensor norm,
                                       const SpectralFunction& f, double tolerance) {
  if (coefficients.size() == 0) return;
  const SmallSpectrum b{device_matrix<double>(values), vectors.as<double>(), norm.as<double>()};
  const cudaError_t code = dispatch(coefficients.dtype(), [&]<class T>() {
    return launch<spectral_coefficients_kernel<T>>(blocks_for(coefficients.size(), kThreads), kThreads, 0, stream_,
                                                   device_matrix<T>(coefficients), b, f, tolerance);
  });
  check(code, "spectral_coefficients", vectors);
}

void CudaOps::do_singular_certificate(Tensor h, Tensor scale, Tensor mu, Tensor distance, Tensor w, Tensor v, Tensor jv,
                                      double dimension) {
  const cudaError_t code = dispatch(v.dtype(), [&]<class T>() {
    return BRACKET_TARGET::singular_certificate<T>(h, scale, mu, distance, w, v, jv, dimension, stream_);
  });
  check(code, "singular_certificate", jv);
}

}  // namespace bracket::BRACKET_TARGET
