#include "bracket/entropy.h"

#include <algorithm>
#include <limits>
#include <string>

#include "bracket/error.h"
#include "bracket/jacobian.h"
#include "host/core/text.h"
#include "host/jacobian/gram_factor.h"
#include "host/jacobian/lobpcg.h"
#include "host/jacobian/scale.h"
#include "host/training/smallest_singular.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr const char* kNames[] = {"exact", "min_singular", "lobpcg", "triangular"};
constexpr const char* kCertificates[] = {"exact", "certified", "optimistic", "exact"};

/// One direction per sample keeps no more than the primal pass beside it does.
constexpr std::int64_t kWholeBatch = std::numeric_limits<std::int64_t>::max();

/// Rows per sample that a training step sends through the pass of an estimate: a score, whose reverse pass takes the
/// primal and one tangent row, and one product with J. Parameter gradients would be more.
constexpr std::int64_t kStepProducts = 3;

// Row i d + k of the Jacobian is column k of J_i: the image of coordinate direction k.
void jacobian_forward(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                      const ParameterSet& parameters, Tensor z, std::int64_t chunk, bool whole_reverse) {
  const std::int64_t n = z.rows(), d = generator.input_size();
  const std::int64_t sample_bytes = d * generator.values_per_row() * dtype_bytes(generator.dtype());
  const std::int64_t reverse_rows = whole_reverse ? n * (1 + d) : kStepProducts * n;
  const std::int64_t most = chunk > 0 ? std::min(chunk, n) * sample_bytes : NetworkJacobian::kTangentBytes;
  if (n * sample_bytes <= most) {
    pass.tangent_bytes = 0;
    const Tensor input = arena.allocate(z.dtype(), {n + n * d, d});  // one block: primal rows, then the d directions
    ops.copy(input.slice_rows(0, n), z);
    ops.tile_identity(input.slice_rows(n, n * d), n);
    generator.forward(ops, arena, pass.primal, pass.tangents, parameters, input.slice_rows(0, n),
                      input.slice_rows(n, n * d), {0, n, d}, PassMode::inference, {.rows = reverse_rows});
    pass.jacobian = pass.tangents.output();
    return;
  }
  pass.tangent_bytes = most;
  // Every portion of the reverse pass takes the gradients of merged maps once.
  const std::int64_t portions = whole_reverse ? (n * sample_bytes + most - 1) / most : 1;
  generator.forward(ops, arena, pass.primal, parameters, z, PassMode::inference,
                    {.rows = n * d + reverse_rows, .parameter_passes = portions});
  pass.jacobian = arena.allocate(z.dtype(), {n * d, generator.output_size()});
  jacobian_columns(ops, arena, pass.jacobian, NetworkJacobian(generator, pass.primal, most));
}

void exact_estimate(Ops& ops, Arena& arena, EntropyPass& pass, std::int64_t n, std::int64_t d) {
  const Tensor& jacobian = pass.jacobian;
  pass.value = arena.allocate(jacobian.dtype(), {n});
  const Tensor lower = arena.allocate(DType::f64, {n, d, d});
  gram_factor(ops, lower, pass.value, jacobian);
  pass.cotangents = arena.allocate(jacobian.dtype(), {n * d, jacobian.cols()});
  gram_cotangents(ops, pass.cotangents, lower, jacobian);
}

// d log s_1 with derivative <d J v_1 / s_1^2, d(J v_1)>; v_1 needs no derivative at a simple smallest singular value.
void min_singular_estimate(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator, std::int64_t n,
                           std::int64_t d) {
  const SmallestSingular smallest = smallest_singular(ops, arena, pass.jacobian, n, d);
  pass.value = smallest.volume;
  pass.tangent_bytes = 0;
  generator.push(ops, arena, pass.tangents, pass.primal, smallest.direction, {0, n, 1});
  pass.cotangents = arena.allocate(pass.jacobian.dtype(), {n, pass.jacobian.cols()});
  ops.scale_rows(pass.cotangents, pass.tangents.output(), smallest.scale, 1);
}

// The value comes from a J v of its own, which no step has rounded, and mu >= s_1 holds whatever the steps did.
void lobpcg_estimate(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                     const ParameterSet& parameters, Tensor z, std::int64_t iterations, Tensor v) {
  const std::int64_t n = z.rows();
  pass.tangent_bytes = 0;
  pass.jacobian = {};
  const std::int64_t products = 2 * iterations + 2 + kStepProducts;
  generator.forward(ops, arena, pass.primal, parameters, z, PassMode::inference, {.rows = products * n});
  LobpcgEstimate steps;
  const NetworkJacobian jacobian(generator, pass.primal, kWholeBatch);
  lobpcg_iterate(ops, arena, jacobian, v, {iterations}, steps);

  pass.value = arena.allocate(z.dtype(), {n});
  pass.cotangents = arena.allocate(z.dtype(), {n, generator.output_size()});
  const Tensor scale = arena.allocate(z.dtype(), {n});
  generator.push(ops, arena, pass.tangents, pass.primal, v, {0, n, 1});
  ops.lobpcg_volume(pass.value, scale, v, pass.tangents.output());
  ops.scale_rows(pass.cotangents, pass.tangents.output(), scale, 1);
}

void triangular_estimate(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                         const ParameterSet& parameters, Tensor z) {
  const std::int64_t n = z.rows();
  pass.tangent_bytes = 0;
  pass.jacobian = pass.cotangents = {};
  generator.forward(ops, arena, pass.primal, parameters, z, PassMode::inference,
                    {.rows = kStepProducts * n, .log_volume = true});
  pass.value = pass.primal.log_volume.reshaped({n});
}

// The tangents are sent again, in portions; then <cotangent, G(z)> by a pass of its own.
void reverse_in_portions(Ops& ops, Arena& arena, const EntropyPass& pass, const Network& generator, Tensor cotangent,
                         double factor, ReverseRequest request) {
  const std::int64_t mark = arena.mark(), n = pass.value.rows(), d = generator.input_size();
  const Tensor identities = arena.allocate(generator.dtype(), {n * d, d});
  ops.tile_identity(identities, n);
  NetworkJacobian(generator, pass.primal, pass.tangent_bytes)
      .reverse(ops, arena, identities, pass.cotangents, factor, request);
  if (!cotangent.absent()) {
    const Tensor total = request.grad_input;
    if (!total.absent()) request.grad_input = arena.allocate(total.dtype(), {n, d});
    request.accumulate_parameters = true;
    generator.reverse(ops, arena, pass.primal, nullptr, cotangent, {}, request);
    if (!total.absent()) ops.axpy(total, 1, request.grad_input);
  }
  arena.rewind(mark);
}

}  // namespace

const char* entropy_estimator_name(EntropyEstimator estimator) noexcept {
  return kNames[static_cast<std::size_t>(estimator)];
}

const char* entropy_certificate(EntropyEstimator estimator) noexcept {
  return kCertificates[static_cast<std::size_t>(estimator)];
}

std::int64_t entropy_passes(const EntropyConfig& config, std::int64_t d) noexcept {
  switch (config.estimator) {
    case EntropyEstimator::exact:
      return 2 * d;
    case EntropyEstimator::min_singular:
      return d + 2;
    case EntropyEstimator::triangular:
      return 0;
    case EntropyEstimator::lobpcg:
      break;
  }
  return 2 * config.iterations + 3;
}

EntropyEstimator entropy_estimator_from_name(const std::string& name) {
  for (std::size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<EntropyEstimator>(i);
  throw InvalidArgument("unknown entropy estimator '" + name + "'; did you mean '" +
                        nearest_name(name, {std::begin(kNames), std::end(kNames)}) + "'?");
}

void entropy_forward(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                     const ParameterSet& parameters, Tensor z, const EntropyConfig& config, Tensor direction) {
  const std::int64_t n = z.rows(), d = generator.input_size();
  if (d > generator.output_size())
    throw InvalidArgument("the generator's latent size " + std::to_string(d) + " exceeds its output size " +
                          std::to_string(generator.output_size()) + ": J^T J is singular and the log-volume undefined");
  if (config.estimator == EntropyEstimator::lobpcg) {
    if (config.iterations < 1)
      throw InvalidArgument("lobpcg iterations is " + std::to_string(config.iterations) + ", must be at least 1");
    if (direction.absent()) throw InvalidArgument("lobpcg needs a direction to start from: [n, d] normals");
    return lobpcg_estimate(ops, arena, pass, generator, parameters, z, config.iterations, direction);
  }
  if (config.estimator == EntropyEstimator::triangular)
    return triangular_estimate(ops, arena, pass, generator, parameters, z);
  if (config.chunk < 0)
    throw InvalidArgument("entropy chunk is " + std::to_string(config.chunk) + ", must not be negative");
  const bool exact = config.estimator == EntropyEstimator::exact;
  jacobian_forward(ops, arena, pass, generator, parameters, z, config.chunk, exact);
  if (exact)
    exact_estimate(ops, arena, pass, n, d);
  else
    min_singular_estimate(ops, arena, pass, generator, n, d);
}

void entropy_reverse(Ops& ops, Arena& arena, const EntropyPass& pass, const Network& generator, Tensor cotangent,
                     double factor, const ReverseRequest& request) {
  if (!request.grad_tangent_input.absent())
    throw InvalidArgument("entropy_reverse: the tangents are the estimator's own; ask for grad_input or parameters");
  if (pass.tangent_bytes > 0) return reverse_in_portions(ops, arena, pass, generator, cotangent, factor, request);
  const std::int64_t mark = arena.mark();
  if (!pass.primal.log_volume.absent()) {
    const Tensor seed = arena.allocate(pass.value.dtype(), {pass.value.rows(), 1});
    ops.fill(seed, factor);
    generator.reverse(ops, arena, pass.primal, nullptr, cotangent, {}, request, {seed, {}});
    arena.rewind(mark);
    return;
  }
  generator.reverse(ops, arena, pass.primal, &pass.tangents, cotangent, scaled(ops, arena, factor, pass.cotangents),
                    request);
  arena.rewind(mark);
}

void jacobian_product(Ops& ops, Arena& arena, Tensor y, const EntropyPass& pass, const Network& generator, Tensor v) {
  if (pass.jacobian.absent())
    generator.push_through(ops, arena, y, pass.primal, v, {0, v.rows(), 1});
  else
    ops.combine_tangents(y, pass.jacobian, v);
}

void entropy_probe(Ops& ops, Arena& arena, Tensor y, Tensor score_dot, const EntropyPass& pass,
                   const Network& generator, Tensor v) {
  const std::int64_t mark = arena.mark(), n = v.rows();
  if (!pass.primal.log_volume.absent()) {  // s . v = z . v + the derivative of h along v
    TangentPass tangents;
    generator.push(ops, arena, tangents, pass.primal, v, {0, n, 1});
    ops.copy(y, tangents.output());
    ops.row_dot(score_dot, pass.primal.input, v);
    ops.axpy(score_dot, 1, tangents.log_volume.reshaped({n}));
  } else {
    const Tensor score = arena.allocate(v.dtype(), {n, v.cols()});
    entropy_score(ops, arena, score, pass, generator);
    ops.row_dot(score_dot, score, v);
    jacobian_product(ops, arena, y, pass, generator, v);
  }
  arena.rewind(mark);
}

void entropy_score(Ops& ops, Arena& arena, Tensor score, const EntropyPass& pass, const Network& generator) {
  ReverseRequest request;
  request.grad_input = score;
  entropy_reverse(ops, arena, pass, generator, {}, 1, request);
  ops.axpy(score, 1, pass.primal.input);
}

}  // namespace bracket
