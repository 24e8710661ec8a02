// The tensor-core launchers on the SIMT executor, with the choices that CudaOps makes for them taken over by the test.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/common/tensor_plan.h"
#include "kernels/cuda/convolution_sm80.h"

namespace bracket::simt {
namespace {

struct Matrix {
  std::int64_t rows, cols;
  std::vector<float> values;

  Matrix(std::int64_t num_rows, std::int64_t num_cols, unsigned seed)
      : rows(num_rows), cols(num_cols), values(static_cast<std::size_t>(num_rows * num_cols)) {
    std::mt19937 engine(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& value : values) value = uniform(engine);
  }
  DeviceMatrix<float> device() { return {values.data(), rows, cols, cols}; }
};

/// y, grad_x, grad_w of a layer with as many rows as inputs and outputs, on a GPU of so many multiprocessors.
std::vector<std::vector<float>> results(std::int64_t n, MathMode mode, int multiprocessors) {
  Matrix x(n, n, 1), w(n, n, 2), grad_y(n, n, 3), y(n, n, 4), grad_x(n, n, 5), grad_w(n, n, 6);
  std::vector<double> scratch(1 << 17);
  const TensorDevice device{mode, multiprocessors, {scratch.data(), 1 << 17}, nullptr};
  EXPECT_EQ(linear_forward_sm80(y.device(), x.device(), w.device(), device), cudaSuccess);
  EXPECT_EQ(linear_reverse_data_sm80(grad_x.device(), grad_y.device(), w.device(), Update::accumulate, device),
            cudaSuccess);
  EXPECT_EQ(linear_reverse_weights_sm80(grad_w.device(), grad_y.device(), x.device(), Update::overwrite, device),
            cudaSuccess);
  return {y.values, grad_x.values, grad_w.values};
}

// The plan takes the tile that a device finishes first; which one that is must not show.
TEST(TensorProduct, TilesDoNotChangeTheBits) {
  const std::int64_t n = 250;
  for (const MathMode mode : {MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
    ASSERT_TRUE(tensor_plan(n, n, n, mode, 1, 1 << 18).large_tile);
    ASSERT_FALSE(tensor_plan(n, n, n, mode, 10000, 1 << 18).large_tile);
    EXPECT_EQ(results(n, mode, 1), results(n, mode, 10000)) << math_mode_name(mode);
  }
}

/// y, grad_x, grad_w of a convolution with more than one tile of either kind in each.
std::vector<std::vector<float>> convolution_results(MathMode mode, int multiprocessors) {
  const Convolution map{9, 8, 68, 132, 3, 2, 1};
  const std::int64_t rows = 9;
  Matrix x(rows, map.in_columns(), 1), w(map.out_channels, map.weight_columns(), 2);
  Matrix grad_y(rows, map.out_columns(), 3), y(rows, map.out_columns(), 4), grad_x(rows, map.in_columns(), 5);
  Matrix grad_w(map.out_channels, map.weight_columns(), 6);
  const TensorDevice device{mode, multiprocessors, {}, nullptr};
  EXPECT_EQ(map.weights_workspace(rows), 0);
  EXPECT_EQ(conv2d_forward_sm80(y.device(), x.device(), w.device(), map, device), cudaSuccess);
  EXPECT_EQ(conv2d_reverse_data_sm80(grad_x.device(), grad_y.device(), w.device(), map, Update::overwrite, device),
            cudaSuccess);
  EXPECT_EQ(conv2d_reverse_weights_sm80(grad_w.device(), grad_y.device(), x.device(), map, Update::accumulate, nullptr,
                                        device),
            cudaSuccess);
  return {y.values, grad_x.values, grad_w.values};
}

TEST(TensorProduct, TilesDoNotChangeTheBitsOfConvolutions) {
  for (const MathMode mode : {MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
    EXPECT_EQ(convolution_results(mode, 1), convolution_results(mode, 10000)) << math_mode_name(mode);
  }
}

TEST(TensorProduct, ThereIsNoKernelForFp32) {
  Matrix c(64, 64, 1), a(64, 64, 2), b(64, 64, 3);
  EXPECT_EQ(linear_forward_sm80(c.device(), a.device(), b.device(), {MathMode::fp32, 1, {}, nullptr}),
            cudaErrorInvalidValue);
  const Convolution map{1, 1, 64, 64, 1, 1, 0};
  EXPECT_EQ(conv2d_forward_sm80(c.device(), a.device(), b.device(), map, {MathMode::fp32, 1, {}, nullptr}),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bracket::simt
