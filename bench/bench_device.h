// Where benchmarks run: the CPU with one and with two threads, and a GPU where there is one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bracket/device.h"

namespace bracket::bench {

/// Measures device time on one CUDA stream.
class CudaStopwatch {
 public:
  virtual ~CudaStopwatch() = default;
  /// The stream to be measured, a cudaStream_t.
  virtual void* stream() = 0;
  /// Seconds between two events around what `queue` puts on the stream.
  virtual double seconds(const std::function<void()>& queue) = 0;
  virtual void allocate_and_free(std::int64_t bytes) = 0;  ///< by cudaMallocAsync and cudaFreeAsync on the stream
};

/// Only in builds with CUDA. Throws CudaError.
std::unique_ptr<CudaStopwatch> make_cuda_stopwatch(int ordinal);

struct BenchDevice {
  std::string name;  ///< "cpu1", "cpu2" (threads) or "cuda"
  int threads = 0;
  std::unique_ptr<CudaStopwatch> stopwatch;  ///< null on the CPU; outlives the context
  std::unique_ptr<Context> context;
};

/// Devices usable here. Throws CudaError when `gpu_required` and no GPU is usable.
std::vector<BenchDevice> open_devices(bool gpu_required);

}  // namespace bracket::bench
