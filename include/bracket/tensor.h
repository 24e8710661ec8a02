// Tensors: typed views of memory. A tensor owns nothing; whoever made the memory (Buffer, Arena, the caller) owns it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace bracket {

/// u8 stores pixels, labels, activation masks and choices of a pool; no arithmetic runs in it.
enum class DType : std::uint8_t { f32, f64, u8 };

constexpr std::int64_t dtype_bytes(DType dtype) noexcept {
  return dtype == DType::f32 ? 4 : dtype == DType::f64 ? 8 : 1;
}
const char* dtype_name(DType dtype) noexcept;  ///< "f32", "f64" or "u8"

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

/// A view of up to four dimensions in row-major order. The last dimension always has unit stride; earlier ones may be
/// strided (a column slice of a matrix is one). A default-constructed tensor is "absent": optional operands use it.
class Tensor {
 public:
  static constexpr int kMaxRank = 4;

  Tensor() = default;
  /// Contiguous view. Throws InvalidArgument for a negative extent, more than four dimensions or an overflowing size.
  Tensor(void* data, DType dtype, std::initializer_list<std::int64_t> shape);
  /// Matrix view with rows `row_stride` elements apart (row_stride >= cols).
  static Tensor matrix(void* data, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t row_stride);

  bool absent() const noexcept { return rank_ == 0; }
  void* data() const noexcept { return data_; }
  DType dtype() const noexcept { return dtype_; }
  int rank() const noexcept { return rank_; }
  std::int64_t extent(int dim) const noexcept { return shape_[static_cast<std::size_t>(dim)]; }
  std::int64_t stride(int dim) const noexcept { return stride_[static_cast<std::size_t>(dim)]; }
  /// Extent of the first dimension; a vector of n elements has n rows.
  std::int64_t rows() const noexcept { return rank_ == 0 ? 0 : shape_[0]; }
  /// Product of all extents but the first; 1 for a vector.
  std::int64_t cols() const noexcept;
  /// Elements between the starts of consecutive rows.
  std::int64_t row_stride() const noexcept { return rank_ == 0 ? 0 : stride_[0]; }
  std::int64_t size() const noexcept { return rank_ == 0 ? 0 : shape_[0] * cols(); }
  std::int64_t bytes() const noexcept { return size() * dtype_bytes(dtype_); }
  bool contiguous() const noexcept;

  /// The elements as T*; throws InvalidArgument when T does not match the dtype.
  template <typename T>
  T* as() const {
    require_dtype(DTypeOf<T>::value);
    return static_cast<T*>(data_);
  }

  Tensor slice_rows(std::int64_t first, std::int64_t count) const;   ///< rows [first, first + count)
  Tensor slice_cols(std::int64_t first, std::int64_t count) const;   ///< columns of a matrix (rank 2)
  Tensor reshaped(std::initializer_list<std::int64_t> shape) const;  ///< contiguous tensors only
  std::string describe() const;                                      ///< e.g. "f32[128, 64]"

 private:
  void require_dtype(DType wanted) const;

  void* data_ = nullptr;
  DType dtype_ = DType::f32;
  int rank_ = 0;
  std::array<std::int64_t, kMaxRank> shape_{};
  std::array<std::int64_t, kMaxRank> stride_{};
};

}  // namespace bracket
