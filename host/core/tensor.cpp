#include "bracket/tensor.h"

#include <limits>

#include "bracket/error.h"

namespace bracket {
namespace {

// A tensor's last byte must have a signed 64-bit offset, whatever the dtype.
constexpr std::int64_t kMaxElements = std::numeric_limits<std::int64_t>::max() / 8;

std::string list(const std::int64_t* extents, std::size_t count) {
  std::string text = "[";
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(extents[i]);
  }
  return text + "]";
}

void* advance(void* data, std::int64_t elements, DType dtype) {
  return data == nullptr ? nullptr : static_cast<char*>(data) + elements * dtype_bytes(dtype);
}

void require_range(const Tensor& tensor, const char* what, std::int64_t first, std::int64_t count,
                   std::int64_t extent) {
  if (first < 0 || count < 0 || first > extent || count > extent - first) {
    throw InvalidArgument("tensor " + tensor.describe() + " has no " + what + " [" + std::to_string(first) + ", " +
                          std::to_string(first) + " + " + std::to_string(count) + "); it has " +
                          std::to_string(extent));
  }
}

}  // namespace

const char* dtype_name(DType dtype) noexcept {
  return dtype == DType::f32 ? "f32" : dtype == DType::f64 ? "f64" : "u8";
}

Tensor::Tensor(void* data, DType dtype, std::initializer_list<std::int64_t> shape)
    : data_(data), dtype_(dtype), rank_(static_cast<int>(shape.size())) {
  if (shape.size() == 0 || shape.size() > kMaxRank) {
    throw InvalidArgument("tensor shape " + list(shape.begin(), shape.size()) + " has " + std::to_string(shape.size()) +
                          " dimensions; 1 to " + std::to_string(kMaxRank) + " are supported");
  }
  std::size_t dim = 0;
  std::int64_t elements = 1;
  bool overflow = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) {
      throw InvalidArgument("tensor shape " + list(shape.begin(), shape.size()) + " has a negative extent");
    }
    shape_[dim++] = extent;
    // An extent of 0 must not hide that the strides of the others overflow.
    const std::int64_t factor = extent > 0 ? extent : 1;
    overflow = overflow || elements > kMaxElements / factor;
    elements = overflow ? elements : elements * factor;
  }
  if (overflow) {
    throw InvalidArgument("tensor shape " + list(shape.begin(), shape.size()) + " has more than " +
                          std::to_string(kMaxElements) + " elements");
  }
  std::int64_t stride = 1;
  while (dim-- > 0) {
    stride_[dim] = stride;
    stride *= shape_[dim] > 0 ? shape_[dim] : 1;
  }
}

Tensor Tensor::matrix(void* data, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t row_stride) {
  Tensor result(data, dtype, {rows, cols});
  if (row_stride < cols) {
    throw InvalidArgument("matrix " + result.describe() + " cannot have a row stride of " + std::to_string(row_stride) +
                          " elements; it must be at least the number of columns");
  }
  if (rows > 0 && row_stride > kMaxElements / rows) {
    throw InvalidArgument("matrix " + result.describe() + " with a row stride of " + std::to_string(row_stride) +
                          " spans more than " + std::to_string(kMaxElements) + " elements");
  }
  result.stride_[0] = row_stride;
  return result;
}

std::int64_t Tensor::cols() const noexcept {
  std::int64_t product = 1;
  for (std::size_t dim = 1; dim < static_cast<std::size_t>(rank_); ++dim) product *= shape_[dim];
  return product;
}

bool Tensor::contiguous() const noexcept { return rank_ == 0 || shape_[0] <= 1 || stride_[0] == cols() || size() == 0; }

Tensor Tensor::slice_rows(std::int64_t first, std::int64_t count) const {
  require_range(*this, "rows", first, count, rows());
  Tensor result = *this;
  if (absent()) return result;
  result.data_ = advance(data_, first * stride_[0], dtype_);
  result.shape_[0] = count;
  return result;
}

Tensor Tensor::slice_cols(std::int64_t first, std::int64_t count) const {
  if (rank_ != 2) throw InvalidArgument("columns can be sliced of a matrix only, not of tensor " + describe());
  require_range(*this, "columns", first, count, shape_[1]);
  Tensor result = *this;
  result.data_ = advance(data_, first, dtype_);
  result.shape_[1] = count;
  return result;
}

Tensor Tensor::reshaped(std::initializer_list<std::int64_t> shape) const {
  if (!contiguous()) {
    throw InvalidArgument("tensor " + describe() + " is not contiguous and cannot be reshaped to " +
                          list(shape.begin(), shape.size()) + "; copy it first");
  }
  Tensor result(data_, dtype_, shape);
  if (absent() || result.size() != size()) {
    throw InvalidArgument("tensor " + describe() + " of " + std::to_string(size()) +
                          " elements cannot be reshaped to " + list(shape.begin(), shape.size()) + " of " +
                          std::to_string(result.size()));
  }
  return result;
}

std::string Tensor::describe() const {
  if (absent()) return "absent";
  std::string text = dtype_name(dtype_) + list(shape_.data(), static_cast<std::size_t>(rank_));
  if (!contiguous()) text += " with row stride " + std::to_string(stride_[0]);
  return text;
}

void Tensor::require_dtype(DType wanted) const {
  if (dtype_ != wanted) {
    throw InvalidArgument("tensor " + describe() + " read as " + dtype_name(wanted) + "; use the type it stores");
  }
}

}  // namespace bracket
