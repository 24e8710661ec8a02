#include "host/network/convolution_product.h"

namespace bracket {

void ConvolutionProduct::multiply(Ops& ops, Tensor y, Tensor x, Tensor weight, const ProductEpilogue& epilogue) const {
  if (transposed)
    ops.conv2d_reverse_data(y, x, weight, map, Update::overwrite, epilogue);
  else
    ops.conv2d_forward(y, x, weight, map, epilogue);
}

void ConvolutionProduct::reverse_data(Ops& ops, Tensor grad_x, Tensor grad_y, Tensor weight) const {
  if (transposed)
    ops.conv2d_forward(grad_x, grad_y, weight, map);
  else
    ops.conv2d_reverse_data(grad_x, grad_y, weight, map, Update::overwrite);
}

void ConvolutionProduct::reverse_weights(const Frame& frame, Tensor grad_weight, Tensor grad_y, Tensor x,
                                         Update update) const {
  const std::int64_t mark = frame.arena.mark(), elements = map.weights_workspace(x.rows());
  const Tensor workspace = elements > 0 ? frame.arena.allocate(frame.dtype, {elements}) : Tensor();
  if (transposed)
    frame.ops.conv2d_reverse_weights(grad_weight, x, grad_y, map, update, workspace);
  else
    frame.ops.conv2d_reverse_weights(grad_weight, grad_y, x, map, update, workspace);
  frame.arena.rewind(mark);
}

}  // namespace bracket
