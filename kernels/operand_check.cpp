#include "kernels/operand_check.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <initializer_list>

#include "bracket/error.h"

namespace bracket {
namespace {

std::string shape(std::initializer_list<std::int64_t> extents) {
  std::string text = "[";
  for (const std::int64_t extent : extents) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

std::string number(double value) {
  std::string text(32, '\0');
  text.resize(static_cast<std::size_t>(std::snprintf(text.data(), text.size(), "%.9g", value)));
  return text;
}

/// No tensor has more elements, hence none more rows.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 60;

struct Span {
  std::uintptr_t begin;
  std::uintptr_t end;
};

Span span(const Tensor& x) {
  const auto begin = reinterpret_cast<std::uintptr_t>(x.data());
  return {begin, begin + static_cast<std::uintptr_t>(x.bytes())};
}

std::uintptr_t misalignment(const Tensor& x) {
  return reinterpret_cast<std::uintptr_t>(x.data()) % static_cast<std::uintptr_t>(dtype_bytes(x.dtype()));
}

/// Whether there is memory behind every element.
bool stored(const Tensor& x) { return x.size() == 0 || (x.data() != nullptr && misalignment(x) == 0); }

}  // namespace

OperandCheck::OperandCheck(const char* op, const char* reference_name, const Tensor& reference)
    : op_(op), reference_name_(reference_name), reference_(&reference) {
  present(reference_name, reference);
  arithmetic(reference_name, reference);
}

void OperandCheck::fail(const std::string& text) const { throw InvalidArgument(std::string(op_) + ": " + text); }

void OperandCheck::present(const char* name, const Tensor& x) const {
  if (x.absent()) fail(std::string(name) + " is absent; it is required here");
}

void OperandCheck::arithmetic(const char* name, const Tensor& x) const {
  if (x.dtype() == DType::f32 || x.dtype() == DType::f64) return;
  fail(std::string(name) + " is " + x.describe() + "; " + dtype_name(x.dtype()) +
       " is for storage, arithmetic needs f32 or f64");
}

void OperandCheck::storage(const char* name, const Tensor& x) const {
  if (stored(x)) return;
  if (x.data() == nullptr) fail(std::string(name) + " is " + x.describe() + " without memory; bind it to a buffer");
  fail(std::string(name) + " (" + x.describe() + ") starts " + std::to_string(misalignment(x)) +
       " bytes past a multiple of its element size; align it to " + std::to_string(dtype_bytes(x.dtype())) + " bytes");
}

void OperandCheck::dtype(const char* name, const Tensor& x, DType wanted) const {
  if (x.dtype() != wanted) fail(std::string(name) + " is " + x.describe() + "; it must be " + dtype_name(wanted));
}

void OperandCheck::shared_dtype(const char* name, const Tensor& x) const {
  if (reference_ != nullptr && x.dtype() != reference_->dtype()) {
    fail(std::string(name) + " is " + x.describe() + " but " + reference_name_ + " is " + reference_->describe() +
         "; both must have one dtype");
  }
}

void OperandCheck::contiguous(const char* name, const Tensor& x) const {
  if (!x.contiguous()) fail(std::string(name) + " is " + x.describe() + "; it must be contiguous");
}

void OperandCheck::matrix(const char* name, const Tensor& x, std::int64_t rows, std::int64_t cols) const {
  present(name, x);
  shared_dtype(name, x);
  if (x.rows() != rows || x.cols() != cols) {
    fail(std::string(name) + " is " + x.describe() + "; its shape must be " + shape({rows, cols}));
  }
  storage(name, x);
}

void OperandCheck::vector(const char* name, const Tensor& x, std::int64_t n) const {
  present(name, x);
  shared_dtype(name, x);
  if (x.rows() != n || x.cols() != 1) {
    fail(std::string(name) + " is " + x.describe() + "; its shape must be " + shape({n}));
  }
  contiguous(name, x);
  storage(name, x);
}

void OperandCheck::channels(const char* name, const Tensor& x, std::int64_t cols) const {
  const std::int64_t n = x.rows();
  if (n != cols && (n == 0 || cols % n != 0)) {
    fail(std::string(name) + " is " + x.describe() + "; its size must divide the number of columns, " +
         std::to_string(cols));
  }
  vector(name, x, n);
}

void OperandCheck::u8_matrix(const char* name, const Tensor& x, std::int64_t rows, std::int64_t cols) const {
  present(name, x);
  dtype(name, x, DType::u8);
  OperandCheck(op_).matrix(name, x, rows, cols);
}

void OperandCheck::u8_vector(const char* name, const Tensor& x, std::int64_t n) const {
  present(name, x);
  dtype(name, x, DType::u8);
  OperandCheck(op_).vector(name, x, n);
}

void OperandCheck::f64_vector(const char* name, const Tensor& x, std::int64_t n) const {
  present(name, x);
  dtype(name, x, DType::f64);
  OperandCheck(op_).vector(name, x, n);
}

void OperandCheck::f64_matrix(const char* name, const Tensor& x, std::int64_t n, std::int64_t k) const {
  present(name, x);
  dtype(name, x, DType::f64);
  OperandCheck(op_).matrix(name, x, n, k);
}

void OperandCheck::f64_squares(const char* name, const Tensor& x, std::int64_t n, std::int64_t k) const {
  present(name, x);
  dtype(name, x, DType::f64);
  if (x.rank() != 3 || x.extent(0) != n || x.extent(1) != k || x.extent(2) != k) {
    fail(std::string(name) + " is " + x.describe() + "; its shape must be " + shape({n, k, k}));
  }
  contiguous(name, x);
  storage(name, x);
}

void OperandCheck::f64_squares(const char* name, const Tensor& x) const {
  present(name, x);
  if (x.rank() != 3) fail(std::string(name) + " is " + x.describe() + "; its shape must be [n, K, K]");
  f64_squares(name, x, x.extent(0), x.extent(1));
}

void OperandCheck::workspace(const Tensor& x) const {
  present("workspace", x);
  dtype("workspace", x, DType::f64);
  contiguous("workspace", x);
  if (x.size() < kReductionWorkspace) {
    fail("workspace is " + x.describe() + "; it must hold at least " + std::to_string(kReductionWorkspace) +
         " elements");
  }
  storage("workspace", x);
}

void OperandCheck::same_shape(const char* name, const Tensor& x, const char* other_name, const Tensor& other) const {
  present(name, x);
  present(other_name, other);
  bool same = x.rank() == other.rank();
  for (int dim = 0; same && dim < x.rank(); ++dim) same = x.extent(dim) == other.extent(dim);
  if (!same) {
    fail(std::string(name) + " is " + x.describe() + " but " + other_name + " is " + other.describe() +
         "; both must have one shape");
  }
  storage(name, x);
  storage(other_name, other);
}

void OperandCheck::distinct(const char* name, const Tensor& x, const char* other_name, const Tensor& other) const {
  if (x.size() == 0 || other.size() == 0) return;
  const Span a = span(x);
  const Span b = span(other);
  const bool overlap = x.contiguous() && other.contiguous() ? a.begin < b.end && b.begin < a.end : a.begin == b.begin;
  if (overlap) {
    fail(std::string(name) + " (" + x.describe() + ") and " + other_name + " (" + other.describe() +
         ") share memory; they must be apart");
  }
}

void OperandCheck::rows(const Rows& rows) const {
  const bool counts = rows.primal >= 0 && rows.first >= 0 && rows.count >= 0 && rows.tangents >= 0;
  const bool inside = counts && rows.first <= rows.primal && rows.count <= rows.primal - rows.first;
  const bool countable = counts && (rows.count == 0 || rows.tangents <= kMaxElements / rows.count);
  if (inside && countable) return;
  fail("rows are {primal " + std::to_string(rows.primal) + ", first " + std::to_string(rows.first) + ", count " +
       std::to_string(rows.count) + ", tangents " + std::to_string(rows.tangents) +
       "}; all must be 0 or more, first + count at most primal, and count * tangents at most 2^60");
}

void OperandCheck::stacked_part(const char* name, const char* part, const Tensor& x, std::int64_t rows,
                                std::int64_t cols) const {
  const bool right = !x.absent() && x.rows() == rows && x.cols() == cols &&
                     (reference_ == nullptr || x.dtype() == reference_->dtype()) && stored(x);
  // The name is put together only for the message: an op call costs less than the allocation.
  if (!right) matrix((std::string(name) + "." + part).c_str(), x, rows, cols);
}

void OperandCheck::stacked_gradient(const char* name, const Stacked& x, const Rows& rows, std::int64_t cols) const {
  stacked_input(name, x, false, false, rows, cols);
}

void OperandCheck::stacked_output(const char* name, const Stacked& y, const Rows& rows, std::int64_t cols) const {
  if (y.primal.absent() && y.tangent.absent()) {
    fail(std::string(name) + ".primal and " + name + ".tangent are both absent; at least one must be asked for");
  }
  stacked_input(name, y, false, false, rows, cols);
}

void OperandCheck::stacked_input(const char* name, const Stacked& x, bool primal, bool tangent, const Rows& rows,
                                 std::int64_t cols) const {
  if (primal || !x.primal.absent()) stacked_part(name, "primal", x.primal, rows.primal, cols);
  if (tangent || !x.tangent.absent()) stacked_part(name, "tangent", x.tangent, rows.tangent_rows(), cols);
}

void OperandCheck::state(const void* address, const char* name) const {
  if (address == nullptr) fail(std::string(name) + " is null; it must be a device address");
  if (reinterpret_cast<std::uintptr_t>(address) % alignof(StepState) != 0) {
    fail(std::string(name) + " is not aligned to " + std::to_string(alignof(StepState)) + " bytes");
  }
}

void OperandCheck::key(const RandomKey& key, const std::int64_t* counter) const {
  if (key.step >> 48 != 0) fail("step " + std::to_string(key.step) + " of the key is not below 2^48");
  if (reinterpret_cast<std::uintptr_t>(counter) % alignof(std::int64_t) != 0) {
    fail("counter is not aligned to " + std::to_string(alignof(std::int64_t)) + " bytes");
  }
}

void OperandCheck::player(Player player) const {
  if (player != Player::energy && player != Player::generator) {
    fail("player is " + std::to_string(static_cast<std::int32_t>(player)) + "; use Player::energy or generator");
  }
}

void OperandCheck::update(Update update) const {
  if (update != Update::overwrite && update != Update::accumulate) {
    fail("update is " + std::to_string(static_cast<int>(update)) + "; use Update::overwrite or accumulate");
  }
}

void OperandCheck::range(const char* name, double value, double low, double high) const {
  if (value >= low && value <= high) return;
  fail(std::string(name) + " is " + number(value) + "; it must lie between " + number(low) + " and " + number(high));
}

void OperandCheck::positive(const char* name, double value) const {
  if (value > 0 && std::isfinite(value)) return;
  fail(std::string(name) + " is " + number(value) + "; it must be positive and finite");
}

void OperandCheck::finite(const char* name, double value) const {
  if (!std::isfinite(value)) fail(std::string(name) + " is " + number(value) + "; it must be finite");
}

void OperandCheck::at_least(const char* name, std::int64_t value, std::int64_t minimum) const {
  if (value >= minimum) return;
  fail(std::string(name) + " is " + std::to_string(value) + "; it must be at least " + std::to_string(minimum));
}

void OperandCheck::divides(const char* name, std::int64_t value, const char* whole_name, std::int64_t whole) const {
  if (value >= 1 && whole % value == 0) return;
  fail(std::string(name) + " is " + std::to_string(value) + "; it must be at least 1 and divide " + whole_name + ", " +
       std::to_string(whole));
}

void OperandCheck::countable(const char* names, std::initializer_list<std::int64_t> extents) const {
  std::int64_t product = 1;
  bool right = true;
  for (const std::int64_t extent : extents) {
    right = right && extent >= 0 && (extent == 0 || product <= kMaxElements / extent);
    if (right) product *= std::max<std::int64_t>(extent, 1);
  }
  if (!right) {
    fail(std::string(names) + " are " + shape(extents) + "; none may be negative and their product at most 2^60");
  }
}

}  // namespace bracket
