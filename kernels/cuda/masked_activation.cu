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
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/common/stacked_rows.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

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
__global__ void __launch_bounds__(kThreads)
    masked_activation_forward_kernel(const __grid_constant__ MaskedForward<T> p) {
  const int lane = lane_of_thread();
  const std::int64_t items = p.geometry.items();
  // All lanes of a warp take every turn, as they vote together.
  for (std::int64_t first = first_item() - lane; first < items; first += item_stride()) {
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

template <class T>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    masked_activation_reverse_kernel(const __grid_constant__ MaskedReverse<T> p) {
  for (std::int64_t item = first_item(); item < p.geometry.items(); item += item_stride()) {
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

// ---- launchers -------------------------------------------------------------------------------------------------

MaskGeometry mask_geometry(const Tensor& mask, std::int64_t channels) {
  return {device_matrix<std::uint8_t>(mask), channels, (channels + 7) / 8};
}

template <class T>
T negative_slope(const ActivationKind& kind) {
  return kind.function == Activation::relu ? T{0} : static_cast<T>(kind.negative_slope);
}

template <class T>
cudaError_t masked_activation_forward(const MaskedForward<T>& p, cudaStream_t stream) {
  const std::int64_t items = p.geometry.items();
  if (items == 0) return cudaSuccess;
  return launch<masked_activation_forward_kernel<T>>(blocks_for(items, kThreads), kThreads, 0, stream, p);
}

template <class T>
cudaError_t masked_activation_reverse(const MaskedReverse<T>& p, const Tensor& grad_bias, Update update,
                                      const Scratch& scratch, cudaStream_t stream) {
  const std::int64_t items = p.geometry.items();
  if (items > 0 && (p.grad_x.has_primal || p.grad_x.has_tangent)) {
    const cudaError_t code =
        launch<masked_activation_reverse_kernel<T>>(blocks_for(items, kThreads), kThreads, 0, stream, p);
    if (code != cudaSuccess) return code;
  }
  if (grad_bias.absent()) return cudaSuccess;
  const std::int64_t channels = p.geometry.channels;
  return column_sums<T>(p.grad_x.primal.size() / channels, channels, PixelTerm<T>(p.grad_x.primal, channels),
                        StoreSum<T>{device_vector<T>(grad_bias), update}, scratch, stream);
}

}  // namespace

void CudaOps::do_masked_activation_forward(Stacked y, Tensor mask, Stacked x, Tensor bias, std::int64_t channels,
                                           ActivationKind kind, const Rows& rows) {
  const Tensor& operand = y.primal.absent() ? y.tangent : y.primal;
  const cudaError_t code = dispatch(operand.dtype(), [&]<class T>() {
    return BRACKET_TARGET::masked_activation_forward<T>(
        {stacked<T>(y), stacked<T>(x), mask_geometry(mask, channels), device_vector<T>(bias),
         kind.function == Activation::relu, negative_slope<T>(kind), rows},
        stream_);
  });
  check(code, "masked_activation_forward", operand);
}

void CudaOps::do_masked_activation_reverse(Stacked grad_x, Tensor grad_bias, Stacked grad_y, Tensor mask,
                                           std::int64_t channels, ActivationKind kind, const Rows& rows,
                                           Update update) {
  const Tensor& operand = grad_x.primal.absent() ? grad_x.tangent : grad_x.primal;
  const Scratch memory = grad_bias.absent() ? Scratch{} : scratch();
  const cudaError_t code = dispatch(operand.dtype(), [&]<class T>() {
    return BRACKET_TARGET::masked_activation_reverse<T>(
        {stacked<T>(grad_x), stacked<T>(grad_y), mask_geometry(mask, channels), negative_slope<T>(kind), rows},
        grad_bias, update, memory, stream_);
  });
  check(code, "masked_activation_reverse", operand);
}

}  // namespace bracket::BRACKET_TARGET
