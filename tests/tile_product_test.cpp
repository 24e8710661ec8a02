// The register tiles of the CPU's dense products against a sum that std::fma forms one term at a time: bit for bit,
// whichever tiles the processor chooses.
#include "kernels/cpu/tile_product.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace bracket {
namespace {

template <class T>
class TileProduct : public ::testing::Test {
 protected:
  static constexpr T kUntouched = 77;

  struct Case {
    std::int64_t rows, cols, depth, ldc, ldb;
    bool transposed, accumulate;
  };

  std::vector<T> values(std::int64_t count) {
    std::uniform_real_distribution<T> uniform(-1, 1);
    std::vector<T> all(static_cast<std::size_t>(count));
    for (T& value : all) value = uniform(engine_);
    return all;
  }

  /// Whether `multiply` gives the sums of `c` and leaves what lies between its rows alone.
  template <class Multiply>
  ::testing::AssertionResult agrees(const Case& c, Multiply multiply) {
    const std::vector<T> a = values(c.rows * c.depth), b = values((c.depth + 1) * c.ldb);
    std::vector<T> result = values(c.rows * c.ldc), expected = result;
    const LeftOperand<T> left{a.data(), c.transposed ? 1 : c.depth, c.transposed ? c.rows : 1};
    for (std::int64_t i = 0; i < c.rows; ++i) {
      for (std::int64_t j = 0; j < c.cols; ++j) {
        T& sum = expected[static_cast<std::size_t>(i * c.ldc + j)];
        if (!c.accumulate) sum = 0;
        for (std::int64_t k = 0; k < c.depth; ++k)
          sum = std::fma(left.data[i * left.row_step + k * left.depth_step], b[static_cast<std::size_t>(k * c.ldb + j)],
                         sum);
      }
    }
    multiply(Matrix<T>{result.data(), c.rows, c.cols, c.ldc}, left, b.data(), c.ldb, c.depth, c.accumulate);
    for (std::size_t i = 0; i < result.size(); ++i) {
      if (std::memcmp(&result[i], &expected[i], sizeof(T)) == 0) continue;
      return ::testing::AssertionFailure()
             << c.rows << " x " << c.cols << ", depth " << c.depth << (c.transposed ? ", transposed" : "")
             << (c.accumulate ? ", accumulated" : "") << ": element " << i << " is " << result[i] << ", expected "
             << expected[i];
    }
    return ::testing::AssertionSuccess();
  }

  template <class Multiply>
  void check(Multiply multiply) {
    for (const std::int64_t rows : {1, 2, 3, 5, 6, 7, 11, 12, 13, 25, 48}) {
      for (const std::int64_t cols : {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65, 100, 129}) {
        for (const std::int64_t depth : {0, 1, 2, 3, 127, 128, 129, 257, 300}) {
          for (const int variant : {0, 1, 2, 3}) {
            const Case c{rows, cols, depth, cols + variant, cols + 2 * variant, variant % 2 == 1, variant >= 2};
            ASSERT_TRUE(agrees(c, multiply));
          }
        }
      }
    }
  }

  std::mt19937 engine_{5};
};

using Precisions = ::testing::Types<float, double>;
TYPED_TEST_SUITE(TileProduct, Precisions);

TYPED_TEST(TileProduct, OfPacketsIsAChainOfMultiplyAdds) {
#ifndef __FMA__
  GTEST_SKIP() << "compiled for a processor without fused multiply-adds";
#endif
  this->check([](const auto&... arguments) { multiply_packet_tiles<TypeParam>(arguments...); });
}

TYPED_TEST(TileProduct, WithAvx512IsAChainOfMultiplyAdds) {
  if (!has_avx512_tiles()) GTEST_SKIP() << "this processor, or what this build is compiled for, has no AVX-512";
  this->check([](const auto&... arguments) { multiply_tiles_avx512<TypeParam>(arguments...); });
}

TYPED_TEST(TileProduct, OfAnySizeIsAChainOfMultiplyAdds) {
#ifndef __FMA__
  GTEST_SKIP() << "compiled for a processor without fused multiply-adds";
#endif
  const auto multiply = [](const auto& c, const auto& a, const auto* b, auto ldb, auto depth, bool accumulate) {
    multiply_panel<TypeParam>(c, a, b, ldb, depth, accumulate ? Update::accumulate : Update::overwrite);
  };
  this->check(multiply);
  for (const std::int64_t cols : {257, 600}) {
    for (const std::int64_t depth : {191, 193, 385}) {
      for (const int variant : {0, 1, 2, 3})
        ASSERT_TRUE(this->agrees({13, cols, depth, cols + 3, cols + 1, variant % 2 == 1, variant >= 2}, multiply));
    }
  }
}

}  // namespace
}  // namespace bracket
