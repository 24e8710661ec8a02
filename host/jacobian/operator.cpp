#include <string>
#include <utility>

#include "bracket/error.h"
#include "bracket/jacobian.h"
#include "host/training/inference.h"
#include "kernels/ops.h"
#include "kernels/plan_ops.h"

namespace bracket {
namespace {

constexpr const char* kCertificates[] = {"exact",       "certified lower", "certified upper", "optimistic",
                                         "pessimistic", "unbiased",        "biased"};

void check_product(const JacobianOperator& jacobian, const char* what, const Tensor& x, const Tensor& y) {
  const auto fits = [&](const Tensor& t, std::int64_t cols) {
    return t.rank() == 2 && t.cols() == cols && t.dtype() == jacobian.dtype();
  };
  const std::int64_t n = jacobian.samples();
  if (fits(x, jacobian.inputs()) && fits(y, jacobian.outputs()) && x.rows() == y.rows() &&
      (n == 0 ? x.rows() == 0 : x.rows() % n == 0))
    return;
  throw InvalidArgument(std::string(what) + ": directions " + (x.absent() ? "absent" : x.describe()) + " and images " +
                        (y.absent() ? "absent" : y.describe()) + " of " + std::to_string(n) + " Jacobians " +
                        dtype_name(jacobian.dtype()) + "[" + std::to_string(jacobian.outputs()) + ", " +
                        std::to_string(jacobian.inputs()) + "]; both need the same multiple of " + std::to_string(n) +
                        " rows");
}

}  // namespace

const char* certificate_name(Certificate certificate) noexcept {
  return kCertificates[static_cast<std::size_t>(certificate)];
}

JacobianOperator::JacobianOperator(std::int64_t samples, std::int64_t inputs, std::int64_t outputs, DType dtype)
    : samples_(samples), inputs_(inputs), outputs_(outputs), dtype_(dtype) {
  if (samples < 0 || inputs < 1 || outputs < 1)
    throw InvalidArgument("a Jacobian operator of " + std::to_string(samples) + " samples, " + std::to_string(inputs) +
                          " inputs and " + std::to_string(outputs) + " outputs; needs 0, 1 and 1 at least");
  if (dtype != DType::f32 && dtype != DType::f64)
    throw InvalidArgument(std::string("a Jacobian operator of ") + dtype_name(dtype) + "; use f32 or f64");
}

void JacobianOperator::apply(Ops& ops, Arena& arena, Tensor y, Tensor x) const {
  check_product(*this, "JacobianOperator::apply", x, y);
  if (x.rows() == 0) return;
  const std::int64_t mark = arena.mark();
  do_apply(ops, arena, y, x);
  arena.rewind(mark);
}

void JacobianOperator::apply_transpose(Ops& ops, Arena& arena, Tensor x, Tensor y) const {
  check_product(*this, "JacobianOperator::apply_transpose", x, y);
  if (x.rows() == 0) return;
  const std::int64_t mark = arena.mark();
  do_apply_transpose(ops, arena, x, y);
  arena.rewind(mark);
}

CallbackJacobian::CallbackJacobian(std::int64_t samples, std::int64_t inputs, std::int64_t outputs, DType dtype,
                                   JacobianCallbacks callbacks)
    : JacobianOperator(samples, inputs, outputs, dtype), callbacks_(std::move(callbacks)) {
  if (!callbacks_.apply || !callbacks_.apply_transpose)
    throw InvalidArgument("CallbackJacobian: both apply and apply_transpose are needed");
}

namespace {

template <class Product>
void call_on_host(Ops& ops, Arena& arena, const Tensor& out, const Tensor& in, const Product& product) {
  const Tensor from = arena.allocate(in.dtype(), {in.rows(), in.cols()});
  const Tensor to = arena.allocate(out.dtype(), {out.rows(), out.cols()});
  ops.copy(from, in);
  if (!ops.planning()) {
    const std::vector<double> argument = to_host(ops, from);
    std::vector<double> result(static_cast<std::size_t>(to.size()));
    product(in.rows(), argument, result);
    to_device(ops, to, result);
  }
  ops.copy(out, to);
}

}  // namespace

void CallbackJacobian::do_apply(Ops& ops, Arena& arena, Tensor y, Tensor x) const {
  call_on_host(ops, arena, y, x, callbacks_.apply);
}

void CallbackJacobian::do_apply_transpose(Ops& ops, Arena& arena, Tensor x, Tensor y) const {
  call_on_host(ops, arena, x, y, callbacks_.apply_transpose);
}

void jacobian_columns(Ops& ops, Arena& arena, Tensor t, const JacobianOperator& jacobian) {
  const std::int64_t mark = arena.mark(), n = jacobian.samples(), d = jacobian.inputs();
  const Tensor identities = arena.allocate(jacobian.dtype(), {n * d, d});
  ops.tile_identity(identities, n);
  jacobian.apply(ops, arena, t, identities);
  arena.rewind(mark);
}

void jacobian_gram(Ops& ops, Arena& arena, Tensor gram, const JacobianOperator& jacobian) {
  const std::int64_t mark = arena.mark();
  const Tensor t = arena.allocate(jacobian.dtype(), {jacobian.samples() * jacobian.inputs(), jacobian.outputs()});
  jacobian_columns(ops, arena, t, jacobian);
  ops.gram(gram, t);
  arena.rewind(mark);
}

void with_planned_arena(Context& context, const std::function<void(Ops&, Arena&)>& work) {
  PlanOps plan;
  Arena planner;
  work(plan, planner);
  Arena arena(context.pool(), planner.high_water_bytes());
  work(context.ops(), arena);
}

std::vector<double> read_values(Ops& ops, const Tensor& tensor) {
  if (ops.planning()) return std::vector<double>(static_cast<std::size_t>(tensor.size()));
  return to_host(ops, tensor);
}

void write_values(Ops& ops, const Tensor& tensor, std::span<const double> values) {
  if (static_cast<std::int64_t>(values.size()) != tensor.size())
    throw InvalidArgument("write_values: " + std::to_string(values.size()) + " values for " + tensor.describe());
  to_device(ops, tensor, values);
}

}  // namespace bracket
