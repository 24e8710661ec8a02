// Batch normalisation against naive loops in double, and against differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "tests/op_differences.h"

namespace bracket::test {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Shape = std::pair<std::int64_t, std::int64_t>;
const std::vector<Shape> kShapes = {{0, 3},   {1, 1},    {2, 31},  {31, 1},    {32, 32}, {33, 33},
                                    {127, 2}, {129, 65}, {7, 127}, {1100, 33}, {2049, 3}};

struct TrainForward {
  HostMatrix y, mean, inv_std, running_mean, running_variance;
};

/// Column statistics as batch normalisation defines them.
struct Statistics {
  HostMatrix mean, inv_std, unbiased;
};
Statistics statistics_of(const HostMatrix& x) {
  Statistics s{HostMatrix(x.cols, 1), HostMatrix(x.cols, 1), HostMatrix(x.cols, 1)};
  for (std::int64_t j = 0; j < x.cols; ++j) {
    long double sum = 0, squares = 0;
    for (std::int64_t i = 0; i < x.rows; ++i) sum += x(i, j);
    const auto n = static_cast<long double>(std::max<std::int64_t>(x.rows, 1));
    const long double mean = sum / n;
    for (std::int64_t i = 0; i < x.rows; ++i) squares += (x(i, j) - mean) * (x(i, j) - mean);
    s.mean(j, 0) = static_cast<double>(mean);
    s.inv_std(j, 0) = static_cast<double>(1 / std::sqrt(squares / n + kEpsilon));
    s.unbiased(j, 0) = x.rows > 1 ? static_cast<double>(squares / (n - 1)) : kNaN;
  }
  return s;
}

class NormalizationTest : public OpsTest {
 protected:
  TrainForward train_forward(const HostMatrix& x, const HostMatrix& gamma, const HostMatrix& beta, DType dtype,
                             std::int64_t padding = 0, double momentum = 0.1) {
    const DeviceTensor input = upload(context(), x, dtype, padding);
    const DeviceTensor y = empty_matrix(context(), dtype, x.rows, x.cols, padding);
    const DeviceTensor mean = empty(context(), dtype, {x.cols}), inv_std = empty(context(), dtype, {x.cols});
    const DeviceTensor running_mean = upload_vector(context(), HostMatrix(x.cols, 1, 0.25), dtype);
    const DeviceTensor running_variance = upload_vector(context(), HostMatrix(x.cols, 1, 2), dtype);
    ops().batch_norm_train_forward(y, mean, inv_std, running_mean, running_variance, input,
                                   upload_vector(context(), gamma, dtype), upload_vector(context(), beta, dtype),
                                   momentum, kEpsilon);
    return {download(context(), y), download(context(), mean), download(context(), inv_std),
            download(context(), running_mean), download(context(), running_variance)};
  }
};

// Rounding of the mean (u |mean|), of x - mean, of the product with inv_std, of inv_std, of the product with gamma and
// of the shift: less than 8 u (|gamma| inv_std (|x| + |mean|) + |beta|). In f64 the sums over n rows add n u to the
// mean and to the variance, hence n u more of the same size each.
TEST_P(NormalizationTest, TrainForwardMatchesTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [n, c] : kShapes) {
      const HostMatrix x = random_matrix(n, c, 1, -1, 2).rounded(dtype);
      const HostMatrix gamma = random_matrix(c, 1, 2, 0.5, 1.5).rounded(dtype);
      const HostMatrix beta = random_matrix(c, 1, 3).rounded(dtype);
      const Statistics s = statistics_of(x);
      const double sums = static_cast<double>(n) * 0x1p-53;
      const double u = 8 * unit_roundoff(dtype) + 2 * sums;
      HostMatrix y(n, c), limit(n, c), mean_limit(c, 1), inv_limit(c, 1), running_mean(c, 1), running_variance(c, 1);
      for (std::int64_t j = 0; j < c; ++j) {
        mean_limit(j, 0) = 2 * u;
        inv_limit(j, 0) = 2 * u * s.inv_std(j, 0);
        running_mean(j, 0) = n > 0 ? 0.9 * 0.25 + 0.1 * s.mean(j, 0) : 0.25;
        running_variance(j, 0) = n > 1 ? 0.9 * 2 + 0.1 * s.unbiased(j, 0) : 2;
        for (std::int64_t i = 0; i < n; ++i) {
          y(i, j) = gamma(j, 0) * (x(i, j) - s.mean(j, 0)) * s.inv_std(j, 0) + beta(j, 0);
          const double size = s.inv_std(j, 0) * (std::abs(x(i, j)) + std::abs(s.mean(j, 0)));
          limit(i, j) = u * (gamma(j, 0) * size + std::abs(beta(j, 0)));
        }
      }
      const TrainForward actual = train_forward(x, gamma, beta, dtype, n == 7 ? 3 : 0);
      expect_within(actual.y, y, limit, "y");
      expect_within(actual.mean, s.mean, mean_limit, "mean");
      expect_within(actual.inv_std, s.inv_std, inv_limit, "inv_std");
      EXPECT_MATRICES_CLOSE(actual.running_mean, running_mean, absolute_limit(4 * u));
      EXPECT_MATRICES_CLOSE(actual.running_variance, running_variance, absolute_limit(4 * u));
    }
  }
}

// Columns far from zero, and columns whose first element lies far from all others. The variance loses
// 2 g (1 + K) 2^-53 of itself, K = (x_0 - mean)^2 / variance < n, with fewer than n additions g in a row, and inv_std
// half of that: n^2 2^-53 at most, 2^-31 here. The dtype's roundings are 2 u of the mean, 2 u of inv_std; in f64 the
// sums over n rows add n 2^-53 of |x| to the mean.
TEST_P(NormalizationTest, TrainForwardOfShiftedColumns) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : {1000, 2049}) {  // in one launch, and in several
      HostMatrix x = random_matrix(n, 4, 5);
      for (std::int64_t i = 0; i < n; ++i) {
        x(i, 1) += 4096;
        x(i, 2) = i == 0 ? 1000 : 3;
        x(i, 3) += i == 0 ? -1e6 : 0;
      }
      x = x.rounded(dtype);
      const Statistics s = statistics_of(x);
      const HostMatrix one(4, 1, 1), zero(4, 1);
      const TrainForward actual = train_forward(x, one, zero, dtype);
      const double rows = static_cast<double>(n), u = unit_roundoff(dtype);
      for (std::int64_t j = 0; j < 4; ++j) {
        double size = 0;
        for (std::int64_t i = 0; i < n; ++i) size += std::abs(x(i, j)) / rows;
        EXPECT_NEAR(actual.mean(j, 0), s.mean(j, 0), 2 * (u + rows * 0x1p-53) * size) << n << ", column " << j;
        EXPECT_NEAR(actual.inv_std(j, 0) / s.inv_std(j, 0), 1, 2 * u + rows * rows * 0x1p-53) << n << ", column " << j;
      }
    }
  }
}

// One row: y = beta, the running mean moves, the running variance stays. A constant column far from zero must not get
// a negative variance.
TEST_P(NormalizationTest, TrainForwardOfOneRowAndOfConstantColumns) {
  HostMatrix one(1, 2, 3);
  const HostMatrix gamma(2, 1, 1.5), beta(2, 1, 0.75);
  const TrainForward single = train_forward(one, gamma, beta, DType::f32);
  EXPECT_MATRICES_IDENTICAL(single.y, HostMatrix(1, 2, 0.75));
  EXPECT_MATRICES_IDENTICAL(single.running_variance, HostMatrix(2, 1, 2));
  EXPECT_MATRICES_CLOSE(single.running_mean, HostMatrix(2, 1, 0.9 * 0.25 + 0.3), absolute_limit(1e-7));
  const TrainForward constant = train_forward(HostMatrix(100, 2, 1048577), gamma, beta, DType::f32);
  EXPECT_MATRICES_IDENTICAL(constant.y, HostMatrix(100, 2, 0.75));
  EXPECT_MATRICES_CLOSE(constant.inv_std, HostMatrix(2, 1, 1 / std::sqrt(kEpsilon)), mixed_limit(0, 1e-7));
}

TEST_P(NormalizationTest, TrainForwardWithoutRunningStatisticsAndWithNaN) {
  HostMatrix x = random_matrix(9, 3, 4);
  x(5, 1) = kNaN;
  const DeviceTensor y = empty_matrix(context(), DType::f64, 9, 3);
  const DeviceTensor mean = empty(context(), DType::f64, {3}), inv_std = empty(context(), DType::f64, {3});
  const DeviceTensor one = upload_vector(context(), HostMatrix(3, 1, 1));
  ops().batch_norm_train_forward(y, mean, inv_std, {}, {}, upload(context(), x), one, one, 0.1, kEpsilon);
  const HostMatrix result = download(context(), y);
  for (std::int64_t i = 0; i < 9; ++i) {
    EXPECT_TRUE(std::isfinite(result(i, 0)) && std::isfinite(result(i, 2)));
    EXPECT_TRUE(std::isnan(result(i, 1)));
  }
}

TEST_P(NormalizationTest, TrainReverseMatchesDifferences) {
  const std::int64_t n = 7, c = 3;
  const HostMatrix x = random_matrix(n, c, 5), seed = random_matrix(n, c, 6);
  const HostMatrix gamma = random_matrix(c, 1, 7, 0.5, 1.5), beta = random_matrix(c, 1, 8);
  const TrainForward saved = train_forward(x, gamma, beta, DType::f64);
  const DeviceTensor grad_x = empty_matrix(context(), DType::f64, n, c, 2);
  const DeviceTensor grad_gamma = empty(context(), DType::f64, {c}), grad_beta = empty(context(), DType::f64, {c});
  ops().batch_norm_train_reverse(grad_x, grad_gamma, grad_beta, upload(context(), seed), upload(context(), x),
                                 upload_vector(context(), gamma), upload_vector(context(), saved.mean),
                                 upload_vector(context(), saved.inv_std), Update::overwrite);
  const auto loss = [&](const HostMatrix& in, const HostMatrix& scale, const HostMatrix& shift) {
    return dot(train_forward(in, scale, shift, DType::f64).y, seed);
  };
  const HostMatrix in_x = differences(x, [&](const HostMatrix& moved) { return loss(moved, gamma, beta); });
  const HostMatrix in_gamma = differences(gamma, [&](const HostMatrix& moved) { return loss(x, moved, beta); });
  const HostMatrix in_beta = differences(beta, [&](const HostMatrix& moved) { return loss(x, gamma, moved); });
  EXPECT_MATRICES_CLOSE(download(context(), grad_x), in_x, gradient_limit(in_x));
  EXPECT_MATRICES_CLOSE(download(context(), grad_gamma), in_gamma, gradient_limit(in_gamma));
  EXPECT_MATRICES_CLOSE(download(context(), grad_beta), in_beta, gradient_limit(in_beta));
}

// grad_x = gamma inv_std (g - mean(g) - x^ mean(g x^)) with the saved mean and inv_std as given: x^ is good to 2 u,
// each product and difference adds u, and each mean n u64, so 8 u + 2 n u64 times the sum of magnitudes bounds it.
TEST_P(NormalizationTest, TrainReverseMatchesTheFormulaInBothPrecisions) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [n, c] : kShapes) {
      const HostMatrix x = random_matrix(n, c, 9).rounded(dtype), seed = random_matrix(n, c, 10).rounded(dtype);
      const HostMatrix gamma = random_matrix(c, 1, 11, 0.5, 1.5).rounded(dtype);
      const Statistics s = statistics_of(x);
      const HostMatrix mean = s.mean.rounded(dtype), inv_std = s.inv_std.rounded(dtype);
      const double u = 8 * unit_roundoff(dtype) + 2 * static_cast<double>(n) * 0x1p-53;
      const auto rows = static_cast<double>(std::max<std::int64_t>(n, 1));
      HostMatrix expected(n, c), limit(n, c), gamma_sum(c, 1), beta_sum(c, 1), gamma_limit(c, 1), beta_limit(c, 1);
      for (std::int64_t j = 0; j < c; ++j) {
        double magnitude = 0, product_magnitude = 0;
        for (std::int64_t i = 0; i < n; ++i) {
          const double normalized = (x(i, j) - mean(j, 0)) * inv_std(j, 0);
          beta_sum(j, 0) += seed(i, j);
          gamma_sum(j, 0) += seed(i, j) * normalized;
          magnitude += std::abs(seed(i, j));
          product_magnitude += std::abs(seed(i, j) * normalized);
        }
        // Both kinds of gradient are accumulated onto 1, whose sum is rounded once more.
        beta_limit(j, 0) = u * (magnitude + 2);
        gamma_limit(j, 0) = u * (product_magnitude + 2);
        for (std::int64_t i = 0; i < n; ++i) {
          const double normalized = (x(i, j) - mean(j, 0)) * inv_std(j, 0);
          const double factor = gamma(j, 0) * inv_std(j, 0);
          expected(i, j) = factor * (seed(i, j) - beta_sum(j, 0) / rows - normalized * gamma_sum(j, 0) / rows);
          limit(i, j) =
              u * factor * (std::abs(seed(i, j)) + magnitude / rows + std::abs(normalized) * product_magnitude / rows);
        }
        beta_sum(j, 0) += 1;
        gamma_sum(j, 0) += 1;
      }
      const DeviceTensor gradient = upload(context(), seed, dtype, 1);
      const DeviceTensor grad_gamma = upload_vector(context(), HostMatrix(c, 1, 1), dtype);
      const DeviceTensor grad_beta = upload_vector(context(), HostMatrix(c, 1, 1), dtype);
      const DeviceTensor means = upload_vector(context(), mean, dtype),
                         inv_stds = upload_vector(context(), inv_std, dtype);
      // In place: grad_x is grad_y.
      ops().batch_norm_train_reverse(gradient, grad_gamma, grad_beta, gradient, upload(context(), x, dtype),
                                     upload_vector(context(), gamma, dtype), means, inv_stds, Update::accumulate);
      expect_within(download(context(), gradient), expected, limit, "grad_x");
      expect_within(download(context(), grad_gamma), gamma_sum, gamma_limit, "grad_gamma");
      expect_within(download(context(), grad_beta), beta_sum, beta_limit, "grad_beta");
    }
  }
}

/// A stacked inference pass on the device.
struct Inference {
  HostMatrix primal, tangent, gamma, beta, mean, variance;
  Rows rows;
};

Inference random_inference(std::int64_t n, std::int64_t tangents, std::int64_t c, DType dtype) {
  Inference pass;
  pass.rows = {n, n / 3, n - n / 3, tangents};
  pass.primal = random_matrix(n, c, 12).rounded(dtype);
  pass.tangent = random_matrix(pass.rows.tangent_rows(), c, 13).rounded(dtype);
  pass.gamma = random_matrix(c, 1, 14, -1.5, 1.5).rounded(dtype);
  pass.beta = random_matrix(c, 1, 15).rounded(dtype);
  pass.mean = random_matrix(c, 1, 16).rounded(dtype);
  pass.variance = random_matrix(c, 1, 17, 0.1, 2).rounded(dtype);
  return pass;
}

struct StackedHost {
  HostMatrix primal, tangent;
};

class InferenceTest : public NormalizationTest {
 protected:
  StackedHost forward(const Inference& pass, DType dtype, std::int64_t padding = 0) {
    const DeviceTensor primal = upload(context(), pass.primal, dtype, padding);
    const DeviceTensor tangent = upload(context(), pass.tangent, dtype, padding);
    const DeviceTensor y = empty_matrix(context(), dtype, pass.primal.rows, pass.primal.cols, padding);
    const DeviceTensor y_tangent = empty_matrix(context(), dtype, pass.tangent.rows, pass.tangent.cols, padding);
    ops().batch_norm_infer_forward({y, y_tangent}, {primal, tangent}, upload_vector(context(), pass.gamma, dtype),
                                   upload_vector(context(), pass.beta, dtype),
                                   upload_vector(context(), pass.mean, dtype),
                                   upload_vector(context(), pass.variance, dtype), kEpsilon, pass.rows);
    return {download(context(), y), download(context(), y_tangent)};
  }

  struct Gradients {
    HostMatrix primal, tangent, gamma, beta;
  };
  Gradients reverse(const Inference& pass, const StackedHost& seed, DType dtype, Update update, double initial) {
    const std::int64_t c = pass.gamma.rows;
    const DeviceTensor primal = upload(context(), seed.primal, dtype), tangent = upload(context(), seed.tangent, dtype);
    const DeviceTensor grad_gamma = upload_vector(context(), HostMatrix(c, 1, initial), dtype);
    const DeviceTensor grad_beta = upload_vector(context(), HostMatrix(c, 1, initial), dtype);
    // In place, which the parameters' gradients must survive.
    ops().batch_norm_infer_reverse(
        {primal, tangent}, grad_gamma, grad_beta, {primal, tangent},
        {upload(context(), pass.primal, dtype, 2), upload(context(), pass.tangent, dtype, 2)},
        upload_vector(context(), pass.gamma, dtype), upload_vector(context(), pass.mean, dtype),
        upload_vector(context(), pass.variance, dtype), kEpsilon, pass.rows, update);
    return {download(context(), primal), download(context(), tangent), download(context(), grad_gamma),
            download(context(), grad_beta)};
  }
};

// Four roundings (difference, factor, product, shift) on magnitudes below |gamma| inv_std (|x| + |mean|) + |beta|.
TEST_P(InferenceTest, ForwardMatchesTheDefinition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [n, c] : kShapes) {
      const Inference pass = random_inference(n, 2, c, dtype);
      HostMatrix primal(n, c), primal_limit(n, c), tangent(pass.tangent.rows, c), tangent_limit(pass.tangent.rows, c);
      const double u = 4 * unit_roundoff(dtype);
      for (std::int64_t j = 0; j < c; ++j) {
        const double factor = pass.gamma(j, 0) / std::sqrt(pass.variance(j, 0) + kEpsilon);
        for (std::int64_t i = 0; i < n; ++i) {
          primal(i, j) = (pass.primal(i, j) - pass.mean(j, 0)) * factor + pass.beta(j, 0);
          primal_limit(i, j) = u * (std::abs(factor) * (std::abs(pass.primal(i, j)) + std::abs(pass.mean(j, 0))) +
                                    std::abs(pass.beta(j, 0)));
        }
        for (std::int64_t i = 0; i < tangent.rows; ++i) {
          tangent(i, j) = pass.tangent(i, j) * factor;
          tangent_limit(i, j) = u * std::abs(tangent(i, j));
        }
      }
      const StackedHost actual = forward(pass, dtype, 3);
      expect_within(actual.primal, primal, primal_limit, "primal");
      expect_within(actual.tangent, tangent, tangent_limit, "tangent");
    }
  }
}

TEST_P(InferenceTest, ReverseMatchesDifferences) {
  Inference pass = random_inference(5, 2, 3, DType::f64);
  const StackedHost seed{random_matrix(5, 3, 18), random_matrix(pass.tangent.rows, 3, 19)};
  const Gradients actual = reverse(pass, seed, DType::f64, Update::overwrite, kNaN);
  const auto loss_in = [&](HostMatrix Inference::*member) {
    const HostMatrix at = pass.*member;
    const HostMatrix result = differences(at, [&](const HostMatrix& moved) {
      Inference changed = pass;
      changed.*member = moved;
      const StackedHost y = forward(changed, DType::f64);
      return dot(y.primal, seed.primal) + dot(y.tangent, seed.tangent);
    });
    return result;
  };
  const HostMatrix in_primal = loss_in(&Inference::primal), in_tangent = loss_in(&Inference::tangent);
  const HostMatrix in_gamma = loss_in(&Inference::gamma), in_beta = loss_in(&Inference::beta);
  EXPECT_MATRICES_CLOSE(actual.primal, in_primal, gradient_limit(in_primal));
  EXPECT_MATRICES_CLOSE(actual.tangent, in_tangent, gradient_limit(in_tangent));
  EXPECT_MATRICES_CLOSE(actual.gamma, in_gamma, gradient_limit(in_gamma));
  EXPECT_MATRICES_CLOSE(actual.beta, in_beta, gradient_limit(in_beta));
}

// grad_x: factor and product, 4 u. Parameters: x - mean rounded to T (u), sums in f64, the factor, one store: 4 u +
// 2 rows u64 times the sum of magnitudes, plus u per accumulation onto 1.
TEST_P(InferenceTest, ReverseMatchesTheFormulaInBothPrecisions) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [n, c] : kShapes) {
      const Inference pass = random_inference(n, 3, c, dtype);
      const std::int64_t t = pass.tangent.rows;
      const StackedHost seed{random_matrix(n, c, 20).rounded(dtype), random_matrix(t, c, 21).rounded(dtype)};
      const double u = 4 * unit_roundoff(dtype) + 2 * static_cast<double>(n + t) * 0x1p-53;
      HostMatrix primal(n, c), primal_limit(n, c), tangent(t, c), tangent_limit(t, c);
      HostMatrix gamma(c, 1, 1), gamma_limit(c, 1), beta(c, 1, 1), beta_limit(c, 1);
      for (std::int64_t j = 0; j < c; ++j) {
        const double inverse = 1 / std::sqrt(pass.variance(j, 0) + kEpsilon);
        double gamma_size = 1, beta_size = 1;
        for (std::int64_t i = 0; i < n; ++i) {
          primal(i, j) = seed.primal(i, j) * pass.gamma(j, 0) * inverse;
          primal_limit(i, j) = u * std::abs(primal(i, j));
          const double term = seed.primal(i, j) * (pass.primal(i, j) - pass.mean(j, 0)) * inverse;
          gamma(j, 0) += term;
          beta(j, 0) += seed.primal(i, j);
          gamma_size += std::abs(term);
          beta_size += std::abs(seed.primal(i, j));
        }
        for (std::int64_t i = 0; i < t; ++i) {
          tangent(i, j) = seed.tangent(i, j) * pass.gamma(j, 0) * inverse;
          tangent_limit(i, j) = u * std::abs(tangent(i, j));
          const double term = seed.tangent(i, j) * pass.tangent(i, j) * inverse;
          gamma(j, 0) += term;
          gamma_size += std::abs(term);
        }
        gamma_limit(j, 0) = u * gamma_size;
        beta_limit(j, 0) = u * beta_size;
      }
      const Gradients actual = reverse(pass, seed, dtype, Update::accumulate, 1);
      expect_within(actual.primal, primal, primal_limit, "grad_x primal");
      expect_within(actual.tangent, tangent, tangent_limit, "grad_x tangent");
      expect_within(actual.gamma, gamma, gamma_limit, "grad_gamma");
      expect_within(actual.beta, beta, beta_limit, "grad_beta");
    }
  }
}

// <J v, u> = <v, J^T u> over the whole stack; both sides round in some 60 products of order 1.
TEST_P(InferenceTest, ForwardAndReverseAreAdjoint) {
  Inference pass = random_inference(6, 2, 5, DType::f64);
  const StackedHost seed{random_matrix(6, 5, 22), random_matrix(pass.tangent.rows, 5, 23)};
  const Gradients gradient = reverse(pass, seed, DType::f64, Update::overwrite, 0);
  Inference linear = pass;
  linear.beta = HostMatrix(5, 1);
  linear.mean = HostMatrix(5, 1);
  const StackedHost y = forward(linear, DType::f64);
  const double pushed = dot(y.primal, seed.primal) + dot(y.tangent, seed.tangent);
  const double pulled = dot(gradient.primal, pass.primal) + dot(gradient.tangent, pass.tangent);
  EXPECT_NEAR(pushed, pulled, 1e-12 * std::max(1.0, std::abs(pushed)));
}

// A tangent pass alone, and a reverse pass that wants only J^T w, touch nothing else.
TEST_P(InferenceTest, PartsMayBeAbsent) {
  const Inference pass = random_inference(4, 2, 3, DType::f64);
  const StackedHost whole = forward(pass, DType::f64);
  const DeviceTensor gamma = upload_vector(context(), pass.gamma), beta = upload_vector(context(), pass.beta);
  const DeviceTensor mean = upload_vector(context(), pass.mean), variance = upload_vector(context(), pass.variance);
  const DeviceTensor tangent = upload(context(), pass.tangent), primal = upload(context(), pass.primal);
  const DeviceTensor y = empty_matrix(context(), DType::f64, pass.tangent.rows, 3);
  ops().batch_norm_infer_forward({{}, y}, {{}, tangent}, gamma, beta, mean, variance, kEpsilon, pass.rows);
  EXPECT_MATRICES_IDENTICAL(download(context(), y), whole.tangent);

  const StackedHost seed{random_matrix(4, 3, 24), random_matrix(pass.tangent.rows, 3, 25)};
  const Gradients all = reverse(pass, seed, DType::f64, Update::overwrite, 0);
  const DeviceTensor grad_primal = empty_matrix(context(), DType::f64, 4, 3);
  ops().batch_norm_infer_reverse({grad_primal, {}}, {}, {}, {upload(context(), seed.primal), {}}, {}, gamma, mean,
                                 variance, kEpsilon, pass.rows, Update::overwrite);
  EXPECT_MATRICES_IDENTICAL(download(context(), grad_primal), all.primal);

  // No cotangent on the primal rows counts as zero there.
  const DeviceTensor grad_tangent = empty_matrix(context(), DType::f64, pass.tangent.rows, 3);
  const DeviceTensor grad_gamma = empty(context(), DType::f64, {3}), grad_beta = empty(context(), DType::f64, {3});
  ops().batch_norm_infer_reverse({grad_primal, grad_tangent}, grad_gamma, grad_beta,
                                 {{}, upload(context(), seed.tangent)}, {primal, tangent}, gamma, mean, variance,
                                 kEpsilon, pass.rows, Update::overwrite);
  const Gradients zeroed = reverse(pass, {HostMatrix(4, 3), seed.tangent}, DType::f64, Update::overwrite, 0);
  EXPECT_MATRICES_IDENTICAL(download(context(), grad_primal), HostMatrix(4, 3));
  EXPECT_MATRICES_IDENTICAL(download(context(), grad_tangent), all.tangent);
  EXPECT_MATRICES_IDENTICAL(download(context(), grad_gamma), zeroed.gamma);
  EXPECT_MATRICES_IDENTICAL(download(context(), grad_beta), HostMatrix(3, 1));
}

TEST(BatchNormThreads, DoNotChangeABit) {
  const std::int64_t n = 900, c = 203;
  const HostMatrix x = random_matrix(n, c, 50), seed = random_matrix(n, c, 51), one(c, 1, 1);
  HostMatrix reference;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    const std::unique_ptr<Context> own = TestDevice("cpu").make_context(options);
    const DeviceTensor input = upload(*own, x, DType::f32), cotangent = upload(*own, seed, DType::f32);
    const DeviceTensor y = empty_matrix(*own, DType::f32, n, c), gamma = upload_vector(*own, one, DType::f32);
    const DeviceTensor mean = empty(*own, DType::f32, {c}), inv_std = empty(*own, DType::f32, {c});
    const DeviceTensor grad_gamma = empty(*own, DType::f32, {c}), grad_beta = empty(*own, DType::f32, {c});
    HostMatrix results(0, 1);
    const auto append = [&](const Tensor& tensor) {
      const HostMatrix host = download(*own, tensor);
      results.values.insert(results.values.end(), host.values.begin(), host.values.end());
      results.rows += host.size();
    };
    own->ops().batch_norm_train_forward(y, mean, inv_std, {}, {}, input, gamma, gamma, 0.1, kEpsilon);
    append(y);
    append(mean);
    append(inv_std);
    own->ops().batch_norm_train_reverse(y, grad_gamma, grad_beta, cotangent, input, gamma, mean, inv_std,
                                        Update::overwrite);
    append(y);
    append(grad_gamma);
    append(grad_beta);
    if (threads == 1) reference = results;
    EXPECT_MATRICES_IDENTICAL(results, reference) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, NormalizationTest, ::testing::ValuesIn(test_devices()), device_name);
INSTANTIATE_TEST_SUITE_P(Devices, InferenceTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
