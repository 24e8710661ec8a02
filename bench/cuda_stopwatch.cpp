// Built only with a CUDA toolkit; but for libraries/, the sole place of bench/ that knows CUDA types.
#include <cuda_runtime_api.h>

#include <string>

#include "bench/bench_device.h"
#include "bracket/error.h"

namespace bracket::bench {
namespace {

void require(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  throw CudaError(std::string("benchmark: ") + what + " failed: " + cudaGetErrorString(code) + " (CUDA error " +
                  std::to_string(static_cast<int>(code)) + ")");
}

class EventStopwatch final : public CudaStopwatch {
 public:
  explicit EventStopwatch(int ordinal) {
    require(cudaSetDevice(ordinal), "choosing the device");
    int bytes = 0;
    require(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, ordinal), "asking for the cache's size");
    cache_bytes_ = bytes;
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    require(cudaEventCreate(&start_), "creating an event");
    require(cudaEventCreate(&stop_), "creating an event");
  }
  ~EventStopwatch() override {
    static_cast<void>(cudaEventDestroy(start_));
    static_cast<void>(cudaEventDestroy(stop_));
    static_cast<void>(cudaStreamDestroy(stream_));
  }
  EventStopwatch(const EventStopwatch&) = delete;
  EventStopwatch& operator=(const EventStopwatch&) = delete;

  void* stream() override { return stream_; }

  double seconds(const std::function<void()>& queue) override {
    require(cudaEventRecord(start_, stream_), "recording an event");
    queue();
    require(cudaEventRecord(stop_, stream_), "recording an event");
    require(cudaEventSynchronize(stop_), "waiting for the measured work");
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, start_, stop_), "reading the events");
    return 1e-3 * static_cast<double>(milliseconds);
  }

  std::int64_t cache_bytes() override { return cache_bytes_; }

  void allocate_and_free(std::int64_t bytes) override {
    void* memory = nullptr;
    require(cudaMallocAsync(&memory, static_cast<std::size_t>(bytes), stream_), "cudaMallocAsync");
    require(cudaFreeAsync(memory, stream_), "cudaFreeAsync");
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr;
  cudaEvent_t stop_ = nullptr;
  std::int64_t cache_bytes_ = 0;
};

}  // namespace

std::unique_ptr<CudaStopwatch> make_cuda_stopwatch(int ordinal) { return std::make_unique<EventStopwatch>(ordinal); }

}  // namespace bracket::bench
