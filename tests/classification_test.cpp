// Softmax cross-entropy against 80-bit arithmetic, and its gradient against central differences.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

struct Entropies {
  HostMatrix losses, grad;
};

HostMatrix labels_for(std::int64_t n, std::int64_t classes) {
  HostMatrix labels(n, 1);
  for (std::int64_t i = 0; i < n; ++i)
    labels(i, 0) = static_cast<double>((7 * i + 3) % std::min<std::int64_t>(classes, 256));
  return labels;
}

Entropies reference(const HostMatrix& logits, const HostMatrix& labels) {
  Entropies result{HostMatrix(logits.rows, 1), HostMatrix(logits.rows, logits.cols)};
  for (std::int64_t i = 0; i < logits.rows; ++i) {
    const auto label = static_cast<std::int64_t>(labels(i, 0));
    long double largest = -INFINITY, sum = 0;
    for (std::int64_t k = 0; k < logits.cols; ++k) largest = std::max<long double>(largest, logits(i, k));
    for (std::int64_t k = 0; k < logits.cols; ++k) sum += std::exp(logits(i, k) - largest);
    result.losses(i, 0) = static_cast<double>(std::log(sum) + (largest - logits(i, label)));
    for (std::int64_t k = 0; k < logits.cols; ++k) {
      const long double probability = std::exp(logits(i, k) - largest) / sum;
      result.grad(i, k) = static_cast<double>((probability - (k == label ? 1 : 0)) / logits.rows);
    }
  }
  return result;
}

class ClassificationTest : public OpsTest {
 protected:
  Entropies run(const HostMatrix& logits, const HostMatrix& labels, DType dtype, std::int64_t padding = 0,
                bool in_place = false) const {
    const DeviceTensor in = upload(context(), logits, dtype, padding);
    const DeviceTensor classes = upload_vector(context(), labels, DType::u8);
    const DeviceTensor losses = empty(context(), dtype, {logits.rows});
    const DeviceTensor grad = empty_matrix(context(), dtype, logits.rows, logits.cols, padding);
    ops().softmax_cross_entropy(losses, in_place ? in : grad, in, classes);
    return {download(context(), losses), download(context(), in_place ? in : grad)};
  }
};

TEST_P(ClassificationTest, MatchesReference) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [n, classes] :
         {std::array<std::int64_t, 2>{0, 3}, {1, 1}, {3, 2}, {17, 10}, {33, 33}, {129, 100}, {5, 1000}}) {
      for (const double reach : {1.0, 80.0}) {
        const HostMatrix logits = random_matrix(n, classes, 1, -reach, reach).rounded(dtype);
        const HostMatrix labels = labels_for(n, classes);
        const Entropies expected = reference(logits, labels), actual = run(logits, labels, dtype, n % 2);
        // In double: sums of `classes` terms of one sign, each with at most 4 u of exp and the difference; a loss is at
        // most 2 reach + log classes and its two terms at most that. Then one rounding to the dtype.
        const double u = unit_roundoff(DType::f64);
        const double error = (static_cast<double>(classes) + 8) * u;
        const double scale = 2 * reach + std::log(static_cast<double>(classes) + 1);
        EXPECT_MATRICES_CLOSE(actual.losses, expected.losses, mixed_limit(error * (1 + scale), unit_roundoff(dtype)));
        // exp of a difference that was rounded: relative error u |difference| in addition.
        EXPECT_MATRICES_CLOSE(actual.grad, expected.grad,
                              mixed_limit((error + 2 * reach * u) / static_cast<double>(std::max<std::int64_t>(n, 1)),
                                          2 * unit_roundoff(dtype)));
      }
    }
  }
}

TEST_P(ClassificationTest, GradientMatchesCentralDifferences) {
  const HostMatrix logits = random_matrix(4, 5, 2, -2, 2), labels = labels_for(4, 5);
  const Entropies at = run(logits, labels, DType::f64);
  // Truncation h^2 / 6 times a third derivative of at most 1, rounding u / h times a loss of order 5: below 2e-10.
  constexpr double kStep = 1e-5;
  for (std::size_t k = 0; k < logits.values.size(); ++k) {
    HostMatrix up = logits, down = logits;
    up.values[k] += kStep;
    down.values[k] -= kStep;
    const auto mean = [&](const HostMatrix& x) {
      double sum = 0;
      for (const double loss : run(x, labels, DType::f64).losses.values) sum += loss;
      return sum / 4;
    };
    EXPECT_NEAR(at.grad.values[k], (mean(up) - mean(down)) / (2 * kStep), 1e-9);
  }
}

TEST_P(ClassificationTest, InPlaceGivesTheSameBits) {
  const HostMatrix logits = random_matrix(19, 70, 3), labels = labels_for(19, 70);
  const Entropies got = run(logits, labels, DType::f32, 0, true), apart = run(logits, labels, DType::f32);
  EXPECT_MATRICES_IDENTICAL(got.grad, apart.grad);
  EXPECT_MATRICES_IDENTICAL(got.losses, apart.losses);
}

TEST_P(ClassificationTest, ExtremesAndUnknownLabels) {
  HostMatrix logits(4, 3);
  logits.values = {1000, 0, -1000, -1e30, 1e30, 0, 0, std::numeric_limits<double>::quiet_NaN(), 0, 0, 0, 0};
  HostMatrix labels(4, 1);
  labels.values = {0, 1, 0, 3};
  const Entropies got = run(logits, labels, DType::f32);
  EXPECT_EQ(got.losses(0, 0), 0);
  EXPECT_EQ(got.losses(1, 0), 0);
  for (std::int64_t k = 0; k < 3; ++k) {
    EXPECT_EQ(got.grad(0, k), 0);
    EXPECT_EQ(got.grad(1, k), 0);
    EXPECT_TRUE(std::isnan(got.grad(2, k))) << "a NaN logit is not hidden";
    EXPECT_TRUE(std::isnan(got.grad(3, k))) << "label 3 of 3 classes";
  }
  EXPECT_TRUE(std::isnan(got.losses(2, 0)));
  EXPECT_TRUE(std::isnan(got.losses(3, 0)));
}

INSTANTIATE_TEST_SUITE_P(Devices, ClassificationTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
