// The public side of the op list: the smallest singular value without a Jacobian. See ops.cpp.
#include "kernels/operand_check.h"
#include "kernels/ops.h"

namespace bracket {

void Ops::lobpcg_residual(Tensor r, Tensor w, Tensor v, Tensor jv) {
  const OperandCheck check("lobpcg_residual", "v", v);
  const std::int64_t n = v.rows(), d = v.cols();
  check.matrix("v", v, n, d);
  check.matrix("r", r, n, d);
  check.matrix("w", w, n, d);
  check.present("jv", jv);
  check.matrix("jv", jv, n, jv.cols());
  check.distinct("r", r, "v", v);
  check.distinct("r", r, "jv", jv);
  const DeviceScope scope(*this);
  do_lobpcg_residual(r, w, v, jv);
}

void Ops::lobpcg_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr) {
  const OperandCheck check("lobpcg_update", "v", v);
  const std::int64_t n = v.rows(), d = v.cols();
  check.matrix("v", v, n, d);
  check.matrix("p", p, n, d);
  check.matrix("r", r, n, d);
  check.present("jv", jv);
  check.matrix("jv", jv, n, jv.cols());
  check.matrix("jp", jp, n, jv.cols());
  check.matrix("jr", jr, n, jv.cols());
  check.distinct("v", v, "p", p);
  check.distinct("v", v, "r", r);
  check.distinct("p", p, "r", r);
  check.distinct("jv", jv, "jp", jp);
  check.distinct("jv", jv, "jr", jr);
  check.distinct("jp", jp, "jr", jr);
  const DeviceScope scope(*this);
  do_lobpcg_update(v, p, jv, jp, r, jr);
}

void Ops::lobpcg_volume(Tensor h, Tensor scale, Tensor v, Tensor jv) {
  const OperandCheck check("lobpcg_volume", "v", v);
  check.matrix("v", v, v.rows(), v.cols());
  check.present("jv", jv);
  check.matrix("jv", jv, v.rows(), jv.cols());
  check.vector("h", h, v.rows());
  check.vector("scale", scale, v.rows());
  const DeviceScope scope(*this);
  do_lobpcg_volume(h, scale, v, jv);
}

}  // namespace bracket
