#include "bench/provenance.h"

#include <benchmark/benchmark.h>

#include <fstream>
#include <string>

#include "bracket_revision.h"
#ifdef BRACKET_WITH_CUDA
#include "kernels/cuda/make_cuda_ops.h"
#endif

namespace bracket::bench {
namespace {

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

void describe_run(const std::vector<BenchDevice>& devices) {
  std::string names;
  std::string gpu = "none";
  for (const BenchDevice& device : devices) {
    names += (names.empty() ? "" : ", ") + device.name;
#ifdef BRACKET_WITH_CUDA
    if (device.stopwatch) gpu = gpu::device_description(device.context->device().ordinal);
#endif
  }
  benchmark::AddCustomContext("bracket_revision", BRACKET_REVISION);
  benchmark::AddCustomContext("compiler", BRACKET_BENCH_COMPILER);
  benchmark::AddCustomContext("flags", BRACKET_BENCH_FLAGS);
  benchmark::AddCustomContext("cpu_arch", BRACKET_BENCH_CPU_ARCH);
  benchmark::AddCustomContext("cpu_model", cpu_model());
  benchmark::AddCustomContext("devices", names);
  benchmark::AddCustomContext("gpu", gpu);
}

}  // namespace bracket::bench
