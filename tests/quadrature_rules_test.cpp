// Gauss rules from bidiagonal matrices: nodes to relative accuracy, shares, sums, and what has none.
#include "kernels/formula/bidiagonal.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

/// Diagonal and superdiagonal of B [k, k].
struct Bidiagonal {
  std::vector<double> d, e;
};

/// Singular values, ascending, by bisection on the inertia of the Golub-Kahan form, whose diagonal is 0: a count is
/// that of a matrix with elements some roundings of themselves off (Demmel and Kahan 1990, section 4), here of long
/// double.
std::vector<double> bisected(const Bidiagonal& b) {
  std::vector<long double> off;
  long double largest = 0;
  for (std::size_t i = 0; i < b.d.size(); ++i) {
    off.push_back(std::abs(b.d[i]));
    if (i + 1 < b.d.size()) off.push_back(std::abs(b.e[i]));
  }
  for (const long double x : off) largest = std::max(largest, x);
  const auto below = [&](long double x) {  // eigenvalues of the form that are below x > 0
    long double pivot = -x;
    std::size_t count = 1;
    for (const long double o : off) {
      pivot = -x - o * (o / (pivot == 0 ? -0x1p-16000L : pivot));
      count += pivot < 0 ? 1 : 0;
    }
    return count;
  };
  std::vector<double> values;
  for (std::size_t j = 0; j < b.d.size(); ++j) {
    long double low = 0x1p-2000L, high = 2.1L * largest;
    if (below(low) > b.d.size() + j) {
      values.push_back(0);
      continue;
    }
    while (high > low * (1 + 0x1p-58L)) {
      const long double middle = high > 2 * low ? std::sqrt(low) * std::sqrt(high) : (low + high) / 2;
      (below(middle) > b.d.size() + j ? high : low) = middle;
    }
    values.push_back(static_cast<double>(high));
  }
  return values;
}

/// Spectra of any grading, in order and out of it; multiple, tiny and zero values; blocks that fall apart.
std::vector<Bidiagonal> hard_cases(std::int64_t k) {
  auto engine = test_engine(static_cast<std::uint64_t>(k));
  std::uniform_real_distribution<double> uniform(0.1, 1);
  std::normal_distribution<double> normal;
  const auto make = [&](const std::function<double(double, std::int64_t)>& element) {
    Bidiagonal b;
    for (std::int64_t i = 0; i < k; ++i) {
      const double t = k > 1 ? static_cast<double>(i) / static_cast<double>(k - 1) : 0;
      b.d.push_back(element(t, 2 * i));
      b.e.push_back(element(t, 2 * i + 1));
    }
    return b;
  };
  return {make([&](double, std::int64_t) { return normal(engine); }),
          make([&](double t, std::int64_t) { return uniform(engine) * std::pow(1e-12, t); }),
          make([&](double t, std::int64_t) { return uniform(engine) * std::pow(1e-12, 1 - t); }),
          make([&](double, std::int64_t) { return std::exp(9 * normal(engine)); }),
          make([](double, std::int64_t i) { return i % 2 == 0   ? 1.0
                                                   : i % 6 == 5 ? 0
                                                                : 1e-3; }),
          make([](double, std::int64_t i) { return i % 2 == 0 ? 2.0 : 0; }),
          make([&](double, std::int64_t i) { return i % 8 == 2 ? 0 : uniform(engine); }),
          make([](double, std::int64_t) { return 0.0; })};
}

/// Elements as rows of alpha or beta.
HostMatrix rows_of(const std::vector<Bidiagonal>& matrices, bool diagonal) {
  const auto k = static_cast<std::int64_t>(matrices[0].d.size());
  HostMatrix rows(static_cast<std::int64_t>(matrices.size()), k);
  for (std::int64_t i = 0; i < rows.rows; ++i) {
    const Bidiagonal& b = matrices[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < k; ++j) rows(i, j) = (diagonal ? b.d : b.e)[static_cast<std::size_t>(j)];
  }
  return rows;
}

class QuadratureRulesTest : public OpsTest {
 protected:
  struct Rules {
    DeviceTensor nodes, shares;
  };
  Rules rules(const DeviceTensor& alpha, const DeviceTensor& beta, std::int64_t k, const Tensor& lower = {},
              std::int64_t count = 1) {
    const std::int64_t columns = alpha.tensor().rows() * count;
    Rules r{empty_matrix(context(), DType::f64, k, columns), empty_matrix(context(), DType::f64, k, columns)};
    ops().quadrature_rules(r.nodes, r.shares, alpha, beta, lower, empty(context(), DType::f64, {k * columns}));
    return r;
  }
  bool slow() const { return GetParam().name() == "simt"; }
};

// A sweep changes an element in two rotations, by some ten roundings; a value of B by a weighted mean of what its
// elements change by, or less; k values take 3 k sweeps at most. Zeros are zeros. Shares are the squares of a unit
// vector that as many rotations have turned.
TEST_P(QuadratureRulesTest, NodesKeepRelativeAccuracy) {
  for (const std::int64_t k : {1, 2, 3, 8, 20, 64}) {
    if (slow() && k > 20) continue;
    const std::vector<Bidiagonal> cases = hard_cases(k);
    const auto m = static_cast<std::int64_t>(cases.size());
    const DeviceTensor alpha = upload(context(), rows_of(cases, true), DType::f64, 1),
                       beta = upload(context(), rows_of(cases, false), DType::f64, 2);
    const Rules got = rules(alpha, beta, k);
    const HostMatrix nodes = download(context(), got.nodes), shares = download(context(), got.shares);
    const double limit = 30 * static_cast<double>(k) * 0x1p-53;
    double worst = 0;
    for (std::int64_t i = 0; i < m; ++i) {
      const std::vector<double> expected = bisected(cases[static_cast<std::size_t>(i)]);
      double total = 0;
      for (std::int64_t j = 0; j < k; ++j) {
        const double s = expected[static_cast<std::size_t>(j)];
        EXPECT_NEAR(nodes(j, i), s, limit * s) << "case " << i << ", k " << k << ", value " << j;
        if (s > 0) worst = std::max(worst, std::abs(nodes(j, i) / s - 1));
        EXPECT_GE(shares(j, i), 0);
        total += shares(j, i);
      }
      EXPECT_NEAR(total, 1, limit);
    }
    RecordProperty("worst_in_roundings_" + std::to_string(k), std::to_string(worst * 0x1p53));
  }
}

// Against the full vectors of one-sided Jacobi, where gaps tell one vector from the next: sums over the measure, here
// shares of halves of the spectrum, are known to roundings over gaps of 1e-2.
TEST_P(QuadratureRulesTest, SharesAreThoseOfTheVectors) {
  const std::int64_t m = 5, k = 9;
  const DeviceTensor alpha = upload(context(), random_matrix(m, k, 1, 0.5, 2)),
                     beta = upload(context(), random_matrix(m, k, 2, 0.2, 1));
  const Rules got = rules(alpha, beta, k);
  const DeviceTensor work = empty(context(), DType::f64, {m, k, k}), vectors = empty(context(), DType::f64, {m, k, k}),
                     values = empty_matrix(context(), DType::f64, m, k);
  ops().bidiagonal(work, alpha, beta);
  ops().singular_values(values, vectors, work);
  const HostMatrix nodes = download(context(), got.nodes), shares = download(context(), got.shares);
  const HostMatrix s = download(context(), values), x = download(context(), vectors);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      const double first = x.values[static_cast<std::size_t>((i * k + j) * k)];
      EXPECT_NEAR(nodes(j, i), s(i, j), 60 * static_cast<double>(k) * 0x1p-53 * s(i, j));
      EXPECT_NEAR(shares(j, i), first * first, 60 * static_cast<double>(k) * 0x1p-53 / 1e-2);
    }
  }
}

// All leading blocks at once are what each is alone.
TEST_P(QuadratureRulesTest, LeadingBlocksAreRulesOfTheirOwn) {
  const std::int64_t m = 3, k = 6, count = 4;
  const DeviceTensor alpha = upload(context(), random_matrix(m, 8, 3, 0.5, 2)),
                     beta = upload(context(), random_matrix(m, 8, 4, 0.2, 1));
  const Rules all = rules(alpha, beta, k, {}, count);
  const HostMatrix nodes = download(context(), all.nodes), shares = download(context(), all.shares);
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t size = k - count + 1 + j;
    const Rules one = rules(alpha, beta, size);
    const HostMatrix alone = download(context(), one.nodes), parts = download(context(), one.shares);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t q = 0; q < k; ++q) {
        const std::int64_t at = q - (k - size);
        EXPECT_EQ(nodes(q, j * m + i), at < 0 ? 0 : alone(at, i));
        EXPECT_EQ(shares(q, j * m + i), at < 0 ? 0 : parts(at, i));
      }
    }
  }
}

TEST_P(QuadratureRulesTest, WhatIsNotFiniteHasNoRule) {
  HostMatrix alpha = random_matrix(4, 3, 5, 0.5, 2), beta = random_matrix(4, 3, 6, 0.5, 2);
  alpha(1, 2) = kNaN;
  beta(2, 0) = kInfinity;
  beta(3, 2) = kNaN;  // not of the block
  const Rules got = rules(upload(context(), alpha), upload(context(), beta), 3);
  const HostMatrix nodes = download(context(), got.nodes), shares = download(context(), got.shares);
  for (std::int64_t j = 0; j < 3; ++j) {
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(std::isnan(nodes(j, i)), i == 1 || i == 2) << i;
      EXPECT_EQ(std::isnan(shares(j, i)), i == 1 || i == 2) << i;
    }
  }
}

// The rule integrates polynomials: v^T (J^T J)^p v for p <= 2 k - 1 (Gauss), <= 2 k (Gauss-Radau); its node is there.
TEST_P(QuadratureRulesTest, IntegratePolynomials) {
  const std::int64_t m = 4, k = 3;
  const HostMatrix alpha = random_matrix(m, 5, 1, 0.5, 2), beta = random_matrix(m, 5, 2, 0.2, 1);
  const DeviceTensor a = upload(context(), alpha), b = upload(context(), beta);
  const HostMatrix ends = host_vector({0.01, 0.02}), sizes = host_vector({1, 2, 0, 1.5});
  const DeviceTensor lower = upload_vector(context(), ends), norm = upload_vector(context(), sizes);
  const DeviceTensor sum = empty(context(), DType::f64, {m}), zeros = empty(context(), DType::f64, {m});
  for (const bool radau : {false, true}) {
    const Rules got = rules(a, b, radau ? k + 1 : k, radau ? Tensor(lower) : Tensor());
    for (int p = 0; p <= (radau ? 2 * k : 2 * k - 1); ++p) {
      ops().quadrature(sum, zeros, got.nodes, got.shares, norm, {}, power_function(p), 0);
      for (std::int64_t i = 0; i < m; ++i) {
        MatrixXd full = MatrixXd::Zero(5, 5);
        for (int j = 0; j < 5; ++j) full(j, j) = alpha(i, j);
        for (int j = 0; j < 4; ++j) full(j, j + 1) = beta(i, j);
        VectorXd v = VectorXd::Unit(5, 0);
        for (int q = 0; q < p; ++q) v = full.transpose() * (full * v);
        EXPECT_NEAR(download(context(), sum)(i, 0), sizes(i, 0) * sizes(i, 0) * v(0), 1e3 * 0x1p-53 * std::pow(9.0, p))
            << "power " << p << (radau ? " Radau" : "");
      }
    }
    const HostMatrix nodes = download(context(), got.nodes);
    for (std::int64_t i = 0; i < m && radau; ++i) EXPECT_NEAR(nodes(0, i) * nodes(0, i), ends(i / 2, 0), 1e-14);
  }
  // An end inside the spectrum is none: a node at 0.
  const Rules none = rules(a, b, k + 1, upload_vector(context(), host_vector({100, kNaN})));
  ops().quadrature(sum, zeros, none.nodes, none.shares, norm, {}, kLogarithm, 0);
  for (std::int64_t i = 0; i < m; ++i) {
    EXPECT_TRUE(i < 2 ? download(context(), none.nodes)(0, i) == 0 : std::isnan(download(context(), none.nodes)(0, i)));
    EXPECT_EQ(download(context(), zeros)(i, 0), i < 2 ? 1 : 0);
  }
}

// Weights of several rules, shares of nothing, zeros by tolerance; log 0 survives weights of either sign.
TEST_P(QuadratureRulesTest, SumsRespectWeightsAndZeros) {
  HostMatrix nodes(2, 8), shares(2, 8);
  nodes.values = {0, 0, 3, 1e-9, 1, 1, 1, 1, 2, 2, 3, 1, 5, 5, 5, 1};
  shares.values = {0, 1, 0.36, 0.5, 0, 0, 0, 0.5, 1, 0, 0.64, 0.5, 1, 1, 1, 0.5};
  const DeviceTensor points = upload(context(), nodes), parts = upload(context(), shares);
  HostMatrix factors(2, 4);
  factors.values = {-2, -2, 0, 1, 0, 1, 2, -1};
  const DeviceTensor norm = upload_vector(context(), host_vector({1, 1, 2, 1})), weight = upload(context(), factors);
  const DeviceTensor sum = empty(context(), DType::f64, {4}), zeros = empty(context(), DType::f64, {4});
  ops().quadrature(sum, zeros, points, parts, norm, weight, kLogarithm, 0);
  const double half = std::log(1e-9);
  EXPECT_MATRICES_CLOSE(download(context(), sum),
                        host_vector({-2 * std::log(4.0), -kInfinity, 8 * std::log(25.0), half}), absolute_limit(1e-14));
  EXPECT_MATRICES_CLOSE(download(context(), zeros), host_vector({0, 1, 0, 0}), absolute_limit(0));
  ops().quadrature(sum, zeros, points, parts, norm, weight, kLogarithm, 1e-8);
  EXPECT_MATRICES_CLOSE(download(context(), zeros), host_vector({0, 1, 0, 1}), absolute_limit(0));
  EXPECT_EQ(download(context(), sum)(3, 0), -kInfinity);
}

// f(B^T B) e_1 by Eigen's spectral decomposition; the infinite values of zeros left out.
TEST_P(QuadratureRulesTest, CoefficientsAreColumnsOfFunctions) {
  const std::int64_t m = 3, k = 4, capacity = 6;
  HostMatrix alpha = random_matrix(m, k, 7, 0.5, 2), beta = random_matrix(m, k, 8, 0.2, 1);
  alpha(2, k - 1) = 0;  // a singular value of 0
  const DeviceTensor work = empty(context(), DType::f64, {m, k, k}), vectors = empty(context(), DType::f64, {m, k, k}),
                     values = empty_matrix(context(), DType::f64, m, k);
  ops().bidiagonal(work, upload(context(), alpha), upload(context(), beta));
  ops().singular_values(values, vectors, work);
  const DeviceTensor norm = upload_vector(context(), host_vector({1, 2, 3}));
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const SpectralFunction& f : {kLogarithm, kInverse, power_function(1), power_function(0.5)}) {
      const DeviceTensor c = empty_matrix(context(), dtype, m, capacity, 1);
      ops().spectral_coefficients(c, values, vectors, norm, f, 1e-14);
      const HostMatrix got = download(context(), c);
      for (std::int64_t i = 0; i < m; ++i) {
        MatrixXd b = MatrixXd::Zero(k, k);
        for (std::int64_t j = 0; j < k; ++j) {
          b(j, j) = alpha(i, j);
          if (j + 1 < k) b(j, j + 1) = beta(i, j);
        }
        const auto [v, s] = right_singular_vectors(b);
        VectorXd expected = VectorXd::Zero(k);
        for (std::int64_t j = 0; j < k; ++j) {
          const double square = s(j) <= 1e-14 * s(k - 1) ? 0 : s(j) * s(j);
          const double value =
              f.kind == SpectralFunction::Kind::logarithm ? std::log(square) : std::pow(square, f.exponent);
          if (std::isfinite(value)) expected += v(0, j) * value * v.col(j);
        }
        for (std::int64_t j = 0; j < capacity; ++j) {
          const double want = j < k ? static_cast<double>(i + 1) * expected(j) : 0;
          EXPECT_NEAR(got(i, j), want, 1e3 * unit_roundoff(dtype) * std::max(1.0, expected.norm()));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, QuadratureRulesTest, ::testing::ValuesIn(test_devices()), device_name);

// What the cap on sweeps leaves unfinished is NaN, all of it.
TEST(GaussRule, IsNaNWhereItDoesNotConverge) {
  const std::vector<double> alpha = {1, 2, 3}, beta = {1, 1, 1};
  std::vector<double> d(3), e(3), z(3);
  const formula::BidiagonalRow work{d.data(), e.data(), z.data(), 1};
  formula::gauss_rule(work, alpha.data(), beta.data(), -1, 3, 2);
  for (const std::vector<double>* x : {&d, &z})
    for (const double value : *x) EXPECT_TRUE(std::isnan(value));
  formula::gauss_rule(work, alpha.data(), beta.data(), -1, 3, formula::kSweepsPerValue * 3);
  EXPECT_NEAR(d[0] * d[1] * d[2], 6, 1e-14);  // the determinant
}

}  // namespace
}  // namespace bracket::test
