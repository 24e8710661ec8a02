// Launchers of dense.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dense.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace dense_kernels;

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t gram(Tensor g, Tensor t, cudaStream_t stream) {
  const std::int64_t samples = g.rows(), k = g.extent(1);
  if (g.size() == 0) return cudaSuccess;
  double* const grams = g.as<double>();
  if (k < kThreadK) {
    return launch<GramBody<T>>(blocks_for(g.size(), kThreads), kThreads, 0, stream, grams, device_matrix<T>(t), samples,
                               k);
  }
  const std::int64_t tiles = (k + kGramTile - 1) / kGramTile;
  return launch<GramTiledBody<T>>(blocks_for(samples * (tiles * (tiles + 1) / 2), 1), kGramTile * kGramTile, 0, stream,
                                  grams, device_matrix<T>(t), samples, k, tiles);
}

cudaError_t cholesky(Tensor g, cudaStream_t stream) {
  const std::int64_t samples = g.rows(), k = g.extent(1);
  if (g.size() == 0) return cudaSuccess;
  if (k <= kThreadK) {
    return launch<CholeskyBody>(blocks_for(samples, kThreads), kThreads, 0, stream, g.as<double>(), samples,
                                static_cast<int>(k));
  }
  const std::int64_t bytes = k * k * dtype_bytes(DType::f64);
  const bool shared = bytes <= kSharedBytes;
  return launch<CholeskyBlockBody>(blocks_for(samples, 1), kCholeskyThreads,
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
  return launch<TriangularSolveBody<T>>(
      blocks_for(samples * b.cols(), static_cast<int>(threads)), static_cast<unsigned>(threads),
      shared ? static_cast<std::size_t>(threads * bytes_per_thread) : 0, stream, device_matrix<T>(x), l.as<double>(),
      device_matrix<T>(b), samples, static_cast<int>(k), transposed, shared);
}

template <class T>
cudaError_t log_diagonal_sum(Tensor h, Tensor l, cudaStream_t stream) {
  if (h.rows() == 0) return cudaSuccess;
  return launch<LogDiagonalSumBody<T>>(blocks_for(h.rows(), kThreads), kThreads, 0, stream, device_matrix<T>(h),
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
  return launch<SymmetricEigenBody>(
      blocks_for(samples, 1), threads, static_cast<std::size_t>(shared ? matrices + lists : lists), stream,
      device_matrix<double>(values), vectors.as<double>(), a.as<double>(), samples, static_cast<int>(k), shared);
}

template <class T>
cudaError_t min_singular(Tensor h, Tensor v, Tensor scale, Tensor values, Tensor vectors, cudaStream_t stream) {
  if (values.size() == 0) return cudaSuccess;
  return launch<MinSingularBody<T>>(blocks_for(values.size(), kThreads), kThreads, 0, stream, device_matrix<T>(h),
                                    device_matrix<T>(v), device_matrix<T>(scale), device_matrix<double>(values),
                                    vectors.as<double>());
}

template <class T>
cudaError_t combine_tangents(Tensor y, Tensor t, Tensor v, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<CombineTangentsBody<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, device_matrix<T>(y),
                                        device_matrix<T>(t), device_matrix<T>(v));
}

template <class T>
cudaError_t scale_rows(Tensor y, Tensor x, Tensor scale, double factor, cudaStream_t stream) {
  if (y.size() == 0) return cudaSuccess;
  return launch<ScaleRowsBody<T>>(blocks_for(y.size(), kThreads), kThreads, 0, stream, device_matrix<T>(y),
                                  device_matrix<T>(x), device_matrix<T>(scale), factor);
}

template <class T>
cudaError_t tile_identity(Tensor t, cudaStream_t stream) {
  if (t.size() == 0) return cudaSuccess;
  return launch<TileIdentityBody<T>>(blocks_for(t.size(), kThreads), kThreads, 0, stream, device_matrix<T>(t));
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
