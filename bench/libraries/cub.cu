// Sums and maps over elements by CUB, fills by Thrust, copies by cudaMemcpyAsync.
#include <thrust/execution_policy.h>
#include <thrust/fill.h>

#include <cub/device/device_reduce.cuh>
#include <cub/device/device_transform.cuh>
#include <cub/version.cuh>
#include <cuda/std/functional>
#include <cuda/std/tuple>

#include "bench/libraries/cuda_objects.h"
#include "bench/libraries/element_formulas.h"
#include "bench/libraries/libraries.h"

namespace bracket::bench {
namespace {

struct AsDouble {
  __device__ double operator()(float x) const { return static_cast<double>(x); }
};

struct SquareAsDouble {
  __device__ double operator()(float x) const { return static_cast<double>(x) * static_cast<double>(x); }
};

float* floats(const Tensor& x) { return static_cast<float*>(x.data()); }

cudaStream_t stream_of(const Operands& operands) { return static_cast<cudaStream_t>(operands.stream()); }

template <class MapT>
Call reduce(Operands& operands, Tensor sum, Tensor x, MapT map) {
  const auto call = [=, stream = stream_of(operands)](void* workspace, std::size_t& bytes) {
    require_cuda(cub::DeviceReduce::TransformReduce(workspace, bytes, floats(x), static_cast<double*>(sum.data()),
                                                    x.size(), cuda::std::plus<>{}, map, 0.0, stream),
                 "cub::DeviceReduce::TransformReduce");
  };
  std::size_t bytes = 0;
  call(nullptr, bytes);
  const auto workspace = std::make_shared<DeviceMemory>(static_cast<std::int64_t>(bytes));
  return [=] {
    std::size_t available = bytes;
    call(workspace->data(), available);
  };
}

Call sum(Operands& operands, Tensor sum, Tensor x) { return reduce(operands, sum, x, AsDouble{}); }

Call squared_norm(Operands& operands, Tensor sum, Tensor x) { return reduce(operands, sum, x, SquareAsDouble{}); }

template <class MapT>
Call transform(Operands& operands, Tensor y, Tensor x, MapT map) {
  return [=, stream = stream_of(operands)] {
    require_cuda(
        cub::DeviceTransform::Transform(cuda::std::make_tuple(floats(y), floats(x)), floats(y), y.size(), map, stream),
        "cub::DeviceTransform::Transform");
  };
}

Call axpy(Operands& operands, Tensor y, double alpha, Tensor x) {
  return transform(operands, y, x, Axpy{static_cast<float>(alpha)});
}

Call ema(Operands& operands, Tensor average, Tensor parameters, double decay) {
  return transform(operands, average, parameters, MovingAverage{static_cast<float>(1 - decay)});
}

Call fill(Operands& operands, Tensor y, double value) {
  return [=, stream = stream_of(operands)] {
    thrust::fill_n(thrust::cuda::par_nosync.on(stream), floats(y), y.size(), static_cast<float>(value));
  };
}

Call copy(Operands& operands, Tensor y, Tensor x) {
  return [=, stream = stream_of(operands)] {
    require_cuda(
        cudaMemcpyAsync(y.data(), x.data(), static_cast<std::size_t>(x.bytes()), cudaMemcpyDeviceToDevice, stream),
        "cudaMemcpyAsync");
  };
}

}  // namespace

const ElementLibrary* cub_library() {
  static const ElementLibrary library{
      "cub", std::to_string(CUB_MAJOR_VERSION) + "." + std::to_string(CUB_MINOR_VERSION),
      sum,   squared_norm,
      fill,  copy,
      axpy,  ema};
  return &library;
}

}  // namespace bracket::bench
