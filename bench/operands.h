// The operands of a case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bracket/device.h"
#include "bracket/math_mode.h"
#include "kernels/ops.h"

namespace bracket::bench {

/// The same sequence of calls gives the same values on every device and in either precision: normal numbers of a fixed
/// seed, rounded to float.
class Operands {
 public:
  /// `math` and `stream` are for what stands beside the ops on a GPU; null: no GPU.
  Operands(Context& context, DType dtype, MathMode math = MathMode::fp32, void* stream = nullptr)
      : context_(context), dtype_(dtype), math_(math), stream_(stream) {}
  /// Gives to the same sequence of calls the values of these operands in memory of its own, copied on the device.
  /// These operands must outlive it.
  std::unique_ptr<Operands> replica() const;

  /// Memory beside these operands that goes when it does.
  std::unique_ptr<Operands> scratch() const { return std::make_unique<Operands>(context_, dtype_, math_, stream_); }

  Ops& ops() const { return context_.ops(); }
  DType dtype() const { return dtype_; }
  MathMode math() const { return math_; }
  void* stream() const { return stream_; }
  Tensor normal(std::initializer_list<std::int64_t> shape, double deviation = 1, double mean = 0);
  Tensor result(std::initializer_list<std::int64_t> shape) { return result(shape, dtype_); }  ///< NaN
  Tensor result(std::initializer_list<std::int64_t> shape, DType dtype);
  /// Primal rows and, behind them in the same block, tangent rows.
  Stacked normal_rows(const Rows& rows, std::int64_t cols, double deviation = 1);
  Stacked result_rows(const Rows& rows, std::int64_t cols);
  StepState* state(const StepState& start);
  /// What a library makes from here on is for `way` in this math mode: forgotten where it was made before, and copied
  /// by replicas that begin the same way.
  void begin_library(const std::string& way, MathMode math);
  /// Bytes that the host makes, for a library's copy of an operand in a type or layout of its own.
  void* converted(std::int64_t bytes, const std::function<void(std::vector<std::byte>&)>& write);
  std::vector<double> values(const Tensor& x) const;  ///< downloaded, row-major; contiguous tensors

 private:
  void* take(std::int64_t bytes);
  Tensor flat_copy(const Tensor& source);

  Context& context_;
  DType dtype_;
  MathMode math_;
  void* stream_;
  const Operands* original_ = nullptr;
  std::vector<Tensor> made_;                              // of numbers, in the order of the calls
  std::size_t copied_ = 0;                                // of the original's
  std::string way_;                                       // and its math mode
  std::map<std::string, std::vector<Tensor>> converted_;  // by way
  std::size_t converted_copied_ = 0;                      // of the original's for this way
  std::mt19937_64 engine_{20240229};
  std::vector<Buffer> buffers_;
};

}  // namespace bracket::bench
