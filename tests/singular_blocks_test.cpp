// Several smallest singular values at once, and one preconditioner for a batch.
#include "bracket/singular_values.h"
#include "kernels/plan_ops.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

struct Found {
  HostMatrix value, mu, distance, values, distances, tangents, cotangents, direction, deficient;
  std::int64_t steps = 0;
  JacobianPasses passes;
};

/// steps, tolerance and block of LobpcgOptions; the preconditioner by its values, none where it has no rows.
struct Settings {
  std::int64_t steps = 2;
  double tolerance = 0;
  std::int64_t block = 1;
  HostMatrix preconditioner = {};
};

class SingularBlocksTest : public OpsTest {
 protected:
  Found find(const CallbackJacobian& jacobian, const HostMatrix& start, const Settings& settings) {
    return planned<Found>(context(), [&](Ops& o, Arena& arena) {
      const Tensor direction = arena.allocate(jacobian.dtype(), {start.rows, start.cols});
      write_values(o, direction, start.values);
      LobpcgOptions options{settings.steps, settings.tolerance, settings.block};
      if (settings.preconditioner.rows > 0) {
        options.preconditioner = arena.allocate(jacobian.dtype(), {jacobian.inputs(), jacobian.inputs()});
        write_values(o, options.preconditioner, settings.preconditioner.values);
      }
      const LobpcgEstimate e = lobpcg_smallest(o, arena, jacobian, direction, options);
      EXPECT_EQ(e.certificate, Certificate::optimistic);
      const auto read = [&](const Tensor& x) { return download_from(context(), o, x); };
      return Found{
          read(e.value),    read(e.singular_value), read(e.distance), read(e.ritz_values), read(e.ritz_distances),
          read(e.tangents), read(e.cotangents),     read(direction),  read(e.deficient),   e.steps,
          e.passes};
    });
  }
  HostMatrix preconditioner(const CallbackJacobian& jacobian, double ridge) {
    return planned<HostMatrix>(context(), [&](Ops& o, Arena& arena) {
      return download_from(context(), o, shared_preconditioner(o, arena, jacobian, ridge));
    });
  }
  bool on_cpu() const { return GetParam().name() == "cpu"; }
};

// 1, 2, 4, 8, then steps of 0.1: gaps for which few steps are many.
std::vector<double> gapped_spectrum(std::int64_t d) {
  std::vector<double> s;
  for (std::int64_t k = 0; k < d; ++k)
    s.push_back(k < 4 ? std::pow(2.0, static_cast<double>(k)) : 8 + 0.1 * static_cast<double>(k));
  return s;
}

// Of conjugate gradients the error of mu falls by exp(-4 sqrt(gap)) a step, gap = (s_{b+1}^2 - s_b^2) / (s_d^2 -
// s_b^2); half as many more, and three, for what LOBPCG is behind them. Where 2 b >= d the first step spans everything.
std::int64_t steps_to_rounding(const std::vector<double>& s, std::int64_t block, double u) {
  const auto b = static_cast<std::size_t>(block);
  if (2 * b >= s.size()) return 3;
  const double own = s[b - 1] * s[b - 1], gap = (s[b] * s[b] - own) / (s.back() * s.back() - own);
  return 3 + static_cast<std::int64_t>(-1.5 * std::log(u) / (4 * std::sqrt(gap)));
}

// Ritz values are never below the singular values of their rank (Cauchy interlacing), and these have come down to them.
// Rounding: v with an error of e roundings of s_d in J v moves mu_k by e u s_d at first order, and the iteration stops
// where a step gains 4 u mu s_d of mu^2, again that of mu; recombined images have drifted by a rounding a step.
TEST_P(SingularBlocksTest, FindTheSmallestValues) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t block : {1, 2, 3, 4}) {
      for (const std::int64_t d : {1, 2, 3, 5, 16, 64}) {
        if (block > d) continue;
        // Seconds on the executor.
        if (!on_cpu() && d > 3 && (dtype == DType::f64 || block == 1 || (d == 64) != (block == 2))) continue;
        SCOPED_TRACE("block " + std::to_string(block) + ", d " + std::to_string(d) + ", " + dtype_name(dtype));
        auto engine = test_engine(static_cast<std::uint64_t>(d));
        std::vector<MatrixXd> matrices;
        const std::vector<double> spectrum = gapped_spectrum(d);
        const std::int64_t n = d == 5 && on_cpu() ? 3 : 1;
        for (std::int64_t i = 0; i < n; ++i)
          matrices.push_back(rounded(with_singular_values(d + 2, spectrum, engine), dtype));
        const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
        const std::int64_t steps = steps_to_rounding(spectrum, block, unit_roundoff(dtype));
        const Found got = find(jacobian, random_matrix(n * block, d, 4), {steps, 0, block});
        EXPECT_EQ(got.passes.apply, block * (steps + 2));
        EXPECT_EQ(got.passes.transpose, block * (steps + 1));
        for (std::int64_t i = 0; i < n; ++i) {
          const MatrixXd& j = matrices[static_cast<std::size_t>(i)];
          const VectorXd s = singular_values_of(j);
          const double slack = (20 + 4 * static_cast<double>(steps)) * unit_roundoff(dtype) * s(d - 1);
          EXPECT_EQ(got.values(i, 0), got.mu(i, 0));
          EXPECT_EQ(got.distances(i, 0), got.distance(i, 0));
          EXPECT_NEAR(got.value(i, 0), static_cast<double>(d) * std::log(got.mu(i, 0)), 1e-12 * static_cast<double>(d));
          const MatrixXd v = block_rows(got.direction, i * block, block);
          EXPECT_LE((v * v.transpose() - MatrixXd::Identity(block, block)).norm(), slack);
          EXPECT_EQ(block_rows(got.tangents, i, 1), v.row(0));
          const VectorXd image = j * v.row(0).transpose();
          EXPECT_LE(
              (block_rows(got.cotangents, i, 1).transpose() - static_cast<double>(d) * image / image.squaredNorm())
                  .norm(),
              static_cast<double>(d) * 4 * slack / s(0) / s(0));
          for (std::int64_t k = 0; k < block; ++k) {
            EXPECT_GE(got.values(i, k), s(k) - slack) << k;
            EXPECT_LE(got.values(i, k), s(k) + slack) << k;
            EXPECT_LE((s.array() - got.values(i, k)).abs().minCoeff(), got.distances(i, k) + slack);
            if (k > 0) {
              EXPECT_GE(got.values(i, k), got.values(i, k - 1));
            }
          }
        }
      }
    }
  }
}

// After few steps too, where directions of a step were nearly dependent. V and J V are rounded twice, four directions
// each, and Householder's Q and the turn to Ritz vectors are orthonormal to d b 2^-53 each (Higham 2002, 19.3): V V^T
// is off by e = 16 u + 2 d b 2^-53 at most and mu_k^2 by twice that times s_d^2.
TEST_P(SingularBlocksTest, ValuesAreRitzValuesOfOrthonormalDirections) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t block : {2, 4}) {
      auto engine = test_engine(11);
      const std::int64_t n = on_cpu() ? 100 : 4, d = 7;
      std::vector<MatrixXd> matrices;
      for (std::int64_t i = 0; i < n; ++i)
        matrices.push_back(rounded(with_singular_values(d, geometric_spectrum(d, 1, 1e5), engine), dtype));
      const Found got = find(matrix_jacobian(matrices, dtype), random_matrix(n * block, d, 4), {1, 0, block});
      const double e = 16 * unit_roundoff(dtype) + 2 * static_cast<double>(d * block) * 0x1p-53;
      for (std::int64_t i = 0; i < n; ++i) {
        const MatrixXd v = block_rows(got.direction, i * block, block);
        EXPECT_LE((v * v.transpose() - MatrixXd::Identity(block, block)).norm(), e);
        const VectorXd s = singular_values_of(matrices[static_cast<std::size_t>(i)]);
        for (std::int64_t k = 0; k < block; ++k)
          EXPECT_GE(got.values(i, k) * got.values(i, k), s(k) * s(k) - 2 * e * s(d - 1) * s(d - 1)) << k;
      }
    }
  }
}

// One direction without a preconditioner is the iteration of lobpcg.{cpp,cu}, to the last bit.
TEST_P(SingularBlocksTest, OneDirectionIsTheIterationOfOneVector) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(6);
    const std::int64_t n = 3, d = 9, D = 20, steps = 4;
    std::vector<MatrixXd> matrices;
    for (std::int64_t i = 0; i < n; ++i)
      matrices.push_back(rounded(with_singular_values(D, geometric_spectrum(d, 0.5, 50), engine), dtype));
    const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
    const HostMatrix start = random_matrix(n, d, 7);
    const HostMatrix want = planned<HostMatrix>(context(), [&](Ops& o, Arena& arena) {
      const Tensor v = arena.allocate(dtype, {n, d}), p = arena.allocate(dtype, {n, d}),
                   r = arena.allocate(dtype, {n, d});
      const Tensor jv = arena.allocate(dtype, {n, D}), jp = arena.allocate(dtype, {n, D});
      const Tensor jr = arena.allocate(dtype, {n, D});
      write_values(o, v, start.values);
      o.fill(p, 0);
      o.fill(jp, 0);
      jacobian.apply(o, arena, jv, v);
      for (std::int64_t k = 0; k < steps; ++k) {
        jacobian.apply_transpose(o, arena, r, jv);
        o.lobpcg_residual(r, r, v, jv);
        jacobian.apply(o, arena, jr, r);
        o.lobpcg_update(v, p, jv, jp, r, jr);
      }
      return download_from(context(), o, v);
    });
    const Found got = find(jacobian, start, {steps, 0, 1});
    EXPECT_MATRICES_IDENTICAL(got.direction, want);
    EXPECT_MATRICES_IDENTICAL(got.tangents, want);
    EXPECT_MATRICES_IDENTICAL(got.values, got.mu);
    EXPECT_MATRICES_IDENTICAL(got.distances, got.distance);
  }
}

// The Krylov space of one vector holds a multiple value once: its second Ritz value is the next one. A block as large
// finds the whole multiple, one larger what lies above it, from a start of equal rows as well.
TEST_P(SingularBlocksTest, FindWholeClusters) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(8);
    const std::int64_t d = 12;
    const MatrixXd j = rounded(with_singular_values(15, {1, 1, 1, 4, 5, 5, 6, 6, 7, 7, 8, 8}, engine), dtype);
    const CallbackJacobian jacobian = matrix_jacobian({j}, dtype);
    const std::int64_t steps = 14;
    // As in FindTheSmallestValues, s_d = 8.
    const double slack = (20 + 4 * static_cast<double>(steps)) * unit_roundoff(dtype) * 8;
    for (const bool equal : {false, true}) {
      HostMatrix start = random_matrix(4, d, 9);
      if (equal) {
        for (std::int64_t k = 1; k < 4; ++k)
          for (std::int64_t c = 0; c < d; ++c) start(k, c) = start(0, c);
      }
      const Found got = find(jacobian, start, {steps, 0, 4});
      for (std::int64_t k = 0; k < 3; ++k) EXPECT_NEAR(got.values(0, k), 1, slack) << k;
      // The last converges by the ratio of 4 and 5: 14 steps leave 1 % at most.
      EXPECT_NEAR(got.values(0, 3), 4, 0.04);
      EXPECT_GE(got.values(0, 3), 4 - slack);
    }
    const Found one = find(jacobian, random_matrix(1, d, 9), {steps, 0, 1});
    EXPECT_NEAR(one.mu(0, 0), 1, 1e-4);
    // Golub-Kahan from the same vector: the second value of its whole Krylov space, 6 dimensions, is 4.
    const MatrixXd a = j.transpose() * j;
    VectorXd x = block_rows(random_matrix(1, d, 9), 0, 1).transpose();
    MatrixXd krylov(d, 6);
    for (Eigen::Index k = 0; k < 6; ++k) {
      for (int turn = 0; turn < 2; ++turn) x -= krylov.leftCols(k) * (krylov.leftCols(k).transpose() * x);
      krylov.col(k) = x.normalized();
      x = a * krylov.col(k);
    }
    const VectorXd values = singular_values_of(j * krylov);
    EXPECT_NEAR(values(0), 1, 1e-4);
    EXPECT_NEAR(values(1), 4, 1e-4);
  }
}

// s_1 = 1, s_2 .. s_4 above it by less than a tenth, the rest from 3 up: one direction has to tell s_1 from s_2, with
// four the gap is the one to s_5.
TEST_P(SingularBlocksTest, ABlockConvergesByTheGapBehindIt) {
  if (!on_cpu()) GTEST_SKIP() << "a rate of the method, not of a device";
  auto engine = test_engine(10);
  const std::int64_t d = 40;
  std::vector<double> s = geometric_spectrum(d, 3, 4);
  s[0] = 1;
  s[1] = 1.02;
  s[2] = 1.04;
  s[3] = 1.06;
  const CallbackJacobian jacobian = matrix_jacobian({with_singular_values(50, s, engine)});
  const auto needed = [&](std::int64_t block) {
    std::int64_t steps = 1;
    while (steps < 400 && find(jacobian, random_matrix(block, d, 11), {steps, 0, block}).mu(0, 0) - 1 > 1e-6) ++steps;
    return steps;
  };
  const std::int64_t one = needed(1), four = needed(4);
  RecordProperty("steps_of_one", std::to_string(one));
  RecordProperty("steps_of_four", std::to_string(four));
  // log(1e6) / (4 sqrt(gap)), as in steps_to_rounding: 206 steps of one direction and 15 of four. A start may be
  // lucky, and 36 of 40 values far away are soon dealt with: half of the one, twice the other.
  EXPECT_LE(four, 30);
  EXPECT_LE(2 * four, one);
}

// A zero operator, one of rank 2 in 4 columns, a NaN and an infinity among sound samples. What is missing counts as
// zero and is counted.
TEST_P(SingularBlocksTest, SpecialSamplesAreReportedAlone) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(3);
    const std::int64_t d = 4, D = 6, block = 2;
    std::vector<MatrixXd> matrices(6, rounded(with_singular_values(D, {1, 2, 3, 4}, engine), dtype));
    matrices[1].setZero();
    matrices[2].col(3) = 0.5 * matrices[2].col(0);
    matrices[2].col(2) = 0.25 * matrices[2].col(1);
    matrices[4](2, 1) = kNaN;
    matrices[5](0, 0) = kInfinity;
    const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
    // As in FindTheSmallestValues, s_d = 4, and u |J|_F of the storage of J.
    const double u = unit_roundoff(dtype), slack = (20 + 4 * 4) * u * 4 + 6 * u;
    const HostMatrix start = random_matrix(6 * block, d, 4);
    const MatrixXd t = inverse_of(matrices[0].transpose() * matrices[0]);
    for (const HostMatrix& preconditioner : {HostMatrix{}, host_matrix(t).rounded(dtype)}) {
      const Found got = find(jacobian, start, {4, 0, block, preconditioner});
      const Found again = find(matrix_jacobian({matrices[0]}, dtype),
                               [&] {
                                 HostMatrix first(block, d);
                                 std::copy_n(start.values.begin(), block * d, first.values.begin());
                                 return first;
                               }(),
                               {4, 0, block, preconditioner});
      EXPECT_MATRICES_IDENTICAL(host_matrix(block_rows(got.direction, 0, block)), again.direction);
      for (const std::int64_t i : {0, 3}) {
        EXPECT_NEAR(got.values(i, 0), 1, slack);  // 2 b = d: the first step is exact
        EXPECT_NEAR(got.values(i, 1), 2, slack);
      }
      for (std::int64_t k = 0; k < block; ++k) {
        EXPECT_EQ(got.values(1, k), 0);
        EXPECT_EQ(got.distances(1, k), 0);
        EXPECT_LE(got.values(2, k), slack);
        EXPECT_TRUE(std::isnan(got.values(4, k)) && std::isnan(got.values(5, k)));
      }
      EXPECT_MATRICES_CLOSE(got.deficient, host_vector({0, 2, 2, 0, 0, 0}), absolute_limit(0));
      for (const std::int64_t i : {1, 2}) EXPECT_EQ(got.value(i, 0), -kInfinity);
      EXPECT_EQ(block_rows(got.cotangents, 1, 2).norm(), 0);
      EXPECT_TRUE(std::isnan(got.value(4, 0)) && std::isnan(got.value(5, 0)));
    }
  }
}

TEST_P(SingularBlocksTest, NoSamplesHaveNoEstimate) {
  const CallbackJacobian none = matrix_jacobian({}, DType::f32, 3, 5);
  for (const std::int64_t block : {1, 3}) {
    const Found got = find(none, HostMatrix(0, 3), {3, 1e-3, block});
    EXPECT_EQ(got.value.rows, 0);
    EXPECT_EQ(got.values.rows, 0);
  }
}

// The mean of the finite samples' Gram matrices, inverted in double.
TEST_P(SingularBlocksTest, ThePreconditionerInvertsTheMean) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(12);
    const std::int64_t d = 7, D = 11;
    const double ridge = 0.3;
    std::vector<MatrixXd> matrices;
    for (std::int64_t i = 0; i < 6; ++i) matrices.push_back(rounded(normal_matrix(D, d, engine), dtype));
    matrices[0](1, 1) = kNaN;
    matrices[3](0, 2) = kInfinity;
    MatrixXd mean = ridge * MatrixXd::Identity(d, d);
    for (const std::size_t i : {1, 2, 4, 5}) mean += matrices[i].transpose() * matrices[i] / 4;
    const MatrixXd want = inverse_of(mean);
    const HostMatrix got = preconditioner(matrix_jacobian(matrices, dtype), ridge);
    const VectorXd values = singular_values_of(mean);
    // An inverse to d condition roundings in double, then one rounding of its elements.
    const double limit = 4 * static_cast<double>(d * d) * values(d - 1) / values(0) * 0x1p-53 + unit_roundoff(dtype);
    EXPECT_LE((block_rows(got, 0, d) - want).norm(), limit * want.norm());
  }
}

// Samples that share the singular vectors and, but for tenths, the shape of the spectrum; the preconditioner is that of
// the first two. The steps to a tolerance of 1e-3 at condition 1e3. f32 stops at a distance of up to
// 2 sqrt(u) c^1.5 mu (see LobpcgOptions), 1.5e-2 at condition 10: 2e-2 is asked for there.
TEST_P(SingularBlocksTest, APreconditionerCutsTheSteps) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(13);
    const std::int64_t d = on_cpu() ? 64 : 16, D = d + 16, n = on_cpu() ? 8 : 2;
    const double condition = dtype == DType::f32 ? 10 : 1e3, tolerance = dtype == DType::f32 ? 2e-2 : 1e-3;
    const MatrixXd v = orthonormal_columns(d, d, engine);
    std::vector<MatrixXd> matrices;
    for (std::int64_t i = 0; i < n; ++i) {
      std::vector<double> s = geometric_spectrum(d, 1 / condition, condition);
      std::uniform_real_distribution<double> tenths(0.9, 1.1);
      for (double& value : s) value *= tenths(engine);
      const MatrixXd turn = MatrixXd::Identity(d, d) + 1e-4 * normal_matrix(d, d, engine);
      matrices.push_back(rounded(orthonormal_columns(D, d, engine) *
                                     Eigen::Map<const VectorXd>(s.data(), d).asDiagonal() * v.transpose() * turn,
                                 dtype));
    }
    const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
    const HostMatrix t =
        preconditioner(matrix_jacobian({matrices[0], matrices[1]}, dtype), 1 / (condition * condition));
    for (const std::int64_t block : {1, 2}) {
      const HostMatrix start = random_matrix(n * block, d, 14);
      const std::int64_t most = on_cpu() ? 400 : 60;
      const Found with = find(jacobian, start, {most, tolerance, block, t});
      const Found without = on_cpu() ? find(jacobian, start, {most, tolerance, block}) : Found{};
      const std::string name = std::string("steps_") + dtype_name(dtype) + "_block_" + std::to_string(block);
      RecordProperty(name, std::to_string(with.steps) + " of " + std::to_string(without.steps));
      EXPECT_LT(with.steps, on_cpu() ? 100 : 60) << name;
      for (std::int64_t i = 0; i < n; ++i) {
        const VectorXd s = singular_values_of(matrices[static_cast<std::size_t>(i)]);
        for (std::int64_t k = 0; k < block; ++k) {
          const double value = with.values(i, k), rounding = 60 * unit_roundoff(dtype) * s(d - 1);
          EXPECT_LE((s.array() - value).abs().minCoeff(), tolerance * value + rounding) << i;
          EXPECT_GE(value, s(k) - rounding) << i;
        }
      }
      if (on_cpu()) {
        EXPECT_GE(without.steps, (dtype == DType::f32 ? 2 : 4) * with.steps) << name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, SingularBlocksTest, ::testing::ValuesIn(test_devices()), device_name);

// What is refused, and that the message says what would not be.
TEST(SingularBlockErrors, AreTyped) {
  const TestDevice device("cpu");
  Context& context = device.context();
  Ops& ops = context.ops();
  Arena arena(context.pool(), 1 << 20);
  auto engine = test_engine(12);
  const CallbackJacobian jacobian = matrix_jacobian({normal_matrix(9, 6, engine), normal_matrix(9, 6, engine)});
  const auto refused = [&](std::int64_t rows, const LobpcgOptions& options, const std::string& part) {
    const Tensor v = arena.allocate(DType::f64, {rows, 6});
    try {
      lobpcg_smallest(ops, arena, jacobian, v, options);
      ADD_FAILURE() << "accepted what should fail with: " << part;
    } catch (const InvalidArgument& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused(2, {2, 0, 0}, "block is 0 for Jacobians of 6 inputs, must lie in 1 .. 4");
  refused(10, {2, 0, 5}, "block is 5 for Jacobians of 6 inputs, must lie in 1 .. 4");
  refused(2, {2, 0, 2}, "must be f64[4, 6]");
  refused(4, {0, 0, 2}, "steps is 0");
  refused(4, {2, kNaN, 2}, "tolerance is");
  refused(4, {2, 0, 2, arena.allocate(DType::f64, {6, 5})}, "preconditioner is f64[6, 5]");
  refused(4, {2, 0, 2, arena.allocate(DType::f32, {6, 6})}, "must be f64[6, 6]");
  const CallbackJacobian narrow = matrix_jacobian({normal_matrix(5, 2, engine)});
  const Tensor three = arena.allocate(DType::f64, {3, 2});
  EXPECT_THROW(lobpcg_smallest(ops, arena, narrow, three, {2, 0, 3}), InvalidArgument);
  EXPECT_THROW(shared_preconditioner(ops, arena, jacobian, -1), InvalidArgument);
  EXPECT_THROW(shared_preconditioner(ops, arena, jacobian, kNaN), InvalidArgument);
  EXPECT_THROW(shared_preconditioner(ops, arena, matrix_jacobian({MatrixXd::Zero(4, 3)}), 0), InvalidArgument);
  EXPECT_THROW(shared_preconditioner(ops, arena, matrix_jacobian({MatrixXd::Constant(4, 3, kNaN)}), 1),
               InvalidArgument);
  EXPECT_NO_THROW(shared_preconditioner(ops, arena, matrix_jacobian({MatrixXd::Zero(4, 3)}), 1));
}

// Per step: one product each with J and J^T (a copy in and out here), and two ops; two more with a preconditioner.
TEST(SingularBlockLaunches, AreTwoPerStep) {
  const CallbackJacobian jacobian = matrix_jacobian({MatrixXd::Identity(40, 30)});
  const auto calls = [&](std::int64_t block, bool preconditioned, double tolerance, std::int64_t steps) {
    PlanOps plan;
    Arena arena;
    const Tensor v = arena.allocate(DType::f64, {block, 30});
    LobpcgOptions options{steps, tolerance, block};
    if (preconditioned) options.preconditioner = arena.allocate(DType::f64, {30, 30});
    lobpcg_smallest(plan, arena, jacobian, v, options);
    return plan.total_calls();
  };
  constexpr std::int64_t kCopies = 4;  // of a callback's two products
  for (const std::int64_t block : {1, 2, 4}) {
    const auto per_step = [&](bool preconditioned, double tolerance) {
      return calls(block, preconditioned, tolerance, 12) - calls(block, preconditioned, tolerance, 11) - kCopies;
    };
    EXPECT_EQ(per_step(false, 0), 2);
    EXPECT_EQ(per_step(true, 0), 4);
    EXPECT_EQ(per_step(false, 1e-3), 3);
  }
  // Three fills, the first product (two copies); a step; two products, certificate, threshold of rank, scale of C and
  // copy of V.
  EXPECT_EQ(calls(1, false, 0, 1), 3 + kCopies / 2 + 2 + kCopies + kCopies + 4);
}

}  // namespace
}  // namespace bracket::test
