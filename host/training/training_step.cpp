#include "host/training/training_step.h"

namespace bracket {
namespace {

Schedule schedule_of(const TrainerConfig& config) {
  Schedule s;
  s.base_rate[static_cast<int>(Player::energy)] = config.energy.optimizer.lr;
  s.base_rate[static_cast<int>(Player::generator)] = config.generator.optimizer.lr;
  s.total_steps = config.total_steps;
  s.warmup_steps = config.schedule.warmup_steps;
  s.cosine = config.schedule.cosine;
  s.final_fraction = config.schedule.final_fraction;
  switch (config.penalty.rule) {
    case PenaltyConfig::Rule::constant:
      s.weight_rule = Schedule::Weight::constant;
      break;
    case PenaltyConfig::Rule::power:
      s.weight_rule = Schedule::Weight::power;
      break;
    case PenaltyConfig::Rule::controller:
      s.weight_rule = Schedule::Weight::adaptive;
      break;
  }
  s.weight = config.penalty.weight;
  s.weight_offset = config.penalty.offset;
  s.weight_exponent = config.penalty.exponent;
  return s;
}

// Batch `number` of this step.
void draw_batch(Ops& ops, Tensor x, const BatchSource& source, std::int64_t number, std::uint64_t seed,
                const std::int64_t* counter) {
  const RandomKey key{seed, RandomStream::data, 0};
  if (source.density) {
    ops.toy_samples(x, *source.density, key, counter);
    return;
  }
  const Tensor table = source.streamed ? source.table.slice_rows(number * x.rows(), x.rows()) : source.table;
  if (source.images) {
    ImageTransform transform = *source.images;
    transform.in_order = source.streamed;
    ops.gather_images(x, table, key, counter, transform);
  } else if (source.streamed) {
    ops.copy(x, table);
  } else {
    ops.gather_batch(x, table, key, counter);
  }
}

Tensor column(const Tensor& e) { return e.reshaped({e.rows()}); }

void check_finite(Ops& ops, Arena& arena, StepState* state, const Tensor& x, CheckedTensor tag) {
  const std::int64_t mark = arena.mark();
  ops.finite_check(state, x, static_cast<std::int64_t>(tag), arena.allocate(DType::f64, {kReductionWorkspace}));
  arena.rewind(mark);
}

}  // namespace

void TrainingStep::run(Ops& ops, Arena& arena) {
  ops.begin_step(state, schedule_of(config));
  const Tensor volume = config.entropy_reuse ? arena.allocate(config.dtype, {config.batch_size}) : Tensor();
  const std::int64_t mark = arena.mark();
  for (std::int64_t k = 0; k < config.energy_steps; ++k) {
    energy_update(ops, arena, k, k + 1 == config.energy_steps ? volume : Tensor());
    arena.rewind(mark);
  }
  generator_update(ops, arena, volume);
  arena.rewind(0);
  energy.average_weights(ops, config.ema_decay, state);
  generator.average_weights(ops, config.ema_decay, state);
  if (config.penalty.rule == PenaltyConfig::Rule::controller) {
    const PenaltyConfig& p = config.penalty;
    ops.adapt_penalty_weight(state, {p.target, p.gain, p.decay, p.minimum, p.maximum, p.delay});
  }
  ops.end_step(state, ring, ring_size);
  done("averages and records");
}

void TrainingStep::estimate_entropy(Ops& ops, Arena& arena, Tensor z, RandomStream stream,
                                    const std::int64_t* counter) {
  Tensor start = direction;
  if (config.entropy.estimator == EntropyEstimator::lobpcg && start.absent()) {
    start = arena.allocate(config.dtype, {z.rows(), z.cols()});
    ops.random_normal(start, {config.seed, stream, 0}, counter);
  }
  entropy_forward(ops, arena, passes.entropy, generator.network, generator.raw, z, config.entropy, start);
  done("log-volume");
}

// Energy: mean E(x) - mean E(G(z)) + max(0, w P - tau), descended.
void TrainingStep::energy_update(Ops& ops, Arena& arena, std::int64_t number, Tensor volume) {
  const std::int64_t n = config.batch_size;
  const DType dtype = config.dtype;
  const std::int64_t* counter = &state->updates[static_cast<int>(Player::energy)];  // a device address, never read here
  const Tensor x = arena.allocate(dtype, {n, energy.network.input_size()});
  draw_batch(ops, x, source, number, config.seed, counter);
  const Tensor z = arena.allocate(dtype, {n, generator.network.input_size()});
  ops.random_normal(z, {config.seed, RandomStream::energy_latent, 0}, counter);
  done("batches");
  // Buffers move before the inference pass that J is taken from.
  Tensor fake;
  if (generator.network.has_training_state()) {
    fake = arena.allocate(dtype, {n, generator.network.output_size()});
    generator.network.evaluate(ops, arena, fake, generator.raw, z, PassMode::training);
    done("generator forward");
  }
  estimate_entropy(ops, arena, z, RandomStream::energy_start, counter);
  if (fake.absent()) fake = passes.entropy.primal.output();
  const std::int64_t mark = arena.mark();
  if (config.penalty.kind == PenaltyConfig::Kind::bidirectional)
    bidirectional_gradient(ops, arena, x, fake, z);
  else
    zero_gp_gradient(ops, arena, x, fake, z);
  arena.rewind(mark);
  if (!volume.absent()) {  // now: the next training pass moves the running statistics that J was taken with
    ops.copy(volume, passes.entropy.value);
    ReverseRequest request;
    request.grad_parameters = generator.gradient;
    entropy_reverse(ops, arena, passes.entropy, generator.network, {}, entropy_factor(), request);
    done("log-volume gradient");
  }
  energy.update(ops, arena, state);
  done("optimizers");
}

// Rows [data; G_train(z); G_eval(z); tangent of G_eval(z) along J v]; the two middle blocks coincide where a
// training pass moves no buffers.
void TrainingStep::bidirectional_gradient(Ops& ops, Arena& arena, Tensor x, Tensor fake, Tensor z) {
  const std::int64_t n = config.batch_size, D = energy.network.input_size();
  const DType dtype = config.dtype;
  const std::int64_t* counter = &state->updates[static_cast<int>(Player::energy)];
  const bool split = generator.network.has_training_state();
  const std::int64_t primal_rows = split ? 3 * n : 2 * n;

  const Tensor probe = arena.allocate(dtype, {n, z.cols()});
  ops.random_normal(probe, {config.seed, RandomStream::penalty_probe, 0}, counter);
  const Tensor score_dot = arena.allocate(dtype, {n});
  const Tensor rows = arena.allocate(dtype, {primal_rows + n, D});
  entropy_probe(ops, arena, rows.slice_rows(primal_rows, n), score_dot, passes.entropy, generator.network, probe);
  done("score");

  ops.copy(rows.slice_rows(0, n), x);
  ops.copy(rows.slice_rows(n, n), fake);
  if (split) ops.copy(rows.slice_rows(2 * n, n), passes.entropy.primal.output());
  energy.network.forward(ops, arena, passes.energy, passes.energy_tangent, energy.raw, rows.slice_rows(0, primal_rows),
                         rows.slice_rows(primal_rows, n), {primal_rows - n, n, 1}, PassMode::training);
  done("energy forward");

  const Tensor e = column(passes.energy.output());
  check_finite(ops, arena, state, e, CheckedTensor::energy_output);
  const Tensor seeds = arena.allocate(dtype, {primal_rows + n});
  if (split) ops.fill(seeds.slice_rows(2 * n, n), 0);
  const Tensor seed_tangent = seeds.slice_rows(primal_rows, n);
  ops.energy_loss(seeds.slice_rows(0, n), seeds.slice_rows(n, n), seed_tangent, state, e.slice_rows(0, n),
                  e.slice_rows(n, n), column(passes.energy_tangent.output()), score_dot,
                  {config.penalty.threshold, false});
  ops.bound_record(state, e.slice_rows(primal_rows - n, n), passes.entropy.value, z);
  ReverseRequest request;
  request.grad_parameters = energy.gradient;
  if (split && energy.network.piecewise_linear()) {
    // The third block enters the loss by its tangents alone, whose adjoints then do not bend its primal rows'.
    energy.network.reverse(ops, arena, energy.network.slice(passes.energy, 0, 2 * n), nullptr,
                           seeds.slice_rows(0, 2 * n).reshaped({2 * n, 1}), {}, request);
    energy.network.reverse_tangents(ops, arena, passes.energy, passes.energy_tangent, seed_tangent.reshaped({n, 1}),
                                    energy.gradient, true);
  } else {
    energy.network.reverse(ops, arena, passes.energy, &passes.energy_tangent,
                           seeds.slice_rows(0, primal_rows).reshaped({primal_rows, 1}), seed_tangent.reshaped({n, 1}),
                           request);
  }
  done("energy reverse");
}

// P = mean |grad E(x)|^2 on data: with g = grad E(x) held constant, the tangent of E along g is |g|^2 and half the
// gradient of P flows through it, hence the factor 2 in the seeds.
void TrainingStep::zero_gp_gradient(Ops& ops, Arena& arena, Tensor x, Tensor fake, Tensor z) {
  const std::int64_t n = config.batch_size, D = energy.network.input_size();
  const DType dtype = config.dtype;
  const Tensor rows = arena.allocate(dtype, {2 * n, D});
  ops.copy(rows.slice_rows(0, n), x);
  ops.copy(rows.slice_rows(n, n), fake);
  energy.network.forward(ops, arena, passes.energy, energy.raw, rows, PassMode::training);
  const Tensor e = column(passes.energy.output());
  check_finite(ops, arena, state, e, CheckedTensor::energy_output);

  const Tensor ones = arena.allocate(dtype, {2 * n, 1});
  ops.fill(ones, 1);
  const Tensor slope = arena.allocate(dtype, {2 * n, D});
  ReverseRequest slope_request;
  slope_request.grad_input = slope;
  energy.network.reverse(ops, arena, passes.energy, nullptr, ones, {}, slope_request);
  energy.network.push(ops, arena, passes.energy_tangent, passes.energy, slope.slice_rows(0, n), {0, n, 1});
  done("energy forward");

  const Tensor seeds = arena.allocate(dtype, {3 * n});
  ops.energy_loss(seeds.slice_rows(0, n), seeds.slice_rows(n, n), seeds.slice_rows(2 * n, n), state, e.slice_rows(0, n),
                  e.slice_rows(n, n), column(passes.energy_tangent.output()), {}, {config.penalty.threshold, true});
  ops.bound_record(state, e.slice_rows(n, n), passes.entropy.value, z);
  ReverseRequest request;
  request.grad_parameters = energy.gradient;
  energy.network.reverse(ops, arena, passes.energy, &passes.energy_tangent,
                         seeds.slice_rows(0, 2 * n).reshaped({2 * n, 1}), seeds.slice_rows(2 * n, n).reshaped({n, 1}),
                         request);
  done("energy reverse");
}

// Generator: mean E(G(z)) - lambda mean h(z), descended; a fresh z.
void TrainingStep::generator_update(Ops& ops, Arena& arena, Tensor volume) {
  const std::int64_t n = config.batch_size;
  const DType dtype = config.dtype;
  const std::int64_t* counter = &state->updates[static_cast<int>(Player::generator)];
  const Tensor z = arena.allocate(dtype, {n, generator.network.input_size()});
  ops.random_normal(z, {config.seed, RandomStream::generator_latent, 0}, counter);
  const bool split = generator.network.has_training_state();
  const bool reuse = !volume.absent();
  if (split || reuse)
    generator.network.forward(ops, arena, passes.generated, generator.raw, z,
                              split ? PassMode::training : PassMode::inference);
  done("generator forward");
  if (!reuse) estimate_entropy(ops, arena, z, RandomStream::generator_start, counter);
  const PrimalPass& train = split || reuse ? passes.generated : passes.entropy.primal;

  energy.network.forward(ops, arena, passes.energy, energy.raw, train.output(), PassMode::inference);
  const Tensor e = column(passes.energy.output());
  check_finite(ops, arena, state, e, CheckedTensor::generated_energy);
  ops.generator_loss(state, e, reuse ? volume : passes.entropy.value, config.entropy_weight);
  const Tensor seed = arena.allocate(dtype, {n, 1});
  ops.fill(seed, 1 / static_cast<double>(n));
  const Tensor cotangent = arena.allocate(dtype, {n, train.output().cols()});
  ReverseRequest through_energy;
  through_energy.grad_input = cotangent;
  energy.network.reverse(ops, arena, passes.energy, nullptr, seed, {}, through_energy);
  done("energy of samples");

  ReverseRequest request;
  request.grad_parameters = generator.gradient;
  if (split || reuse) {
    request.accumulate_parameters = reuse;  // the energy update has left the entropy term's
    generator.network.reverse(ops, arena, train, nullptr, cotangent, {}, request);
    done("generator reverse");
    request.accumulate_parameters = true;
    if (!reuse) entropy_reverse(ops, arena, passes.entropy, generator.network, {}, entropy_factor(), request);
  } else {
    entropy_reverse(ops, arena, passes.entropy, generator.network, cotangent, entropy_factor(), request);
  }
  if (!reuse) done("log-volume gradient");
  generator.update(ops, arena, state);
  done("optimizers");
}

}  // namespace bracket
