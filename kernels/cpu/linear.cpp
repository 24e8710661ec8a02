// Dense layers, x [r, in], w [out, in], y [r, out]: y = x w^T, grad_x (+)= grad_y w, grad_w (+)= grad_y^T x.
//
// Products on register tiles (tile_product.h); partial sums of grad_w are added in order.
//
// GFLOP/s on one / two threads of a 2-core Xeon with AVX-512, float, medians of 7 (bench/results/linear_cpu.json;
// 2026-12-01). A 2-core EPYC 7003, which has AVX2, had 78 / 134, 79 / 143, 69 / 125 in the first row (2026-11-25).
//   rows x in -> out    forward        reverse data   reverse weights
//    800 x 100 -> 100    121 / 189       131 / 218       124 / 200
//    384 x  66 ->  64    122 / 158       107 / 170       113 / 139
//    384 x  48 ->  48    119 / 136       146 / 198       146 / 176
//    384 x  48 ->  38     95 / 119       136 / 183       142 / 173
//    800 x   2 -> 100     30 /  38        26 /  33        22 /  29
//    384 x  64 ->   1     21 /  23        20 /  18        23 /  24
#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/tile_product.h"

namespace bracket {
namespace {

/// grad_w: chunks of at least this many rows, so that adding a chunk's sum costs under 5 % of computing it; a power of
/// two of them, for an even load on 2, 4, 8 threads.
constexpr std::int64_t kMinChunkRows = 128;
constexpr std::int64_t kMaxChunks = 16;
/// Elements of all chunks together: 4 MiB of floats.
constexpr std::int64_t kMaxChunkElements = std::int64_t{1} << 20;
/// Rows of grad_w per panel: the other way to share it, of which a gradient of few rows of data has no other.
constexpr std::int64_t kWeightPanelRows = 128;
constexpr std::int64_t kFewRowsPanelRows = 32;

template <class T>
void forward(const Matrix<T>& y, const Matrix<T>& x, const Matrix<T>& w, ThreadTeam& team) {
  const std::int64_t cost = y.cols * (2 * x.cols + kWriteCost);
  if (y.cols < kLanes<T>) {
    parallel_panels(y.rows, cost, team, [&](std::int64_t first, std::int64_t count) {
      multiply_by_few(rows_from(y, first, count), rows_from(x, first, count), w.data, w.ld, Update::overwrite);
    });
  } else {
    const StripOperand<T> right = transposed(w, team);
    parallel_panels(y.rows, cost, team, [&](std::int64_t first, std::int64_t count) {
      multiply_strips(rows_from(y, first, count), {x.row(first), x.ld, 1}, right, x.cols, Update::overwrite);
    });
  }
}

struct FewRows;

template <class T>
void reverse_data(const Matrix<T>& grad_x, const Matrix<T>& grad_y, const Matrix<T>& w, Update update,
                  ThreadTeam& team) {
  const std::int64_t cost = grad_x.cols * (2 * grad_y.cols + kWriteCost);
  if (grad_x.cols < kLanes<T>) {
    T* right = thread_buffer<T, FewRows>(w.rows * w.cols);
    View<T>(right, w.cols, w.rows, Eigen::OuterStride<>(w.rows)) = rows_of(w, 0, w.rows).transpose();
    parallel_panels(grad_x.rows, cost, team, [&](std::int64_t first, std::int64_t count) {
      multiply_by_few(rows_from(grad_x, first, count), rows_from(grad_y, first, count), right, w.rows, update);
    });
  } else {
    parallel_panels(grad_x.rows, cost, team, [&](std::int64_t first, std::int64_t count) {
      multiply_panel(rows_from(grad_x, first, count), {grad_y.row(first), grad_y.ld, 1}, w.data, w.ld, grad_y.cols,
                     update);
    });
  }
}

/// grad_w (+)= grad_y^T x for a block of columns of grad_y.
template <class T>
void weight_block(const Matrix<T>& grad_w, const Matrix<T>& grad_y, std::int64_t column, const Matrix<T>& x,
                  Update update) {
  if (x.cols >= kLanes<T>) {
    multiply_panel(grad_w, {grad_y.data + column, 1, grad_y.ld}, x.data, x.ld, x.rows, update);
  } else {
    // Few inputs: the transposed block has the long rows.
    T block[kLanes<T> * kWeightPanelRows];
    multiply_tiles(Matrix<T>{block, x.cols, grad_w.rows, grad_w.rows}, {x.data, 1, x.ld}, grad_y.data + column,
                   grad_y.ld, x.rows, Update::overwrite);
    for (std::int64_t i = 0; i < grad_w.rows; ++i) {
      for (std::int64_t j = 0; j < x.cols; ++j) {
        T& out = grad_w.row(i)[j];
        const T value = block[j * grad_w.rows + i];
        out = update == Update::accumulate ? out + value : value;
      }
    }
  }
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
  const std::int64_t panel_rows = chunks > 1 ? kWeightPanelRows : kFewRowsPanelRows;
  const std::int64_t panels = (grad_w.rows + panel_rows - 1) / panel_rows;
  T* sums = chunks > 1 ? thread_buffer<T, ChunkSums>(chunks * size) : nullptr;

  parallel_tasks(chunks * panels, 2 * x.rows * size, team, [&](std::int64_t task) {
    const std::int64_t chunk = task / panels;
    const std::int64_t first = std::min(chunk * chunk_rows, x.rows);
    const std::int64_t count = std::min(chunk_rows, x.rows - first);
    const std::int64_t out_first = task % panels * panel_rows;
    const std::int64_t out_count = std::min(panel_rows, grad_w.rows - out_first);
    const Matrix<T> target =
        chunks == 1 ? grad_w : Matrix<T>{sums + chunk * size, grad_w.rows, grad_w.cols, grad_w.cols};
    weight_block(rows_from(target, out_first, out_count), rows_from(grad_y, first, count), out_first,
                 rows_from(x, first, count), chunks == 1 ? update : Update::overwrite);
  });
  if (chunks > 1) add_chunks(grad_w, sums, chunks, update, team);
}

}  // namespace

void CpuOps::do_linear_forward(Tensor y, Tensor x, Tensor w, const ProductEpilogue& epilogue) {
  const Tensor& product = epilogue.product(y);
  dispatch(y.dtype(), [&]<class T>() { forward(matrix<T>(product), matrix<T>(x), matrix<T>(w), team_); });
  finish_product(y, w.rows(), epilogue);
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
