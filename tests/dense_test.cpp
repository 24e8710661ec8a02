// Per-sample dense algebra: reconstruction and residuals against bounds from rounding analysis.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "tests/dense_fixture.h"

namespace bracket::test {
namespace {

class DenseTest : public SquaresTest {
 protected:
  Squares factor_of(const Squares& a) {
    const DeviceTensor g = device_squares(a);
    ops().cholesky(g);
    return host_squares(g);
  }
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
