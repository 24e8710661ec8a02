// One op on one shape: what it computes, how a result is judged, how it is timed.
//
// Every case runs once before it is timed, on outputs filled with NaN, and is compared with double precision: the CPU
// device in f64 on the same inputs, or a plain loop where that device is itself what is measured. A case that misses
// its gate is not timed, and the program ends with an error.
//
// On a GPU a case has up to six rows, some of which may be missing:
//   op/shape/f32/cuda              warm: operands stay where the call before left them, as in a step that fits a cache
//   op/shape/f32/cuda/cold         copies of the operands, three times the device's second-level cache together, take
//                                  turns; only where a thousand copies or so suffice
//   op/shape/f32/cuda/cublas       the library's counterpart on the values of these operands; its label says what it
//   op/shape/f32/cuda/cublas/cold  does differently
//   op/shape/bf16/cuda/cublas_bf16 the same on operands that are in bf16 already, also cold
//
// One set of operands and expectations serves all math modes of a case, and goes after the last row of it has run. A
// filter that leaves rows of a case out keeps it until the end.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/bench_device.h"
#include "bench/operands.h"
#include "bracket/math_mode.h"
#include "kernels/ops.h"

namespace benchmark {
class State;
}

namespace bracket::bench {

/// A result and what it should be.
struct Output {
  Tensor tensor;
  /// What it should be; absent: ask the f64 CPU device.
  std::function<std::vector<double>()> expected = {};
  std::vector<std::int64_t> rows = {};  ///< of the tensor that are judged, and that `expected` gives; empty: all
  /// In place of an expectation: how far off these values are, to be compared with the gate.
  std::function<double(const std::vector<double>& actual)> error = {};
};

/// What a library does in the ops' place.
struct LibraryWork {
  std::function<void()> run;  ///< see bench/libraries/libraries.h
  /// Result `i` in the order of the work's output; absent: it is in that tensor.
  std::function<std::vector<double>(std::size_t i)> values = {};
  /// For results that are not those of the ops: how far off they are, and may be.
  std::function<double()> error = {};
  double allowed = 0;
  std::string label = {};            ///< which of its ways the library took, and what it does differently
  std::optional<DType> result = {};  ///< as OpCase::result, where it is not that of the op
  /// From now on `Work::library` takes another way, since the result of this one misses the gate; false: there is none.
  std::function<bool()> next_way = {};
};

struct Work {
  std::function<void(Ops&)> run;
  std::vector<Output> outputs;
  std::function<LibraryWork()> library = {};  ///< made when it is first wanted, only on a GPU
  std::function<LibraryWork()> library_in_bf16 = {};
};

struct OpCase {
  std::string name;  ///< "op/rows x columns of what", e.g. "linear_forward/800x100x100"
  DType dtype = DType::f32;
  double flops = 0;  ///< of one call; 0: the case is bound by memory, see `bytes`
  double bytes = 0;  ///< read and written by one call at least, each operand once
  std::function<Work(Operands&)> make = {};
  MathMode math = MathMode::fp32;
  bool gpu_only = false;
  const char* library = nullptr;          ///< whose counterpart Work::library is; null: none
  const char* library_in_bf16 = nullptr;  ///< and Work::library_in_bf16; in bf16 alone
  std::int64_t depth = 1;                 ///< numbers in the longest sum, see product_gate
  /// By which the op's formula may enlarge rounding errors: a derivative, a condition number.
  double amplification = 1;
  std::optional<DType> result = {};  ///< what results are summed and stored in; absent: dtype
  bool f64_arithmetic = false;       ///< whatever dtype is: which of a machine's limits counts
};

/// Registers the rows of a case for every device; `devices` must outlive the benchmarks.
void register_case(const OpCase& op, std::vector<BenchDevice>& devices);

/// Times whole passes, which need no graph of many: on a GPU one call is one graph. It must have run once before. Runs
/// it as often as `state` has iterations, no more.
void time_passes(benchmark::State& state, BenchDevice& device, Ops& ops, const std::function<void()>& call);

/// Of `rows` rows of a result those to be judged by a plain loop: evenly spaced, the first and the last among them, no
/// more than that loop does in about a tenth of a second, at least two.
std::vector<std::int64_t> judged_rows(std::int64_t rows, double multiply_adds_per_row);

void register_linear_cases(std::vector<BenchDevice>& devices);
void register_convolution_cases(std::vector<BenchDevice>& devices);
void register_image_layer_cases(std::vector<BenchDevice>& devices);
void register_dense_cases(std::vector<BenchDevice>& devices);
void register_element_cases(std::vector<BenchDevice>& devices);
void register_entropy_cases(std::vector<BenchDevice>& devices);
void register_jacobian_cases(std::vector<BenchDevice>& devices);
void register_layer_cases(std::vector<BenchDevice>& devices);
void register_step_cases(std::vector<BenchDevice>& devices);
void register_network_cases(std::vector<BenchDevice>& devices);
void register_memory_cases(std::vector<BenchDevice>& devices);
void register_training_cases(std::vector<BenchDevice>& devices);

/// A row of this name has had its last repetition: what only it needed goes.
void row_is_done(const std::string& name);

/// Records a wrong result or an exception; `failure_count` decides the exit status.
void report_failure(const std::string& text);
int failure_count();

}  // namespace bracket::bench
