#include "bench/op_case.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "bench/judge.h"
#include "bracket/error.h"

namespace bracket::bench {
namespace {

/// Launches in one graph between two events: a single pair is too coarse below 10 us.
constexpr std::int64_t kLaunches = 50;
constexpr int kWarmUpGraphs = 2;

/// Multiply-adds of a plain loop in a tenth of a second.
constexpr double kMostLooped = 1e8;

int failures = 0;

double gate(const OpCase& op, std::optional<DType> result) {
  return op.amplification * product_gate(result.value_or(op.result.value_or(op.dtype)), op.math, op.depth);
}

enum class Side { op, library, library_in_bf16 };

/// Which row of a case.
struct Row {
  Side side = Side::op;
  bool cold = false;
};

const char* side_name(const OpCase& op, Side side) { return side == Side::library ? op.library : op.library_in_bf16; }

LibraryWork make_library(const Work& work, Side side) {
  return side == Side::library ? work.library() : work.library_in_bf16();
}

struct Judged {
  double error = 0;
  LibraryWork library = {};
};

/// What the rows of a case on a device share, in all math modes.
struct Prepared {
  std::unique_ptr<Operands> operands;
  Work work;
  std::vector<std::vector<double>> expected;
  std::map<std::pair<MathMode, Side>, Judged> judged;
};

struct Kept {
  std::unique_ptr<Prepared> prepared;
  std::set<std::string> rows_left;
};

/// By row.
std::map<std::string, std::weak_ptr<Kept>>& kept_of_rows() {
  static std::map<std::string, std::weak_ptr<Kept>> kept;
  return kept;
}

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
    const Output& output = work.outputs[i];
    if (output.expected || output.error) {
      expected.push_back(output.expected ? output.expected() : std::vector<double>{});
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
    expected.push_back(judged_part(operands->values(oracle.outputs[i].tensor), output));
  }
  return expected;
}

/// The worst of the results; `library`: where it has some of its own.
double error_of(const Prepared& prepared, const LibraryWork* library) {
  double error = 0;
  for (std::size_t i = 0; i < prepared.expected.size(); ++i) {
    const Output& output = prepared.work.outputs[i];
    const std::vector<double> all =
        library != nullptr && library->values ? library->values(i) : prepared.operands->values(output.tensor);
    error =
        std::max(error, output.error ? output.error(all) : worst_error(judged_part(all, output), prepared.expected[i]));
  }
  return error;
}

/// Nothing of results from before may get into those to be judged.
void poison(const Prepared& prepared) {
  for (const Output& output : prepared.work.outputs)
    prepared.operands->ops().fill(output.tensor, std::numeric_limits<double>::quiet_NaN());
}

/// The op's result. What it updates in place is as it was made only in the first math mode: such ops know one alone.
Judged judge_op(Prepared& prepared, Ops& ops) {
  if (!prepared.judged.empty()) poison(prepared);
  prepared.work.run(ops);
  return {error_of(prepared, nullptr)};
}

std::unique_ptr<Prepared> prepare(const OpCase& op, BenchDevice& device) {
  auto prepared = std::make_unique<Prepared>();
  void* const stream = device.stopwatch ? device.stopwatch->stream() : nullptr;
  prepared->operands = std::make_unique<Operands>(*device.context, op.dtype, op.math, stream);
  prepared->work = op.make(*prepared->operands);
  prepared->expected = expectations(op, prepared->work);
  return prepared;
}

double allowed_error(const OpCase& op, Side side, const Judged& judged) {
  if (side == Side::op) return gate(op, {});
  return judged.library.error ? judged.library.allowed : gate(op, judged.library.result);
}

/// The library's result on the operands of the ops, in the place of theirs: by the first of its ways that keeps the
/// gate, or by the last of them.
Judged judge_library(Prepared& prepared, const OpCase& op, Side side) {
  for (;;) {
    prepared.operands->begin_library(side_name(op, side), op.math);
    poison(prepared);  // also before: copies of the library's own must not hold results
    Judged judged{0, make_library(prepared.work, side)};
    poison(prepared);  // nor may what its search left last
    judged.library.run();
    prepared.operands->ops().synchronize();
    judged.error = judged.library.error ? judged.library.error() : error_of(prepared, &judged.library);
    if (judged.error <= allowed_error(op, side, judged)) return judged;
    if (!judged.library.next_way || !judged.library.next_way()) return judged;
  }
}

/// Calls on operands in memory of their own, so many that all of them together are three times the cache.
struct Copies {
  std::vector<std::unique_ptr<Operands>> operands;
  std::vector<Work> works;
  std::vector<std::function<void()>> calls;
};

/// Bytes of the operands, at least.
double least_bytes(const OpCase& op) {
  return op.math == MathMode::bf16 ? op.bytes / 2 : op.bytes;  // what a library may have of them
}

Copies make_copies(const OpCase& op, const Prepared& prepared, BenchDevice& device, Side side) {
  const std::optional<std::int64_t> count = cold_copies(least_bytes(op), device.stopwatch->cache_bytes());
  if (!count) throw InvalidArgument("benchmark: the operands of " + op.name + " are too small for a cold row");
  Ops& ops = device.context->ops();
  Copies copies;
  for (std::int64_t i = 0; i < *count; ++i) {
    copies.operands.push_back(prepared.operands->replica());
    copies.works.push_back(op.make(*copies.operands.back()));
    if (side != Side::op) {
      copies.operands.back()->begin_library(side_name(op, side), op.math);
      copies.calls.push_back(make_library(copies.works.back(), side).run);
    } else {
      copies.calls.emplace_back([&ops, run = copies.works.back().run] { run(ops); });
    }
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
  if (row.side != Side::op)
    std::fprintf(stderr, "bracket_bench: note: %s has no time for %s\n", side_name(op, row.side), text.c_str());
  else
    report_failure(text);
  state.SkipWithError(why.c_str());
}

void run_row(benchmark::State& state, const OpCase& op, BenchDevice& device, Row row, Kept& kept) {
  Ops& ops = device.context->ops();
  const MathScope scope(ops, op.math);
  if (!kept.prepared) kept.prepared = prepare(op, device);
  Prepared& prepared = *kept.prepared;
  auto known = prepared.judged.find({op.math, row.side});
  if (known == prepared.judged.end()) {
    Judged judged = row.side == Side::op ? judge_op(prepared, ops) : judge_library(prepared, op, row.side);
    known = prepared.judged.emplace(std::pair(op.math, row.side), std::move(judged)).first;
  }
  const Judged& judged = known->second;
  const double allowed = allowed_error(op, row.side, judged);
  if (!(judged.error <= allowed)) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "wrong result: error %.3g of the largest value, allowed %.3g", judged.error,
                  allowed);
    return refuse(state, op, device, row, text.data());
  }
  const bool library = row.side != Side::op;
  const std::function<void()> call = library ? judged.library.run : [&] { prepared.work.run(ops); };
  if (device.stopwatch) {
    const Copies copies = row.cold ? make_copies(op, prepared, device, row.side) : Copies{{}, {}, {call}};
    time_on_cuda(state, ops, *device.stopwatch, copies.calls, library);
  } else {
    for ([[maybe_unused]] auto _ : state) call();
  }
  using benchmark::Counter;
  if (op.flops > 0) state.counters["GFLOP/s"] = Counter(1e-9 * op.flops, Counter::kIsIterationInvariantRate);
  if (op.bytes > 0) state.counters["GB/s"] = Counter(1e-9 * op.bytes, Counter::kIsIterationInvariantRate);
  state.counters["error"] = judged.error;
  if (op.f64_arithmetic) state.counters["f64_arithmetic"] = 1;
  if (library) state.SetLabel(judged.library.label);
}

}  // namespace

void report_failure(const std::string& text) {
  ++failures;
  std::fprintf(stderr, "bracket_bench: error: %s\n", text.c_str());
}

int failure_count() { return failures; }

void time_passes(benchmark::State& state, BenchDevice& device, Ops& ops, const std::function<void()>& call) {
  if (!device.stopwatch) {
    for ([[maybe_unused]] auto _ : state) call();
    return;
  }
  ops.synchronize();
  const std::unique_ptr<Recording> recording = ops.record(call);
  if (!recording) throw CudaError("benchmark: the stream of the stopwatch cannot be captured");
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(device.stopwatch->seconds([&] { recording->replay(); }));
}

std::vector<std::int64_t> judged_rows(std::int64_t rows, double multiply_adds_per_row) {
  const auto affordable = static_cast<std::int64_t>(kMostLooped / multiply_adds_per_row);
  const std::int64_t count = std::min(rows, std::max(std::int64_t{2}, affordable));
  std::vector<std::int64_t> judged;
  for (std::int64_t i = 0; i < count; ++i) judged.push_back(count == 1 ? 0 : i * (rows - 1) / (count - 1));
  return judged;
}

void row_is_done(const std::string& name) {
  const auto found = kept_of_rows().find(name);
  const std::shared_ptr<Kept> kept = found == kept_of_rows().end() ? nullptr : found->second.lock();
  if (!kept) return;
  kept->rows_left.erase(name);
  if (kept->rows_left.empty()) kept->prepared.reset();
}

void register_case(const OpCase& op, std::vector<BenchDevice>& devices) {
  static std::map<std::string, std::weak_ptr<Kept>> cases;
  for (BenchDevice& device : devices) {
    if (op.gpu_only && !device.gpu) continue;
    const std::string precision = op.math == MathMode::fp32 ? dtype_name(op.dtype) : math_mode_name(op.math);
    std::weak_ptr<Kept>& of_case = cases[op.name + "/" + dtype_name(op.dtype) + "/" + device.name];
    std::shared_ptr<Kept> kept = of_case.lock();
    if (!kept) {
      kept = std::make_shared<Kept>();
      of_case = kept;
    }
    const auto add = [&](Row row) {
      const std::string name = op.name + "/" + precision + "/" + device.name +
                               (row.side != Side::op ? "/" + std::string(side_name(op, row.side)) : "") +
                               (row.cold ? "/cold" : "");
      kept->rows_left.insert(name);
      kept_of_rows()[name] = kept;
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
    // A list of cases without a GPU has those of any.
    const bool cold = device.gpu && op.bytes > 0 &&
                      (!device.stopwatch || cold_copies(least_bytes(op), device.stopwatch->cache_bytes()));
    const auto add_both = [&](Side side) {
      add({side, false});
      if (cold) add({side, true});
    };
    add_both(Side::op);
    if (!device.gpu) continue;
    if (op.library != nullptr) add_both(Side::library);
    if (op.library_in_bf16 != nullptr && op.math == MathMode::bf16) add_both(Side::library_in_bf16);
  }
}

}  // namespace bracket::bench
