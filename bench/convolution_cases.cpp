// Convolutions on the layers of DCGAN-32 at batch 64: E1 to E7 of the energy; G1 to G4 of the generator, whose G1 to G3
// are transposed: their forward is the case "conv2d_reverse_data", and the reverse. Checked against loops in double.
#include <array>
#include <cstddef>
#include <span>
#include <utility>

#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kBatch = 64;

struct Layer {
  const char* name;
  Convolution map;
};

constexpr std::array kLayers = {
    Layer{"E1", {32, 32, 3, 64, 3, 1, 1}},    Layer{"E2", {32, 32, 64, 64, 4, 2, 1}},
    Layer{"E3", {16, 16, 64, 128, 3, 1, 1}},  Layer{"E4", {16, 16, 128, 128, 4, 2, 1}},
    Layer{"E5", {8, 8, 128, 256, 3, 1, 1}},   Layer{"E6", {8, 8, 256, 256, 4, 2, 1}},
    Layer{"E7", {4, 4, 256, 512, 3, 1, 1}},   Layer{"G1", {8, 8, 256, 512, 4, 2, 1}},
    Layer{"G2", {16, 16, 128, 256, 4, 2, 1}}, Layer{"G3", {32, 32, 64, 128, 4, 2, 1}},
    Layer{"G4", {32, 32, 64, 3, 3, 1, 1}},
};

/// f(out, in, weight): offsets of the first channels of the pixels and of the tap in one image, for every tap that
/// lies on the image.
template <class F>
void for_each_tap(const Convolution& m, F&& f) {
  for (std::int64_t out_y = 0; out_y < m.out_height(); ++out_y) {
    for (std::int64_t out_x = 0; out_x < m.out_width(); ++out_x) {
      for (std::int64_t tap = 0; tap < m.kernel * m.kernel; ++tap) {
        const std::int64_t y = out_y * m.stride + tap / m.kernel - m.padding;
        const std::int64_t x = out_x * m.stride + tap % m.kernel - m.padding;
        if (y < 0 || y >= m.in_height || x < 0 || x >= m.in_width) continue;
        f((out_y * m.out_width() + out_x) * m.out_channels, (y * m.in_width + x) * m.in_channels, tap * m.in_channels);
      }
    }
  }
}

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Work forward(Operands& operands, const Convolution& m) {
  const Tensor x = operands.normal({kBatch, m.in_columns()}), w = operands.normal({m.out_channels, m.weight_columns()});
  const Tensor y = operands.result({kBatch, m.out_columns()});
  const std::vector<double> xs = operands.values(x), ws = operands.values(w);
  std::vector<double> expected(at(y.size()));
  for (std::int64_t i = 0; i < kBatch; ++i) {
    for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t weight) {
      const double* pixel = &xs[at(i * m.in_columns() + in)];
      for (std::int64_t o = 0; o < m.out_channels; ++o) {
        const double* weights = &ws[at(o * m.weight_columns() + weight)];
        double sum = 0;
        for (std::int64_t c = 0; c < m.in_channels; ++c) sum += pixel[c] * weights[c];
        expected[at(i * m.out_columns() + out + o)] += sum;
      }
    });
  }
  return {[=](Ops& ops) { ops.conv2d_forward(y, x, w, m); }, {{y, std::move(expected)}}};
}

Work reverse_data(Operands& operands, const Convolution& m) {
  const Tensor grad_y = operands.normal({kBatch, m.out_columns()});
  const Tensor w = operands.normal({m.out_channels, m.weight_columns()});
  const Tensor grad_x = operands.result({kBatch, m.in_columns()});
  const std::vector<double> ys = operands.values(grad_y), ws = operands.values(w);
  std::vector<double> expected(at(grad_x.size()));
  for (std::int64_t i = 0; i < kBatch; ++i) {
    for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t weight) {
      double* pixel = &expected[at(i * m.in_columns() + in)];
      for (std::int64_t o = 0; o < m.out_channels; ++o) {
        const double* weights = &ws[at(o * m.weight_columns() + weight)];
        const double factor = ys[at(i * m.out_columns() + out + o)];
        for (std::int64_t c = 0; c < m.in_channels; ++c) pixel[c] += factor * weights[c];
      }
    });
  }
  return {[=](Ops& ops) { ops.conv2d_reverse_data(grad_x, grad_y, w, m, Update::overwrite); },
          {{grad_x, std::move(expected)}}};
}

Work reverse_weights(Operands& operands, const Convolution& m) {
  const Tensor grad_y = operands.normal({kBatch, m.out_columns()}), x = operands.normal({kBatch, m.in_columns()});
  const Tensor grad_w = operands.result({m.out_channels, m.weight_columns()});
  const Tensor workspace = operands.result({m.weights_workspace(kBatch)});
  const std::vector<double> ys = operands.values(grad_y), xs = operands.values(x);
  std::vector<double> expected(at(grad_w.size()));
  for (std::int64_t i = 0; i < kBatch; ++i) {
    for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t weight) {
      const double* pixel = &xs[at(i * m.in_columns() + in)];
      for (std::int64_t o = 0; o < m.out_channels; ++o) {
        double* weights = &expected[at(o * m.weight_columns() + weight)];
        const double factor = ys[at(i * m.out_columns() + out + o)];
        for (std::int64_t c = 0; c < m.in_channels; ++c) weights[c] += factor * pixel[c];
      }
    });
  }
  return {[=](Ops& ops) { ops.conv2d_reverse_weights(grad_w, grad_y, x, m, Update::overwrite, workspace); },
          {{grad_w, std::move(expected)}}};
}

struct Direction {
  const char* name;
  Work (*make)(Operands&, const Convolution&);
};
constexpr std::array kDirections = {Direction{"conv2d_forward", forward},
                                    Direction{"conv2d_reverse_data", reverse_data},
                                    Direction{"conv2d_reverse_weights", reverse_weights}};

/// Also in the math modes that only GPUs have: a layer of each kind, E3, E6 and G2.
constexpr std::array kTensorLayers = {kLayers[2], kLayers[5], kLayers[8]};

void register_layers(std::span<const Layer> layers, const Direction& direction, MathMode mode,
                     std::vector<BenchDevice>& devices) {
  for (const Layer& layer : layers) {
    const Convolution& m = layer.map;
    OpCase op;
    op.math = mode;
    op.gpu_only = mode != MathMode::fp32;
    op.name = std::string(direction.name) + "/" + layer.name + "_" + std::to_string(kBatch) + "x" +
              std::to_string(m.in_height) + "x" + std::to_string(m.in_width) + "x" + std::to_string(m.in_channels) +
              "_to_" + std::to_string(m.out_channels) + "_k" + std::to_string(m.kernel) + "s" +
              std::to_string(m.stride);
    op.flops = 2.0 * static_cast<double>(kBatch * m.out_columns() * m.weight_columns());
    op.bytes = static_cast<double>((kBatch * (m.in_columns() + m.out_columns()) + m.out_channels * m.weight_columns()) *
                                   dtype_bytes(op.dtype));
    op.make = [make = direction.make, m](Operands& operands) { return make(operands, m); };
    register_case(op, devices);
  }
}

}  // namespace

void register_convolution_cases(std::vector<BenchDevice>& devices) {
  for (const Direction& direction : kDirections) {
    register_layers(kLayers, direction, MathMode::fp32, devices);
    for (const MathMode mode : {MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
      register_layers(kTensorLayers, direction, mode, devices);
    }
  }
}

}  // namespace bracket::bench
