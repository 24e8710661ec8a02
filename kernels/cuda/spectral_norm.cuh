// Spectral normalisation: sigma = u^T w v after power iterations, w / sigma;
//   reverse   grad_w (+)= (grad_wn - <grad_wn, wn> u v^T) / sigma
//
// Traffic in elements: power iteration 2 out in, division 2 out in. Rows may be strided; no alignment beyond the
// element's.
// Determinism: sums in f64, each by one block or warp in an order fixed by the shape.
//
// | variant                | idea                                                        | time                      |
// | spectral products      | warp per row (w v), column panel per block (w^T u)          | not yet measured on a GPU |
// | spectral_norm_reverse  | every block forms <grad_wn, wn> itself: no workspace needed | not yet measured on a GPU |
#pragma once

#include "kernels/cuda/common/column_block.cuh"
#include "kernels/cuda/common/matrix.cuh"

namespace bracket::BRACKET_TARGET::spectral_norm_kernels {

using namespace column_block;

/// Each block of spectral_norm_reverse reads both matrices for their dot product: one block per this many elements
/// keeps that a small multiple of the traffic for small layers, and kMaxReverseBlocks bounds it for large ones.
constexpr std::int64_t kReverseElements = 16384;
constexpr unsigned kMaxReverseBlocks = 32;

// ---- kernels -------------------------------------------------------------------------------------------------------

/// y_i = <w_i, v>, one warp per row; y_i lies i y_stride elements after y.
template <class T>
struct RowProductsBody {
  static constexpr int kBlockThreads = kThreads;

  T* y;
  std::int64_t y_stride;
  DeviceMatrix<T> w;
  const T* v;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
    for (std::int64_t i = block.first_item() / kWarpThreads; i < w.rows; i += block.item_stride() / kWarpThreads) {
      double sum = 0;
      for (std::int64_t j = lane; j < w.cols; j += kWarpThreads) {
        sum += static_cast<double>(w.row(i)[j]) * static_cast<double>(v[j]);
      }
      BRACKET_UNROLL
      for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
      if (lane == 0) y[i * y_stride] = static_cast<T>(sum);
    }
  }
};

/// v = w^T u
template <class T>
struct ColumnProductsBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr std::size_t kSharedBytes = sizeof(ColumnPartials<double>);
  static constexpr bool kMeets = true;

  T* v;
  DeviceMatrix<T> w;
  const T* u;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const std::int64_t j = block_column(block);
    const double sum = column_sum<double>(
        block.shared<ColumnPartials<double>>(), w.rows, j < w.cols,
        [&](std::int64_t i) { return static_cast<double>(w.row(i)[j]) * static_cast<double>(u[i]); });
    if (j < w.cols && row_thread() == 0) v[j] = static_cast<T>(sum);
  }
};

/// x <- x / max(|x|, epsilon); one block.
template <class T>
struct NormalizeBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  T* x;
  std::int64_t count;
  double epsilon;

  BRACKET_DEVICE void operator()(const Block&) const {
    double squares = 0;
    for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
      squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    const double norm = sqrt(block_sum<double, kThreads>(squares));
    const double divisor = norm < epsilon ? epsilon : norm;
    for (std::int64_t i = threadIdx.x; i < count; i += kThreads)
      x[i] = static_cast<T>(static_cast<double>(x[i]) / divisor);
  }
};

/// sigma = <u, products>; one block. `products` lie `stride` elements apart.
template <class T>
struct SpectralSigmaBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  T* sigma;
  const T* u;
  const T* products;
  std::int64_t stride, count;

  BRACKET_DEVICE void operator()(const Block&) const {
    double sum = 0;
    for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
      sum += static_cast<double>(u[i]) * static_cast<double>(products[i * stride]);
    }
    sum = block_sum<double, kThreads>(sum);
    if (threadIdx.x == 0) *sigma = static_cast<T>(sum);
  }
};

template <class T>
struct SpectralDivideBody {
  static constexpr int kBlockThreads = kThreads;

  DeviceMatrix<T> y, w;
  const T* sigma;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const T divisor = *sigma;
    for (std::int64_t e = block.first_item(); e < w.size(); e += block.item_stride()) {
      const std::int64_t i = e / w.cols;
      const std::int64_t j = e - i * w.cols;
      y.row(i)[j] = w.row(i)[j] / divisor;
    }
  }
};

template <class T>
struct SpectralNormReverseBody {
  static constexpr int kBlockThreads = kThreads;
  // Registers for as many blocks per multiprocessor; left alone the compiler takes fewer and spills.
  static constexpr int kBlocks = 4;
  static constexpr bool kMeets = true;

  DeviceMatrix<T> grad_w, seed, w;
  const T* sigma;
  const T* u;
  const T* v;
  Update update;

  BRACKET_DEVICE void operator()(const Block& block) const {
    double dot = 0;
    for (std::int64_t e = threadIdx.x; e < seed.size(); e += kThreads) {
      const std::int64_t i = e / seed.cols;
      const std::int64_t j = e - i * seed.cols;
      dot += static_cast<double>(seed.row(i)[j]) * static_cast<double>(w.row(i)[j]);
    }
    dot = block_sum<double, kThreads>(dot);
    const T divisor = *sigma;
    for (std::int64_t e = block.first_item(); e < seed.size(); e += block.item_stride()) {
      const std::int64_t i = e / seed.cols;
      const std::int64_t j = e - i * seed.cols;
      const T along = static_cast<T>(dot * static_cast<double>(u[i]));
      const T value = (seed.row(i)[j] - along * v[j]) / divisor;
      grad_w.row(i)[j] = update == Update::accumulate ? grad_w.row(i)[j] + value : value;
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::spectral_norm_kernels
