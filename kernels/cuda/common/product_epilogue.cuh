// What the products on tensor cores make of a tile of C, or of the sums of chunks, before they store it
// (ProductEpilogue).
//
//   bias      v = C + bias                         primal rows
//   masked    v = C + bias, y = f(v), and [v > 0]  primal rows, relu and leaky_relu
//   tangent   y = f' C, f' from the mask           tangent rows, relu and leaky_relu
//   curve     before = C, y = f(C + bias)          primal rows, other functions
//
// Bytes of memory per element of C behind the product, for which the product itself writes 4:
//              as ops of their own      here        saved
//   bias       8                        0           8
//   masked     8 1/8                    1/8         8
//   tangent    8 1/8                    1/8         8
//   curve      8                        4 (8 *)     4 (0 *)
// * before is read again by the thread that has just written it, from the second-level cache.
// A pass of primal rows alone has a launch less. Primal and tangent rows of a layer with a mask, one product and one op
// before, are two products: as many launches, and the weights are read twice.
//
// Mask. A quad of lanes holds 8 neighbouring columns of a row in each of its four fragments of C, so that two shuffles
// make or spread the 32 bits of all four: lane t owns the byte of fragment t. Tiles begin at multiples of 32 columns.
// Curves. Functions with exp are evaluated in a loop that is not unrolled, behind the stores of C, whose registers are
// free by then: unrolled for 64 sums they would not fit the instruction cache.
// Bits         those of the ops that are replaced: the same expressions on C rounded to f32.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/device_epilogue.cuh"
#include "kernels/cuda/common/pointwise.cuh"
#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/common/tensor_product.cuh"

namespace bracket::BRACKET_TARGET {

/// Where a row of a tile lies: a pixel of a row of C, (0, 0) where it lies behind the last.
struct TileRow {
  std::int64_t row;
  std::int64_t pixel;
  bool exists;
};

/// The tile row of this lane that fragments (i, 0 ..), elements 2 half and 2 half + 1, belong to.
template <class Tile>
BRACKET_DEVICE int tile_row(int i, int half) {
  return Tile::warp_row() + 16 * i + 8 * half + static_cast<int>(threadIdx.x) % kWarpThreads / 4;
}

/// Stores a tile of C whose columns are channels from `first_channel` on; place(row of the tile) is a TileRow. All
/// threads of the block call.
template <class Tile, class Place>
BRACKET_DEVICE void store_tile(const DeviceMatrix<float>& y, const DeviceEpilogue& e, const TileSums<Tile>& sums,
                               std::int64_t first_channel, const Place& place) {
  using Kind = DeviceEpilogue::Kind;
  constexpr int kFragments = Tile::kMmaColumns;
  static_assert(kFragments == 4, "the bits of a quad's fragments are one word, a byte per lane");
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads % 4;
  const std::int64_t warp_channel = first_channel + Tile::warp_column();
  const std::int64_t channel = warp_channel + 2 * lane;  // of element 0 of fragment 0
  const bool masked = e.kind == Kind::masked, tangent = e.kind == Kind::tangent;
  const DeviceMatrix<float>& target = e.kind == Kind::curve ? e.before : y;
  float bias[kFragments][2];
  BRACKET_UNROLL
  for (int j = 0; j < kFragments; ++j) {
    BRACKET_UNROLL
    for (int k = 0; k < 2; ++k) bias[j][k] = e.kind == Kind::curve ? -0.0f : e.bias_of(channel + 8 * j + k);
  }
  BRACKET_UNROLL
  for (int i = 0; i < Tile::kMmaRows; ++i) {
    BRACKET_UNROLL
    for (int half = 0; half < 2; ++half) {
      const TileRow at = place(tile_row<Tile>(i, half));
      float* const out = target.row(at.row) + at.pixel * e.channels + channel;
      std::uint8_t* const byte = masked || tangent ? e.mask_of(at.row, at.pixel) + warp_channel / 8 + lane : nullptr;
      const bool has_byte = at.exists && warp_channel + 8 * lane < e.channels;
      unsigned word = tangent && has_byte ? static_cast<unsigned>(*byte) << (8 * lane) : 0;
      const auto gather = [&] {
        BRACKET_UNROLL
        for (int offset = 1; offset < 4; offset *= 2) word |= __shfl_xor_sync(kFullWarp, word, offset);
      };
      if (tangent) gather();
      BRACKET_UNROLL
      for (int j = 0; j < kFragments; ++j) {
        BRACKET_UNROLL
        for (int k = 0; k < 2; ++k) {
          const bool inside = at.exists && channel + 8 * j + k < e.channels;
          const int bit = 8 * j + 2 * lane + k;
          const float c = sums[i][j][2 * half + k];
          const float v = c + bias[j][k];
          if (masked && inside && DeviceEpilogue::positive(v)) word |= 1u << bit;
          const float value = tangent ? e.tangent(c, (word >> bit & 1) != 0) : e.kind == Kind::curve ? c : e.value(v);
          if (inside) out[8 * j + k] = value;
        }
      }
      if (!masked) continue;
      gather();
      if (has_byte) *byte = static_cast<std::uint8_t>(word >> (8 * lane));
    }
  }
  if (e.kind != Kind::curve) return;
  BRACKET_NO_UNROLL
  for (int n = 0; n < 2 * Tile::kMmaRows; ++n) {
    const TileRow at = place(tile_row<Tile>(n / 2, n % 2));
    if (!at.exists) continue;
    const std::int64_t offset = at.pixel * e.channels + channel;
    const float* const in = e.before.row(at.row) + offset;
    float* const out = y.row(at.row) + offset;
    BRACKET_NO_UNROLL
    for (int j = 0; j < 2 * kFragments; ++j) {
      const int column = 8 * (j / 2) + j % 2;
      if (channel + column >= e.channels) continue;
      out[column] = evaluate(e.function, in[column] + e.bias_of(channel + column), e.slope).value;
    }
  }
}

/// Stores element (row, channel) of C, a matrix of one pixel per row; the lanes of a warp hold neighbouring channels, 8
/// from a multiple of 8 on, and all call.
BRACKET_DEVICE void store_element(const DeviceMatrix<float>& y, const DeviceEpilogue& e, std::int64_t row,
                                  std::int64_t channel, bool inside, float c) {
  using Kind = DeviceEpilogue::Kind;
  float value = c;
  if (e.kind == Kind::curve) {
    if (inside) {
      e.before.row(row)[channel] = c;
      value = evaluate(e.function, c + e.bias_of(channel), e.slope).value;
    }
  } else if (e.kind == Kind::tangent) {
    if (inside) value = e.tangent(c, (e.mask_of(row, 0)[channel / 8] >> (channel % 8) & 1) != 0);
  } else {
    const float v = c + e.bias_of(channel);
    value = e.value(v);
    if (e.kind == Kind::masked) {
      const unsigned votes = __ballot_sync(kFullWarp, static_cast<int>(inside && DeviceEpilogue::positive(v)));
      const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
      if (inside && channel % 8 == 0) e.mask_of(row, 0)[channel / 8] = static_cast<std::uint8_t>(votes >> lane);
    }
  }
  if (inside) y.row(row)[channel] = value;
}

}  // namespace bracket::BRACKET_TARGET
