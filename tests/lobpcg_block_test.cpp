// One step of a LOBPCG block, against Rayleigh-Ritz with explicit vectors in double.
#include <Eigen/Dense>
#include <array>

#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

struct Vectors {
  HostMatrix v, p, r, jv, jp, jr;
};

class LobpcgBlockTest : public OpsTest {
 protected:
  struct Updated {
    HostMatrix v, p, jv, jp;
  };
  Updated update(const Vectors& in, std::int64_t block, DType dtype, std::int64_t padding) {
    const DeviceTensor v = upload(context(), in.v, dtype, padding), p = upload(context(), in.p, dtype, 2 * padding);
    const DeviceTensor jv = upload(context(), in.jv, dtype, padding), jp = upload(context(), in.jp, dtype);
    ops().lobpcg_block_update(v, p, jv, jp, upload(context(), in.r, dtype), upload(context(), in.jr, dtype, padding),
                              block);
    return {download(context(), v), download(context(), p), download(context(), jv), download(context(), jp)};
  }
};

// n samples of `block` random directions with images under one J [D, d] per sample, rounded to dtype. The v of a sample
// are orthonormal but for rounding, as every step leaves them.
struct Problem {
  std::vector<MatrixXd> jacobians;
  Vectors in;
};

Problem random_problem(std::int64_t n, std::int64_t block, std::int64_t d, std::int64_t D, DType dtype) {
  auto engine = test_engine(static_cast<std::uint64_t>(1000 * block + 10 * d + D));
  Problem problem;
  const HostMatrix none(n * block, d), image(n * block, D);
  problem.in = {none, none, none, image, image, image};
  for (std::int64_t i = 0; i < n; ++i) {
    problem.jacobians.push_back(normal_matrix(D, d, engine));
    const MatrixXd& j = problem.jacobians.back();
    const auto fill = [&](HostMatrix& rows, HostMatrix& images, const MatrixXd& columns) {
      const MatrixXd x = rounded(columns, dtype), y = rounded(j * x, dtype);
      for (std::int64_t k = 0; k < block; ++k) {
        for (std::int64_t c = 0; c < d; ++c) rows(i * block + k, c) = x(c, k);
        for (std::int64_t c = 0; c < D; ++c) images(i * block + k, c) = y(c, k);
      }
    };
    fill(problem.in.v, problem.in.jv, orthonormal_columns(d, block, engine));
    fill(problem.in.p, problem.in.jp, normal_matrix(d, block, engine));
    fill(problem.in.r, problem.in.jr, normal_matrix(d, block, engine));
  }
  return problem;
}

MatrixXd columns_of(const HostMatrix& m, std::int64_t sample, std::int64_t block) {
  return block_rows(m, sample * block, block).transpose();
}

// The part of x outside the span of the orthonormal columns of q.
MatrixXd outside(const MatrixXd& x, const MatrixXd& q) { return x - q * (q.transpose() * x); }

// The smallest sine between a column and those before it, of those that are not dropped; infinite where one is so near
// to kRitzDependence^(1/2) that rounding decides.
double smallest_sine(const MatrixXd& columns) {
  MatrixXd q(columns.rows(), 0);
  double smallest = 1;
  for (Eigen::Index i = 0; i < columns.cols(); ++i) {
    if (columns.col(i).norm() == 0) continue;
    const VectorXd unit = columns.col(i).normalized();
    const VectorXd rest = outside(outside(unit, q), q);
    const double sine = rest.norm();
    if (sine > 3e-4 && sine < 3e-3) return kInfinity;
    if (sine < 1e-3) continue;
    smallest = std::min(smallest, sine);
    q.conservativeResize(Eigen::NoChange, q.cols() + 1);
    q.col(q.cols() - 1) = rest / sine;
  }
  return smallest;
}

// With a true J: what a step returns is orthonormal, its images follow, its values are the smallest of J restricted to
// the span, in order, and each p spans with the v what its v moved by. Any d from `block` on: 3 block vectors of fewer
// dimensions depend on each other.
TEST_P(LobpcgBlockTest, UpdateIsRayleighRitzInTheSpan) {
  int judged = 0, cases = 0;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const double u = unit_roundoff(dtype);
    for (const std::int64_t block : {1, 2, 3, 4}) {
      for (const std::int64_t d : {1, 2, 3, 5, 16, 64}) {
        if (block > d) continue;
        for (const std::int64_t D : {1, 5, 300}) {
          const std::int64_t n = d == 5 ? 3 : 1;
          const Problem problem = random_problem(n, block, d, D, dtype);
          const Vectors& in = problem.in;
          const Updated got = update(in, block, dtype, d % 3);
          for (std::int64_t i = 0; i < n; ++i) {
            SCOPED_TRACE("block " + std::to_string(block) + ", d " + std::to_string(d) + ", D " + std::to_string(D));
            const MatrixXd& j = problem.jacobians[static_cast<std::size_t>(i)];
            MatrixXd all(d, 3 * block);
            all << columns_of(in.v, i, block), columns_of(in.p, i, block), columns_of(in.r, i, block);
            Eigen::ColPivHouseholderQR<MatrixXd> qr(all.colwise().normalized());
            qr.setThreshold(1e-3);  // sine of what is dropped
            const MatrixXd q = MatrixXd(qr.householderQ()).leftCols(qr.rank());
            const Eigen::SelfAdjointEigenSolver<MatrixXd> dense((j * q).transpose() * (j * q));
            const double norm = j.norm();
            const double sine = smallest_sine(all);
            ++cases;
            if (std::isinf(sine)) continue;
            ++judged;
            // A rounding of the images is divided by the sine of their vector, one of the inner products by its square.
            const double limit = 100 * static_cast<double>(block) * u / sine +
                                 100 * static_cast<double>(d + D) * 0x1p-53 / (sine * sine);
            const MatrixXd v = columns_of(got.v, i, block), p = columns_of(got.p, i, block);
            EXPECT_LE((v.transpose() * v - MatrixXd::Identity(block, block)).norm(), limit);
            // An update is what its direction has outside the new v, divided by that sine, 1e-3 at least.
            EXPECT_LE((v.transpose() * p).norm(), limit + 100 * 0x1p-53 / 1e-3);
            EXPECT_LE(outside(v, q).norm(), limit);
            EXPECT_LE((columns_of(got.jv, i, block) - j * v).norm(), limit * norm);
            EXPECT_LE((columns_of(got.jp, i, block) - j * p).norm(), limit * norm);
            const MatrixXd old =
                columns_of(in.v, i, block).householderQr().householderQ() * MatrixXd::Identity(d, block);
            const MatrixXd moved = outside(v, old);
            double before = 0;
            for (std::int64_t k = 0; k < block; ++k) {
              const double value = (j * v.col(k)).squaredNorm(), length = p.col(k).norm();
              EXPECT_NEAR(value, dense.eigenvalues()(k), limit * norm * norm);
              EXPECT_GE(value, before - limit * norm * norm);
              before = value;
              EXPECT_TRUE(length == 0 || std::abs(length - 1) <= limit) << length;
              EXPECT_GE(v.col(k).dot(columns_of(in.v, i, block).col(k)), -limit);  // the sign follows
              // Directions of updates are divided by their sine, which rounding may leave without one.
              const double turned = moved.col(k).norm();
              if (turned < 1e-2) continue;
              const VectorXd rest = outside(moved.col(k), v);
              const VectorXd left = length == 0 ? rest : VectorXd(rest - p.col(k) * p.col(k).dot(rest));
              EXPECT_LE(left.norm(), 10 * limit + (length == 0 ? 1e-3 * turned : 0)) << "sine " << turned;
            }
          }
        }
      }
    }
  }
  EXPECT_GE(judged, cases * 9 / 10) << "too few cases leave no doubt of what is dropped";
}

// Of one direction the block is the step of lobpcg_update, but for the order in which it sums.
TEST_P(LobpcgBlockTest, ABlockOfOneIsTheStepOfOneVector) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t d = 33, D = 70;
    Vectors in = random_problem(4, 1, d, D, dtype).in;
    for (std::int64_t j = 0; j < d; ++j) in.p(0, j) = 0;  // the first step of an iteration
    for (std::int64_t j = 0; j < D; ++j) in.jp(0, j) = 0;
    const Updated got = update(in, 1, dtype, 0);
    const DeviceTensor v = upload(context(), in.v, dtype), p = upload(context(), in.p, dtype);
    const DeviceTensor jv = upload(context(), in.jv, dtype), jp = upload(context(), in.jp, dtype);
    ops().lobpcg_update(v, p, jv, jp, upload(context(), in.r, dtype), upload(context(), in.jr, dtype));
    // Random directions: sines near 1, gaps of a tenth of |J|^2; inner products to 100 roundings in double, storage
    // once.
    const Limit limit = absolute_limit(4 * unit_roundoff(dtype) + 1e4 * 0x1p-53);
    EXPECT_MATRICES_CLOSE(got.v, download(context(), v), limit);
    EXPECT_MATRICES_CLOSE(got.p, download(context(), p), limit);
  }
}

// Residuals that the v or the p hold already add nothing, and nothing is divided by their rounding.
TEST_P(LobpcgBlockTest, DependentVectorsAreDropped) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t block = 3, d = 40, D = 50, n = 1;
    Vectors in = random_problem(n, block, d, D, dtype).in;
    const auto mix = [&](HostMatrix& r, const HostMatrix& v, const HostMatrix& p) {
      for (std::int64_t j = 0; j < r.cols; ++j) {
        r(0, j) = -3 * v(1, j);
        r(1, j) = v(0, j) + p(2, j);
        r(2, j) = 2 * r(0, j);
      }
      r = r.rounded(dtype);
    };
    mix(in.r, in.v, in.p);
    mix(in.jr, in.jv, in.jp);
    const Updated got = update(in, block, dtype, 0);
    Vectors without = in;
    without.r = HostMatrix(n * block, d);
    without.jr = HostMatrix(n * block, D);
    const Updated want = update(without, block, dtype, 0);
    // Once every coefficient of a dropped vector is zero the sums are the same to the last bit.
    EXPECT_MATRICES_IDENTICAL(got.v, want.v);
    EXPECT_MATRICES_IDENTICAL(got.p, want.p);
    EXPECT_MATRICES_IDENTICAL(got.jv, want.jv);
    EXPECT_MATRICES_IDENTICAL(got.jp, want.jp);
  }
}

TEST_P(LobpcgBlockTest, WhatIsNotFiniteStaysInItsSample) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t block = 2, n = 9, d = 7, D = 40;
    const Vectors good = random_problem(n, block, d, D, dtype).in;
    const Updated clean = update(good, block, dtype, 0);
    Vectors bad = good;
    bad.v(block + 1, 4) = kNaN;
    bad.p(2 * block, 0) = kNaN;
    bad.r(3 * block + 1, 2) = kNaN;
    bad.jv(4 * block, 39) = kNaN;
    bad.jp(5 * block + 1, 7) = kInfinity;
    bad.jr(6 * block, 33) = -kInfinity;
    for (std::int64_t k = 0; k < block; ++k) {  // one direction, where two are wanted
      for (std::int64_t j = 0; j < d; ++j) {
        bad.v(7 * block + k, j) = j == 0 ? 1 : 0;
        bad.p(7 * block + k, j) = bad.r(7 * block + k, j) = 0;
      }
    }
    const Updated got = update(bad, block, dtype, 0);
    const auto check = [&](const HostMatrix& mixed, const HostMatrix& expected) {
      for (std::int64_t i = 0; i < n * block; ++i) {
        for (std::int64_t j = 0; j < mixed.cols; ++j) {
          if (i / block >= 1 && i / block <= 7) {
            EXPECT_TRUE(std::isnan(mixed(i, j))) << "row " << i;
          } else {
            EXPECT_EQ(mixed(i, j), expected(i, j)) << "row " << i;
          }
        }
      }
    };
    check(got.v, clean.v);
    check(got.p, clean.p);
    check(got.jv, clean.jv);
    check(got.jp, clean.jp);
  }
}

// Where no pair can gain, the v stay to the last bit and the updates start afresh.
TEST_P(LobpcgBlockTest, ConvergedDirectionsStay) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::int64_t block = 2, d = 5, D = 5;
    const std::array<double, 5> s = {0.5, 1, 2, 3, 4};
    Vectors in{HostMatrix(2, d), HostMatrix(2, d), HostMatrix(2, d),
               HostMatrix(2, D), HostMatrix(2, D), HostMatrix(2, D)};
    for (std::int64_t k = 0; k < block; ++k) {
      in.v(k, k) = in.r(k, 2 + k) = in.p(k, 4) = 1;
      in.jv(k, k) = s[static_cast<std::size_t>(k)];
      in.jr(k, 2 + k) = s[static_cast<std::size_t>(2 + k)];
      in.jp(k, 4) = s[4];
    }
    const Updated got = update(in, block, dtype, 0);
    EXPECT_MATRICES_IDENTICAL(got.v, in.v);
    EXPECT_MATRICES_IDENTICAL(got.jv, in.jv);
    EXPECT_MATRICES_IDENTICAL(got.p, HostMatrix(2, d));
    EXPECT_MATRICES_IDENTICAL(got.jp, HostMatrix(2, D));
  }
}

TEST_P(LobpcgBlockTest, OrderSortsRowsWithWhatBelongsToThem) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t block : {1, 2, 3, 4}) {
      const std::int64_t n = 5, d = 6, D = 300, rows = n * block;
      HostMatrix mu = random_matrix(rows, 1, 1, 0, 1);
      for (std::int64_t k = 0; k < block; ++k) {
        mu(k, 0) = static_cast<double>(block - k);  // reversed
        mu(block + k, 0) = 0.25;                    // equal
        mu(2 * block + k, 0) = kNaN;                // nothing known
      }
      const HostMatrix v = random_matrix(rows, d, 2).rounded(dtype), jv = random_matrix(rows, D, 3).rounded(dtype);
      const HostMatrix scale = random_matrix(rows, 1, 4).rounded(dtype);
      const HostMatrix h = random_matrix(rows, 1, 5), distance = random_matrix(rows, 1, 6);
      const DeviceTensor got_v = upload(context(), v, dtype, 2), got_jv = upload(context(), jv, dtype, 1);
      const DeviceTensor got_scale = upload_vector(context(), scale, dtype);
      const DeviceTensor got_h = upload_vector(context(), h, DType::f64),
                         got_mu = upload_vector(context(), mu, DType::f64);
      const DeviceTensor got_distance = upload_vector(context(), distance, DType::f64);
      ops().lobpcg_block_order(got_v, got_jv, got_scale, got_h, got_mu, got_distance, block);
      std::vector<std::int64_t> order;
      for (std::int64_t i = 0; i < rows; ++i) order.push_back(i);
      for (std::int64_t i = 0; i < n; ++i) {
        if (i == 2) continue;
        std::stable_sort(order.begin() + i * block, order.begin() + (i + 1) * block,
                         [&](std::int64_t a, std::int64_t b) { return mu(a, 0) < mu(b, 0); });
      }
      const auto sorted = [&](const HostMatrix& x) {
        HostMatrix y(x.rows, x.cols);
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = 0; j < x.cols; ++j) y(i, j) = x(order[static_cast<std::size_t>(i)], j);
        return y;
      };
      EXPECT_MATRICES_IDENTICAL(download(context(), got_v), sorted(v));
      EXPECT_MATRICES_IDENTICAL(download(context(), got_jv), sorted(jv));
      EXPECT_MATRICES_IDENTICAL(download(context(), got_scale), sorted(scale));
      EXPECT_MATRICES_IDENTICAL(download(context(), got_h), sorted(h));
      EXPECT_MATRICES_IDENTICAL(download(context(), got_distance), sorted(distance));
      const HostMatrix values = download(context(), got_mu);
      for (std::int64_t i = 0; i < rows; ++i) {
        const double want = mu(order[static_cast<std::size_t>(i)], 0);
        EXPECT_TRUE(values(i, 0) == want || (std::isnan(want) && std::isnan(values(i, 0)))) << i;
      }
    }
  }
}

// The largest |J x| in the span of all vectors of a sample raises what is there, and only that.
TEST_P(LobpcgBlockTest, TheLargestImageOfTheSpanIsRemembered) {
  for (const std::int64_t block : {1, 2, 3, 4}) {
    for (const bool single : {false, true}) {
      if (single && block > 1) continue;
      const std::int64_t n = 2, d = 20;
      const Problem problem = random_problem(n, block, d, d + 5, DType::f64);
      const Vectors& in = problem.in;
      const DeviceTensor largest = upload_vector(context(), host_vector({0, 1e3}));
      const DeviceTensor v = upload(context(), in.v), p = upload(context(), in.p), jv = upload(context(), in.jv),
                         jp = upload(context(), in.jp), r = upload(context(), in.r), jr = upload(context(), in.jr);
      if (single) {
        ops().lobpcg_update(v, p, jv, jp, r, jr, largest);
      } else {
        ops().lobpcg_block_update(v, p, jv, jp, r, jr, block, largest);
      }
      MatrixXd all(d, 3 * block);
      all << columns_of(in.v, 0, block), columns_of(in.p, 0, block), columns_of(in.r, 0, block);
      const VectorXd s = singular_values_of(problem.jacobians[0] * orthonormal_factor(all));
      const HostMatrix got = download(context(), largest);
      EXPECT_NEAR(got(0, 0), s(s.size() - 1), 1e-12 * s(s.size() - 1)) << block;  // sines above 1e-2, squared
      EXPECT_EQ(got(1, 0), 1e3);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, LobpcgBlockTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
