// Row dots and norms, whole-tensor sums, the finite check.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class ReductionTest : public OpsTest {
 protected:
  double sum_of(const Tensor& x) {
    const DeviceTensor result = empty(context(), DType::f64, {1});
    ops().sum(result, x, workspace());
    return download(context(), result)(0, 0);
  }
  double squares_of(const Tensor& x) {
    const DeviceTensor result = empty(context(), DType::f64, {1});
    ops().squared_norm(result, x, workspace());
    return download(context(), result)(0, 0);
  }
  StepState checked(const StepState& before, const Tensor& x, std::int64_t tag) {
    const DeviceArray<StepState> state(context(), before);
    ops().finite_check(state.address(), x, tag, workspace());
    return state.read();
  }
  Tensor workspace() {
    if (workspace_.tensor().absent()) workspace_ = empty(context(), DType::f64, {kReductionWorkspace});
    return workspace_;
  }
  void TearDown() override {
    workspace_ = {};
    OpsTest::TearDown();
  }

 private:
  DeviceTensor workspace_;
};

// With f64 accumulation the terms of f32 inputs are exact; n additions in any order and the products of f64 inputs cost
// at most (n + 1) u64 sum |a b| <= (n + 1) n u64 for elements in [-1, 1]; storing costs u |y|.
Limit row_limit(std::int64_t cols, DType dtype) {
  const auto n = static_cast<double>(cols);
  return mixed_limit(n * (n + 1) * 0x1p-53, 2 * unit_roundoff(dtype));
}

TEST_P(ReductionTest, RowDotsAndNormsMatchTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t rows : {0, 1, 7, 31, 32, 33, 129}) {
      for (const std::int64_t cols : {0, 1, 2, 15, 16, 33, 127, 211}) {
        const HostMatrix a = random_matrix(rows, cols, 1).rounded(dtype);
        const HostMatrix b = random_matrix(rows, cols, 2).rounded(dtype);
        HostMatrix dots(rows, 1), norms(rows, 1);
        for (std::int64_t i = 0; i < rows; ++i) {
          long double dot = 0, squares = 0;
          for (std::int64_t j = 0; j < cols; ++j) {
            dot += static_cast<long double>(a(i, j)) * b(i, j);
            squares += static_cast<long double>(a(i, j)) * a(i, j);
          }
          dots(i, 0) = static_cast<double>(dot);
          norms(i, 0) = static_cast<double>(std::sqrt(squares));
        }
        const DeviceTensor left = upload(context(), a, dtype, 3), right = upload(context(), b, dtype);
        const DeviceTensor y = empty(context(), dtype, {rows});
        ops().row_dot(y, left, right);
        EXPECT_MATRICES_CLOSE(download(context(), y), dots, row_limit(cols, dtype)) << rows << " x " << cols;
        ops().row_norm(y, left);
        // The root halves the relative error (n + 1) u64 of a sum of squares.
        const double relative = static_cast<double>(cols + 3) * 0x1p-53 + 2 * unit_roundoff(dtype);
        EXPECT_MATRICES_CLOSE(download(context(), y), norms, mixed_limit(0, relative)) << rows << " x " << cols;
      }
    }
  }
}

TEST_P(ReductionTest, RowNormNeitherOverflowsNorUnderflows) {
  const std::int64_t cols = 40;
  const std::vector<double> scales = {1e300, 1e200, 1, 1e-170, 1e-200, 1e-300, 0x1p-1074 * 1024};
  HostMatrix x(static_cast<std::int64_t>(scales.size()), cols);
  HostMatrix expected(x.rows, 1);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const double scale = scales[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < cols; ++j) x(i, j) = j % 2 == 0 ? 3 * scale : -4 * scale;
    expected(i, 0) = std::sqrt(0.5 * 25 * static_cast<double>(cols)) * scale;
  }
  const DeviceTensor y = empty(context(), DType::f64, {x.rows});
  ops().row_norm(y, upload(context(), x));
  // 16 u: rounding of the elements, the sum, the root and the expected value; 2^-1074: spacing of denormals.
  EXPECT_MATRICES_CLOSE(download(context(), y), expected, mixed_limit(0x1p-1074, 16 * 0x1p-53));
}

TEST_P(ReductionTest, RowReductionsPassOnNonFiniteElements) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    HostMatrix x(5, 70, 1);
    x(1, 69) = kNaN;
    x(2, 3) = -kInfinity;
    x(3, 0) = kInfinity;
    x(3, 40) = kNaN;
    const DeviceTensor input = upload(context(), x, dtype), y = empty(context(), dtype, {5});
    ops().row_norm(y, input);
    const HostMatrix norms = download(context(), y);
    EXPECT_TRUE(std::isfinite(norms(0, 0)) && std::isfinite(norms(4, 0)));
    EXPECT_TRUE(std::isnan(norms(1, 0)));
    EXPECT_EQ(norms(2, 0), kInfinity);
    EXPECT_TRUE(std::isnan(norms(3, 0)));
    ops().row_dot(y, input, upload(context(), HostMatrix(5, 70, 1), dtype));
    const HostMatrix dots = download(context(), y);
    EXPECT_EQ(dots(0, 0), 70);
    EXPECT_TRUE(std::isnan(dots(1, 0)));
    EXPECT_EQ(dots(2, 0), -kInfinity);
    EXPECT_TRUE(std::isnan(dots(3, 0)));
  }
}

// Integers below 2^10 and their squares add exactly in f64, so one element lost, doubled or taken from the padding
// between rows shows.
TEST_P(ReductionTest, SumsOfIntegersAreExact) {
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes = {
      {0, 5}, {1, 1}, {31, 1}, {1, 33}, {127, 129}, {4095, 1}, {4097, 1}, {1, 8192}, {1009, 101}, {3, 20011}};
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [rows, cols] : shapes) {
      HostMatrix x = random_matrix(rows, cols, 3, -1000, 1000);
      double sum = 0, squares = 0;
      for (double& value : x.values) {
        value = std::round(value);
        sum += value;
        squares += value * value;
      }
      for (const std::int64_t padding : {0, 5}) {
        const DeviceTensor input = upload(context(), x, dtype, padding);
        EXPECT_EQ(sum_of(input), sum) << rows << " x " << cols << " padding " << padding;
        EXPECT_EQ(squares_of(input), squares) << rows << " x " << cols << " padding " << padding;
      }
    }
  }
}

// A term passes through at most h additions: 4096 / 16 of its lane or thread, log2 of the lanes, and one per partial
// result (25 here), so h < 300 and the error is below h u sum |x|.
TEST_P(ReductionTest, SumsAreAccurateInDouble) {
  const HostMatrix x = random_matrix(1, 100003, 4);
  long double sum = 0, squares = 0, magnitude = 0;
  for (const double value : x.values) {
    sum += value;
    squares += static_cast<long double>(value) * value;
    magnitude += std::abs(value);
  }
  const DeviceTensor input = upload(context(), x);
  const double bound = 300 * 0x1p-53;
  EXPECT_NEAR(sum_of(input), static_cast<double>(sum), bound * static_cast<double>(magnitude));
  EXPECT_NEAR(squares_of(input), static_cast<double>(squares), bound * static_cast<double>(squares));
}

TEST_P(ReductionTest, RepeatedSumsHaveTheSameBits) {
  const DeviceTensor x = upload(context(), random_matrix(1, 50021, 5), DType::f32);
  const double first = sum_of(x), first_squares = squares_of(x);
  EXPECT_EQ(sum_of(x), first);
  EXPECT_EQ(squares_of(x), first_squares);
}

TEST_P(ReductionTest, SumsPassOnNonFiniteElements) {
  HostMatrix x(1, 9001, 1);
  x(0, 9000) = kNaN;
  EXPECT_TRUE(std::isnan(sum_of(upload(context(), x))));
  x(0, 9000) = -kInfinity;
  const DeviceTensor infinite = upload(context(), x, DType::f32);
  EXPECT_EQ(sum_of(infinite), -kInfinity);
  EXPECT_EQ(squares_of(infinite), kInfinity);
}

TEST_P(ReductionTest, FiniteCheckFindsTheLowestElement) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t padding : {0, 7}) {
      HostMatrix x = random_matrix(331, 61, 6, -1e30, 1e30);
      EXPECT_EQ(checked({}, upload(context(), x, dtype, padding), 9).nonfinite_tensor, 0);
      // Set from the end, so that each is the lowest when it is added.
      for (const std::int64_t element : {std::int64_t{331 * 61 - 1}, std::int64_t{17000}, std::int64_t{4096},
                                         std::int64_t{4095}, std::int64_t{62}, std::int64_t{0}}) {
        x.values[static_cast<std::size_t>(element)] = element % 3 == 0   ? kNaN
                                                      : element % 3 == 1 ? kInfinity
                                                                         : -kInfinity;
        const StepState state = checked({}, upload(context(), x, dtype, padding), 9);
        EXPECT_EQ(state.nonfinite_tensor, 9);
        EXPECT_EQ(state.nonfinite_element, element);
      }
    }
  }
}

TEST_P(ReductionTest, FiniteCheckKeepsTheFirstTensorAndTouchesNothingElse) {
  StepState before;
  before.step = 12;
  before.penalty_weight = 0.5;
  before.record.energy_data = 3;
  const DeviceTensor bad = upload(context(), HostMatrix(3, 3, kNaN));
  const DeviceTensor good = upload(context(), HostMatrix(3, 3, std::numeric_limits<double>::max()));
  const DeviceTensor none = empty_matrix(context(), DType::f64, 0, 4);
  EXPECT_EQ(checked(before, good, 4).nonfinite_tensor, 0);
  EXPECT_EQ(checked(before, none, 4).nonfinite_tensor, 0);
  const StepState marked = checked(before, bad, 4);
  EXPECT_EQ(marked.nonfinite_tensor, 4);
  EXPECT_EQ(marked.nonfinite_element, 0);
  EXPECT_EQ(marked.step, 12);
  EXPECT_EQ(marked.penalty_weight, 0.5);
  EXPECT_EQ(marked.record.energy_data, 3);
  StepState earlier = before;
  earlier.nonfinite_tensor = 2;
  earlier.nonfinite_element = 77;
  const StepState kept = checked(earlier, bad, 4);
  EXPECT_EQ(kept.nonfinite_tensor, 2);
  EXPECT_EQ(kept.nonfinite_element, 77);
}

TEST(ReductionThreads, DoNotChangeABit) {
  const HostMatrix x = random_matrix(700, 611, 7), y = random_matrix(700, 611, 8);
  HostMatrix reference;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    const std::unique_ptr<Context> own = TestDevice("cpu").make_context(options);
    const DeviceTensor a = upload(*own, x, DType::f32), b = upload(*own, y, DType::f32);
    const DeviceTensor scratch = empty(*own, DType::f64, {kReductionWorkspace}), total = empty(*own, DType::f64, {1});
    const DeviceTensor dots = empty(*own, DType::f32, {x.rows});
    HostMatrix results(0, 1);
    const auto append = [&](const Tensor& tensor) {
      const HostMatrix host = download(*own, tensor);
      results.values.insert(results.values.end(), host.values.begin(), host.values.end());
      results.rows += host.size();
    };
    own->ops().sum(total, a, scratch);
    append(total);
    own->ops().squared_norm(total, a, scratch);
    append(total);
    own->ops().row_dot(dots, a, b);
    append(dots);
    own->ops().row_norm(dots, a);
    append(dots);
    if (threads == 1) reference = results;
    EXPECT_MATRICES_IDENTICAL(results, reference) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ReductionTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
