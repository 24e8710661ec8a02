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
  virtual std::int64_t cache_bytes() = 0;                  ///< of the device's second-level cache
  virtual void allocate_and_free(std::int64_t bytes) = 0;  ///< by cudaMallocAsync and cudaFreeAsync on the stream
};

/// Only in builds with CUDA. Throws CudaError.
std::unique_ptr<CudaStopwatch> make_cuda_stopwatch(int ordinal);

struct BenchDevice {
  std::string name;  ///< "cpu1", "cpu2" (threads) or "cuda"
  int threads = 0;
  bool gpu = false;
  std::unique_ptr<CudaStopwatch> stopwatch;  ///< of a GPU that is there; outlives the context
  std::unique_ptr<Context> context;          ///< null of one that is not: its cases can be listed, not run
};

/// Devices usable here. Throws CudaError when `gpu_required` and no GPU is usable. With `for_list` a build with CUDA
/// has a GPU whether one is there or not; `no_gpu` says why none is.
std::vector<BenchDevice> open_devices(bool gpu_required, bool for_list, std::string& no_gpu);

}  // namespace bracket::bench
