// The public side of the op list: what images need besides convolutions. See ops.cpp.
#include "kernels/operand_check.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

void check_masked(const OperandCheck& check, const Tensor& mask, std::int64_t channels, std::int64_t cols,
                  const ActivationKind& kind, const Rows& rows) {
  if (kind.function != Activation::relu && kind.function != Activation::leaky_relu) {
    check.fail("activation function " + std::to_string(static_cast<int>(kind.function)) +
               " has no mask; use relu or leaky_relu");
  }
  check.finite("negative_slope", kind.negative_slope);
  check.divides("channels", channels, "the number of columns", cols);
  check.u8_matrix("mask", mask, rows.primal, cols / channels * ((channels + 7) / 8));
}

/// So that window^2 is far from overflow, for images without pixels, too.
constexpr std::int64_t kLargestWindow = 1024;

void check_window(const OperandCheck& check, const Window& map) {
  check.countable("height, width and channels", {map.height, map.width, map.channels});
  if (map.window > kLargestWindow)
    check.fail("window is " + std::to_string(map.window) + ", must be at most " + std::to_string(kLargestWindow));
  check.divides("window", map.window, "the height", map.height);
  check.divides("window", map.window, "the width", map.width);
  check.finite("scale", map.scale);
}

/// A choice is one byte.
constexpr std::int64_t kMaxPoolWindow = 16;

void check_max_pool(const OperandCheck& check, const Window& map) {
  check_window(check, map);
  if (map.window > kMaxPoolWindow) {
    check.fail("window is " + std::to_string(map.window) + "; a choice is one byte, so it must be at most " +
               std::to_string(kMaxPoolWindow));
  }
  if (map.scale != 1) check.range("scale", map.scale, 1, 1);
}

}  // namespace

void Ops::masked_activation_forward(Stacked y, Tensor mask, Stacked x, Tensor bias, std::int64_t channels,
                                    ActivationKind kind, const Rows& rows) {
  const bool primal = !y.primal.absent();
  const OperandCheck check("masked_activation_forward", primal ? "y.primal" : "y.tangent",
                           primal ? y.primal : y.tangent);
  const std::int64_t cols = primal ? y.primal.cols() : y.tangent.cols();
  check.rows(rows);
  check.stacked_output("y", y, rows, cols);
  check.stacked_input("x", x, primal, !y.tangent.absent(), rows, cols);
  check_masked(check, mask, channels, cols, kind, rows);
  if (!bias.absent()) check.vector("bias", bias, channels);
  const DeviceScope scope(*this);
  do_masked_activation_forward(y, mask, x, bias, channels, kind, rows);
}

void Ops::masked_activation_reverse(Stacked grad_x, Tensor grad_bias, Stacked grad_y, Tensor mask,
                                    std::int64_t channels, ActivationKind kind, const Rows& rows, Update update) {
  const bool primal = !grad_x.primal.absent();
  const OperandCheck check("masked_activation_reverse", primal ? "grad_x.primal" : "grad_x.tangent",
                           primal ? grad_x.primal : grad_x.tangent);
  const std::int64_t cols = primal ? grad_x.primal.cols() : grad_x.tangent.cols();
  check.rows(rows);
  check.stacked_gradient("grad_x", grad_x, rows, cols);
  check.stacked_input("grad_y", grad_y, false, !grad_x.tangent.absent(), rows, cols);
  check_masked(check, mask, channels, cols, kind, rows);
  if (!grad_bias.absent()) {
    check.vector("grad_bias", grad_bias, channels);
    if (!primal) check.fail("grad_bias is asked for without grad_x.primal, whose sums it is");
  }
  check.update(update);
  const DeviceScope scope(*this);
  do_masked_activation_reverse(grad_x, grad_bias, grad_y, mask, channels, kind, rows, update);
}

void Ops::window_sum(Tensor y, Tensor x, const Window& map, Update update) {
  const OperandCheck check("window_sum", "x", x);
  check_window(check, map);
  check.matrix("y", y, x.rows(), map.small_cols());
  check.matrix("x", x, x.rows(), map.large_cols());
  check.distinct("y", y, "x", x);
  check.update(update);
  const DeviceScope scope(*this);
  do_window_sum(y, x, map, update);
}

void Ops::window_spread(Tensor y, Tensor x, const Window& map, Update update) {
  const OperandCheck check("window_spread", "x", x);
  check_window(check, map);
  check.matrix("y", y, x.rows(), map.large_cols());
  check.matrix("x", x, x.rows(), map.small_cols());
  check.distinct("y", y, "x", x);
  check.update(update);
  const DeviceScope scope(*this);
  do_window_spread(y, x, map, update);
}

void Ops::max_pool_forward(Tensor y, Tensor choice, Tensor x, const Window& map) {
  const OperandCheck check("max_pool_forward", "x", x);
  check_max_pool(check, map);
  check.matrix("y", y, x.rows(), map.small_cols());
  check.u8_matrix("choice", choice, x.rows(), map.small_cols());
  check.matrix("x", x, x.rows(), map.large_cols());
  check.distinct("y", y, "x", x);
  const DeviceScope scope(*this);
  do_max_pool_forward(y, choice, x, map);
}

void Ops::max_pool_reverse(Tensor grad_x, Tensor grad_y, Tensor choice, const Window& map) {
  const OperandCheck check("max_pool_reverse", "grad_x", grad_x);
  check_max_pool(check, map);
  check.matrix("grad_x", grad_x, grad_x.rows(), map.large_cols());
  check.matrix("grad_y", grad_y, grad_x.rows(), map.small_cols());
  check.u8_matrix("choice", choice, grad_x.rows(), map.small_cols());
  check.distinct("grad_x", grad_x, "grad_y", grad_y);
  const DeviceScope scope(*this);
  do_max_pool_reverse(grad_x, grad_y, choice, map);
}

void Ops::gather_images(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter,
                        const ImageTransform& transform) {
  const OperandCheck check("gather_images", "y", y);
  check.countable("height, width and channels", {transform.height, transform.width, transform.channels});
  check.finite("scale", transform.scale);
  check.finite("shift", transform.shift);
  check.matrix("y", y, y.rows(), transform.cols());
  check.present("table", table);
  check.u8_matrix("table", table, table.rows(), transform.cols());
  if (y.rows() > 0) check.at_least("the number of table rows", table.rows(), transform.in_order ? y.rows() : 1);
  check.key(key, counter);
  const DeviceScope scope(*this);
  do_gather_images(y, table, key, counter, transform);
}

void Ops::softmax_cross_entropy(Tensor losses, Tensor grad_logits, Tensor logits, Tensor labels) {
  const OperandCheck check("softmax_cross_entropy", "logits", logits);
  check.matrix("logits", logits, logits.rows(), logits.cols());
  if (logits.rows() > 0) check.at_least("the number of classes", logits.cols(), 1);
  check.vector("losses", losses, logits.rows());
  if (!grad_logits.absent()) check.matrix("grad_logits", grad_logits, logits.rows(), logits.cols());
  check.u8_vector("labels", labels, logits.rows());
  check.distinct("losses", losses, "logits", logits);
  const DeviceScope scope(*this);
  do_softmax_cross_entropy(losses, grad_logits, logits, labels);
}

}  // namespace bracket
