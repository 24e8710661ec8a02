// The operands of convolutions as slices for the tensor cores (common/tensor_product.cuh): patches of images and the
// weights they meet, copied straight from the images to shared memory. As in convolution_operands.cuh, indices that
// need a division are divided once per tile, and cursors step through them.
//
// A vector is copied whole or not at all: it never leaves the channels of one pixel, because its width divides their
// number (copy_bytes). So 16 bytes at a time from multiples of four channels on, 4 for 1 or 3 channels.
#pragma once

#include "kernels/cuda/common/tensor_product.cuh"
#include "kernels/cuda/convolution_operands.cuh"

namespace bracket::BRACKET_TARGET {

/// Where the patch of a pixel begins. `y` is far above every image for a pixel that does not exist.
struct PatchStart {
  const float* image;
  int y, x;
};

/// The patches of a tile's pixels, from pixel `first` of the grid on. In shared memory: a thread copies a part of up to
/// 16 patches. All threads call; no other thread still reads those of the tile before, and all see the new ones.
template <class Tile>
BRACKET_DEVICE void find_patches(PatchStart* patches, const DeviceMatrix<float>& source, const PatchGrid& grid,
                                 std::int64_t first) {
  constexpr int kNowhere = -(1 << 30);
  const std::int64_t pixels = source.rows * grid.per_image();
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Tile::kSide; i += Tile::kThreads) {
    const bool exists = first + i < pixels;
    const PixelCursor at(grid.grid_height, grid.grid_width, exists ? first + i : 0);
    patches[i] = {source.row(at.image), exists ? at.y * grid.step + grid.origin_y : kNowhere,
                  at.x * grid.step + grid.origin_x};
  }
  __syncthreads();
}

/// A(m = pixel of the grid, p = patch element).
template <class Tile>
struct PatchSlices {
  static constexpr Contiguous kContiguous = Contiguous::contraction;
  using Slice = TensorSlice<Tile, kContiguous>;

  PatchGrid grid;  // of one class of pixels or another
  const PatchStart* patches;
  int bytes;
  TapCursor cursor;

  BRACKET_DEVICE PatchSlices(const DeviceMatrix<float>& source, const PatchGrid& patch_grid, const PatchStart* starts)
      : grid(patch_grid), patches(starts), bytes(copy_bytes(source, patch_grid.channels)), cursor(patch_grid, 0) {
    with_copy_bytes(bytes, [&]<int kBytes>() { cursor = TapCursor(grid, SliceVectors<Slice, kBytes>::column()); });
  }

  BRACKET_DEVICE void copy(float* slice) {
    with_copy_bytes(bytes, [&]<int kBytes>() { copy_vectors<kBytes>(slice); });
    cursor.advance(grid, kSlice);
  }

 private:
  template <int kBytes>
  BRACKET_DEVICE void copy_vectors(float* slice) const {
    using Vectors = SliceVectors<Slice, kBytes>;
    BRACKET_UNROLL
    for (int row = 0; row < Slice::kRows; row += Vectors::kRowStep) {
      const int r = Vectors::first_row() + row;
      const PatchStart start = patches[r];
      const int y = start.y + cursor.tap_y;
      const int x = start.x + cursor.tap_x;
      const bool inside = cursor.tap_y < grid.taps_y && static_cast<unsigned>(y) < static_cast<unsigned>(grid.height) &&
                          static_cast<unsigned>(x) < static_cast<unsigned>(grid.width);
      const int offset = inside ? (y * grid.width + x) * grid.channels + cursor.channel : 0;
      cp_async<kBytes>(slice + r * Slice::kPitch + Vectors::column(), start.image + offset, inside ? kBytes : 0);
    }
  }
};

/// B(n = input channel, p = patch element of a pixel class): the weights that the patches of grad_y meet.
template <class Tile>
struct ClassWeightSlices {
  static constexpr Contiguous kContiguous = Contiguous::outer;
  using Slice = TensorSlice<Tile, kContiguous>;

  const DeviceMatrix<float>* w;
  const Geometry* g;
  PixelClass pixels;
  int first_channel;
  int bytes;
  TapCursor cursor;

  BRACKET_DEVICE ClassWeightSlices(const DeviceMatrix<float>& weights, const Geometry& geometry,
                                   const PixelClass& pixel_class, std::int64_t first)
      : w(&weights),
        g(&geometry),
        pixels(pixel_class),
        first_channel(static_cast<int>(first)),
        bytes(copy_bytes(weights, geometry.in_channels)),
        cursor(pixel_class.patches, 0) {
    with_copy_bytes(
        bytes, [&]<int kBytes>() { cursor = TapCursor(pixels.patches, SliceVectors<Slice, kBytes>::first_row()); });
  }

  BRACKET_DEVICE void copy(float* slice) {
    with_copy_bytes(bytes, [&]<int kBytes>() { copy_vectors<kBytes>(slice); });
  }

 private:
  template <int kBytes>
  BRACKET_DEVICE void copy_vectors(float* slice) {
    using Vectors = SliceVectors<Slice, kBytes>;
    const int channel = first_channel + Vectors::column();
    BRACKET_UNROLL
    for (int row = 0; row < Slice::kRows; row += Vectors::kRowStep) {
      const bool inside = cursor.tap_y < pixels.patches.taps_y && channel < g->in_channels;
      const int tap = pixels.first_weight_tap - (cursor.tap_y * g->kernel + cursor.tap_x) * g->stride;
      const float* const source = w->row(cursor.channel) + (inside ? tap * g->in_channels + channel : 0);
      cp_async<kBytes>(slice + (Vectors::first_row() + row) * Slice::kPitch + Vectors::column(), source,
                       inside ? kBytes : 0);
      cursor.advance(pixels.patches, Vectors::kRowStep);
    }
  }
};

/// Steps through pixels of y, kRowStep at a time, up to the end of a chunk of them.
template <class Slice>
struct ChunkPixels {
  PixelCursor cursor{1, 1, 0};
  std::int64_t left;  // pixels from the cursor to the end of the chunk

  BRACKET_DEVICE ChunkPixels(const Geometry& g, std::int64_t first, std::int64_t pixels, int bytes) : left(pixels) {
    with_copy_bytes(bytes, [&]<int kBytes>() {
      const int row = SliceVectors<Slice, kBytes>::first_row();
      cursor = PixelCursor(g.out_height, g.out_width, first + row);
      left -= row;
    });
  }
  BRACKET_DEVICE void advance(const Geometry& g, int pixels) {
    cursor.advance(g.out_height, g.out_width, pixels);
    left -= pixels;
  }
};

/// A(m = output channel, p = pixel): grad_y for `count` pixels from `first_pixel` on.
template <class Tile>
struct GradientSlices {
  static constexpr Contiguous kContiguous = Contiguous::outer;
  using Slice = TensorSlice<Tile, kContiguous>;

  const DeviceMatrix<float>* grad_y;
  const Geometry* g;
  int first_channel;
  int bytes;
  ChunkPixels<Slice> pixels;

  BRACKET_DEVICE GradientSlices(const DeviceMatrix<float>& gradient, const Geometry& geometry, std::int64_t first,
                                std::int64_t first_pixel, std::int64_t count)
      : grad_y(&gradient),
        g(&geometry),
        first_channel(static_cast<int>(first)),
        bytes(copy_bytes(gradient, geometry.out_channels)),
        pixels(geometry, first_pixel, count, bytes) {}

  BRACKET_DEVICE void copy(float* slice) {
    with_copy_bytes(bytes, [&]<int kBytes>() { copy_vectors<kBytes>(slice); });
  }

 private:
  template <int kBytes>
  BRACKET_DEVICE void copy_vectors(float* slice) {
    using Vectors = SliceVectors<Slice, kBytes>;
    const int channel = first_channel + Vectors::column();
    BRACKET_UNROLL
    for (int row = 0; row < Slice::kRows; row += Vectors::kRowStep) {
      const bool inside = pixels.left > 0 && channel < g->out_channels;
      const PixelCursor& at = pixels.cursor;
      const float* const source =
          inside ? grad_y->row(at.image) + (at.y * g->out_width + at.x) * g->out_channels + channel : grad_y->data;
      cp_async<kBytes>(slice + (Vectors::first_row() + row) * Slice::kPitch + Vectors::column(), source,
                       inside ? kBytes : 0);
      pixels.advance(*g, Vectors::kRowStep);
    }
  }
};

/// B(n = weight column (ky, kx, ci), p = pixel): what each pixel reads of x, for the same pixels.
template <class Tile>
struct ReadSlices {
  static constexpr Contiguous kContiguous = Contiguous::outer;
  using Slice = TensorSlice<Tile, kContiguous>;

  const DeviceMatrix<float>* x;
  const Geometry* g;
  int bytes;
  int channel = 0;
  int shift_y = 0;  // from an output pixel times the stride to the input pixel
  int shift_x = 0;
  bool exists = false;
  ChunkPixels<Slice> pixels;

  BRACKET_DEVICE ReadSlices(const DeviceMatrix<float>& images, const Geometry& geometry, std::int64_t first,
                            std::int64_t first_pixel, std::int64_t count)
      : x(&images),
        g(&geometry),
        bytes(copy_bytes(images, geometry.in_channels)),
        pixels(geometry, first_pixel, count, bytes) {
    with_copy_bytes(bytes, [&]<int kBytes>() {
      const int column = static_cast<int>(first) + SliceVectors<Slice, kBytes>::column();
      const int tap = column / geometry.in_channels;
      channel = column % geometry.in_channels;
      shift_y = tap / geometry.kernel - geometry.padding;
      shift_x = tap % geometry.kernel - geometry.padding;
      exists = tap < geometry.kernel * geometry.kernel;
    });
  }

  BRACKET_DEVICE void copy(float* slice) {
    with_copy_bytes(bytes, [&]<int kBytes>() { copy_vectors<kBytes>(slice); });
  }

 private:
  template <int kBytes>
  BRACKET_DEVICE void copy_vectors(float* slice) {
    using Vectors = SliceVectors<Slice, kBytes>;
    BRACKET_UNROLL
    for (int row = 0; row < Slice::kRows; row += Vectors::kRowStep) {
      const PixelCursor& at = pixels.cursor;
      const int in_y = at.y * g->stride + shift_y;
      const int in_x = at.x * g->stride + shift_x;
      const bool inside = exists && pixels.left > 0 &&
                          static_cast<unsigned>(in_y) < static_cast<unsigned>(g->in_height) &&
                          static_cast<unsigned>(in_x) < static_cast<unsigned>(g->in_width);
      const float* const source =
          inside ? x->row(at.image) + (in_y * g->in_width + in_x) * g->in_channels + channel : x->data;
      cp_async<kBytes>(slice + (Vectors::first_row() + row) * Slice::kPitch + Vectors::column(), source,
                       inside ? kBytes : 0);
      pixels.advance(*g, Vectors::kRowStep);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET
