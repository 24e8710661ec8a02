// One op on one shape: what it computes, how a result is judged, how it is timed.
//
// Every case runs once before it is timed, on outputs filled with NaN, and is compared with double precision: the CPU
// device in f64 on the same inputs, or a plain loop where that device is itself what is measured. A case that misses
// its gate is not timed, and the program ends with an error.
//
// On a GPU a case has up to four rows, two of which may be missing:
//   op/shape/f32/cuda              warm: operands stay where the call before left them, as in a step that fits a cache
//   op/shape/f32/cuda/cold         copies of the operands, three times the second-level cache together, take turns
//   op/shape/f32/cuda/cublas       the library's counterpart on the same operands, under the same stopwatch and gate
//   op/shape/f32/cuda/cublas/cold
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/bench_device.h"
#include "bench/operands.h"
#include "bracket/math_mode.h"
#include "kernels/ops.h"

namespace bracket::bench {

/// A result and what it should be.
struct Output {
  Tensor tensor;
  /// What it should be; absent: ask the f64 CPU device.
  std::function<std::vector<double>()> expected = {};
  std::vector<std::int64_t> rows = {};  ///< of the tensor that are judged, and that `expected` gives; empty: all
};

/// What a library does in the ops' place.
struct LibraryWork {
  std::function<void()> run;  ///< see bench/libraries/libraries.h
  /// Result `i` in the order of the work's output; absent: it is in that tensor.
  std::function<std::vector<double>(std::size_t i)> values = {};
  /// For results that are not those of the ops: how far off they are, and may be.
  std::function<double()> error = {};
  double allowed = 0;
  std::string label = {};  ///< which of its ways the library took
};

struct Work {
  std::function<void(Ops&)> run;
  std::vector<Output> outputs;
  std::function<LibraryWork()> library = {};  ///< made when it is first wanted, only on a GPU
};

struct OpCase {
  std::string name;  ///< "op/rows x columns of what", e.g. "linear_forward/800x100x100"
  DType dtype = DType::f32;
  double flops = 0;  ///< of one call; 0: the case is bound by memory, see `bytes`
  double bytes = 0;  ///< read and written by one call at least, each operand once
  std::function<Work(Operands&)> make = {};
  MathMode math = MathMode::fp32;
  bool gpu_only = false;
  const char* library = nullptr;  ///< whose counterpart Work::library is; null: none
};

/// Registers the rows of a case for every device; `devices` must outlive the benchmarks.
void register_case(const OpCase& op, std::vector<BenchDevice>& devices);

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

/// Records a wrong result or an exception; `failure_count` decides the exit status.
void report_failure(const std::string& text);
int failure_count();

}  // namespace bracket::bench
