// Spectral normalisation against naive loops in double, and against differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tests/op_differences.h"

namespace bracket::test {
namespace {

using Shape = std::pair<std::int64_t, std::int64_t>;
const std::vector<Shape> kShapes = {{0, 3},   {1, 1},    {2, 31},  {31, 1},    {32, 32}, {33, 33},
                                    {127, 2}, {129, 65}, {7, 127}, {1100, 33}, {2049, 3}};

class SpectralNormTest : public OpsTest {
 protected:
  struct Result {
    HostMatrix normalized, sigma, u, v;
  };
  Result forward(const HostMatrix& w, const HostMatrix& u, const HostMatrix& v, int iterations, DType dtype,
                 std::int64_t padding = 0) {
    const DeviceTensor weights = upload(context(), w, dtype, padding);
    const DeviceTensor normalized = empty_matrix(context(), dtype, w.rows, w.cols, padding);
    const DeviceTensor sigma = empty(context(), dtype, {1});
    const DeviceTensor left = upload_vector(context(), u, dtype), right = upload_vector(context(), v, dtype);
    ops().spectral_norm_forward(normalized, sigma, left, right, weights, iterations, 1e-12);
    return {download(context(), normalized), download(context(), sigma), download(context(), left),
            download(context(), right)};
  }
};

HostMatrix unit_vector(std::int64_t n, std::uint64_t salt) {
  HostMatrix x = random_matrix(n, 1, salt, 0.1, 1);
  const double norm = std::sqrt(dot(x, x));
  for (double& value : x.values) value /= norm;
  return x;
}

// One iteration: u and v are sums in f64 stored once and scaled once; |w v| >= 1e-2 |w| here (positive entries), so
// 8 u + (in + out) u64 bounds their relative error, and twice that, for sigma and the quotient.
TEST_P(SpectralNormTest, OneIterationMatchesTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [out, in] :
         std::vector<Shape>{{1, 1}, {1, 33}, {31, 1}, {32, 32}, {33, 65}, {129, 127}, {7, 211}}) {
      const HostMatrix w = random_matrix(out, in, 30, 0, 1).rounded(dtype);
      HostMatrix u = unit_vector(out, 31).rounded(dtype), v = unit_vector(in, 32).rounded(dtype);
      const Result actual = forward(w, u, v, 1, dtype, in == 33 ? 3 : 0);
      const auto normalize = [](HostMatrix& x) {
        const double norm = std::max(std::sqrt(dot(x, x)), 1e-12);
        for (double& value : x.values) value /= norm;
      };
      HostMatrix next_u(out, 1), next_v(in, 1);
      for (std::int64_t i = 0; i < out; ++i) {
        for (std::int64_t j = 0; j < in; ++j) next_u(i, 0) += w(i, j) * v(j, 0);
      }
      normalize(next_u);
      for (std::int64_t i = 0; i < out; ++i) {
        for (std::int64_t j = 0; j < in; ++j) next_v(j, 0) += w(i, j) * next_u(i, 0);
      }
      normalize(next_v);
      double sigma = 0;
      for (std::int64_t i = 0; i < out; ++i) {
        for (std::int64_t j = 0; j < in; ++j) sigma += next_u(i, 0) * w(i, j) * next_v(j, 0);
      }
      HostMatrix normalized = w;
      for (double& value : normalized.values) value /= sigma;
      const double u_bound = 8 * unit_roundoff(dtype) + static_cast<double>(in + out) * 0x1p-53;
      EXPECT_MATRICES_CLOSE(actual.u, next_u, mixed_limit(0, u_bound));
      EXPECT_MATRICES_CLOSE(actual.v, next_v, mixed_limit(0, 2 * u_bound));
      EXPECT_MATRICES_CLOSE(actual.sigma, host_vector({sigma}), mixed_limit(0, 4 * u_bound));
      EXPECT_MATRICES_CLOSE(actual.normalized, normalized, mixed_limit(0, 4 * u_bound));
    }
  }
}

// w = sum_i s_i a_i b_i^T with a, b from Householder reflections has the singular values s; the error of u and v after
// m iterations is (s_2 / s_1)^(2m) = 2^-80, that of sigma its square: only rounding is left.
TEST_P(SpectralNormTest, IterationsFindTheLargestSingularValue) {
  const std::int64_t out = 9, in = 5;
  const HostMatrix a = unit_vector(out, 33), b = unit_vector(in, 34);
  const auto reflect = [](const HostMatrix& h, std::int64_t i, std::int64_t j) {
    return (i == j ? 1 : 0) - 2 * h(i, 0) * h(j, 0);
  };
  HostMatrix w(out, in);
  const std::vector<double> singular = {6, 3, 2, 1, 0.5};
  for (std::int64_t i = 0; i < out; ++i) {
    for (std::int64_t j = 0; j < in; ++j) {
      for (std::int64_t k = 0; k < in; ++k)
        w(i, j) += singular[static_cast<std::size_t>(k)] * reflect(a, i, k) * reflect(b, j, k);
    }
  }
  const Result result = forward(w, unit_vector(out, 35), unit_vector(in, 36), 40, DType::f64);
  EXPECT_NEAR(result.sigma(0, 0), 6, 6 * 50 * 0x1p-53);
}

TEST_P(SpectralNormTest, WithoutIterationsTheVectorsStay) {
  const HostMatrix w = random_matrix(6, 4, 37), u = unit_vector(6, 38), v = unit_vector(4, 39);
  const Result result = forward(w, u, v, 0, DType::f64);
  EXPECT_MATRICES_IDENTICAL(result.u, u);
  EXPECT_MATRICES_IDENTICAL(result.v, v);
}

// A zero matrix: u = v = 0 by the max with epsilon, sigma = 0, and the quotient 0 / 0 is NaN for the finite check.
TEST_P(SpectralNormTest, ZeroAndEmptyMatrices) {
  const Result zero = forward(HostMatrix(3, 2), unit_vector(3, 40), unit_vector(2, 41), 1, DType::f32);
  EXPECT_MATRICES_IDENTICAL(zero.u, HostMatrix(3, 1));
  EXPECT_MATRICES_IDENTICAL(zero.v, HostMatrix(2, 1));
  EXPECT_EQ(zero.sigma(0, 0), 0);
  for (const double value : zero.normalized.values) EXPECT_TRUE(std::isnan(value));
  for (const auto& [out, in] : {Shape{0, 4}, Shape{4, 0}, Shape{0, 0}}) {
    const Result none = forward(HostMatrix(out, in), HostMatrix(out, 1, 1), HostMatrix(in, 1, 1), 1, DType::f64);
    EXPECT_EQ(none.sigma(0, 0), 0);
    EXPECT_MATRICES_IDENTICAL(none.u, HostMatrix(out, 1));
    EXPECT_MATRICES_IDENTICAL(none.v, HostMatrix(in, 1));
  }
}

// The forward with no iterations is w / (u^T w v) with u and v frozen: the function whose gradient reverse gives.
TEST_P(SpectralNormTest, ReverseMatchesDifferencesWithFrozenVectors) {
  const HostMatrix w = random_matrix(5, 4, 42, 0.2, 1), seed = random_matrix(5, 4, 43);
  const HostMatrix u = unit_vector(5, 44), v = unit_vector(4, 45);
  const Result at = forward(w, u, v, 0, DType::f64);
  const DeviceTensor grad_w = empty_matrix(context(), DType::f64, 5, 4, 1);
  ops().spectral_norm_reverse(grad_w, upload(context(), seed), upload(context(), at.normalized),
                              upload_vector(context(), at.sigma), upload_vector(context(), u),
                              upload_vector(context(), v), Update::overwrite);
  const HostMatrix expected = differences(
      w, [&](const HostMatrix& moved) { return dot(forward(moved, u, v, 0, DType::f64).normalized, seed); });
  EXPECT_MATRICES_CLOSE(download(context(), grad_w), expected, gradient_limit(expected));
}

// The product with u_i v_j, the difference, the quotient and the accumulation onto 1 round in T: 8 u (1 + (|g| +
// |radial u v|) / sigma). The dot product of n elements in f64 adds at most n u64 sum |g w| to `radial`.
TEST_P(SpectralNormTest, ReverseMatchesTheFormulaInBothPrecisions) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [out, in] : std::vector<Shape>{{0, 3}, {1, 1}, {33, 31}, {127, 129}, {200, 211}}) {
      const HostMatrix w = random_matrix(out, in, 46).rounded(dtype), seed = random_matrix(out, in, 47).rounded(dtype);
      const HostMatrix u = unit_vector(out, 48).rounded(dtype), v = unit_vector(in, 49).rounded(dtype);
      const double sigma = 1.5, radial = dot(w, seed);
      double magnitude = 0;
      for (std::size_t k = 0; k < w.values.size(); ++k) magnitude += std::abs(w.values[k] * seed.values[k]);
      const double radial_error = static_cast<double>(out * in) * 0x1p-53 * magnitude;
      HostMatrix expected(out, in), limit(out, in);
      for (std::int64_t i = 0; i < out; ++i) {
        for (std::int64_t j = 0; j < in; ++j) {
          const double direction = u(i, 0) * v(j, 0);
          expected(i, j) = 1 + (seed(i, j) - radial * direction) / sigma;
          limit(i, j) = 8 * unit_roundoff(dtype) * (1 + (std::abs(seed(i, j)) + std::abs(radial * direction)) / sigma) +
                        radial_error * std::abs(direction) / sigma;
        }
      }
      const DeviceTensor grad_w = upload(context(), HostMatrix(out, in, 1), dtype);
      ops().spectral_norm_reverse(grad_w, upload(context(), seed, dtype, 1), upload(context(), w, dtype, 2),
                                  upload_vector(context(), host_vector({sigma}), dtype),
                                  upload_vector(context(), u, dtype), upload_vector(context(), v, dtype),
                                  Update::accumulate);
      expect_within(download(context(), grad_w), expected, limit, "grad_w");
    }
  }
}

TEST(SpectralNormThreads, DoNotChangeABit) {
  const std::int64_t n = 900, c = 203;
  const HostMatrix x = random_matrix(n, c, 50), seed = random_matrix(n, c, 51), one(c, 1, 1);
  HostMatrix reference;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    const std::unique_ptr<Context> own = TestDevice("cpu").make_context(options);
    const DeviceTensor input = upload(*own, x, DType::f32), cotangent = upload(*own, seed, DType::f32);
    const DeviceTensor y = empty_matrix(*own, DType::f32, n, c), sigma = empty(*own, DType::f32, {1});
    const DeviceTensor u = upload_vector(*own, HostMatrix(n, 1, 1), DType::f32),
                       v = upload_vector(*own, one, DType::f32);
    HostMatrix results(0, 1);
    const auto append = [&](const Tensor& tensor) {
      const HostMatrix host = download(*own, tensor);
      results.values.insert(results.values.end(), host.values.begin(), host.values.end());
      results.rows += host.size();
    };
    own->ops().spectral_norm_forward(y, sigma, u, v, input, 2, 1e-12);
    append(y);
    append(sigma);
    append(u);
    append(v);
    const DeviceTensor grad_w = empty_matrix(*own, DType::f32, n, c);
    own->ops().spectral_norm_reverse(grad_w, cotangent, y, sigma, u, v, Update::overwrite);
    append(grad_w);
    if (threads == 1) reference = results;
    EXPECT_MATRICES_IDENTICAL(results, reference) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, SpectralNormTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
