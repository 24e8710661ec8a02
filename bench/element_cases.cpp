// Sums, maps and random numbers over the parameters of an MLP of the size of the presets' and of an image network.
#include "bench/judge.h"
#include "bench/libraries/element_formulas.h"
#include "bench/libraries/libraries.h"
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kCounts[] = {1 << 16, 1 << 22};
constexpr double kAlpha = 0.75;

void add(std::vector<BenchDevice>& devices, const std::string& op_name, std::int64_t count, std::int64_t passes,
         const char* library, std::function<Work(Operands&)> make, bool is_sum = false) {
  OpCase op;
  if (is_sum) {
    op.depth = count;
    op.result = DType::f64;
  }
  op.name = op_name + "/" + std::to_string(count);
  op.bytes = static_cast<double>(passes * count * dtype_bytes(op.dtype));
  op.make = std::move(make);
  op.gpu_only = true;
  op.library = library;
  register_case(op, devices);
}

void register_sums(std::vector<BenchDevice>& devices, std::int64_t count, const char* library) {
  add(
      devices, "sum", count, 1, library,
      [count](Operands& operands) -> Work {
        // With a mean, so that the sum is not what rounding leaves of large ones.
        const Tensor x = operands.normal({count}, 1, 1), sum = operands.result({1}, DType::f64);
        const Tensor workspace = operands.result({kReductionWorkspace}, DType::f64);
        return {[=](Ops& ops) { ops.sum(sum, x, workspace); },
                {{sum}},
                [=, &operands] { return LibraryWork{cub_library()->sum(operands, sum, x)}; }};
      },
      true);
  add(
      devices, "squared_norm", count, 1, library,
      [count](Operands& operands) -> Work {
        const Tensor x = operands.normal({count}), sum = operands.result({1}, DType::f64);
        const Tensor workspace = operands.result({kReductionWorkspace}, DType::f64);
        return {[=](Ops& ops) { ops.squared_norm(sum, x, workspace); },
                {{sum}},
                [=, &operands] { return LibraryWork{cub_library()->squared_norm(operands, sum, x)}; }};
      },
      true);
}

LibraryWork labelled(const char* label, Call call) {
  LibraryWork work{std::move(call)};
  work.label = label;
  return work;
}

LibraryWork behind_copy(Call copy, Call update) {
  return labelled("cub::DeviceTransform behind cudaMemcpyAsync", [copy, update] {
    copy();
    update();
  });
}

// What is updated in place is copied first, on both sides.
void register_maps(std::vector<BenchDevice>& devices, std::int64_t count, const char* library) {
  add(devices, "fill", count, 1, library, [count](Operands& operands) -> Work {
    const Tensor y = operands.result({count});
    return {[=](Ops& ops) { ops.fill(y, kAlpha); },
            {{y}},
            [=, &operands] { return labelled("thrust::fill_n", cub_library()->fill(operands, y, kAlpha)); }};
  });
  add(devices, "copy", count, 2, library, [count](Operands& operands) -> Work {
    const Tensor x = operands.normal({count}), y = operands.result({count});
    return {[=](Ops& ops) { ops.copy(y, x); },
            {{y}},
            [=, &operands] { return labelled("cudaMemcpyAsync", cub_library()->copy(operands, y, x)); }};
  });
  add(devices, "axpy_and_copy", count, 5, library, [count](Operands& operands) -> Work {
    const Tensor before = operands.normal({count}), x = operands.normal({count}), y = operands.result({count});
    return {[=](Ops& ops) {
              ops.copy(y, before);
              ops.axpy(y, kAlpha, x);
            },
            {{y}},
            [=, &operands] {
              return behind_copy(cub_library()->copy(operands, y, before), cub_library()->axpy(operands, y, kAlpha, x));
            }};
  });
  add(devices, "ema_and_copy", count, 5, library, [count](Operands& operands) -> Work {
    const Tensor before = operands.normal({count}), x = operands.normal({count}), y = operands.result({count});
    StepState late;
    late.step = kEmaStep;
    const StepState* const state = operands.state(late);
    return {[=](Ops& ops) {
              ops.copy(y, before);
              ops.ema(y, x, kEmaDecay, state);
            },
            {{y}},
            [=, &operands] {
              return behind_copy(cub_library()->copy(operands, y, before),
                                 cub_library()->ema(operands, y, x, kEmaDecay));
            }};
  });
}

/// The seed is fixed, so that this is a property of the library: exceeded by chance, by either of the two, in one of
/// 870,000.
constexpr double kMostDeviations = 5;

void register_random(std::vector<BenchDevice>& devices, std::int64_t count, const char* library) {
  const RandomKey key{7, RandomStream::test, 0};
  const auto judged = [](Operands& operands, Tensor y, const Call& call, double mean, double variance, double fourth) {
    LibraryWork work = labelled("f32 arithmetic (ours: f64), numbers of its own, judged by mean and variance", call);
    work.error = [=, &operands] { return deviation(operands.values(y), mean, variance, fourth); };
    work.allowed = kMostDeviations;
    return work;
  };
  add(devices, "random_uniform", count, 1, library, [=](Operands& operands) -> Work {
    const Tensor y = operands.result({count});
    return {[=](Ops& ops) { ops.random_uniform(y, key, 0, 1, nullptr); },
            {{y}},
            [=, &operands] { return judged(operands, y, curand()->uniform(operands, y), 0.5, 1.0 / 12, 1.0 / 80); }};
  });
  add(devices, "random_normal", count, 1, library, [=](Operands& operands) -> Work {
    const Tensor y = operands.result({count});
    return {[=](Ops& ops) { ops.random_normal(y, key, nullptr); },
            {{y}},
            [=, &operands] { return judged(operands, y, curand()->normal(operands, y), 0, 1, 3); }};
  });
}

}  // namespace

void register_element_cases(std::vector<BenchDevice>& devices) {
  const char* const sums = cub_library() ? cub_library()->name : nullptr;
  const char* const numbers = curand() ? curand()->name : nullptr;
  for (const std::int64_t count : kCounts) {
    register_sums(devices, count, sums);
    register_maps(devices, count, sums);
    register_random(devices, count, numbers);
  }
}

}  // namespace bracket::bench
