// What a LaunchRecorder keeps, and when.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <thread>
#include <vector>

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/step_program.h"

namespace bracket::simt {
namespace {

/// Adds its amount to what each of its threads' items points at, and notes the size of the grid.
struct CountBody {
  static constexpr int kBlockThreads = 32;
  std::int64_t* target;
  std::int64_t amount;

  void operator()(const Block& block) const {
    if (threadIdx.x == 0) target[block.y * block.grid_x + block.x] += amount;
  }
};

/// Three sizes and alignments.
struct OddBody {
  static constexpr int kBlockThreads = 1;
  char mark;
  void operator()(const Block&) const {}
};
struct HalfBody {
  static constexpr int kBlockThreads = 1;
  std::int32_t number;
  void operator()(const Block&) const {}
};
struct alignas(16) WideBody {
  static constexpr int kBlockThreads = 1;
  double pair[2];
  void operator()(const Block&) const {}
};

void plain_kernel(std::int64_t* target) { *target = 1; }

cudaStream_t some_stream() {
  static char place;
  return reinterpret_cast<cudaStream_t>(&place);
}

TEST(LaunchRecorder, KeepsLaunchesInPlaceOfMakingThem) {
  std::int64_t counts[6] = {};
  {
    LaunchRecorder recorder(nullptr);
    EXPECT_EQ(launch<CountBody>(dim3(3, 2), 32, 100, nullptr, counts, 5), cudaSuccess);
    EXPECT_EQ(counts[0], 0);
    ASSERT_EQ(recorder.launches().size(), 1U);
    const LaunchRecorder::Launch& kept = recorder.launches().front();
    EXPECT_EQ(kept.body, static_cast<const void*>(&body_key<CountBody>));
    EXPECT_EQ(kept.grid.x, 3U);
    EXPECT_EQ(kept.grid.y, 2U);
    EXPECT_EQ(kept.threads, 32U);
    EXPECT_EQ(kept.shared_bytes, 100U);
    CountBody body;
    std::memcpy(&body, recorder.arguments().data() + kept.arguments, sizeof body);
    EXPECT_EQ(body.target, counts);
    EXPECT_EQ(body.amount, 5);
    EXPECT_TRUE(recorder.complete());
  }
  EXPECT_EQ(launch<CountBody>(dim3(3, 2), 32, 0, nullptr, counts, 5), cudaSuccess);
  for (const std::int64_t count : counts) EXPECT_EQ(count, 5);
}

TEST(LaunchRecorder, AlignsArguments) {
  LaunchRecorder recorder(nullptr);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(launch<OddBody>(1, 1, 0, nullptr, static_cast<char>('a' + i)), cudaSuccess);
    ASSERT_EQ(launch<HalfBody>(1, 1, 0, nullptr, 1000 + i), cudaSuccess);
    ASSERT_EQ(launch<OddBody>(1, 1, 0, nullptr, static_cast<char>('p' + i)), cudaSuccess);
    ASSERT_EQ((launch<WideBody>(1, 1, 0, nullptr, 0.5 + i, 2.5 + i)), cudaSuccess);
  }
  ASSERT_EQ(recorder.launches().size(), 12U);
  std::size_t end = 0;
  for (std::size_t i = 0; i < 12; ++i) {
    const LaunchRecorder::Launch& kept = recorder.launches()[i];
    const unsigned char* const bytes = recorder.arguments().data() + kept.arguments;
    const auto turn = static_cast<int>(i / 4);
    EXPECT_GE(kept.arguments, end) << "overlaps the launch before";
    if (i % 4 == 0 || i % 4 == 2) {
      EXPECT_EQ(*bytes, (i % 4 == 0 ? 'a' : 'p') + turn);
      end = kept.arguments + sizeof(OddBody);
    } else if (i % 4 == 1) {
      HalfBody body;
      std::memcpy(&body, bytes, sizeof body);
      EXPECT_EQ(body.number, 1000 + turn);
      EXPECT_EQ(kept.arguments % alignof(HalfBody), 0U);
      end = kept.arguments + sizeof(HalfBody);
    } else {
      WideBody body;
      std::memcpy(&body, bytes, sizeof body);
      EXPECT_EQ(body.pair[1], 2.5 + turn);
      EXPECT_EQ(kept.arguments % alignof(WideBody), 0U);
      end = kept.arguments + sizeof(WideBody);
    }
  }
  EXPECT_EQ(recorder.arguments().size(), end);
}

TEST(LaunchRecorder, KeepsOneStreamOfOneThread) {
  std::int64_t counts[1] = {};
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  {
    LaunchRecorder outer(stream);
    EXPECT_EQ(LaunchRecorder::of(stream), &outer);
    EXPECT_EQ(LaunchRecorder::of(nullptr), nullptr);
    EXPECT_EQ(launch<CountBody>(1, 32, 0, nullptr, counts, 1), cudaSuccess);
    EXPECT_EQ(counts[0], 1) << "another stream";
    {
      LaunchRecorder inner(some_stream());
      EXPECT_EQ(LaunchRecorder::of(some_stream()), &inner);
      EXPECT_EQ(LaunchRecorder::of(stream), &outer);
      EXPECT_EQ(launch<CountBody>(1, 32, 0, stream, counts, 1), cudaSuccess);
    }
    EXPECT_EQ(LaunchRecorder::of(some_stream()), nullptr);
    std::thread([&] {
      EXPECT_EQ(LaunchRecorder::of(stream), nullptr);
      EXPECT_EQ(launch<CountBody>(1, 32, 0, stream, counts, 1), cudaSuccess);
    }).join();
    EXPECT_EQ(counts[0], 2) << "another thread";
    EXPECT_EQ(outer.launches().size(), 1U);
  }
  EXPECT_EQ(LaunchRecorder::of(stream), nullptr);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(LaunchRecorder, IsSpoiledByAKernelThatIsNoBody) {
  std::int64_t target = 0;
  {
    LaunchRecorder recorder(nullptr);
    EXPECT_EQ(launch<plain_kernel>(1, 1, 0, nullptr, &target), cudaSuccess);
    EXPECT_FALSE(recorder.complete());
    EXPECT_EQ(recorder.launches().size(), 0U);
  }
  EXPECT_EQ(target, 0);
  EXPECT_EQ(launch<plain_kernel>(1, 1, 0, nullptr, &target), cudaSuccess);
  EXPECT_EQ(target, 1);
}

/// Two launches of a body that the kernel can play, the first as given.
std::optional<StepProgram> program_with(dim3 grid, std::size_t shared_bytes) {
  using Body = elementwise_kernels::FillBody<float, 1>;
  LaunchRecorder recorder(some_stream());
  EXPECT_EQ(recorder.append(&body_key<Body>, grid, 256, shared_bytes, Body{}), cudaSuccess);
  EXPECT_EQ(recorder.append(&body_key<Body>, dim3(1), 256, 0, Body{}), cudaSuccess);
  return make_step_program(recorder);
}

// One block walks over x and y, has the shared memory of the launch that asks for most, and does not play everything.
TEST(StepProgramDecision, IsAboutGridsAndSharedMemory) {
  const std::optional<StepProgram> program = program_with(dim3(255, 257), 46 * 1024);  // 65,535 blocks and one
  ASSERT_TRUE(program);
  EXPECT_EQ(program->instructions, 2);
  EXPECT_EQ(program->shared_bytes, 46U * 1024);
  EXPECT_FALSE(program_with(dim3(256, 256), 0)) << "65,537 blocks";
  EXPECT_FALSE(program_with(dim3(65536, 65536), 0)) << "2^32 blocks";
  EXPECT_FALSE(program_with(dim3(1, 1, 2), 0)) << "a third dimension";
  EXPECT_FALSE(program_with(dim3(1), 46 * 1024 + 1)) << "shared memory";
}

}  // namespace
}  // namespace bracket::simt
