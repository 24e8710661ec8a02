#include <algorithm>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "bracket/jacobian.h"
#include "host/jacobian/scale.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// Calls body(layout, first row, rows) for portions of n K tangent rows: whole samples, or where one sample has more
/// than `most` rows, parts of it.
template <class Body>
void for_portions(std::int64_t n, std::int64_t columns, std::int64_t most, const Body& body) {
  const std::int64_t samples = std::max<std::int64_t>(most / columns, 1), part = std::min(columns, most);
  for (std::int64_t first = 0; first < n; first += samples) {
    const std::int64_t count = std::min(samples, n - first);
    for (std::int64_t k = 0; k < columns; k += part) {
      const std::int64_t width = std::min(part, columns - k);
      body(TangentLayout{first, count, width}, first * columns + k, count * width);
    }
  }
}

/// `x`, or memory to copy it to where a layer will look at its rows as rows of pixels.
Tensor whole_rows(Arena& arena, const Network& network, const Tensor& x) {
  if (x.contiguous() || !network.has_batch_norm()) return x;
  return arena.allocate(x.dtype(), {x.rows(), x.cols()});
}

/// to = product(from) in portions.
template <class Product>
void multiply(Ops& ops, Arena& arena, const Network& network, std::int64_t samples, std::int64_t most, Tensor to,
              Tensor from, const Product& product) {
  const Tensor out = whole_rows(arena, network, to), in = whole_rows(arena, network, from);
  if (in.data() != from.data()) ops.copy(in, from);
  for_portions(samples, from.rows() / samples, most,
               [&](const TangentLayout& layout, std::int64_t first, std::int64_t rows) {
                 product(out.slice_rows(first, rows), in.slice_rows(first, rows), layout);
               });
  if (out.data() != to.data()) ops.copy(to, out);
}

std::int64_t rows_in(std::int64_t tangent_bytes, const Network& network) {
  if (tangent_bytes < 1)
    throw InvalidArgument("NetworkJacobian: tangent_bytes is " + std::to_string(tangent_bytes) + ", must be positive");
  return std::max<std::int64_t>(tangent_bytes / (network.values_per_row() * dtype_bytes(network.dtype())), 1);
}

}  // namespace

NetworkJacobian::NetworkJacobian(Ops& ops, Arena& arena, const Network& network, const ParameterSet& parameters,
                                 Tensor z, std::int64_t tangent_bytes, const FurtherUse& further)
    : JacobianOperator(z.rows(), network.input_size(), network.output_size(), network.dtype()), network_(&network) {
  if (z.rank() != 2 || z.cols() != inputs() || z.dtype() != dtype())
    throw InvalidArgument("NetworkJacobian: z is " + (z.absent() ? "absent" : z.describe()) + "; the network reads " +
                          dtype_name(dtype()) + "[n, " + std::to_string(inputs()) + "]");
  rows_at_once_ = rows_in(tangent_bytes, network);
  network.forward(ops, arena, primal_, parameters, z, PassMode::inference, further);
}

NetworkJacobian::NetworkJacobian(const Network& network, PrimalPass primal, std::int64_t tangent_bytes)
    : JacobianOperator(primal.rows, network.input_size(), network.output_size(), network.dtype()),
      network_(&network),
      primal_(std::move(primal)),
      rows_at_once_(rows_in(tangent_bytes, network)) {}

void NetworkJacobian::do_apply(Ops& ops, Arena& arena, Tensor y, Tensor x) const {
  multiply(ops, arena, *network_, samples(), rows_at_once_, y, x,
           [&](const Tensor& to, const Tensor& from, const TangentLayout& layout) {
             network_->push_through(ops, arena, to, primal_, from, layout);
           });
}

void NetworkJacobian::do_apply_transpose(Ops& ops, Arena& arena, Tensor x, Tensor y) const {
  multiply(ops, arena, *network_, samples(), rows_at_once_, x, y,
           [&](const Tensor& to, const Tensor& from, const TangentLayout& layout) {
             network_->pull_through(ops, arena, to, primal_, from, layout);
           });
}

void NetworkJacobian::reverse(Ops& ops, Arena& arena, Tensor tangents, Tensor cotangents, double factor,
                              const ReverseRequest& request) const {
  if (!request.grad_tangent_input.absent())
    throw InvalidArgument("NetworkJacobian::reverse: the tangents are held constant; ask for grad_input or parameters");
  const std::int64_t n = samples(), columns = n == 0 ? 0 : tangents.rows() / n;
  if (tangents.rank() != 2 || cotangents.rank() != 2 || tangents.rows() != n * columns ||
      cotangents.rows() != tangents.rows() || (n > 0 && columns == 0))
    throw InvalidArgument("NetworkJacobian::reverse: tangents and cotangents must both have K rows for each of " +
                          std::to_string(n) + " samples");
  const auto fits = [&](const Tensor& t, std::int64_t cols) { return t.cols() == cols && t.dtype() == dtype(); };
  if (!fits(tangents, inputs()) || !fits(cotangents, outputs()))
    throw InvalidArgument("NetworkJacobian::reverse: tangents are " + tangents.describe() + " and cotangents " +
                          cotangents.describe() + "; must be " + dtype_name(dtype()) + " with " +
                          std::to_string(inputs()) + " and " + std::to_string(outputs()) + " columns");
  if (const Tensor& z = request.grad_input; !z.absent() && (z.rank() != 2 || z.rows() != n || !fits(z, inputs())))
    throw InvalidArgument("NetworkJacobian::reverse: grad_input is " + z.describe() + "; must be " +
                          dtype_name(dtype()) + "[" + std::to_string(n) + ", " + std::to_string(inputs()) + "]");
  if (!request.grad_input.absent()) ops.fill(request.grad_input, 0);
  if (!request.grad_parameters.absent() && !request.accumulate_parameters) ops.fill(request.grad_parameters, 0);
  if (n == 0) return;
  for_portions(n, columns, rows_at_once_, [&](const TangentLayout& layout, std::int64_t first, std::int64_t rows) {
    const std::int64_t mark = arena.mark();
    const Tensor c = scaled(ops, arena, factor, cotangents.slice_rows(first, rows));
    const PrimalPass primal = network_->slice(primal_, layout.first, layout.count);
    TangentPass pass;
    network_->push(ops, arena, pass, primal, tangents.slice_rows(first, rows), {0, layout.count, layout.tangents});
    ReverseRequest part = request;
    part.accumulate_parameters = true;
    if (!request.grad_input.absent()) part.grad_input = arena.allocate(dtype(), {layout.count, inputs()});
    network_->reverse(ops, arena, primal, &pass, {}, c, part);
    if (!request.grad_input.absent())
      ops.axpy(request.grad_input.slice_rows(layout.first, layout.count), 1, part.grad_input);
    arena.rewind(mark);
  });
}

}  // namespace bracket
