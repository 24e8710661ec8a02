// One op on one shape: what it computes, how a result is judged, how it is timed.
//
// Every case runs once before it is timed, on outputs filled with NaN, and is compared with double precision: the CPU
// device in f64 on the same inputs, or a plain loop where that device is itself what is measured. A case that misses
// its gate is not timed, and the program ends with an error.
//
// Times are warm: operands stay where the call before left them. The whole step of a 2-D preset fits the second-level
// cache of a CPU and of a GPU, so that is how the ops run in training, too.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "bench/bench_device.h"
#include "bracket/math_mode.h"
#include "kernels/ops.h"

namespace bracket::bench {

/// A result and what it should be. `expected` empty: ask the f64 CPU device.
struct Output {
  Tensor tensor;
  std::vector<double> expected;
};

struct Work {
  std::function<void(Ops&)> run;
  std::vector<Output> outputs;
};

/// Makes the operands of a case. The same sequence of calls gives the same values on every device and in either
/// precision: normal numbers of a fixed seed, rounded to float.
class Operands {
 public:
  Operands(Context& context, DType dtype) : context_(context), dtype_(dtype) {}

  Ops& ops() const { return context_.ops(); }
  DType dtype() const { return dtype_; }
  Tensor normal(std::initializer_list<std::int64_t> shape, double deviation = 1, double mean = 0);
  Tensor result(std::initializer_list<std::int64_t> shape) { return result(shape, dtype_); }  ///< NaN
  Tensor result(std::initializer_list<std::int64_t> shape, DType dtype);
  /// Primal rows and, behind them in the same block, tangent rows.
  Stacked normal_rows(const Rows& rows, std::int64_t cols, double deviation = 1);
  Stacked result_rows(const Rows& rows, std::int64_t cols);
  StepState* state(const StepState& start);
  std::vector<double> values(const Tensor& x) const;  ///< downloaded, row-major; contiguous tensors

 private:
  void* take(std::int64_t bytes);

  Context& context_;
  DType dtype_;
  std::mt19937_64 engine_{20240229};
  std::vector<Buffer> buffers_;
};

struct OpCase {
  std::string name;  ///< "op/rows x columns of what", e.g. "linear_forward/800x100x100"
  DType dtype = DType::f32;
  double flops = 0;  ///< of one call; 0: the case is bound by memory, see `bytes`
  double bytes = 0;  ///< read and written by one call at least, each operand once
  std::function<Work(Operands&)> make = {};
  MathMode math = MathMode::fp32;
  bool gpu_only = false;
};

/// Registers the case for every device; `devices` must outlive the benchmarks.
void register_case(const OpCase& op, std::vector<BenchDevice>& devices);

void register_linear_cases(std::vector<BenchDevice>& devices);
void register_convolution_cases(std::vector<BenchDevice>& devices);
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
