#include "bracket/device.h"

#include <charconv>
#include <fstream>

#include "bracket/error.h"
#ifdef BRACKET_WITH_CUDA
#include "kernels/cuda/make_cuda_ops.h"
#endif

namespace bracket {
namespace {

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace

int cuda_device_count(std::string* reason) {
  std::string why;
#ifdef BRACKET_WITH_CUDA
  const int count = gpu::usable_device_count(why);
#else
  const int count = 0;
  why = "this build has no CUDA support; configure with -DBRACKET_CUDA=ON where a CUDA toolkit is installed";
#endif
  if (reason) *reason = why;
  return count;
}

Device Device::parse(const std::string& text) {
  if (text == "cpu") return {};
  if (text == "auto") return {cuda_device_count() > 0 ? DeviceKind::cuda : DeviceKind::cpu, 0};
  Device device{DeviceKind::cuda, 0};
  const std::string prefix = "cuda:";
  bool valid = text == "cuda";
  if (text.starts_with(prefix)) {
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + prefix.size(), end, device.ordinal);
    valid = error == std::errc() && stop == end && device.ordinal >= 0;
  }
  if (!valid) {
    throw InvalidArgument("device '" + text + "' is not known; use cpu, cuda, cuda:N (N = 0, 1, ...) or auto");
  }
  std::string reason;
  const int count = cuda_device_count(&reason);
  if (count == 0) throw CudaError("device '" + text + "' cannot be used: " + reason + "; or use --device cpu");
  if (device.ordinal >= count) {
    throw CudaError("device '" + text + "' does not exist; this machine has " + std::to_string(count) +
                    " usable GPU(s), cuda:0 to cuda:" + std::to_string(count - 1));
  }
  return device;
}

std::string device_description(const Device& device) {
  if (device.kind == DeviceKind::cpu) return cpu_model();
#ifdef BRACKET_WITH_CUDA
  return gpu::device_description(device.ordinal);
#else
  std::string reason;
  cuda_device_count(&reason);
  throw CudaError("device '" + device.name() + "' cannot be described: " + reason);
#endif
}

std::string Device::name() const { return kind == DeviceKind::cpu ? "cpu" : "cuda:" + std::to_string(ordinal); }

}  // namespace bracket
