#include "host/core/host_values.h"

#include <algorithm>

#include "bracket/device.h"
#include "kernels/ops.h"

namespace bracket {

std::vector<double> to_host(Ops& ops, const Tensor& tensor) {
  std::vector<double> values(static_cast<std::size_t>(tensor.size()));
  if (tensor.dtype() == DType::f64) {
    ops.download(values.data(), tensor);
  } else {
    std::vector<float> single(values.size());
    ops.download(single.data(), tensor);
    std::copy(single.begin(), single.end(), values.begin());
  }
  return values;
}

void append_to_host(std::vector<double>& out, Ops& ops, const Tensor& tensor) {
  if (ops.planning()) return;
  const std::vector<double> values = to_host(ops, tensor);
  out.insert(out.end(), values.begin(), values.end());
}

void to_device(Ops& ops, const Tensor& tensor, std::span<const double> values) {
  if (ops.planning() || tensor.size() == 0) return;
  if (tensor.dtype() == DType::f64) {
    ops.upload(tensor, values.data());
  } else {
    const std::vector<float> single(values.begin(), values.end());
    ops.upload(tensor, single.data());
  }
}

std::vector<double> normal_values(const RandomKey& key, std::int64_t count) {
  ContextOptions options;
  options.threads = 1;
  Context host(options);
  std::vector<double> values(static_cast<std::size_t>(count));
  host.ops().random_normal(Tensor(values.data(), DType::f64, {count}), key, nullptr);
  return values;
}

}  // namespace bracket
