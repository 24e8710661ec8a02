#include "bench/op_case.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "bracket/error.h"

namespace bracket::bench {
namespace {

/// Launches in one graph between two events: a single pair is too coarse below 10 us.
constexpr std::int64_t kLaunches = 50;
constexpr int kWarmUpGraphs = 2;

/// Copies of the operands that take turns in a cold row, at most. A case whose operands are smaller than what three
/// times a cache of 64 MiB, the largest of a GPU so far, gives to each has no such row.
constexpr std::int64_t kMostCopies = 1024;
constexpr double kLeastColdBytes = 3.0 * (64 << 20) / kMostCopies;

/// Multiply-adds of a plain loop in a tenth of a second.
constexpr double kMostLooped = 1e8;

int failures = 0;

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

/// Which row of a case.
struct Row {
  bool library = false;
  bool cold = false;
};

struct Prepared {
  std::unique_ptr<Operands> operands;
  Work work;
  std::vector<std::vector<double>> expected;
  double error = 0;
  std::optional<LibraryWork> library;
  double library_error = 0;
};

/// The rows of `values` that an expectation is of.
std::vector<double> judged_part(std::vector<double> values, const Output& output) {
  if (output.rows.empty()) return values;
  const auto cols = static_cast<std::ptrdiff_t>(output.tensor.cols());
  std::vector<double> part;
  for (const std::int64_t row : output.rows)
    part.insert(part.end(), values.begin() + row * cols, values.begin() + (row + 1) * cols);
  return part;
}

std::vector<std::vector<double>> expectations(const OpCase& op, const Work& work) {
  std::vector<std::vector<double>> expected;
  std::unique_ptr<Context> context;
  std::unique_ptr<Operands> operands;
  Work oracle;
  for (std::size_t i = 0; i < work.outputs.size(); ++i) {
    if (work.outputs[i].expected) {
      expected.push_back(work.outputs[i].expected());
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
    expected.push_back(judged_part(operands->values(oracle.outputs[i].tensor), work.outputs[i]));
  }
  return expected;
}

Prepared prepare(const OpCase& op, BenchDevice& device) {
  Prepared prepared;
  void* const stream = device.stopwatch ? device.stopwatch->stream() : nullptr;
  prepared.operands = std::make_unique<Operands>(*device.context, op.dtype, op.math, stream);
  prepared.work = op.make(*prepared.operands);
  const MathScope scope(device.context->ops(), op.math);
  prepared.work.run(device.context->ops());
  prepared.expected = expectations(op, prepared.work);
  for (std::size_t i = 0; i < prepared.expected.size(); ++i) {
    const Output& output = prepared.work.outputs[i];
    const std::vector<double> actual = judged_part(prepared.operands->values(output.tensor), output);
    prepared.error = std::max(prepared.error, worst_error(actual, prepared.expected[i]));
  }
  return prepared;
}

/// The library's result on the operands of the ops, in the place of theirs.
void prepare_library(Prepared& prepared) {
  Operands& operands = *prepared.operands;
  const auto poison = [&] {
    for (const Output& output : prepared.work.outputs)
      operands.ops().fill(output.tensor, std::numeric_limits<double>::quiet_NaN());
  };
  poison();  // nothing of the ops' results may get into copies of the library's own, or last beyond its search
  const LibraryWork library = prepared.work.library();
  poison();
  library.run();
  operands.ops().synchronize();
  if (library.error) {
    prepared.library_error = library.error();
  } else {
    for (std::size_t i = 0; i < prepared.expected.size(); ++i) {
      const Output& output = prepared.work.outputs[i];
      const std::vector<double> all = library.values ? library.values(i) : operands.values(output.tensor);
      prepared.library_error =
          std::max(prepared.library_error, worst_error(judged_part(all, output), prepared.expected[i]));
    }
  }
  prepared.library = library;
}

/// Calls on operands in memory of their own, so many that all of them together are three times the cache.
struct Copies {
  std::vector<std::unique_ptr<Operands>> operands;
  std::vector<Work> works;
  std::vector<std::function<void()>> calls;
};

Copies make_copies(const OpCase& op, const Prepared& prepared, BenchDevice& device, bool library) {
  const auto cache = static_cast<double>(device.stopwatch->cache_bytes());
  const double bytes = op.math == MathMode::bf16 ? op.bytes / 2 : op.bytes;  // what a library may have of them
  const auto count = std::clamp(static_cast<std::int64_t>(std::ceil(3 * cache / bytes)), std::int64_t{2}, kMostCopies);
  Ops& ops = device.context->ops();
  Copies copies;
  for (std::int64_t i = 0; i < count; ++i) {
    copies.operands.push_back(prepared.operands->replica());
    copies.works.push_back(op.make(*copies.operands.back()));
    if (library)
      copies.calls.push_back(copies.works.back().library().run);
    else
      copies.calls.emplace_back([&ops, run = copies.works.back().run] { run(ops); });
    copies.calls.back()();
  }
  ops.synchronize();
  return copies;
}

/// Host launch cost is outside: the work is one graph. Libraries that will not be captured are launched call by call,
/// which the host outpaces where a call takes longer than its launch; the counter "launched" says so.
void time_on_cuda(benchmark::State& state, Ops& ops, CudaStopwatch& stopwatch,
                  const std::vector<std::function<void()>>& calls, bool library) {
  const auto turns = static_cast<std::int64_t>(calls.size());
  const std::int64_t launches = (kLaunches + turns - 1) / turns * turns;
  const auto launch = [&] {
    for (std::int64_t i = 0; i < launches; ++i) calls[static_cast<std::size_t>(i % turns)]();
  };
  std::unique_ptr<Recording> recording;
  try {
    recording = ops.record(launch);
  } catch (const CudaError&) {
    if (!library) throw;
  }
  if (!recording && !library) throw CudaError("benchmark: the stream of the stopwatch cannot be captured");
  const auto seconds = [&] { return stopwatch.seconds([&] { recording ? recording->replay() : launch(); }); };
  for (int i = 0; i < kWarmUpGraphs; ++i) seconds();
  while (state.KeepRunningBatch(launches)) state.SetIterationTime(seconds());
  if (!recording) state.counters["launched"] = 1;
}

/// A library that has nothing for a case, or not within its gate, is no failure of this program: its row has no time.
void refuse(benchmark::State& state, const OpCase& op, const BenchDevice& device, Row row, const std::string& why) {
  const std::string text = op.name + " on " + device.name + ": " + why;
  if (row.library)
    std::fprintf(stderr, "bracket_bench: note: %s has no time for %s\n", op.library, text.c_str());
  else
    report_failure(text);
  state.SkipWithError(why.c_str());
}

void run_row(benchmark::State& state, const OpCase& op, BenchDevice& device, Row row, std::shared_ptr<Prepared>& kept) {
  if (!kept) kept = std::make_shared<Prepared>(prepare(op, device));
  Ops& ops = device.context->ops();
  const MathScope scope(ops, op.math);
  if (row.library && !kept->library) prepare_library(*kept);
  const double error = row.library ? kept->library_error : kept->error;
  const double allowed = row.library && kept->library->error ? kept->library->allowed : gate(op);
  if (!(error <= allowed)) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "wrong result: error %.3g of the largest value, allowed %.3g", error,
                  allowed);
    return refuse(state, op, device, row, text.data());
  }
  const std::function<void()> call = row.library ? kept->library->run : [&] { kept->work.run(ops); };
  if (device.stopwatch) {
    const Copies copies = row.cold ? make_copies(op, *kept, device, row.library) : Copies{{}, {}, {call}};
    time_on_cuda(state, ops, *device.stopwatch, copies.calls, row.library);
  } else {
    for ([[maybe_unused]] auto _ : state) call();
  }
  using benchmark::Counter;
  if (op.flops > 0) state.counters["GFLOP/s"] = Counter(1e-9 * op.flops, Counter::kIsIterationInvariantRate);
  if (op.bytes > 0) state.counters["GB/s"] = Counter(1e-9 * op.bytes, Counter::kIsIterationInvariantRate);
  state.counters["error"] = error;
  if (row.library) state.SetLabel(kept->library->label);
}

}  // namespace

void report_failure(const std::string& text) {
  ++failures;
  std::fprintf(stderr, "bracket_bench: error: %s\n", text.c_str());
}

int failure_count() { return failures; }

std::vector<std::int64_t> judged_rows(std::int64_t rows, double multiply_adds_per_row) {
  const auto affordable = static_cast<std::int64_t>(kMostLooped / multiply_adds_per_row);
  const std::int64_t count = std::min(rows, std::max(std::int64_t{2}, affordable));
  std::vector<std::int64_t> judged;
  for (std::int64_t i = 0; i < count; ++i) judged.push_back(count == 1 ? 0 : i * (rows - 1) / (count - 1));
  return judged;
}

void register_case(const OpCase& op, std::vector<BenchDevice>& devices) {
  for (BenchDevice& device : devices) {
    if (op.gpu_only && !device.gpu) continue;
    const std::string precision = op.math == MathMode::fp32 ? dtype_name(op.dtype) : math_mode_name(op.math);
    const auto kept = std::make_shared<std::shared_ptr<Prepared>>();
    const auto add = [&](Row row) {
      const std::string name = op.name + "/" + precision + "/" + device.name +
                               (row.library ? "/" + std::string(op.library) : "") + (row.cold ? "/cold" : "");
      auto* const bench = benchmark::RegisterBenchmark(name.c_str(), [op, &device, row, kept](benchmark::State& state) {
        try {
          run_row(state, op, device, row, *kept);
        } catch (const std::exception& error) {
          refuse(state, op, device, row, error.what());
        }
      });
      bench->Unit(benchmark::kMicrosecond);
      if (device.gpu)
        bench->UseManualTime();
      else
        bench->MeasureProcessCPUTime()->UseRealTime();
    };
    add({});
    if (!device.gpu) continue;
    const bool cold = op.bytes >= kLeastColdBytes;
    if (cold) add({false, true});
    if (op.library == nullptr) continue;
    add({true, false});
    if (cold) add({true, true});
  }
}

}  // namespace bracket::bench
