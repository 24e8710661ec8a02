// Matrices as kernels receive them, dispatch of a launcher on the dtype, and grids for one thread per element.
#pragma once

#include <cstdint>

#include "bracket/tensor.h"
#include "kernels/cuda/common/portable.cuh"

namespace bracket::BRACKET_TARGET {

/// A matrix in device memory: row i starts at data + i ld. Passed to kernels by value.
template <class T>
struct DeviceMatrix {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t ld = 0;

  BRACKET_HOST_DEVICE T* row(std::int64_t i) const { return data + i * ld; }
  BRACKET_HOST_DEVICE std::int64_t size() const { return rows * cols; }
};

/// A vector of n elements becomes n rows of one column; an absent tensor a matrix of no rows.
template <class T>
DeviceMatrix<T> device_matrix(const Tensor& tensor) noexcept {
  if (tensor.absent()) return {};
  return {static_cast<T*>(tensor.data()), tensor.rows(), tensor.cols(), tensor.row_stride()};
}

/// The elements of a tensor that may be absent.
template <class T>
T* device_vector(const Tensor& tensor) noexcept {
  return tensor.absent() ? nullptr : static_cast<T*>(tensor.data());
}

/// Device memory of CudaOps that one op at a time may use on its stream.
struct Scratch {
  double* data = nullptr;
  std::int64_t elements = 0;
};

/// f.template operator()<T>() with the element type of `dtype`, f32 or f64; returns its code.
template <class F>
cudaError_t dispatch(DType dtype, F&& f) {
  if (dtype == DType::f32) return f.template operator()<float>();
  return dtype == DType::f64 ? f.template operator()<double>() : cudaErrorInvalidValue;
}

/// Blocks of `threads` for `count` items; kernels loop, so the limit of gridDim.x is no limit on the count.
inline unsigned blocks_for(std::int64_t count, int threads) {
  constexpr std::int64_t kMaxGrid = 0x7fffffff;
  const std::int64_t blocks = (count + threads - 1) / threads;
  return static_cast<unsigned>(blocks < kMaxGrid ? blocks : kMaxGrid);
}

/// A division with its rest. Divisions of 32 bits are several times as quick as those of 64.
struct Division {
  std::int64_t quotient;
  std::int64_t rest;
  BRACKET_DEVICE Division(std::int64_t item, std::int64_t divisor) {
    if (((item | divisor) >> 32) == 0) {
      quotient = static_cast<unsigned>(item) / static_cast<unsigned>(divisor);
    } else {
      quotient = item / divisor;
    }
    rest = item - quotient * divisor;
  }
};

/// Number of this thread and of all threads of a one-dimensional grid: a grid-stride loop.
BRACKET_DEVICE std::int64_t first_item() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
BRACKET_DEVICE std::int64_t item_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

}  // namespace bracket::BRACKET_TARGET
