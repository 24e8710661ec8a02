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
// Alignment    any; 16 bytes at a time where rows, bias and channels allow (common/vector_access.cuh). With a width of
//              w, 8 ceil(c / 8) / w threads serve the c channels of a pixel, so that c = 3 uses 3 of 8.
// Aliasing     y may be x, grad_x may be grad_y: a thread reads an element before it writes it.
// Determinism  elementwise; the sums in an order fixed by the shape (common/column_sums.cuh).
//
// Variant        idea                                                              measured
// width 1        one thread per channel, eight lanes' votes are a byte             not yet measured on a GPU
// width 4, 2     4 f32 or 2 f64 a thread; 2 or 4 neighbours put a byte together    not yet measured on a GPU
// sm_80 and sm_90: at most 46 registers, no spills.
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"
#include "kernels/cuda/common/vector_access.cuh"

namespace bracket::BRACKET_TARGET::masked_activation_kernels {

// Eight warps hide the latency of the loads of one another; no shared memory, so occupancy depends on registers alone.
constexpr int kThreads = 256;
/// Blocks per multiprocessor the compiler leaves registers for; without this number it spills 8 bytes of reverse on
/// sm_80.
constexpr int kResidentBlocks = 4;

/// Which elements a thread serves: those of a byte of the mask lie on 8 / width adjacent threads of a warp.
struct MaskedElements {
  std::int64_t row;
  std::int64_t byte;    ///< of the row of the mask
  std::int64_t column;  ///< of the first element
  int count;            ///< elements of the pixel from there on, at most the width; none behind its last channel
};

struct MaskGeometry {
  DeviceMatrix<std::uint8_t> mask;
  std::int64_t channels;
  std::int64_t pixel_bytes;

  template <int kWidth>
  BRACKET_HOST_DEVICE std::int64_t items() const {
    return 8 / kWidth * mask.size();
  }
  template <int kWidth>
  BRACKET_DEVICE MaskedElements at(std::int64_t item) const {
    constexpr int kLanes = 8 / kWidth;
    const Division in_row(item / kLanes, mask.cols);
    const Division in_pixel(in_row.rest, pixel_bytes);
    const std::int64_t channel = 8 * in_pixel.rest + item % kLanes * kWidth;
    const std::int64_t left = channels - channel;
    return {in_row.quotient, in_row.rest, in_pixel.quotient * channels + channel,
            left >= kWidth ? kWidth : (left > 0 ? static_cast<int>(left) : 0)};
  }
  /// The bits of those elements, the first one lowest.
  template <int kWidth>
  BRACKET_DEVICE unsigned bits(const MaskedElements& at, std::int64_t item) const {
    return static_cast<unsigned>(mask.row(at.row)[at.byte]) >> (item % (8 / kWidth) * kWidth);
  }
};

/// The byte that the bits of adjacent lanes make, kWidth of each; right on the first lane of the byte at least. All
/// lanes of a warp call it.
template <int kWidth>
BRACKET_DEVICE unsigned byte_of_lanes(unsigned bits, int lane) {
  if constexpr (kWidth == 1) {
    return __ballot_sync(kFullWarp, static_cast<int>(bits)) >> lane;
  } else {
    bits <<= lane % (8 / kWidth) * kWidth;
    BRACKET_UNROLL
    for (int offset = 1; offset < 8 / kWidth; offset *= 2) bits |= __shfl_xor_sync(kFullWarp, bits, offset);
    return bits;
  }
}

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

template <class T, int kWidth>
struct MaskedActivationForwardBody {
  static constexpr int kBlockThreads = kThreads;

  MaskedForward<T> p;

  /// f of the elements at a place, and the bits that go with them.
  BRACKET_DEVICE unsigned primal(const MaskedElements& at) const {
    Vector<T, kWidth> v = load_vector<kWidth>(p.x.primal.row(at.row) + at.column, at.count);
    if (p.bias != nullptr) {
      const std::int64_t channel =
          p.geometry.channels == p.x.primal.cols ? at.column : Division(at.column, p.geometry.channels).rest;
      const Vector<T, kWidth> bias = load_vector<kWidth>(p.bias + channel, at.count);
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) v[k] += bias[k];
    }
    unsigned bits = 0;
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) {
      const bool positive = !(v[k] <= T{0});
      v[k] = positive ? v[k] : (p.relu ? T{0} : p.slope * v[k]);
      if (positive) bits |= 1u << k;  // never behind the last channel, where v is 0
    }
    store_vector(p.y.primal.row(at.row) + at.column, v, at.count);
    return bits;
  }

  BRACKET_DEVICE void operator()(const Block& block) const {
    const int lane = lane_of_thread();
    const std::int64_t items = p.geometry.template items<kWidth>();
    // All lanes of a warp take every turn, as they put bytes together.
    for (std::int64_t first = block.first_item() - lane; first < items; first += block.item_stride()) {
      const std::int64_t item = first + lane;
      const bool inside = item < items;
      const MaskedElements at = p.geometry.template at<kWidth>(inside ? item : 0);
      const bool active = inside && at.count > 0;
      unsigned bits = 0;
      if (p.y.has_primal) {
        if (active) bits = primal(at);
        const unsigned byte = byte_of_lanes<kWidth>(bits, lane);
        if (inside && lane % (8 / kWidth) == 0) p.geometry.mask.row(at.row)[at.byte] = static_cast<std::uint8_t>(byte);
      } else if (active) {
        bits = p.geometry.template bits<kWidth>(at, item);
      }
      if (!active || !p.y.has_tangent) continue;
      const TangentRange tangents = tangents_of(p.rows, at.row);
      for (std::int64_t i = tangents.first; i < tangents.last; ++i) {
        Vector<T, kWidth> tangent = load_vector<kWidth>(p.x.tangent.row(i) + at.column, at.count);
        BRACKET_UNROLL
        for (int k = 0; k < kWidth; ++k) tangent[k] = ((bits >> k & 1) != 0 ? T{1} : p.slope) * tangent[k];
        store_vector(p.y.tangent.row(i) + at.column, tangent, at.count);
      }
    }
  }
};

template <class T, int kWidth>
struct MaskedActivationReverseBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = kResidentBlocks;

  MaskedReverse<T> p;

  /// grad_x = f' grad_y of one row.
  BRACKET_DEVICE void map(T* grad_x, const T* grad_y, unsigned bits, int count) const {
    Vector<T, kWidth> grad = load_vector<kWidth>(grad_y, count);
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) grad[k] = ((bits >> k & 1) != 0 ? T{1} : p.slope) * grad[k];
    store_vector(grad_x, grad, count);
  }

  BRACKET_DEVICE void operator()(const Block& block) const {
    for (std::int64_t item = block.first_item(); item < p.geometry.template items<kWidth>();
         item += block.item_stride()) {
      const MaskedElements at = p.geometry.template at<kWidth>(item);
      if (at.count == 0) continue;
      const unsigned bits = p.geometry.template bits<kWidth>(at, item);
      if (p.grad_x.has_primal) {
        T* const grad_x = p.grad_x.primal.row(at.row) + at.column;
        if (p.grad_y.has_primal) {
          map(grad_x, p.grad_y.primal.row(at.row) + at.column, bits, at.count);
        } else {
          store_vector(grad_x, Vector<T, kWidth>{}, at.count);
        }
      }
      if (!p.grad_x.has_tangent) continue;
      const TangentRange tangents = tangents_of(p.rows, at.row);
      for (std::int64_t i = tangents.first; i < tangents.last; ++i) {
        map(p.grad_x.tangent.row(i) + at.column, p.grad_y.tangent.row(i) + at.column, bits, at.count);
      }
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::masked_activation_kernels
