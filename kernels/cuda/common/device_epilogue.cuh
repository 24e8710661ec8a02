// A ProductEpilogue as kernels receive it, see product_epilogue.cuh.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/matrix.cuh"
#include "kernels/ops.h"

namespace bracket::BRACKET_TARGET {

/// C is the result.
struct NoEpilogue {};

struct DeviceEpilogue {
  enum class Kind : std::uint8_t { none, bias, masked, tangent, curve };
  Kind kind = Kind::none;
  Activation function = Activation::identity;
  float slope = 0;              ///< f' on the negative side of leaky_relu, 0 of relu
  const float* bias = nullptr;  ///< or null
  DeviceMatrix<std::uint8_t> mask = {};
  DeviceMatrix<float> before = {};
  std::int64_t channels = 0;
  std::int64_t pixel_bytes = 0;  ///< of the mask
  std::int64_t first = 0;        ///< row of the mask for the first row of C
  std::int64_t tangents = 1;     ///< rows of C for each row of the mask

  BRACKET_DEVICE float bias_of(std::int64_t channel) const {
    return bias == nullptr || channel >= channels ? -0.0f : bias[channel];  // x + -0 is x, also for x = -0
  }
  BRACKET_DEVICE std::uint8_t* mask_of(std::int64_t row, std::int64_t pixel) const {
    return mask.row(tangents == 1 ? first + row : first + Division(row, tangents).quotient) + pixel * pixel_bytes;
  }
  static BRACKET_DEVICE bool positive(float v) { return !(v <= 0); }  // so is NaN
  /// f(v) of bias and masked, v = C + bias.
  BRACKET_DEVICE float value(float v) const {
    if (kind == Kind::bias || positive(v)) return v;
    return function == Activation::relu ? 0 : slope * v;
  }
  BRACKET_DEVICE float tangent(float c, bool above) const { return (above ? 1.0f : slope) * c; }
};

/// `channels` of a row of y.
inline DeviceEpilogue device_epilogue(const ProductEpilogue& e, std::int64_t channels) noexcept {
  using Kind = DeviceEpilogue::Kind;
  DeviceEpilogue d;
  if (e.part == ProductEpilogue::Part::none) return d;
  if (e.part == ProductEpilogue::Part::tangent) {
    d.kind = Kind::tangent;
    d.first = e.rows.first;
    d.tangents = e.rows.tangents;
  } else if (e.masked()) {
    d.kind = Kind::masked;
  } else if (e.kind.function != Activation::identity) {
    d.kind = Kind::curve;
  } else if (!e.bias.absent()) {
    d.kind = Kind::bias;
  }
  d.function = e.kind.function;
  d.slope = e.kind.function == Activation::relu ? 0.0f : static_cast<float>(e.kind.negative_slope);
  d.bias = device_vector<float>(e.bias);
  d.mask = device_matrix<std::uint8_t>(e.mask);
  d.before = device_matrix<float>(e.before);
  d.channels = channels;
  d.pixel_bytes = (channels + 7) / 8;
  return d;
}

/// f(the epilogue that a kernel is compiled for).
template <class F>
cudaError_t with_epilogue(const DeviceEpilogue& epilogue, const F& f) {
  return epilogue.kind == DeviceEpilogue::Kind::none ? f(NoEpilogue{}) : f(epilogue);
}

}  // namespace bracket::BRACKET_TARGET
