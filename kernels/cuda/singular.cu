// Factors of Jacobians that never square their condition number, f64. n samples, K rows of D elements each.
//
//   lq_factor        T = L Q, Householder reflections from the right; Q in place      4 n K^2 D flops
//   singular_values  one-sided Jacobi on the rows of A [K, K] (Hestenes 1958)          about 8 sweeps of 9 n K^3 flops
//   log_volume, rank_threshold  what is too small counts as zero                       n K elements read
// Rows may be strided where the op says so. Everything works in global memory but the order of the singular values,
// which takes 12 K bytes of shared memory: K <= 4096, the 48 KiB of any device (kernels/jacobian_ops.cpp checks it).
// Determinism: every sum has an order fixed by K, D and the block size; rotations of a round act on disjoint rows.
//
// | variant                | idea                                               | time                      |
// | lq_factor_kernel       | block per sample, a warp per row that is reflected | not yet measured on a GPU |
// | singular_values_kernel | block per sample, a warp per pair of a round       | not yet measured on a GPU |
// | the others             | thread per sample                                  | not yet measured on a GPU |
#include "kernels/cuda/common/jacobi.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpThreads;

BRACKET_DEVICE double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }

/// All lanes receive the sum.
BRACKET_DEVICE double warp_sum(double value) {
  BRACKET_UNROLL
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}

BRACKET_DEVICE double warp_dot(const double* a, const double* b, std::int64_t first, std::int64_t count, int lane) {
  double sum = 0;
  for (std::int64_t c = first + lane; c < count; c += kWarpThreads) sum += a[c] * b[c];
  return warp_sum(sum);
}

/// |row|^2 of elements [first, count), to every thread of the block.
BRACKET_DEVICE double block_squares(const double* row, std::int64_t first, std::int64_t count) {
  double sum = 0;
  for (std::int64_t c = first + threadIdx.x; c < count; c += kThreads) sum += row[c] * row[c];
  return block_sum<double, kThreads>(sum);
}

/// Largest magnitude in rows [first, first + rows), to every thread of the block.
BRACKET_DEVICE double block_largest(const DeviceMatrix<double>& x, std::int64_t first, int rows) {
  double largest = 0;
  for (int i = 0; i < rows; ++i) {
    const double* const row = x.row(first + i);
    for (std::int64_t c = threadIdx.x; c < x.cols; c += kThreads) largest = fmax(largest, fabs(row[c]));
  }
  return block_max<double, kThreads>(largest);
}

// ---- kernels --------------------------------------------------------------------------------------------------------

/// The reflection I - 2 v v^T / |v|^2 that makes row j zero right of its diagonal: v stays in place of that row. Of
/// elements of about 1 at most: their squares stay in range.
__global__ void lq_factor_kernel(double* l, DeviceMatrix<double> t, std::int64_t samples, int k) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpThreads, warp = thread / kWarpThreads;
  for (std::int64_t sample = blockIdx.x; sample < samples; sample += gridDim.x) {
    double* const factor = l + sample * k * k;
    const auto row = [&](int i) { return t.row(sample * k + i); };
    const int exponent = formula::scaling_exponent(block_largest(t, sample * k, k));
    for (int i = 0; i < k && exponent != 0; ++i) {
      for (std::int64_t c = thread; c < t.cols; c += kThreads) row(i)[c] = ldexp(row(i)[c], -exponent);
    }
    __syncthreads();
    for (int j = 0; j < k; ++j) {
      double* const v = row(j);
      const double norm = sqrt(block_squares(v, j, t.cols)), head = v[j];
      const double diagonal = head > 0 ? -norm : norm;
      __syncthreads();  // all have read the head
      if (thread == 0) {
        factor[j * k + j] = diagonal;
        v[j] = head - diagonal;
      }
      __syncthreads();
      const double squares = block_squares(v, j, t.cols);
      for (int i = j + 1 + warp; i < k; i += kWarps) {
        double* const x = row(i);
        const double coefficient = squares == 0 ? 0 : 2 * warp_dot(x, v, j, t.cols, lane) / squares;
        for (std::int64_t c = j + lane; c < t.cols; c += kWarpThreads) x[c] -= coefficient * v[c];
        if (lane == 0) {
          factor[i * k + j] = x[j];
          factor[j * k + i] = 0;
        }
      }
      __syncthreads();
    }
    // Row j of Q is e_j H_j ... H_0: the reflections from the last to the first, on the rows that know them.
    for (int j = k - 1; j >= 0; --j) {
      double* const v = row(j);
      const double squares = block_squares(v, j, t.cols);
      for (int i = j + 1 + warp; i < k; i += kWarps) {
        double* const x = row(i);
        const double coefficient = squares == 0 ? 0 : 2 * warp_dot(x, v, j + 1, t.cols, lane) / squares;
        for (std::int64_t c = j + 1 + lane; c < t.cols; c += kWarpThreads) x[c] -= coefficient * v[c];
        if (lane == 0) x[j] = -coefficient * v[j];
      }
      __syncthreads();
      const double head = v[j], coefficient = squares == 0 ? 0 : 2 * head / squares;
      __syncthreads();
      for (std::int64_t c = j + 1 + thread; c < t.cols; c += kThreads) v[c] *= -coefficient;
      if (thread == 0) v[j] = 1 - coefficient * head;
      __syncthreads();
    }
    for (int j = 0; j < k; ++j) {
      const bool negative = factor[j * k + j] < 0;
      __syncthreads();
      if (!negative) continue;
      for (int i = j + thread; i < k; i += kThreads) factor[i * k + j] = -factor[i * k + j];
      for (std::int64_t c = thread; c < t.cols; c += kThreads) row(j)[c] = -row(j)[c];
      __syncthreads();
    }
    for (int e = thread; e < k * k && exponent != 0; e += kThreads) factor[e] = ldexp(factor[e], exponent);
    __syncthreads();
  }
}

/// Rotates rows p and q of a, and of v, until those of a are orthogonal; one warp. See kernels/cpu/singular.cpp.
BRACKET_DEVICE bool orthogonalize(double* a, double* v, int k, int p, int q, int lane) {
  double* const x = a + p * k;
  double* const y = a + q * k;
  const double xx = warp_dot(x, x, 0, k, lane), yy = warp_dot(y, y, 0, k, lane), xy = warp_dot(x, y, 0, k, lane);
  if (xx < formula::kLeastSquares || yy < formula::kLeastSquares) return false;
  if (fabs(xy) <= 0x1p-52 * sqrt(static_cast<double>(k)) * sqrt(xx) * sqrt(yy)) return false;
  const formula::JacobiRotation rotation = formula::jacobi_rotation(xx, yy, xy);
  for (int j = lane; j < k; j += kWarpThreads) {
    rotate(x[j], y[j], rotation.cosine, rotation.sine);
    rotate(v[p * k + j], v[q * k + j], rotation.cosine, rotation.sine);
  }
  return true;
}

/// Shared memory: the k singular values and their ranks.
__global__ void singular_values_kernel(DeviceMatrix<double> values, double* vectors, double* matrices,
                                       std::int64_t samples, int k) {
  BRACKET_DYNAMIC_SHARED(double, lengths);
  int* const ranks = reinterpret_cast<int*>(lengths + k);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpThreads, warp = thread / kWarpThreads;
  const int players = k + k % 2;
  for (std::int64_t sample = blockIdx.x; sample < samples; sample += gridDim.x) {
    double* const a = matrices + sample * k * k;
    double* const v = vectors + sample * k * k;
    int bad = 0;
    for (int e = thread; e < k * k; e += kThreads) {
      if (!(a[e] - a[e] == 0)) bad = 1;
      v[e] = e / k == e % k ? 1 : 0;
    }
    double largest = 0;
    for (int e = thread; e < k * k; e += kThreads) largest = fmax(largest, fabs(a[e]));
    largest = block_max<double, kThreads>(largest);
    const int exponent = formula::scaling_exponent(largest);
    bad = __syncthreads_or(bad);
    for (int e = thread; e < k * k && bad == 0; e += kThreads) a[e] = ldexp(a[e], -exponent);
    __syncthreads();
    for (int sweep = 0, rotated = 1; rotated != 0 && bad == 0; ++sweep) {
      rotated = 0;
      for (int round = 0; round < players - 1; ++round) {
        for (int slot = warp; slot < players / 2; slot += kWarps) {
          int p, q;
          meet(round, slot, players, p, q);
          if (q < k && orthogonalize(a, v, k, p, q, lane)) rotated = 1;
        }
        __syncthreads();
      }
      rotated = __syncthreads_or(rotated);
      if (rotated != 0 && sweep + 1 == kMaxJacobiSweeps) bad = 1;
    }
    if (bad != 0) {
      for (int e = thread; e < k * k; e += kThreads) v[e] = not_a_number();
      for (int i = thread; i < k; i += kThreads) values.row(sample)[i] = not_a_number();
      __syncthreads();
      continue;
    }
    for (int i = warp; i < k; i += kWarps) {
      const double squares = warp_dot(a + i * k, a + i * k, 0, k, lane);
      if (lane == 0) lengths[i] = squares < formula::kLeastSquares ? 0 : ldexp(sqrt(squares), exponent);
    }
    __syncthreads();
    for (int i = thread; i < k; i += kThreads) {
      int rank = 0;
      for (int j = 0; j < k; ++j) {
        if (lengths[j] < lengths[i] || (lengths[j] == lengths[i] && j < i)) ++rank;
      }
      ranks[i] = rank;
      values.row(sample)[rank] = lengths[i];
      fix_sign(v + i * k, k);
    }
    __syncthreads();
    for (int e = thread; e < k * k; e += kThreads) a[ranks[e / k] * k + e % k] = v[e];
    __syncthreads();
    for (int e = thread; e < k * k; e += kThreads) v[e] = a[e];
    __syncthreads();
  }
}

__global__ void log_volume_kernel(double* h, double* deficiency, DeviceMatrix<double> values, double tolerance) {
  for (std::int64_t i = first_item(); i < values.rows; i += item_stride()) {
    const double* const s = values.row(i);
    double sum = 0;
    std::int64_t small = 0;
    for (std::int64_t j = 0; j < values.cols; ++j) {
      sum += log(s[j]);
      if (s[j] <= tolerance * s[values.cols - 1]) ++small;
    }
    h[i] = small > 0 ? log(0.0) : sum;
    deficiency[i] = static_cast<double>(small);
  }
}

/// Of one sample.
struct SmallestValues {
  double *h, *deficient;
  const double *mu, *largest;
};

template <class T>
__global__ void rank_threshold_kernel(SmallestValues values, T* scale, std::int64_t samples, std::int64_t block,
                                      double tolerance) {
  for (std::int64_t i = first_item(); i < samples; i += item_stride()) {
    double count = 0;
    for (std::int64_t k = i * block; k < (i + 1) * block; ++k) {
      if (!(values.mu[k] <= tolerance * values.largest[i])) continue;
      values.h[k] = log(0.0);
      scale[k] = T(0);
      ++count;
    }
    values.deficient[i] = count;
  }
}

}  // namespace

void CudaOps::do_lq_factor(Tensor l, Tensor t) {
  if (l.size() == 0) return;
  check(launch<lq_factor_kernel>(blocks_for(l.rows(), 1), kThreads, 0, stream_, l.as<double>(),
                                 device_matrix<double>(t), l.rows(), static_cast<int>(l.extent(1))),
        "lq_factor", t);
}

void CudaOps::do_singular_values(Tensor values, Tensor vectors, Tensor a) {
  if (a.size() == 0) return;
  const std::int64_t k = a.extent(1);
  check(launch<singular_values_kernel>(
            blocks_for(a.rows(), 1), kThreads, static_cast<std::size_t>(k) * (sizeof(double) + sizeof(int)), stream_,
            device_matrix<double>(values), vectors.as<double>(), a.as<double>(), a.rows(), static_cast<int>(k)),
        "singular_values", a);
}

void CudaOps::do_log_volume(Tensor h, Tensor deficiency, Tensor values, double tolerance) {
  if (h.rows() == 0) return;
  check(launch<log_volume_kernel>(blocks_for(h.rows(), kThreads), kThreads, 0, stream_, h.as<double>(),
                                  deficiency.as<double>(), device_matrix<double>(values), tolerance),
        "log_volume", values);
}

void CudaOps::do_rank_threshold(Tensor h, Tensor scale, Tensor deficient, Tensor mu, Tensor largest, double tolerance) {
  const std::int64_t n = largest.rows();
  if (n == 0) return;
  const SmallestValues values{h.as<double>(), deficient.as<double>(), mu.as<double>(), largest.as<double>()};
  const cudaError_t code = dispatch(scale.dtype(), [&]<class T>() {
    return launch<rank_threshold_kernel<T>>(blocks_for(n, kThreads), kThreads, 0, stream_, values, scale.as<T>(), n,
                                            mu.rows() / n, tolerance);
  });
  check(code, "rank_threshold", mu);
}

}  // namespace bracket::BRACKET_TARGET
