// Eigenpairs of symmetric matrices and smallest singular values, against bounds from rounding analysis.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "tests/dense_fixture.h"

namespace bracket::test {
namespace {

class EigenTest : public SquaresTest {
 protected:
  struct Eigen {
    HostMatrix values;
    Squares vectors;
  };
  Eigen eigen_of(const Squares& a) {
    const DeviceTensor matrix = device_squares(a);
    const DeviceTensor values = empty(context(), DType::f64, {a.n, a.k});
    const DeviceTensor vectors = empty(context(), DType::f64, {a.n, a.k, a.k});
    ops().symmetric_eigen(values, vectors, matrix);
    return {download(context(), values), host_squares(vectors)};
  }
  void expect_eigenpairs(const Squares& a, const char* what);
};

// Every rotation is orthogonal to a few u and touches each element twice per K - 1 rotations of a sweep; with at most
// 12 sweeps the errors add to less than 12 * 4 K u = 50 K u: |A v - lambda v| <= 50 K u |A|, |V V^T - I| <= 50 K u.
void EigenTest::expect_eigenpairs(const Squares& a, const char* what) {
  const Eigen e = eigen_of(a);
  const double bound = 50 * static_cast<double>(a.k) * kUnit;
  for (std::int64_t s = 0; s < a.n; ++s) {
    double frobenius = 0;
    for (std::int64_t i = 0; i < a.k; ++i) {
      for (std::int64_t j = 0; j < a.k; ++j) frobenius += a(s, i, j) * a(s, i, j);
    }
    frobenius = std::sqrt(frobenius);
    for (std::int64_t m = 0; m < a.k; ++m) {
      if (m > 0) {
        ASSERT_LE(e.values(s, m - 1), e.values(s, m)) << what;
      }
      double largest = 0;
      for (std::int64_t i = 0; i < a.k; ++i) {
        double product = -e.values(s, m) * e.vectors(s, m, i);
        for (std::int64_t j = 0; j < a.k; ++j) product += a(s, i, j) * e.vectors(s, m, j);
        ASSERT_LE(std::abs(product), bound * frobenius) << what << ", K " << a.k << ", pair " << m;
        if (std::abs(e.vectors(s, m, i)) > std::abs(largest)) largest = e.vectors(s, m, i);
      }
      ASSERT_GT(largest, 0) << what << ", K " << a.k << ": the largest component is not positive";
      for (std::int64_t other = 0; other <= m; ++other) {
        double product = 0;
        for (std::int64_t i = 0; i < a.k; ++i) product += e.vectors(s, m, i) * e.vectors(s, other, i);
        ASSERT_NEAR(product, m == other ? 1 : 0, bound) << what << ", K " << a.k << ", pair " << m;
      }
    }
  }
}

TEST_P(EigenTest, EigenpairsOfRandomMatrices) {
  for (const std::int64_t k : {1, 2, 3, 8, 16, 17, 33, 65}) {
    for (const std::int64_t n : {0, 1, 4}) {
      if (k > 33 && n > 1) continue;
      expect_eigenpairs(positive_definite(n, k, 10), "positive definite");
      Squares indefinite(n, k);
      const HostMatrix entries = random_matrix(n * k, k, 11);
      for (std::int64_t s = 0; s < n; ++s) {
        for (std::int64_t i = 0; i < k; ++i) {
          for (std::int64_t j = 0; j <= i; ++j) indefinite(s, i, j) = indefinite(s, j, i) = entries(s * k + i, j);
        }
      }
      expect_eigenpairs(indefinite, "indefinite");
    }
  }
}

TEST_P(EigenTest, EigenpairsOfDegenerateMatrices) {
  for (const std::int64_t k : {2, 5, 16}) {
    expect_eigenpairs(Squares(1, k), "zero");
    Squares diagonal(1, k), ones(1, k), repeated(1, k);
    HostMatrix axis = random_matrix(k, 1, 12, 0.5, 1);
    double squares = 0;
    for (const double value : axis.values) squares += value * value;
    for (std::int64_t i = 0; i < k; ++i) {
      diagonal(0, i, i) = static_cast<double>(k - i);
      for (std::int64_t j = 0; j < k; ++j) {
        ones(0, i, j) = 1;
        repeated(0, i, j) = (i == j ? 2 : 0) + axis(i, 0) * axis(j, 0) / squares;
      }
    }
    expect_eigenpairs(diagonal, "diagonal");
    expect_eigenpairs(ones, "rank one");
    expect_eigenpairs(repeated, "one value K - 1 times");
    // A diagonal matrix needs no rotation: values are exact, vectors are axes.
    const Eigen e = eigen_of(diagonal);
    for (std::int64_t m = 0; m < k; ++m) {
      EXPECT_EQ(e.values(0, m), static_cast<double>(m + 1));
      for (std::int64_t i = 0; i < k; ++i) EXPECT_EQ(e.vectors(0, m, i), i == k - 1 - m ? 1 : 0);
    }
  }
}

// D B D with a well conditioned B and D from 1e-6 to 1e6: Jacobi with the relative stopping rule finds every
// eigenvalue of a positive definite matrix to K u cond(B) relative (Demmel and Veselic); a criterion relative to |A|
// would lose the small ones altogether. The trace of B bounds cond(B) = 2 here; the reference is the 2 x 2 formula.
TEST_P(EigenTest, SmallEigenvaluesAreRelativelyAccurate) {
  Squares a(1, 4);
  const double scale[4] = {1e6, 1e2, 1e-3, 1e-6};
  // Two uncoupled pairs (0, 2) and (1, 3) of B = [1, 1/3; 1/3, 1].
  for (std::int64_t i = 0; i < 4; ++i) {
    a(0, i, i) = scale[i] * scale[i];
    a(0, i, (i + 2) % 4) = scale[i] * scale[(i + 2) % 4] / 3;
  }
  const auto smaller = [](double p, double q) {  // of [p^2, pq/3; pq/3, q^2] with p >> q: determinant / larger
    const double larger = (p * p + q * q + std::sqrt((p * p - q * q) * (p * p - q * q) + 4 * p * p * q * q / 9)) / 2;
    return std::pair(p * p * q * q * (8.0 / 9) / larger, larger);
  };
  const auto [small_first, large_first] = smaller(scale[0], scale[2]);
  const auto [small_second, large_second] = smaller(scale[1], scale[3]);
  const Eigen e = eigen_of(a);
  const HostMatrix sorted = [&] {
    HostMatrix values(1, 4);
    values.values = {small_first, large_first, small_second, large_second};
    std::sort(values.values.begin(), values.values.end());
    return values;
  }();
  EXPECT_MATRICES_CLOSE(e.values, sorted, mixed_limit(0, 4 * 2 * 8 * kUnit));
}

TEST_P(EigenTest, EigenOfNonFiniteInputIsNaNInItsSampleOnly) {
  for (const std::int64_t k : {2, 9}) {
    Squares a = positive_definite(3, k, 13);
    const Eigen good = eigen_of(a);
    a(1, 0, k - 1) = a(1, k - 1, 0) = std::numeric_limits<double>::infinity();
    const Eigen e = eigen_of(a);
    for (std::int64_t s = 0; s < 3; ++s) {
      for (std::int64_t i = 0; i < k; ++i) {
        if (s != 1) {
          EXPECT_EQ(e.values(s, i), good.values(s, i));
        }
        EXPECT_EQ(std::isnan(e.values(s, i)), s == 1);
        for (std::int64_t j = 0; j < k; ++j) EXPECT_EQ(std::isnan(e.vectors(s, i, j)), s == 1);
      }
    }
  }
}

// Of J with condition 1e6 by way of its Gram matrix: l has the relative error K u cond^2 = 8 * 1.1e-16 * 1e12 < 1e-3,
// and h = K/2 log l half of K times that.
TEST_P(EigenTest, MinSingularOfAnIllConditionedJacobian) {
  const std::int64_t k = 8, d = 20;
  for (const double condition : {1.0, 1e3, 1e6}) {
    const HostMatrix t = with_singular_values(geometric(k, 0.5, 0.5 * condition), d, 14);
    const DeviceTensor tangents = upload(context(), t), g = empty(context(), DType::f64, {1, k, k});
    const DeviceTensor values = empty(context(), DType::f64, {1, k}), vectors = empty(context(), DType::f64, {1, k, k});
    const DeviceTensor h = empty(context(), DType::f64, {1}), v = empty_matrix(context(), DType::f64, 1, k);
    const DeviceTensor scale = empty(context(), DType::f64, {1}), y = empty_matrix(context(), DType::f64, 1, d);
    ops().gram(g, tangents);
    ops().symmetric_eigen(values, vectors, g);
    ops().min_singular(h, v, scale, values, vectors);
    ops().combine_tangents(y, tangents, v);
    const double relative = static_cast<double>(k) * kUnit * std::max(condition * condition, 100.0);
    EXPECT_NEAR(download(context(), h)(0, 0), 8 * std::log(0.5), 4 * relative);
    EXPECT_NEAR(download(context(), scale)(0, 0), 8 / 0.25, 8 / 0.25 * relative);
    const HostMatrix image = download(context(), y);
    double squares = 0;
    for (const double value : image.values) squares += value * value;
    EXPECT_NEAR(std::sqrt(squares), 0.5, 0.5 * relative);
  }
}

TEST_P(EigenTest, MinSingularOfASingularMatrixIsNaN) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t n = 3, k = 2;
    HostMatrix values(n, k);
    values.values = {0.25, 4, 0, 1, -1e-17, 1};
    Squares vectors(n, k);
    for (std::size_t e = 0; e < vectors.values.size(); ++e) vectors.values[e] = static_cast<double>(e);
    const DeviceTensor h = empty(context(), dtype, {n}), scale = empty(context(), dtype, {n});
    const DeviceTensor v = empty_matrix(context(), dtype, n, k, 3);
    ops().min_singular(h, v, scale, upload(context(), values, DType::f64, 1), device_squares(vectors));
    const HostMatrix heights = download(context(), h), scales = download(context(), scale);
    EXPECT_NEAR(heights(0, 0), std::log(0.25), 4 * unit_roundoff(dtype));
    EXPECT_EQ(scales(0, 0), 8);
    for (std::int64_t i = 1; i < n; ++i) {
      EXPECT_TRUE(std::isnan(heights(i, 0)));
      EXPECT_TRUE(std::isnan(scales(i, 0)));
    }
    HostMatrix first(n, k);
    first.values = {0, 1, 4, 5, 8, 9};
    EXPECT_MATRICES_IDENTICAL(download(context(), v), first);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EigenTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
