// A request and its return: the pool, beside what takes memory from the system or, on a GPU, from the stream.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdlib>
#include <string>

#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::array<std::int64_t, 3> kSizes = {4 << 10, 1 << 20, 64 << 20};

void of_pool(benchmark::State& state, MemoryPool& pool, std::int64_t bytes) {
  for ([[maybe_unused]] auto _ : state) {
    const Buffer buffer = pool.allocate(bytes);
    benchmark::DoNotOptimize(buffer.data());
  }
}

void of_system(benchmark::State& state, std::int64_t bytes) {
  for ([[maybe_unused]] auto _ : state) {
    void* const memory = std::malloc(static_cast<std::size_t>(bytes));
    benchmark::DoNotOptimize(memory);
    std::free(memory);
  }
}

}  // namespace

void register_memory_cases(std::vector<BenchDevice>& devices) {
  for (const std::int64_t bytes : kSizes) {
    const std::string size = std::to_string(bytes >> 10) + "KiB";
    for (BenchDevice& device : devices) {
      if (device.name == "cpu2") continue;
      benchmark::RegisterBenchmark(("memory_pool/" + size + "/" + device.name).c_str(),
                                   [&device, bytes](auto& state) { of_pool(state, device.context->pool(), bytes); });
      const std::string name = device.gpu ? "cudaMallocAsync/" : "malloc/";
      benchmark::RegisterBenchmark((name + size + "/" + device.name).c_str(), [&device, bytes](auto& state) {
        if (!device.stopwatch) return of_system(state, bytes);
        for ([[maybe_unused]] auto _ : state) device.stopwatch->allocate_and_free(bytes);
      });
    }
  }
}

}  // namespace bracket::bench
