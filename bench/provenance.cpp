#include "bench/provenance.h"

#include <benchmark/benchmark.h>

#include <string>

#include "bench/libraries/libraries.h"
#include "bracket/device.h"
#include "bracket_revision.h"

namespace bracket::bench {
void describe_run(const std::vector<BenchDevice>& devices) {
  std::string names;
  std::string gpu = "none";
  for (const BenchDevice& device : devices) {
    names += (names.empty() ? "" : ", ") + device.name;
    if (device.context && device.gpu) gpu = device_description(device.context->device());
  }
  benchmark::AddCustomContext("bracket_revision", BRACKET_REVISION);
  benchmark::AddCustomContext("compiler", BRACKET_BENCH_COMPILER);
  benchmark::AddCustomContext("flags", BRACKET_BENCH_FLAGS);
  benchmark::AddCustomContext("cpu_arch", BRACKET_BENCH_CPU_ARCH);
  benchmark::AddCustomContext("cpu_model", device_description({}));
  benchmark::AddCustomContext("devices", names);
  benchmark::AddCustomContext("gpu", gpu);
  benchmark::AddCustomContext("libraries", libraries_text());
}

}  // namespace bracket::bench
