#include "bracket/entropy.h"

#include <algorithm>
#include <string>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/training/smallest_singular.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr const char* kNames[] = {"exact", "min_singular", "lobpcg"};
constexpr const char* kCertificates[] = {"exact", "certified", "optimistic"};

/// Activations of tangents that an automatic chunk may take.
constexpr std::int64_t kTangentBytes = std::int64_t{256} << 20;

std::int64_t chunk_of(const EntropyConfig& config, const Network& generator, std::int64_t n) {
  if (config.chunk > 0) return std::min(config.chunk, n);
  const std::int64_t bytes_per_sample =
      generator.input_size() * generator.values_per_row() * dtype_bytes(generator.dtype());
  return std::min(std::max<std::int64_t>(kTangentBytes / bytes_per_sample, 1), n);
}

Tensor identities(Ops& ops, Arena& arena, const Network& generator, std::int64_t samples) {
  const std::int64_t d = generator.input_size();
  const Tensor tangents = arena.allocate(generator.dtype(), {samples * d, d});
  ops.tile_identity(tangents, samples);
  return tangents;
}

// Row i d + k of the Jacobian is column k of J_i: the image of coordinate direction k.
void jacobian_forward(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                      const ParameterSet& parameters, Tensor z, std::int64_t chunk) {
  const std::int64_t n = z.rows(), d = generator.input_size(), D = generator.output_size();
  if (chunk >= n) {
    pass.chunk = 0;
    const Tensor input = arena.allocate(z.dtype(), {n + n * d, d});  // one block: primal rows, then the d directions
    ops.copy(input.slice_rows(0, n), z);
    ops.tile_identity(input.slice_rows(n, n * d), n);
    generator.forward(ops, arena, pass.primal, pass.tangents, parameters, input.slice_rows(0, n),
                      input.slice_rows(n, n * d), {0, n, d}, PassMode::inference);
    pass.jacobian = pass.tangents.output();
    return;
  }
  pass.chunk = chunk;
  generator.forward(ops, arena, pass.primal, parameters, z, PassMode::inference);
  pass.jacobian = arena.allocate(z.dtype(), {n * d, D});
  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t mark = arena.mark(), count = std::min(chunk, n - first);
    generator.push_through(ops, arena, pass.jacobian.slice_rows(first * d, count * d), pass.primal,
                           identities(ops, arena, generator, count), {first, count, d});
    arena.rewind(mark);
  }
}

// h = sum log diag L with L L^T = J^T J, and C = J (J^T J)^-1: per sample, with T = J^T the rows of the Jacobian,
// C^T = (T T^T)^-1 T, two triangular solves on the rows of T.
void exact_estimate(Ops& ops, Arena& arena, EntropyPass& pass, std::int64_t n, std::int64_t d) {
  const Tensor& jacobian = pass.jacobian;
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
  const SmallestSingular smallest = smallest_singular(ops, arena, pass.jacobian, n, d);
  pass.value = smallest.volume;
  pass.chunk = 0;
  generator.push(ops, arena, pass.tangents, pass.primal, smallest.direction, {0, n, 1});
  pass.cotangents = arena.allocate(pass.jacobian.dtype(), {n, pass.jacobian.cols()});
  ops.scale_rows(pass.cotangents, pass.tangents.output(), smallest.scale, 1);
}

// J is linear: J v and J p are recombined like v and p, so that a step costs one J r and one J^T w. The value comes
// from a J v of its own, which no step has rounded, and mu >= s_1 holds whatever the steps did.
void lobpcg_estimate(Ops& ops, Arena& arena, EntropyPass& pass, const Network& generator,
                     const ParameterSet& parameters, Tensor z, std::int64_t iterations, Tensor v) {
  const DType dtype = z.dtype();
  const std::int64_t n = z.rows(), d = generator.input_size(), D = generator.output_size();
  pass.chunk = 0;
  pass.jacobian = {};
  generator.forward(ops, arena, pass.primal, parameters, z, PassMode::inference);
  pass.value = arena.allocate(dtype, {n});
  pass.cotangents = arena.allocate(dtype, {n, D});
  const Tensor scale = arena.allocate(dtype, {n});
  const TangentLayout layout{0, n, 1};

  const std::int64_t mark = arena.mark();
  const Tensor p = arena.allocate(dtype, {n, d}), r = arena.allocate(dtype, {n, d});
  const Tensor jv = arena.allocate(dtype, {n, D}), jp = arena.allocate(dtype, {n, D});
  const Tensor jr = arena.allocate(dtype, {n, D});
  ops.fill(p, 0);
  ops.fill(jp, 0);
  generator.push_through(ops, arena, jv, pass.primal, v, layout);
  for (std::int64_t k = 0; k < iterations; ++k) {
    ReverseRequest product;  // J^T J v
    product.grad_input = r;
    generator.reverse(ops, arena, pass.primal, nullptr, jv, {}, product);
    ops.lobpcg_residual(r, r, v, jv);
    generator.push_through(ops, arena, jr, pass.primal, r, layout);
    ops.lobpcg_update(v, p, jv, jp, r, jr);
  }
  arena.rewind(mark);

  generator.push(ops, arena, pass.tangents, pass.primal, v, layout);
  ops.lobpcg_volume(pass.value, scale, v, pass.tangents.output());
  ops.scale_rows(pass.cotangents, pass.tangents.output(), scale, 1);
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
  if (config.chunk < 0)
    throw InvalidArgument("entropy chunk is " + std::to_string(config.chunk) + ", must not be negative");
  jacobian_forward(ops, arena, pass, generator, parameters, z, chunk_of(config, generator, n));
  if (config.estimator == EntropyEstimator::exact)
    exact_estimate(ops, arena, pass, n, d);
  else
    min_singular_estimate(ops, arena, pass, generator, n, d);
}

void entropy_reverse(Ops& ops, Arena& arena, const EntropyPass& pass, const Network& generator, Tensor cotangent,
                     double factor, const ReverseRequest& request) {
  if (!request.grad_tangent_input.absent())
    throw InvalidArgument("entropy_reverse: the tangents are the estimator's own; ask for grad_input or parameters");
  const std::int64_t n = pass.value.rows(), d = generator.input_size(), chunk = pass.chunk == 0 ? n : pass.chunk;
  std::int64_t first = 0;
  do {
    const std::int64_t mark = arena.mark(), count = std::min(chunk, n - first);
    TangentPass again;
    if (pass.chunk > 0)
      generator.push(ops, arena, again, pass.primal, identities(ops, arena, generator, count), {first, count, d});
    Tensor c = pass.cotangents;
    if (pass.chunk > 0) c = c.slice_rows(first * d, count * d);
    if (factor != 1) {
      const Tensor scaled = arena.allocate(c.dtype(), {c.rows(), c.cols()});
      ops.fill(scaled, 0);
      ops.axpy(scaled, factor, c);
      c = scaled;
    }
    ReverseRequest part = request;
    if (first > 0) {
      part.accumulate_parameters = true;
      if (!request.grad_input.absent()) part.grad_input = arena.allocate(c.dtype(), {n, d});
    }
    generator.reverse(ops, arena, pass.primal, pass.chunk > 0 ? &again : &pass.tangents,
                      first == 0 ? cotangent : Tensor(), c, part);
    if (first > 0 && !request.grad_input.absent()) ops.axpy(request.grad_input, 1, part.grad_input);
    arena.rewind(mark);
    first += chunk;
  } while (first < n);
}

void jacobian_product(Ops& ops, Arena& arena, Tensor y, const EntropyPass& pass, const Network& generator, Tensor v) {
  if (pass.jacobian.absent())
    generator.push_through(ops, arena, y, pass.primal, v, {0, v.rows(), 1});
  else
    ops.combine_tangents(y, pass.jacobian, v);
}

void entropy_score(Ops& ops, Arena& arena, Tensor score, const EntropyPass& pass, const Network& generator) {
  ReverseRequest request;
  request.grad_input = score;
  entropy_reverse(ops, arena, pass, generator, {}, 1, request);
  ops.axpy(score, 1, pass.primal.input);
}

}  // namespace bracket
