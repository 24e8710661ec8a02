// The SIMT executor runs correct kernels correctly, under every schedule.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "simt/scoped_options.h"
#include "simt/simt.h"

namespace {

using simt::Order;
using simt::ScopedOptions;

struct Schedule {
  Order order;
  std::uint64_t seed;
  int workers;
};

// Seeds 0 to 5 meet both random strategies (seed % 2) and all three fills of shared memory (seed % 3).
const Schedule kSchedules[] = {{Order::forward, 0, 1}, {Order::forward, 1, 2}, {Order::reverse, 0, 1},
                               {Order::reverse, 2, 2}, {Order::random, 0, 1},  {Order::random, 1, 2},
                               {Order::random, 2, 1},  {Order::random, 3, 2},  {Order::random, 4, 1},
                               {Order::random, 5, 2}};

class SimtSchedule : public ::testing::TestWithParam<Schedule> {
 protected:
  ScopedOptions options_{GetParam().order, GetParam().seed, GetParam().workers};
};

std::string schedule_name(const ::testing::TestParamInfo<Schedule>& test) {
  const Schedule& schedule = test.param;
  const std::string order = schedule.order == Order::forward   ? "forward"
                            : schedule.order == Order::reverse ? "reverse"
                                                               : "random";
  return order + "_seed" + std::to_string(schedule.seed) + "_workers" + std::to_string(schedule.workers);
}
INSTANTIATE_TEST_SUITE_P(All, SimtSchedule, ::testing::ValuesIn(kSchedules), schedule_name);

__global__ void record_indexes_kernel(int* visits, uint3* threads, uint3* blocks) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  atomicAdd(&visits[i], 1);
  __syncthreads();
  threads[i] = threadIdx;
  blocks[i] = blockIdx;
}

TEST_P(SimtSchedule, RunsEveryThreadOfEveryBlockOnce) {
  const dim3 grid(3, 4, 2);
  const dim3 block(5, 3, 7);
  constexpr std::size_t kThreads = 24 * 105;
  std::vector<int> visits(kThreads);
  std::vector<uint3> threads(kThreads), blocks(kThreads);
  simt::launch<record_indexes_kernel>(grid, block, 0, visits.data(), threads.data(), blocks.data());
  for (unsigned i = 0; i < kThreads; ++i) {
    ASSERT_EQ(visits[i], 1);
    ASSERT_EQ((threads[i].z * 3 + threads[i].y) * 5 + threads[i].x, i % 105);
    ASSERT_EQ((blocks[i].z * 4 + blocks[i].y) * 3 + blocks[i].x, i / 105);
  }
}

__global__ void reverse_tile_kernel(const double* in, double* out) {
  SIMT_SHARED(double, tile, [2][128]);
  for (int round = 0; round < 6; ++round) {
    tile[round % 2][threadIdx.x] = round == 0 ? in[threadIdx.x] : tile[(round + 1) % 2][blockDim.x - 1 - threadIdx.x];
    __syncthreads();
  }
  out[threadIdx.x] = tile[1][threadIdx.x];
}

TEST_P(SimtSchedule, BarriersOrderSharedMemory) {
  for (const unsigned threads : {1u, 31u, 32u, 33u, 127u, 128u}) {
    std::vector<double> in(threads), out(threads), expected(threads);
    std::iota(in.begin(), in.end(), 1.0);
    for (std::size_t i = 0; i < threads; ++i) expected[i] = in[threads - 1 - i];  // five reversals
    simt::launch<reverse_tile_kernel>(dim3(1), dim3(threads), 0, in.data(), out.data());
    EXPECT_EQ(out, expected) << threads << " threads";
  }
}

__global__ void block_votes_kernel(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  int* const mine = out + 5 * i;
  mine[0] = __syncthreads_or(i == 70);
  mine[1] = __syncthreads_or(i > 500);
  mine[2] = __syncthreads_and(i < 96);
  mine[3] = __syncthreads_and(i != 3);
  mine[4] = __syncthreads_count(i % 3 == 0);
}

TEST_P(SimtSchedule, BlockVotes) {
  std::vector<int> out(96 * 5);
  simt::launch<block_votes_kernel>(dim3(1), dim3(96), 0, out.data());
  for (std::size_t i = 0; i < 96; ++i) {
    EXPECT_EQ(std::vector<int>(out.begin() + static_cast<long>(5 * i), out.begin() + static_cast<long>(5 * i + 5)),
              (std::vector<int>{1, 0, 1, 0, 32}));
  }
}

template <class T>
__global__ void shuffles_kernel(T* out, int width) {
  const T value = static_cast<T>(threadIdx.x + 100);
  T* const mine = out + 5 * threadIdx.x;
  mine[0] = __shfl_sync(0xffffffffu, value, 3, width);
  mine[1] = __shfl_up_sync(0xffffffffu, value, 1u, width);
  mine[2] = __shfl_down_sync(0xffffffffu, value, 2u, width);
  mine[3] = __shfl_xor_sync(0xffffffffu, value, width / 2, width);
  mine[4] = __shfl_sync(0xffffffffu, value, -1, width);  // the source is taken modulo the width
}

template <class T>
void expect_shuffles() {
  for (int width = 2; width <= 32; width *= 2) {
    std::vector<T> out(64 * 5);
    simt::launch<shuffles_kernel<T>>(dim3(1), dim3(64), 0, out.data(), width);
    for (int i = 0; i < 64; ++i) {
      const int first = i / width * width;
      const int expected[5] = {first + 3 % width, i == first ? i : i - 1, i + 2 >= first + width ? i : i + 2,
                               i ^ (width / 2), first + width - 1};
      for (int k = 0; k < 5; ++k) {
        EXPECT_EQ(out[static_cast<std::size_t>(5 * i + k)], static_cast<T>(expected[k] + 100))
            << "lane " << i << " width " << width << " case " << k;
      }
    }
  }
}

TEST_P(SimtSchedule, Shuffles) {
  expect_shuffles<float>();
  expect_shuffles<double>();
  expect_shuffles<int>();
  expect_shuffles<std::int64_t>();
  expect_shuffles<std::uint64_t>();
}

__global__ void votes_kernel(unsigned* out) {
  const int i = static_cast<int>(threadIdx.x);
  unsigned* const mine = out + 4 * i;
  mine[0] = __ballot_sync(0xffffffffu, i % 2);
  mine[1] = static_cast<unsigned>(__any_sync(0xffffffffu, i == 5));
  mine[2] = static_cast<unsigned>(__all_sync(0xffffffffu, i >= 0));
  mine[3] = static_cast<unsigned>(__all_sync(0xffffffffu, i != 5));
}

TEST_P(SimtSchedule, WarpVotesWithAPartialLastWarp) {
  std::vector<unsigned> out(44 * 4);
  simt::launch<votes_kernel>(dim3(1), dim3(44), 0, out.data());
  for (std::size_t i = 0; i < 44; ++i) {
    EXPECT_EQ(out[4 * i], i < 32 ? 0xaaaaaaaau : 0xaaau);
    EXPECT_EQ(out[4 * i + 1], i < 32 ? 1u : 0u);
    EXPECT_EQ(out[4 * i + 2], 1u);
    EXPECT_EQ(out[4 * i + 3], i < 32 ? 0u : 1u);
  }
}

// The two halves of a warp, and then its even and odd lanes, go through different numbers of collectives.
__global__ void disjoint_masks_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int sum = lane;
  if (lane < 16) {
    for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(0x0000ffffu, sum, offset);
  } else {
    for (int round = 0; round < 3; ++round) __syncwarp(0xffff0000u);
    for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffff0000u, sum, offset);
  }
  const unsigned parity_mask = lane % 2 == 0 ? 0x55555555u : 0xaaaaaaaau;
  out[lane] = sum * 100 + __popc(__ballot_sync(parity_mask, lane > 20));
}

TEST_P(SimtSchedule, DisjointSubWarpMasks) {
  std::vector<int> out(32);
  simt::launch<disjoint_masks_kernel>(dim3(1), dim3(32), 0, out.data());
  for (std::size_t lane = 0; lane < 32; ++lane) {
    const int votes = lane % 2 == 0 ? 5 : 6;  // 22, 24, ... 30 and 21, 23, ... 31
    EXPECT_EQ(out[lane], (lane < 16 ? 120 : 376) * 100 + votes);
  }
}

// Warps 0 and 1 pass data through barrier 1 while warps 2 and 3 do through barrier 2, then all meet.
__global__ void named_barriers_kernel(int* out) {
  SIMT_SHARED(int, tile, [128]);
  const int half = static_cast<int>(threadIdx.x / 64);
  const int i = static_cast<int>(threadIdx.x % 64);
  for (int round = 0; round < 1 + half; ++round) {
    tile[threadIdx.x] = i + round;
    simt::bar_sync(1 + half, 64);
    out[threadIdx.x] = tile[half * 64 + 63 - i];
    simt::bar_sync(1 + half, 64);
  }
  __syncthreads();
  if (half == 0) out[threadIdx.x] += 1000 * tile[127 - i];
}

TEST_P(SimtSchedule, NamedBarriers) {
  std::vector<int> out(128);
  simt::launch<named_barriers_kernel>(dim3(1), dim3(128), 0, out.data());
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(out[static_cast<std::size_t>(i)], 63 - i + 1000 * (63 - i + 1));
    EXPECT_EQ(out[static_cast<std::size_t>(64 + i)], 63 - i + 1);
  }
}

__global__ void atomics_kernel(int* ints, unsigned* bits, unsigned long long* wide, float* single, double* twice,
                               int* spin_free_lock) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&ints[0], i);
  atomicMax(&ints[1], i);
  atomicMin(&ints[2], -i);
  atomicOr(&bits[0], 1u << (i % 32));
  atomicAnd(&bits[1], ~(1u << (i % 16)));
  atomicAdd(&wide[0], 1ull << 33);
  atomicMax(&wide[1], static_cast<unsigned long long>(i) << 33);
  atomicAdd(single, 0.5f);
  atomicAdd(twice, 0.25);
  atomicAdd(&ints[3], atomicExch(&ints[4], 1) == 0 ? 1 : 0);
  atomicAdd(&ints[5], atomicCAS(spin_free_lock, 0, 7) == 0 ? 1 : 0);
}

TEST_P(SimtSchedule, Atomics) {
  int ints[6] = {0, -1, 1, 0, 0, 0};
  unsigned bits[2] = {0, 0xffffffffu};
  unsigned long long wide[2] = {0, 0};
  float single = 0;
  double twice = 0;
  int lock = 0;
  simt::launch<atomics_kernel>(dim3(10), dim3(100), 0, ints, bits, wide, &single, &twice, &lock);
  EXPECT_EQ(ints[0], 999 * 1000 / 2);
  EXPECT_EQ(ints[1], 999);
  EXPECT_EQ(ints[2], -999);
  EXPECT_EQ(ints[3], 1);
  EXPECT_EQ(ints[5], 1);
  EXPECT_EQ(bits[0], 0xffffffffu);
  EXPECT_EQ(bits[1], 0xffff0000u);
  EXPECT_EQ(wide[0], 1000ull << 33);
  EXPECT_EQ(wide[1], 999ull << 33);
  EXPECT_EQ(single, 500.0f);
  EXPECT_EQ(twice, 250.0);
  EXPECT_EQ(lock, 7);
}

// Each block adds its part; the last to finish reads all parts.
__global__ void last_block_sums_kernel(int* parts, unsigned* finished, int* sum) {
  parts[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
  __threadfence();
  if (atomicAdd(finished, 1u) == gridDim.x - 1) {
    __threadfence();
    for (unsigned i = 0; i < gridDim.x; ++i) *sum += parts[i];
  }
}

TEST_P(SimtSchedule, TheLastBlockSeesTheWorkOfAll) {
  std::vector<int> parts(257);
  unsigned finished = 0;
  int sum = 0;
  simt::launch<last_block_sums_kernel>(dim3(257), dim3(1), 0, parts.data(), &finished, &sum);
  EXPECT_EQ(sum, 257 * 258 / 2);
}

__global__ void fresh_shared_kernel(float* out, double* wide_out) {
  SIMT_SHARED(float, fixed, [3]);
  SIMT_SHARED(double, scalar);
  SIMT_DYNAMIC_SHARED(float, dynamic);
  out[2 * blockIdx.x] = fixed[2];
  out[2 * blockIdx.x + 1] = dynamic[6];
  wide_out[blockIdx.x] = scalar;
  fixed[2] = dynamic[6] = 0.0f;
  scalar = 0.0;
}

TEST_P(SimtSchedule, SharedMemoryIsPoisonedForEveryBlock) {
  std::vector<float> out(2 * 8);
  std::vector<double> wide(8);
  simt::launch<fresh_shared_kernel>(dim3(8), dim3(1), 7 * sizeof(float), out.data(), wide.data());
  const std::uint64_t kind = GetParam().seed % 3;
  for (const float value : out) {
    if (kind == 0) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(value, kind == 1 ? 1e30f : -1e30f);
    }
  }
  for (const double value : wide) EXPECT_TRUE(kind == 0 ? std::isnan(value) : std::fabs(value) > 1e200);
}

template <class T, int kSize>
__device__ T* shared_tile() {
  SIMT_SHARED(T, tile, [kSize]);
  return tile;
}

__global__ void shared_templates_kernel(int* out) {
  int* const a = shared_tile<int, 4>();
  int* const b = shared_tile<int, 8>();
  out[0] = a != b;
  out[1] = a == shared_tile<int, 4>();
  out[2] = reinterpret_cast<std::uintptr_t>(a) % 16 == 0;
  SIMT_DYNAMIC_SHARED(float, c);
  SIMT_DYNAMIC_SHARED(double, d);
  out[3] = reinterpret_cast<std::uintptr_t>(c) % 128 == 0;
  out[4] = static_cast<void*>(c) == static_cast<void*>(d);
}

TEST(Simt, SharedMemoryOfTemplatesAndItsAlignment) {
  std::vector<int> out(5);
  simt::launch<shared_templates_kernel>(dim3(1), dim3(1), 64, out.data());
  EXPECT_EQ(out, std::vector<int>(5, 1));
}

__global__ void all_shared_kernel(float* out) {
  SIMT_SHARED(float, fixed, [12 * 1024]);
  SIMT_DYNAMIC_SHARED(float, dynamic);
  fixed[12 * 1024 - 1] = 1.0f;
  dynamic[(227 - 48) * 256 - 1] = 2.0f;
  *out = fixed[12 * 1024 - 1] + dynamic[(227 - 48) * 256 - 1];
}

TEST(Simt, SharedMemoryUpToTheLimit) {
  float out = 0;
  simt::launch<all_shared_kernel>(dim3(1), dim3(1), (227 - 48) * 1024, &out);
  EXPECT_EQ(out, 3.0f);
}

__global__ void record_order_kernel(int* next, int* order) {
  order[atomicAdd(next, 1)] = static_cast<int>(threadIdx.x);
}

std::vector<int> thread_order(Order order, std::uint64_t seed) {
  const ScopedOptions options(order, seed);
  std::vector<int> result(64);
  int next = 0;
  simt::launch<record_order_kernel>(dim3(1), dim3(64), 0, &next, result.data());
  return result;
}

TEST(Simt, OrdersAreWhatTheySayAndReproducible) {
  std::vector<int> ascending(64);
  std::iota(ascending.begin(), ascending.end(), 0);
  const std::vector<int> descending(ascending.rbegin(), ascending.rend());
  EXPECT_EQ(thread_order(Order::forward, 1), ascending);
  EXPECT_EQ(thread_order(Order::reverse, 1), descending);
  for (const std::uint64_t seed : {2u, 3u}) {
    const std::vector<int> random = thread_order(Order::random, seed);
    EXPECT_EQ(random, thread_order(Order::random, seed));
    EXPECT_NE(random, thread_order(Order::random, seed + 2));
    EXPECT_NE(random, ascending);
    EXPECT_TRUE(std::is_permutation(random.begin(), random.end(), ascending.begin()));
  }
  // Warp priorities run one warp to its end before the other starts; an equal chance mixes them.
  const auto leaves_warp = [](const std::vector<int>& order) {
    int changes = 0;
    for (std::size_t i = 1; i < order.size(); ++i) changes += order[i] / 32 != order[i - 1] / 32 ? 1 : 0;
    return changes;
  };
  EXPECT_LT(leaves_warp(thread_order(Order::random, 2)), 8);
  EXPECT_GT(leaves_warp(thread_order(Order::random, 3)), 8);
}

__global__ void count_kernel(int* count) {
  __syncthreads();
  atomicAdd(count, 1);
}

TEST(Simt, SeveralHostThreadsLaunchAtOnce) {
  const ScopedOptions options(Order::forward, 0, 2);
  std::vector<int> counts(3);
  std::vector<std::thread> threads;
  for (int& count : counts) {
    threads.emplace_back([&count] {
      for (int round = 0; round < 10; ++round) simt::launch<count_kernel>(dim3(20), dim3(32), 0, &count);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counts, std::vector<int>(3, 10 * 20 * 32));
}

TEST(Simt, ChangingStackSizesBetweenLaunches) {
  const ScopedOptions options(Order::forward);
  int count = 0;
  for (const std::size_t kib : {512u, 64u, 300u}) {
    simt::options().stack_bytes = kib * 1024;
    simt::launch<count_kernel>(dim3(2), dim3(40), 0, &count);
  }
  EXPECT_EQ(count, 3 * 2 * 40);
}

TEST(Simt, DeviceArithmetic) {
  EXPECT_EQ(__umulhi(0xffffffffu, 0xfffffffeu), 0xfffffffdu);
  EXPECT_EQ(__umul64hi(0xffffffffffffffffull, 0xfffffffffffffffeull), 0xfffffffffffffffdull);
  EXPECT_EQ(__umul64hi(0x123456789abcdef0ull, 0xfedcba9876543210ull), 0x121fa00ad77d7422ull);
  EXPECT_EQ(__popc(0xf0f0u), 8);
  EXPECT_EQ(__popcll(~0ull), 64);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__ffsll(1ll << 40), 41);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clzll(1), 63);
  EXPECT_EQ(__int_as_float(0x3f800000), 1.0f);
  EXPECT_EQ(__float_as_uint(-2.0f), 0xc0000000u);
  EXPECT_EQ(__longlong_as_double(__double_as_longlong(-0.1)), -0.1);
  EXPECT_EQ(rsqrtf(4.0f), 0.5f);
  EXPECT_EQ(rsqrt(4.0), 0.5);
  EXPECT_EQ(min(std::numeric_limits<float>::quiet_NaN(), 2.0f), 2.0f);
  EXPECT_EQ(max(3, -4), 3);
  EXPECT_EQ(__saturatef(std::numeric_limits<float>::quiet_NaN()), 0.0f);
  // (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24 lies half-way between two floats and rounds to even, unless a fused multiply-add
  // keeps the last term.
  volatile float x = 1.0f + 0x1p-12f;
  EXPECT_EQ(__fmul_rn(x, x) - (1.0f + 0x1p-11f), 0.0f);
  EXPECT_EQ(__fmaf_rn(x, x, -(1.0f + 0x1p-11f)), 0x1p-24f);
}

}  // namespace
