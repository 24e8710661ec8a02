#include "bracket/memory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bracket/device.h"
#include "bracket/error.h"
#include "kernels/ops.h"
#include "kernels/plan_ops.h"

namespace bracket {
namespace {

/// An embedding program's allocator that knows what it handed out and can be told to fail.
class CountingAllocator {
 public:
  ~CountingAllocator() {
    EXPECT_TRUE(live_.empty()) << live_.size() << " blocks were not given back";
    for (const auto& [address, bytes] : live_) std::free(address);
  }

  AllocatorCallbacks callbacks() {
    return {[](void* self, std::int64_t bytes, void*) { return static_cast<CountingAllocator*>(self)->take(bytes); },
            [](void* self, void* address, std::int64_t bytes, void*) {
              static_cast<CountingAllocator*>(self)->give_back(address, bytes);
            },
            this};
  }

  std::int64_t requests = 0;
  std::int64_t fail_at = -1;         ///< this request and all later ones fail; -1: none
  std::int64_t available = 1 << 30;  ///< bytes that can be live at one time
  std::int64_t offset = 0;           ///< added to every address, to misalign it

 private:
  void* take(std::int64_t bytes) {
    const std::int64_t number = requests++;
    if ((fail_at >= 0 && number >= fail_at) || bytes > available) return nullptr;
    available -= bytes;
    void* address = std::aligned_alloc(kMemoryAlignment, static_cast<std::size_t>(bytes) + kMemoryAlignment);
    address = static_cast<char*>(address) + offset;
    live_[address] = bytes;
    return address;
  }

  void give_back(void* address, std::int64_t bytes) {
    const auto entry = live_.find(address);
    ASSERT_NE(entry, live_.end()) << "an address was given back that was never handed out";
    EXPECT_EQ(entry->second, bytes);
    available += bytes;
    std::free(static_cast<char*>(address) - offset);
    live_.erase(entry);
  }

  std::map<void*, std::int64_t> live_;
};

ContextOptions with(CountingAllocator& allocator, bool guard = false, std::int64_t limit = 0) {
  ContextOptions options;
  options.allocator = allocator.callbacks();
  options.guard = guard;
  options.memory_limit = limit;
  options.threads = 1;
  return options;
}

template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(MemoryPoolTest, ReusesBlocksAndKeepsStatistics) {
  CountingAllocator allocator;
  Context context(with(allocator));
  MemoryPool& pool = context.pool();
  void* first = nullptr;
  {
    const Buffer a = pool.allocate(1000);
    first = a.data();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % kMemoryAlignment, 0u);
    EXPECT_EQ(a.bytes(), 1000);
    EXPECT_EQ(pool.statistics().bytes_in_use, 1024);
  }
  EXPECT_EQ(pool.statistics().bytes_in_use, 0);
  EXPECT_EQ(pool.statistics().bytes_reserved, 1024);
  const Buffer again = pool.allocate(900);
  EXPECT_EQ(again.data(), first) << "a released block of the size class is handed out again";
  const Buffer other = pool.allocate(1);
  EXPECT_EQ(pool.statistics().bytes_in_use, 1024 + 256);
  EXPECT_EQ(pool.statistics().peak_bytes_in_use, 1024 + 256);
  EXPECT_EQ(pool.statistics().allocations, 3);
  EXPECT_EQ(pool.statistics().upstream_allocations, 2);
  EXPECT_EQ(allocator.requests, 2);
}

TEST(MemoryPoolTest, ReportsWhereMemoryIs) {
  CountingAllocator allocator;
  Context context(with(allocator));
  MemoryPool& pool = context.pool();
  EXPECT_EQ(pool.report().rounding_share(), 0);
  EXPECT_EQ(pool.report().cached_share(), 0);
  const Buffer kept = pool.allocate(300);  // a block of 512
  { const Buffer released = pool.allocate(1500), alike = pool.allocate(1530); }
  const MemoryReport report = pool.report();
  EXPECT_EQ(report.statistics.bytes_requested, 300);
  EXPECT_EQ(report.statistics.bytes_in_use, 512);
  EXPECT_EQ(report.rounding_share(), 1 - 300.0 / 512);
  EXPECT_EQ(report.cached_share(), 1 - 512.0 / (512 + 2 * 1536));
  ASSERT_EQ(report.classes.size(), 2U);
  EXPECT_EQ(report.classes[1].block_bytes, 1536);
  EXPECT_EQ(report.classes[1].blocks, 2);
  EXPECT_EQ(report.classes[1].cached, 2);
  EXPECT_TRUE(contains(summary(report), "2 blocks, 2 cached"));
  EXPECT_EQ(pool.statistics().peak_bytes_in_use, 512 + 2 * 1536);
  pool.start_phase();
  EXPECT_EQ(pool.statistics().peak_bytes_in_use, 512);
  { const Buffer in_phase = pool.allocate(1500); }
  EXPECT_EQ(pool.statistics().peak_bytes_in_use, 512 + 1536);
  pool.trim();
  EXPECT_EQ(pool.report().classes.size(), 1U);
  EXPECT_EQ(pool.report().cached_share(), 0);
}

TEST(MemoryPoolTest, BlocksAreAtMostAQuarterLarger) {
  CountingAllocator allocator;
  allocator.available = std::int64_t{1} << 34;
  Context context(with(allocator));
  for (const std::int64_t bytes : {1, 256, 257, 1024, 1025, 4097, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1,
                                   (16 << 20), (16 << 20) + 1, (100 << 20) + 12345}) {
    context.pool().trim();
    const std::int64_t before = context.pool().statistics().bytes_reserved;
    const Buffer buffer = context.pool().allocate(bytes);
    const std::int64_t block = context.pool().statistics().bytes_reserved - before;
    EXPECT_GE(block, bytes);
    EXPECT_EQ(block % kMemoryAlignment, 0);
    const std::int64_t waste = bytes > (16 << 20) ? (2 << 20) : std::max<std::int64_t>(bytes / 4, 255);
    EXPECT_LE(block - bytes, waste) << bytes;
    std::memset(buffer.data(), 1, static_cast<std::size_t>(bytes));
  }
}

TEST(MemoryPoolTest, EmptyAndImpossibleRequests) {
  CountingAllocator allocator;
  Context context(with(allocator));
  const Buffer none = context.pool().allocate(0);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(allocator.requests, 0);
  EXPECT_TRUE(contains(message_of<InvalidArgument>([&] { context.pool().allocate(-1, "x"); }),
                       "cannot allocate -1 bytes for 'x'"));
  EXPECT_THROW(context.pool().allocate(std::int64_t{1} << 61), InvalidArgument);
}

TEST(MemoryPoolTest, BuffersMove) {
  CountingAllocator allocator;
  Context context(with(allocator));
  Buffer a = context.pool().allocate(10);
  void* const address = a.data();
  Buffer b = std::move(a);
  EXPECT_EQ(b.data(), address);
  EXPECT_EQ(a.data(), nullptr);  // NOLINT(bugprone-use-after-move): what a moved-from buffer is
  Buffer c = context.pool().allocate(20);
  c = std::move(b);
  EXPECT_EQ(c.data(), address);
  EXPECT_EQ(c.bytes(), 10);
  EXPECT_EQ(context.pool().statistics().bytes_in_use, 256) << "what c held before was released";
  Buffer& same = c;
  c = std::move(same);
  EXPECT_EQ(c.data(), address);
  c = Buffer();
  EXPECT_EQ(context.pool().statistics().bytes_in_use, 0);
}

TEST(MemoryPoolTest, LimitIsKept) {
  CountingAllocator allocator;
  Context context(with(allocator, false, 4096));
  MemoryPool& pool = context.pool();
  const Buffer a = pool.allocate(2048);
  const std::string message = message_of<OutOfMemory>([&] { pool.allocate(3000, "activations"); });
  EXPECT_TRUE(contains(message,
                       "out of memory: 2.93 KiB (3000 bytes) for 'activations' requested; in use 2.00 KiB "
                       "(2048 bytes), cached 0 bytes, limit 4.00 KiB (4096 bytes), device free "))
      << message;
  EXPECT_TRUE(contains(message, "raise the memory limit")) << message;
  EXPECT_EQ(allocator.requests, 1) << "the allocator was asked in spite of the limit";
  const Buffer b = pool.allocate(2048);
  EXPECT_EQ(pool.statistics().bytes_reserved, 4096);
}

TEST(MemoryPoolTest, CacheIsGivenBackBeforeFailing) {
  CountingAllocator allocator;
  Context context(with(allocator, false, 4096));
  MemoryPool& pool = context.pool();
  { const Buffer a = pool.allocate(2048), b = pool.allocate(1024); }
  EXPECT_EQ(pool.statistics().bytes_reserved, 3072);
  const Buffer large = pool.allocate(4096);
  EXPECT_EQ(pool.statistics().bytes_reserved, 4096);

  CountingAllocator small;
  small.available = 4096;
  Context other(with(small));
  { const Buffer a = other.pool().allocate(2048), b = other.pool().allocate(1024); }
  EXPECT_NO_THROW(other.pool().allocate(4096)) << "the allocator itself had no room until the cache was returned";
}

TEST(MemoryPoolTest, ExhaustedAllocatorSaysWhatWouldHelp) {
  CountingAllocator allocator;
  allocator.available = 1000;
  Context context(with(allocator));
  try {
    context.pool().allocate(2000);
    FAIL() << "nothing was thrown";
  } catch (const OutOfMemory& error) {
    EXPECT_EQ(error.requested_bytes(), 2000);
    EXPECT_EQ(error.code(), ExitCode::memory);
    EXPECT_TRUE(contains(error.what(), "limit none")) << error.what();
    EXPECT_TRUE(contains(error.what(), "use a smaller batch or network")) << error.what();
  }
  EXPECT_NO_THROW(context.pool().allocate(500));
}

/// Buffers of growing size, some released on the way.
void use_pool(MemoryPool& pool) {
  std::vector<Buffer> kept;
  for (std::int64_t i = 1; i <= 12; ++i) {
    Buffer buffer = pool.allocate(i * 300, "step");
    std::memset(buffer.data(), 7, static_cast<std::size_t>(buffer.bytes()));
    if (i % 3 != 0) kept.push_back(std::move(buffer));
  }
}

TEST(MemoryPoolTest, EveryAllocationMayFail) {
  for (const bool guard : {false, true}) {
    std::int64_t total = 0;
    {
      CountingAllocator allocator;
      Context context(with(allocator, guard));
      use_pool(context.pool());
      total = allocator.requests;
    }
    ASSERT_GT(total, 8);
    for (std::int64_t fail_at = 0; fail_at < total; ++fail_at) {
      CountingAllocator allocator;
      Context context(with(allocator, guard));
      allocator.fail_at = fail_at;
      EXPECT_THROW(use_pool(context.pool()), OutOfMemory) << "request " << fail_at;
      EXPECT_EQ(context.pool().statistics().bytes_in_use, 0) << "something stayed allocated, request " << fail_at;
      allocator.fail_at = -1;
      EXPECT_NO_THROW(use_pool(context.pool())) << "the pool is unusable after request " << fail_at;
    }
  }
}

TEST(MemoryPoolTest, MisalignedAllocatorIsRefused) {
  CountingAllocator allocator;
  allocator.offset = 64;
  Context context(with(allocator));
  EXPECT_TRUE(contains(message_of<InvalidArgument>([&] { context.pool().allocate(8); }), "not a multiple of 256"));
  allocator.offset = 0;
  EXPECT_NO_THROW(context.pool().allocate(8));
}

TEST(MemoryPoolTest, GuardFillsFreshAndReusedMemoryWithNan) {
  CountingAllocator allocator;
  Context context(with(allocator, true));
  for (int round = 0; round < 2; ++round) {
    const Buffer buffer = context.pool().allocate(8 * sizeof(double));
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(std::isnan(static_cast<double*>(buffer.data())[i]));
    for (int i = 0; i < 16; ++i) EXPECT_TRUE(std::isnan(static_cast<float*>(buffer.data())[i]));
    std::memset(buffer.data(), 0, 8 * sizeof(double));
  }
  EXPECT_EQ(context.pool().statistics().upstream_allocations, 1);
}

TEST(MemoryPoolTest, GuardFindsOverrunOfALiveBuffer) {
  CountingAllocator allocator;
  Context context(with(allocator, true));
  const Buffer good = context.pool().allocate(40, "good");
  const Buffer bad = context.pool().allocate(40, "gradient");
  EXPECT_NO_THROW(context.pool().check_guards());
  char* const byte = static_cast<char*>(bad.data()) + 42;
  const char before = *byte;
  *byte = 1;
  const std::string message = message_of<Error>([&] { context.pool().check_guards(); });
  EXPECT_TRUE(contains(message, "3 bytes past its end, buffer number 1 for 'gradient' of 40 bytes")) << message;
  *byte = before;
  EXPECT_NO_THROW(context.pool().check_guards());
}

TEST(MemoryPoolTest, GuardFindsUnderrunAtRelease) {
  CountingAllocator allocator;
  Context context(with(allocator, true));
  {
    const Buffer bad = context.pool().allocate(40, "weights");
    static_cast<char*>(bad.data())[-1] = 1;
  }
  const std::string message = message_of<Error>([&] { context.pool().allocate(8); });
  EXPECT_TRUE(contains(message, "1 bytes before its start, buffer number 0 for 'weights'")) << message;
  EXPECT_NO_THROW(context.pool().allocate(8)) << "a violation is reported once";
  {
    const Buffer bad = context.pool().allocate(40);
    static_cast<char*>(bad.data())[40 + 255] = 1;
  }
  EXPECT_TRUE(contains(message_of<Error>([&] { context.pool().check_guards(); }), "256 bytes past its end"));
  EXPECT_NO_THROW(context.pool().check_guards());
}

TEST(MemoryPoolTest, NegativeLimitIsRefused) {
  PlanOps ops;
  EXPECT_THROW(MemoryPool(ops, -1, false), InvalidArgument);
}

// ---- arena --------------------------------------------------------------------------------------------------------

/// Requests of a step, as addresses relative to the first.
std::vector<std::int64_t> run_step(Arena& arena) {
  std::vector<std::uintptr_t> addresses;
  const auto request = [&](std::initializer_list<std::int64_t> shape, DType dtype = DType::f32) {
    addresses.push_back(reinterpret_cast<std::uintptr_t>(arena.allocate(dtype, shape).data()));
  };
  request({3, 5});
  const std::int64_t mark = arena.mark();
  request({1000});
  request({7, 7}, DType::f64);
  arena.rewind(mark);
  request({64}, DType::f64);
  request({1, 1, 1, 1});
  std::vector<std::int64_t> offsets;
  for (const std::uintptr_t address : addresses) {
    offsets.push_back(static_cast<std::int64_t>(address) - static_cast<std::int64_t>(addresses.front()));
  }
  return offsets;
}

TEST(ArenaTest, RealRunServesWhatWasPlanned) {
  Arena plan;
  EXPECT_TRUE(plan.planning());
  const std::vector<std::int64_t> planned = run_step(plan);
  EXPECT_EQ(plan.high_water_bytes(), 256 + 4096 + 512);
  CountingAllocator allocator;
  Context context(with(allocator));
  Arena arena(context.pool(), plan.high_water_bytes());
  EXPECT_FALSE(arena.planning());
  for (int step = 0; step < 3; ++step) {
    EXPECT_EQ(run_step(arena), planned);
    EXPECT_EQ(arena.high_water_bytes(), plan.high_water_bytes());
    arena.rewind(0);
  }
  EXPECT_EQ(allocator.requests, 1);
}

TEST(ArenaTest, TensorsAreAlignedAndShaped) {
  Context context;
  Arena arena(context.pool(), 10000);
  for (const std::int64_t n : {1, 63, 64, 65}) {
    const Tensor x = arena.allocate(DType::f64, {n, 2});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(x.data()) % kMemoryAlignment, 0u);
    EXPECT_EQ(x.rows(), n);
    EXPECT_EQ(x.dtype(), DType::f64);
  }
}

TEST(ArenaTest, TooSmallAPlanIsAnError) {
  Context context;
  Arena arena(context.pool(), 512);
  arena.allocate(DType::f32, {64});
  EXPECT_NO_THROW(arena.allocate(DType::f32, {0, 9}));
  arena.allocate(DType::f32, {1});
  EXPECT_NO_THROW(arena.allocate(DType::f32, {0}));
  const std::string message = message_of<OutOfMemory>([&] { arena.allocate(DType::f32, {2}); });
  EXPECT_TRUE(contains(message, "the arena of 512 bytes is too small: 8 bytes requested, 512 bytes in use")) << message;
  EXPECT_THROW(Arena(context.pool(), -1), InvalidArgument);
  Arena planner;
  EXPECT_THROW(planner.allocate(DType::f64, {std::int64_t{1} << 59}), OutOfMemory);
}

TEST(ArenaTest, EmptyArenaServesEmptyTensors) {
  Context context;
  Arena arena(context.pool(), 0);
  EXPECT_FALSE(arena.planning());
  EXPECT_EQ(arena.allocate(DType::f32, {0, 3}).size(), 0);
  EXPECT_THROW(arena.allocate(DType::f32, {1}), OutOfMemory);
}

TEST(ArenaTest, MovesWithItsMemory) {
  Context context;
  Arena a(context.pool(), 1024);
  const Tensor x = a.allocate(DType::f32, {4});
  Arena b = std::move(a);
  EXPECT_EQ(b.mark(), 256);
  *x.as<float>() = 1;
  a = Arena(context.pool(), 256);
  EXPECT_EQ(a.mark(), 0);
}

TEST(ArenaTest, GuardedTensorsAreCheckedWhenRewound) {
  CountingAllocator allocator;
  Context context(with(allocator, true));
  Arena plan;
  run_step(plan);
  Arena arena(context.pool(), plan.high_water_bytes());
  run_step(arena);
  arena.rewind(0);
  EXPECT_NO_THROW(context.pool().check_guards());
  const Tensor x = arena.allocate(DType::f32, {3});
  EXPECT_TRUE(std::isnan(*x.as<float>())) << "an arena tensor starts as NaN";
  x.as<float>()[3] = 0;
  arena.rewind(0);
  EXPECT_THROW(context.pool().check_guards(), Error);
  EXPECT_NO_THROW(context.pool().check_guards());
  EXPECT_THROW(Arena(context.pool(), 256).allocate(DType::f64, {33}), OutOfMemory);
}

}  // namespace
}  // namespace bracket
