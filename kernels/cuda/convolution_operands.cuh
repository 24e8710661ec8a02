// The operands of convolutions as tiled products (common/tiled_product.cuh): patches of images gathered on the way to
// shared memory, and the weights in the order of the patches. Indices that need a division are divided once per tile;
// then cursors step through them.
#pragma once

#include "kernels/cuda/common/tiled_product.cuh"
#include "kernels/formula/patches.h"

namespace bracket::BRACKET_TARGET {

/// A Convolution as kernels receive it.
using Geometry = formula::ConvolutionSizes<int>;
using PatchGrid = formula::PatchGrid<int>;
using formula::input_patches;

/// The pixels (y + j stride, x + i stride) of grad_x, and what they read of grad_y.
struct PixelClass {
  int y, x;
  PatchGrid patches;
  int first_weight_tap;  // of w, for tap (0, 0) of the patches

  BRACKET_HOST_DEVICE PixelClass(const Geometry& g, int class_y, int class_x)
      : y(class_y), x(class_x), patches(formula::output_patches(g, class_y, class_x)) {
    const int last_y = (y + g.padding) % g.stride + (patches.taps_y - 1) * g.stride;
    const int last_x = (x + g.padding) % g.stride + (patches.taps_x - 1) * g.stride;
    first_weight_tap = last_y * g.kernel + last_x;
  }
};

/// Steps through the elements of a patch.
struct TapCursor {
  int channel, tap_x, tap_y;

  BRACKET_DEVICE TapCursor(const PatchGrid& grid, int element) : channel(element), tap_x(0), tap_y(0) { carry(grid); }
  BRACKET_DEVICE void advance(const PatchGrid& grid, int elements) {
    channel += elements;
    carry(grid);
  }

 private:
  // Past the last element tap_y grows on; nobody reads there.
  BRACKET_DEVICE void carry(const PatchGrid& grid) {
    while (channel >= grid.channels) {
      channel -= grid.channels;
      if (++tap_x >= grid.taps_x) {
        tap_x = 0;
        ++tap_y;
      }
    }
  }
};

/// Steps through the pixels of images of height x width.
struct PixelCursor {
  std::int64_t image;
  int y, x;

  BRACKET_DEVICE PixelCursor(int height, int width, std::int64_t pixel)
      : image(pixel / (height * width)),
        y(static_cast<int>(pixel % (height * width)) / width),
        x(static_cast<int>(pixel % (height * width)) % width) {}
  BRACKET_DEVICE void advance(int height, int width, int pixels) {
    x += pixels;
    while (x >= width) {
      x -= width;
      if (++y == height) {
        y = 0;
        ++image;
      }
    }
  }
};

/// A(m = pixel of the grid, p = patch element): patches from pixel `first` on.
template <class T>
struct PatchOperand {
  static constexpr Contiguous kContiguous = Contiguous::contraction;
  static constexpr int kPixels = 2;                                  // of a thread, see SlicePosition
  static constexpr int kStep = 8;                                    // elements from one pair of loads to the next
  static constexpr int kNowhere = -(1 << 30);                        // a row above every image, for any tap
  static_assert(kPixels * kStep * kTileThreads / 8 / kTile == kStep  // both pixels' loads cover one slice
                && kPixels * kSliceDepth / kStep == kSliceLoads);

  PatchGrid grid;
  const T* images[kPixels];
  int start_y[kPixels];
  int start_x[kPixels];
  TapCursor cursor;

  BRACKET_DEVICE PatchOperand(const DeviceMatrix<T>& source, const PatchGrid& patch_grid, std::int64_t first)
      : grid(patch_grid), cursor(patch_grid, SlicePosition<kContiguous>::p(0)) {
    const std::int64_t pixels = source.rows * grid.per_image();
    BRACKET_UNROLL
    for (int i = 0; i < kPixels; ++i) {
      const std::int64_t pixel = first + SlicePosition<kContiguous>::outer(i);
      const bool exists = pixel < pixels;
      const PixelCursor at(grid.grid_height, grid.grid_width, exists ? pixel : 0);
      images[i] = source.row(at.image);
      start_y[i] = exists ? at.y * grid.step + grid.origin_y : kNowhere;
      start_x[i] = at.x * grid.step + grid.origin_x;
    }
  }

  BRACKET_DEVICE void fetch(T (&fragment)[kSliceLoads], std::int64_t /*first_p*/) {
    BRACKET_UNROLL
    for (int load = 0; load < kSliceLoads; ++load) {
      const int i = load % kPixels;
      const int y = start_y[i] + cursor.tap_y;
      const int x = start_x[i] + cursor.tap_x;
      const bool inside = cursor.tap_y < grid.taps_y && static_cast<unsigned>(y) < static_cast<unsigned>(grid.height) &&
                          static_cast<unsigned>(x) < static_cast<unsigned>(grid.width);
      fragment[load] = inside ? images[i][(y * grid.width + x) * grid.channels + cursor.channel] : T{0};
      if (i == kPixels - 1) cursor.advance(grid, kStep);
    }
  }
};

/// B(n = input channel, p = patch element of a pixel class): the weights that the patches of grad_y meet.
template <class T>
struct ClassWeightOperand {
  static constexpr Contiguous kContiguous = Contiguous::outer;
  static constexpr int kStep = kTileThreads / kTile;

  const DeviceMatrix<T>& w;
  const Geometry& g;
  const PixelClass& pixels;
  int channel;
  TapCursor cursor;

  BRACKET_DEVICE ClassWeightOperand(const DeviceMatrix<T>& weights, const Geometry& geometry,
                                    const PixelClass& pixel_class, std::int64_t first)
      : w(weights),
        g(geometry),
        pixels(pixel_class),
        channel(static_cast<int>(first) + SlicePosition<kContiguous>::outer(0)),
        cursor(pixel_class.patches, SlicePosition<kContiguous>::p(0)) {}

  BRACKET_DEVICE void fetch(T (&fragment)[kSliceLoads], std::int64_t /*first_p*/) {
    BRACKET_UNROLL
    for (int load = 0; load < kSliceLoads; ++load) {
      const bool inside = cursor.tap_y < pixels.patches.taps_y && channel < g.in_channels;
      const int tap = pixels.first_weight_tap - (cursor.tap_y * g.kernel + cursor.tap_x) * g.stride;
      fragment[load] = inside ? w.row(cursor.channel)[tap * g.in_channels + channel] : T{0};
      cursor.advance(pixels.patches, kStep);
    }
  }
};

/// A(m = output channel, p = pixel): grad_y for the pixels [first_pixel, first_pixel + depth).
template <class T>
struct GradientOperand {
  static constexpr Contiguous kContiguous = Contiguous::outer;
  static constexpr int kStep = kTileThreads / kTile;

  const DeviceMatrix<T>& grad_y;
  const Geometry& g;
  int channel;
  std::int64_t depth;
  PixelCursor cursor;

  BRACKET_DEVICE GradientOperand(const DeviceMatrix<T>& gradient, const Geometry& geometry, std::int64_t first_channel,
                                 std::int64_t first_pixel, std::int64_t pixels)
      : grad_y(gradient),
        g(geometry),
        channel(static_cast<int>(first_channel) + SlicePosition<kContiguous>::outer(0)),
        depth(pixels),
        cursor(geometry.out_height, geometry.out_width, first_pixel + SlicePosition<kContiguous>::p(0)) {}

  BRACKET_DEVICE void fetch(T (&fragment)[kSliceLoads], std::int64_t first_p) {
    BRACKET_UNROLL
    for (int load = 0; load < kSliceLoads; ++load) {
      const bool inside = first_p + SlicePosition<kContiguous>::p(load) < depth && channel < g.out_channels;
      const int offset = (cursor.y * g.out_width + cursor.x) * g.out_channels + channel;
      fragment[load] = inside ? grad_y.row(cursor.image)[offset] : T{0};
      cursor.advance(g.out_height, g.out_width, kStep);
    }
  }
};

/// B(n = weight column (ky, kx, ci), p = pixel): what each pixel reads of x, for the same pixels.
template <class T>
struct ReadOperand {
  static constexpr Contiguous kContiguous = Contiguous::outer;
  static constexpr int kStep = kTileThreads / kTile;

  const DeviceMatrix<T>& x;
  const Geometry& g;
  int channel;
  int shift_y, shift_x;  // from an output pixel times the stride to the input pixel
  bool exists;
  std::int64_t depth;
  PixelCursor cursor;

  BRACKET_DEVICE ReadOperand(const DeviceMatrix<T>& images, const Geometry& geometry, std::int64_t first_column,
                             std::int64_t first_pixel, std::int64_t pixels)
      : x(images),
        g(geometry),
        depth(pixels),
        cursor(geometry.out_height, geometry.out_width, first_pixel + SlicePosition<kContiguous>::p(0)) {
    const int column = static_cast<int>(first_column) + SlicePosition<kContiguous>::outer(0);
    const int tap = column / g.in_channels;
    channel = column % g.in_channels;
    shift_y = tap / g.kernel - g.padding;
    shift_x = tap % g.kernel - g.padding;
    exists = tap < g.kernel * g.kernel;
  }

  BRACKET_DEVICE void fetch(T (&fragment)[kSliceLoads], std::int64_t first_p) {
    BRACKET_UNROLL
    for (int load = 0; load < kSliceLoads; ++load) {
      const int in_y = cursor.y * g.stride + shift_y;
      const int in_x = cursor.x * g.stride + shift_x;
      const bool inside = exists && first_p + SlicePosition<kContiguous>::p(load) < depth &&
                          static_cast<unsigned>(in_y) < static_cast<unsigned>(g.in_height) &&
                          static_cast<unsigned>(in_x) < static_cast<unsigned>(g.in_width);
      fragment[load] = inside ? x.row(cursor.image)[(in_y * g.in_width + in_x) * g.in_channels + channel] : T{0};
      cursor.advance(g.out_height, g.out_width, kStep);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET
