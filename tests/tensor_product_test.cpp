// The tensor-core launchers on the SIMT executor, with the choices that CudaOps makes for them taken over by the test.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/common/device_epilogue.cuh"
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
  const TensorPlan plan = tensor_plan(n, n, n, mode, multiprocessors);
  std::vector<double> scratch(static_cast<std::size_t>(ceil_divide(plan.partial_sums, 2)));
  const TensorDevice device{mode, multiprocessors, {scratch.data(), std::ssize(scratch)}, nullptr};
  EXPECT_EQ(linear_forward_sm80(y.device(), x.device(), w.device(), plan, device), cudaSuccess);
  EXPECT_EQ(linear_reverse_data_sm80(grad_x.device(), grad_y.device(), w.device(), Update::accumulate, plan, device),
            cudaSuccess);
  EXPECT_EQ(linear_reverse_weights_sm80(grad_w.device(), grad_y.device(), x.device(), Update::overwrite, plan, device),
            cudaSuccess);
  return {y.values, grad_x.values, grad_w.values};
}

// The plan takes the tile that a device finishes first; which one that is must not show.
TEST(TensorProduct, TilesDoNotChangeTheBits) {
  const std::int64_t n = 250;
  for (const MathMode mode : {MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
    ASSERT_TRUE(tensor_plan(n, n, n, mode, 1).large_tile);
    ASSERT_FALSE(tensor_plan(n, n, n, mode, 10000).large_tile);
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

/// What a product of rows x pixels x channels leaves with an epilogue: y, the mask's bytes, values before a curve.
struct Epilogue {
  DeviceEpilogue device;
  std::vector<float> bias, before;
  std::vector<std::uint8_t> mask;
  std::int64_t rows, cols;

  Epilogue(DeviceEpilogue::Kind kind, Activation function, std::int64_t num_rows, std::int64_t pixels,
           std::int64_t channels)
      : bias(Matrix(1, channels, 7).values),
        before(static_cast<std::size_t>(num_rows * pixels * channels)),
        rows(num_rows),
        cols(pixels * channels) {
    const std::int64_t bytes = (channels + 7) / 8;
    mask.resize(static_cast<std::size_t>(num_rows * pixels * bytes));
    std::mt19937 engine(8);
    if (kind == DeviceEpilogue::Kind::tangent)
      for (std::uint8_t& byte : mask) byte = static_cast<std::uint8_t>(engine());
    device.kind = kind;
    device.function = function;
    device.slope = function == Activation::relu ? 0.0f : 0.2f;
    device.bias = kind == DeviceEpilogue::Kind::tangent ? nullptr : bias.data();
    device.mask = {mask.data(), num_rows, pixels * bytes, pixels * bytes};
    device.before = {before.data(), num_rows, cols, cols};
    device.channels = channels;
    device.pixel_bytes = bytes;
  }
};

/// y, bits and values before it of every kind of epilogue; `product` computes y with a given one.
template <class Product>
void append_epilogues(std::vector<std::vector<float>>& all, std::int64_t rows, std::int64_t pixels,
                      std::int64_t channels, const Product& product) {
  using Kind = DeviceEpilogue::Kind;
  struct KindOfEpilogue {
    Kind kind;
    Activation function;
  };
  for (const auto [kind, function] :
       {KindOfEpilogue{Kind::bias, Activation::identity}, KindOfEpilogue{Kind::masked, Activation::relu},
        KindOfEpilogue{Kind::masked, Activation::leaky_relu}, KindOfEpilogue{Kind::tangent, Activation::leaky_relu},
        KindOfEpilogue{Kind::curve, Activation::silu}}) {
    Epilogue epilogue(kind, function, rows, pixels, channels);
    Matrix y(rows, pixels * channels, 4);
    EXPECT_EQ(product(y.device(), epilogue.device), cudaSuccess);
    all.push_back(y.values);
    all.emplace_back(epilogue.mask.begin(), epilogue.mask.end());
    all.push_back(epilogue.before);
  }
}

std::vector<std::vector<float>> epilogue_results(MathMode mode, int multiprocessors) {
  std::vector<std::vector<float>> all;
  const std::int64_t m = 250, n = 250, p = 70;
  Matrix x(m, p, 1), w(n, p, 2);
  const TensorPlan plan = tensor_plan(m, n, p, mode, multiprocessors);
  EXPECT_EQ(plan.large_tile, multiprocessors == 1);
  std::vector<double> scratch(static_cast<std::size_t>(ceil_divide(plan.partial_sums, 2)));
  const TensorDevice device{mode, multiprocessors, {scratch.data(), std::ssize(scratch)}, nullptr};
  append_epilogues(all, m, 1, n, [&](const DeviceMatrix<float>& y, const DeviceEpilogue& epilogue) {
    return linear_forward_sm80(y, x.device(), w.device(), plan, device, epilogue);
  });
  const Convolution map{9, 8, 132, 68, 3, 2, 1};
  const std::int64_t rows = 9;
  Matrix image(rows, map.in_columns(), 1), kernels(map.out_channels, map.weight_columns(), 2);
  Matrix small(rows, map.out_columns(), 3);
  append_epilogues(all, rows, map.out_columns() / map.out_channels, map.out_channels,
                   [&](const DeviceMatrix<float>& y, const DeviceEpilogue& epilogue) {
                     return conv2d_forward_sm80(y, image.device(), kernels.device(), map, device, epilogue);
                   });
  append_epilogues(all, rows, map.in_columns() / map.in_channels, map.in_channels,
                   [&](const DeviceMatrix<float>& y, const DeviceEpilogue& epilogue) {
                     return conv2d_reverse_data_sm80(y, small.device(), kernels.device(), map, Update::overwrite,
                                                     device, epilogue);
                   });
  return all;
}

// With small tiles product_epilogue_test compares them with the ops that they replace.
TEST(TensorProduct, TilesDoNotChangeTheBitsOfEpilogues) {
  for (const MathMode mode : {MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
    const std::vector<std::vector<float>> large = epilogue_results(mode, 1), small = epilogue_results(mode, 10000);
    ASSERT_EQ(large.size(), small.size());
    for (std::size_t i = 0; i < large.size(); ++i) EXPECT_EQ(large[i], small[i]) << math_mode_name(mode) << ", " << i;
  }
}

/// C = A B^T of a [m, p], b [n, p] with a plan and a number of blocks of the caller's, and room to the element for its
/// partial sums. Small whole numbers: exact in every mode and order.
void expect_whole_numbers(std::int64_t m, std::int64_t n, std::int64_t p, std::int64_t splits, bool large_tile,
                          int multiprocessors) {
  Matrix c(m, n, 1), a(m, p, 2), b(n, p, 3);
  for (Matrix* const operand : {&a, &b}) {
    for (float& value : operand->values) value = std::round(4 * value);
  }
  const std::int64_t chunk = ceil_divide(ceil_divide(p, splits), kTensorDepth) * kTensorDepth;
  ASSERT_EQ(ceil_divide(p, chunk), splits);
  const TensorPlan plan{large_tile, splits, chunk, splits == 1 ? 0 : splits * m * n};
  std::vector<double> scratch(static_cast<std::size_t>(ceil_divide(plan.partial_sums, 2)), NAN);
  const TensorDevice device{MathMode::tf32, multiprocessors, {scratch.data(), std::ssize(scratch)}, nullptr};
  ASSERT_EQ(linear_forward_sm80(c.device(), a.device(), b.device(), plan, device), cudaSuccess);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (std::int64_t k = 0; k < p; ++k) {
        sum += a.values[static_cast<std::size_t>(i * p + k)] * b.values[static_cast<std::size_t>(j * p + k)];
      }
      ASSERT_EQ(c.values[static_cast<std::size_t>(i * n + j)], sum)
          << m << " x " << n << " x " << p << ", " << splits << " splits, " << multiprocessors << " blocks, at " << i
          << ", " << j;
    }
  }
}

// Items of one, two, three and more slices, more than the ring has places and fewer; the last chunk shorter than the
// others; one block for all items, several with unequal shares, and one each.
TEST(TensorProduct, BlocksWalkOverTheirItems) {
  for (const std::int64_t p : {16, 33, 65, 97, 200, 331}) {
    for (const int blocks : {1, 2, 5, 1000}) {
      expect_whole_numbers(130, 97, p, 1, false, blocks);
      expect_whole_numbers(130, 140, p, 1, true, blocks);
    }
  }
  for (const std::int64_t splits : {2, 3, 5, 8, 11}) {
    for (const int blocks : {1, 4, 7, 1000}) expect_whole_numbers(67, 70, 32 * splits - 5, splits, false, blocks);
  }
  expect_whole_numbers(131, 35, 64 * 64 - 31, 64, true, 6);
}

TEST(TensorProduct, MissingRoomForPartialSumsIsRefused) {
  Matrix c(64, 64, 1), a(64, 640, 2), b(64, 640, 3);
  const TensorPlan plan{false, 5, 128, 5 * 64 * 64};
  std::vector<double> scratch(5 * 64 * 64 / 2 - 1);
  const TensorDevice device{MathMode::tf32, 1, {scratch.data(), std::ssize(scratch)}, nullptr};
  EXPECT_EQ(linear_forward_sm80(c.device(), a.device(), b.device(), plan, device), cudaErrorInvalidValue);
}

/// The number of blocks must not show in convolutions either: classes of pixels of different sizes, some with fewer
/// tiles than others, some that no tap reaches; chunks of pixels.
TEST(TensorProduct, NumbersOfBlocksDoNotChangeTheBitsOfConvolutions) {
  for (const Convolution& map :
       {Convolution{9, 7, 33, 65, 3, 2, 1}, Convolution{8, 9, 34, 36, 2, 3, 0}, Convolution{5, 5, 130, 33, 3, 1, 1}}) {
    const std::int64_t rows = 18;
    std::vector<std::vector<float>> first;
    for (const int blocks : {1, 2, 3, 1000}) {
      Matrix x(rows, map.in_columns(), 1), w(map.out_channels, map.weight_columns(), 2);
      Matrix grad_y(rows, map.out_columns(), 3), y(rows, map.out_columns(), 4), grad_x(rows, map.in_columns(), 5);
      Matrix grad_w(map.out_channels, map.weight_columns(), 6);
      std::vector<float> workspace(static_cast<std::size_t>(map.weights_workspace(rows)), NAN);
      const TensorDevice device{MathMode::tf32, blocks, {}, nullptr};
      ASSERT_EQ(conv2d_forward_sm80(y.device(), x.device(), w.device(), map, device), cudaSuccess);
      ASSERT_EQ(conv2d_reverse_data_sm80(grad_x.device(), grad_y.device(), w.device(), map, Update::overwrite, device),
                cudaSuccess);
      ASSERT_EQ(conv2d_reverse_weights_sm80(grad_w.device(), grad_y.device(), x.device(), map, Update::overwrite,
                                            workspace.data(), device),
                cudaSuccess);
      const std::vector<std::vector<float>> values{y.values, grad_x.values, grad_w.values};
      if (first.empty()) first = values;
      EXPECT_EQ(values, first) << blocks;
    }
  }
}

TEST(TensorProduct, ThereIsNoKernelForFp32) {
  Matrix c(64, 64, 1), a(64, 64, 2), b(64, 64, 3);
  const TensorPlan plan = tensor_plan(64, 64, 64, MathMode::tf32, 1);
  EXPECT_EQ(linear_forward_sm80(c.device(), a.device(), b.device(), plan, {MathMode::fp32, 1, {}, nullptr}),
            cudaErrorInvalidValue);
  const Convolution map{1, 1, 64, 64, 1, 1, 0};
  EXPECT_EQ(conv2d_forward_sm80(c.device(), a.device(), b.device(), map, {MathMode::fp32, 1, {}, nullptr}),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bracket::simt
