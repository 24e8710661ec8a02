// Epilogues of products: the check of their operands, and the ops that they are where a product cannot apply them.
#include "kernels/operand_check.h"
#include "kernels/ops.h"

namespace bracket {

using Part = ProductEpilogue::Part;

void OperandCheck::epilogue(const ProductEpilogue& e, const Tensor& y, std::int64_t channels) const {
  const auto unused = [&](const char* name, const Tensor& x, const char* reason) {
    if (!x.absent()) fail(std::string(name) + " is " + x.describe() + "; " + reason + ", leave it absent");
  };
  if (e.part > Part::tangent) {
    fail("epilogue.part is " + std::to_string(static_cast<int>(e.part)) + "; use none, primal or tangent");
  }
  if (e.part == Part::none) {
    for (const Tensor& x : {e.bias, e.mask, e.before}) unused("an operand of the epilogue", x, "its part is none");
    return;
  }
  if (e.kind.function > Activation::softplus) {
    fail("activation function " + std::to_string(static_cast<int>(e.kind.function)) + " is not known");
  }
  if (e.kind.function == Activation::prelu)
    fail("prelu is no epilogue, its slope is a tensor; use bias_activation_forward");
  finite("negative_slope", e.kind.negative_slope);
  const bool tangent = e.part == Part::tangent;
  if (tangent && !e.masked()) {
    fail("activation function " + std::to_string(static_cast<int>(e.kind.function)) +
         " has no mask to take the derivative of tangent rows from; use relu or leaky_relu");
  }
  if (tangent) {
    rows(e.rows);
    if (e.rows.tangent_rows() != y.rows()) {
      fail("epilogue.rows have " + std::to_string(e.rows.tangent_rows()) + " tangent rows, the result has " +
           std::to_string(y.rows()));
    }
    unused("epilogue.bias", e.bias, "tangent rows have none");
  }
  if (!e.bias.absent()) {
    vector("epilogue.bias", e.bias, channels);
    distinct("epilogue.bias", e.bias, "the result", y);
  }
  if (e.masked()) {
    const std::int64_t pixels = channels == 0 ? 0 : y.cols() / channels;
    u8_matrix("epilogue.mask", e.mask, tangent ? e.rows.primal : y.rows(), pixels * ((channels + 7) / 8));
    distinct("epilogue.mask", e.mask, "the result", y);
    unused("epilogue.before", e.before, "relu and leaky_relu keep a mask instead");
  } else {
    unused("epilogue.mask", e.mask, "only relu and leaky_relu have one");
    if (e.kind.function == Activation::identity)
      unused("epilogue.before", e.before, "identity needs none");
    else
      matrix("epilogue.before", e.before, y.rows(), y.cols());
    const bool same = e.before.data() == y.data() && e.before.row_stride() == y.row_stride();
    if (!e.before.absent() && !same) distinct("epilogue.before", e.before, "the result", y);
  }
}

void Ops::finish_product(Tensor y, std::int64_t channels, const ProductEpilogue& e) {
  if (e.part == Part::none) return;
  const Tensor& c = e.product(y);
  const Rows primal{y.rows(), 0, 0, 0};
  if (e.part == Part::tangent) {
    do_masked_activation_forward({{}, y}, e.mask, {{}, c}, {}, channels, e.kind, e.rows);
  } else if (e.masked()) {
    do_masked_activation_forward({y, {}}, e.mask, {c, {}}, e.bias, channels, e.kind, primal);
  } else if (e.kind.function != Activation::identity || !e.bias.absent()) {
    do_bias_activation_forward({y, {}}, {c, {}}, e.bias, {}, e.kind, primal);
  }
}

}  // namespace bracket
