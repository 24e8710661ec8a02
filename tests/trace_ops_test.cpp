// The ops behind the stochastic Jacobian estimators against their definitions in double.
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

class TraceOpsTest : public OpsTest {};

// d steps of conjugate gradients solve a d x d system; rows that are done stay as they are.
TEST_P(TraceOpsTest, ConjugateGradientsSolve) {
  auto engine = test_engine(7);
  const std::int64_t m = 3, d = 6, D = 9;
  const MatrixXd j = with_singular_values(D, geometric_spectrum(d, 1, 4), engine);
  HostMatrix b = random_matrix(m, d, 8);
  for (std::int64_t c = 0; c < d; ++c) {
    b(1, c) *= 1e-13;
    b(2, c) = 0;
  }
  const DeviceTensor jacobian = upload(context(), host_matrix(j)), x = upload(context(), HostMatrix(m, d)),
                     r = upload(context(), b, DType::f64, 1), p = upload(context(), b),
                     w = empty_matrix(context(), DType::f64, m, d), jp = empty_matrix(context(), DType::f64, m, D);
  const DeviceTensor norm = empty(context(), DType::f64, {m}), residual = empty(context(), DType::f64, {m});
  ops().normalize_rows(w, norm, r);
  ops().copy(residual, norm);
  for (int step = 0; step < 8; ++step) {
    ops().linear_forward(jp, p, jacobian);
    ops().linear_reverse_data(w, jp, jacobian, Update::overwrite);
    ops().conjugate_gradient_step(x, r, p, residual, w, jp, norm, 1e-12);
  }
  const HostMatrix got = download(context(), x), rest = download(context(), residual);
  for (std::int64_t i = 0; i < m; ++i) {
    const VectorXd right = block_rows(b, i, 1).transpose();
    const VectorXd expected = solve(j.transpose() * j, right);
    EXPECT_LE((block_rows(got, i, 1).transpose() - expected).norm(), 1e-11 * right.norm());
    EXPECT_LE(rest(i, 0), 1e-12 * right.norm());
  }
  const HostMatrix before = download(context(), x);
  ops().conjugate_gradient_step(x, r, p, residual, w, jp, norm, 1e-12);
  EXPECT_MATRICES_IDENTICAL(download(context(), x), before);
}

// With T = (J^T J)^-1 one step solves; with T = I the preconditioned steps are the plain ones, up to their order of
// sums; a T with r^T T r <= 0 moves nothing.
TEST_P(TraceOpsTest, ConjugateGradientsTakeAPreconditioner) {
  auto engine = test_engine(17);
  const std::int64_t m = 2, d = 6, D = 9;
  const MatrixXd j = with_singular_values(D, geometric_spectrum(d, 1e-2, 1e3), engine), a = j.transpose() * j;
  const HostMatrix b = random_matrix(m, d, 18);
  const DeviceTensor jacobian = upload(context(), host_matrix(j)), norm = empty(context(), DType::f64, {m});
  const auto run = [&](const MatrixXd& t, int steps) {
    const DeviceTensor turn = upload(context(), host_matrix(t)), x = upload(context(), HostMatrix(m, d)),
                       r = upload(context(), b), p = upload(context(), HostMatrix(m, d)),
                       z = empty_matrix(context(), DType::f64, m, d), w = empty_matrix(context(), DType::f64, m, d),
                       jp = empty_matrix(context(), DType::f64, m, D), residual = empty(context(), DType::f64, {m}),
                       energy = upload_vector(context(), host_vector({0, 0}));
    ops().normalize_rows(w, norm, r);
    ops().copy(residual, norm);
    for (int step = 0; step <= steps; ++step) {
      ops().linear_forward(z, r, turn);
      ops().conjugate_direction(p, energy, z, r);
      if (step == steps) break;
      ops().linear_forward(jp, p, jacobian);
      ops().linear_reverse_data(w, jp, jacobian, Update::overwrite);
      ops().conjugate_gradient_step(x, r, p, residual, w, jp, norm, 0, energy);
    }
    return std::pair{download(context(), x), download(context(), residual)};
  };
  const auto [solved, residual] = run(inverse_of(a), 1);
  for (std::int64_t i = 0; i < m; ++i) {
    const VectorXd right = block_rows(b, i, 1).transpose();
    // T is known to cond(A) = 1e6 roundings of itself.
    EXPECT_LE((a * block_rows(solved, i, 1).transpose() - right).norm(), 1e8 * 0x1p-53 * right.norm());
    EXPECT_LE(residual(i, 0), 1e8 * 0x1p-53 * right.norm());
  }
  const auto plain = [&](int steps) {
    const DeviceTensor x = upload(context(), HostMatrix(m, d)), r = upload(context(), b), p = upload(context(), b),
                       w = empty_matrix(context(), DType::f64, m, d), jp = empty_matrix(context(), DType::f64, m, D),
                       length = empty(context(), DType::f64, {m});
    ops().copy(length, norm);
    for (int step = 0; step < steps; ++step) {
      ops().linear_forward(jp, p, jacobian);
      ops().linear_reverse_data(w, jp, jacobian, Update::overwrite);
      ops().conjugate_gradient_step(x, r, p, length, w, jp, norm, 0);
    }
    return download(context(), x);
  };
  const HostMatrix expected = plain(2), same = run(MatrixXd::Identity(d, d), 2).first;
  EXPECT_LE((block_rows(same, 0, m) - block_rows(expected, 0, m)).norm(), 1e-12 * block_rows(expected, 0, m).norm());
  EXPECT_EQ(block_rows(run(-MatrixXd::Identity(d, d), 3).first, 0, m).norm(), 0);
}

TEST_P(TraceOpsTest, ClearRowsMakesMarkedSamplesZero) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    HostMatrix given = random_matrix(6, 5, 19).rounded(dtype);
    given(2, 1) = kNaN;
    const DeviceTensor y = upload(context(), given, dtype, 2);
    ops().clear_rows(y, upload_vector(context(), host_vector({0, 0.25, kNaN})));
    for (std::int64_t i = 2; i < 4; ++i)
      for (std::int64_t j = 0; j < 5; ++j) given(i, j) = 0;
    EXPECT_MATRICES_IDENTICAL(download(context(), y), given);
  }
}

TEST_P(TraceOpsTest, RandomSignsAreTheTopBits) {
  const RandomKey key{7, RandomStream::test, 3};
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t count : {0, 1, 5, 300}) {
      const DeviceTensor y = empty(context(), dtype, {count});
      ops().random_signs(y, key, nullptr);
      const HostMatrix got = download(context(), y);
      for (std::int64_t e = 0; e < count; ++e)
        EXPECT_EQ(got(e, 0), random_word(key, static_cast<std::uint64_t>(e)) >> 31 != 0 ? 1 : -1);
    }
  }
}

TEST_P(TraceOpsTest, ProjectRowsLeavesTheComplement) {
  auto engine = test_engine(9);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t n = 2, d = 37, vectors = 5, rows = 3;
    MatrixXd q(n * vectors, d);
    for (std::int64_t i = 0; i < n; ++i)
      q.middleRows(i * vectors, vectors) = orthonormal_columns(d, vectors, engine).transpose();
    q = rounded(q, dtype);
    MatrixXd start = block_rows(random_matrix(n * rows, d, 10), 0, n * rows);
    for (std::int64_t i = 0; i < n; ++i) {  // the first of a sample lies nearly in the span
      start.row(i * rows) *= std::sqrt(unit_roundoff(dtype));
      start.row(i * rows) += q.middleRows(i * vectors, vectors).colwise().sum();
    }
    const HostMatrix given = host_matrix(start).rounded(dtype);
    const DeviceTensor x = upload(context(), given, dtype, 2);
    ops().project_rows(x, upload(context(), host_matrix(q), dtype, 1), n);
    const HostMatrix got = download(context(), x);
    for (std::int64_t i = 0; i < n; ++i) {
      const MatrixXd basis = q.middleRows(i * vectors, vectors), before = block_rows(given, i * rows, rows),
                     after = block_rows(got, i * rows, rows);
      // Q is orthonormal to one rounding per element only.
      EXPECT_LE((after * basis.transpose()).norm(), 60 * unit_roundoff(dtype));
      EXPECT_LE((after.row(0) * basis.transpose()).norm(), 60 * unit_roundoff(dtype) * after.row(0).norm());
      // Twice a rounding of x and of what each vector takes out of it.
      EXPECT_LE((after - before + before * basis.transpose() * basis).norm(),
                2 * (1 + static_cast<double>(vectors)) * unit_roundoff(dtype) * before.norm());
    }
  }
}

TEST_P(TraceOpsTest, ProbeMeanKnowsItsError) {
  const DeviceTensor value = empty(context(), DType::f64, {2}), error = empty(context(), DType::f64, {2});
  ops().probe_mean(value, error, upload_vector(context(), host_vector({1, 2, 6, -kInfinity, 0, 0})), 0.25);
  EXPECT_EQ(download(context(), value)(0, 0), 3);
  EXPECT_EQ(download(context(), value)(1, 0), -kInfinity);
  EXPECT_NEAR(download(context(), error)(0, 0), std::sqrt(0.25 * 7 / 3), 1e-15);
  ops().probe_mean(value, error, upload_vector(context(), host_vector({1, 2})), 1);
  EXPECT_MATRICES_CLOSE(download(context(), error), host_vector({kInfinity, kInfinity}), absolute_limit(0));
  ops().probe_mean(value, error, upload_vector(context(), host_vector({1, 2})), 0);
  EXPECT_MATRICES_CLOSE(download(context(), error), host_vector({0, 0}), absolute_limit(0));
}

// Per row the weights are those of one draw of N; over many rows every term has weight 0 but the last, 1.
TEST_P(TraceOpsTest, RouletteWeightsSumToTheLastTerm) {
  const RandomKey key{11, RandomStream::test, 0};
  const std::int64_t terms = 4, rows = 4000;
  const double survival = 0.6;
  const DeviceTensor weights = empty_matrix(context(), DType::f64, terms, rows, 1);
  ops().roulette_weights(weights, 1, survival, key, nullptr);
  const HostMatrix got = download(context(), weights);
  const double probability[] = {1, 1, 0.6, 0.36};
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto element = static_cast<std::uint64_t>(2 * i);
    const double u = (std::ldexp(random_word(key, element), 32) + random_word(key, element + 1) + 0.5) * 0x1p-64;
    double total = 0;
    for (std::int64_t j = 0; j < terms; ++j) {
      total += got(j, i);
      const double here = u < probability[j] ? 1 / probability[j] : 0;
      const double next = j + 1 < terms && u < probability[j + 1] ? 1 / probability[j + 1] : 0;
      EXPECT_NEAR(got(j, i), here - next, 1e-14);
    }
    EXPECT_NEAR(total, 1, 1e-14);  // sum_j c_j = 1 / P_0
  }
  for (std::int64_t j = 0; j < terms; ++j) {
    double mean = 0, squares = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      mean += got(j, i) / static_cast<double>(rows);
      squares += got(j, i) * got(j, i) / static_cast<double>(rows);
    }
    const double expected = j == terms - 1 ? 1 : 0;
    const double error = std::sqrt(std::max(squares - mean * mean, 1e-30) / static_cast<double>(rows));
    EXPECT_NEAR(mean, expected, 4 * error + 1e-12) << "term " << j;
  }
}

// By the definition, from the matrices themselves, with more probes than a warp has lanes, with few, and with one; the
// given forms instead of those of the products. Products of d terms, of which R^2 are added.
TEST_P(TraceOpsTest, LeaveOneOutTracesFollowTheirDefinition) {
  const std::int64_t n = 2, d = 60;
  for (const std::int64_t R : {1, 5, 41}) {
    auto engine = test_engine(20);
    HostMatrix image(n * 2 * R, 2 * R), basis(n * 2 * R, 2 * R), inverse(n * R, R), shifts(n * R, 1);
    VectorXd expected(n), deviation(n);
    for (std::int64_t i = 0; i < n; ++i) {
      const MatrixXd j = normal_matrix(d, d, engine), a = j.transpose() * j, x = normal_matrix(R, d, engine);
      const MatrixXd y = x * a, q = orthonormal_factor(y.transpose()).transpose(), l = y * q.transpose();
      MatrixXd both(2 * R, d);
      both << x, q;
      Eigen::Map<RowMatrix>(image.values.data() + i * 4 * R * R, 2 * R, 2 * R) = both * a * both.transpose();
      Eigen::Map<RowMatrix>(basis.values.data() + i * 4 * R * R, 2 * R, 2 * R) = both * both.transpose();
      Eigen::Map<RowMatrix>(inverse.values.data() + i * R * R, R, R) = inverse_of(l);
      VectorXd traces(R);
      for (std::int64_t k = 0; k < R; ++k) {
        MatrixXd others(d, R - 1);
        for (std::int64_t c = 0, at = 0; c < R; ++c)
          if (c != k) others.col(at++) = y.row(c).transpose();
        const MatrixXd span = R > 1 ? orthonormal_factor(others) : MatrixXd::Zero(d, 1);
        const VectorXd rest = x.row(k).transpose() - span * (span.transpose() * x.row(k).transpose());
        traces(k) = (span.transpose() * a * span).trace() + rest.dot(a * rest);
        shifts(i * R + k, 0) = image(i * 2 * R + k, k) + 1;
      }
      expected(i) = traces.mean();
      deviation(i) = std::sqrt((traces.array() - traces.mean()).square().sum() / static_cast<double>((R - 1) * R));
    }
    const auto squares = [&](const HostMatrix& m, std::int64_t k) {
      DeviceTensor cube = empty(context(), DType::f64, {n, k, k});
      upload_into(context(), cube, m);
      return cube;
    };
    const DeviceTensor value = empty(context(), DType::f64, {n}), error = empty(context(), DType::f64, {n});
    const DeviceTensor images = squares(image, 2 * R), bases = squares(basis, 2 * R), inverses = squares(inverse, R);
    ops().leave_one_out_trace(value, error, images, bases, inverses);
    const HostMatrix got = download(context(), value), spread = download(context(), error);
    ops().leave_one_out_trace(value, error, images, bases, inverses, upload_vector(context(), shifts));
    const HostMatrix moved = download(context(), value);
    for (std::int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(got(i, 0), expected(i), 1e-9 * expected(i)) << R;
      if (R > 1) {
        EXPECT_NEAR(spread(i, 0), deviation(i), 1e-9 * expected(i)) << R;
      } else {
        EXPECT_EQ(spread(i, 0), kInfinity);
      }
      EXPECT_NEAR(moved(i, 0), got(i, 0) + 1, 1e-9 * expected(i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, TraceOpsTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
