// The vector algebra of one step of the Jacobian estimators, at 64 samples of 128 latents and 3,072 outputs.
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kSamples = 64;
constexpr std::int64_t kInputs = 128;
constexpr std::int64_t kOutputs = 3072;
constexpr std::int64_t kSteps = 20;
/// Row `step` of `kSteps` directions is the next: 10 are there, half of what an estimate of 20 steps sees on average.
constexpr std::int64_t kStep = 9;

void add(std::vector<BenchDevice>& devices, const std::string& name, std::int64_t inputs, std::int64_t outputs,
         std::function<Work(Operands&)> make) {
  const auto bytes = static_cast<double>(kSamples * (inputs * kInputs + outputs * kOutputs) * dtype_bytes(DType::f32));
  OpCase op{name + "/64x128x3072", DType::f32, 0, bytes, std::move(make)};
  op.depth = kOutputs;
  register_case(op, devices);
}

/// Coefficients of a bidiagonal matrix, double whatever the case.
Tensor coefficients(Operands& operands) {
  const Tensor values = operands.normal({kSamples, kSteps}, 0.1, 1);
  const Tensor result = operands.result({kSamples, kSteps}, DType::f64);
  operands.ops().copy(result, values);
  return result;
}

Tensor lengths(Operands& operands, double value) {
  const Tensor result = operands.result({kSamples}, DType::f64);
  operands.ops().fill(result, value);
  return result;
}

}  // namespace

// Ops that work in place are timed with the copy that restores their operand.
void register_jacobian_cases(std::vector<BenchDevice>& devices) {
  add(devices, "golub_kahan_left_and_copy", 0, 5, [](Operands& operands) -> Work {
    const Tensor before = operands.normal({kSamples, kOutputs}), jv = operands.normal({kSamples, kOutputs});
    const Tensor u = operands.result({kSamples, kOutputs});
    const Tensor alpha = coefficients(operands), beta = coefficients(operands);
    return {[=](Ops& ops) {
              ops.copy(u, before);
              ops.golub_kahan_left(u, alpha, jv, beta, kStep);
            },
            {{u, {}}}};
  });
  add(devices, "golub_kahan_right_and_copy", kStep + 6, 0, [](Operands& operands) -> Work {
    // Orthonormal, as it is in use: of other directions the order in which a device takes them out would show.
    const Tensor directions = operands.normal({kSamples * kSteps, kInputs});
    const Tensor wide = operands.result({kSamples * kSteps, kInputs}, DType::f64);
    const Tensor basis = operands.result({kSamples * kSteps, kInputs});
    operands.ops().copy(wide, directions);
    operands.ops().lq_factor(operands.result({kSamples, kSteps, kSteps}, DType::f64), wide);
    operands.ops().copy(basis, wide);
    const Tensor before = operands.normal({kSamples, kInputs}), w = operands.result({kSamples, kInputs});
    const Tensor alpha = coefficients(operands), beta = coefficients(operands);
    return {[=](Ops& ops) {
              ops.copy(w, before);
              ops.golub_kahan_right(basis, beta, w, alpha, kStep);
            },
            {{w, {}}}};
  });
  // Per direction: V and P copied (4 moved), then three read and two written, of vectors and of images alike.
  for (const std::int64_t block : {1, 2, 4}) {
    add(devices, "lobpcg_block_update_and_copies_of_" + std::to_string(block), 9 * block, 9 * block,
        [block](Operands& operands) -> Work {
          const std::int64_t rows = kSamples * block;
          const Tensor v = operands.normal({rows, kInputs}), p = operands.normal({rows, kInputs});
          const Tensor jv = operands.normal({rows, kOutputs}), jp = operands.normal({rows, kOutputs});
          const Tensor r = operands.normal({rows, kInputs}), jr = operands.normal({rows, kOutputs});
          const Tensor new_v = operands.result({rows, kInputs}), new_p = operands.result({rows, kInputs});
          const Tensor new_jv = operands.result({rows, kOutputs}), new_jp = operands.result({rows, kOutputs});
          return {[=](Ops& ops) {
                    ops.copy(new_v, v);
                    ops.copy(new_p, p);
                    ops.copy(new_jv, jv);
                    ops.copy(new_jp, jp);
                    ops.lobpcg_block_update(new_v, new_p, new_jv, new_jp, r, jr, block);
                  },
                  {{new_v, {}}, {new_p, {}}, {new_jv, {}}, {new_jp, {}}}};
        });
  }
  add(devices, "conjugate_gradient_step_and_copies", 13, 1, [](Operands& operands) -> Work {
    const Tensor old[3] = {operands.normal({kSamples, kInputs}), operands.normal({kSamples, kInputs}),
                           operands.normal({kSamples, kInputs})};
    const Tensor x = operands.result({kSamples, kInputs}), r = operands.result({kSamples, kInputs});
    const Tensor p = operands.result({kSamples, kInputs}), w = operands.normal({kSamples, kInputs});
    const Tensor jp = operands.normal({kSamples, kOutputs}), residual = lengths(operands, 10);
    const Tensor norm = lengths(operands, 10);
    return {[=, first = old[0], second = old[1], third = old[2]](Ops& ops) {
              ops.copy(x, first);
              ops.copy(r, second);
              ops.copy(p, third);
              ops.fill(residual, 10);
              ops.conjugate_gradient_step(x, r, p, residual, w, jp, norm, 0);
            },
            {{x, {}}, {r, {}}, {p, {}}}};
  });
  add(devices, "singular_certificate", 2, 1, [](Operands& operands) -> Work {
    const Tensor v = operands.normal({kSamples, kInputs}), w = operands.normal({kSamples, kInputs}, 100);
    const Tensor jv = operands.normal({kSamples, kOutputs}), scale = operands.result({kSamples});
    const Tensor h = operands.result({kSamples}, DType::f64), mu = operands.result({kSamples}, DType::f64);
    const Tensor distance = operands.result({kSamples}, DType::f64);
    return {[=](Ops& ops) { ops.singular_certificate(h, scale, mu, distance, w, v, jv, kInputs); },
            {{h, {}}, {scale, {}}, {mu, {}}, {distance, {}}}};
  });
}

}  // namespace bracket::bench
