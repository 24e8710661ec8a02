// The checks behind the public methods of Ops. Every message names the op and the operand, shows what was given, and
// says what is required.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "bracket/tensor.h"
#include "kernels/ops.h"

namespace bracket {

class OperandCheck {
 public:
  /// `reference` is the operand whose dtype, f32 or f64, all others must share.
  OperandCheck(const char* op, const char* reference_name, const Tensor& reference);
  /// For ops without such an operand: every check then names the dtype it wants.
  explicit OperandCheck(const char* op) : op_(op) {}

  /// [rows, cols], any row stride.
  void matrix(const char* name, const Tensor& x, std::int64_t rows, std::int64_t cols) const;
  /// [n], contiguous; [n, 1] is the same.
  void vector(const char* name, const Tensor& x, std::int64_t n) const;
  /// As vector(), of one number per channel: its size divides `cols`.
  void channels(const char* name, const Tensor& x, std::int64_t cols) const;
  /// As matrix() and vector(), of u8 whatever the reference.
  void u8_matrix(const char* name, const Tensor& x, std::int64_t rows, std::int64_t cols) const;
  void u8_vector(const char* name, const Tensor& x, std::int64_t n) const;
  /// As vector(), of f64 whatever the reference.
  void f64_vector(const char* name, const Tensor& x, std::int64_t n) const;
  /// f64[n, k] with any row stride, contiguous f64[n, k, k].
  void f64_matrix(const char* name, const Tensor& x, std::int64_t n, std::int64_t k) const;
  void f64_squares(const char* name, const Tensor& x, std::int64_t n, std::int64_t k) const;
  /// Contiguous f64[n, k, k] that defines n and k.
  void f64_squares(const char* name, const Tensor& x) const;
  void workspace(const Tensor& x) const;
  void same_shape(const char* name, const Tensor& x, const char* other_name, const Tensor& other) const;
  /// f32 or f64.
  void arithmetic(const char* name, const Tensor& x) const;
  void contiguous(const char* name, const Tensor& x) const;
  void present(const char* name, const Tensor& x) const;
  /// Two operands that must not share memory. Sees contiguous operands that overlap and operands that start at the same
  /// address; column slices of one matrix may interleave.
  void distinct(const char* name, const Tensor& x, const char* other_name, const Tensor& other) const;

  void rows(const Rows& rows) const;
  /// The parts of an output that are present; at least one must be.
  void stacked_output(const char* name, const Stacked& y, const Rows& rows, std::int64_t cols) const;
  /// The parts of a gradient that are wanted; none need be.
  void stacked_gradient(const char* name, const Stacked& x, const Rows& rows, std::int64_t cols) const;
  /// The parts that are needed must be present, others may be.
  void stacked_input(const char* name, const Stacked& x, bool primal, bool tangent, const Rows& rows,
                     std::int64_t cols) const;
  /// Of a product whose result y has so many channels.
  void epilogue(const ProductEpilogue& epilogue, const Tensor& y, std::int64_t channels) const;
  void state(const void* address, const char* name = "state") const;
  void key(const RandomKey& key, const std::int64_t* counter) const;
  void player(Player player) const;
  void update(Update update) const;
  /// low <= value <= high; false for NaN.
  void range(const char* name, double value, double low, double high) const;
  void positive(const char* name, double value) const;
  void finite(const char* name, double value) const;
  void at_least(const char* name, std::int64_t value, std::int64_t minimum) const;
  /// `value` >= 1 divides `whole` (0 is divided by everything).
  void divides(const char* name, std::int64_t value, const char* whole_name, std::int64_t whole) const;

  /// Extents, none negative, whose product an index can count.
  void countable(const char* names, std::initializer_list<std::int64_t> extents) const;

  [[noreturn]] void fail(const std::string& text) const;

 private:
  void storage(const char* name, const Tensor& x) const;
  void shared_dtype(const char* name, const Tensor& x) const;
  void dtype(const char* name, const Tensor& x, DType wanted) const;
  void stacked_part(const char* name, const char* part, const Tensor& x, std::int64_t rows, std::int64_t cols) const;

  const char* op_;
  const char* reference_name_ = nullptr;
  const Tensor* reference_ = nullptr;
};

/// Makes the device of `ops` current for a scope and restores the caller's.
class DeviceScope {
 public:
  explicit DeviceScope(Ops& ops) : ops_(ops), previous_(ops.enter_device()) {}
  ~DeviceScope() { ops_.leave_device(previous_); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  Ops& ops_;
  int previous_;
};

}  // namespace bracket
