// What a training step does around its networks: entropy algebra, reductions, random numbers, losses, the optimizer.
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kToyBatch = 200;
constexpr std::int64_t kCalibratedBatch = 128;
/// Learnable scalars of toy-a's energy and of calibrated-2d's generator.
constexpr std::int64_t kParameterCounts[] = {10504, 17252};

double f32_bytes(std::int64_t elements) { return static_cast<double>(elements * dtype_bytes(DType::f32)); }

void add(std::vector<BenchDevice>& devices, const std::string& name, double bytes, std::function<Work(Operands&)> make,
         double amplification = 1) {
  OpCase op{name, DType::f32, 0, bytes, std::move(make)};
  op.amplification = amplification;
  register_case(op, devices);
}

/// Of 200 Jacobians [2, 2] of normals the worst has a condition number of some 200 to 400. Its results are the largest,
/// and off by as many units; product_gate allows 19 for sums of two.
constexpr double kIllConditioned = 20;

// The sequence of ops behind host/training/entropy.cpp, given the Jacobians.
void register_entropy(std::vector<BenchDevice>& devices) {
  constexpr std::int64_t n = kCalibratedBatch, m = kToyBatch, k = 2;
  add(
      devices, "entropy_exact/128x2x2", f32_bytes(2 * n * k * k),
      [](Operands& operands) -> Work {
        const Tensor jacobian = operands.normal({n * k, 2}), cotangents = operands.result({n * k, 2});
        const Tensor gram = operands.result({n, k, k}, DType::f64), value = operands.result({n});
        return {[=](Ops& ops) {
                  ops.gram(gram, jacobian);
                  ops.cholesky(gram);
                  ops.log_diagonal_sum(value, gram);
                  ops.triangular_solve(cotangents, gram, jacobian, false);
                  ops.triangular_solve(cotangents, gram, cotangents, true);
                },
                {{value, {}}, {cotangents, {}}}};
      },
      kIllConditioned);
  add(
      devices, "entropy_min_singular/200x2x2", f32_bytes(m * k * (k + 2)),
      [](Operands& operands) -> Work {
        const Tensor jacobian = operands.normal({m * k, 2}), direction = operands.result({m, k});
        const Tensor gram = operands.result({m, k, k}, DType::f64), vectors = operands.result({m, k, k}, DType::f64);
        const Tensor values = operands.result({m, k}, DType::f64), value = operands.result({m});
        const Tensor scale = operands.result({m}), cotangents = operands.result({m, 2});
        return {[=](Ops& ops) {
                  ops.gram(gram, jacobian);
                  ops.symmetric_eigen(values, vectors, gram);
                  ops.min_singular(value, direction, scale, values, vectors);
                  ops.combine_tangents(cotangents, jacobian, direction);
                  ops.scale_rows(cotangents, cotangents, scale, 1);
                },
                {{value, {}}, {direction, {}}, {cotangents, {}}}};
      },
      kIllConditioned);
}

void register_reductions(std::vector<BenchDevice>& devices) {
  add(devices, "row_dot/200x2", f32_bytes(kToyBatch * 5), [](Operands& operands) -> Work {
    const Tensor a = operands.normal({kToyBatch, 2}), b = operands.normal({kToyBatch, 2});
    const Tensor y = operands.result({kToyBatch});
    return {[=](Ops& ops) { ops.row_dot(y, a, b); }, {{y, {}}}};
  });
  for (const std::int64_t count : kParameterCounts) {
    OpCase op{"squared_norm/" + std::to_string(count), DType::f32, 0, f32_bytes(count)};
    op.depth = count;
    op.result = DType::f64;
    op.make = [count](Operands& operands) -> Work {
      const Tensor x = operands.normal({count}), sum = operands.result({1}, DType::f64);
      const Tensor workspace = operands.result({kReductionWorkspace}, DType::f64);
      return {[=](Ops& ops) { ops.squared_norm(sum, x, workspace); }, {{sum, {}}}};
    };
    register_case(op, devices);
  }
}

void register_optimizer(std::vector<BenchDevice>& devices) {
  StepState start;
  start.learning_rate[0] = start.learning_rate[1] = 3e-3;
  const Adam rule{0.5, 0.99, 1e-8, 0};
  for (const std::int64_t count : kParameterCounts) {
    add(devices, "adam/" + std::to_string(count), f32_bytes(7 * count), [=](Operands& operands) -> Work {
      const Tensor parameters = operands.normal({count}), gradient = operands.normal({count});
      const Tensor first = operands.normal({count}, 0), second = operands.normal({count}, 0);
      const StepState* state = operands.state(start);
      return {[=](Ops& ops) { ops.adam(parameters, first, second, gradient, rule, state, Player::energy); },
              {{parameters, {}}, {first, {}}, {second, {}}}};
    });
    add(devices, "ema/" + std::to_string(count), f32_bytes(3 * count), [=](Operands& operands) -> Work {
      const Tensor average = operands.normal({count}), parameters = operands.normal({count});
      const StepState* state = operands.state(start);
      return {[=](Ops& ops) { ops.ema(average, parameters, 0.999, state); }, {{average, {}}}};
    });
  }
}

void register_losses(std::vector<BenchDevice>& devices) {
  constexpr std::int64_t n = kToyBatch;
  add(devices, "energy_loss/200", f32_bytes(7 * n), [](Operands& operands) -> Work {
    StepState start;
    start.penalty_weight = 0.02;
    StepState* state = operands.state(start);
    const Tensor data = operands.normal({n}), fake = operands.normal({n});
    const Tensor tangent = operands.normal({n}), score_dot = operands.normal({n});
    const Tensor seed_data = operands.result({n}), seed_fake = operands.result({n});
    const Tensor seed_tangent = operands.result({n});
    return {[=](Ops& ops) {
              ops.energy_loss(seed_data, seed_fake, seed_tangent, state, data, fake, tangent, score_dot, {});
            },
            {{seed_data, {}}, {seed_fake, {}}, {seed_tangent, {}}}};
  });
}

void register_random(std::vector<BenchDevice>& devices) {
  const RandomKey key{7, RandomStream::test, 0};
  add(devices, "random_normal/200x2", f32_bytes(kToyBatch * 2), [key](Operands& operands) -> Work {
    const Tensor y = operands.result({kToyBatch, 2});
    return {[=](Ops& ops) { ops.random_normal(y, key, nullptr); }, {{y, {}}}};
  });
  struct Toy {
    const char* name;
    ToyData data;
  };
  for (const Toy& toy : {Toy{"25gaussians", ToyData::gaussians25}, Toy{"two_moons", ToyData::two_moons}}) {
    add(devices, std::string("toy_samples/") + toy.name + "_200x2", f32_bytes(kToyBatch * 2),
        [key, data = toy.data](Operands& operands) -> Work {
          const Tensor y = operands.result({kToyBatch, 2});
          return {[=](Ops& ops) { ops.toy_samples(y, data, key, nullptr); }, {{y, {}}}};
        });
  }
  add(devices, "gather_batch/128x64", f32_bytes(2 * kCalibratedBatch * 64), [key](Operands& operands) -> Work {
    const Tensor table = operands.normal({1797, 64}), y = operands.result({kCalibratedBatch, 64});
    return {[=](Ops& ops) { ops.gather_batch(y, table, key, nullptr); }, {{y, {}}}};
  });
}

}  // namespace

void register_step_cases(std::vector<BenchDevice>& devices) {
  register_entropy(devices);
  register_reductions(devices);
  register_optimizer(devices);
  register_losses(devices);
  register_random(devices);
}

}  // namespace bracket::bench
