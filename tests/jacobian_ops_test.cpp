// The ops behind the deterministic Jacobian estimators against their definitions in double.
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

class JacobianOpsTest : public OpsTest {
 protected:
  DeviceTensor cube(std::int64_t n, std::int64_t k) { return empty(context(), DType::f64, {n, k, k}); }
  static MatrixXd square(const HostMatrix& m, std::int64_t i, std::int64_t k) {
    return Eigen::Map<const RowMatrix>(m.values.data() + i * k * k, k, k);
  }
};

// L Q = T to c K D roundings of |T| (Higham 2002, theorem 19.4), Q orthonormal to the same.
TEST_P(JacobianOpsTest, LqFactorReproducesTheRows) {
  for (const std::int64_t k : {1, 2, 3, 8, 17, 33}) {
    for (const std::int64_t extra : {0, 1, 40}) {
      for (const std::int64_t n : {0, 1, 3}) {
        const std::int64_t D = k + extra;
        HostMatrix t = random_matrix(n * k, D, 1);
        for (std::int64_t j = 0; n == 3 && k > 1 && j < D; ++j) t(k + 1, j) = 2 * t(k, j);  // a dependent row
        for (std::int64_t j = 0; n == 3 && j < D; ++j) t(2 * k, j) = 0;                     // and a zero one
        const DeviceTensor q = upload(context(), t, DType::f64, 3), l = cube(n, k);
        ops().lq_factor(l, q);
        const HostMatrix got_q = download(context(), q), got_l = download(context(), l);
        const double limit = 8 * static_cast<double>(k * D) * 0x1p-53;
        for (std::int64_t i = 0; i < n; ++i) {
          const MatrixXd rows = block_rows(got_q, i * k, k), factor = square(got_l, i, k);
          const MatrixXd given = block_rows(t, i * k, k);
          EXPECT_LE((factor * rows - given).norm(), limit * given.norm()) << k << " " << D;
          EXPECT_LE((rows * rows.transpose() - MatrixXd::Identity(k, k)).norm(), limit) << k << " " << D;
          for (std::int64_t a = 0; a < k; ++a) {
            EXPECT_GE(factor(a, a), 0);
            for (std::int64_t b = a + 1; b < k; ++b) EXPECT_EQ(factor(a, b), 0);
          }
        }
      }
    }
  }
}

// x^T A = s w^T with orthonormal x; s against a two-sided Jacobi. Graded rows: small values relative to themselves.
TEST_P(JacobianOpsTest, SingularValuesKeepRelativeAccuracyOfGradedRows) {
  for (const std::int64_t k : {1, 2, 3, 8, 17, 33}) {
    const std::int64_t n = 3;
    HostMatrix a(n * k, k);
    auto engine = test_engine(static_cast<std::uint64_t>(k));
    std::vector<MatrixXd> given;
    for (std::int64_t i = 0; i < n; ++i) {
      MatrixXd m = normal_matrix(k, k, engine);
      if (i == 1) m = Eigen::Map<const VectorXd>(geometric_spectrum(k, 1e-12, 1e12).data(), k).asDiagonal() * m;
      if (i == 2) m.row(0).setZero();
      given.push_back(m);
      Eigen::Map<RowMatrix>(a.values.data() + i * k * k, k, k) = m;
    }
    const DeviceTensor values = empty_matrix(context(), DType::f64, n, k, 2), vectors = cube(n, k), work = cube(n, k);
    upload_into(context(), work, a);
    ops().singular_values(values, vectors, work);
    const HostMatrix s = download(context(), values), x = download(context(), vectors);
    const double limit = 40 * static_cast<double>(k) * 0x1p-53;
    for (std::int64_t i = 0; i < n; ++i) {
      const MatrixXd& m = given[static_cast<std::size_t>(i)];
      const MatrixXd v = square(x, i, k), image = v * m;
      EXPECT_LE((v * v.transpose() - MatrixXd::Identity(k, k)).norm(), limit);
      for (std::int64_t j = 0; j < k; ++j) {
        // The rows are scaled by D: every value is known relative to itself, times the condition of the unscaled rows.
        EXPECT_NEAR(image.row(j).norm(), s(i, j), limit * m.norm()) << k;
        if (j > 0) {
          EXPECT_LE(s(i, j - 1), s(i, j));
        }
      }
      const VectorXd reference = singular_values_of(m);
      for (std::int64_t j = 0; j < k; ++j) EXPECT_NEAR(s(i, j), reference(j), limit * reference(k - 1));
      // The product of all values is the determinant, graded or not.
      if (i == 1) {
        double log_product = 0;
        for (std::int64_t j = 0; j < k; ++j) log_product += std::log(s(i, j));
        const MatrixXd unscaled =
            Eigen::Map<const VectorXd>(geometric_spectrum(k, 1e-12, 1e12).data(), k).cwiseInverse().asDiagonal() * m;
        double expected = log_abs_determinant(unscaled);
        for (const double scale : geometric_spectrum(k, 1e-12, 1e12)) expected += std::log(scale);
        EXPECT_NEAR(log_product, expected,
                    limit * singular_values_of(unscaled)(k - 1) / singular_values_of(unscaled)(0));
      }
      if (i == 2) {
        EXPECT_EQ(s(i, 0), 0);
      }
    }
  }
}

TEST_P(JacobianOpsTest, SingularValuesOfWhatIsNotFiniteAreNaN) {
  const DeviceTensor work = cube(2, 3), values = empty_matrix(context(), DType::f64, 2, 3), vectors = cube(2, 3);
  HostMatrix a = random_matrix(6, 3, 1);
  a(1, 2) = kInfinity;
  upload_into(context(), work, a);
  ops().singular_values(values, vectors, work);
  const HostMatrix s = download(context(), values);
  for (std::int64_t j = 0; j < 3; ++j) EXPECT_TRUE(std::isnan(s(0, j)) && s(1, j) > 0);
}

// Rows that depend on others shrink to nothing and end; so does what is smaller than the rest by more than the range of
// a double has for squares. Scales do no harm.
TEST_P(JacobianOpsTest, SingularValuesOfAnySizeConverge) {
  const DeviceTensor work = cube(4, 2), values = empty_matrix(context(), DType::f64, 4, 2), vectors = cube(4, 2);
  HostMatrix a(8, 2);
  a.values = {1, 1, 1e-170, 0, 3e200, 0, 4e200, 5e200, 3e-200, 0, 4e-200, 5e-200, 0.3, 0, 0.7, 0};
  upload_into(context(), work, a);
  ops().singular_values(values, vectors, work);
  const HostMatrix s = download(context(), values);
  for (const std::int64_t i : {0, 3}) EXPECT_EQ(s(i, 0), 0);
  EXPECT_NEAR(s(0, 1), std::sqrt(2.0), 1e-15);
  EXPECT_NEAR(s(3, 1), std::hypot(0.3, 0.7), 1e-15);
  // [3 0; 4 5]: s^2 = 45 and 5.
  for (const auto& [i, size] : {std::pair{1, 1e200}, {2, 1e-200}}) {
    EXPECT_NEAR(s(i, 0) / size, std::sqrt(5.0), 1e-14);
    EXPECT_NEAR(s(i, 1) / size, std::sqrt(45.0), 1e-14);
  }
}

// Rows of three columns: thirty of them are exact combinations of others whatever rounds.
TEST_P(JacobianOpsTest, SingularValuesOfDependentRowsAreZero) {
  const std::int64_t k = 33, rank = 3;
  HostMatrix a(k, k);
  const HostMatrix columns = random_matrix(k, rank, 21);
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t j = 0; j < rank; ++j) a(i, j) = columns(i, j);
  const DeviceTensor work = cube(1, k), values = empty_matrix(context(), DType::f64, 1, k), vectors = cube(1, k);
  upload_into(context(), work, a);
  ops().singular_values(values, vectors, work);
  const HostMatrix s = download(context(), values);
  const VectorXd expected = singular_values_of(block_rows(columns, 0, k));
  for (std::int64_t i = 0; i < k; ++i) {
    if (i < k - rank) {
      EXPECT_EQ(s(0, i), 0);
    } else {
      EXPECT_NEAR(s(0, i), expected(i - (k - rank)), 40 * static_cast<double>(k) * 0x1p-53 * expected(rank - 1));
    }
  }
}

TEST_P(JacobianOpsTest, RankThresholdCountsWhatIsHidden) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const DeviceTensor h = upload_vector(context(), host_vector({1, 2, 3, 4, kNaN, kNaN, 5, 6}));
    const DeviceTensor scale = upload_vector(context(), host_vector({1, 2, 3, 4, kNaN, 5, 6, 7}), dtype);
    const DeviceTensor mu = upload_vector(context(), host_vector({1e-9, 2e-9, 1e-9, 1e-3, kNaN, kNaN, 0, 1}));
    const DeviceTensor missing = empty(context(), DType::f64, {4});
    ops().rank_threshold(h, scale, missing, mu, upload_vector(context(), host_vector({2, 1, 1, 0})), 1e-9);
    EXPECT_MATRICES_CLOSE(download(context(), missing), host_vector({2, 1, 0, 1}), absolute_limit(0));
    EXPECT_MATRICES_CLOSE(download(context(), h),
                          host_vector({-kInfinity, -kInfinity, -kInfinity, 4, kNaN, kNaN, -kInfinity, 6}),
                          absolute_limit(0));
    EXPECT_MATRICES_CLOSE(download(context(), scale), host_vector({0, 0, 0, 4, kNaN, 5, 0, 7}), absolute_limit(0));
  }
}

TEST_P(JacobianOpsTest, LogVolumeCountsWhatIsMissing) {
  HostMatrix s(5, 3);
  s.values = {1, 2, 4, 1e-9, 1, 2, 0, 0, 0, kNaN, kNaN, kNaN, 0, 0, 3};
  const DeviceTensor h = empty(context(), DType::f64, {5}), missing = empty(context(), DType::f64, {5});
  ops().log_volume(h, missing, upload(context(), s, DType::f64, 1), 1e-9);
  EXPECT_MATRICES_CLOSE(download(context(), h), host_vector({std::log(8), -kInfinity, -kInfinity, kNaN, -kInfinity}),
                        absolute_limit(1e-15));
  EXPECT_MATRICES_CLOSE(download(context(), missing), host_vector({0, 1, 3, 0, 2}), absolute_limit(0));
}

// J V = U B, V^T V = I, U^T U = I where nothing is lost, and v_{k+1} continues where the space ends early.
TEST_P(JacobianOpsTest, GolubKahanRelationsHold) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t d : {1, 2, 3, 9, 33}) {
      const std::int64_t D = d + 5, k = std::min<std::int64_t>(d, 7), m = 4;
      auto engine = test_engine(static_cast<std::uint64_t>(d));
      MatrixXd j = with_singular_values(D, geometric_spectrum(d, 0.5, 10), engine);
      if (d == 9) j = with_singular_values(D, std::vector<double>(9, 2.0), engine);  // one step exhausts the space
      j = rounded(j, dtype);
      const DeviceTensor jacobian = upload(context(), host_matrix(j), dtype);
      const DeviceTensor basis = upload(context(), HostMatrix(m * k, d), dtype);
      const DeviceTensor alpha = empty_matrix(context(), DType::f64, m, k, 1);
      const DeviceTensor beta = empty_matrix(context(), DType::f64, m, k, 2), norm = empty(context(), DType::f64, {m});
      const DeviceTensor u = empty_matrix(context(), dtype, m, D, 1), jv = empty_matrix(context(), dtype, m, D);
      const DeviceTensor w = empty_matrix(context(), dtype, m, d, 3),
                         start = upload(context(), random_matrix(m, d, 3), dtype);
      const auto row_of_basis = [&](std::int64_t step) {
        auto* const first = static_cast<std::byte*>(basis.tensor().data()) + step * d * dtype_bytes(dtype);
        return Tensor::matrix(first, dtype, m, d, k * d);
      };
      ops().normalize_rows(row_of_basis(0), norm, start);
      std::vector<HostMatrix> lefts;
      for (std::int64_t step = 0; step < k; ++step) {
        ops().linear_forward(jv, row_of_basis(step), jacobian);
        ops().golub_kahan_left(u, alpha, jv, beta, step);
        lefts.push_back(download(context(), u));
        ops().linear_reverse_data(w, u, jacobian, Update::overwrite);
        ops().golub_kahan_right(basis, beta, w, alpha, step);
      }
      const HostMatrix a = download(context(), alpha), b = download(context(), beta), v = download(context(), basis);
      // A step rounds J v, u and v once each in storage; the recurrence adds those of k steps.
      const double size = singular_values_of(j)(d - 1), limit = 40 * static_cast<double>(k + d) * unit_roundoff(dtype);
      for (std::int64_t i = 0; i < m; ++i) {
        const MatrixXd basis_i = block_rows(v, i * k, k);
        EXPECT_LE((basis_i * basis_i.transpose() - MatrixXd::Identity(k, k)).norm(), limit) << "d " << d;
        MatrixXd left(k, D), bidiagonal = MatrixXd::Zero(k, k);
        for (std::int64_t s = 0; s < k; ++s) {
          left.row(s) = block_rows(lefts[static_cast<std::size_t>(s)], i, 1);
          bidiagonal(s, s) = a(i, s);
          if (s + 1 < k) bidiagonal(s, s + 1) = b(i, s);
        }
        EXPECT_LE((basis_i * j.transpose() - bidiagonal.transpose() * left).norm(), limit * size) << "d " << d;
        // Directions orthonormal and images by recurrence: U loses orthogonality with the condition only.
        EXPECT_LE((left * left.transpose() - MatrixXd::Identity(k, k)).norm(), 20 * limit) << "d " << d;
        if (k == d) {
          EXPECT_EQ(b(i, k - 1), 0);
        }
        if (d == 9) {
          EXPECT_EQ(b(i, 0), 0);
        }
        EXPECT_NEAR(download(context(), norm)(i, 0), block_rows(random_matrix(m, d, 3), i, 1).norm(), 4 * limit);
      }
    }
  }
}

// What little of w a long span leaves is orthogonal to all of it.
TEST_P(JacobianOpsTest, GolubKahanRightRemovesALongSpan) {
  const std::int64_t m = 2, d = 520, given = 515, K = given + 1;
  VectorXd h = block_rows(random_matrix(1, d, 1), 0, 1).transpose();
  h.normalize();
  const MatrixXd q = MatrixXd::Identity(d, d) - 2 * h * h.transpose();
  MatrixXd v = MatrixXd::Zero(m * K, d), w(m, d);
  for (std::int64_t i = 0; i < m; ++i) {
    v.middleRows(i * K, given) = q.topRows(given);
    w.row(i) = block_rows(random_matrix(m, given, 2), i, 1) * q.topRows(given) + 1e-7 * q.row(given + i);
  }
  const DeviceTensor basis = upload(context(), host_matrix(v)), rest = upload(context(), host_matrix(w));
  const DeviceTensor alpha = upload(context(), HostMatrix(m, K)), beta = upload(context(), HostMatrix(m, K));
  ops().golub_kahan_right(basis, beta, rest, alpha, given - 1);
  const HostMatrix got = download(context(), basis), norm = download(context(), beta);
  for (std::int64_t i = 0; i < m; ++i) {
    const VectorXd next = block_rows(got, i * K + given, 1).transpose();
    EXPECT_LE((q.topRows(given) * next).norm(), 1e-13);
    EXPECT_LE((next.transpose() - q.row(given + i)).norm(), 1e-6);
    EXPECT_NEAR(norm(i, given - 1), 1e-7, 1e-13);
  }
}

// The bound holds and is attained to a factor for a pair that is nearly converged; closed forms at the ends.
TEST_P(JacobianOpsTest, CertificateBoundsTheDistance) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(5);
    const std::int64_t n = 5, d = 3, D = 4;
    const MatrixXd j = rounded(with_singular_values(D, {0.25, 1, 3}, engine), dtype);
    const VectorXd s = singular_values_of(j);
    HostMatrix v = random_matrix(n, d, 6).rounded(dtype);
    for (std::int64_t c = 0; c < d; ++c) v(3, c) = 0;
    v(4, 1) = kNaN;
    const DeviceTensor jacobian = upload(context(), host_matrix(j), dtype), direction = upload(context(), v, dtype, 1);
    const DeviceTensor jv = empty_matrix(context(), dtype, n, D), w = empty_matrix(context(), dtype, n, d);
    ops().linear_forward(jv, direction, jacobian);
    ops().linear_reverse_data(w, jv, jacobian, Update::overwrite);
    const DeviceTensor h = empty(context(), DType::f64, {n}), mu = empty(context(), DType::f64, {n});
    const DeviceTensor scale = empty(context(), dtype, {n}), distance = empty(context(), DType::f64, {n});
    ops().singular_certificate(h, scale, mu, distance, w, direction, jv, 3);
    const HostMatrix value = download(context(), mu), bound = download(context(), distance);
    const double slack = 40 * unit_roundoff(dtype) * 3;
    for (std::int64_t i = 0; i < 3; ++i) {
      const VectorXd x = block_rows(v, i, 1).transpose();
      const double exact = (j * x).norm() / x.norm();
      EXPECT_NEAR(value(i, 0), exact, slack);
      EXPECT_NEAR(download(context(), h)(i, 0), 3 * std::log(exact), 3 * slack / exact);
      EXPECT_NEAR(download(context(), scale)(i, 0), 3 / (j * x).squaredNorm(), 40 * slack / (j * x).squaredNorm());
      EXPECT_LE((s.array() - exact).abs().minCoeff(), bound(i, 0) + slack);
      const VectorXd residual = j.transpose() * (j * x) / x.norm() / exact - exact * x / x.norm();
      EXPECT_LE(bound(i, 0), residual.norm() * std::sqrt(0.5) + slack);
    }
    for (const std::int64_t i : {3, 4}) EXPECT_TRUE(std::isnan(value(i, 0)) && std::isnan(bound(i, 0))) << i;
  }
}

// Each of the three bounds where it is the least: v = (cos t, sin t), J = diag(1, 10).
TEST_P(JacobianOpsTest, CertificateTakesTheLeastBound) {
  MatrixXd j = MatrixXd::Zero(2, 2);
  j.diagonal() << 1, 10;
  const std::vector<double> angles = {0.005, 0.75, 0.1};
  HostMatrix v(3, 2);
  for (std::int64_t i = 0; i < 3; ++i) {
    v(i, 0) = std::cos(angles[static_cast<std::size_t>(i)]);
    v(i, 1) = std::sin(angles[static_cast<std::size_t>(i)]);
  }
  const DeviceTensor jacobian = upload(context(), host_matrix(j)), direction = upload(context(), v);
  const DeviceTensor jv = empty_matrix(context(), DType::f64, 3, 2), w = empty_matrix(context(), DType::f64, 3, 2);
  ops().linear_forward(jv, direction, jacobian);
  ops().linear_reverse_data(w, jv, jacobian, Update::overwrite);
  const DeviceTensor h = empty(context(), DType::f64, {3}), mu = empty(context(), DType::f64, {3});
  const DeviceTensor scale = empty(context(), DType::f64, {3}), distance = empty(context(), DType::f64, {3});
  ops().singular_certificate(h, scale, mu, distance, w, direction, jv, 2);
  const HostMatrix bound = download(context(), distance);
  std::vector<double> m, r;
  for (std::int64_t i = 0; i < 3; ++i) {
    m.push_back(std::hypot(v(i, 0), 10 * v(i, 1)));
    r.push_back(99 * v(i, 0) * v(i, 1) / m.back());
  }
  EXPECT_NEAR(bound(0, 0), m[0] - std::sqrt(m[0] * m[0] - m[0] * r[0]), 1e-14);
  EXPECT_NEAR(bound(1, 0), r[1] / std::sqrt(2.0), 1e-14);
  EXPECT_NEAR(bound(2, 0), m[2], 1e-14);
}

// Vectors and operators of sizes whose squares leave the range of a double: norms to a few roundings of themselves,
// bounds that hold, and no finite nonsense. In f32 all of them are in range but the scale, which then is NaN.
TEST_P(JacobianOpsTest, NormsDoNotOverflow) {
  struct Size {
    DType dtype;
    double size;
  };
  const std::int64_t n = 1, d = 3, D = 4;
  auto engine = test_engine(15);
  const MatrixXd unit = with_singular_values(D, {0.25, 1, 3}, engine);
  for (const auto& [dtype, size] : {Size{DType::f64, 1e200}, Size{DType::f64, 1e-200}, Size{DType::f64, 1e300},
                                    Size{DType::f64, 1e-300}, Size{DType::f32, 1e30}, Size{DType::f32, 1e-30}}) {
    SCOPED_TRACE(size);
    const double u = unit_roundoff(dtype);
    const HostMatrix v = random_matrix(n, d, 16).rounded(dtype);
    HostMatrix large = v;
    for (double& x : large.values) x *= size;
    const DeviceTensor y = empty_matrix(context(), dtype, n, d), norm = empty(context(), DType::f64, {n});
    ops().normalize_rows(y, norm, upload(context(), large, dtype));
    const VectorXd x = block_rows(v, 0, 1).transpose();
    EXPECT_NEAR(download(context(), norm)(0, 0) / size, x.norm(), 8 * u * x.norm());
    EXPECT_LE((block_rows(download(context(), y), 0, 1).transpose() - x.normalized()).norm(), 8 * u);
    // The products as an operator in that dtype would return them, J^T J v out of range.
    const MatrixXd j = rounded(size * unit, dtype);
    const HostMatrix jv = host_matrix((j * x).transpose()).rounded(dtype);
    const DeviceTensor image = upload(context(), jv, dtype);
    const DeviceTensor w = upload(context(), host_matrix((j.transpose() * (j * x)).transpose()).rounded(dtype), dtype);
    const DeviceTensor h = empty(context(), DType::f64, {n}), mu = empty(context(), DType::f64, {n});
    const DeviceTensor scale = empty(context(), dtype, {n}), distance = empty(context(), DType::f64, {n});
    ops().singular_certificate(h, scale, mu, distance, w, upload(context(), v, dtype), image, 3);
    const double value = (unit * x).norm() / x.norm(), bound = download(context(), distance)(0, 0) / size;
    EXPECT_NEAR(download(context(), mu)(0, 0) / size, value, 40 * u * value);
    EXPECT_NEAR(download(context(), h)(0, 0), 3 * (std::log(value) + std::log(size)), 40 * u + 3e3 * 0x1p-53);
    if (!std::isnan(bound)) {
      EXPECT_LE((singular_values_of(unit).array() - value).abs().minCoeff(), bound + 40 * u * 3);
    }
    EXPECT_TRUE(std::isnan(download(context(), scale)(0, 0)));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, JacobianOpsTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
