// relu and leaky_relu on stacked rows that keep [x + bias > 0], one bit per element, instead of x:
//   forward   y = f(v),  y' = f' x'  with v = x + bias
//   reverse   grad_x = f' grad_y,  grad_x' = f' grad_y',  grad_bias = sums of grad_x over rows and pixels
// f' is 1 where the bit is set and the negative slope (relu: 0) elsewhere.
//
// Each run (channel_runs.h) goes through bytes of 0 or 1, which loops turn into vector compares, and multiplications
// that move eight of them into or out of one byte of the mask.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/channel_runs.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/stacked_rows.h"

namespace bracket {
namespace {

static_assert(std::endian::native == std::endian::little, "flag k of eight is byte k of the 64-bit word they form");

/// Work per element and per tangent element in the unit of parallel_rows; bound by memory.
constexpr std::int64_t kFlopsPerElement = 2;

/// bytes[k / 8] bit k % 8 = flags[k], each 0 or 1; unused bits are 0.
void pack_flags(std::uint8_t* bytes, const std::uint8_t* flags, std::int64_t n) {
  for (std::int64_t k = 0; k < n; k += 8) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, flags + k, static_cast<std::size_t>(std::min<std::int64_t>(8, n - k)));
    // 2^(8 i) 2^(7 (8 - i)) = 2^(56 + i): flag i arrives at bit i of the top byte, and no two products meet below it.
    bytes[k / 8] = static_cast<std::uint8_t>((eight * 0x0102040810204080U) >> 56);
  }
}

/// flags[k] != 0 where bit k % 8 of bytes[k / 8] is set.
void unpack_flags(std::uint8_t* flags, const std::uint8_t* bytes, std::int64_t n) {
  for (std::int64_t k = 0; k < n; k += 8) {
    const std::uint64_t eight = (bytes[k / 8] * 0x0101010101010101U) & 0x8040201008040201U;
    std::memcpy(flags + k, &eight, static_cast<std::size_t>(std::min<std::int64_t>(8, n - k)));
  }
}

/// Where the flags of a run lie in the mask.
class RunMask {
 public:
  RunMask(const Tensor& mask, const ChannelRuns& runs)
      : mask_(matrix<std::uint8_t>(mask)), runs_(runs), pixel_bytes_((runs.channels + 7) / 8) {}

  void write(const std::uint8_t* flags, std::int64_t row, std::int64_t column, std::int64_t n) const {
    std::uint8_t* bytes = first_byte(row, column);
    for (std::int64_t k = 0; k < n; k += segment(n), bytes += pixel_bytes_) pack_flags(bytes, flags + k, segment(n));
  }
  void read(std::uint8_t* flags, std::int64_t row, std::int64_t column, std::int64_t n) const {
    const std::uint8_t* bytes = first_byte(row, column);
    for (std::int64_t k = 0; k < n; k += segment(n), bytes += pixel_bytes_) unpack_flags(flags + k, bytes, segment(n));
  }

 private:
  std::uint8_t* first_byte(std::int64_t row, std::int64_t column) const {
    return mask_.row(row) + column / runs_.channels * pixel_bytes_ + column % runs_.channels / 8;
  }
  /// Flags without a gap between their bits: pixels of whole bytes touch.
  std::int64_t segment(std::int64_t n) const {
    return runs_.channels % 8 == 0 || runs_.split_pixels() ? n : runs_.channels;
  }

  Matrix<std::uint8_t> mask_;
  ChannelRuns runs_;
  std::int64_t pixel_bytes_;
};

template <bool kLeaky, class T>
void forward_primal(T* y, std::uint8_t* flags, const T* x, const T* bias, T slope, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const T v = x[i] + bias[i];
    flags[i] = v <= T{0} ? 0 : 1;
    y[i] = v <= T{0} ? (kLeaky ? slope * v : T{0}) : v;
  }
}

template <class T>
void first_derivative(T* first, const std::uint8_t* flags, T slope, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) first[i] = flags[i] != 0 ? T{1} : slope;
}

/// f' on the negative side.
template <class T>
T negative_slope(const ActivationKind& kind) {
  return kind.function == Activation::relu ? T{0} : static_cast<T>(kind.negative_slope);
}

std::int64_t cost_per_row(std::int64_t cols, const Rows& rows) {
  const std::int64_t tangents = rows.primal == 0 ? 0 : (rows.tangent_rows() + rows.primal - 1) / rows.primal;
  return kFlopsPerElement * cols * (1 + tangents);
}

template <class T>
void forward(const Stacked& out, const Tensor& mask, const Stacked& in, const Tensor& bias, std::int64_t channels,
             const ActivationKind& kind, const Rows& rows, ThreadTeam& team) {
  const StackedMatrix<T> y(out), x(in);
  const std::int64_t cols = y.has_primal ? y.primal.cols : y.tangent.cols;
  if (cols == 0 || rows.primal == 0) return;
  const ChannelRuns runs(cols, channels, rows.tangents <= 1 && x.contiguous() && y.contiguous() && mask.contiguous());
  const RunMask bits(mask, runs);
  const T* const shift = matrix<T>(bias).data;
  const T slope = negative_slope<T>(kind);

  const auto panel = [&](std::int64_t begin, std::int64_t end) {
    T shifts[kRun];
    T first[kRun];
    std::uint8_t flags[kRun];
    const auto start = [&](std::int64_t channel, std::int64_t width) {
      for (std::int64_t i = 0; i < runs.longest(width); ++i) {
        shifts[i] = shift ? shift[channel + i % width] : T{-0.0};  // x + -0 is x, also for x = -0
      }
    };
    const auto run = [&](std::int64_t row, std::int64_t column, std::int64_t n, bool carries) {
      const bool with_tangents = carries && y.has_tangent;
      if (y.has_primal) {
        T* to = element(y.primal, row, column);
        const T* from = element(x.primal, row, column);
        if (kind.function == Activation::relu) {
          forward_primal<false>(to, flags, from, shifts, slope, n);
        } else {
          forward_primal<true>(to, flags, from, shifts, slope, n);
        }
        bits.write(flags, row, column, n);
      } else if (with_tangents) {
        bits.read(flags, row, column, n);
      }
      if (!with_tangents) return;
      first_derivative(first, flags, slope, n);
      const std::int64_t tangent_row = (row - rows.first) * rows.tangents;
      for (std::int64_t k = 0; k < rows.tangents; ++k) {
        multiply_run(element(y.tangent, tangent_row + k, column), first, element(x.tangent, tangent_row + k, column),
                     n);
      }
    };
    visit_runs(runs, begin, end, rows, start, run, [](std::int64_t, std::int64_t) {});
  };
  parallel_rows(rows.primal, cost_per_row(cols, rows), team, panel, panel_multiple(runs));
}

template <class T>
void reverse(const Stacked& out, const Tensor& grad_bias, const Stacked& seed, const Tensor& mask,
             std::int64_t channels, const ActivationKind& kind, const Rows& rows, ThreadTeam& team, Update update) {
  const StackedMatrix<T> grad_x(out), grad_y(seed);
  const std::int64_t cols = grad_x.has_primal ? grad_x.primal.cols : grad_x.tangent.cols;
  if (cols == 0 || rows.primal == 0) {
    if (!grad_bias.absent()) add_panels<T>(grad_bias.as<T>(), nullptr, 0, channels, channels, update);
    return;
  }
  const bool contiguous = grad_x.contiguous() && grad_y.contiguous() && mask.contiguous();
  const ChannelRuns runs(cols, channels, rows.tangents <= 1 && contiguous);
  const RunMask bits(mask, runs);
  const T slope = negative_slope<T>(kind);
  const std::int64_t cost = cost_per_row(cols, rows);
  const std::int64_t step = panel_rows(rows.primal, cost, panel_multiple(runs));
  const std::int64_t panels = (rows.primal + step - 1) / step;
  T* const sums = panel_sums<T>(panels * channels);

  const auto panel = [&](std::int64_t begin, std::int64_t end) {
    T first[kRun];
    T bias_sum[kRun];
    std::uint8_t flags[kRun];
    const auto start = [&](std::int64_t, std::int64_t width) { std::fill_n(bias_sum, runs.longest(width), T{0}); };
    const auto run = [&](std::int64_t row, std::int64_t column, std::int64_t n, bool carries) {
      const bool with_tangents = carries && grad_x.has_tangent;
      if (!with_tangents && !grad_x.has_primal) return;
      bits.read(flags, row, column, n);
      first_derivative(first, flags, slope, n);
      const std::int64_t tangent_row = (row - rows.first) * rows.tangents;
      for (std::int64_t k = 0; with_tangents && k < rows.tangents; ++k) {
        multiply_run(element(grad_x.tangent, tangent_row + k, column), first,
                     element(grad_y.tangent, tangent_row + k, column), n);
      }
      if (!grad_x.has_primal) return;
      T* to = element(grad_x.primal, row, column);
      if (grad_y.has_primal) {
        multiply_and_sum_run(to, bias_sum, first, element(grad_y.primal, row, column), n);
      } else {
        std::fill_n(to, n, T{0});
      }
    };
    const auto finish = [&](std::int64_t channel, std::int64_t width) {
      fold(sums + begin / step * channels + channel, bias_sum, width, runs.longest(width) / width);
    };
    visit_runs(runs, begin, end, rows, start, run, finish);
  };
  parallel_rows(rows.primal, cost, team, panel, panel_multiple(runs));
  if (!grad_bias.absent()) add_panels(grad_bias.as<T>(), sums, panels, channels, channels, update);
}

}  // namespace

void CpuOps::do_masked_activation_forward(Stacked y, Tensor mask, Stacked x, Tensor bias, std::int64_t channels,
                                          ActivationKind kind, const Rows& rows) {
  const DType dtype = y.primal.absent() ? y.tangent.dtype() : y.primal.dtype();
  dispatch(dtype, [&]<class T>() { forward<T>(y, mask, x, bias, channels, kind, rows, team_); });
}

void CpuOps::do_masked_activation_reverse(Stacked grad_x, Tensor grad_bias, Stacked grad_y, Tensor mask,
                                          std::int64_t channels, ActivationKind kind, const Rows& rows, Update update) {
  const DType dtype = grad_x.primal.absent() ? grad_x.tangent.dtype() : grad_x.primal.dtype();
  dispatch(dtype, [&]<class T>() { reverse<T>(grad_x, grad_bias, grad_y, mask, channels, kind, rows, team_, update); });
}

}  // namespace bracket
