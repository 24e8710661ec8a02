// Stochastic traces per row: probes, conjugate gradients for their derivatives, and the sums that end an estimate.
//
//   conjugate_gradient_step  x += a p, r -= a w, p = r + b p          m (D + 7 d) elements moved   m (2 D + 8 d) flops
//   project_rows             x <- x - Q^T Q x, twice                  m R d elements read 4 times  m 8 R d flops
//   conjugate_direction      p = z + b p                              m 4 d elements moved         m 4 d flops
//   random_signs             +-1 by the top bit of a Philox word      one write per element
//   leave_one_out_trace      R quadratic forms of R terms             n 8 R^3 flops; formula/probes.h
//   clear_rows, probe_mean, roulette_weights                          thread per sample or element
// A step of conjugate gradients is one launch behind one product with J and one with J^T, with a preconditioner a
// second behind the product with that. Sums are in f64 in an order fixed by the block size; random numbers are the
// CPU's.
//
// | variant                 | idea                                     | time                      |
// | conjugate_gradient_step | block per row: 2 sums, 3 updates         | not yet measured on a GPU |
// | conjugate_direction     | block per row: 1 sum, 1 update           | not yet measured on a GPU |
// | project_rows            | block per row, one vector of Q at a time | not yet measured on a GPU |
// | leave_one_out_trace     | block per sample, a warp per probe       | not yet measured on a GPU |
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/philox.h"
#include "kernels/formula/probes.h"

namespace bracket::BRACKET_TARGET {
namespace {

constexpr int kThreads = 256;

template <class T>
BRACKET_DEVICE double block_dot(const T* a, const T* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads)
    sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return block_sum<double, kThreads>(sum);
}

struct WarpTeam {
  int lane;

  BRACKET_DEVICE std::int64_t first() const { return lane; }
  BRACKET_DEVICE static std::int64_t count() { return kWarpThreads; }
  /// Every member receives the same bits.
  BRACKET_DEVICE static double sum(double value) {
    BRACKET_UNROLL
    for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
    return value;
  }
};

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T>
struct GradientRows {
  DeviceMatrix<T> x, r, p, w, jp;
  double* residual;
  const double *norm, *energy;
};

template <class T>
__global__ void conjugate_gradient_step_kernel(GradientRows<T> rows, double tolerance) {
  const std::int64_t d = rows.x.cols;
  for (std::int64_t i = blockIdx.x; i < rows.x.rows; i += gridDim.x) {
    const double curvature = block_dot(rows.jp.row(i), rows.jp.row(i), rows.jp.cols);
    const double before = rows.residual[i];
    const double gain = rows.energy == nullptr ? before * before : rows.energy[i];
    __syncthreads();  // all have read the residual
    if (before <= tolerance * rows.norm[i] || curvature == 0 || gain <= 0) continue;
    const double step = gain / curvature;
    T* const x = rows.x.row(i);
    T* const r = rows.r.row(i);
    T* const p = rows.p.row(i);
    const T* const w = rows.w.row(i);
    for (std::int64_t j = threadIdx.x; j < d; j += kThreads) {
      x[j] = static_cast<T>(static_cast<double>(x[j]) + step * static_cast<double>(p[j]));
      r[j] = static_cast<T>(static_cast<double>(r[j]) - step * static_cast<double>(w[j]));
    }
    const double after = sqrt(block_dot(r, r, d)), ratio = after / before;  // of elements that this thread has written
    if (threadIdx.x == 0) rows.residual[i] = after;
    if (rows.energy != nullptr) continue;
    for (std::int64_t j = threadIdx.x; j < d; j += kThreads)
      p[j] = static_cast<T>(static_cast<double>(r[j]) + ratio * ratio * static_cast<double>(p[j]));
  }
}

template <class T>
__global__ void conjugate_direction_kernel(DeviceMatrix<T> p, double* energy, DeviceMatrix<T> z, DeviceMatrix<T> r) {
  for (std::int64_t i = blockIdx.x; i < p.rows; i += gridDim.x) {
    const double before = energy[i];
    const double after = block_dot(z.row(i), r.row(i), p.cols);  // all have read the energy
    const double ratio = before == 0 ? 0 : after / before;
    for (std::int64_t j = threadIdx.x; j < p.cols; j += kThreads)
      p.row(i)[j] = static_cast<T>(static_cast<double>(z.row(i)[j]) + ratio * static_cast<double>(p.row(i)[j]));
    if (threadIdx.x == 0) energy[i] = after;
  }
}

template <class T>
__global__ void random_signs_kernel(T* y, std::int64_t size, RandomKey key, const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  for (std::int64_t q = first_item(); 4 * q < size; q += item_stride()) {
    const formula::PhiloxBlock block = formula::philox_block(philox, static_cast<std::uint64_t>(q));
    BRACKET_UNROLL
    for (int w = 0; w < 4; ++w) {
      if (4 * q + w < size) y[4 * q + w] = block.word[w] >> 31 != 0 ? T(1) : T(-1);
    }
  }
}

template <class T>
__global__ void project_rows_kernel(DeviceMatrix<T> x, DeviceMatrix<T> q, std::int64_t samples) {
  const std::int64_t per_sample = x.rows / samples, vectors = q.rows / samples;
  for (std::int64_t i = blockIdx.x; i < x.rows; i += gridDim.x) {
    T* const row = x.row(i);
    for (std::int64_t turn = 0; turn < 2 * vectors; ++turn) {
      const T* const v = q.row(i / per_sample * vectors + turn % vectors);
      const double overlap = block_dot(row, v, x.cols);
      for (std::int64_t j = threadIdx.x; j < x.cols; j += kThreads)
        row[j] = static_cast<T>(static_cast<double>(row[j]) - overlap * static_cast<double>(v[j]));
    }
  }
}

template <class T>
__global__ void clear_rows_kernel(DeviceMatrix<T> y, const double* marks, std::int64_t per_mark) {
  for (std::int64_t e = first_item(); e < y.size(); e += item_stride()) {
    const std::int64_t i = e / y.cols;
    if (marks[i / per_mark] > 0) y.row(i)[e % y.cols] = T(0);
  }
}

__global__ void probe_mean_kernel(double* value, double* error, const double* samples, std::int64_t n,
                                  std::int64_t count, double correction) {
  for (std::int64_t i = first_item(); i < n; i += item_stride()) {
    const formula::MeanAndError result = formula::mean_and_error(samples + i * count, count, correction);
    value[i] = result.mean;
    error[i] = result.error;
  }
}

__global__ void roulette_weights_kernel(DeviceMatrix<double> weights, std::int64_t certain, double survival,
                                        RandomKey key, const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  for (std::int64_t e = first_item(); e < weights.size(); e += item_stride()) {
    const std::int64_t j = e / weights.cols, i = e - j * weights.cols;
    const formula::PhiloxBlock block = formula::philox_block(philox, static_cast<std::uint64_t>(i / 2));
    const double uniform = formula::roulette_uniform(block.word[i % 2 * 2], block.word[i % 2 * 2 + 1]);
    weights.row(j)[i] = formula::roulette_weight(j, weights.rows, certain, survival, uniform);
  }
}

/// Shared memory: the traces of the R probes.
__global__ void leave_one_out_trace_kernel(double* value, double* error, formula::LeaveOneOut all, std::int64_t n,
                                           std::int64_t r) {
  BRACKET_DYNAMIC_SHARED(double, traces);
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    const formula::LeaveOneOut products{all.image + 4 * i * r * r, all.basis + 4 * i * r * r, all.inverse + i * r * r,
                                        all.forms == nullptr ? nullptr : all.forms + i * r};
    for (std::int64_t k = thread / kWarpThreads; k < r; k += kThreads / kWarpThreads) {
      const double trace = formula::leave_one_out(WarpTeam{thread % kWarpThreads}, products, r, k);
      if (thread % kWarpThreads == 0) traces[k] = trace;
    }
    __syncthreads();
    if (thread == 0) {
      const formula::MeanAndError result = formula::mean_and_error(traces, r, 1);
      value[i] = result.mean;
      error[i] = result.error;
    }
    __syncthreads();
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t random_signs(const Tensor& y, const RandomKey& key, const std::int64_t* counter, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<random_signs_kernel<T>>(blocks_for((y.size() + 3) / 4, kThreads), kThreads, 0, stream,
                                        device_vector<T>(y), y.size(), key, counter);
}

template <class T>
cudaError_t project_rows(Tensor x, Tensor q, std::int64_t samples, cudaStream_t stream) {
  if (x.size() == 0) return cudaSuccess;
  return launch<project_rows_kernel<T>>(blocks_for(x.rows(), 1), kThreads, 0, stream, device_matrix<T>(x),
                                        device_matrix<T>(q), samples);
}

}  // namespace

void CudaOps::do_conjugate_gradient_step(Tensor x, Tensor r, Tensor p, Tensor residual, Tensor w, Tensor jp,
                                         Tensor norm, double tolerance, Tensor energy) {
  if (x.rows() == 0) return;
  const cudaError_t code = dispatch(x.dtype(), [&]<class T>() {
    const GradientRows<T> rows{device_matrix<T>(x), device_matrix<T>(r),          device_matrix<T>(p),
                               device_matrix<T>(w), device_matrix<T>(jp),         residual.as<double>(),
                               norm.as<double>(),   device_vector<double>(energy)};
    return launch<conjugate_gradient_step_kernel<T>>(blocks_for(x.rows(), 1), kThreads, 0, stream_, rows, tolerance);
  });
  check(code, "conjugate_gradient_step", x);
}

void CudaOps::do_conjugate_direction(Tensor p, Tensor energy, Tensor z, Tensor r) {
  if (p.rows() == 0) return;
  const cudaError_t code = dispatch(p.dtype(), [&]<class T>() {
    return launch<conjugate_direction_kernel<T>>(blocks_for(p.rows(), 1), kThreads, 0, stream_, device_matrix<T>(p),
                                                 energy.as<double>(), device_matrix<T>(z), device_matrix<T>(r));
  });
  check(code, "conjugate_direction", p);
}

void CudaOps::do_random_signs(Tensor y, const RandomKey& key, const std::int64_t* counter) {
  check(dispatch(y.dtype(), [&]<class T>() { return BRACKET_TARGET::random_signs<T>(y, key, counter, stream_); }),
        "random_signs", y);
}

void CudaOps::do_project_rows(Tensor x, Tensor q, std::int64_t samples) {
  check(dispatch(x.dtype(), [&]<class T>() { return BRACKET_TARGET::project_rows<T>(x, q, samples, stream_); }),
        "project_rows", x);
}

void CudaOps::do_clear_rows(Tensor y, Tensor marks) {
  if (y.size() == 0) return;
  const cudaError_t code = dispatch(y.dtype(), [&]<class T>() {
    return launch<clear_rows_kernel<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream_, device_matrix<T>(y),
                                        marks.as<double>(), y.rows() / marks.rows());
  });
  check(code, "clear_rows", y);
}

void CudaOps::do_probe_mean(Tensor value, Tensor error, Tensor samples, double correction) {
  const std::int64_t n = value.rows();
  if (n == 0) return;
  check(launch<probe_mean_kernel>(blocks_for(n, kThreads), kThreads, 0, stream_, value.as<double>(), error.as<double>(),
                                  samples.as<double>(), n, samples.rows() / n, correction),
        "probe_mean", samples);
}

void CudaOps::do_roulette_weights(Tensor weights, std::int64_t certain, double survival, const RandomKey& key,
                                  const std::int64_t* counter) {
  if (weights.size() == 0) return;
  check(launch<roulette_weights_kernel>(blocks_for(weights.size(), kThreads), kThreads, 0, stream_,
                                        device_matrix<double>(weights), certain, survival, key, counter),
        "roulette_weights", weights);
}

void CudaOps::do_leave_one_out_trace(Tensor value, Tensor error, Tensor gram_image, Tensor gram_basis, Tensor inverse,
                                     Tensor forms) {
  const std::int64_t n = value.rows(), r = inverse.extent(1);
  if (n == 0) return;
  const formula::LeaveOneOut all{gram_image.as<double>(), gram_basis.as<double>(), inverse.as<double>(),
                                 device_vector<double>(forms)};
  check(launch<leave_one_out_trace_kernel>(blocks_for(n, 1), kThreads, static_cast<std::size_t>(r) * sizeof(double),
                                           stream_, value.as<double>(), error.as<double>(), all, n, r),
        "leave_one_out_trace", inverse);
}

}  // namespace bracket::BRACKET_TARGET
