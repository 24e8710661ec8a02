// Per-sample dense algebra: reconstruction, residuals and orthogonality against bounds from rounding analysis.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kUnit = 0x1p-53;  // unit round-off of f64

/// n square matrices of size k, one after the other, as uploaded to f64[n, k, k].
struct Squares {
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::vector<double> values;

  Squares(std::int64_t count, std::int64_t size)
      : n(count), k(size), values(static_cast<std::size_t>(count * size * size)) {}
  double& operator()(std::int64_t s, std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>((s * k + i) * k + j)];
  }
  double operator()(std::int64_t s, std::int64_t i, std::int64_t j) const {
    return values[static_cast<std::size_t>((s * k + i) * k + j)];
  }
};

/// Well conditioned symmetric positive definite matrices: random Gram matrices plus k on the diagonal.
Squares positive_definite(std::int64_t n, std::int64_t k, std::uint64_t salt) {
  Squares a(n, k);
  const HostMatrix t = random_matrix(n * k, k, salt);
  for (std::int64_t s = 0; s < n; ++s) {
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) {
        double sum = i == j ? static_cast<double>(k) : 0;
        for (std::int64_t c = 0; c < k; ++c) sum += t(s * k + i, c) * t(s * k + j, c);
        a(s, i, j) = a(s, j, i) = sum;
      }
    }
  }
  return a;
}

/// J^T for one sample, [k, d]: singular values `singular`, and singular vectors that are products of two Householder
/// reflections, so that no entry is special.
HostMatrix with_singular_values(const std::vector<double>& singular, std::int64_t d, std::uint64_t salt) {
  const auto k = static_cast<std::int64_t>(singular.size());
  HostMatrix t(k, d);
  for (std::int64_t i = 0; i < k; ++i) t(i, i) = singular[static_cast<std::size_t>(i)];
  const auto reflect_rows = [](HostMatrix& m, const HostMatrix& v) {
    double squares = 0;
    for (const double value : v.values) squares += value * value;
    for (std::int64_t j = 0; j < m.cols; ++j) {
      double dot = 0;
      for (std::int64_t i = 0; i < m.rows; ++i) dot += v(i, 0) * m(i, j);
      for (std::int64_t i = 0; i < m.rows; ++i) m(i, j) -= 2 * dot / squares * v(i, 0);
    }
  };
  const auto reflect_columns = [](HostMatrix& m, const HostMatrix& v) {
    double squares = 0;
    for (const double value : v.values) squares += value * value;
    for (std::int64_t i = 0; i < m.rows; ++i) {
      double dot = 0;
      for (std::int64_t j = 0; j < m.cols; ++j) dot += v(j, 0) * m(i, j);
      for (std::int64_t j = 0; j < m.cols; ++j) m(i, j) -= 2 * dot / squares * v(j, 0);
    }
  };
  for (std::uint64_t turn = 0; turn < 2; ++turn) {
    reflect_rows(t, random_matrix(k, 1, salt + turn));
    reflect_columns(t, random_matrix(d, 1, salt + 2 + turn));
  }
  return t;
}

std::vector<double> geometric(std::int64_t k, double smallest, double largest) {
  std::vector<double> values(static_cast<std::size_t>(k), largest);
  for (std::size_t i = 0; i < values.size() && k > 1; ++i) {
    values[i] = smallest * std::pow(largest / smallest, static_cast<double>(i) / static_cast<double>(k - 1));
  }
  return values;
}

class DenseTest : public OpsTest {
 protected:
  DeviceTensor device_squares(const Squares& a) {
    DeviceTensor result = empty(context(), DType::f64, {a.n, a.k, a.k});
    HostMatrix flat(a.n, a.k * a.k);
    flat.values = a.values;
    upload_into(context(), result, flat);
    return result;
  }
  Squares host_squares(const Tensor& x) {
    Squares result(x.extent(0), x.extent(1));
    result.values = download(context(), x).values;
    return result;
  }
  Squares factor_of(const Squares& a) {
    const DeviceTensor g = device_squares(a);
    ops().cholesky(g);
    return host_squares(g);
  }
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

// Entries are small integers, so every product and sum is exact in f64: one wrong or lost element shows.
TEST_P(DenseTest, GramOfIntegersIsExact) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t k : {1, 2, 3, 7, 8, 16, 17, 33, 50}) {
      for (const std::int64_t d : {0, 1, 2, 31, 33, 64, 129, 300}) {
        for (const std::int64_t n : {0, 1, 3}) {
          HostMatrix t = random_matrix(n * k, d, 1, -50, 50);
          for (double& value : t.values) value = std::round(value);
          Squares expected(n, k);
          for (std::int64_t s = 0; s < n; ++s) {
            for (std::int64_t i = 0; i < k; ++i) {
              for (std::int64_t j = 0; j < k; ++j) {
                for (std::int64_t c = 0; c < d; ++c) expected(s, i, j) += t(s * k + i, c) * t(s * k + j, c);
              }
            }
          }
          const DeviceTensor g = empty(context(), DType::f64, {n, k, k});
          ops().gram(g, upload(context(), t, dtype, d % 2 == 0 ? 0 : 5));
          EXPECT_EQ(host_squares(g).values, expected.values) << "K " << k << ", D " << d << ", n " << n;
        }
      }
    }
  }
}

// Higham, Accuracy and Stability (2nd ed.), theorem 10.3: |A - L L^T| <= gamma_(K+1) |L| |L^T| for any order of the
// inner sums; gamma_m = m u / (1 - m u).
TEST_P(DenseTest, CholeskyReconstructs) {
  for (const std::int64_t k : {1, 2, 3, 7, 8, 9, 16, 33, 90}) {
    for (const std::int64_t n : {0, 1, 5}) {
      const Squares a = positive_definite(n, k, 2);
      const Squares l = factor_of(a);
      const double gamma = 1.01 * static_cast<double>(k + 1) * kUnit;
      for (std::int64_t s = 0; s < n; ++s) {
        for (std::int64_t i = 0; i < k; ++i) {
          for (std::int64_t j = 0; j < k; ++j) {
            double product = 0, magnitude = 0;
            for (std::int64_t c = 0; c < k; ++c) {
              product += l(s, i, c) * l(s, j, c);
              magnitude += std::abs(l(s, i, c) * l(s, j, c));
            }
            // The product here rounds as much again.
            ASSERT_NEAR(product, a(s, i, j), 2 * gamma * magnitude) << "K " << k << " at " << i << ", " << j;
            if (j > i) {
              ASSERT_EQ(l(s, i, j), 0);
            }
          }
        }
      }
    }
  }
}

TEST_P(DenseTest, CholeskyMarksOnlyWhatIsNotPositiveDefinite) {
  for (const std::int64_t k : {2, 8, 20, 100}) {
    Squares a = positive_definite(6, k, 3);
    const Squares good = factor_of(a);
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j < k; ++j) a(1, i, j) = 1;  // rank one: the second pivot is exactly 0
      for (std::int64_t j = 0; j < k; ++j) a(3, i, j) = i == j ? 1 : 0;
    }
    a(3, k - 1, k - 1) = -1;  // indefinite at the last pivot
    a(4, k - 1, 0) = a(4, 0, k - 1) = kNaN;
    const Squares l = factor_of(a);
    for (std::int64_t s = 0; s < 6; ++s) {
      for (std::int64_t i = 0; i < k; ++i) {
        for (std::int64_t j = 0; j < k; ++j) {
          if (s == 1 || s == 3 || s == 4) {
            ASSERT_TRUE(std::isnan(l(s, i, j))) << "sample " << s << ", K " << k;
          } else {
            ASSERT_EQ(l(s, i, j), good(s, i, j)) << "sample " << s << ", K " << k;
          }
        }
      }
    }
  }
}

// Substitution is backward stable row by row, |b - L x| <= gamma_K |L| |x| (Higham, theorem 8.5). Storing x costs
// u |x| and so at most u |L| |x| more, whether it is rounded during or after the solution; the residual computed here
// rounds gamma_K again.
TEST_P(DenseTest, TriangularSolveHasSmallResiduals) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t k : {1, 2, 5, 8, 16, 33, 50, 200}) {
      for (const std::int64_t d : {1, 2, 33, 129, 300}) {
        if (k == 200 && d > 33) continue;
        for (const std::int64_t n : {0, 1, 3}) {
          if (k * d > 3000 && n > 1) continue;
          const Squares l = factor_of(positive_definite(n, k, 4));
          const DeviceTensor factor = device_squares(l);
          const HostMatrix b = random_matrix(n * k, d, 5).rounded(dtype);
          for (const bool transposed : {false, true}) {
            const DeviceTensor x = upload(context(), b, dtype, 3);
            ops().triangular_solve(x, factor, x, transposed);
            const HostMatrix solution = download(context(), x);
            const DeviceTensor separate = empty_matrix(context(), dtype, n * k, d);
            ops().triangular_solve(separate, factor, upload(context(), b, dtype), transposed);
            EXPECT_MATRICES_IDENTICAL(download(context(), separate), solution);
            const double bound = 2.02 * static_cast<double>(k) * kUnit + unit_roundoff(dtype);
            for (std::int64_t s = 0; s < n; ++s) {
              for (std::int64_t i = 0; i < k; ++i) {
                for (std::int64_t c = 0; c < d; ++c) {
                  double product = 0, magnitude = 0;
                  for (std::int64_t j = 0; j < k; ++j) {
                    const double coefficient = transposed ? l(s, j, i) : l(s, i, j);
                    product += coefficient * solution(s * k + j, c);
                    magnitude += std::abs(coefficient * solution(s * k + j, c));
                  }
                  ASSERT_NEAR(product, b(s * k + i, c), bound * magnitude)
                      << "K " << k << ", D " << d << ", row " << i << ", column " << c;
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(DenseTest, TriangularSolveKeepsNaNFactorsToTheirSample) {
  for (const std::int64_t k : {2, 12}) {
    Squares l = factor_of(positive_definite(3, k, 6));
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j < k; ++j) l(1, i, j) = kNaN;
    }
    const DeviceTensor x = upload(context(), random_matrix(3 * k, 4, 7), DType::f32);
    ops().triangular_solve(x, device_squares(l), x, true);
    const HostMatrix solution = download(context(), x);
    for (std::int64_t i = 0; i < 3 * k; ++i) {
      for (std::int64_t c = 0; c < 4; ++c) EXPECT_EQ(std::isnan(solution(i, c)), i / k == 1);
    }
  }
}

// d log det G / 2 = tr(G^-1 dG) / 2 is about |dG| / (2 lambda_min). The D roundings of an element of the Gram matrix
// and the K of the factorisation are independent, |dG| of the order of sqrt(D + K) u |G|, so the error is sqrt(D + K) u
// cond(J)^2 / 2 (5e-4 at 1e6, where an f32 Gram matrix would not even be positive definite); the floor stands for K
// logarithms of up to 7 and for singular values given to K u |J|.
TEST_P(DenseTest, LogVolumeOfIllConditionedJacobians) {
  const std::int64_t k = 16, d = 64;
  for (const double condition : {1.0, 1e2, 1e4, 1e6}) {
    const double root = std::sqrt(condition);
    const std::vector<double> singular = geometric(k, 1 / root, root);
    const DeviceTensor g = empty(context(), DType::f64, {1, k, k}), h = empty(context(), DType::f64, {1});
    ops().gram(g, upload(context(), with_singular_values(singular, d, 8)));
    ops().cholesky(g);
    ops().log_diagonal_sum(h, g);
    double expected = 0;
    for (const double value : singular) expected += std::log(value);
    const double roundings = std::sqrt(static_cast<double>(d + k));
    const double floor = static_cast<double>(k * k) * (7 + condition) * kUnit;
    EXPECT_NEAR(download(context(), h)(0, 0), expected, roundings * kUnit * condition * condition / 2 + floor)
        << "condition " << condition;
  }
}

// K logarithms of relative error 2 u each, their sum, and one store.
TEST_P(DenseTest, LogDiagonalSumMatchesTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t k : {1, 2, 31, 60}) {
      const std::int64_t n = 37;
      Squares l(n, k);
      HostMatrix expected(n, 1);
      const HostMatrix entries = random_matrix(n * k, k, 9, 0.1, 10);
      l.values = entries.values;
      for (std::int64_t s = 0; s < n; ++s) {
        for (std::int64_t i = 0; i < k; ++i) expected(s, 0) += std::log(l(s, i, i));
      }
      const DeviceTensor h = empty(context(), dtype, {n});
      ops().log_diagonal_sum(h, device_squares(l));
      const auto terms = static_cast<double>(k);
      EXPECT_MATRICES_CLOSE(download(context(), h), expected,
                            mixed_limit((2 * terms + 4) * terms * std::log(10) * kUnit, 2 * unit_roundoff(dtype)));
    }
  }
}

// Every rotation is orthogonal to a few u and touches each element twice per K - 1 rotations of a sweep; with at most
// 12 sweeps the errors add to less than 12 * 4 K u = 50 K u: |A v - lambda v| <= 50 K u |A|, |V V^T - I| <= 50 K u.
void DenseTest::expect_eigenpairs(const Squares& a, const char* what) {
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

TEST_P(DenseTest, EigenpairsOfRandomMatrices) {
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

TEST_P(DenseTest, EigenpairsOfDegenerateMatrices) {
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
TEST_P(DenseTest, SmallEigenvaluesAreRelativelyAccurate) {
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

TEST_P(DenseTest, EigenOfNonFiniteInputIsNaNInItsSampleOnly) {
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
TEST_P(DenseTest, MinSingularOfAnIllConditionedJacobian) {
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

TEST_P(DenseTest, MinSingularOfASingularMatrixIsNaN) {
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

// K products added in f64 (K u64 sum |v t| <= K^2 u64) and one store.
TEST_P(DenseTest, CombineTangentsMatchesTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : {0, 1, 33}) {
      for (const std::int64_t k : {1, 2, 7, 128}) {
        for (const std::int64_t d : {1, 2, 31, 129, 200}) {
          const HostMatrix t = random_matrix(n * k, d, 15).rounded(dtype), v = random_matrix(n, k, 16).rounded(dtype);
          HostMatrix expected(n, d);
          for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t c = 0; c < d; ++c) {
              for (std::int64_t j = 0; j < k; ++j) expected(i, c) += v(i, j) * t(i * k + j, c);
            }
          }
          const DeviceTensor y = empty_matrix(context(), dtype, n, d, 2);
          ops().combine_tangents(y, upload(context(), t, dtype, 1), upload(context(), v, dtype, 4));
          const auto terms = static_cast<double>(k);
          EXPECT_MATRICES_CLOSE(download(context(), y), expected,
                                mixed_limit(2 * terms * terms * kUnit, unit_roundoff(dtype)));
        }
      }
    }
  }
}

// The factor is rounded, then the product: 2 u, and the definition computed here 2 u64 more.
TEST_P(DenseTest, ScaleRowsMatchesTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : {0, 1, 31, 129}) {
      for (const std::int64_t c : {0, 1, 33}) {
        const HostMatrix x = random_matrix(n, c, 17).rounded(dtype), scale = random_matrix(n, 1, 18).rounded(dtype);
        HostMatrix expected(n, c);
        for (std::int64_t i = 0; i < n; ++i) {
          for (std::int64_t j = 0; j < c; ++j) expected(i, j) = -0.3 * scale(i, 0) * x(i, j);
        }
        const DeviceTensor y = upload(context(), x, dtype, 3), scales = upload_vector(context(), scale, dtype);
        const DeviceTensor separate = empty_matrix(context(), dtype, n, c);
        ops().scale_rows(separate, y, scales, -0.3);
        ops().scale_rows(y, y, scales, -0.3);
        EXPECT_MATRICES_CLOSE(download(context(), y), expected, mixed_limit(0, 5 * unit_roundoff(dtype)));
        EXPECT_MATRICES_IDENTICAL(download(context(), separate), download(context(), y));
      }
    }
  }
}

TEST_P(DenseTest, TileIdentityWritesOneIdentityPerSample) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : {0, 1, 17}) {
      for (const std::int64_t k : {1, 2, 33}) {
        const DeviceTensor t = empty_matrix(context(), dtype, n * k, k, 2);
        ops().tile_identity(t, n);
        HostMatrix expected(n * k, k);
        for (std::int64_t i = 0; i < n * k; ++i) expected(i, i % k) = 1;
        EXPECT_MATRICES_IDENTICAL(download(context(), t), expected);
      }
    }
  }
}

// Gram, factor, both solves: C = J (J^T J)^-1 satisfies J^T C = I. The Gram has condition 1e4 here, so K u cond(J)
// sqrt(cond(G)) leaves far more than 1e-10 unused.
TEST_P(DenseTest, ExactEstimatorChainInvertsTheGram) {
  const std::int64_t k = 6, d = 11;
  const HostMatrix t = with_singular_values(geometric(k, 0.1, 10), d, 19);
  const DeviceTensor tangents = upload(context(), t), g = empty(context(), DType::f64, {1, k, k});
  ops().gram(g, tangents);
  ops().cholesky(g);
  const DeviceTensor c = empty_matrix(context(), DType::f64, k, d);
  ops().triangular_solve(c, g, tangents, false);
  ops().triangular_solve(c, g, c, true);
  const HostMatrix cotangents = download(context(), c);
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      double product = 0;
      for (std::int64_t e = 0; e < d; ++e) product += t(i, e) * cotangents(j, e);
      EXPECT_NEAR(product, i == j ? 1 : 0, 1e-10);
    }
  }
}

TEST(DenseThreads, DoNotChangeABit) {
  const std::int64_t n = 70, k = 16, d = 200;
  const HostMatrix t = random_matrix(n * k, d, 20);
  HostMatrix reference;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    const std::unique_ptr<Context> own = TestDevice("cpu").make_context(options);
    Ops& ops = own->ops();
    const DeviceTensor tangents = upload(*own, t, DType::f32), g = empty(*own, DType::f64, {n, k, k});
    const DeviceTensor values = empty(*own, DType::f64, {n, k}), vectors = empty(*own, DType::f64, {n, k, k});
    const DeviceTensor h = empty(*own, DType::f32, {n}), scale = empty(*own, DType::f32, {n});
    const DeviceTensor v = empty_matrix(*own, DType::f32, n, k), y = empty_matrix(*own, DType::f32, n, d);
    HostMatrix results(0, 1);
    const auto append = [&](const Tensor& tensor) {
      const HostMatrix host = download(*own, tensor);
      results.values.insert(results.values.end(), host.values.begin(), host.values.end());
      results.rows += host.size();
    };
    ops.gram(g, tangents);
    append(g);
    ops.symmetric_eigen(values, vectors, g);
    append(values);
    append(vectors);
    ops.min_singular(h, v, scale, values, vectors);
    append(h);
    ops.combine_tangents(y, tangents, v);
    append(y);
    ops.gram(g, tangents);
    ops.cholesky(g);
    append(g);
    ops.triangular_solve(tangents, g, tangents, false);
    append(tangents);
    if (threads == 1) reference = results;
    EXPECT_MATRICES_IDENTICAL(results, reference) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DenseTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
