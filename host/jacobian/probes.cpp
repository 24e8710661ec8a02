#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "bracket/trace_estimators.h"
#include "host/jacobian/requirements.h"
#include "kernels/ops.h"

namespace bracket {

Probes make_probes(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const ProbeOptions& options) {
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs(), count = options.count;
  if (count < 1) throw InvalidArgument("make_probes: count is " + std::to_string(count) + ", must be at least 1");
  if (options.kind > ProbeKind::orthogonal)
    throw InvalidArgument("make_probes: kind " + std::to_string(static_cast<int>(options.kind)) + " is not known");
  if (options.kind == ProbeKind::orthogonal && count > d)
    throw InvalidArgument("make_probes: " + std::to_string(count) + " orthogonal probes in " + std::to_string(d) +
                          " dimensions; use " + std::to_string(d) + " at most");
  check_step("make_probes", options.step);
  const RandomKey key{options.seed, RandomStream::jacobian_probe, options.step};
  const Probes probes{options.kind, count, arena.allocate(jacobian.dtype(), {n * count, d})};
  if (options.kind == ProbeKind::rademacher) {
    ops.random_signs(probes.directions, key, options.counter);
  } else if (options.kind == ProbeKind::gaussian) {
    ops.random_normal(probes.directions, key, options.counter);
  } else {
    const std::int64_t mark = arena.mark();
    const Tensor q = arena.allocate(DType::f64, {n * count, d}), l = arena.allocate(DType::f64, {n, count, count});
    const Tensor scaled = arena.allocate(DType::f64, {n * count, d});
    ops.random_normal(q, key, options.counter);
    ops.lq_factor(l, q);  // Haar: the diagonal of L is positive
    ops.fill(scaled, 0);
    ops.axpy(scaled, std::sqrt(static_cast<double>(d)), q);
    ops.copy(probes.directions, scaled);
    arena.rewind(mark);
  }
  return probes;
}

}  // namespace bracket
