#include "bracket/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "bracket/error.h"

namespace bracket {
namespace {

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

TEST(TensorTest, DefaultIsAbsent) {
  const Tensor x;
  EXPECT_TRUE(x.absent());
  EXPECT_EQ(x.rows(), 0);
  EXPECT_EQ(x.size(), 0);
  EXPECT_EQ(x.bytes(), 0);
  EXPECT_EQ(x.row_stride(), 0);
  EXPECT_TRUE(x.contiguous());
  EXPECT_EQ(x.describe(), "absent");
}

TEST(TensorTest, ShapeStridesAndSizes) {
  std::array<float, 24> memory{};
  const Tensor x(memory.data(), DType::f32, {2, 3, 4});
  EXPECT_EQ(x.rank(), 3);
  EXPECT_EQ(x.extent(1), 3);
  EXPECT_EQ(x.stride(0), 12);
  EXPECT_EQ(x.stride(1), 4);
  EXPECT_EQ(x.stride(2), 1);
  EXPECT_EQ(x.rows(), 2);
  EXPECT_EQ(x.cols(), 12);
  EXPECT_EQ(x.size(), 24);
  EXPECT_EQ(x.bytes(), 96);
  EXPECT_TRUE(x.contiguous());
  EXPECT_EQ(x.describe(), "f32[2, 3, 4]");
  EXPECT_EQ(Tensor(memory.data(), DType::f64, {5}).cols(), 1);
  EXPECT_EQ(Tensor(memory.data(), DType::f64, {5}).bytes(), 40);
}

TEST(TensorTest, EmptyTensorsKeepTheirShape) {
  const Tensor none(nullptr, DType::f64, {0, 7});
  EXPECT_FALSE(none.absent());
  EXPECT_EQ(none.size(), 0);
  EXPECT_EQ(none.cols(), 7);
  EXPECT_TRUE(none.contiguous());
  EXPECT_EQ(none.describe(), "f64[0, 7]");
  EXPECT_EQ(Tensor(nullptr, DType::f64, {7, 0}).size(), 0);
}

TEST(TensorTest, StridedMatrix) {
  std::array<double, 20> memory{};
  const Tensor x = Tensor::matrix(memory.data(), DType::f64, 4, 3, 5);
  EXPECT_EQ(x.row_stride(), 5);
  EXPECT_EQ(x.size(), 12);
  EXPECT_FALSE(x.contiguous());
  EXPECT_EQ(x.describe(), "f64[4, 3] with row stride 5");
  EXPECT_TRUE(x.slice_rows(2, 1).contiguous()) << "one row is always contiguous";
  EXPECT_TRUE(Tensor::matrix(memory.data(), DType::f64, 4, 5, 5).contiguous());
}

TEST(TensorTest, SlicesPointIntoTheSameMemory) {
  std::array<float, 12> memory{};
  const Tensor x(memory.data(), DType::f32, {3, 4});
  EXPECT_EQ(x.slice_rows(1, 2).data(), memory.data() + 4);
  EXPECT_EQ(x.slice_rows(1, 2).rows(), 2);
  EXPECT_EQ(x.slice_rows(3, 0).size(), 0);
  const Tensor columns = x.slice_cols(1, 2);
  EXPECT_EQ(columns.data(), memory.data() + 1);
  EXPECT_EQ(columns.row_stride(), 4);
  EXPECT_EQ(columns.describe(), "f32[3, 2] with row stride 4");
  EXPECT_EQ(columns.slice_rows(2, 1).data(), memory.data() + 9);
  EXPECT_EQ(x.reshaped({2, 6}).describe(), "f32[2, 6]");
  EXPECT_EQ(x.reshaped({12}).data(), memory.data());
}

TEST(TensorTest, ElementAccessChecksTheType) {
  std::array<float, 2> memory{};
  const Tensor x(memory.data(), DType::f32, {2});
  EXPECT_EQ(x.as<float>(), memory.data());
  EXPECT_EQ(message_of([&] { x.as<double>(); }), "tensor f32[2] read as f64; use the type it stores");
}

TEST(TensorTest, RefusesImpossibleShapes) {
  EXPECT_EQ(message_of([] { Tensor(nullptr, DType::f32, {}); }),
            "tensor shape [] has 0 dimensions; 1 to 4 are supported");
  EXPECT_EQ(message_of([] {
              Tensor(nullptr, DType::f32, {1, 1, 1, 1, 1});
            }),
            "tensor shape [1, 1, 1, 1, 1] has 5 dimensions; 1 to 4 are supported");
  EXPECT_EQ(message_of([] { Tensor(nullptr, DType::f32, {2, -1}); }), "tensor shape [2, -1] has a negative extent");
  EXPECT_NE(message_of([] { Tensor(nullptr, DType::f32, {kHuge, 2}); }).find("has more than"), std::string::npos);
  EXPECT_NE(message_of([] { Tensor(nullptr, DType::f32, {kHuge / 8, 9}); }).find("has more than"), std::string::npos);
  EXPECT_NE(message_of([] {
              Tensor(nullptr, DType::f32, {0, kHuge, 2});
            }).find("has more than"),
            std::string::npos)
      << "an extent of 0 must not hide an overflow of the strides";
  EXPECT_NO_THROW(Tensor(nullptr, DType::f64, {kHuge / 8}));
}

TEST(TensorTest, RefusesImpossibleViews) {
  std::array<float, 12> memory{};
  const Tensor x(memory.data(), DType::f32, {3, 4});
  EXPECT_EQ(message_of([&] { Tensor::matrix(memory.data(), DType::f32, 3, 4, 3); }),
            "matrix f32[3, 4] cannot have a row stride of 3 elements; it must be at least the number of columns");
  EXPECT_NE(message_of([&] { Tensor::matrix(memory.data(), DType::f32, 3, 4, kHuge / 4); }).find("spans more than"),
            std::string::npos);
  EXPECT_EQ(message_of([&] { x.slice_rows(2, 2); }), "tensor f32[3, 4] has no rows [2, 2 + 2); it has 3");
  EXPECT_EQ(message_of([&] { x.slice_rows(-1, 1); }), "tensor f32[3, 4] has no rows [-1, -1 + 1); it has 3");
  EXPECT_NE(message_of([&] { x.slice_rows(1, kHuge); }).find("has no rows"), std::string::npos);
  EXPECT_EQ(message_of([&] { x.slice_cols(4, 1); }), "tensor f32[3, 4] has no columns [4, 4 + 1); it has 4");
  EXPECT_EQ(message_of([&] { x.reshaped({12}).slice_cols(0, 1); }),
            "columns can be sliced of a matrix only, not of tensor f32[12]");
  EXPECT_EQ(message_of([&] { x.reshaped({5}); }), "tensor f32[3, 4] of 12 elements cannot be reshaped to [5] of 5");
  EXPECT_EQ(message_of([&] { x.slice_cols(0, 2).reshaped({6}); }),
            "tensor f32[3, 2] with row stride 4 is not contiguous and cannot be reshaped to [6]; copy it first");
  EXPECT_NE(message_of([] { Tensor().reshaped({0}); }).find("cannot be reshaped"), std::string::npos);
}

}  // namespace
}  // namespace bracket
