// Dense layers, x [r, in], w [out, in], y [r, out]: y = x w^T, grad_x (+)= grad_y w, grad_w (+)= grad_y^T x.
//
// Products on panels (products.h); partial sums of grad_w are added in order.
//
// Measured on a 2-core Xeon (AVX2, float), GFLOP/s on one / two threads; one whole Eigen product at 800 x 100 x 100
// reaches 103 on one:
//   rows x in -> out    forward       reverse data   reverse weights
//   800 x 100 -> 100     87 /  -       90 / 180       89 / 164
//   384 x  66 ->  64     85 / 158      81 / 150       82 / 131
//   384 x  48 ->  48     86 / 156      90 / 156       87 / 132
//   384 x  48 ->  38     68 / 120      84 / 143       81 / 118
//   800 x   2 -> 100     22 /  36      18 /  18       16 /  16     (15 to 20 us: bound by memory, not by flops)
// Rejected: packed columns with 6 x 16 register tiles of our own (90 where Eigen reaches 103 at 800 x 100 x 100), and
// loops for one or two columns (such layers take under 20 us).
#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/products.h"

namespace bracket {
namespace {

/// grad_w: chunks of at least this many rows, so that adding a chunk's sum costs under 5 % of computing it; a power of
/// two of them, for an even load on 2, 4, 8 threads.
constexpr std::int64_t kMinChunkRows = 128;
constexpr std::int64_t kMaxChunks = 16;
/// Elements of all chunks together: 4 MiB of floats.
constexpr std::int64_t kMaxChunkElements = std::int64_t{1} << 20;
/// Rows of grad_w per panel: the other way to share a large one.
constexpr std::int64_t kWeightPanelRows = 128;

template <class T>
void forward(const Matrix<T>& y, const Matrix<T>& x, const Matrix<T>& w, ThreadTeam& team) {
  const View<T> weights = rows_of(w, 0, w.rows);
  const std::int64_t cost = y.cols * (2 * x.cols + kWriteCost);
  parallel_panels(y.rows, cost, team, [&](std::int64_t first, std::int64_t count) {
    rows_of(y, first, count).noalias() = rows_of(x, first, count) * weights.transpose();
  });
}

template <class T>
void reverse_data(const Matrix<T>& grad_x, const Matrix<T>& grad_y, const Matrix<T>& w, Update update,
                  ThreadTeam& team) {
  const View<T> weights = rows_of(w, 0, w.rows);
  const std::int64_t cost = grad_x.cols * (2 * grad_y.cols + kWriteCost);
  parallel_panels(grad_x.rows, cost, team, [&](std::int64_t first, std::int64_t count) {
    store(rows_of(grad_x, first, count), rows_of(grad_y, first, count) * weights, update);
  });
}

struct ChunkSums;

/// grad_w (+)= chunk 0 + chunk 1 + ...; a chunk is a contiguous [out, in].
template <class T>
void add_chunks(const Matrix<T>& grad_w, const T* sums, std::int64_t chunks, Update update, ThreadTeam& team) {
  const std::int64_t size = grad_w.rows * grad_w.cols;
  parallel_rows(grad_w.rows, chunks * grad_w.cols, team, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      T* row = grad_w.row(i);
      const T* chunk_row = sums + i * grad_w.cols;
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk, chunk_row += size) {
        const bool add = chunk > 0 || update == Update::accumulate;
#pragma omp simd
        for (std::int64_t j = 0; j < grad_w.cols; ++j) row[j] = add ? row[j] + chunk_row[j] : chunk_row[j];
      }
    }
  });
}

template <class T>
void reverse_weights(const Matrix<T>& grad_w, const Matrix<T>& grad_y, const Matrix<T>& x, Update update,
                     ThreadTeam& team) {
  const std::int64_t size = grad_w.rows * grad_w.cols;
  if (size == 0) return;
  const std::int64_t row_limit = std::max<std::int64_t>(1, x.rows / kMinChunkRows);
  const std::int64_t limit = std::clamp(kMaxChunkElements / size, std::int64_t{1}, std::min(row_limit, kMaxChunks));
  const auto chunks = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(limit)));
  const std::int64_t chunk_rows = (x.rows + chunks - 1) / chunks;
  const std::int64_t panels = (grad_w.rows + kWeightPanelRows - 1) / kWeightPanelRows;
  T* sums = chunks > 1 ? thread_buffer<T, ChunkSums>(chunks * size) : nullptr;

  parallel_tasks(chunks * panels, 2 * x.rows * size, team, [&](std::int64_t task) {
    const std::int64_t chunk = task / panels;
    const std::int64_t first = std::min(chunk * chunk_rows, x.rows);
    const std::int64_t count = std::min(chunk_rows, x.rows - first);
    const std::int64_t out_first = task % panels * kWeightPanelRows;
    const std::int64_t out_count = std::min(kWeightPanelRows, grad_w.rows - out_first);
    const auto product =
        rows_of(grad_y, first, count).middleCols(out_first, out_count).transpose() * rows_of(x, first, count);
    if (chunks == 1) {
      store(rows_of(grad_w, out_first, out_count), product, update);
    } else {
      const Matrix<T> sum{sums + chunk * size, grad_w.rows, grad_w.cols, grad_w.cols};
      rows_of(sum, out_first, out_count).noalias() = product;
    }
  });
  if (chunks > 1) add_chunks(grad_w, sums, chunks, update, team);
}

}  // namespace

void CpuOps::do_linear_forward(Tensor y, Tensor x, Tensor w) {
  dispatch(y.dtype(), [&]<class T>() { forward(matrix<T>(y), matrix<T>(x), matrix<T>(w), team_); });
}

void CpuOps::do_linear_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, Update update) {
  dispatch(grad_x.dtype(),
           [&]<class T>() { reverse_data(matrix<T>(grad_x), matrix<T>(grad_y), matrix<T>(w), update, team_); });
}

void CpuOps::do_linear_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, Update update) {
  dispatch(grad_w.dtype(),
           [&]<class T>() { reverse_weights(matrix<T>(grad_w), matrix<T>(grad_y), matrix<T>(x), update, team_); });
}

}  // namespace bracket
