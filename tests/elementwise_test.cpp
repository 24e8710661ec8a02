// fill, copy, axpy and the transfers, on every device; and the comparison all op tests rely on.
#include <gtest/gtest-spi.h>

#include <cmath>
#include <limits>
#include <vector>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using ElementwiseTest = OpsTest;
INSTANTIATE_TEST_SUITE_P(Devices, ElementwiseTest, ::testing::ValuesIn(test_devices()), device_name);

constexpr DType kDTypes[] = {DType::f32, DType::f64};

struct Shape {
  std::int64_t rows;
  std::int64_t cols;
};
constexpr Shape kShapes[] = {{0, 5}, {5, 0}, {1, 1}, {1, 31}, {32, 33}, {33, 32}, {127, 3}, {3, 129}, {101, 1}};

TEST_P(ElementwiseTest, FillWritesEveryElementAndNothingElse) {
  for (const DType dtype : kDTypes) {
    for (const Shape shape : kShapes) {
      for (const std::int64_t padding : {0, 3}) {
        const DeviceTensor y = empty_matrix(context(), dtype, shape.rows, shape.cols, padding);
        ops().fill(y, 0.1);
        EXPECT_MATRICES_IDENTICAL(download(context(), y), HostMatrix(shape.rows, shape.cols, 0.1).rounded(dtype));
      }
    }
  }
}

TEST_P(ElementwiseTest, CopyConvertsAndHonoursStrides) {
  for (const DType to : kDTypes) {
    for (const DType from : kDTypes) {
      for (const Shape shape : kShapes) {
        const HostMatrix values = random_matrix(shape.rows, shape.cols, 1, -100, 100).rounded(from);
        for (const std::int64_t padding : {0, 2}) {
          const DeviceTensor x = upload(context(), values, from, 5 * padding);
          const DeviceTensor y = empty_matrix(context(), to, shape.rows, shape.cols, padding);
          ops().copy(y, x);
          EXPECT_MATRICES_IDENTICAL(download(context(), y), values.rounded(to));
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, CopyKeepsNanInfinityAndZeroSigns) {
  const HostMatrix values = host_vector({kNan, kInfinity, -kInfinity, -0.0, 1e300, 1e-300});
  const DeviceTensor y = empty(context(), DType::f32, {6});
  ops().copy(y, upload_vector(context(), values, DType::f64));
  const HostMatrix copied = download(context(), y);
  EXPECT_TRUE(std::isnan(copied(0, 0)));
  EXPECT_EQ(copied(1, 0), kInfinity);
  EXPECT_EQ(copied(2, 0), -kInfinity);
  EXPECT_TRUE(std::signbit(copied(3, 0)));
  EXPECT_EQ(copied(4, 0), kInfinity) << "beyond the range of f32";
  EXPECT_EQ(copied(5, 0), 0);
}

TEST_P(ElementwiseTest, AxpyAccumulates) {
  const double alpha = -1.25;  // exact in both dtypes
  for (const DType dtype : kDTypes) {
    for (const Shape shape : kShapes) {
      const HostMatrix start = random_matrix(shape.rows, shape.cols, 2).rounded(dtype);
      const HostMatrix term = random_matrix(shape.rows, shape.cols, 3).rounded(dtype);
      HostMatrix expected(shape.rows, shape.cols);
      for (std::size_t k = 0; k < expected.values.size(); ++k) {
        expected.values[k] = start.values[k] + alpha * term.values[k];
      }
      // A product and a sum are rounded once each (once in all where fused): |error| <= u (|alpha x| + |y + alpha x|)
      // <= u (1.25 + 2.25) for elements in [-1, 1], plus u times second-order terms that 3.6 covers; the reference
      // itself is off by as much in double.
      const double limit = 3.6 * (unit_roundoff(dtype) + unit_roundoff(DType::f64));
      for (const std::int64_t padding : {0, 4}) {
        const DeviceTensor y = upload(context(), start, dtype, padding);
        ops().axpy(y, alpha, upload(context(), term, dtype, 2 * padding));
        EXPECT_MATRICES_CLOSE(download(context(), y), expected, absolute_limit(limit));
      }
    }
  }
}

TEST_P(ElementwiseTest, AxpyOntoItselfScales) {
  const HostMatrix values = random_matrix(7, 9, 4).rounded(DType::f32);
  const DeviceTensor y = upload(context(), values, DType::f32);
  ops().axpy(y, 3, y);
  HostMatrix expected = values;
  for (double& value : expected.values) value *= 4;
  // 3 y and y + 3 y are rounded once each: 2^-24 (3 + 4).
  EXPECT_MATRICES_CLOSE(download(context(), y), expected, absolute_limit(7.01 * unit_roundoff(DType::f32)));
}

TEST_P(ElementwiseTest, AxpyPropagatesNan) {
  const DeviceTensor y = upload_vector(context(), host_vector({1, 2, kNan}), DType::f32);
  ops().axpy(y, 0, upload_vector(context(), host_vector({kNan, kInfinity, 1}), DType::f32));
  const HostMatrix result = download(context(), y);
  for (std::int64_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(result(i, 0))) << i;
}

TEST_P(ElementwiseTest, LongVectorsAreCoveredOnce) {
  const std::int64_t n = 600011;  // a prime; more than one element per thread of the largest grid
  const DeviceTensor y = empty(context(), DType::f32, {n});
  const DeviceTensor one = empty(context(), DType::f32, {n});
  ops().fill(y, 1);
  ops().fill(one, 1);
  ops().axpy(y, 1, one);
  EXPECT_MATRICES_IDENTICAL(download(context(), y), HostMatrix(n, 1, 2));
}

TEST_P(ElementwiseTest, HigherRanksCount) {
  const DeviceTensor y = empty(context(), DType::f64, {2, 3, 4});
  ops().fill(y, 7);
  EXPECT_MATRICES_IDENTICAL(download(context(), y), HostMatrix(2, 12, 7));
}

TEST_P(ElementwiseTest, UploadAndDownloadMoveBytes) {
  const std::vector<double> values = {1, -2, 3.5, kInfinity};
  const DeviceTensor y = empty(context(), DType::f64, {2, 2});
  ops().upload(y, values.data());
  std::vector<double> back(4);
  ops().download(back.data(), y);
  EXPECT_EQ(back, values);
  EXPECT_NO_THROW(ops().upload(Tensor(nullptr, DType::f64, {0}), nullptr));
  EXPECT_NO_THROW(ops().download(nullptr, Tensor(nullptr, DType::f64, {0})));
}

TEST(ElementwiseThreadsTest, SameBitsForAnyNumberOfThreads) {
  const HostMatrix start = random_matrix(1, 300007, 5);
  const HostMatrix term = random_matrix(1, 300007, 6);
  std::vector<HostMatrix> results;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    Context context(options);
    const DeviceTensor y = upload(context, start, DType::f32);
    context.ops().axpy(y, 1.0 / 3, upload(context, term, DType::f32));
    results.push_back(download(context, y));
  }
  EXPECT_MATRICES_IDENTICAL(results[1], results[0]);
  EXPECT_MATRICES_IDENTICAL(results[2], results[0]);
}

// ---- the comparison -----------------------------------------------------------------------------------------------

TEST(ComparisonTest, FindsWhatIsWrong) {
  const HostMatrix expected = random_matrix(4, 5, 7);
  const Limit limit = mixed_limit(1e-9, 1e-9);
  EXPECT_TRUE(matrices_close(expected, expected, limit));
  HostMatrix one_wrong = expected;
  one_wrong(2, 3) += 1e-6;
  const ::testing::AssertionResult verdict = matrices_close(one_wrong, expected, limit);
  EXPECT_FALSE(verdict);
  EXPECT_NE(std::string(verdict.message()).find("1 of 20 elements are wrong, worst at [2, 3]"), std::string::npos)
      << verdict.message();
  HostMatrix with_nan = expected;
  with_nan(0, 0) = kNan;
  EXPECT_FALSE(matrices_close(with_nan, expected, limit));
  EXPECT_FALSE(matrices_close(expected, with_nan, limit));
  EXPECT_TRUE(matrices_close(with_nan, with_nan, limit));
  HostMatrix with_infinity = expected;
  with_infinity(0, 0) = kInfinity;
  EXPECT_FALSE(matrices_close(with_infinity, expected, limit));
  EXPECT_FALSE(matrices_close(expected, with_infinity, limit)) << "an infinite limit must not excuse a finite value";
  EXPECT_FALSE(matrices_close(random_matrix(4, 5, 8), expected, limit));
  EXPECT_FALSE(matrices_close(HostMatrix(5, 4), HostMatrix(4, 5), limit));
  EXPECT_TRUE(matrices_close(HostMatrix(1, 1, 0.0), HostMatrix(1, 1, -0.0), absolute_limit(0)));
  EXPECT_FALSE(matrices_identical(HostMatrix(1, 1, 0.0), HostMatrix(1, 1, -0.0)));
  EXPECT_FALSE(matrices_identical(one_wrong, expected));
}

TEST(ComparisonTest, DownloadSeesWritesBetweenRows) {
  Context context;
  const DeviceTensor x = upload(context, HostMatrix(3, 2, 1), DType::f32, 2);
  x.tensor().as<float>()[2] = 0;
  HostMatrix host;
  EXPECT_NONFATAL_FAILURE(host = download(context, x), "written between the rows: row 0, 0 elements past its end");
}

}  // namespace
}  // namespace bracket::test
