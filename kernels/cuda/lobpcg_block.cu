// The B smallest singular values of every sample's Jacobian J [D, d] by locally optimal block preconditioned conjugate
// gradients (Knyazev 2001). n samples of B directions, 1 <= B <= 4; v, p, r [n B, d], row i B + k is direction k of
// sample i; their images jv, jp, jr [n B, D].
//
//   update  (V, P) <- Rayleigh-Ritz in span {V, P, R}   n B (8 D + 8 d) elements moved   n 24 B^2 (D + d) flops
//           and the projected problem of 3 B vectors    about 8 sweeps of Jacobi: n 1300 B^3 flops
//   order   rows of a sample by their value             n B doubles read; rows are moved only where two change places
// The residuals are those of lobpcg.cu, row by row. The update reads its rows four times (three for the inner products,
// which are taken B x B at a time, once to recombine): from the L2 cache after the first. At B = 4 it does 12 f64
// operations per element moved: bound by f64 arithmetic where f64 runs at 1/64 of f32, by memory elsewhere.
// Rows may be strided; no alignment beyond the element's.
// Determinism: accumulation in f64 in an order fixed by the block size; every element of the small problem is computed
// by one thread.
//
// Registers under sm_90, nvcc 13.0; none spills. Launch bounds that leave room for a second block on a
// multiprocessor (128 registers) make B = 3 spill 420 bytes and B = 4 84.
//
// | variant       | idea                                             | registers f32, f64 | time                      |
// | update, B = 1 | block per sample: inner products, solve, combine | 128, 128           | not yet measured on a GPU |
// | update, B = 2 | the same                                         | 128, 128           | not yet measured on a GPU |
// | update, B = 3 | the same                                         | 184, 190           | not yet measured on a GPU |
// | update, B = 4 | the same                                         | 141, 164           | not yet measured on a GPU |
// | order         | block per sample: selection sort                 | 40, 40             | not yet measured on a GPU |
#include "kernels/cuda/common/jacobi.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/block_ritz.h"

namespace bracket::BRACKET_TARGET {
namespace {

/// As in lobpcg.cu; the 16 sums of each thread then take 32 KiB.
constexpr int kThreads = 256;
/// Threads that add up one inner product.
constexpr int kSumThreads = 16;

/// Groups of B rows per sample, in the order of the basis {V, P, R}.
template <class T>
struct RitzGroups {
  DeviceMatrix<T> v, p, r;
};

/// All threads of a block, on shared memory.
struct BlockTeam {
  JacobiPlane* planes;

  BRACKET_DEVICE int first() const { return static_cast<int>(threadIdx.x); }
  BRACKET_DEVICE int count() const { return kThreads; }
  BRACKET_DEVICE void sync() const { __syncthreads(); }
  BRACKET_DEVICE void diagonalize(double* a, double* vectors, int size) const {
    jacobi_diagonalize(a, vectors, planes, size, static_cast<int>(blockDim.x));
  }
};

/// Shared memory of inner_products.
template <int B>
struct Partials {
  double terms[B * B][kThreads];
  double sums[B * B][kSumThreads];
};

/// Inner products of the rows of two groups into their place, (row, column) in units of B, and its mirror image.
template <int B, class T>
BRACKET_DEVICE void group_products(double* products, const DeviceMatrix<T>& left, const DeviceMatrix<T>& right, int row,
                                   int column, std::int64_t sample, Partials<B>* partials) {
  constexpr int kVectors = formula::BlockRitz<B>::kVectors;
  const int thread = static_cast<int>(threadIdx.x);
  double sums[B][B] = {};
  for (std::int64_t j = thread; j < left.cols; j += kThreads) {
    double x[B], y[B];
    BRACKET_UNROLL
    for (int k = 0; k < B; ++k) {
      x[k] = static_cast<double>(left.row(sample * B + k)[j]);
      y[k] = static_cast<double>(right.row(sample * B + k)[j]);
    }
    BRACKET_UNROLL
    for (int k = 0; k < B; ++k) {
      BRACKET_UNROLL
      for (int l = 0; l < B; ++l) sums[k][l] += x[k] * y[l];
    }
  }
  BRACKET_UNROLL
  for (int k = 0; k < B; ++k) {
    BRACKET_UNROLL
    for (int l = 0; l < B; ++l) partials->terms[k * B + l][thread] = sums[k][l];
  }
  __syncthreads();
  const int pair = thread / kSumThreads, segment = thread % kSumThreads;
  if (pair < B * B) {
    double sum = 0;
    for (int i = segment; i < kThreads; i += kSumThreads) sum += partials->terms[pair][i];
    partials->sums[pair][segment] = sum;
  }
  __syncthreads();
  if (thread < B * B) {
    double sum = 0;
    for (int i = 0; i < kSumThreads; ++i) sum += partials->sums[thread][i];
    const int i = row * B + thread / B, j = column * B + thread % B;
    products[i * kVectors + j] = sum;
    if (row != column) products[j * kVectors + i] = sum;  // else another thread's element
  }
}

template <int B, class T>
BRACKET_DEVICE void inner_products(double* products, const RitzGroups<T>& rows, std::int64_t sample,
                                   Partials<B>* partials) {
  group_products<B>(products, rows.v, rows.v, 0, 0, sample, partials);
  group_products<B>(products, rows.p, rows.v, 1, 0, sample, partials);
  group_products<B>(products, rows.p, rows.p, 1, 1, sample, partials);
  group_products<B>(products, rows.r, rows.v, 2, 0, sample, partials);
  group_products<B>(products, rows.r, rows.p, 2, 1, sample, partials);
  group_products<B>(products, rows.r, rows.r, 2, 2, sample, partials);
}

template <int B, class T>
BRACKET_DEVICE void recombine(const RitzGroups<T>& rows, std::int64_t sample, const formula::BlockRitz<B>& solution) {
  constexpr int kVectors = formula::BlockRitz<B>::kVectors;
  for (std::int64_t j = threadIdx.x; j < rows.v.cols; j += kThreads) {
    double x[kVectors];
    BRACKET_UNROLL
    for (int k = 0; k < B; ++k) {
      x[k] = static_cast<double>(rows.v.row(sample * B + k)[j]);
      x[B + k] = static_cast<double>(rows.p.row(sample * B + k)[j]);
      x[2 * B + k] = static_cast<double>(rows.r.row(sample * B + k)[j]);
    }
    for (int k = 0; k < B; ++k) {
      double v = 0, p = 0;
      BRACKET_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        v += solution.v[k * kVectors + i] * x[i];
        p += solution.p[k * kVectors + i] * x[i];
      }
      rows.v.row(sample * B + k)[j] = static_cast<T>(v);
      rows.p.row(sample * B + k)[j] = static_cast<T>(p);
    }
  }
}

template <class T>
BRACKET_DEVICE void exchange_rows(const DeviceMatrix<T>& x, std::int64_t a, std::int64_t b) {
  for (std::int64_t j = threadIdx.x; j < x.cols; j += kThreads) {
    const T other = x.row(a)[j];
    x.row(a)[j] = x.row(b)[j];
    x.row(b)[j] = other;
  }
}

// ---- kernels --------------------------------------------------------------------------------------------------------

template <class T, int B>
__global__ void lobpcg_block_update_kernel(RitzGroups<T> basis, RitzGroups<T> image, double* largest) {
  BRACKET_SHARED(formula::BlockRitz<B>, solution, [1]);
  BRACKET_SHARED(Partials<B>, partials, [1]);
  BRACKET_SHARED(JacobiPlane, planes, [(formula::BlockRitz<B>::kVectors + 1) / 2]);
  BlockTeam team{planes};
  for (std::int64_t i = blockIdx.x; i < basis.v.rows / B; i += gridDim.x) {
    inner_products<B>(solution[0].basis, basis, i, partials);
    inner_products<B>(solution[0].image, image, i, partials);
    __syncthreads();
    formula::block_ritz_step<B>(team, solution[0], formula::kRoundoff<T>);
    if (threadIdx.x == 0 && largest != nullptr && solution[0].largest > largest[i]) largest[i] = solution[0].largest;
    recombine<B>(basis, i, solution[0]);
    // The sums of the next sample have barriers of their own before anything of this one's solution is overwritten.
    recombine<B>(image, i, solution[0]);
  }
}

/// The rows of a sample and what belongs to each of them.
template <class T>
struct PairRows {
  DeviceMatrix<T> v, jv, scale;
  DeviceMatrix<double> h, mu, distance;
};

template <class T>
__global__ void lobpcg_block_order_kernel(PairRows<T> rows, std::int64_t block) {
  for (std::int64_t i = blockIdx.x; i < rows.v.rows / block; i += gridDim.x) {
    for (std::int64_t k = i * block; k < (i + 1) * block; ++k) {
      std::int64_t least = k;
      for (std::int64_t l = k + 1; l < (i + 1) * block; ++l) {
        if (*rows.mu.row(l) < *rows.mu.row(least)) least = l;
      }
      if (least == k) continue;
      __syncthreads();  // everyone has read the values
      exchange_rows(rows.v, k, least);
      exchange_rows(rows.jv, k, least);
      exchange_rows(rows.scale, k, least);
      exchange_rows(rows.h, k, least);
      exchange_rows(rows.mu, k, least);
      exchange_rows(rows.distance, k, least);
      __syncthreads();
    }
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T, int B>
cudaError_t launch_update(const RitzGroups<T>& basis, const RitzGroups<T>& image, double* largest,
                          cudaStream_t stream) {
  return launch<lobpcg_block_update_kernel<T, B>>(blocks_for(basis.v.rows / B, 1), kThreads, 0, stream, basis, image,
                                                  largest);
}

template <class T>
cudaError_t lobpcg_block_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, std::int64_t block,
                                Tensor largest, cudaStream_t stream) {
  if (v.rows() == 0) return cudaSuccess;
  const RitzGroups<T> basis{device_matrix<T>(v), device_matrix<T>(p), device_matrix<T>(r)};
  const RitzGroups<T> image{device_matrix<T>(jv), device_matrix<T>(jp), device_matrix<T>(jr)};
  switch (block) {
    case 1:
      return launch_update<T, 1>(basis, image, device_vector<double>(largest), stream);
    case 2:
      return launch_update<T, 2>(basis, image, device_vector<double>(largest), stream);
    case 3:
      return launch_update<T, 3>(basis, image, device_vector<double>(largest), stream);
    case 4:
      return launch_update<T, 4>(basis, image, device_vector<double>(largest), stream);
    default:
      return cudaErrorInvalidValue;
  }
}

template <class T>
cudaError_t lobpcg_block_order(Tensor v, Tensor jv, Tensor scale, Tensor h, Tensor mu, Tensor distance,
                               std::int64_t block, cudaStream_t stream) {
  if (v.rows() == 0) return cudaSuccess;
  const PairRows<T> rows{device_matrix<T>(v),      device_matrix<T>(jv),      device_matrix<T>(scale),
                         device_matrix<double>(h), device_matrix<double>(mu), device_matrix<double>(distance)};
  return launch<lobpcg_block_order_kernel<T>>(blocks_for(v.rows() / block, 1), kThreads, 0, stream, rows, block);
}

}  // namespace

void CudaOps::do_lobpcg_block_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, std::int64_t block,
                                     Tensor largest) {
  const cudaError_t code = dispatch(v.dtype(), [&]<class T>() {
    return BRACKET_TARGET::lobpcg_block_update<T>(v, p, jv, jp, r, jr, block, largest, stream_);
  });
  check(code, "lobpcg_block_update", jv);
}

void CudaOps::do_lobpcg_block_order(Tensor v, Tensor jv, Tensor scale, Tensor h, Tensor mu, Tensor distance,
                                    std::int64_t block) {
  const cudaError_t code = dispatch(v.dtype(), [&]<class T>() {
    return BRACKET_TARGET::lobpcg_block_order<T>(v, jv, scale, h, mu, distance, block, stream_);
  });
  check(code, "lobpcg_block_order", jv);
}

}  // namespace bracket::BRACKET_TARGET
