// The SIMT executor turns every defect of a kernel into an error that names the place, and works on afterwards.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "simt/scoped_options.h"
#include "simt/simt.h"

namespace {

using simt::Order;
using simt::ScopedOptions;

__global__ void sound_kernel(int* out) {
  SIMT_SHARED(int, tile, [64]);
  tile[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, tile[63 - threadIdx.x], 1);
}

// Runs the launch, which must fail with a text that has all the parts, then shows that the executor still works.
template <class Launch>
void expect_error(const Launch& launch, const std::vector<std::string>& parts,
                  simt::Error::Kind kind = simt::Error::Kind::execution) {
  const struct {
    Order order;
    std::uint64_t seed;
    const char* name;
  } schedules[] = {{Order::forward, 3, "SIMT_ORDER=forward SIMT_SEED=3"},
                   {Order::reverse, 0, "SIMT_ORDER=reverse SIMT_SEED=0"},
                   {Order::random, 6, "SIMT_ORDER=random SIMT_SEED=6"},
                   {Order::random, 9, "SIMT_ORDER=random SIMT_SEED=9"}};
  for (const auto& schedule : schedules) {
    SCOPED_TRACE(schedule.name);
    const ScopedOptions options(schedule.order, schedule.seed, 2);
    try {
      launch();
      FAIL() << "no error";
    } catch (const simt::Error& error) {
      const std::string text = error.what();
      EXPECT_EQ(error.kind(), kind) << text;
      for (const std::string& part : parts)
        EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
      EXPECT_NE(text.find(schedule.name), std::string::npos) << text;
      EXPECT_NE(text.find("_kernel"), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
    std::vector<int> out(64);
    simt::launch<sound_kernel>(dim3(1), dim3(64), 0, out.data());
    for (std::size_t i = 0; i < 64; ++i) ASSERT_EQ(out[i], 63 - static_cast<int>(i ^ 1));
  }
}

std::string here(int line) { return "simt_errors_selftest.cpp:" + std::to_string(line) + ":"; }

constexpr int kDivergentLine = __LINE__ + 3;
__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST(SimtErrors, BarrierAtTwoPlaces) {
  expect_error([] { simt::launch<divergent_barrier_kernel>(dim3(2), dim3(64), 0); },
               {"divergent barrier", "simt_errors_selftest.cpp:" + std::to_string(kDivergentLine),
                "simt_errors_selftest.cpp:" + std::to_string(kDivergentLine + 2), "divergent_barrier_kernel"});
}

constexpr int kPartialLine = __LINE__ + 2;
__global__ void barrier_of_one_warp_kernel() {
  if (threadIdx.x < 32) __syncthreads();
}

TEST(SimtErrors, BarrierThatSomeThreadsNeverReach) {
  expect_error([] { simt::launch<barrier_of_one_warp_kernel>(dim3(1), dim3(64), 0); },
               {here(kPartialLine), "deadlock", "block (0,0,0)", "thread ("});
}

constexpr int kEarlyReturnLine = __LINE__ + 3;
__global__ void early_return_kernel() {
  if (threadIdx.x == 40) return;
  __syncthreads();
}

TEST(SimtErrors, ReturnBeforeABarrier) {
  expect_error([] { simt::launch<early_return_kernel>(dim3(1), dim3(64), 0); }, {here(kEarlyReturnLine), "deadlock"});
}

constexpr int kNamedLine = __LINE__ + 3;
__global__ void named_barrier_kernel(int num_threads, int barrier) {
  if (threadIdx.x >= 32) return;
  simt::bar_sync(barrier, num_threads);
}

TEST(SimtErrors, NamedBarriers) {
  expect_error(
      [] { simt::launch<named_barrier_kernel>(dim3(1), dim3(96), 0, 64, 1); },
      {here(kNamedLine), "deadlock: no thread can go on, 64 returned", "32 thread(s), first 0, at", "bar_sync"});
  expect_error([] { simt::launch<named_barrier_kernel>(dim3(1), dim3(96), 0, 48, 1); },
               {here(kNamedLine), "48 threads is not a positive multiple of 32 up to the block's 96"});
  expect_error([] { simt::launch<named_barrier_kernel>(dim3(1), dim3(96), 0, 64, 16); },
               {here(kNamedLine), "barrier 16 is not one of 0 to 15"});
}

constexpr int kCrossLine = __LINE__ + 3;
__global__ void crossed_barriers_kernel() {
  const int half = static_cast<int>(threadIdx.x / 32);
  simt::bar_sync(1 + half, 64);
  simt::bar_sync(2 - half, 64);
}

TEST(SimtErrors, DeadlockNamesWhereThreadsWait) {
  expect_error([] { simt::launch<crossed_barriers_kernel>(dim3(1), dim3(64), 0); },
               {here(kCrossLine), "deadlock: no thread can go on, 0 returned; waiting: 64 thread(s), first 0, at"});
}

__global__ void caller_outside_mask_kernel() { __syncwarp(0x0000ffffu); }

TEST(SimtErrors, CallerOutsideItsMask) {
  expect_error([] { simt::launch<caller_outside_mask_kernel>(dim3(1), dim3(32), 0); },
               {here(__LINE__ - 4), "is not in its mask 0x0000ffff"});
}

constexpr int kShuffleLine = __LINE__ + 2;
__global__ void shuffle_outside_mask_kernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1, 16);
}

TEST(SimtErrors, ShuffleFromALaneOutsideTheMask) {
  int out[32];
  expect_error([&out] { simt::launch<shuffle_outside_mask_kernel>(dim3(1), dim3(32), 0, out); },
               {here(kShuffleLine), "lane 0 reads lane 16, which is not in mask 0x0000ffff"});
}

__global__ void shuffle_width_kernel(int* out) { out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0, 12); }

TEST(SimtErrors, ShuffleWidth) {
  int out[32];
  expect_error([&out] { simt::launch<shuffle_width_kernel>(dim3(1), dim3(32), 0, out); },
               {here(__LINE__ - 5), "width 12 is not a power of two"});
}

constexpr int kMutualLine = __LINE__ + 3;
__global__ void overlapping_masks_kernel() {
  if (threadIdx.x < 16) {
    __syncwarp(0xffffffffu);
  } else {
    __syncwarp(0x00ff00ffu << 8 | 0x1u);
  }
}

TEST(SimtErrors, MasksThatWaitForEachOther) {
  // 0xff00ff01 names lane 0, which waits for all; lanes 16 to 23 are not in it.
  expect_error([] { simt::launch<overlapping_masks_kernel>(dim3(1), dim3(32), 0); },
               {"simt_errors_selftest.cpp:" + std::to_string(kMutualLine + 2)});
}

constexpr int kMixedLine = __LINE__ + 3;
__global__ void mixed_collectives_kernel(int* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = __any_sync(0xffffffffu, 1);
  } else {
    out[threadIdx.x] = __all_sync(0xffffffffu, 1);
  }
}

TEST(SimtErrors, DifferentCollectivesForOneMask) {
  int out[32];
  expect_error([&out] { simt::launch<mixed_collectives_kernel>(dim3(1), dim3(32), 0, out); },
               {"divergent warp", "__any_sync", "__all_sync", "simt_errors_selftest.cpp:" + std::to_string(kMixedLine),
                "simt_errors_selftest.cpp:" + std::to_string(kMixedLine + 2)});
}

constexpr int kExitedLine = __LINE__ + 3;
__global__ void returned_lane_kernel() {
  if (threadIdx.x == 7) return;
  __syncwarp();
}

TEST(SimtErrors, MaskNamesALaneThatReturned) {
  expect_error([] { simt::launch<returned_lane_kernel>(dim3(1), dim3(32), 0); },
               {here(kExitedLine), "deadlock", "returned"});
}

constexpr int kMisalignedLine = __LINE__ + 1;
__global__ void misaligned_atomic_kernel(char* memory) { atomicAdd(reinterpret_cast<float*>(memory + 2), 1.0f); }

TEST(SimtErrors, MisalignedAtomic) {
  alignas(8) char memory[8] = {};
  expect_error([&memory] { simt::launch<misaligned_atomic_kernel>(dim3(1), dim3(1), 0, memory); },
               {here(kMisalignedLine), "atomicAdd", "is not aligned to 4 bytes"});
}

constexpr int kMisalignedVectorLine = __LINE__ + 1;
__global__ void misaligned_vector_kernel(float* memory) { simt::vector_at<float4>(memory + 1)->x = 1.0f; }

TEST(SimtErrors, MisalignedVector) {
  alignas(16) float memory[8] = {};
  expect_error([&memory] { simt::launch<misaligned_vector_kernel>(dim3(1), dim3(1), 0, memory); },
               {here(kMisalignedVectorLine), "vector access", "is not aligned to 16 bytes"});
}

__global__ void nested_launch_kernel(int* out) { simt::launch<sound_kernel>(dim3(1), dim3(64), 0, out); }

TEST(SimtErrors, KernelThatLaunchesAKernel) {
  expect_error([] { simt::launch<nested_launch_kernel>(dim3(1), dim3(1), 0, nullptr); }, {"cannot launch a kernel"});
}

template <int kFloats>
__global__ void static_shared_kernel() {
  SIMT_SHARED(float, tile, [kFloats]);
  tile[0] = 1.0f;
}
__global__ void dynamic_shared_kernel() {
  SIMT_SHARED(float, tile, [1024]);
  SIMT_DYNAMIC_SHARED(float, scratch);
  tile[0] = scratch[0];
}

TEST(SimtErrors, TooMuchSharedMemory) {
  expect_error([] { simt::launch<static_shared_kernel<12289>>(dim3(1), dim3(1), 0); },
               {"static shared memory of 49156 bytes with 'tile' exceeds the limit of 49152"});
  expect_error([] { simt::launch<dynamic_shared_kernel>(dim3(1), dim3(1), 226 * 1024); },
               {"shared memory of 235520 bytes (4096 static, 231424 dynamic) exceeds the limit of 232448"});
  expect_error([] { simt::launch<dynamic_shared_kernel>(dim3(1), dim3(1), 227 * 1024 + 1); },
               {"dynamic shared memory of 232449 bytes exceeds the limit of 232448"}, simt::Error::Kind::configuration);
}

TEST(SimtErrors, ImpossibleGridsAndBlocks) {
  const auto launch = [](dim3 grid, dim3 block) {
    return [grid, block] { simt::launch<static_shared_kernel<1>>(grid, block, 0); };
  };
  const simt::Error::Kind configuration = simt::Error::Kind::configuration;
  for (const dim3 block : {dim3(0), dim3(1025), dim3(32, 33), dim3(1, 1, 65), dim3(1u << 16, 1u << 16)}) {
    expect_error(launch(dim3(1), block), {"must have 1 to 1024 threads, at most 64 in z"}, configuration);
  }
  for (const dim3 grid : {dim3(0), dim3(1, 0), dim3(1, 65536), dim3(1, 1, 65536), dim3(0x80000000u)}) {
    expect_error(launch(grid, dim3(1)), {"must have at least 1 block"}, configuration);
  }
}

TEST(SimtErrors, OutsideAKernel) {
  EXPECT_THROW(__syncthreads(), simt::Error);
  EXPECT_THROW(__syncwarp(), simt::Error);
}

__global__ void fails_in_one_block_kernel(int* count) {
  atomicAdd(count, 1);
  if (blockIdx.x == 70 && threadIdx.x == 3) return;
  __syncthreads();
}

TEST(SimtErrors, OneBlockOfMany) {
  int count = 0;
  expect_error([&count] { simt::launch<fails_in_one_block_kernel>(dim3(100), dim3(32), 0, &count); },
               {"block (70,0,0)"});
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

__global__ void shared_overrun_kernel(int behind) {
  SIMT_SHARED(int, tile, [5]);
  SIMT_DYNAMIC_SHARED(char, scratch);
  int* const past_tile = tile + 5;
  if (behind == 0) *past_tile = 1;
  scratch[0] = scratch[static_cast<int>(threadIdx.x) + 6 + behind] = 1;
}

TEST(SimtErrors, WritePastTheEndOfSharedMemory) {
  expect_error([] { simt::launch<shared_overrun_kernel>(dim3(1), dim3(1), 8, 0); },
               {"write 0 byte(s) past the end of shared memory 'tile' of 20 bytes"});
  expect_error([] { simt::launch<shared_overrun_kernel>(dim3(1), dim3(1), 8, 4); },
               {"write 2 byte(s) past the end of shared memory 'dynamic' of 8 bytes"});
}

__global__ void device_store_kernel(float* memory, int index) { memory[index] = 1.0f; }

TEST(SimtErrors, WriteOutsideDeviceMemory) {
  float* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 10 * sizeof(float)), cudaSuccess);
  expect_error([memory] { simt::launch<device_store_kernel>(dim3(1), dim3(1), 0, memory, 10); },
               {"write past the end of a device allocation of 40 bytes"});
  expect_error([memory] { simt::launch<device_store_kernel>(dim3(1), dim3(1), 0, memory, -1); },
               {"write before the start of a device allocation of 40 bytes"});
  simt::launch<device_store_kernel>(dim3(1), dim3(1), 0, memory, 9);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

#if defined(__x86_64__)
constexpr int kFaultLine = __LINE__ + 2;
__global__ void wild_store_kernel(volatile float* memory) {
  __syncthreads();
  memory[threadIdx.x] = 1.0f;
}

TEST(SimtErrors, MemoryFault) {
  expect_error([] { simt::launch<wild_store_kernel>(dim3(1), dim3(64), 0, nullptr); },
               {here(kFaultLine), "memory fault: no memory at address"});
  // No canonical address: the processor does not report it.
  expect_error(
      [] { simt::launch<wild_store_kernel>(dim3(1), dim3(64), 0, reinterpret_cast<float*>(std::uintptr_t{1} << 62)); },
      {here(kFaultLine), "memory fault: misaligned vector access or wild address"});
}

// Not a tail call: the frame is read after the descent.
[[gnu::noinline]] void descend(volatile int* depth, int levels) {
  volatile char frame[512];
  frame[0] = 1;
  if (levels > 0) descend(depth, levels - 1);
  *depth = *depth + frame[0];
}
__global__ void deep_kernel(volatile int* depth, int levels) {
  __syncthreads();
  descend(depth, levels);
}

TEST(SimtErrors, StackOverflow) {
  int depth = 0;
  expect_error([&depth] { simt::launch<deep_kernel>(dim3(2), dim3(33), 0, &depth, 100000); },
               {"stack overflow: the kernel needs more than 256 KiB a thread; raise SIMT_STACK_KB"});
  const ScopedOptions options(Order::forward);
  simt::options().stack_bytes = 4 * 1024 * 1024;
  depth = 0;
  simt::launch<deep_kernel>(dim3(1), dim3(1), 0, &depth, 5000);
  EXPECT_EQ(depth, 5001);
}
#endif  // __x86_64__

#else  // a sanitizer: it stops the program itself

class SimtSanitizerDeathTest : public ::testing::Test {
 protected:
  void SetUp() override { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

#if defined(__SANITIZE_ADDRESS__)
__global__ void global_read_kernel(const float* memory, float* out) { *out = memory[10]; }
__global__ void shared_index_kernel(float* out, int index) {
  SIMT_DYNAMIC_SHARED(float, scratch);
  *out = scratch[index];
}

TEST_F(SimtSanitizerDeathTest, ReadsPastMemory) {
  float* memory = nullptr;
  float out = 0;
  ASSERT_EQ(cudaMalloc(&memory, 10 * sizeof(float)), cudaSuccess);
  EXPECT_DEATH(simt::launch<global_read_kernel>(dim3(1), dim3(1), 0, memory, &out), "heap-buffer-overflow");
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
  EXPECT_DEATH(simt::launch<shared_index_kernel>(dim3(1), dim3(1), 8, &out, 2), "use-after-poison");
}
#else
__global__ void race_kernel(int* out) {
  SIMT_SHARED(int, tile, [64]);
  tile[threadIdx.x] = 1;
  __syncwarp();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}
__global__ void block_race_kernel(int* counter) { *counter = *counter + 1; }

template <class Launch>
void launch_and_exit(const Launch& launch) {
  launch();
  std::exit(0);  // ThreadSanitizer turns it into 66 when it has reported something
}

TEST_F(SimtSanitizerDeathTest, ReportsRaces) {
  const ScopedOptions options(Order::forward, 0, 2);
  std::vector<int> out(64);
  int counter = 0;
  EXPECT_EXIT(launch_and_exit([&out] { simt::launch<race_kernel>(dim3(1), dim3(64), 0, out.data()); }),
              ::testing::ExitedWithCode(66), "data race");
  EXPECT_EXIT(launch_and_exit([&counter] { simt::launch<block_race_kernel>(dim3(2), dim3(1), 0, &counter); }),
              ::testing::ExitedWithCode(66), "data race");
}
#endif

#endif

TEST(SimtOptions, FromTheEnvironment) {
  const struct {
    const char* name;
    const char* good;
    const char* bad;
  } variables[] = {{"SIMT_ORDER", "reverse", "backward"},
                   {"SIMT_SEED", "18446744073709551615", "18446744073709551616"},
                   {"SIMT_WORKERS", "3", "-1"},
                   {"SIMT_STACK_KB", "16", "15"}};
  // The caller's own settings come back at the end.
  std::vector<std::string> saved;
  for (const auto& variable : variables) {
    const char* const present = std::getenv(variable.name);
    saved.push_back(present != nullptr ? present : "");
    unsetenv(variable.name);
  }
  for (const auto& variable : variables) {
    setenv(variable.name, variable.bad, 1);
    try {
      simt::options_from_environment();
      ADD_FAILURE() << variable.name << "=" << variable.bad << " was accepted";
    } catch (const simt::Error& error) {
      EXPECT_NE(std::string(error.what()).find(std::string(variable.name) + "=" + variable.bad + ": expected"),
                std::string::npos)
          << error.what();
    }
    setenv(variable.name, variable.good, 1);
    const simt::Options options = simt::options_from_environment();
    EXPECT_EQ(options.order == Order::reverse, variable.name == std::string("SIMT_ORDER"));
    EXPECT_EQ(options.seed == ~std::uint64_t{0}, variable.name == std::string("SIMT_SEED"));
    EXPECT_EQ(options.workers == 3, variable.name == std::string("SIMT_WORKERS"));
    EXPECT_EQ(options.stack_bytes == 16384, variable.name == std::string("SIMT_STACK_KB"));
    unsetenv(variable.name);
  }
  for (std::size_t i = 0; i < saved.size(); ++i) {
    if (!saved[i].empty()) setenv(variables[i].name, saved[i].c_str(), 1);
  }
}

}  // namespace
