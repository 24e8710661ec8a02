// Loads and stores of 16 bytes: 4 f32 or 2 f64 that lie side by side in a row of a matrix, by one thread.
//
// Why      Kernels that are bound by memory have to keep some 40 KiB of loads per multiprocessor under way (Little's
//          law: 4.8 TB/s times an assumed 1 us of latency over 132 of them); an instruction of 16 bytes keeps four
//          times as many as one of 4, for a quarter of the index arithmetic.
// Where    chosen per launch on the host: kWidth = 4 or 2 where the starts of all rows of all operands lie on multiples
//          of 16 bytes (RowsAligned), else 1, which is the scalar kernel. Any number of columns: what a row has behind
//          its last whole vector is taken element by element.
// Bits     those of the scalar kernel: each element is computed by itself, by the same expressions.
//
//   VectorGrid grid(rows, cols, width)     the vectors of a matrix, row after row; items() of them
//   grid.at(item)                          row, first column and number of elements, 1 .. kWidth
//   Vector<T, kWidth> x = load_vector<kWidth>(pointer, count)     0 behind count, where nothing is read
//   store_vector(pointer, x, count)
#pragma once

#include <cstdint>

#include "kernels/cuda/common/matrix.cuh"

namespace bracket::BRACKET_TARGET {

/// Elements of a vector of 16 bytes.
template <class T>
inline constexpr int kVectorWidth = 16 / static_cast<int>(sizeof(T));

/// Whether vectors of 16 bytes may be used on all that was added.
class RowsAligned {
 public:
  template <class T>
  RowsAligned& add(const DeviceMatrix<T>& matrix) {
    // A single row has no stride; absent operands have no rows.
    const std::uintptr_t stride = matrix.rows > 1 ? static_cast<std::uintptr_t>(matrix.ld) * sizeof(T) : 0;
    bits_ |= reinterpret_cast<std::uintptr_t>(matrix.data) | stride;
    return *this;
  }
  template <class T>
  RowsAligned& add(const T* vector) {
    bits_ |= reinterpret_cast<std::uintptr_t>(vector);
    return *this;
  }
  operator bool() const { return bits_ % 16 == 0; }

 private:
  std::uintptr_t bits_ = 0;
};

/// f.template operator()<width>() with the width for elements of type T.
template <class T, class F>
cudaError_t with_vector_width(bool aligned, const F& f) {
  return aligned ? f.template operator()<kVectorWidth<T>>() : f.template operator()<1>();
}

template <class T, int kWidth>
struct Vector {
  T x[kWidth];
  BRACKET_DEVICE T& operator[](int k) { return x[k]; }
  BRACKET_DEVICE const T& operator[](int k) const { return x[k]; }
};

/// Where the elements of one turn lie.
struct VectorPlace {
  std::int64_t row;
  std::int64_t column;
  int count;
};

/// Vectors of up to `width` elements of a matrix, row after row.
struct VectorGrid {
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t per_row;
  int width;

  BRACKET_HOST_DEVICE VectorGrid(std::int64_t num_rows, std::int64_t num_cols, int vector_width)
      : rows(num_rows), cols(num_cols), per_row((num_cols + vector_width - 1) / vector_width), width(vector_width) {}
  BRACKET_HOST_DEVICE std::int64_t items() const { return rows * per_row; }
  BRACKET_DEVICE VectorPlace at(std::int64_t item) const {
    if (rows == 1) return {0, item * width, count_at(item * width)};
    const Division place(item, per_row);
    return {place.quotient, place.rest * width, count_at(place.rest * width)};
  }
  BRACKET_DEVICE int count_at(std::int64_t column) const {
    return cols - column < width ? static_cast<int>(cols - column) : width;
  }
};

namespace vector_access_detail {

#if defined(BRACKET_SIMT)
using ::simt::vector_at;
#else
template <class V, class T>
BRACKET_DEVICE V* vector_at(T* address) {
  return reinterpret_cast<V*>(address);
}
#endif

BRACKET_DEVICE void get(float (&x)[4], const float* from) {
  const float4 v = *vector_at<const float4>(from);
  x[0] = v.x;
  x[1] = v.y;
  x[2] = v.z;
  x[3] = v.w;
}
BRACKET_DEVICE void get(double (&x)[2], const double* from) {
  const double2 v = *vector_at<const double2>(from);
  x[0] = v.x;
  x[1] = v.y;
}
BRACKET_DEVICE void put(float* to, const float (&x)[4]) {
  *vector_at<float4>(to) = make_float4(x[0], x[1], x[2], x[3]);
}
BRACKET_DEVICE void put(double* to, const double (&x)[2]) { *vector_at<double2>(to) = make_double2(x[0], x[1]); }

}  // namespace vector_access_detail

template <int kWidth, class T>
BRACKET_DEVICE Vector<T, kWidth> load_vector(const T* from, int count) {
  static_assert(kWidth == 1 || kWidth == kVectorWidth<T>);
  Vector<T, kWidth> e;
  if constexpr (kWidth == 1) {
    e[0] = *from;
  } else if (count == kWidth) {
    vector_access_detail::get(e.x, from);
  } else {
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) e[k] = k < count ? from[k] : T{0};
  }
  return e;
}

template <int kWidth, class T>
BRACKET_DEVICE void store_vector(T* to, const Vector<T, kWidth>& e, int count) {
  if constexpr (kWidth == 1) {
    *to = e[0];
  } else if (count == kWidth) {
    vector_access_detail::put(to, e.x);
  } else {
    BRACKET_UNROLL
    for (int k = 0; k < kWidth; ++k) {
      if (k < count) to[k] = e[k];
    }
  }
}

}  // namespace bracket::BRACKET_TARGET
