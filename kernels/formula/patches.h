// Which pixels of an image the products of a convolution read. The CPU counts in 64 bits; a GPU, for which the op list
// keeps the elements of an image and of the weights below 2^31, in 32.
#pragma once

#include <cstdint>

#include "kernels/formula/host_device.h"
#include "kernels/ops.h"

namespace bracket::formula {

template <class Index>
struct ConvolutionSizes {
  Index in_height, in_width, in_channels;
  Index out_height, out_width, out_channels;
  Index kernel, stride, padding;

  explicit ConvolutionSizes(const Convolution& map)
      : in_height(static_cast<Index>(map.in_height)),
        in_width(static_cast<Index>(map.in_width)),
        in_channels(static_cast<Index>(map.in_channels)),
        out_height(static_cast<Index>(map.out_height())),
        out_width(static_cast<Index>(map.out_width())),
        out_channels(static_cast<Index>(map.out_channels)),
        kernel(static_cast<Index>(map.kernel)),
        stride(static_cast<Index>(map.stride)),
        padding(static_cast<Index>(map.padding)) {}

  BRACKET_HOST_DEVICE Index out_pixels() const { return out_height * out_width; }
};

/// One patch of taps_y x taps_x pixels for every (y, x) of a grid; it starts at pixel (y step + origin_y, x step +
/// origin_x) of the image. Pixels outside the image are 0. Patch elements are ordered (tap_y, tap_x, channel).
template <class Index>
struct PatchGrid {
  Index height, width, channels;  ///< of the image
  Index grid_height, grid_width;
  Index step;
  Index origin_y, origin_x;
  Index taps_y, taps_x;

  BRACKET_HOST_DEVICE Index per_image() const { return grid_height * grid_width; }
  BRACKET_HOST_DEVICE Index taps() const { return taps_y * taps_x; }
  BRACKET_HOST_DEVICE std::int64_t depth() const { return static_cast<std::int64_t>(taps()) * channels; }
};

/// What every pixel of y reads of x.
template <class Index>
BRACKET_HOST_DEVICE PatchGrid<Index> input_patches(const ConvolutionSizes<Index>& m) {
  return {m.in_height, m.in_width, m.in_channels, m.out_height, m.out_width,
          m.stride,    -m.padding, -m.padding,    m.kernel,     m.kernel};
}

/// The kernel rows (columns) ky with ky % stride == residue, which meet every stride-th row of the input only.
template <class Index>
BRACKET_HOST_DEVICE Index residue_taps(const ConvolutionSizes<Index>& m, Index residue) {
  return residue < m.kernel ? (m.kernel - residue + m.stride - 1) / m.stride : 0;
}

/// What the pixels (class_y + j stride, class_x + i stride) of x read of grad_y in the reverse pass: they meet the
/// kernel rows of one residue, the last first.
template <class Index>
BRACKET_HOST_DEVICE PatchGrid<Index> output_patches(const ConvolutionSizes<Index>& m, Index class_y, Index class_x) {
  const Index taps_y = residue_taps(m, (class_y + m.padding) % m.stride);
  const Index taps_x = residue_taps(m, (class_x + m.padding) % m.stride);
  return {m.out_height,
          m.out_width,
          m.out_channels,
          (m.in_height - class_y + m.stride - 1) / m.stride,
          (m.in_width - class_x + m.stride - 1) / m.stride,
          1,
          (class_y + m.padding) / m.stride - (taps_y - 1),
          (class_x + m.padding) / m.stride - (taps_x - 1),
          taps_y,
          taps_x};
}

}  // namespace bracket::formula
