// The public side of the op list: convolutions. See ops.cpp.
#include <algorithm>

#include "kernels/operand_check.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// Tiles of 64 x 64 weights times chunks of pixels: enough work items for a GPU of 132 multiprocessors, and 8 MiB of
/// floats at most. A chunk of 256 pixels costs 64 times what adding it does.
constexpr std::int64_t kWeightTile = 64;
constexpr std::int64_t kTileChunks = 512;
constexpr std::int64_t kMinChunkPixels = 256;

/// Kernels index the elements of one image, and of the weights, with 32 bits.
constexpr std::int64_t kMaxElements = 0x7fffffff;
/// Below these no product of the check overflows 64 bits.
constexpr std::int64_t kMaxExtent = std::int64_t{1} << 16;
constexpr std::int64_t kMaxChannels = std::int64_t{1} << 20;
constexpr std::int64_t kMaxKernel = std::int64_t{1} << 10;

std::string describe(const Convolution& map) {
  return std::to_string(map.in_height) + " x " + std::to_string(map.in_width) + " pixels, " +
         std::to_string(map.in_channels) + " -> " + std::to_string(map.out_channels) + " channels, kernel " +
         std::to_string(map.kernel) + ", stride " + std::to_string(map.stride) + ", padding " +
         std::to_string(map.padding);
}

void check_extent(const OperandCheck& check, const char* name, std::int64_t value, std::int64_t low,
                  std::int64_t high) {
  if (value >= low && value <= high) return;
  check.fail(std::string(name) + " is " + std::to_string(value) + "; it must lie between " + std::to_string(low) +
             " and " + std::to_string(high));
}

void check_convolution(const OperandCheck& check, const Convolution& map) {
  check_extent(check, "in_height", map.in_height, 1, kMaxExtent);
  check_extent(check, "in_width", map.in_width, 1, kMaxExtent);
  check_extent(check, "in_channels", map.in_channels, 1, kMaxChannels);
  check_extent(check, "out_channels", map.out_channels, 1, kMaxChannels);
  check_extent(check, "kernel", map.kernel, 1, kMaxKernel);
  check_extent(check, "stride", map.stride, 1, kMaxExtent);
  check_extent(check, "padding", map.padding, 0, kMaxExtent);
  const std::int64_t smaller = std::min(map.in_height, map.in_width) + 2 * map.padding;
  if (smaller < map.kernel) {
    check.fail("the convolution (" + describe(map) + ") has no output; its kernel must fit the padded image, " +
               std::to_string(smaller) + " pixels on the shorter side");
  }
  const std::int64_t largest = std::max({map.in_columns(), map.out_columns(), map.out_channels * map.weight_columns()});
  if (largest > kMaxElements) {
    check.fail("the convolution (" + describe(map) + ") has an image or weights of " + std::to_string(largest) +
               " elements; the limit is " + std::to_string(kMaxElements));
  }
}

void check_box(const OperandCheck& check, const KernelBox& map) {
  check_extent(check, "out_channels", map.out_channels, 1, kMaxChannels);
  check_extent(check, "in_channels", map.in_channels, 1, kMaxChannels);
  check_extent(check, "kernel", map.kernel, 1, kMaxKernel);
  check_extent(check, "window", map.window, 1, kMaxKernel);
  check.finite("scale", map.scale);
}

}  // namespace

std::int64_t Convolution::weight_chunks(std::int64_t rows) const noexcept {
  const std::int64_t tiles =
      (out_channels + kWeightTile - 1) / kWeightTile * ((weight_columns() + kWeightTile - 1) / kWeightTile);
  const std::int64_t pixels = rows * out_height() * out_width();
  return std::clamp(kTileChunks / tiles, std::int64_t{1}, std::max<std::int64_t>(1, pixels / kMinChunkPixels));
}

std::int64_t Convolution::weights_workspace(std::int64_t rows) const noexcept {
  const std::int64_t chunks = weight_chunks(rows);
  return chunks == 1 ? 0 : chunks * out_channels * weight_columns();
}

void Ops::conv2d_forward(Tensor y, Tensor x, Tensor w, const Convolution& map, const ProductEpilogue& epilogue) {
  const OperandCheck check("conv2d_forward", "y", y);
  check_convolution(check, map);
  check.present("x", x);
  check.matrix("y", y, x.rows(), map.out_columns());
  check.matrix("x", x, y.rows(), map.in_columns());
  check.matrix("w", w, map.out_channels, map.weight_columns());
  check.distinct("y", y, "x", x);
  check.distinct("y", y, "w", w);
  check.epilogue(epilogue, y, map.out_channels);
  check.distinct("epilogue.before", epilogue.before, "x", x);
  check.distinct("epilogue.before", epilogue.before, "w", w);
  const DeviceScope scope(*this);
  do_conv2d_forward(y, x, w, map, epilogue);
}

void Ops::conv2d_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, const Convolution& map, Update update,
                              const ProductEpilogue& epilogue) {
  const OperandCheck check("conv2d_reverse_data", "grad_x", grad_x);
  check_convolution(check, map);
  check.present("grad_y", grad_y);
  check.matrix("grad_x", grad_x, grad_y.rows(), map.in_columns());
  check.matrix("grad_y", grad_y, grad_x.rows(), map.out_columns());
  check.matrix("w", w, map.out_channels, map.weight_columns());
  check.distinct("grad_x", grad_x, "grad_y", grad_y);
  check.distinct("grad_x", grad_x, "w", w);
  check.update(update);
  check.epilogue(epilogue, grad_x, map.in_channels);
  check.distinct("epilogue.before", epilogue.before, "grad_y", grad_y);
  check.distinct("epilogue.before", epilogue.before, "w", w);
  if (epilogue.part != ProductEpilogue::Part::none && update != Update::overwrite)
    check.fail("update is accumulate, but there is an epilogue, which is that of a result; use Update::overwrite");
  const DeviceScope scope(*this);
  do_conv2d_reverse_data(grad_x, grad_y, w, map, update, epilogue);
}

void Ops::conv2d_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, const Convolution& map, Update update,
                                 Tensor workspace) {
  const OperandCheck check("conv2d_reverse_weights", "grad_w", grad_w);
  check_convolution(check, map);
  check.present("grad_y", grad_y);
  check.matrix("grad_w", grad_w, map.out_channels, map.weight_columns());
  check.matrix("grad_y", grad_y, grad_y.rows(), map.out_columns());
  check.matrix("x", x, grad_y.rows(), map.in_columns());
  check.distinct("grad_w", grad_w, "grad_y", grad_y);
  check.distinct("grad_w", grad_w, "x", x);
  check.update(update);
  const std::int64_t needed = map.weights_workspace(x.rows());
  if (needed > 0) {
    check.same_shape("workspace", workspace, "workspace", workspace);
    check.contiguous("workspace", workspace);
    if (workspace.dtype() != grad_w.dtype() || workspace.size() < needed) {
      check.fail("workspace is " + workspace.describe() + "; it must hold at least " + std::to_string(needed) +
                 " elements of " + dtype_name(grad_w.dtype()));
    }
    check.distinct("workspace", workspace, "grad_w", grad_w);
    check.distinct("workspace", workspace, "grad_y", grad_y);
    check.distinct("workspace", workspace, "x", x);
  }
  const DeviceScope scope(*this);
  do_conv2d_reverse_weights(grad_w, grad_y, x, map, update, workspace);
}

void Ops::kernel_box_forward(Tensor y, Tensor w, const KernelBox& map) {
  const OperandCheck check("kernel_box_forward", "y", y);
  check_box(check, map);
  check.matrix("y", y, map.rows(), map.cols());
  check.matrix("w", w, map.out_channels, map.weight_columns());
  check.distinct("y", y, "w", w);
  const DeviceScope scope(*this);
  do_kernel_box_forward(y, w, map);
}

void Ops::kernel_box_reverse(Tensor grad_w, Tensor grad_y, const KernelBox& map, Update update) {
  const OperandCheck check("kernel_box_reverse", "grad_w", grad_w);
  check_box(check, map);
  check.matrix("grad_w", grad_w, map.out_channels, map.weight_columns());
  check.matrix("grad_y", grad_y, map.rows(), map.cols());
  check.distinct("grad_w", grad_w, "grad_y", grad_y);
  check.update(update);
  const DeviceScope scope(*this);
  do_kernel_box_reverse(grad_w, grad_y, map, update);
}

}  // namespace bracket
