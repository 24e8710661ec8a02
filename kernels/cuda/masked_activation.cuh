// relu and leaky_relu on stacked rows that keep [x + bias > 0], one bit per element, instead of x:
//   forward   v = x + bias,  y = f(v),  y' = f' x';  primal y given: the bits are written, else read
//   reverse   grad_x = f' grad_y,  grad_x' = f' grad_y',  grad_bias (+)= sums of grad_x per channel
// f' is 1 where the bit is set, elsewhere the negative slope (relu: 0).
//
// Shapes       x, y [rows, pixels * c], any row strides; bit ch mod 8 of byte pixel ceil(c / 8) + ch / 8 of a row
//              of the mask belongs to channel ch of a pixel.
// Bytes        per primal element with K tangents (b = 4 or 8): forward 2 b (1 + K) + 1/8, tangents alone
//              2 b K + 1/8, reverse 2 b (1 + K) + 1/8 and b more for the bias, which the second-level cache mostly
//              holds.
// Flops        2 per element: bound by memory.
// Alignment    that of the element; neighbouring threads touch neighbouring elements. 8 ceil(c / 8) threads serve the c
//              channels of a pixel, so that c = 3 uses 3 of 8.
// Aliasing     y may be x, grad_x may be grad_y: a thread reads an element before it writes it.
// Determinism  elementwise; the sums in an order fixed by the shape (common/column_sums.cuh).
//
// Variant        idea                                                              measured
// ballot         one thread per channel, eight lanes' votes are a byte             not yet measured on a GPU
//                (sm_90: 40 registers, no spills)
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"

namespace bracket::BRACKET_TARGET::masked_activation_kernels {

// Eight warps hide the latency of the loads of one another; no shared memory, so occupancy depends on registers alone.
constexpr int kThreads = 256;
/// Blocks per multiprocessor the compiler leaves registers for; without this number it spills 8 bytes of reverse on
/// sm_80.
constexpr int kResidentBlocks = 4;

/// Which element a thread serves: those of a byte of the mask lie on eight adjacent threads, from lane 0, 8, 16 or 24
/// on.
struct MaskedElement {
  std::int64_t row;
  std::int64_t byte;    ///< of the row of the mask
  std::int64_t column;  ///< of the element
  bool exists;          ///< false behind the last channel of a pixel
};

struct MaskGeometry {
  DeviceMatrix<std::uint8_t> mask;
  std::int64_t channels;
  std::int64_t pixel_bytes;

  BRACKET_HOST_DEVICE std::int64_t items() const { return 8 * mask.size(); }
  BRACKET_DEVICE MaskedElement at(std::int64_t item) const {
    const Division in_row(item / 8, mask.cols);
    const Division in_pixel(in_row.rest, pixel_bytes);
    const std::int64_t channel = 8 * in_pixel.rest + item % 8;
    return {in_row.quotient, in_row.rest, in_pixel.quotient * channels + channel, channel < channels};
  }
  BRACKET_DEVICE bool bit(const MaskedElement& at, std::int64_t item) const {
    return ((mask.row(at.row)[at.byte] >> (item % 8)) & 1) != 0;
  }
};

template <class T>
struct MaskedForward {
  StackedMatrix<T> y, x;
  MaskGeometry geometry;
  const T* bias;  ///< or null
  bool relu;
  T slope;  ///< f' on the negative side
  Rows rows;
};

template <class T>
struct MaskedReverse {
  StackedMatrix<T> grad_x, grad_y;
  MaskGeometry geometry;
  T slope;
  Rows rows;
};

// ---- kernels ---------------------------------------------------------------------------------------------------

template <class T>
struct MaskedActivationForwardBody {
  static constexpr int kBlockThreads = kThreads;

  MaskedForward<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = lane_of_thread();
    const std::int64_t items = p.geometry.items();
    // All lanes of a warp take every turn, as they vote together.
    for (std::int64_t first = block.first_item() - lane; first < items; first += block.item_stride()) {
      const std::int64_t item = first + lane;
      const bool inside = item < items;
      const MaskedElement at = p.geometry.at(inside ? item : 0);
      const bool active = inside && at.exists;
      bool positive = false;
      if (p.y.has_primal) {
        if (active) {
          T v = p.x.primal.row(at.row)[at.column];
          if (p.bias != nullptr)
            v += p.bias[p.geometry.channels == p.x.primal.cols ? at.column
                                                               : Division(at.column, p.geometry.channels).rest];
          positive = !(v <= T{0});
          p.y.primal.row(at.row)[at.column] = positive ? v : (p.relu ? T{0} : p.slope * v);
        }
        const unsigned votes = __ballot_sync(kFullWarp, positive ? 1 : 0);
        if (inside && lane % 8 == 0) p.geometry.mask.row(at.row)[at.byte] = static_cast<std::uint8_t>(votes >> lane);
      } else if (active) {
        positive = p.geometry.bit(at, item);
      }
      if (!active || !p.y.has_tangent) continue;
      const T slope = positive ? T{1} : p.slope;
      const TangentRange tangents = tangents_of(p.rows, at.row);
      for (std::int64_t k = tangents.first; k < tangents.last; ++k) {
        p.y.tangent.row(k)[at.column] = slope * p.x.tangent.row(k)[at.column];
      }
    }
  }
};

template <class T>
struct MaskedActivationReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  MaskedReverse<T> p;

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t item = block.first_item(); item < p.geometry.items(); item += block.item_stride()) {
      const MaskedElement at = p.geometry.at(item);
      if (!at.exists) continue;
      const T slope = p.geometry.bit(at, item) ? T{1} : p.slope;
      if (p.grad_x.has_primal) {
        p.grad_x.primal.row(at.row)[at.column] =
            p.grad_y.has_primal ? slope * p.grad_y.primal.row(at.row)[at.column] : T{0};
      }
      if (!p.grad_x.has_tangent) continue;
      const TangentRange tangents = tangents_of(p.rows, at.row);
      for (std::int64_t k = tangents.first; k < tangents.last; ++k) {
        p.grad_x.tangent.row(k)[at.column] = slope * p.grad_y.tangent.row(k)[at.column];
      }
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::masked_activation_kernels
