// Sizes, conditions and ranks at the ends of what the Jacobian estimators hold for; the memory they plan.
#include "bracket/singular_values.h"
#include "bracket/trace_estimators.h"
#include "host/jacobian/requirements.h"
#include "kernels/plan_ops.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

class JacobianRangesTest : public OpsTest {
 protected:
  bool on_cpu() const { return GetParam().name() == "cpu"; }
  HostMatrix preconditioner(const CallbackJacobian& jacobian, double ridge) {
    return planned<HostMatrix>(context(), [&](Ops& o, Arena& arena) {
      return download_from(context(), o, shared_preconditioner(o, arena, jacobian, ridge));
    });
  }
  Tensor on_device(Ops& o, Arena& arena, const HostMatrix& m, DType dtype) {
    if (m.rows == 0) return {};
    const Tensor x = arena.allocate(dtype, {m.rows, m.cols});
    write_values(o, x, m.values);
    return x;
  }
  struct Smallest {
    HostMatrix values, distances;
    std::int64_t steps = 0;
  };
  Smallest lobpcg(const CallbackJacobian& jacobian, const HostMatrix& start, LobpcgOptions options,
                  const HostMatrix& t = {}) {
    return planned<Smallest>(context(), [&](Ops& o, Arena& arena) {
      options.preconditioner = on_device(o, arena, t, jacobian.dtype());
      const LobpcgEstimate e =
          lobpcg_smallest(o, arena, jacobian, on_device(o, arena, start, jacobian.dtype()), options);
      return Smallest{download_from(context(), o, e.ritz_values), download_from(context(), o, e.ritz_distances),
                      e.steps};
    });
  }
};

/// Bytes that the dry run of `work` plans, and that the run takes.
struct HighWater {
  std::int64_t planned = 0, run = 0;
};
HighWater high_water(Context& context, const std::function<void(Ops&, Arena&)>& work) {
  HighWater result;
  with_planned_arena(context, [&](Ops& ops, Arena& arena) {
    work(ops, arena);
    (ops.planning() ? result.planned : result.run) = arena.high_water_bytes();
  });
  return result;
}

/// J = I, whose products need no memory of their own.
class IdentityJacobian final : public JacobianOperator {
 public:
  IdentityJacobian(std::int64_t samples, std::int64_t d, DType dtype) : JacobianOperator(samples, d, d, dtype) {}

 private:
  void do_apply(Ops& ops, Arena& /*arena*/, Tensor y, Tensor x) const override { ops.copy(y, x); }
  void do_apply_transpose(Ops& ops, Arena& /*arena*/, Tensor x, Tensor y) const override { ops.copy(x, y); }
};

// All samples take QR: what the dry run plans is what the run takes, whether products (by callbacks, many samples), the
// test of conditions (products that need nothing, in f32) or the QR path (all samples at once) needs most. None takes
// QR: not more.
TEST_P(JacobianRangesTest, ExactPlansWhatItTakes) {
  struct Shape {
    std::int64_t n, d, D, at_once;
  };
  auto engine = test_engine(1);
  for (const auto& [n, d, D, at_once] : {Shape{40, 3, 3, 1}, Shape{9, 3, 3, 2}, Shape{9, 3, 3, 9}, Shape{17, 4, 5, 3},
                                         Shape{5, 2, 40, 2}, Shape{5, 1, 1, 1}, Shape{1, 6, 8, 1}, Shape{0, 3, 3, 1}}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const std::vector<MatrixXd> matrices(static_cast<std::size_t>(n), normal_matrix(D, d, engine));
      const CallbackJacobian by_callbacks = matrix_jacobian(matrices, dtype, d, D);
      const IdentityJacobian identity(n, d, dtype);
      for (const JacobianOperator* jacobian :
           std::initializer_list<const JacobianOperator*>{&by_callbacks, &identity}) {
        for (const bool derivative : {false, true}) {
          for (const double qr_condition : {0.0, 1e6}) {
            ExactOptions options{!derivative, derivative, qr_condition};
            options.working_bytes = 8 * at_once * d * D;
            const HighWater log_volume =
                high_water(context(), [&](Ops& o, Arena& arena) { exact_log_volume(o, arena, *jacobian, options); });
            const HighWater smallest = high_water(
                context(), [&](Ops& o, Arena& arena) { exact_smallest_volume(o, arena, *jacobian, options); });
            for (const HighWater& bytes : {log_volume, smallest}) {
              EXPECT_LE(bytes.run, bytes.planned) << n << " " << d << " " << D;
              if (qr_condition == 0) {
                EXPECT_EQ(bytes.run, bytes.planned) << n << " " << d << " " << D << " " << at_once;
              }
            }
          }
        }
      }
    }
  }
}

/// Values of one sample from every estimator that knows the whole spectrum.
struct Ranks {
  double log_volume, smallest, quadrature, inverse, roulette, golub_kahan;
};

// One operator, one rank: s_1 below the tolerance of all is none for any, twice above it is one for every one of them.
TEST_P(JacobianRangesTest, EstimatorsAgreeOnTheRank) {
  const std::int64_t d = 8;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const double u = unit_roundoff(dtype), tolerance = documented_tolerance(d, d, dtype);
    for (const double share : {0.6, 2.0}) {
      MatrixXd j = MatrixXd::Zero(d, d);
      for (std::int64_t k = 0; k < d; ++k) j(k, k) = 1e6 * (1 + static_cast<double>(k) / 7);
      j(0, 0) = share * tolerance * 2e6;
      const CallbackJacobian jacobian = matrix_jacobian({j}, dtype);
      const Ranks got = planned<Ranks>(context(), [&](Ops& o, Arena& arena) {
        const auto first = [&](const JacobianEstimate& e) { return read_values(o, e.value)[0]; };
        const Probes probes = make_probes(o, arena, jacobian, {ProbeKind::orthogonal, d, 2});
        const Tensor start = on_device(o, arena, random_matrix(1, d, 3), dtype);
        return Ranks{first(exact_log_volume(o, arena, jacobian)),
                     first(exact_smallest_volume(o, arena, jacobian)),
                     first(trace_of_function(o, arena, jacobian, kLogarithm, probes, {d, {}})),
                     first(trace_of_function(o, arena, jacobian, kInverse, probes, {d, {}})),
                     first(roulette_log_volume(o, arena, jacobian, probes, {d, d})),
                     first(golub_kahan_extremes(o, arena, jacobian, start, {d, 0}))};
      });
      SCOPED_TRACE(std::string(dtype_name(dtype)) + ", " + std::to_string(share));
      for (const double value :
           {got.log_volume, got.smallest, got.quadrature, got.roulette, got.golub_kahan, -got.inverse}) {
        if (share < 1) {
          EXPECT_EQ(value, -kInfinity);
        } else {
          EXPECT_TRUE(std::isfinite(value));
        }
      }
      if (share < 1) continue;
      // Rounding of d u cond, as the rules document it, of the logarithm of s_1.
      const double rounding = 8 * u / (share * tolerance);
      EXPECT_NEAR(got.quadrature / 2, got.log_volume, rounding);
      EXPECT_NEAR(got.golub_kahan, got.smallest, 8 * rounding);
    }
  }
}

// Powers of two, which change no rounding as long as nothing leaves its range.
TEST_P(JacobianRangesTest, LobpcgOwesNothingToTheSize) {
  const std::int64_t d = 6, D = 9, steps = 5;
  auto engine = test_engine(4);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const MatrixXd j = rounded(with_singular_values(D, geometric_spectrum(d, 0.5, 8), engine), dtype);
    const HostMatrix t = host_matrix(inverse_of(j.transpose() * j + 0.1 * MatrixXd::Identity(d, d))).rounded(dtype);
    for (const std::int64_t block : {1, 2}) {
      for (const bool preconditioned : {false, true}) {
        const auto at = [&](double size) {
          return lobpcg(matrix_jacobian({size * j}, dtype), random_matrix(block, d, 5), {steps, 0, block},
                        preconditioned ? t : HostMatrix{});
        };
        const Smallest one = at(1);
        // 1e+-100; the products with J^T are stored in f32, where they are 1e+-30.
        const double large = dtype == DType::f32 ? 0x1p50 : 0x1p332;
        for (const double size : {large, 1 / large}) {
          const Smallest got = at(size);
          for (std::int64_t k = 0; k < block; ++k) {
            EXPECT_NEAR(got.values(0, k) / size, one.values(0, k), 1e-12) << size << " block " << block;
            EXPECT_NEAR(got.distances(0, k) / size, one.distances(0, k), 1e-12) << size << " block " << block;
          }
        }
      }
    }
  }
}

struct Exact {
  HostMatrix value, spectrum, tangents, cotangents;
  std::int64_t by_qr = 0;
};

// As above: what Gram matrices cannot hold takes QR, and that owes nothing to the size. Logarithms of up to 700 round
// once per value.
TEST_P(JacobianRangesTest, ExactOwesNothingToTheSize) {
  const std::int64_t n = 2, d = 6, D = 9;
  auto engine = test_engine(6);
  for (const DType dtype : {DType::f32, DType::f64}) {
    std::vector<MatrixXd> matrices;
    const double condition = 50;
    for (std::int64_t i = 0; i < n; ++i)
      matrices.push_back(rounded(with_singular_values(D, geometric_spectrum(d, 0.1, condition), engine), dtype));
    const auto at = [&](int exponent, bool smallest) {
      std::vector<MatrixXd> scaled = matrices;
      for (MatrixXd& j : scaled) j *= std::ldexp(1.0, exponent);
      const CallbackJacobian jacobian = matrix_jacobian(scaled, dtype);
      return planned<Exact>(context(), [&](Ops& o, Arena& arena) {
        const ExactEstimate e =
            smallest ? exact_smallest_volume(o, arena, jacobian, {true}) : exact_log_volume(o, arena, jacobian, {true});
        EXPECT_EQ(e.deficient + e.not_finite, 0) << exponent;
        const auto read = [&](const Tensor& x) { return download_from(context(), o, x); };
        return Exact{read(e.value), read(e.spectrum), read(e.tangents), read(e.cotangents), e.by_qr};
      });
    };
    // 1e+-100, 1e+-150 and 1e+-300, or 1e+-30.
    const std::vector<int> exponents =
        dtype == DType::f32 ? std::vector{-100, 100} : std::vector{-996, -531, -515, -498, -332, 332, 498, 996};
    // Of the Gram path at size 1.
    const double limit = static_cast<double>(d) * condition * condition * 0x1p-53;
    for (const bool smallest : {false, true}) {
      const Exact one = at(0, smallest);
      EXPECT_EQ(one.by_qr, 0);
      for (const int exponent : exponents) {
        const Exact got = at(exponent, smallest);
        if (std::abs(exponent) < 400) {
          EXPECT_EQ(got.by_qr, 0) << exponent;
        }
        const double moved = static_cast<double>(d) * exponent * std::log(2.0);
        for (std::int64_t i = 0; i < n; ++i) {
          EXPECT_NEAR(got.value(i, 0) - moved, one.value(i, 0), limit + 2 * std::abs(moved) * 0x1p-53) << exponent;
          for (std::int64_t k = 0; k < d; ++k)
            EXPECT_NEAR(std::ldexp(got.spectrum(i, k), -exponent), one.spectrum(i, k), limit * one.spectrum(i, k));
          if (smallest) continue;
          const MatrixXd want = block_rows(one.cotangents, i * d, d);
          MatrixXd scaled = block_rows(got.cotangents, i * d, d);
          for (double& element : scaled.reshaped()) element = std::ldexp(element, exponent);
          EXPECT_LE((scaled - want).norm(), (limit + unit_roundoff(dtype)) * want.norm()) << exponent;
        }
      }
    }
  }
}

// Householder reflections of rows whose squares leave the range, one sample apart from the other.
TEST_P(JacobianRangesTest, LqFactorOwesNothingToTheSize) {
  const std::int64_t k = 4, D = 7;
  const HostMatrix t = random_matrix(2 * k, D, 7);
  const auto at = [&](double first, double second) {
    HostMatrix scaled = t;
    for (std::int64_t e = 0; e < k * D; ++e) {
      scaled.values[static_cast<std::size_t>(e)] *= first;
      scaled.values[static_cast<std::size_t>(k * D + e)] *= second;
    }
    const DeviceTensor q = upload(context(), scaled, DType::f64), l = empty(context(), DType::f64, {2, k, k});
    ops().lq_factor(l, q);
    HostMatrix factor = download(context(), l);
    for (std::int64_t e = 0; e < k * k; ++e) {
      factor.values[static_cast<std::size_t>(e)] /= first;
      factor.values[static_cast<std::size_t>(k * k + e)] /= second;
    }
    return std::pair{factor, download(context(), q)};
  };
  const auto [l, q] = at(1, 1);
  for (const double size : {0x1p-960, 0x1p-520, 0x1p520, 0x1p960}) {
    const auto [scaled_l, scaled_q] = at(size, 1 / size);
    EXPECT_MATRICES_IDENTICAL(scaled_q, q);
    EXPECT_MATRICES_IDENTICAL(scaled_l, l);
  }
}

/// Samples that share the right singular vectors and, but for tenths, the spectrum.
std::vector<MatrixXd> alike(std::int64_t n, std::int64_t D, const std::vector<double>& spectrum, DType dtype) {
  auto engine = test_engine(8);
  const auto d = static_cast<std::int64_t>(spectrum.size());
  const MatrixXd v = orthonormal_columns(d, d, engine);
  std::vector<MatrixXd> matrices;
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<double> s = spectrum;
    std::uniform_real_distribution<double> tenths(0.9, 1.1);
    for (double& value : s) value *= tenths(engine);
    matrices.push_back(rounded(
        orthonormal_columns(D, d, engine) * Eigen::Map<const VectorXd>(s.data(), d).asDiagonal() * v.transpose(),
        dtype));
  }
  return matrices;
}

// Stored in single precision, at conditions whose squares it cannot hold.
TEST_P(JacobianRangesTest, ThePreconditionerStaysPositiveDefinite) {
  const std::int64_t d = on_cpu() ? 64 : 16, n = 2;
  for (const double condition : {1e4, 1e5, 1e9}) {
    for (const double size : {1.0, 1e15, 1e-15}) {
      const std::vector<MatrixXd> matrices =
          alike(n, d + 16, geometric_spectrum(d, size / condition, condition), DType::f32);
      for (const double ridge : {0.0, size * size / condition / condition}) {
        const MatrixXd t = block_rows(preconditioner(matrix_jacobian(matrices, DType::f32), ridge), 0, d);
        EXPECT_EQ(t, t.transpose());
        EXPECT_GT(eigenvalues_of(t)(0), 0) << condition << " " << size << " " << ridge;
      }
    }
  }
}

// At condition 1e4 in single precision T is that of a raised ridge, and helps all the same: LOBPCG from random starts,
// and conjugate gradients by the residual that they leave.
TEST_P(JacobianRangesTest, ARaisedRidgeStillHelps) {
  if (!on_cpu()) GTEST_SKIP() << "steps of the method, not of a device";
  const std::int64_t d = 64, n = 4;
  const double condition = 1e4;
  const std::vector<MatrixXd> matrices = alike(n, d + 16, geometric_spectrum(d, 1 / condition, condition), DType::f32);
  const CallbackJacobian jacobian = matrix_jacobian(matrices, DType::f32);
  const HostMatrix t =
      preconditioner(matrix_jacobian({matrices[0], matrices[1]}, DType::f32), 1 / condition / condition);
  const HostMatrix start = random_matrix(n, d, 9);
  const Smallest with = lobpcg(jacobian, start, {30, 0, 1}, t), without = lobpcg(jacobian, start, {30, 0, 1});
  for (std::int64_t i = 0; i < n; ++i) {
    const double smallest = singular_values_of(matrices[static_cast<std::size_t>(i)])(0);
    // Without T 50 to 90 s_1 (seed 1).
    EXPECT_LT(with.values(i, 0), 2 * smallest) << i;
    EXPECT_GT(without.values(i, 0), 10 * smallest) << i;
  }
  const auto residuals = [&](const HostMatrix& values) {
    return planned<HostMatrix>(context(), [&](Ops& o, Arena& arena) {
      StochasticVolumeOptions options;
      options.quadrature.steps = 2;
      options.iterations = 40;
      options.stop_early = false;
      options.preconditioner = on_device(o, arena, values, DType::f32);
      const Probes probes = make_probes(o, arena, jacobian, {ProbeKind::rademacher, 2, 3});
      return download_from(context(), o, stochastic_log_volume(o, arena, jacobian, probes, options).residual);
    });
  };
  const HostMatrix turned = residuals(t), plain = residuals({});
  // Of |v| = 8: 1.4 to 6.7 with T, where rounding stalls it, 34 to 111 without (seed 1).
  for (std::int64_t i = 0; i < 2 * n; ++i) EXPECT_LT(2 * turned(i, 0), plain(i, 0)) << i;
}

// Sizes whose fourth powers leave the range of a double, as far as T has one; a sample that is not finite beside them
// is left out.
TEST_P(JacobianRangesTest, ThePreconditionerOwesNothingToTheSize) {
  const std::int64_t d = 5;
  auto engine = test_engine(10);
  std::vector<MatrixXd> matrices{normal_matrix(8, d, engine), normal_matrix(8, d, engine), normal_matrix(8, d, engine)};
  matrices[1](2, 2) = kNaN;
  const HostMatrix one = preconditioner(matrix_jacobian(matrices), 0.25);
  for (const int exponent : {-400, -270, 270, 400}) {
    std::vector<MatrixXd> scaled = matrices;
    for (MatrixXd& j : scaled) j *= std::ldexp(1.0, exponent);
    HostMatrix got = preconditioner(matrix_jacobian(scaled), std::ldexp(0.25, 2 * exponent));
    for (double& element : got.values) element = std::ldexp(element, 2 * exponent);
    EXPECT_MATRICES_IDENTICAL(got, one);
  }
  matrices[0] *= 0x1p520;  // finite, with squares that are not: no sample to leave out
  EXPECT_THROW(preconditioner(matrix_jacobian(matrices), 0.25), InvalidArgument);
}

// V and C of an estimate are its own: what becomes of the direction then does not reach them.
TEST_P(JacobianRangesTest, TangentsAreNotTheDirection) {
  const std::int64_t n = 2, d = 5;
  auto engine = test_engine(11);
  const CallbackJacobian jacobian = matrix_jacobian({normal_matrix(7, d, engine), normal_matrix(7, d, engine)});
  for (const std::int64_t block : {0, 1, 2}) {  // 0: Golub-Kahan
    const auto [before, after] = planned<std::pair<HostMatrix, HostMatrix>>(context(), [&](Ops& o, Arena& arena) {
      const Tensor direction =
          on_device(o, arena, random_matrix(n * std::max<std::int64_t>(block, 1), d, 12), DType::f64);
      const Tensor v = block == 0 ? golub_kahan_extremes(o, arena, jacobian, direction, {3, 0}).tangents
                                  : lobpcg_smallest(o, arena, jacobian, direction, {3, 0, block}).tangents;
      const HostMatrix first = download_from(context(), o, v);
      o.fill(direction, 0);
      return std::pair{first, download_from(context(), o, v)};
    });
    EXPECT_MATRICES_IDENTICAL(after, before);
    EXPECT_NEAR(block_rows(after, 0, 1).norm(), 1, 1e-12);
  }
}

// The residual is one of the smallest numbers there are, and 1 / |r| is none.
TEST_P(JacobianRangesTest, AStartThatAllButHasConvergedStays) {
  const CallbackJacobian jacobian = matrix_jacobian({Eigen::Vector2d(1, 2).asDiagonal().toDenseMatrix()});
  struct Found {
    HostMatrix lobpcg, golub_kahan;
  };
  const Found got = planned<Found>(context(), [&](Ops& o, Arena& arena) {
    const Tensor v = arena.allocate(DType::f64, {1, 2});
    write_values(o, v, std::vector<double>{1, 1e-310});
    const HostMatrix first = download_from(context(), o, lobpcg_smallest(o, arena, jacobian, v, {3}).singular_value);
    write_values(o, v, std::vector<double>{1, 1e-310});
    return Found{first, download_from(context(), o, golub_kahan_extremes(o, arena, jacobian, v, {2}).singular_value)};
  });
  EXPECT_EQ(got.lobpcg(0, 0), 1);
  EXPECT_EQ(got.golub_kahan(0, 0), 1);
}

INSTANTIATE_TEST_SUITE_P(Devices, JacobianRangesTest, ::testing::ValuesIn(test_devices()), device_name);

// Refused by the estimators' own names, before anything is queued.
// (4 + sqrt 4) u against sqrt(D d) 2^-53, twice the larger.
TEST(RankTolerance, IsTheLargerOfStorageAndSums) {
  EXPECT_EQ(rank_tolerance(matrix_jacobian({MatrixXd::Zero(1000, 4)})), 2 * std::sqrt(4000.0) * 0x1p-53);
  EXPECT_EQ(rank_tolerance(matrix_jacobian({MatrixXd::Zero(5, 4)})), 12 * 0x1p-53);
  EXPECT_EQ(rank_tolerance(matrix_jacobian({MatrixXd::Zero(1000, 4)}, DType::f32)), 12 * 0x1p-24);
}

TEST(JacobianRangeErrors, AreTyped) {
  const CallbackJacobian jacobian = matrix_jacobian({MatrixXd::Identity(6, 6)});
  PlanOps plan;
  Arena arena;
  const Probes probes = make_probes(plan, arena, jacobian, {ProbeKind::rademacher, 2, 1});
  const auto refused = [&](const std::string& part, const std::function<void()>& work) {
    try {
      work();
      ADD_FAILURE() << "accepted what should fail with: " << part;
    } catch (const InvalidArgument& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  const std::uint64_t last = (std::uint64_t{1} << 48) - 1, step = last + 1;
  const std::string text = "step is 281474976710656, must be below 2^48";
  refused("make_probes: " + text, [&] { make_probes(plan, arena, jacobian, {ProbeKind::gaussian, 2, 1, step}); });
  LowRankOptions low_rank{2, 2, 1, step};
  refused("hutch_plus_plus_trace: " + text, [&] { hutch_plus_plus_trace(plan, arena, jacobian, low_rank); });
  refused("exchangeable_trace: " + text, [&] { exchangeable_trace(plan, arena, jacobian, low_rank); });
  RouletteOptions roulette{2, 6, 0.5, false, 1, step};
  refused("roulette_log_volume: " + text, [&] { roulette_log_volume(plan, arena, jacobian, probes, roulette); });
  low_rank.step = roulette.step = last;
  EXPECT_NO_THROW(make_probes(plan, arena, jacobian, {ProbeKind::gaussian, 2, 1, last}));
  EXPECT_NO_THROW(exchangeable_trace(plan, arena, jacobian, low_rank));
  EXPECT_NO_THROW(roulette_log_volume(plan, arena, jacobian, probes, roulette));
  ExactOptions exact;
  exact.working_bytes = -1;
  refused("working_bytes is -1", [&] { exact_log_volume(plan, arena, jacobian, exact); });
  const auto values_of = [&](std::int64_t k) {
    plan.singular_values(arena.allocate(DType::f64, {1, k}), arena.allocate(DType::f64, {1, k, k}),
                         arena.allocate(DType::f64, {1, k, k}));
  };
  refused("needs K <= 4096", [&] { values_of(4097); });
  EXPECT_NO_THROW(values_of(4096));
  refused("raise the ridge", [&] {
    const TestDevice device("cpu");
    Arena own(device.context().pool(), 1 << 16);
    shared_preconditioner(device.context().ops(), own, matrix_jacobian({MatrixXd::Zero(4, 3)}), 0);
  });
  refused("(J^T J)^-1 of", [&] {
    const TestDevice device("cpu");
    Arena own(device.context().pool(), 1 << 16);
    shared_preconditioner(device.context().ops(), own, matrix_jacobian({1e25 * MatrixXd::Identity(4, 3)}, DType::f32),
                          0);
  });
}

}  // namespace
}  // namespace bracket::test
