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

void check_window(const OperandCheck& check, const Window& map) {
  check.countable("height, width and channels", {map.height, map.width, map.channels});
  check.divides("window", map.window, "the height", map.height);
  check.divides("window", map.window, "the width", map.width);
  check.finite("scale", map.scale);
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

}  // namespace bracket
