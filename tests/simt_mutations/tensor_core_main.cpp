// Runs the tensor-core launchers on ragged shapes and compares with plain loops. Exits with 1 at the first difference
// or error, whose text it prints. Small whole numbers are exact in every mode, and so are their sums; a product with
// the identity shows how operands are rounded.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cuda/convolution_sm80.h"

namespace {

using bracket::MathMode;
using bracket::Update;
namespace target = bracket::simt;

constexpr MathMode kModes[] = {MathMode::tf32x3, MathMode::tf32, MathMode::bf16};

std::uint32_t random_state = 1;
float random_whole() {
  random_state = random_state * 1664525u + 1013904223u;
  return static_cast<float>(random_state >> 8 & 15u) - 7.5f + 0.5f;
}

struct Matrix {
  std::int64_t rows, cols, ld;
  std::vector<float> values;

  Matrix(std::int64_t num_rows, std::int64_t num_cols, std::int64_t padding, bool random)
      : rows(num_rows), cols(num_cols), ld(num_cols + padding), values(static_cast<std::size_t>(num_rows * ld), NAN) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) (*this)(i, j) = random ? random_whole() : 1.0f;
    }
  }
  float& operator()(std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * ld + j)]; }
  target::DeviceMatrix<float> device() { return {values.data(), rows, cols, ld}; }
};

void require(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  std::printf("%s: %s\n", what.c_str(), cudaGetErrorString(status));
  std::exit(1);
}

/// c - 1 = sum over p of a(i, p) b(p, j), c having been accumulated onto 1.
template <class A, class B>
void expect(Matrix& c, std::int64_t depth, A a, B b, const std::string& what) {
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t j = 0; j < c.cols; ++j) {
      float sum = 1;
      for (std::int64_t p = 0; p < depth; ++p) sum += a(i, p) * b(p, j);
      if (c(i, j) == sum) continue;
      std::printf("%s: [%d, %d] is %g, expected %g\n", what.c_str(), static_cast<int>(i), static_cast<int>(j),
                  static_cast<double>(c(i, j)), static_cast<double>(sum));
      std::exit(1);
    }
  }
}

void run_layer(std::int64_t rows, std::int64_t in, std::int64_t out, std::int64_t padding, MathMode mode,
               int multiprocessors) {
  std::vector<double> scratch(1 << 17, NAN);
  const target::TensorDevice device{mode, multiprocessors, {scratch.data(), 1 << 17}, nullptr};
  const auto plan = [&](std::int64_t m, std::int64_t n, std::int64_t p) {
    return bracket::tensor_plan(m, n, p, mode, multiprocessors);
  };
  Matrix x(rows, in, padding, true), w(out, in, padding, true), grad_y(rows, out, padding, true);
  Matrix grad_x(rows, in, 0, false), grad_w(out, in, 0, false), y(rows, out, 0, false);
  const std::string what = std::to_string(rows) + " x " + std::to_string(in) + " -> " + std::to_string(out) +
                           ", mode " + std::to_string(static_cast<int>(mode));
  require(target::linear_forward_sm80(y.device(), x.device(), w.device(), plan(rows, out, in), device),
          "forward " + what);
  for (float& value : y.values) value += 1;
  expect(
      y, in, [&](auto i, auto p) { return x(i, p); }, [&](auto p, auto j) { return w(j, p); }, "forward " + what);
  require(target::linear_reverse_data_sm80(grad_x.device(), grad_y.device(), w.device(), Update::accumulate,
                                           plan(rows, in, out), device),
          "reverse data " + what);
  expect(
      grad_x, out, [&](auto i, auto p) { return grad_y(i, p); }, [&](auto p, auto j) { return w(p, j); },
      "reverse data " + what);
  require(target::linear_reverse_weights_sm80(grad_w.device(), grad_y.device(), x.device(), Update::accumulate,
                                              plan(out, in, rows), device),
          "reverse weights " + what);
  expect(
      grad_w, rows, [&](auto i, auto p) { return grad_y(p, i); }, [&](auto p, auto j) { return x(p, j); },
      "reverse weights " + what);
}

/// The three products of a convolution, each element from the terms that it has.
void run_convolution(std::int64_t rows, const bracket::Convolution& map, std::int64_t padding, MathMode mode,
                     int multiprocessors) {
  const target::TensorDevice device{mode, multiprocessors, {}, nullptr};
  Matrix x(rows, map.in_columns(), padding, true), w(map.out_channels, map.weight_columns(), padding, true);
  Matrix grad_y(rows, map.out_columns(), padding, true), y(rows, map.out_columns(), 0, false);
  Matrix grad_x(rows, map.in_columns(), 0, false), grad_w(map.out_channels, map.weight_columns(), 0, false);
  Matrix expected_y = y, expected_x = grad_x, expected_w = grad_w;
  for (float& value : expected_y.values) value = 0;
  const auto add = [&](std::int64_t i, std::int64_t out, std::int64_t in, std::int64_t tap) {
    for (std::int64_t o = 0; o < map.out_channels; ++o) {
      for (std::int64_t c = 0; c < map.in_channels; ++c) {
        const std::int64_t in_column = in * map.in_channels + c;
        const std::int64_t out_column = out * map.out_channels + o;
        const std::int64_t weight = tap * map.in_channels + c;
        expected_y(i, out_column) += x(i, in_column) * w(o, weight);
        expected_x(i, in_column) += grad_y(i, out_column) * w(o, weight);
        expected_w(o, weight) += grad_y(i, out_column) * x(i, in_column);
      }
    }
  };
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t out = 0; out < map.out_height() * map.out_width(); ++out) {
      for (std::int64_t tap = 0; tap < map.kernel * map.kernel; ++tap) {
        const std::int64_t in_y = out / map.out_width() * map.stride + tap / map.kernel - map.padding;
        const std::int64_t in_x = out % map.out_width() * map.stride + tap % map.kernel - map.padding;
        if (in_y < 0 || in_y >= map.in_height || in_x < 0 || in_x >= map.in_width) continue;
        add(i, out, in_y * map.in_width + in_x, tap);
      }
    }
  }
  std::vector<float> workspace(static_cast<std::size_t>(map.weights_workspace(rows)), NAN);
  const std::string what = "mode " + std::to_string(static_cast<int>(mode)) + ", kernel " + std::to_string(map.kernel);
  require(target::conv2d_forward_sm80(y.device(), x.device(), w.device(), map, device), "forward, " + what);
  require(
      target::conv2d_reverse_data_sm80(grad_x.device(), grad_y.device(), w.device(), map, Update::accumulate, device),
      "reverse data, " + what);
  require(target::conv2d_reverse_weights_sm80(grad_w.device(), grad_y.device(), x.device(), map, Update::accumulate,
                                              workspace.data(), device),
          "reverse weights, " + what);
  const auto require_same = [&](const Matrix& actual, const Matrix& wanted, const char* name) {
    if (actual.values == wanted.values) return;
    std::printf("convolution, %s: %s differs\n", what.c_str(), name);
    std::exit(1);
  };
  require_same(y, expected_y, "y");
  require_same(grad_x, expected_x, "grad_x");
  require_same(grad_w, expected_w, "grad_w");
}

/// What an epilogue makes of c, the result of the same product without one. Tangent rows read the mask that the primal
/// rows of a matrix of the same numbers wrote, moved on by their first row.
struct Epilogue {
  static constexpr std::int64_t kFirst = 1;
  static constexpr std::int64_t kTangents = 2;
  target::DeviceEpilogue epilogue;
  std::int64_t channels, bytes;
  std::vector<float> bias;
  std::vector<std::uint8_t> mask;  // of kFirst + rows rows

  Epilogue(std::int64_t rows, std::int64_t columns, std::int64_t num_channels)
      : channels(num_channels),
        bytes(columns / num_channels * ((num_channels + 7) / 8)),
        bias(static_cast<std::size_t>(num_channels)),
        mask(static_cast<std::size_t>((kFirst + rows) * bytes), 0xff) {
    for (float& value : bias) value = random_whole();
    epilogue.channels = channels;
    epilogue.pixel_bytes = (channels + 7) / 8;
    epilogue.slope = 0.5f;
    epilogue.function = bracket::Activation::leaky_relu;
    epilogue.mask = {mask.data(), kFirst + rows, bytes, bytes};
  }
  const target::DeviceEpilogue& primal() {
    epilogue.kind = target::DeviceEpilogue::Kind::masked;
    epilogue.bias = bias.data();
    epilogue.first = kFirst;
    return epilogue;
  }
  const target::DeviceEpilogue& tangent() {
    epilogue.kind = target::DeviceEpilogue::Kind::tangent;
    epilogue.bias = nullptr;
    epilogue.first = kFirst;
    epilogue.tangents = kTangents;
    return epilogue;
  }
  const target::DeviceEpilogue& curve(Matrix& before) {
    epilogue.kind = target::DeviceEpilogue::Kind::curve;
    epilogue.function = bracket::Activation::sigmoid;
    epilogue.bias = bias.data();
    epilogue.before = before.device();
    return epilogue;
  }
  bool bit(std::int64_t row, std::int64_t j) const {
    const std::int64_t channel = j % channels;
    const std::int64_t byte = (kFirst + row) * bytes + j / channels * ((channels + 7) / 8) + channel / 8;
    return (mask[static_cast<std::size_t>(byte)] >> (channel % 8) & 1) != 0;
  }
};

/// product(y, epilogue) of `rows` rows of pixels of so many channels.
template <class F>
void run_epilogue(std::int64_t rows, std::int64_t columns, std::int64_t channels, const F& product,
                  const std::string& what) {
  Matrix c(rows, columns, 3, false), y = c, tangent = c, curve = c, before = c;
  Epilogue epilogue(rows, columns, channels);
  product(c, target::DeviceEpilogue{});
  product(y, epilogue.primal());
  product(tangent, epilogue.tangent());
  product(curve, epilogue.curve(before));
  const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const float v = c(i, j) + epilogue.bias[static_cast<std::size_t>(j % channels)];
      const bool of_tangent = epilogue.bit(i / Epilogue::kTangents, j);
      const bool positive = !(v <= 0);
      const float sigmoid = 1 / (1 + std::exp(-v));
      const bool right = same(y(i, j), positive ? v : 0.5f * v) && epilogue.bit(i, j) == positive &&
                         same(tangent(i, j), of_tangent ? c(i, j) : 0.5f * c(i, j)) && same(before(i, j), c(i, j)) &&
                         (std::isnan(v) ? std::isnan(curve(i, j)) : std::abs(curve(i, j) - sigmoid) < 1e-6f);
      if (right) continue;
      std::printf("epilogue, %s: [%d, %d] of %g + %g is %g\n", what.c_str(), static_cast<int>(i), static_cast<int>(j),
                  static_cast<double>(c(i, j)), static_cast<double>(v - c(i, j)), static_cast<double>(y(i, j)));
      std::exit(1);
    }
    for (std::int64_t byte = 0; byte < epilogue.bytes; ++byte) {
      const unsigned used = (channels % 8 == 0) || (byte + 1) % ((channels + 7) / 8) != 0 ? 8 : channels % 8;
      if (epilogue.mask[static_cast<std::size_t>((i + 1) * epilogue.bytes + byte)] >> used == 0) continue;
      std::printf("epilogue, %s: unused bits of byte %d of row %d\n", what.c_str(), static_cast<int>(byte),
                  static_cast<int>(i));
      std::exit(1);
    }
  }
}

void run_epilogues(MathMode mode) {
  std::vector<double> scratch(1 << 17, NAN);
  const auto linear = [&](std::int64_t rows, std::int64_t in, std::int64_t out, int multiprocessors) {
    Matrix x(rows, in, 1, true), w(out, in, 0, true);
    x(1, 2) = NAN;  // a row of NaN, which is positive, also where there is no column
    const target::TensorDevice device{mode, multiprocessors, {scratch.data(), 1 << 17}, nullptr};
    const bracket::TensorPlan plan = bracket::tensor_plan(rows, out, in, mode, multiprocessors);
    run_epilogue(
        rows, out, out,
        [&](Matrix& y, const target::DeviceEpilogue& epilogue) {
          require(target::linear_forward_sm80(y.device(), x.device(), w.device(), plan, device, epilogue), "epilogue");
        },
        "dense layer, " + std::to_string(in) + " -> " + std::to_string(out));
  };
  linear(66, 36, 75, 100);  // small tiles
  linear(130, 40, 141, 1);  // large tiles
  linear(40, 1300, 45, 4);  // chunks
  const bracket::Convolution map{7, 6, 37, 35, 3, 2, 1};
  const target::TensorDevice device{mode, 1, {}, nullptr};
  Matrix images(4, map.in_columns(), 2, true), gradient(4, map.out_columns(), 1, true);
  Matrix w(map.out_channels, map.weight_columns(), 0, true);
  run_epilogue(
      4, map.out_columns(), map.out_channels,
      [&](Matrix& y, const target::DeviceEpilogue& epilogue) {
        require(target::conv2d_forward_sm80(y.device(), images.device(), w.device(), map, device, epilogue),
                "epilogue");
      },
      "convolution");
  run_epilogue(
      4, map.in_columns(), map.in_channels,
      [&](Matrix& y, const target::DeviceEpilogue& epilogue) {
        require(target::conv2d_reverse_data_sm80(y.device(), gradient.device(), w.device(), map, Update::overwrite,
                                                 device, epilogue),
                "epilogue");
      },
      "transposed convolution");
}

/// A symmetric x times the identity and the identity times x: x rounded to 11 or 8 bits, or but for 2^-22.
void run_rounding(MathMode mode) {
  constexpr std::int64_t kSize = 40;
  const target::TensorDevice device{mode, 1, {}, nullptr};
  Matrix x(kSize, kSize, 0, false), identity(kSize, kSize, 0, false), y(kSize, kSize, 0, false);
  for (std::int64_t i = 0; i < kSize; ++i) {
    for (std::int64_t j = 0; j < kSize; ++j) {
      x(i, j) = 1 + static_cast<float>((i + j) * kSize * 4999 % 8191) * 0x1p-23f * 1021;
      identity(i, j) = i == j ? 1.0f : 0.0f;
    }
  }
  const double limit = mode == MathMode::tf32x3 ? 0x1p-22 : mode == MathMode::tf32 ? 0x1p-11 : 0x1p-8;
  for (const bool left : {true, false}) {
    Matrix& a = left ? x : identity;
    Matrix& b = left ? identity : x;
    const bracket::TensorPlan plan = bracket::tensor_plan(kSize, kSize, kSize, mode, 1);
    require(target::linear_forward_sm80(y.device(), a.device(), b.device(), plan, device), "rounding");
    for (std::size_t k = 0; k < x.values.size(); ++k) {
      const double error = std::abs(static_cast<double>(y.values[k]) - static_cast<double>(x.values[k]));
      if (error <= limit * static_cast<double>(x.values[k])) continue;
      std::printf("rounding, mode %d: %.9g became %.9g\n", static_cast<int>(mode), static_cast<double>(x.values[k]),
                  static_cast<double>(y.values[k]));
      std::exit(1);
    }
  }
}

}  // namespace

int main() {
  for (const MathMode mode : kModes) {
    run_layer(33, 100, 37, 0, mode, 1);
    run_layer(65, 36, 70, 3, mode, 100);  // small tiles
    run_layer(130, 40, 129, 2, mode, 1);  // large tiles
    run_layer(40, 33, 1300, 0, mode, 4);  // nine chunks of the sum for grad_x
    run_rounding(mode);
    run_epilogues(mode);
    run_convolution(3, {7, 6, 36, 33, 3, 2, 1}, 0, mode, 1);
    run_convolution(2, {7, 6, 34, 33, 2, 3, 1}, 1, mode, 1);   // pixels that no tap reaches
    run_convolution(9, {8, 9, 6, 35, 4, 1, 2}, 2, mode, 100);  // chunks of pixels
  }
  return 0;
}
