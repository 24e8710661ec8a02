// The public side of the op list: the smallest singular values without a Jacobian. See ops.cpp.
#include <algorithm>
#include <string>

#include "kernels/operand_check.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// `block` directions of d elements for every sample.
void check_block(const OperandCheck& check, const Tensor& v, std::int64_t block) {
  if (block < 1 || block > kMaxLobpcgBlock || block > v.cols())
    check.fail("block is " + std::to_string(block) + " for directions of " + std::to_string(v.cols()) +
               " elements; must lie in 1 .. " + std::to_string(std::min(kMaxLobpcgBlock, v.cols())));
  check.divides("block", block, "rows of v", v.rows());
}

/// What an update works on.
void check_update(const OperandCheck& check, const Tensor& v, const Tensor& p, const Tensor& jv, const Tensor& jp,
                  const Tensor& r, const Tensor& jr) {
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
}

}  // namespace

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

void Ops::lobpcg_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, Tensor largest) {
  const OperandCheck check("lobpcg_update", "v", v);
  check_update(check, v, p, jv, jp, r, jr);
  if (!largest.absent()) check.f64_vector("largest", largest, v.rows());
  const DeviceScope scope(*this);
  do_lobpcg_update(v, p, jv, jp, r, jr, largest);
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

void Ops::lobpcg_block_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, std::int64_t block,
                              Tensor largest) {
  const OperandCheck check("lobpcg_block_update", "v", v);
  check_update(check, v, p, jv, jp, r, jr);
  check_block(check, v, block);
  if (!largest.absent()) check.f64_vector("largest", largest, v.rows() / block);
  const DeviceScope scope(*this);
  do_lobpcg_block_update(v, p, jv, jp, r, jr, block, largest);
}

void Ops::lobpcg_block_order(Tensor v, Tensor jv, Tensor scale, Tensor h, Tensor mu, Tensor distance,
                             std::int64_t block) {
  const OperandCheck check("lobpcg_block_order", "v", v);
  const std::int64_t rows = v.rows();
  check.matrix("v", v, rows, v.cols());
  check.present("jv", jv);
  check.matrix("jv", jv, rows, jv.cols());
  check.vector("scale", scale, rows);
  check.f64_vector("h", h, rows);
  check.f64_vector("mu", mu, rows);
  check.f64_vector("distance", distance, rows);
  check.distinct("v", v, "jv", jv);
  check.distinct("h", h, "mu", mu);
  check.distinct("h", h, "distance", distance);
  check.distinct("mu", mu, "distance", distance);
  check_block(check, v, block);
  const DeviceScope scope(*this);
  do_lobpcg_block_order(v, jv, scale, h, mu, distance, block);
}

}  // namespace bracket
