// What the JSON of a benchmark run must carry for its figures to mean something later.
#pragma once

#include <vector>

#include "bench/bench_device.h"

namespace bracket::bench {

/// Adds revision, version, compiler, flags, CPU model, threads and devices to the "context" of the output.
void describe_run(const std::vector<BenchDevice>& devices);

}  // namespace bracket::bench
