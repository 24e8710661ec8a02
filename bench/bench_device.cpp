#include "bench/bench_device.h"

#include <thread>
#include <utility>

#include "bracket/error.h"

namespace bracket::bench {
namespace {

BenchDevice cpu(int threads) {
  ContextOptions options;
  options.threads = threads;
  return {"cpu" + std::to_string(threads), threads, false, nullptr, std::make_unique<Context>(options)};
}

#ifdef BRACKET_WITH_CUDA
BenchDevice cuda() {
  BenchDevice device{"cuda", 0, true, make_cuda_stopwatch(0), nullptr};
  ContextOptions options;
  options.device = {DeviceKind::cuda, 0};
  options.stream = device.stopwatch->stream();
  device.context = std::make_unique<Context>(options);
  return device;
}
#endif

}  // namespace

std::vector<BenchDevice> open_devices(bool gpu_required, bool for_list, std::string& no_gpu) {
  std::vector<BenchDevice> devices;
  devices.push_back(cpu(1));
  if (std::thread::hardware_concurrency() > 1) devices.push_back(cpu(2));
  if (cuda_device_count(&no_gpu) > 0) {
#ifdef BRACKET_WITH_CUDA
    devices.push_back(cuda());
#endif
    return devices;
  }
  if (gpu_required) throw CudaError("BRACKET_REQUIRE_GPU=1 but no GPU is usable: " + no_gpu);
#ifdef BRACKET_WITH_CUDA
  if (for_list) devices.push_back({"cuda", 0, true, nullptr, nullptr});
#else
  static_cast<void>(for_list);
#endif
  return devices;
}

}  // namespace bracket::bench
