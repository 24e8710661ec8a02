#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "bracket/trace_estimators.h"
#include "host/core/text.h"
#include "host/jacobian/bidiagonalization.h"
#include "host/jacobian/quadrature.h"
#include "kernels/formula/probes.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

void check(const JacobianOperator& jacobian, const StochasticVolumeOptions& options) {
  check_tall("stochastic_log_volume", jacobian);
  check_preconditioner("stochastic_log_volume", jacobian, options.preconditioner);
  if (!(options.tolerance >= 0 && options.tolerance < 1))
    throw InvalidArgument("stochastic_log_volume: tolerance is " + format_number(options.tolerance) +
                          ", must lie in [0, 1)");
  if (options.iterations < 0)
    throw InvalidArgument("stochastic_log_volume: iterations is " + std::to_string(options.iterations) +
                          ", must not be negative");
}

/// x = (J^T J)^-1 v per probe, and |v - J^T J x|.
void solve(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Probes& probes,
           const StochasticVolumeOptions& options, const Tensor& x, StochasticVolumeEstimate& estimate) {
  const std::int64_t mark = arena.mark(), m = x.rows(), d = x.cols();
  const DType dtype = x.dtype();
  const Tensor r = arena.allocate(dtype, {m, d}), p = arena.allocate(dtype, {m, d}), w = arena.allocate(dtype, {m, d});
  const Tensor jp = arena.allocate(dtype, {m, jacobian.outputs()}), norm = arena.allocate(DType::f64, {m});
  const bool preconditioned = !options.preconditioner.absent();
  const Tensor energy = preconditioned ? arena.allocate(DType::f64, {m}) : Tensor();
  const Tensor z = preconditioned ? arena.allocate(dtype, {m, d}) : Tensor();
  const auto turn = [&] {
    const MathScope exact(ops, MathMode::fp32);  // no tensor cores in algebra
    ops.linear_forward(z, r, options.preconditioner);
    ops.conjugate_direction(p, energy, z, r);
  };
  ops.fill(x, 0);
  ops.copy(r, probes.directions);
  if (preconditioned) {
    ops.fill(p, 0);
    ops.fill(energy, 0);
    turn();
  } else {
    ops.copy(p, probes.directions);
  }
  ops.normalize_rows(w, norm, probes.directions);
  ops.copy(estimate.residual, norm);
  const auto all_done = [&] {
    const std::vector<double> residual = read_values(ops, estimate.residual), size = read_values(ops, norm);
    for (std::size_t i = 0; i < residual.size(); ++i) {
      if (residual[i] > options.tolerance * size[i]) return false;
    }
    return !ops.planning();
  };
  while (estimate.iterations < options.iterations) {
    jacobian.apply(ops, arena, jp, p);
    jacobian.apply_transpose(ops, arena, w, jp);
    ops.conjugate_gradient_step(x, r, p, estimate.residual, w, jp, norm, options.tolerance, energy);
    if (preconditioned) turn();
    estimate.passes.apply += probes.count;
    estimate.passes.transpose += probes.count;
    ++estimate.iterations;
    if (options.stop_early && all_done()) break;
  }
  arena.rewind(mark);
}

/// The last of `terms` terms that some row has a weight on, as Ops::roulette_weights draws them.
std::int64_t last_term(std::int64_t rows, std::int64_t terms, double survival, const RandomKey& key) {
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < rows && last + 1 < terms; ++i) {
    const auto element = static_cast<std::uint64_t>(2 * i);
    const double uniform = formula::roulette_uniform(random_word(key, element), random_word(key, element + 1));
    while (last + 1 < terms && uniform < formula::roulette_probability(last + 1, 0, survival)) ++last;
  }
  return last;
}

/// Steps beyond the certain ones that are still drawn.
std::int64_t drawn_steps(double survival, std::int64_t most) {
  std::int64_t steps = 0;
  while (steps < most && formula::roulette_probability(steps + 1, 0, survival) >= formula::kLeastRoulette) ++steps;
  return steps;
}

/// |v - J^T image|, not what the recurrence of conjugate gradients says of it, which falls on where rounding has
/// stopped the true one.
void measure_residual(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Probes& probes,
                      const Tensor& image, StochasticVolumeEstimate& estimate) {
  const std::int64_t mark = arena.mark(), m = image.rows(), d = jacobian.inputs();
  const Tensor w = arena.allocate(image.dtype(), {m, d}), r = arena.allocate(image.dtype(), {m, d});
  jacobian.apply_transpose(ops, arena, w, image);
  estimate.passes.transpose += probes.count;
  ops.copy(r, probes.directions);
  ops.axpy(r, -1, w);
  ops.normalize_rows(w, estimate.residual, r);
  arena.rewind(mark);
}

}  // namespace

StochasticVolumeEstimate stochastic_log_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                               const Probes& probes, const StochasticVolumeOptions& options) {
  check_probes("stochastic_log_volume", jacobian, probes);
  check(jacobian, options);
  const std::int64_t m = probes.directions.rows();
  StochasticVolumeEstimate estimate;
  allocate_trace(arena, jacobian, estimate);
  if (options.iterations > 0) {
    estimate.residual = arena.allocate(DType::f64, {m});
    estimate.cotangents = arena.allocate(jacobian.dtype(), {m, jacobian.outputs()});
  }
  const std::int64_t mark = arena.mark();
  const TraceEstimate trace = trace_of_function(ops, arena, jacobian, kLogarithm, probes, options.quadrature);
  estimate.certificate = trace.certificate;
  estimate.passes = trace.passes;
  scale_into(ops, estimate.value, 0.5, trace.value);
  scale_into(ops, estimate.standard_error, 0.5, trace.standard_error);
  ops.copy(estimate.deficient, trace.deficient);
  arena.rewind(mark);
  if (options.iterations == 0) return estimate;
  estimate.tangents = probes.directions;
  const Tensor x = arena.allocate(jacobian.dtype(), {m, jacobian.inputs()});
  solve(ops, arena, jacobian, probes, options, x, estimate);
  const Tensor image = arena.allocate(jacobian.dtype(), {m, jacobian.outputs()});
  jacobian.apply(ops, arena, image, x);
  estimate.passes.apply += probes.count;
  measure_residual(ops, arena, jacobian, probes, image, estimate);
  scale_into(ops, estimate.cotangents, 1 / static_cast<double>(probes.count), image);
  ops.clear_rows(estimate.cotangents, estimate.deficient);
  arena.rewind(mark);
  return estimate;
}

TraceEstimate roulette_log_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Probes& probes,
                                  const RouletteOptions& options) {
  check_probes("roulette_log_volume", jacobian, probes);
  check_tall("roulette_log_volume", jacobian);
  const std::int64_t d = jacobian.inputs(), m = probes.directions.rows();
  if (options.certain < 1 || options.maximum < options.certain)
    throw InvalidArgument("roulette_log_volume: certain is " + std::to_string(options.certain) + " and maximum " +
                          std::to_string(options.maximum) + "; needs 1 <= certain <= maximum");
  if (!(options.survival >= 0x1p-20 && options.survival <= 1))
    throw InvalidArgument("roulette_log_volume: survival is " + format_number(options.survival) +
                          ", must lie in [2^-20, 1]");
  if (options.counter != nullptr && !options.all_steps)
    throw InvalidArgument("roulette_log_volume: a counter on the device needs all_steps");
  check_step("roulette_log_volume", options.step);
  const std::int64_t wanted = std::min(options.maximum, d), certain = std::min(options.certain, wanted);
  const std::int64_t terms = 1 + drawn_steps(options.survival, wanted - certain), maximum = certain + terms - 1;
  const RandomKey key{options.seed, RandomStream::jacobian_roulette, options.step};
  const std::int64_t last = options.all_steps ? terms - 1 : last_term(m, terms, options.survival, key);
  TraceEstimate estimate;
  allocate_trace(arena, jacobian, estimate);
  // All steps done, what is random is left.
  estimate.certificate = maximum == d ? Certificate::unbiased : Certificate::optimistic;
  const std::int64_t mark = arena.mark();
  const Tensor weights = arena.allocate(DType::f64, {terms, m});
  const Bidiagonalization b = bidiagonalize(ops, arena, estimate.passes, jacobian, probes.directions, certain + last,
                                            false, [](const Bidiagonalization&) { return false; });
  ops.roulette_weights(weights, 0, options.survival, key, options.counter);
  const QuadraticForms forms = allocate_forms(arena, m);
  integrate(ops, arena, forms, b, kLogarithm, rank_tolerance(jacobian), certain + last, {}, last + 1,
            weights.slice_rows(0, last + 1));
  // The numbers of terms are independent, so no set of probes makes the estimate exact.
  average(ops, arena, estimate, forms, certain == d ? variance_correction(probes, d) : 1, 0.5);
  arena.rewind(mark);
  return estimate;
}

}  // namespace bracket
