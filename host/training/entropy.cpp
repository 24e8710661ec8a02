#include "bracket/entropy.h"

#include <string>
#include <vector>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/training/smallest_singular.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr const char* kNames[] = {"exact", "min_singular"};

// h = sum log diag L with L L^T = J^T J, and C = J (J^T J)^-1. Row i d + k of the basis output is column k of J_i, so
// per sample T = J^T and C^T = (T T^T)^-1 T: two triangular solves on the rows of T.
void exact_estimate(Ops& ops, Arena& arena, EntropyPass& pass, std::int64_t n, std::int64_t d) {
  const Tensor jacobian = pass.basis.output();
  pass.value = arena.allocate(jacobian.dtype(), {n});
  const Tensor factor = arena.allocate(DType::f64, {n, d, d});
  ops.gram(factor, jacobian);
  ops.cholesky(factor);
  ops.log_diagonal_sum(pass.value, factor);
  pass.cotangents = arena.allocate(jacobian.dtype(), {n * d, jacobian.cols()});
  ops.triangular_solve(pass.cotangents, factor, jacobian, false);
  ops.triangular_solve(pass.cotangents, factor, pass.cotangents, true);
}

// d log s_1 with derivative <d J v_1 / s_1^2, d(J v_1)>; v_1 needs no derivative at a simple smallest singular value.
void min_singular_estimate(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator, std::int64_t n,
                           std::int64_t d) {
  const Tensor jacobian = pass.basis.output();
  const SmallestSingular smallest = smallest_singular(ops, arena, jacobian, n, d);
  pass.value = smallest.volume;
  generator.push(ops, arena, pass.singular, pass.primal, smallest.direction, {0, n, 1});
  pass.cotangents = arena.allocate(jacobian.dtype(), {n, jacobian.cols()});
  ops.scale_rows(pass.cotangents, pass.singular.output(), smallest.scale, 1);
}

}  // namespace

const char* entropy_estimator_name(EntropyEstimator estimator) noexcept {
  return kNames[static_cast<std::size_t>(estimator)];
}

EntropyEstimator entropy_estimator_from_name(const std::string& name) {
  for (std::size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<EntropyEstimator>(i);
  throw InvalidArgument("unknown entropy estimator '" + name + "'; did you mean '" +
                        nearest_name(name, {std::begin(kNames), std::end(kNames)}) + "'?");
}

void entropy_forward(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                     const ParameterSet& parameters, Tensor z, EntropyEstimator estimator) {
  const std::int64_t n = z.rows(), d = generator.input_size();
  if (d > generator.output_size())
    throw InvalidArgument("the generator's latent size " + std::to_string(d) + " exceeds its output size " +
                          std::to_string(generator.output_size()) + ": J^T J is singular and the log-volume undefined");
  pass.estimator = estimator;
  const Tensor input = arena.allocate(z.dtype(), {n + n * d, d});  // one block: primal rows, then the d directions
  ops.copy(input.slice_rows(0, n), z);
  ops.tile_identity(input.slice_rows(n, n * d), n);
  generator.forward(ops, arena, pass.primal, pass.basis, parameters, input.slice_rows(0, n), input.slice_rows(n, n * d),
                    {0, n, d}, PassMode::inference);
  if (estimator == EntropyEstimator::exact)
    exact_estimate(ops, arena, pass, n, d);
  else
    min_singular_estimate(ops, arena, pass, generator, n, d);
}

void entropy_score(Ops& ops, Arena& arena, Tensor score, const EntropyPass& pass, const Network& generator) {
  ReverseRequest request;
  request.grad_input = score;
  generator.reverse(ops, arena, pass.primal, &pass.tangents(), {}, pass.cotangents, request);
  ops.axpy(score, 1, pass.primal.input);
}

}  // namespace bracket
