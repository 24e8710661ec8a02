// Convolutions on the layers of DCGAN-32 and of ResNet-64 at batch 64. DCGAN-32: E1 to E7 of the energy; G1 to G4 of
// the generator, whose G1 to G3 are transposed: their forward is the case "conv2d_reverse_data", and the reverse.
// ResNet-64, GPUs only: the second convolution of every block (R64 to R4, by image side), the first of the energy and
// the last of the generator, and two of the 1 x 1 convolutions beside blocks. Checked against loops in double.
#include <array>
#include <cstddef>
#include <span>
#include <utility>

#include "bench/libraries/libraries.h"
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kBatch = 64;

struct Layer {
  const char* name;
  Convolution map;
};

constexpr std::array kDcganLayers = {
    Layer{"E1", {32, 32, 3, 64, 3, 1, 1}},    Layer{"E2", {32, 32, 64, 64, 4, 2, 1}},
    Layer{"E3", {16, 16, 64, 128, 3, 1, 1}},  Layer{"E4", {16, 16, 128, 128, 4, 2, 1}},
    Layer{"E5", {8, 8, 128, 256, 3, 1, 1}},   Layer{"E6", {8, 8, 256, 256, 4, 2, 1}},
    Layer{"E7", {4, 4, 256, 512, 3, 1, 1}},   Layer{"G1", {8, 8, 256, 512, 4, 2, 1}},
    Layer{"G2", {16, 16, 128, 256, 4, 2, 1}}, Layer{"G3", {32, 32, 64, 128, 4, 2, 1}},
    Layer{"G4", {32, 32, 64, 3, 3, 1, 1}},
};

constexpr std::array kResnetLayers = {
    Layer{"R64_first", {64, 64, 3, 64, 3, 1, 1}},   Layer{"R64", {64, 64, 64, 64, 3, 1, 1}},
    Layer{"R32", {32, 32, 128, 128, 3, 1, 1}},      Layer{"R16", {16, 16, 256, 256, 3, 1, 1}},
    Layer{"R8", {8, 8, 512, 512, 3, 1, 1}},         Layer{"R4", {4, 4, 1024, 1024, 3, 1, 1}},
    Layer{"R64_last", {64, 64, 64, 3, 3, 1, 1}},    Layer{"R16_beside", {16, 16, 64, 128, 1, 1, 0}},
    Layer{"R4_beside", {4, 4, 1024, 512, 1, 1, 0}},
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

double multiply_adds(const Convolution& m, std::int64_t images) {
  return static_cast<double>(images * m.out_columns() * m.weight_columns());
}

Work forward(Operands& operands, const Convolution& m) {
  const Tensor x = operands.normal({kBatch, m.in_columns()}), w = operands.normal({m.out_channels, m.weight_columns()});
  const Tensor y = operands.result({kBatch, m.out_columns()});
  const std::vector<std::int64_t> images = judged_rows(kBatch, multiply_adds(m, 1));
  const auto expected = [=, &operands] {
    const std::vector<double> xs = operands.values(x), ws = operands.values(w);
    std::vector<double> values(images.size() * at(m.out_columns()));
    double* image = values.data();
    for (const std::int64_t i : images) {
      for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t weight) {
        const double* pixel = &xs[at(i * m.in_columns() + in)];
        for (std::int64_t o = 0; o < m.out_channels; ++o) {
          const double* weights = &ws[at(o * m.weight_columns() + weight)];
          double sum = 0;
          for (std::int64_t c = 0; c < m.in_channels; ++c) sum += pixel[c] * weights[c];
          image[out + o] += sum;
        }
      });
      image += m.out_columns();
    }
    return values;
  };
  return {[=](Ops& ops) { ops.conv2d_forward(y, x, w, m); },
          {{y, expected, images}},
          [=, &operands] { return cudnn()->conv2d_forward(operands, y, x, w, m); }};
}

Work reverse_data(Operands& operands, const Convolution& m) {
  const Tensor grad_y = operands.normal({kBatch, m.out_columns()});
  const Tensor w = operands.normal({m.out_channels, m.weight_columns()});
  const Tensor grad_x = operands.result({kBatch, m.in_columns()});
  const std::vector<std::int64_t> images = judged_rows(kBatch, multiply_adds(m, 1));
  const auto expected = [=, &operands] {
    const std::vector<double> ys = operands.values(grad_y), ws = operands.values(w);
    std::vector<double> values(images.size() * at(m.in_columns()));
    double* image = values.data();
    for (const std::int64_t i : images) {
      for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t weight) {
        for (std::int64_t o = 0; o < m.out_channels; ++o) {
          const double* weights = &ws[at(o * m.weight_columns() + weight)];
          const double factor = ys[at(i * m.out_columns() + out + o)];
          for (std::int64_t c = 0; c < m.in_channels; ++c) image[in + c] += factor * weights[c];
        }
      });
      image += m.in_columns();
    }
    return values;
  };
  return {[=](Ops& ops) { ops.conv2d_reverse_data(grad_x, grad_y, w, m, Update::overwrite); },
          {{grad_x, expected, images}},
          [=, &operands] { return cudnn()->conv2d_reverse_data(operands, grad_x, grad_y, w, m); }};
}

Work reverse_weights(Operands& operands, const Convolution& m) {
  const Tensor grad_y = operands.normal({kBatch, m.out_columns()}), x = operands.normal({kBatch, m.in_columns()});
  const Tensor grad_w = operands.result({m.out_channels, m.weight_columns()});
  const Tensor workspace = operands.result({m.weights_workspace(kBatch)});
  const std::vector<std::int64_t> channels =
      judged_rows(m.out_channels, multiply_adds(m, kBatch) / static_cast<double>(m.out_channels));
  const auto expected = [=, &operands] {
    const std::vector<double> ys = operands.values(grad_y), xs = operands.values(x);
    std::vector<double> values(channels.size() * at(m.weight_columns()));
    for (std::int64_t i = 0; i < kBatch; ++i) {
      for_each_tap(m, [&](std::int64_t out, std::int64_t in, std::int64_t weight) {
        const double* pixel = &xs[at(i * m.in_columns() + in)];
        double* weights = &values[at(weight)];
        for (const std::int64_t o : channels) {
          const double factor = ys[at(i * m.out_columns() + out + o)];
          for (std::int64_t c = 0; c < m.in_channels; ++c) weights[c] += factor * pixel[c];
          weights += m.weight_columns();
        }
      });
    }
    return values;
  };
  return {[=](Ops& ops) { ops.conv2d_reverse_weights(grad_w, grad_y, x, m, Update::overwrite, workspace); },
          {{grad_w, expected, channels}},
          [=, &operands] { return cudnn()->conv2d_reverse_weights(operands, grad_w, grad_y, x, m); }};
}

struct Direction {
  const char* name;
  Work (*make)(Operands&, const Convolution&);
  std::int64_t (*depth)(const Convolution&);
};
constexpr std::array kDirections = {
    Direction{"conv2d_forward", forward, [](const Convolution& m) { return m.weight_columns(); }},
    // No more taps than the windows that overlap, of which there are at most ceil(kernel / stride) either way.
    Direction{"conv2d_reverse_data", reverse_data,
              [](const Convolution& m) {
                const std::int64_t windows = (m.kernel + m.stride - 1) / m.stride;
                return windows * windows * m.out_channels;
              }},
    Direction{"conv2d_reverse_weights", reverse_weights,
              [](const Convolution& m) { return kBatch * m.out_height() * m.out_width(); }}};

void register_layers(std::span<const Layer> layers, const Direction& direction, MathMode mode, bool gpu_only,
                     std::vector<BenchDevice>& devices) {
  for (const Layer& layer : layers) {
    const Convolution& m = layer.map;
    OpCase op;
    op.math = mode;
    op.gpu_only = gpu_only || mode != MathMode::fp32;
    op.name = std::string(direction.name) + "/" + layer.name + "_" + std::to_string(kBatch) + "x" +
              std::to_string(m.in_height) + "x" + std::to_string(m.in_width) + "x" + std::to_string(m.in_channels) +
              "_to_" + std::to_string(m.out_channels) + "_k" + std::to_string(m.kernel) + "s" +
              std::to_string(m.stride);
    op.flops = 2 * multiply_adds(m, kBatch);
    op.bytes = static_cast<double>((kBatch * (m.in_columns() + m.out_columns()) + m.out_channels * m.weight_columns()) *
                                   dtype_bytes(op.dtype));
    op.depth = direction.depth(m);
    op.make = [make = direction.make, m](Operands& operands) { return make(operands, m); };
    if (const ImageLibrary* const library = cudnn()) op.library = library->name;
    register_case(op, devices);
  }
}

}  // namespace

void register_convolution_cases(std::vector<BenchDevice>& devices) {
  for (const Direction& direction : kDirections) {
    for (const MathMode mode : {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
      register_layers(kDcganLayers, direction, mode, false, devices);
      register_layers(kResnetLayers, direction, mode, true, devices);
    }
  }
}

}  // namespace bracket::bench
