// The smallest singular value of every sample's Jacobian J [D, d] by locally optimal block preconditioned conjugate
// gradients (Knyazev 2001; one vector, no preconditioner). n samples; v, r, p, w [n, d]; their images jv, jr,
// jp [n, D].
//
//   residual  r = (w - mu^2 v) / |w - mu^2 v|, mu = |jv| / |v|    n (D + 5 d) elements moved    n (2 D + 8 d) flops
//   update    (v, p) <- Rayleigh-Ritz in span {v, r, p}           n (8 D + 8 d) elements moved  n (24 (D + d)) flops
//   volume    h = d log mu, scale = d / |jv|^2                    n (D + d) elements read       n 2 (D + d) flops
// The update reads its six rows twice (inner products, then recombination): the second time from the L2 cache for any
// batch that fits there. All are bound by memory. Rows may be strided; no alignment beyond the element's.
// Determinism: accumulation in f64 in an order fixed by the block size; the 3 x 3 problem is solved by one thread.
//
// Variants (registers under sm_90, nvcc 13.0, none spills; no times measured on a GPU yet):
//   residual  block per sample                                       54 registers, f64 48
//   update    block per sample: 12 inner products, solve, recombine  124 registers, 216 bytes of stack
//   volume    block per sample                                       40 registers
#include "kernels/cuda/common/length.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/rayleigh_ritz.h"

namespace bracket::BRACKET_TARGET {
namespace {

using formula::kRitzVectors;

/// 12 loads of a row of 3,072 columns per thread: enough in flight for a multiprocessor that holds one or two samples.
constexpr int kThreads = 256;

/// Rows of one sample, in the order of the basis {v, r, p}.
template <class T>
struct RitzRows {
  DeviceMatrix<T> v, r, p;
};

template <class T>
BRACKET_DEVICE double dot(const T* a, const T* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) {
    sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  }
  return block_sum<double, kThreads>(sum);
}

/// Inner products of the three rows of `sample`; every thread receives them.
template <class T>
BRACKET_DEVICE void inner_products(double (*products)[kRitzVectors], const RitzRows<T>& rows, std::int64_t sample) {
  const T* const v = rows.v.row(sample);
  const T* const r = rows.r.row(sample);
  const T* const p = rows.p.row(sample);
  double vv = 0, rv = 0, rr = 0, pv = 0, pr = 0, pp = 0;
  for (std::int64_t j = threadIdx.x; j < rows.v.cols; j += kThreads) {
    const double x = static_cast<double>(v[j]), y = static_cast<double>(r[j]), z = static_cast<double>(p[j]);
    vv += x * x;
    rv += y * x;
    rr += y * y;
    pv += z * x;
    pr += z * y;
    pp += z * z;
  }
  products[0][0] = block_sum<double, kThreads>(vv);
  products[0][1] = products[1][0] = block_sum<double, kThreads>(rv);
  products[1][1] = block_sum<double, kThreads>(rr);
  products[0][2] = products[2][0] = block_sum<double, kThreads>(pv);
  products[1][2] = products[2][1] = block_sum<double, kThreads>(pr);
  products[2][2] = block_sum<double, kThreads>(pp);
}

template <class T>
BRACKET_DEVICE void recombine(const RitzRows<T>& rows, std::int64_t sample, const formula::RitzCoefficients& c) {
  T* const v = rows.v.row(sample);
  const T* const r = rows.r.row(sample);
  T* const p = rows.p.row(sample);
  for (std::int64_t j = threadIdx.x; j < rows.v.cols; j += kThreads) {
    const double x = static_cast<double>(v[j]), y = static_cast<double>(r[j]), z = static_cast<double>(p[j]);
    v[j] = static_cast<T>(c.v[0] * x + c.v[1] * y + c.v[2] * z);
    p[j] = static_cast<T>(c.p[0] * x + c.p[1] * y + c.p[2] * z);
  }
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
__global__ void lobpcg_residual_kernel(DeviceMatrix<T> r, DeviceMatrix<T> w, DeviceMatrix<T> v, DeviceMatrix<T> jv) {
  for (std::int64_t i = blockIdx.x; i < v.rows; i += gridDim.x) {
    const double image = dot(jv.row(i), jv.row(i), jv.cols);
    const double quotient = image / dot(v.row(i), v.row(i), v.cols);
    const T* const to = w.row(i);
    const T* const from = v.row(i);
    const auto residual = [=](std::int64_t j) {
      return static_cast<double>(to[j]) - quotient * static_cast<double>(from[j]);
    };
    const double norm = euclidean_length<kThreads>(v.cols, residual);
    for (std::int64_t j = threadIdx.x; j < v.cols; j += kThreads)
      r.row(i)[j] = static_cast<T>(norm == 0 ? 0 : residual(j) / norm);
  }
}

template <class T>
__global__ void lobpcg_update_kernel(RitzRows<T> basis, RitzRows<T> image, double* largest) {
  BRACKET_SHARED(formula::RitzCoefficients, solution, [1]);
  for (std::int64_t i = blockIdx.x; i < basis.v.rows; i += gridDim.x) {
    formula::RitzProducts products;
    inner_products(products.basis, basis, i);
    inner_products(products.image, image, i);
    if (threadIdx.x == 0) solution[0] = formula::ritz_step(products, formula::kRoundoff<T>);
    __syncthreads();
    const formula::RitzCoefficients c = solution[0];
    recombine(basis, i, c);
    recombine(image, i, c);
    if (threadIdx.x == 0 && largest != nullptr && c.largest > largest[i]) largest[i] = c.largest;
    __syncthreads();  // the next sample's solution goes where slower threads may still read this one
  }
}

template <class T>
__global__ void lobpcg_volume_kernel(DeviceMatrix<T> h, DeviceMatrix<T> scale, DeviceMatrix<T> v, DeviceMatrix<T> jv) {
  for (std::int64_t i = blockIdx.x; i < v.rows; i += gridDim.x) {
    const double length = dot(jv.row(i), jv.row(i), jv.cols);
    const double squares = dot(v.row(i), v.row(i), v.cols);
    if (threadIdx.x != 0) continue;
    const double squared = length > 0 ? length : formula::not_a_number();
    const double dimension = static_cast<double>(v.cols);
    *h.row(i) = static_cast<T>(dimension / 2 * log(squared / squares));
    *scale.row(i) = static_cast<T>(dimension / squared);
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t lobpcg_residual(Tensor r, Tensor w, Tensor v, Tensor jv, cudaStream_t stream) {
  if (v.size() == 0) return cudaSuccess;
  return launch<lobpcg_residual_kernel<T>>(blocks_for(v.rows(), 1), kThreads, 0, stream, device_matrix<T>(r),
                                           device_matrix<T>(w), device_matrix<T>(v), device_matrix<T>(jv));
}

template <class T>
cudaError_t lobpcg_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, Tensor largest,
                          cudaStream_t stream) {
  if (v.rows() == 0) return cudaSuccess;
  const RitzRows<T> basis{device_matrix<T>(v), device_matrix<T>(r), device_matrix<T>(p)};
  const RitzRows<T> image{device_matrix<T>(jv), device_matrix<T>(jr), device_matrix<T>(jp)};
  return launch<lobpcg_update_kernel<T>>(blocks_for(v.rows(), 1), kThreads, 0, stream, basis, image,
                                         device_vector<double>(largest));
}

template <class T>
cudaError_t lobpcg_volume(Tensor h, Tensor scale, Tensor v, Tensor jv, cudaStream_t stream) {
  if (v.rows() == 0) return cudaSuccess;
  return launch<lobpcg_volume_kernel<T>>(blocks_for(v.rows(), 1), kThreads, 0, stream, device_matrix<T>(h),
                                         device_matrix<T>(scale), device_matrix<T>(v), device_matrix<T>(jv));
}

}  // namespace

void CudaOps::do_lobpcg_residual(Tensor r, Tensor w, Tensor v, Tensor jv) {
  const cudaError_t code =
      dispatch(v.dtype(), [&]<class T>() { return BRACKET_TARGET::lobpcg_residual<T>(r, w, v, jv, stream_); });
  check(code, "lobpcg_residual", v);
}

void CudaOps::do_lobpcg_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, Tensor largest) {
  const cudaError_t code = dispatch(
      v.dtype(), [&]<class T>() { return BRACKET_TARGET::lobpcg_update<T>(v, p, jv, jp, r, jr, largest, stream_); });
  check(code, "lobpcg_update", jv);
}

void CudaOps::do_lobpcg_volume(Tensor h, Tensor scale, Tensor v, Tensor jv) {
  const cudaError_t code =
      dispatch(v.dtype(), [&]<class T>() { return BRACKET_TARGET::lobpcg_volume<T>(h, scale, v, jv, stream_); });
  check(code, "lobpcg_volume", jv);
}

}  // namespace bracket::BRACKET_TARGET
