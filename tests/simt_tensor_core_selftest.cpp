// The executor's tensor-core instructions and asynchronous copies do what the PTX ISA says, and show their misuse.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "simt/scoped_options.h"
#include "simt/simt.h"

namespace {

using simt::Order;
using simt::ScopedOptions;

/// Runs `check` under orders in which the first warp, the last one or any runs ahead.
template <class Check>
void under_all_orders(const Check& check) {
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    for (const std::uint64_t seed : {0u, 1u, 2u}) {
      SCOPED_TRACE("order " + std::to_string(static_cast<int>(order)) + ", seed " + std::to_string(seed));
      const ScopedOptions options(order, seed);
      check();
    }
  }
}

template <class Launch>
void expect_error(const Launch& launch, const std::vector<std::string>& parts) {
  under_all_orders([&] {
    try {
      launch();
      FAIL() << "no error";
    } catch (const simt::Error& error) {
      const std::string text = error.what();
      for (const std::string& part : parts) {
        EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
      }
    }
  });
}

unsigned bits_of(float value) { return std::bit_cast<unsigned>(value); }
unsigned two_bf16(float low, float high) { return bits_of(low) >> 16 | (bits_of(high) & 0xffff0000u); }

// "Matrix Fragments for mma.m16n8k8", .tf32: registers a0 to a3, b0 and b1, c0 to c3.
__global__ void product_tf32_kernel(float* d, const float* a, const float* b, const float* c) {
  const int group = static_cast<int>(threadIdx.x) >> 2;
  const int in_group = static_cast<int>(threadIdx.x) % 4;
  unsigned a_words[4];
  for (int i = 0; i < 4; ++i) {
    const int row = i == 0 || i == 2 ? group : group + 8;
    const int column = i == 0 || i == 1 ? in_group : in_group + 4;
    a_words[i] = bits_of(a[row * 8 + column]);
  }
  unsigned b_words[2];
  for (int i = 0; i < 2; ++i) b_words[i] = bits_of(b[(i == 0 ? in_group : in_group + 4) * 8 + group]);
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
  simt::mma_m16n8k8_tf32(sums, a_words, b_words);
  for (int i = 0; i < 4; ++i) d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = sums[i];
}

// "Matrix Fragments for mma.m16n8k16 with floating point type", .bf16: elements a0 to a7, two per register, b0 to b3.
__global__ void product_bf16_kernel(float* d, const float* a, const float* b, const float* c) {
  const int group = static_cast<int>(threadIdx.x) >> 2;
  const int in_group = static_cast<int>(threadIdx.x) % 4;
  float a_elements[8];
  for (int i = 0; i < 8; ++i) {
    const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
    const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    a_elements[i] = a[row * 16 + column];
  }
  float b_elements[4];
  for (int i = 0; i < 4; ++i) {
    const int row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    b_elements[i] = b[row * 8 + group];
  }
  unsigned a_words[4];
  for (int i = 0; i < 4; ++i) a_words[i] = two_bf16(a_elements[2 * i], a_elements[2 * i + 1]);
  unsigned b_words[2];
  for (int i = 0; i < 2; ++i) b_words[i] = two_bf16(b_elements[2 * i], b_elements[2 * i + 1]);
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
  simt::mma_m16n8k16_bf16(sums, a_words, b_words);
  for (int i = 0; i < 4; ++i) d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = sums[i];
}

/// 0, 1, 2, ... in an order in which neither rows nor columns are multiples of each other.
std::vector<float> distinct(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i * 37 % count);
  return values;
}

template <auto Kernel>
void expect_product(std::size_t depth) {
  const std::vector<float> a = distinct(16 * depth), b = distinct(depth * 8), c = distinct(16 * 8);
  under_all_orders([&] {
    std::vector<float> d(16 * 8, std::numeric_limits<float>::quiet_NaN());
    simt::launch<Kernel>(dim3(1), dim3(32), 0, d.data(), a.data(), b.data(), c.data());
    for (std::size_t i = 0; i < 16; ++i) {
      for (std::size_t j = 0; j < 8; ++j) {
        float expected = c[i * 8 + j];  // whole numbers below 2^24: every order of the sum is exact
        for (std::size_t k = 0; k < depth; ++k) expected += a[i * depth + k] * b[k * 8 + j];
        EXPECT_EQ(d[i * 8 + j], expected) << i << ", " << j;
      }
    }
  });
}

TEST(SimtTensorCore, FragmentsOfTf32) { expect_product<product_tf32_kernel>(8); }
TEST(SimtTensorCore, FragmentsOfBf16) { expect_product<product_bf16_kernel>(16); }

/// Element (0, 0) of c + a b with a and b in the first row and column.
float first_element(float c, std::array<float, 8> a_row, std::array<float, 8> b_column) {
  std::vector<float> a(16 * 8), b(8 * 8), c_all(16 * 8, c), d(16 * 8);
  for (std::size_t k = 0; k < 8; ++k) {
    a[k] = a_row[k];
    b[k * 8] = b_column[k];
  }
  simt::launch<product_tf32_kernel>(dim3(1), dim3(32), 0, d.data(), a.data(), b.data(), c_all.data());
  return d[0];
}

TEST(SimtTensorCore, ArithmeticIsWhatTheHeaderSays) {
  const float infinity = std::numeric_limits<float>::infinity();
  // The low 13 bits of an operand do not count.
  EXPECT_EQ(first_element(0, {1 + 0x1fffp-23f}, {1 - 0x1fffp-24f}), 1 - 0x1p-11f);
  EXPECT_EQ(first_element(0, {1 + 0x1p-10f}, {3}), 3 + 0x3p-10f);
  // What lies below the 24th bit of the largest addend is cut off, whatever it adds up to, towards 0.
  const std::array<float, 8> halves = {0x1p-12f, 0x1p-12f, 0x1p-12f, 0x1p-12f, 0x1p-12f, 0x1p-12f, 0x1p-12f, 0x1p-12f};
  EXPECT_EQ(first_element(1, halves, halves), 1);
  EXPECT_EQ(first_element(-1, halves, halves), -1);
  EXPECT_EQ(first_element(0, halves, halves), 0x1p-21f);
  EXPECT_EQ(first_element(0x1p-3f, halves, halves), 0x1p-3f + 0x1p-21f);
  // The sum, too: 2 + 1.5 2^-22 has 25 bits.
  EXPECT_EQ(first_element(1 + 0x1p-23f, {1, 0x1p-11f}, {1, 0x1p-11f}), 2 + 0x1p-22f);
  EXPECT_EQ(first_element(1, {infinity}, {2}), infinity);
  EXPECT_TRUE(std::isnan(first_element(infinity, {-infinity}, {2})));
  EXPECT_TRUE(std::isnan(first_element(1, {infinity}, {0})));
}

TEST(SimtTensorCore, ConversionsRoundToNearest) {
  const auto tf32 = [](float value) { return std::bit_cast<float>(simt::to_tf32(value)); };
  EXPECT_EQ(tf32(1 + 0x1p-11f), 1 + 0x1p-10f);  // a tie: away from 0
  EXPECT_EQ(tf32(-1 - 0x1p-11f), -1 - 0x1p-10f);
  EXPECT_EQ(tf32(1 + 0x1p-11f - 0x1p-23f), 1.0f);
  EXPECT_EQ(tf32(2 - 0x1p-23f), 2.0f);
  EXPECT_EQ(tf32(-std::numeric_limits<float>::infinity()), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(tf32(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(tf32(std::bit_cast<float>(0xffffffffu))));
  EXPECT_EQ(simt::to_bf16x2(1, 2), 0x40003f80u);
  EXPECT_EQ(simt::to_bf16x2(1 + 0x1p-8f, 1 + 0x3p-8f), 0x3f823f80u);  // ties: to even
  EXPECT_EQ(simt::to_bf16x2(1 + 0x1p-8f + 0x1p-23f, 2 - 0x1p-23f), 0x40003f81u);
  EXPECT_EQ(simt::to_bf16x2(std::bit_cast<float>(0x7f800001u), std::numeric_limits<float>::infinity()), 0x7f807fffu);
}

__global__ void product_of_some_lanes_kernel(int first, int end) {
  float sums[4] = {};
  const unsigned a[4] = {};
  const unsigned b[2] = {};
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= first && thread < end) simt::mma_m16n8k8_tf32(sums, a, b);
}

__global__ void product_at_two_places_kernel() {
  float sums[4] = {};
  const unsigned a[4] = {};
  const unsigned b[2] = {};
  if (threadIdx.x % 2 == 0) {
    simt::mma_m16n8k16_bf16(sums, a, b);
  } else {
    simt::mma_m16n8k16_bf16(sums, a, b);
  }
}

TEST(SimtTensorCore, AWarpMultipliesTogether) {
  expect_error([] { simt::launch<product_of_some_lanes_kernel>(dim3(1), dim3(32), 0, 0, 31); },
               {"deadlock", "mma.m16n8k8.tf32"});
  expect_error([] { simt::launch<product_of_some_lanes_kernel>(dim3(1), dim3(48), 0, 32, 48); },
               {"mma.sync needs all 32 lanes", "0x0000ffff", "simt_tensor_core_selftest.cpp"});
  expect_error([] { simt::launch<product_at_two_places_kernel>(dim3(1), dim3(32), 0); }, {"divergent warp"});
}

// Each thread copies one element and another thread reads it, through a ring of three slices.
template <int kPendingGroups, bool kBarrier>
__global__ void ring_kernel(float* out, const float* in, int slices) {
  SIMT_SHARED(float, ring, [3][64]);
  const int thread = static_cast<int>(threadIdx.x);
  for (int s = -2; s < slices; ++s) {
    if (s >= 0) {
      simt::cp_async_wait<kPendingGroups>();
      if (kBarrier) __syncthreads();
    }
    if (s + 2 < slices) simt::cp_async<4>(&ring[(s + 2) % 3][thread], in + (s + 2) * 64 + thread, 4);
    simt::cp_async_commit();
    if (s >= 0) out[s * 64 + thread] = ring[s % 3][63 - thread];
    if (!kBarrier) __syncwarp();
  }
  simt::cp_async_wait<0>();
}

template <int kPendingGroups, bool kBarrier>
int wrong_elements() {
  constexpr std::size_t kSlices = 7;
  std::vector<float> in(kSlices * 64), out(kSlices * 64);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  simt::launch<ring_kernel<kPendingGroups, kBarrier>>(dim3(1), dim3(64), 0, out.data(), in.data(), int{kSlices});
  int wrong = 0;
  for (std::size_t i = 0; i < out.size(); ++i) wrong += out[i] == in[i / 64 * 64 + 63 - i % 64] ? 0 : 1;
  return wrong;
}

TEST(SimtAsyncCopy, ARingIsReadAfterItsWaitAndBarrier) {
  under_all_orders([] {
    EXPECT_EQ((wrong_elements<1, true>()), 0);
    EXPECT_EQ((wrong_elements<0, true>()), 0);
    // A wait that is one group too lenient, none at all, no barrier: NaN or what was there before.
    EXPECT_GT((wrong_elements<2, true>()), 0);
    EXPECT_GT((wrong_elements<9, true>()), 0);
    EXPECT_GT((wrong_elements<1, false>()), 0);
  });
}

__global__ void widths_kernel(float* out, const float* in) {
  SIMT_SHARED(float, tile, [28]);
  for (int i = 0; i < 28; ++i) tile[i] = -1;
  for (int words = 0; words <= 4; ++words) simt::cp_async<16>(tile + 4 * words, in, 4 * words);
  simt::cp_async<8>(tile + 20, in + 2, 8);
  simt::cp_async<8>(tile + 22, in + 2, 4);
  simt::cp_async<4>(tile + 24, in + 3, 4);
  simt::cp_async<4>(tile + 25, nullptr, 0);
  out[28] = tile[16];  // not there yet
  simt::cp_async_commit();
  simt::cp_async<4>(tile + 26, in, 4);  // of no group
  simt::cp_async_wait<0>();
  for (int i = 0; i < 28; ++i) out[i] = tile[i];
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
}

TEST(SimtAsyncCopy, WidthsFillWithZerosAndArriveWhenWaitedFor) {
  alignas(16) const std::array<float, 4> in = {1, 2, 3, 4};
  std::vector<float> out(29);
  simt::launch<widths_kernel>(dim3(1), dim3(1), 0, out.data(), in.data());
  const std::vector<float> expected = {0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 2, 3, 4, 3, 4, 3, 0, 4, 0};
  EXPECT_EQ(std::vector<float>(out.begin(), out.begin() + 26), expected);
  EXPECT_TRUE(std::isnan(out[26]));  // a copy of no group is not waited for
  EXPECT_EQ(out[27], -1);
  EXPECT_TRUE(std::isnan(out[28]));
}

enum class Misuse {
  misaligned_source,
  misaligned_destination,
  global_destination,
  past_the_end,
  partial_word,
  no_wait
};

__global__ void misused_copy_kernel(Misuse misuse, float* global) {
  SIMT_SHARED(float, tile, [8]);
  float* const destination = misuse == Misuse::misaligned_destination ? tile + 1
                             : misuse == Misuse::global_destination   ? global + 4
                             : misuse == Misuse::past_the_end         ? tile + 8
                                                                      : tile;
  simt::cp_async<16>(destination, misuse == Misuse::misaligned_source ? global + 1 : global,
                     misuse == Misuse::partial_word ? 6 : 16);
  simt::cp_async_commit();
  if (misuse != Misuse::no_wait) simt::cp_async_wait<0>();
}

TEST(SimtAsyncCopy, MisuseIsAnError) {
  alignas(16) std::array<float, 8> global = {};
  const struct {
    Misuse misuse;
    const char* text;
  } cases[] = {{Misuse::misaligned_source, "is not a multiple of its 16 bytes"},
               {Misuse::misaligned_destination, "is not a multiple of its 16 bytes"},
               {Misuse::global_destination, "not in the block's shared memory"},
               {Misuse::past_the_end, "not in the block's shared memory"},
               {Misuse::partial_word, "6 of 16 bytes cannot be read"},
               {Misuse::no_wait, "returned without waiting for its asynchronous copies"}};
  for (const auto& one : cases) {
    SCOPED_TRACE(one.text);
    expect_error([&] { simt::launch<misused_copy_kernel>(dim3(1), dim3(1), 0, one.misuse, global.data()); },
                 {one.text, "misused_copy_kernel"});
  }
}

}  // namespace
