// Contexts: several side by side, in several threads, moved, with the caller's allocator and stream.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ops_fixture.h"

// The sanitizers' allocators abort on absurd requests unless told to fail as others do.
#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
#elif defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }
#endif

namespace bracket::test {
namespace {

using ContextTest = OpsTest;
INSTANTIATE_TEST_SUITE_P(Devices, ContextTest, ::testing::ValuesIn(test_devices()), device_name);

ContextOptions single_threaded() {
  ContextOptions options;
  options.threads = 1;
  return options;
}

/// Some work whose result depends on everything before it. Returns the sum of the final tensor.
double work(Context& context, double start) {
  Ops& ops = context.ops();
  double total = 0;
  for (int round = 0; round < 20; ++round) {
    const DeviceTensor x = empty(context, DType::f64, {257});
    const DeviceTensor y = empty(context, DType::f64, {257});
    ops.fill(x, start + round);
    ops.fill(y, 0);
    ops.axpy(y, 2, x);
    for (const double value : download(context, y).values) total += value;
  }
  context.pool().check_guards();
  return total;
}

// 257 elements of 2 (start + round), exact in double.
double expected_work(double start) { return 257 * 2 * (20 * start + 190); }

TEST_P(ContextTest, SeveralLiveSideBySide) {
  const auto a = GetParam().make_context(single_threaded());
  const auto b = GetParam().make_context(single_threaded());
  EXPECT_EQ(work(*a, 1), expected_work(1));
  EXPECT_EQ(work(*b, 2), expected_work(2));
  EXPECT_EQ(work(*a, 3), expected_work(3));
  EXPECT_EQ(a->pool().statistics().bytes_in_use, 0);
  EXPECT_EQ(a->pool().statistics().upstream_allocations, 2) << "all rounds use the same two blocks";
}

TEST_P(ContextTest, TwoThreadsWithAContextEach) {
  double results[2] = {};
  const TestDevice& device = GetParam();
  std::thread threads[2];
  for (int i = 0; i < 2; ++i) {
    threads[i] = std::thread([&device, &results, i] {
      const auto context = device.make_context(single_threaded());
      results[i] = work(*context, i + 5);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(results[0], expected_work(5));
  EXPECT_EQ(results[1], expected_work(6));
}

TEST_P(ContextTest, Moves) {
  Context a = std::move(*GetParam().make_context(single_threaded()));
  Ops* const ops = &a.ops();
  Buffer kept = a.pool().allocate(100);
  Context b = std::move(a);
  EXPECT_EQ(&b.ops(), ops);
  EXPECT_EQ(b.pool().statistics().bytes_in_use, 768) << "the pool moved along (100 bytes and two guards)";
  EXPECT_EQ(work(b, 1), expected_work(1));
  kept = Buffer();
  Context c = std::move(*GetParam().make_context(single_threaded()));
  c = std::move(b);
  EXPECT_EQ(work(c, 4), expected_work(4));
}

TEST_P(ContextTest, NameOfTheDevice) {
  EXPECT_EQ(context().device().name(), GetParam().name() == "cpu" ? "cpu" : "cuda:0");
  EXPECT_NO_THROW(context().synchronize());
}

TEST_P(ContextTest, MemoryOfTheDeviceIsKnown) {
  std::int64_t free_bytes = -1;
  std::int64_t total_bytes = -1;
  ops().memory_info(free_bytes, total_bytes);
  EXPECT_GT(total_bytes, 0);
  EXPECT_GE(free_bytes, 0);
  EXPECT_LE(free_bytes, total_bytes);
}

/// What the callbacks saw.
struct Seen {
  Ops* device_memory = nullptr;
  std::vector<void*> streams;
  std::int64_t live_bytes = 0;
  std::int64_t requests = 0;
};

AllocatorCallbacks callbacks_of(Seen& seen) {
  AllocatorCallbacks callbacks;
  callbacks.user = &seen;
  callbacks.allocate = [](void* user, std::int64_t bytes, void* stream) -> void* {
    auto& self = *static_cast<Seen*>(user);
    self.streams.push_back(stream);
    self.live_bytes += bytes;
    ++self.requests;
    return self.device_memory->allocate_memory(bytes);
  };
  callbacks.release = [](void* user, void* address, std::int64_t bytes, void* stream) {
    auto& self = *static_cast<Seen*>(user);
    self.streams.push_back(stream);
    self.live_bytes -= bytes;
    self.device_memory->release_memory(address, bytes);
  };
  return callbacks;
}

TEST_P(ContextTest, CallersAllocatorServesEverything) {
  Seen seen;
  const auto source = GetParam().make_context(single_threaded());
  seen.device_memory = &source->ops();
  {
    ContextOptions options = single_threaded();
    options.allocator = callbacks_of(seen);
    const auto context = GetParam().make_context(options);
    EXPECT_EQ(work(*context, 1), expected_work(1));
    EXPECT_EQ(seen.requests, context->pool().statistics().upstream_allocations);
    EXPECT_EQ(seen.live_bytes, context->pool().statistics().bytes_reserved);
    EXPECT_GT(seen.live_bytes, 0);
  }
  EXPECT_EQ(seen.live_bytes, 0);
  ASSERT_FALSE(seen.streams.empty());
  for (void* const stream : seen.streams) EXPECT_EQ(stream, seen.streams.front());
  EXPECT_EQ(seen.streams.front() == nullptr, GetParam().name() == "cpu")
      << "a GPU context passes its stream, the CPU has none";
}

TEST_P(ContextTest, CallersStreamIsUsedAndLeftAlone) {
  Seen seen;
  const auto source = GetParam().make_context(single_threaded());
  seen.device_memory = &source->ops();
  ContextOptions options = single_threaded();
  options.allocator = callbacks_of(seen);
  const auto owner = GetParam().make_context(options);
  EXPECT_EQ(work(*owner, 1), expected_work(1));
  options.stream = seen.streams.front();  // of `owner`, which plays the embedding program
  if (options.stream == nullptr) {
    EXPECT_EQ(GetParam().name(), "cpu");
    return;
  }
  seen.streams.clear();
  {
    const auto guest = GetParam().make_context(options);
    EXPECT_EQ(work(*guest, 2), expected_work(2));
  }
  ASSERT_FALSE(seen.streams.empty());
  for (void* const stream : seen.streams) EXPECT_EQ(stream, options.stream);
  EXPECT_EQ(work(*owner, 3), expected_work(3)) << "the guest must not destroy a stream it was lent";
}

TEST_P(ContextTest, FailingAllocatorIsOutOfMemoryEverywhere) {
  ContextOptions options = single_threaded();
  options.allocator.allocate = [](void*, std::int64_t, void*) -> void* { return nullptr; };
  options.allocator.release = [](void*, void*, std::int64_t, void*) {};
  const auto context = GetParam().make_context(options);
  EXPECT_THROW(empty(*context, DType::f32, {3}), OutOfMemory);
}

TEST_P(ContextTest, AbsurdRequestIsOutOfMemory) {
  try {
    context().pool().allocate(std::int64_t{1} << 50, "everything");
    FAIL() << "a pebibyte was found";
  } catch (const OutOfMemory& error) {
    EXPECT_NE(std::string(error.what()).find("1024.00 TiB"), std::string::npos) << error.what();
  }
  EXPECT_EQ(work(context(), 1), expected_work(1)) << "the context is unusable after an out-of-memory error";
}

}  // namespace
}  // namespace bracket::test
