// Layers of image networks other than convolutions, at batch 64: batch normalisation behind DCGAN-32's transposed
// convolutions, pools and upsampling of ResNet-64, and a maximum.
#include <array>

#include "bench/libraries/libraries.h"
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kBatch = 64;
constexpr double kMomentum = 0.1, kEpsilon = 1e-5;

struct NormShape {
  std::int64_t side, channels;
  std::int64_t rows() const { return kBatch * side * side; }
};
constexpr std::array kNormShapes = {NormShape{8, 256}, NormShape{16, 128}, NormShape{32, 64}};

void add(std::vector<BenchDevice>& devices, const std::string& name, std::int64_t elements, std::int64_t depth,
         std::function<Work(Operands&)> make) {
  OpCase op;
  op.depth = depth;
  op.name = name;
  op.bytes = static_cast<double>(elements * dtype_bytes(op.dtype));
  op.make = std::move(make);
  op.gpu_only = true;
  if (const ImageLibrary* const library = cudnn()) op.library = library->name;
  register_case(op, devices);
}

void register_batch_norm(std::vector<BenchDevice>& devices, const NormShape& shape) {
  const std::int64_t n = shape.rows(), c = shape.channels, side = shape.side;
  const std::string text = "/" + std::to_string(n) + "x" + std::to_string(c);
  add(devices, "batch_norm_train_forward" + text, 2 * n * c, n, [=](Operands& operands) -> Work {
    const Tensor x = operands.normal({n, c}), gamma = operands.normal({c}), beta = operands.normal({c});
    const Tensor y = operands.result({n, c}), mean = operands.result({c}), inv_std = operands.result({c});
    return {
        [=](Ops& ops) { ops.batch_norm_train_forward(y, mean, inv_std, {}, {}, x, gamma, beta, kMomentum, kEpsilon); },
        {{y}, {mean}, {inv_std}},
        [=, &operands] {
          return LibraryWork{
              cudnn()->batch_norm_train_forward(operands, y, mean, inv_std, x, gamma, beta, kEpsilon, side)};
        }};
  });
  add(devices, "batch_norm_train_reverse" + text, 3 * n * c, n, [=](Operands& operands) -> Work {
    const Tensor x = operands.normal({n, c}), gamma = operands.normal({c}), beta = operands.normal({c});
    const Tensor y = operands.result({n, c}), mean = operands.result({c}), inv_std = operands.result({c});
    operands.ops().batch_norm_train_forward(y, mean, inv_std, {}, {}, x, gamma, beta, kMomentum, kEpsilon);
    const Tensor grad_y = operands.normal({n, c}), grad_x = operands.result({n, c});
    const Tensor grad_gamma = operands.result({c}), grad_beta = operands.result({c});
    return {[=](Ops& ops) {
              ops.batch_norm_train_reverse(grad_x, grad_gamma, grad_beta, grad_y, x, gamma, mean, inv_std,
                                           Update::overwrite);
            },
            {{grad_x}, {grad_gamma}, {grad_beta}},
            [=, &operands] {
              return LibraryWork{cudnn()->batch_norm_train_reverse(operands, grad_x, grad_gamma, grad_beta, grad_y, x,
                                                                   gamma, mean, inv_std, kEpsilon, side)};
            }};
  });
}

/// By the large image.
constexpr std::array kWindows = {Window{64, 64, 64, 2, 0.25}, Window{16, 16, 256, 2, 0.25}, Window{4, 4, 1024, 4, 1},
                                 Window{64, 64, 128, 2, 1}};
constexpr Window kMaximum{32, 32, 64, 2, 1};

std::string text_of(const Window& map) {
  return "/" + std::to_string(kBatch) + "x" + std::to_string(map.height) + "x" + std::to_string(map.width) + "x" +
         std::to_string(map.channels) + "_by_" + std::to_string(map.window);
}

void register_windows(std::vector<BenchDevice>& devices, const Window& map) {
  const std::int64_t large = map.large_cols(), small = map.small_cols(), elements = kBatch * (large + small);
  add(devices, "window_sum" + text_of(map), elements, map.window * map.window, [=](Operands& operands) -> Work {
    const Tensor x = operands.normal({kBatch, large}), y = operands.result({kBatch, small});
    return {[=](Ops& ops) { ops.window_sum(y, x, map, Update::overwrite); },
            {{y}},
            [=, &operands] { return LibraryWork{cudnn()->window_sum(operands, y, x, map)}; }};
  });
  add(devices, "window_spread" + text_of(map), elements, 1, [=](Operands& operands) -> Work {
    const Tensor x = operands.normal({kBatch, small}), y = operands.result({kBatch, large});
    return {[=](Ops& ops) { ops.window_spread(y, x, map, Update::overwrite); },
            {{y}},
            [=, &operands] { return LibraryWork{cudnn()->window_spread(operands, y, x, map)}; }};
  });
}

void register_max_pool(std::vector<BenchDevice>& devices, const Window& map) {
  const std::int64_t large = map.large_cols(), small = map.small_cols(), elements = kBatch * (large + small);
  add(devices, "max_pool_forward" + text_of(map), elements, 1, [=](Operands& operands) -> Work {
    const Tensor x = operands.normal({kBatch, large}), y = operands.result({kBatch, small});
    const Tensor choice = operands.result({kBatch, small}, DType::u8);
    return {[=](Ops& ops) { ops.max_pool_forward(y, choice, x, map); },
            {{y}},
            [=, &operands] { return LibraryWork{cudnn()->max_pool_forward(operands, y, x, map)}; }};
  });
  add(devices, "max_pool_reverse" + text_of(map), elements, 1, [=](Operands& operands) -> Work {
    const Tensor x = operands.normal({kBatch, large}), y = operands.result({kBatch, small});
    const Tensor choice = operands.result({kBatch, small}, DType::u8);
    operands.ops().max_pool_forward(y, choice, x, map);
    const Tensor grad_y = operands.normal({kBatch, small}), grad_x = operands.result({kBatch, large});
    return {[=](Ops& ops) { ops.max_pool_reverse(grad_x, grad_y, choice, map); },
            {{grad_x, {}, {0, 1}}},  // of the third image a window has two largest pixels, and a library its own choice
            [=, &operands] { return LibraryWork{cudnn()->max_pool_reverse(operands, grad_x, grad_y, y, x, map)}; }};
  });
}

}  // namespace

void register_image_layer_cases(std::vector<BenchDevice>& devices) {
  for (const NormShape& shape : kNormShapes) register_batch_norm(devices, shape);
  for (const Window& map : kWindows) register_windows(devices, map);
  register_max_pool(devices, kMaximum);
}

}  // namespace bracket::bench
