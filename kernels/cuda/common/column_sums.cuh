// Sums of term(row, column) over all rows, per column, in an order fixed by the shape: same bits on every run.
//
// A block takes up to kThreads adjacent columns of a chunk of rows: with few columns (channels of an image) its threads
// lie on several rows at once, so that a warp reads adjacent memory whatever the number of columns. Chunks leave
// partial sums in scratch memory, which a second launch of the same kernel adds; without them the 65,536 rows of 64
// channels of a batch of images would be read by a single block.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/ops.h"

namespace bracket::BRACKET_TARGET {

/// A matrix [rows, pixels * channels] as one of pixels: term(q, channel) of pixel q of all rows.
template <class T>
struct PixelTerm {
  PixelTerm(const DeviceMatrix<T>& matrix, std::int64_t num_channels)
      : data(matrix.data),
        ld(matrix.ld == matrix.cols ? num_channels : matrix.ld),
        pixels(matrix.ld == matrix.cols ? 1 : matrix.cols / num_channels),
        channels(num_channels) {}
  BRACKET_DEVICE T operator()(std::int64_t q, std::int64_t channel) const {
    if (pixels == 1) return data[q * ld + channel];
    const Division at(q, pixels);
    return data[at.quotient * ld + at.rest * channels + channel];
  }
  const T* data;
  std::int64_t ld;
  std::int64_t pixels;
  std::int64_t channels;
};

namespace column_sums_detail {

// Eight warps of loads in flight per block; partial sums of a block fit static shared memory for any term up to 16
// bytes.
inline constexpr int kThreads = 256;
/// Blocks per multiprocessor the compiler leaves registers for; without this number it spills one of the PReLU slope's.
inline constexpr int kResidentBlocks = 4;
/// A thread adds at least this many rows, else a further chunk costs more than it saves.
inline constexpr std::int64_t kRowsPerThread = 16;
/// Enough blocks to fill the largest GPU several times over.
inline constexpr std::int64_t kMaxBlocks = 1024;

template <class Sum>
struct PartialTerm {
  const Sum* data;
  std::int64_t cols;
  BRACKET_DEVICE Sum operator()(std::int64_t row, std::int64_t column) const { return data[row * cols + column]; }
};

/// Chunk block.y of `chunk_rows` rows: store(block.y cols + column, sum).
template <class Sum, class Term, class Store>
struct ColumnSumsBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;
  static constexpr std::size_t kSharedBytes = sizeof(Sum[kThreads]);
  static constexpr bool kMeets = true;

  std::int64_t rows, cols, chunk_rows;
  Term term;
  Store store;

  BRACKET_DEVICE void operator()(const Block& block) const {
    auto& sums = block.shared<Sum[kThreads]>();
    const int thread = static_cast<int>(threadIdx.x);
    const int width = cols < kThreads ? static_cast<int>(cols) : kThreads;
    const int lanes = kThreads / width;
    const int lane = thread / width;
    const std::int64_t column = static_cast<std::int64_t>(block.x) * kThreads + thread % width;
    const std::int64_t first = static_cast<std::int64_t>(block.y) * chunk_rows;
    const std::int64_t last = first + chunk_rows < rows ? first + chunk_rows : rows;
    Sum sum{};
    if (lane < lanes && column < cols) {
      for (std::int64_t row = first + lane; row < last; row += lanes) sum = sum + term(row, column);
    }
    sums[thread] = sum;
    __syncthreads();
    for (int active = lanes; active > 1;) {
      const int half = (active + 1) / 2;
      if (lane + half < active) sums[thread] = sums[thread] + sums[thread + half * width];
      active = half;
      __syncthreads();
    }
    if (lane == 0 && column < cols) store(block.y * cols + column, sums[thread]);
  }
};

template <class Sum>
struct StorePartial {
  Sum* to;
  BRACKET_DEVICE void operator()(std::int64_t index, const Sum& sum) const { to[index] = sum; }
};

}  // namespace column_sums_detail

template <class T>
struct StoreSum {
  T* to;
  Update update;
  BRACKET_DEVICE void operator()(std::int64_t column, T sum) const {
    to[column] = update == Update::accumulate ? to[column] + sum : sum;
  }
};

/// Two sums at once.
struct SumPair {
  double first;
  double second;
  BRACKET_DEVICE SumPair operator+(const SumPair& other) const { return {first + other.first, second + other.second}; }
};

/// store(column, sum over rows of term(row, column)) for every column. Sum has operator+ and a zero Sum{}.
template <class Sum, class Term, class Store>
cudaError_t column_sums(std::int64_t rows, std::int64_t cols, const Term& term, const Store& store,
                        const Scratch& scratch, cudaStream_t stream) {
  using namespace column_sums_detail;
  static_assert(sizeof(Sum) <= 16);
  if (cols == 0) return cudaSuccess;
  const std::int64_t lanes = kThreads / std::min<std::int64_t>(cols, kThreads);
  const unsigned column_blocks = blocks_for(cols, kThreads);
  const std::int64_t room =
      scratch.elements * static_cast<std::int64_t>(sizeof(double)) / (cols * static_cast<std::int64_t>(sizeof(Sum)));
  const std::int64_t wanted = std::min({rows / (lanes * kRowsPerThread), kMaxBlocks / column_blocks, room});
  if (wanted < 2) {
    return launch<ColumnSumsBody<Sum, Term, Store>>(column_blocks, kThreads, 0, stream, rows, cols, rows, term, store);
  }
  const std::int64_t chunk_rows = (rows + wanted - 1) / wanted;
  const std::int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  Sum* const partial = reinterpret_cast<Sum*>(scratch.data);
  const cudaError_t code = launch<ColumnSumsBody<Sum, Term, StorePartial<Sum>>>(
      dim3(column_blocks, static_cast<unsigned>(chunks)), kThreads, 0, stream, rows, cols, chunk_rows, term,
      StorePartial<Sum>{partial});
  if (code != cudaSuccess) return code;
  return launch<ColumnSumsBody<Sum, PartialTerm<Sum>, Store>>(column_blocks, kThreads, 0, stream, chunks, cols, chunks,
                                                              PartialTerm<Sum>{partial, cols}, store);
}

}  // namespace bracket::BRACKET_TARGET
