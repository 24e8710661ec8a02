#include "bench/op_case.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <utility>

#include "bracket/error.h"

namespace bracket::bench {
namespace {

/// Launches in one graph between two events: a single pair is too coarse below 10 us.
constexpr int kLaunches = 50;
constexpr int kWarmUpGraphs = 2;

int failures = 0;

template <class T>
void upload_as(Ops& ops, const Tensor& y, const std::vector<double>& values) {
  const std::vector<T> elements(values.begin(), values.end());
  ops.upload(y, elements.data());
}

void upload(Ops& ops, const Tensor& y, const std::vector<double>& values) {
  if (y.dtype() == DType::f32)
    upload_as<float>(ops, y, values);
  else
    upload_as<double>(ops, y, values);
}

std::vector<double> download(Ops& ops, const Tensor& x) {
  const auto read = [&]<class T>(T) {
    std::vector<T> elements(static_cast<std::size_t>(x.size()));
    ops.download(elements.data(), x);
    return std::vector<double>(elements.begin(), elements.end());
  };
  return x.dtype() == DType::f32 ? read(float{}) : read(double{});
}

/// Largest |actual - expected| as a share of max |expected|; infinite for a NaN, and for an expectation that is zero
/// throughout, which would let an op that writes zeros pass.
double worst_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  double scale = 0;
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(actual[i]) || !std::isfinite(expected[i])) return std::numeric_limits<double>::infinity();
    scale = std::max(scale, std::abs(expected[i]));
    worst = std::max(worst, std::abs(actual[i] - expected[i]));
  }
  return scale == 0 ? std::numeric_limits<double>::infinity() : worst / scale;
}

/// Allowed share: a sum of K products rounds by at most K u of the sum of their magnitudes. The products have random
/// signs, so that the errors add like a random walk to about K u / 3 against a largest sum of 4 sqrt(K): a share of
/// sqrt(K) u / 12, which is 1.3e-6 in f32 for the longest sums (65,536 pixels in the weight gradient of a convolution)
/// and 1.4e-7 for those of the 2-D presets. The remaining factor is for chains of pointwise functions with derivatives
/// up to e^4 (the staircase's steepness) on short sums.
/// Two operands rounded to b bits change a product by 0.6 2^-b of it (root mean square), and these errors add like the
/// products themselves: a share of 0.6 2^-b, 3e-4 for 11 bits and 2.3e-3 for 8. tf32x3 is as exact as fp32.
double gate(const OpCase& op) {
  if (op.math == MathMode::tf32) return 2e-3;
  if (op.math == MathMode::bf16) return 2e-2;
  return op.dtype == DType::f32 ? 1e-5 : 2e-14;
}

struct Prepared {
  std::unique_ptr<Operands> operands;
  Work work;
  double error = 0;
};

std::vector<std::vector<double>> expectations(const OpCase& op, const Work& work) {
  std::vector<std::vector<double>> expected;
  std::unique_ptr<Context> context;
  std::unique_ptr<Operands> operands;
  Work oracle;
  for (std::size_t i = 0; i < work.outputs.size(); ++i) {
    if (!work.outputs[i].expected.empty()) {
      expected.push_back(work.outputs[i].expected);
      continue;
    }
    if (!context) {
      ContextOptions options;
      options.threads = 1;
      context = std::make_unique<Context>(options);
      operands = std::make_unique<Operands>(*context, DType::f64);
      oracle = op.make(*operands);
      oracle.run(context->ops());
    }
    expected.push_back(operands->values(oracle.outputs[i].tensor));
  }
  return expected;
}

Prepared prepare(const OpCase& op, Context& context) {
  Prepared prepared;
  prepared.operands = std::make_unique<Operands>(context, op.dtype);
  prepared.work = op.make(*prepared.operands);
  const MathScope scope(context.ops(), op.math);
  prepared.work.run(context.ops());
  const auto expected = expectations(op, prepared.work);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto actual = prepared.operands->values(prepared.work.outputs[i].tensor);
    prepared.error = std::max(prepared.error, worst_error(actual, expected[i]));
  }
  return prepared;
}

/// Host launch cost is outside: the work is one graph.
void time_on_cuda(benchmark::State& state, Ops& ops, CudaStopwatch& stopwatch, const std::function<void()>& call) {
  const std::unique_ptr<Recording> launches = ops.record([&] {
    for (int i = 0; i < kLaunches; ++i) call();
  });
  if (!launches) throw CudaError("benchmark: the stream of the stopwatch cannot be captured");
  const auto seconds = [&] { return stopwatch.seconds([&] { launches->replay(); }); };
  for (int i = 0; i < kWarmUpGraphs; ++i) seconds();
  while (state.KeepRunningBatch(kLaunches)) state.SetIterationTime(seconds());
}

void run_case(benchmark::State& state, const OpCase& op, BenchDevice& device, std::shared_ptr<Prepared>& kept) {
  if (!kept) kept = std::make_shared<Prepared>(prepare(op, *device.context));
  if (!(kept->error <= gate(op))) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "wrong result: error %.3g of the largest value, allowed %.3g", kept->error,
                  gate(op));
    report_failure(op.name + " on " + device.name + ": " + text.data());
    state.SkipWithError(text.data());
    return;
  }
  Ops& ops = device.context->ops();
  const MathScope scope(ops, op.math);
  const auto call = [&] { kept->work.run(ops); };
  if (device.stopwatch) {
    time_on_cuda(state, ops, *device.stopwatch, call);
  } else {
    for ([[maybe_unused]] auto _ : state) call();
  }
  using benchmark::Counter;
  if (op.flops > 0) state.counters["GFLOP/s"] = Counter(1e-9 * op.flops, Counter::kIsIterationInvariantRate);
  if (op.bytes > 0) state.counters["GB/s"] = Counter(1e-9 * op.bytes, Counter::kIsIterationInvariantRate);
  state.counters["error"] = kept->error;
}

}  // namespace

void report_failure(const std::string& text) {
  ++failures;
  std::fprintf(stderr, "bracket_bench: error: %s\n", text.c_str());
}

int failure_count() { return failures; }

void* Operands::take(std::int64_t bytes) {
  buffers_.push_back(context_.pool().allocate(bytes, "benchmark operand"));
  return buffers_.back().data();
}

Tensor Operands::normal(std::initializer_list<std::int64_t> shape, double deviation, double mean) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  const Tensor tensor(take(size * dtype_bytes(dtype_)), dtype_, shape);
  std::normal_distribution<double> distribution(mean, deviation);
  std::vector<double> values(static_cast<std::size_t>(size));
  for (double& value : values) value = static_cast<double>(static_cast<float>(distribution(engine_)));
  upload(ops(), tensor, values);
  return tensor;
}

Tensor Operands::result(std::initializer_list<std::int64_t> shape, DType dtype) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  const Tensor tensor(take(size * dtype_bytes(dtype)), dtype, shape);
  ops().fill(tensor, std::numeric_limits<double>::quiet_NaN());
  return tensor;
}

Stacked Operands::normal_rows(const Rows& rows, std::int64_t cols, double deviation) {
  const Tensor all = normal({rows.primal + rows.tangent_rows(), cols}, deviation);
  return {all.slice_rows(0, rows.primal), all.slice_rows(rows.primal, rows.tangent_rows())};
}

Stacked Operands::result_rows(const Rows& rows, std::int64_t cols) {
  const Tensor all = result({rows.primal + rows.tangent_rows(), cols});
  return {all.slice_rows(0, rows.primal), all.slice_rows(rows.primal, rows.tangent_rows())};
}

StepState* Operands::state(const StepState& start) {
  auto* address = static_cast<StepState*>(take(static_cast<std::int64_t>(sizeof(StepState))));
  ops().copy_bytes_to_device(address, &start, sizeof start);
  return address;
}

std::vector<double> Operands::values(const Tensor& x) const { return download(ops(), x); }

void register_case(const OpCase& op, std::vector<BenchDevice>& devices) {
  for (BenchDevice& device : devices) {
    if (op.gpu_only && !device.stopwatch) continue;
    const std::string precision = op.math == MathMode::fp32 ? dtype_name(op.dtype) : math_mode_name(op.math);
    const std::string name = op.name + "/" + precision + "/" + device.name;
    auto kept = std::make_shared<std::shared_ptr<Prepared>>();
    auto* const bench = benchmark::RegisterBenchmark(name.c_str(), [op, &device, kept](benchmark::State& state) {
      try {
        run_case(state, op, device, *kept);
      } catch (const std::exception& error) {
        report_failure(op.name + " on " + device.name + ": " + error.what());
        state.SkipWithError(error.what());
      }
    });
    bench->Unit(benchmark::kMicrosecond);
    if (device.stopwatch)
      bench->UseManualTime();
    else
      bench->MeasureProcessCPUTime()->UseRealTime();
  }
}

}  // namespace bracket::bench
