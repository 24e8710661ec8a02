// Deterministic estimators on operators with prescribed singular values.
#include "bracket/singular_values.h"

#include "kernels/plan_ops.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

struct Exact {
  HostMatrix value, spectrum, tangents, cotangents;
  std::int64_t by_qr = 0, deficient = 0, not_finite = 0;
  JacobianPasses passes;
};

struct Iterated {
  HostMatrix value, mu, distance, tangents, cotangents, largest, largest_distance, deficient;
  std::int64_t steps = 0;
  JacobianPasses passes;
};

enum class Method { lobpcg, golub_kahan };

class SingularValuesTest : public OpsTest {
 protected:
  Exact exact(const CallbackJacobian& jacobian, const ExactOptions& options, bool smallest = false) {
    return planned<Exact>(context(), [&](Ops& o, Arena& arena) {
      const ExactEstimate e =
          smallest ? exact_smallest_volume(o, arena, jacobian, options) : exact_log_volume(o, arena, jacobian, options);
      EXPECT_EQ(e.certificate, smallest ? Certificate::certified_lower : Certificate::exact);
      const auto read = [&](const Tensor& x) { return download_from(context(), o, x); };
      return Exact{read(e.value), read(e.spectrum), read(e.tangents), read(e.cotangents),
                   e.by_qr,       e.deficient,      e.not_finite,     e.passes};
    });
  }
  Iterated iterate(Method method, const CallbackJacobian& jacobian, const HostMatrix& start,
                   const IterationOptions& options) {
    return planned<Iterated>(context(), [&](Ops& o, Arena& arena) {
      const Tensor direction = arena.allocate(jacobian.dtype(), {start.rows, start.cols});
      write_values(o, direction, start.values);
      GolubKahanEstimate e;
      if (method == Method::golub_kahan) {
        e = golub_kahan_extremes(o, arena, jacobian, direction, options);
      } else {
        static_cast<SingularEstimate&>(e) =
            lobpcg_smallest(o, arena, jacobian, direction, {options.steps, options.tolerance});
      }
      EXPECT_EQ(e.certificate, Certificate::optimistic);
      const auto read = [&](const Tensor& x) { return download_from(context(), o, x); };
      return Iterated{
          read(e.value),   read(e.singular_value),   read(e.distance),  read(e.tangents), read(e.cotangents),
          read(e.largest), read(e.largest_distance), read(e.deficient), e.steps,          e.passes};
    });
  }
};

// h to d cond^2 (Gram) or d cond (QR) roundings, as the header says; J itself, a product of three rounded factors, has
// the prescribed values to some sqrt(d) roundings of s_d, hence as well as QR only: 3 sqrt(d) are allowed.
TEST_P(SingularValuesTest, ExactMatchesPrescribedSpectra) {
  struct Shape {
    std::int64_t d, D;
  };
  // The executor runs what kernels do to more than a warp once, at condition 1e9.
  const bool slow = GetParam().name() == "simt";
  for (const auto& [d, D] : {Shape{1, 1}, Shape{1, 5}, Shape{3, 3}, Shape{9, 30}, Shape{33, 33}}) {
    for (const double condition : {1.0, 1e2, 1e4, 1e6, 1e9}) {
      if (slow && d > 32 && condition < 1e9) continue;
      auto engine = test_engine(static_cast<std::uint64_t>(d * D));
      std::vector<MatrixXd> matrices;
      const std::vector<double> s = geometric_spectrum(d, 2 / condition, condition);
      for (int i = 0; i < 3; ++i) matrices.push_back(with_singular_values(D, s, engine));
      double h = 0;
      for (const double value : s) h += std::log(value);
      const CallbackJacobian jacobian = matrix_jacobian(matrices);
      const double size = static_cast<double>(d), qr_limit = (1 + 3 * std::sqrt(size)) * size * condition * 0x1p-53;
      for (const double threshold : {1e6, 0.0}) {
        const Exact got = exact(jacobian, {true, true, threshold});
        const bool gram = threshold > 0 && static_cast<double>(d) * condition <= 1e6;
        if (d > 1 && (gram || condition > 1e6 || threshold == 0)) {
          EXPECT_EQ(got.by_qr, gram ? 0 : 3);
        }
        // Conditions close to the threshold fall to either side of it.
        const double limit = got.by_qr == 3 ? qr_limit : qr_limit * std::max(condition, 1.0);
        EXPECT_MATRICES_CLOSE(got.value, host_vector({h, h, h}), absolute_limit(limit));
        EXPECT_EQ(got.deficient + got.not_finite, 0);
        EXPECT_EQ(got.passes.apply, d);
        EXPECT_EQ(got.passes.transpose, 0);
        for (std::int64_t i = 0; i < 3; ++i) {
          for (std::int64_t k = 0; k < d; ++k)
            EXPECT_NEAR(got.spectrum(i, k) / s[static_cast<std::size_t>(k)], 1, limit) << "condition " << condition;
          // C = J (J^T J)^-1 = the transpose of the pseudo-inverse, relative to its norm 1 / s_1.
          const MatrixXd& j = matrices[static_cast<std::size_t>(i)];
          const MatrixXd inverse = pseudo_inverse_of(j);
          EXPECT_LE((block_rows(got.cotangents, i * d, d) - inverse).norm(), 4 * limit * inverse.norm());
          EXPECT_EQ(block_rows(got.tangents, i * d, d), MatrixXd::Identity(d, d));
        }
      }
    }
  }
}

// A zero operator, one of rank d - 1, a NaN and an infinity among sound samples, in both precisions. Storage moves J by
// u |J|_F = 5.5 u, h by that times sum 1 / s_k: 12 u, and d log s_1 by 22 u; in f64 the rounding above adds 4 d cond u.
// Golub-Kahan moves mu as the iterations of singular_blocks_test.cpp do, by (20 + 4 steps) u s_d.
TEST_P(SingularValuesTest, SpecialSamplesAreReportedAlone) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(3);
    const std::int64_t d = 4, D = 6;
    std::vector<MatrixXd> matrices(6, rounded(with_singular_values(D, {1, 2, 3, 4}, engine), dtype));
    matrices[1].setZero();
    matrices[2].col(3) = 0.5 * matrices[2].col(0);
    matrices[4](2, 1) = kNaN;
    matrices[5](0, 0) = kInfinity;
    const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
    const double h = std::log(24.0), u = unit_roundoff(dtype), rounding = (22 + 4 * 4 * 4) * u;
    const Exact got = exact(jacobian, {true, true});
    EXPECT_MATRICES_CLOSE(got.value, host_vector({h, -kInfinity, -kInfinity, h, kNaN, kNaN}), absolute_limit(rounding));
    EXPECT_EQ(got.deficient, 2);
    EXPECT_EQ(got.not_finite, 2);
    EXPECT_EQ(got.by_qr, 4);
    EXPECT_EQ(block_rows(got.cotangents, d, 2 * d).norm(), 0);
    const Exact smallest = exact(jacobian, {}, true);
    EXPECT_MATRICES_CLOSE(smallest.value, host_vector({0, -kInfinity, -kInfinity, 0, kNaN, kNaN}),
                          absolute_limit(rounding));
    for (const Method method : {Method::lobpcg, Method::golub_kahan}) {
      const Iterated iterated = iterate(method, jacobian, random_matrix(6, d, 4), {4, 0});
      for (std::int64_t i = 0; i < 6; ++i) {
        if (i == 1) {
          EXPECT_EQ(iterated.value(i, 0), -kInfinity);
        }
        if (i == 1) {
          EXPECT_EQ(iterated.distance(i, 0), 0);
        }
        if (i == 0 || i == 3) {
          EXPECT_NEAR(iterated.mu(i, 0), 1, method == Method::lobpcg ? 1e-3 : (6 + 36 * 4) * u) << i;
        }
        if (i == 2) {
          EXPECT_LE(iterated.mu(i, 0),
                    method == Method::lobpcg ? 1e-2 : documented_tolerance(D, d, dtype) * matrices[2].norm());
        }
        if (i != 2 || method == Method::golub_kahan) {
          EXPECT_EQ(iterated.deficient(i, 0), i == 1 || i == 2 ? 1 : 0);
        }
        EXPECT_EQ(std::isnan(iterated.value(i, 0)), i >= 4) << i;
      }
      EXPECT_EQ(block_rows(iterated.cotangents, 1, 1).norm(), 0);
    }
  }
}

// Of rank d - 1 both iterations report it once they have converged, by the largest value they have seen alone, and stop
// there; of full rank down to a condition that leaves a factor of 10 to the threshold none does.
TEST_P(SingularValuesTest, IterationsReportMissingRank) {
  const bool slow = GetParam().name() == "simt";
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t d : {2, 9, 40}) {
      if (slow && d > 9) continue;
      const double u = unit_roundoff(dtype), threshold = documented_tolerance(d + 3, d, dtype);
      auto engine = test_engine(static_cast<std::uint64_t>(d));
      std::vector<double> missing = geometric_spectrum(d, 1, 3), narrow = geometric_spectrum(d, 1, 3);
      missing[0] = 0;
      narrow[0] = 10 * threshold * 3;
      const std::int64_t D = d + 3;
      std::vector<MatrixXd> matrices;
      for (const std::vector<double>* s : {&missing, &narrow, &missing})
        matrices.push_back(rounded(1e-3 * with_singular_values(D, *s, engine), dtype));
      const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
      for (const Method method : {Method::lobpcg, Method::golub_kahan}) {
        SCOPED_TRACE(std::string(dtype_name(dtype)) + ", d " + std::to_string(d));
        const HostMatrix start = random_matrix(3, d, 14);
        const Iterated got = iterate(method, jacobian, start, {method == Method::lobpcg ? 100 : d, 0});
        EXPECT_MATRICES_CLOSE(got.deficient, host_vector({1, 0, 1}), absolute_limit(0));
        for (const std::int64_t i : {0, 2}) {
          EXPECT_EQ(got.value(i, 0), -kInfinity);
          EXPECT_LE(got.mu(i, 0), threshold * 3e-3);
          EXPECT_EQ(block_rows(got.cotangents, i, 1).norm(), 0);
          EXPECT_GT(got.largest(i, 0), 2e-3);
          EXPECT_LE(got.largest(i, 0), 3e-3 * (1 + 60 * u));
        }
        // mu is known to the roundings that the threshold stands for.
        EXPECT_NEAR(got.value(1, 0), static_cast<double>(d) * std::log(1e-3 * narrow[0]),
                    0.11 * static_cast<double>(d));
        EXPECT_TRUE(std::isfinite(block_rows(got.cotangents, 1, 1).norm()));
        // Samples that count as zero have converged: only the other one keeps the iteration going.
        const CallbackJacobian alone = matrix_jacobian({matrices[0]}, dtype);
        const HostMatrix first = host_matrix(block_rows(start, 0, 1));
        EXPECT_LT(iterate(method, alone, first, {200, 1e-6}).steps, method == Method::lobpcg ? 200 : d + 1);
      }
    }
  }
}

// J of a size whose squares leave the range of a double: Golub-Kahan finds s_1 and s_d as ever, LOBPCG a bound where
// they underflow and NaN where they overflow; neither distance is too small, or a number where J^T J v is none, and C
// is none.
TEST_P(SingularValuesTest, SizesDoNotOverflow) {
  auto engine = test_engine(16);
  const std::int64_t d = 6, D = 9;
  const MatrixXd j = with_singular_values(D, geometric_spectrum(d, 0.5, 4), engine);
  for (const double size : {1e200, 1e-200}) {
    const CallbackJacobian jacobian = matrix_jacobian({size * j});
    const Iterated krylov = iterate(Method::golub_kahan, jacobian, random_matrix(1, d, 17), {d, 0});
    const Iterated lobpcg = iterate(Method::lobpcg, jacobian, random_matrix(1, d, 17), {5, 0});
    EXPECT_NEAR(krylov.mu(0, 0) / size, 0.5, 1e-13);
    EXPECT_NEAR(krylov.largest(0, 0) / size, 2, 1e-13);
    EXPECT_NEAR(krylov.value(0, 0), 6 * std::log(0.5) + 6 * std::log(size), 1e-11);
    for (const Iterated* e : {&krylov, &lobpcg}) {
      EXPECT_EQ(e->deficient(0, 0), 0);
      EXPECT_TRUE(std::isnan(block_rows(e->cotangents, 0, 1).norm()));
      if (e == &lobpcg && size > 1) {
        EXPECT_TRUE(std::isnan(e->mu(0, 0)) && std::isnan(e->value(0, 0)));
        continue;
      }
      EXPECT_GE(e->mu(0, 0) / size, 0.5 - 1e-13);
      EXPECT_EQ(std::isnan(e->distance(0, 0)), size > 1);
      if (size > 1) continue;
      const double nearest = (singular_values_of(j).array() - e->mu(0, 0) / size).abs().minCoeff();
      EXPECT_GE(e->distance(0, 0) / size, nearest - 1e-13);
    }
  }
}

// What rounding of J to its storage left of a singular value 0 is none.
TEST_P(SingularValuesTest, RankHiddenByStorageIsMissing) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(12);
    const CallbackJacobian jacobian =
        matrix_jacobian({rounded(with_singular_values(6, {0, 1, 2, 3}, engine), dtype)}, dtype);
    EXPECT_EQ(exact(jacobian, {}).deficient, 1);
    EXPECT_EQ(exact(jacobian, {}).value(0, 0), -kInfinity);
  }
}

// Condition, not size, sends a sample to QR.
TEST_P(SingularValuesTest, QrIsForConditionsNotForSizes) {
  auto engine = test_engine(13);
  for (const double size : {1e-9, 1e9}) {
    const MatrixXd sound = size * with_singular_values(6, geometric_spectrum(4, 1, 10), engine);
    const MatrixXd narrow = size * with_singular_values(6, geometric_spectrum(4, 1, 1e8), engine);
    EXPECT_EQ(exact(matrix_jacobian({sound, narrow, sound}), {}).by_qr, 1) << size;
  }
}

TEST_P(SingularValuesTest, NoSamplesHaveNoEstimate) {
  const CallbackJacobian none = matrix_jacobian({}, DType::f32, 3, 5);
  EXPECT_EQ(exact(none, {true, true}).value.rows, 0);
  EXPECT_EQ(exact(none, {}, true).value.rows, 0);
  for (const Method method : {Method::lobpcg, Method::golub_kahan})
    EXPECT_EQ(iterate(method, none, HostMatrix(0, 3), {3, 1e-3}).value.rows, 0);
}

// V = v_1, C = d J v_1 / s_1^2; d log s_1 <= h.
TEST_P(SingularValuesTest, SmallestIsTheLowerBound) {
  auto engine = test_engine(5);
  const std::int64_t d = 7, D = 12;
  std::vector<MatrixXd> matrices;
  for (int i = 0; i < 3; ++i) matrices.push_back(with_singular_values(D, geometric_spectrum(d, 0.3, 20), engine));
  const CallbackJacobian jacobian = matrix_jacobian(matrices);
  const Exact smallest = exact(jacobian, {true, true}, true), whole = exact(jacobian, {});
  for (std::int64_t i = 0; i < 3; ++i) {
    const MatrixXd& j = matrices[static_cast<std::size_t>(i)];
    EXPECT_NEAR(smallest.value(i, 0), 7 * std::log(0.3), 1e-11);
    EXPECT_LE(smallest.value(i, 0), whole.value(i, 0));
    const VectorXd v = block_rows(smallest.tangents, i, 1).transpose(),
                   c = block_rows(smallest.cotangents, i, 1).transpose();
    EXPECT_LE((j.transpose() * (j * v) - 0.09 * v).norm(), 1e-11);
    EXPECT_LE((c - 7 / 0.09 * j * v).norm(), 1e-9);
  }
  EXPECT_EQ(smallest.passes.apply, d + 1);
  EXPECT_EQ(smallest.passes.transpose, 1);
}

// Both stay above s_1 (Golub-Kahan below s_d too), their distances are true, and over the same Krylov space Golub-Kahan
// is never worse: k steps of it span what k - 1 of LOBPCG can reach.
TEST_P(SingularValuesTest, IterationsBoundTheSpectrum) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const double condition : {2.0, 1e2}) {
      auto engine = test_engine(6);
      const std::int64_t d = 12, D = 20, n = 4;
      std::vector<MatrixXd> matrices;
      for (std::int64_t i = 0; i < n; ++i)
        matrices.push_back(rounded(with_singular_values(D, geometric_spectrum(d, 0.5, condition), engine), dtype));
      const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
      const HostMatrix start = random_matrix(n, d, 7);
      // A product rounds to u s_d.
      const double slack = 60 * unit_roundoff(dtype) * 0.5 * condition;
      for (const std::int64_t steps : {1, 3, 6, 11}) {
        const Iterated lobpcg = iterate(Method::lobpcg, jacobian, start, {steps, 0});
        const Iterated krylov = iterate(Method::golub_kahan, jacobian, start, {steps + 1, 0});
        EXPECT_EQ(lobpcg.passes.apply, steps + 2);
        EXPECT_EQ(lobpcg.passes.transpose, steps + 1);
        EXPECT_EQ(krylov.passes.apply, steps + 3);
        EXPECT_EQ(krylov.passes.transpose, steps + 2);
        for (std::int64_t i = 0; i < n; ++i) {
          const MatrixXd& j = matrices[static_cast<std::size_t>(i)];
          const VectorXd s = singular_values_of(j);
          EXPECT_LE(krylov.mu(i, 0), lobpcg.mu(i, 0) + slack) << steps;
          EXPECT_LE(krylov.largest(i, 0), s(d - 1) + slack);
          EXPECT_LE((s.array() - krylov.largest(i, 0)).abs().minCoeff(), krylov.largest_distance(i, 0) + slack);
          for (const Iterated* e : {&lobpcg, &krylov}) {
            EXPECT_GE(e->mu(i, 0), s(0) - slack);
            EXPECT_LE((s.array() - e->mu(i, 0)).abs().minCoeff(), e->distance(i, 0) + slack);
            EXPECT_NEAR(e->value(i, 0), 12 * std::log(e->mu(i, 0)), 1e-12);
            const VectorXd v = block_rows(e->tangents, i, 1).transpose(),
                           c = block_rows(e->cotangents, i, 1).transpose();
            // A combination of up to d directions, stored with their weights, that are orthonormal to a rounding each.
            EXPECT_NEAR(v.norm(), 1, 2 * 12 * unit_roundoff(dtype));
            EXPECT_LE((c - 12 * (j * v) / (j * v).squaredNorm()).norm(), 12 * 4 * slack / s(0) / s(0));
          }
        }
      }
      const Iterated complete = iterate(Method::golub_kahan, jacobian, start, {100, 0});
      EXPECT_EQ(complete.steps, d);
      for (std::int64_t i = 0; i < n; ++i) {
        const VectorXd s = singular_values_of(matrices[static_cast<std::size_t>(i)]);
        EXPECT_NEAR(complete.mu(i, 0), s(0), slack);
        EXPECT_NEAR(complete.largest(i, 0), s(d - 1), slack);
        EXPECT_LE(complete.distance(i, 0), condition * slack);  // v is stored with roundings of its own
      }
    }
  }
}

// d = 1, d = D, and a multiple singular value whose Krylov space ends after one step.
TEST_P(SingularValuesTest, GolubKahanGoesOnWhereTheSpaceEnds) {
  auto engine = test_engine(8);
  struct Case {
    std::int64_t D;
    std::vector<double> s;
  };
  for (const Case& c :
       {Case{1, {0.7}}, Case{5, {0.7}}, Case{4, {2, 2, 2, 2}}, Case{6, {1, 1, 1, 5, 5}}, Case{5, {0, 3, 3, 3}}}) {
    const auto d = static_cast<std::int64_t>(c.s.size());
    const CallbackJacobian jacobian = matrix_jacobian({with_singular_values(c.D, c.s, engine)});
    const Iterated got = iterate(Method::golub_kahan, jacobian, random_matrix(1, d, 9), {d, 0});
    EXPECT_NEAR(got.mu(0, 0), c.s.front(), 1e-13 * c.s.back());
    EXPECT_NEAR(got.largest(0, 0), c.s.back(), 1e-13 * c.s.back());
    EXPECT_LE(got.distance(0, 0), 1e-13 * c.s.back());
  }
}

TEST_P(SingularValuesTest, TolerancesEndTheIteration) {
  auto engine = test_engine(10);
  const std::int64_t d = 30, D = 40;
  std::vector<double> s = geometric_spectrum(d, 1, 2);
  s[0] = 0.5;
  // A sample that is not finite does not keep the others going.
  const CallbackJacobian jacobian = matrix_jacobian(
      {with_singular_values(D, s, engine), with_singular_values(D, s, engine), MatrixXd::Constant(D, d, kNaN)});
  for (const Method method : {Method::lobpcg, Method::golub_kahan}) {
    const Iterated got = iterate(method, jacobian, random_matrix(3, d, 11), {200, 1e-5});
    EXPECT_LT(got.steps, method == Method::lobpcg ? 200 : 30);
    for (std::int64_t i = 0; i < 2; ++i) {
      EXPECT_LE(got.distance(i, 0), 1.01e-5 * got.mu(i, 0));
      EXPECT_NEAR(got.mu(i, 0), 0.5, 1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, SingularValuesTest, ::testing::ValuesIn(test_devices()), device_name);

TEST(SingularValueErrors, AreTyped) {
  const TestDevice device("cpu");
  Context& context = device.context();
  Arena arena(context.pool(), 1 << 20);
  auto engine = test_engine(12);
  const CallbackJacobian wide = matrix_jacobian({normal_matrix(2, 3, engine)}),
                         tall = matrix_jacobian({normal_matrix(3, 2, engine)});
  const Tensor v = arena.allocate(DType::f64, {1, 2});
  write_values(context.ops(), v, std::vector<double>{1, 2});
  Ops& ops = context.ops();
  EXPECT_THROW(exact_log_volume(ops, arena, wide), InvalidArgument);
  EXPECT_THROW(exact_smallest_volume(ops, arena, wide), InvalidArgument);
  const Tensor three = arena.allocate(DType::f64, {1, 3});
  write_values(ops, three, std::vector<double>{1, 2, 3});
  EXPECT_THROW(lobpcg_smallest(ops, arena, wide, three), InvalidArgument);
  try {
    golub_kahan_extremes(ops, arena, wide, three);
    ADD_FAILURE() << "accepted";
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("3 inputs and 2 outputs"), std::string::npos) << error.what();
  }
  EXPECT_THROW(exact_log_volume(ops, arena, tall, {false, false, -1}), InvalidArgument);
  EXPECT_THROW(exact_log_volume(ops, arena, tall, {false, false, 1e6, 2}), InvalidArgument);
  EXPECT_THROW(lobpcg_smallest(ops, arena, tall, {}), InvalidArgument);
  EXPECT_THROW(lobpcg_smallest(ops, arena, tall, v, {0, 0}), InvalidArgument);
  EXPECT_THROW(golub_kahan_extremes(ops, arena, tall, v, {1, 1}), InvalidArgument);
  EXPECT_THROW(golub_kahan_extremes(ops, arena, tall, v, {1, kNaN}), InvalidArgument);
  EXPECT_THROW(golub_kahan_extremes(ops, arena, tall, arena.allocate(DType::f32, {1, 2})), InvalidArgument);
}

// Per step: one product each with J and J^T (a copy in and out here), and two ops.
TEST(SingularValueLaunches, AreTwoPerStep) {
  const CallbackJacobian jacobian = matrix_jacobian({MatrixXd::Identity(40, 30)});
  const auto calls = [&](Method method, std::int64_t steps) {
    PlanOps plan;
    Arena arena;
    const Tensor v = arena.allocate(DType::f64, {1, 30});
    if (method == Method::golub_kahan) {
      golub_kahan_extremes(plan, arena, jacobian, v, {steps, 0});
    } else {
      lobpcg_smallest(plan, arena, jacobian, v, {steps, 0});
    }
    return plan.total_calls();
  };
  constexpr std::int64_t kCopies = 4;  // of a callback's two products
  for (const Method method : {Method::lobpcg, Method::golub_kahan})
    EXPECT_EQ(calls(method, 12) - calls(method, 11), 2 + kCopies);
}

}  // namespace
}  // namespace bracket::test
