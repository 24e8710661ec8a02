// How CPU ops walk stacked matrices whose columns repeat every `channels`: column j belongs to channel j mod channels,
// as a row of an image is pixels of c channels, and a dense layer one pixel.
//
// A run is up to kRun consecutive elements that share one inner loop: whole pixels of one row, part of a pixel that has
// more than kRun channels, or several whole rows where rows touch in memory and every primal row has at most one
// tangent row, so that one- and two-column matrices vectorise too. All runs of a block of channels start at its first
// channel: what is per channel is laid out element by element once for all of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cpu/cpu_common.h"
#include "kernels/ops.h"

namespace bracket {

/// Elements per run: five scratch arrays of doubles take 10 KiB, a third of the smallest first-level cache in use.
inline constexpr std::int64_t kRun = 256;

struct ChannelRuns {
  /// `grouped`: all operands are contiguous and rows carry at most one tangent row each. cols >= 1, channels >= 1.
  ChannelRuns(std::int64_t num_cols, std::int64_t num_channels, bool grouped) : cols(num_cols), channels(num_channels) {
    // Whole vectors of eight, where that many pixels fit. Several rows only where one is a piece.
    const std::int64_t unit = 8 * channels <= kRun ? 8 * channels : channels;
    piece = channels > kRun ? kRun : std::min(cols, kRun / unit * unit);
    if (grouped && cols <= piece) max_rows = kRun / cols;
  }
  bool split_pixels() const { return channels > kRun; }
  /// Elements of the longest run in a block of `width` channels; a multiple of `width`.
  std::int64_t longest(std::int64_t width) const { return split_pixels() ? width : max_rows * piece; }

  std::int64_t cols;
  std::int64_t channels;
  std::int64_t piece;  ///< columns of a run
  std::int64_t max_rows = 1;
};

/// Calls visit(row, num_rows, carries_tangents) for groups of up to max_rows of the primal rows [first, last).
template <class F>
void visit_row_groups(std::int64_t first, std::int64_t last, std::int64_t max_rows, const Rows& rows, F&& visit) {
  const std::int64_t range_last = rows.first + rows.count;
  for (std::int64_t row = first; row < last;) {
    const bool carries = row >= rows.first && row < range_last;
    std::int64_t end = std::min(last, row + max_rows);
    if (carries) end = std::min(end, range_last);
    if (row < rows.first) end = std::min(end, rows.first);
    visit(row, end - row, carries && rows.tangents > 0);
    row = end;
  }
}

/// For the primal rows [first, last), block by block of channels: begin(first_channel, width), then
/// run(row, column, elements, carries_tangents) for each run, then end(first_channel, width).
template <class Begin, class Run, class End>
void visit_runs(const ChannelRuns& runs, std::int64_t first, std::int64_t last, const Rows& rows, Begin&& begin,
                Run&& run, End&& end) {
  for (std::int64_t channel = 0; channel < runs.channels; channel += kRun) {
    const std::int64_t width = std::min(kRun, runs.channels - channel);
    begin(channel, width);
    visit_row_groups(first, last, runs.max_rows, rows, [&](std::int64_t row, std::int64_t num_rows, bool carries) {
      if (runs.split_pixels()) {
        for (std::int64_t column = channel; column < runs.cols; column += runs.channels) {
          run(row, column, width, carries);
        }
      } else {
        for (std::int64_t column = 0; column < runs.cols; column += runs.piece) {
          run(row, column, num_rows * std::min(runs.piece, runs.cols - column), carries);
        }
      }
    });
    end(channel, width);
  }
}

/// Rows of one matrix product's panel leave nothing ragged here; an image is work enough alone.
inline std::int64_t panel_multiple(const ChannelRuns& runs) { return runs.cols > kRun ? 1 : kPanelRowMultiple; }

template <class T>
T* element(const Matrix<T>& m, std::int64_t row, std::int64_t column) {
  return m.data == nullptr ? nullptr : m.row(row) + column;
}

// Operands of a run may be the same memory element by element, never shifted: each loop is free of dependencies between
// iterations, which the simd pragma states.

template <class T>
void multiply_run(T* y, const T* a, const T* b, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

/// grad_x = first * grad_y, added to `sums`.
template <class T>
void multiply_and_sum_run(T* grad_x, T* sums, const T* first, const T* grad_y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const T grad = first[i] * grad_y[i];
    sums[i] += grad;
    grad_x[i] = grad;
  }
}

/// Memory for the sums of all panels of one call, kept for the next: a steady-state step allocates nothing.
template <class T>
T* panel_sums(std::int64_t size) {
  static thread_local std::vector<T> sums;
  if (static_cast<std::int64_t>(sums.size()) < size) sums.resize(static_cast<std::size_t>(size));
  return sums.data();
}

/// sums[j] = sum over repeats of values[repeat width + j].
template <class T>
void fold(T* sums, const T* values, std::int64_t width, std::int64_t repeats) {
  std::copy_n(values, width, sums);
  for (std::int64_t repeat = 1; repeat < repeats; ++repeat) {
    for (std::int64_t j = 0; j < width; ++j) sums[j] += values[repeat * width + j];
  }
}

/// y (+)= rows of `partial` [panels, n], `ld` apart, added in order.
template <class T>
void add_panels(T* y, const T* partial, std::int64_t panels, std::int64_t ld, std::int64_t n, Update update) {
  for (std::int64_t j = 0; j < n; ++j) {
    T sum = 0;
    for (std::int64_t panel = 0; panel < panels; ++panel) sum += partial[panel * ld + j];
    y[j] = update == Update::accumulate ? y[j] + sum : sum;
  }
}

}  // namespace bracket
