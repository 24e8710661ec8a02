// Sums, maps and random numbers over the parameters of an MLP of the size of the presets' and of an image network.
#include <algorithm>
#include <cmath>

#include "bench/libraries/libraries.h"
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kCounts[] = {1 << 16, 1 << 22};
constexpr double kDecay = 0.999, kAlpha = 0.75;

void add(std::vector<BenchDevice>& devices, const std::string& op_name, std::int64_t count, std::int64_t passes,
         const char* library, std::function<Work(Operands&)> make) {
  OpCase op;
  op.name = op_name + "/" + std::to_string(count);
  op.bytes = static_cast<double>(passes * count * dtype_bytes(op.dtype));
  op.make = std::move(make);
  op.gpu_only = true;
  op.library = library;
  register_case(op, devices);
}

void register_sums(std::vector<BenchDevice>& devices, std::int64_t count, const char* library) {
  add(devices, "sum", count, 1, library, [count](Operands& operands) -> Work {
    // With a mean, so that the sum is not what rounding leaves of large ones.
    const Tensor x = operands.normal({count}, 1, 1), sum = operands.result({1}, DType::f64);
    const Tensor workspace = operands.result({kReductionWorkspace}, DType::f64);
    return {[=](Ops& ops) { ops.sum(sum, x, workspace); },
            {{sum}},
            [=, &operands] { return LibraryWork{cub_library()->sum(operands, sum, x)}; }};
  });
  add(devices, "squared_norm", count, 1, library, [count](Operands& operands) -> Work {
    const Tensor x = operands.normal({count}), sum = operands.result({1}, DType::f64);
    const Tensor workspace = operands.result({kReductionWorkspace}, DType::f64);
    return {[=](Ops& ops) { ops.squared_norm(sum, x, workspace); },
            {{sum}},
            [=, &operands] { return LibraryWork{cub_library()->squared_norm(operands, sum, x)}; }};
  });
}

// What is updated in place is copied first, on both sides.
void register_maps(std::vector<BenchDevice>& devices, std::int64_t count, const char* library) {
  add(devices, "fill", count, 1, library, [count](Operands& operands) -> Work {
    const Tensor y = operands.result({count});
    return {[=](Ops& ops) { ops.fill(y, kAlpha); },
            {{y}},
            [=, &operands] { return LibraryWork{cub_library()->fill(operands, y, kAlpha)}; }};
  });
  add(devices, "copy", count, 2, library, [count](Operands& operands) -> Work {
    const Tensor x = operands.normal({count}), y = operands.result({count});
    return {[=](Ops& ops) { ops.copy(y, x); },
            {{y}},
            [=, &operands] { return LibraryWork{cub_library()->copy(operands, y, x)}; }};
  });
  add(devices, "axpy_and_copy", count, 5, library, [count](Operands& operands) -> Work {
    const Tensor before = operands.normal({count}), x = operands.normal({count}), y = operands.result({count});
    return {[=](Ops& ops) {
              ops.copy(y, before);
              ops.axpy(y, kAlpha, x);
            },
            {{y}},
            [=, &operands] {
              return LibraryWork{[copy = cub_library()->copy(operands, y, before),
                                  axpy = cub_library()->axpy(operands, y, kAlpha, x)] {
                copy();
                axpy();
              }};
            }};
  });
  add(devices, "ema_and_copy", count, 5, library, [count](Operands& operands) -> Work {
    const Tensor before = operands.normal({count}), x = operands.normal({count}), y = operands.result({count});
    const StepState* const state = operands.state({});
    return {[=](Ops& ops) {
              ops.copy(y, before);
              ops.ema(y, x, kDecay, state);
            },
            {{y}},
            [=, &operands] {
              return LibraryWork{
                  [copy = cub_library()->copy(operands, y, before), ema = cub_library()->ema(operands, y, x, kDecay)] {
                    copy();
                    ema();
                  }};
            }};
  });
}

/// How many standard errors mean and variance of independent numbers are off, the larger of the two. `fourth`: the
/// fourth central moment, which the variance of a variance takes.
double deviation(const std::vector<double>& values, double mean, double variance, double fourth) {
  const auto count = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value - mean;
    squares += (value - mean) * (value - mean);
  }
  const double of_mean = sum / std::sqrt(count * variance);
  const double of_variance = (squares - count * variance) / std::sqrt(count * (fourth - variance * variance));
  return std::max(std::abs(of_mean), std::abs(of_variance));
}

/// The seed is fixed, so that this is a property of the library: exceeded by chance in one of 1.7 million.
constexpr double kMostDeviations = 5;

void register_random(std::vector<BenchDevice>& devices, std::int64_t count, const char* library) {
  const RandomKey key{7, RandomStream::test, 0};
  const auto judged = [](Operands& operands, Tensor y, Call call, double mean, double variance, double fourth) {
    LibraryWork work{std::move(call)};
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
