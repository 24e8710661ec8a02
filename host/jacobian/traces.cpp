#include <algorithm>
#include <string>

#include "bracket/error.h"
#include "bracket/trace_estimators.h"
#include "host/jacobian/bidiagonalization.h"
#include "host/jacobian/quadrature.h"
#include "kernels/ops.h"

namespace bracket {

JacobianEstimate hutchinson_trace(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Probes& probes) {
  check_probes("hutchinson_trace", jacobian, probes);
  JacobianEstimate estimate;
  estimate.certificate = Certificate::unbiased;
  estimate.value = arena.allocate(DType::f64, {jacobian.samples()});
  estimate.standard_error = arena.allocate(DType::f64, {jacobian.samples()});
  const std::int64_t mark = arena.mark(), d = jacobian.inputs();
  const Tensor image = arena.allocate(jacobian.dtype(), {probes.directions.rows(), jacobian.outputs()});
  jacobian.apply(ops, arena, image, probes.directions);
  estimate.passes.apply += probes.count;
  const double correction = variance_correction(probes, d);
  average(ops, arena, estimate, squared_lengths(ops, arena, image), correction, 1);
  if (correction == 0) estimate.certificate = Certificate::exact;
  arena.rewind(mark);
  return estimate;
}

TraceEstimate trace_of_function(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const SpectralFunction& f,
                                const Probes& probes, const QuadratureOptions& options) {
  check_probes("trace_of_function", jacobian, probes);
  if (options.steps < 1)
    throw InvalidArgument("trace_of_function: steps is " + std::to_string(options.steps) + ", must be at least 1");
  if (const Tensor& ends = options.lower_end;
      !ends.absent() && (ends.rows() != jacobian.samples() || ends.dtype() != DType::f64))
    throw InvalidArgument("trace_of_function: lower_end is " + ends.describe() + "; must be f64[" +
                          std::to_string(jacobian.samples()) + "], one end per sample");
  const std::int64_t d = jacobian.inputs(), steps = std::min(options.steps, d);
  const bool radau = !options.lower_end.absent() && steps < d;  // d steps know the whole spectrum
  TraceEstimate estimate;
  allocate_trace(arena, jacobian, estimate);
  const std::int64_t mark = arena.mark();
  const Bidiagonalization b = bidiagonalize(ops, arena, estimate.passes, jacobian, probes.directions, steps, radau,
                                            [](const Bidiagonalization&) { return false; });
  // Above a certified end no singular value is zero.
  const double tolerance = options.lower_end.absent() ? rank_tolerance(jacobian) : 0;
  const QuadraticForms forms = allocate_forms(arena, probes.directions.rows());
  integrate(ops, arena, forms, b, f, tolerance, radau ? steps + 1 : steps, radau ? options.lower_end : Tensor());
  // Of fewer steps the sum over a complete set of probes still depends on the set.
  const double correction = variance_correction(probes, d);
  average(ops, arena, estimate, forms, steps == d ? correction : 1, 1);
  estimate.certificate = rule_certificate(f, steps, radau, correction == 0, steps == d);
  arena.rewind(mark);
  return estimate;
}

}  // namespace bracket
