// The direction of every certified value over 10,000 random operators.
#include "bracket/singular_values.h"
#include "bracket/trace_estimators.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

constexpr std::int64_t kOperators = 10000;

struct Bounds {
  HostMatrix exact, spectrum, smallest, above, below, inverse_below, inverse_above, mu, distance, krylov, largest;
  std::int64_t deficient = 0;
};

// Operators by the shape: entries N(0, 1), columns scaled by powers of ten down to 1e-3, so that conditions run from 1
// to some 1e5. The spectrum is that of Eigen's two-sided Jacobi, an algorithm that shares nothing with those under
// test.
//
// Slack. With u = 2^-53 and c = s_d / s_1: singular values are known to k u s_d, k = 8 (d + D); log s to k u c; h = sum
// log s_k to d k u c; a rule with all of d probes to d^2 k u c relative to its largest term, log or 1/s_1^2. Gram-path
// values square the condition: d k u c^2.
TEST(JacobianCertificates, HoldForTenThousandRandomOperators) {
  const TestDevice device("cpu");
  Context& context = device.context();
  struct Shape {
    std::int64_t d, D;
  };
  const std::vector<Shape> shapes = {{1, 1}, {1, 4}, {2, 2}, {2, 7}, {3, 3}, {4, 5}, {5, 5}, {6, 6}, {6, 20}, {8, 9}};
  const std::int64_t n = kOperators / static_cast<std::int64_t>(shapes.size());
  std::int64_t violations = 0, judged = 0, distinct = 0;
  double widest = 0;
  for (const auto& [d, D] : shapes) {
    auto engine = test_engine(static_cast<std::uint64_t>(100 * d + D));
    std::uniform_real_distribution<double> exponent(-3, 0);
    std::vector<MatrixXd> matrices;
    std::vector<VectorXd> spectra;
    std::vector<double> ends;
    for (std::int64_t i = 0; i < n; ++i) {
      MatrixXd j = normal_matrix(D, d, engine);
      for (std::int64_t k = 0; k < d; ++k) j.col(k) *= std::pow(10.0, exponent(engine));
      matrices.push_back(j);
      spectra.push_back(singular_values_of(j));
      ends.push_back(0.9 * spectra.back()(0) * spectra.back()(0));
    }
    const CallbackJacobian jacobian = matrix_jacobian(matrices);
    const std::int64_t steps = std::max<std::int64_t>(d / 2, 1);
    const HostMatrix start = random_matrix(n, d, 3);
    const Bounds got = planned<Bounds>(context, [&](Ops& o, Arena& arena) {
      const auto read = [&](const Tensor& x) { return download_from(context, o, x); };
      Bounds b;
      const ExactEstimate exact = exact_log_volume(o, arena, jacobian, {true, false});
      b.exact = read(exact.value);
      b.spectrum = read(exact.spectrum);
      b.deficient = exact.deficient;
      b.smallest = read(exact_smallest_volume(o, arena, jacobian, {false, false}).value);
      const Probes probes = make_probes(o, arena, jacobian, {ProbeKind::orthogonal, d, 4});
      const Tensor lower = arena.allocate(DType::f64, {n});
      write_values(o, lower, ends);
      const auto rule = [&](const SpectralFunction& f, const Tensor& end, Certificate certificate) {
        const JacobianEstimate e = trace_of_function(o, arena, jacobian, f, probes, {steps, end});
        EXPECT_EQ(e.certificate, d == 1 ? Certificate::exact : certificate);
        return read(e.value);
      };
      b.above = rule(kLogarithm, {}, Certificate::certified_upper);
      b.below = rule(kLogarithm, lower, Certificate::certified_lower);
      b.inverse_below = rule(kInverse, {}, Certificate::certified_lower);
      b.inverse_above = rule(kInverse, lower, Certificate::certified_upper);
      const Tensor v = arena.allocate(DType::f64, {n, d}), w = arena.allocate(DType::f64, {n, d});
      write_values(o, v, start.values);
      write_values(o, w, start.values);
      const SingularEstimate lobpcg = lobpcg_smallest(o, arena, jacobian, v, {2, 0});
      b.mu = read(lobpcg.singular_value);
      b.distance = read(lobpcg.distance);
      const GolubKahanEstimate krylov = golub_kahan_extremes(o, arena, jacobian, w, {steps, 0});
      b.krylov = read(krylov.singular_value);
      b.largest = read(krylov.largest);
      return b;
    });
    EXPECT_EQ(got.deficient, 0);
    const auto judge = [&](double low, double high, double slack, std::int64_t i, const char* what) {
      ++judged;
      if (low < high) ++distinct;
      widest = std::max(widest, (low - high) / slack);
      if (low <= high + slack) return;
      ++violations;
      ADD_FAILURE() << what << ": " << exact_text(low) << " > " << exact_text(high) << ", slack " << slack << "; d "
                    << d << ", D " << D << ", operator " << i;
    };
    for (std::int64_t i = 0; i < n; ++i) {
      const VectorXd& s = spectra[static_cast<std::size_t>(i)];
      double h = 0, inverses = 0;
      for (std::int64_t k = 0; k < d; ++k) {
        h += std::log(s(k));
        inverses += 1 / (s(k) * s(k));
      }
      const double size = static_cast<double>(d), ulp = 8 * static_cast<double>(d + D) * 0x1p-53;
      const double condition = s(d - 1) / s(0), value = ulp * s(d - 1);
      const double largest_log = std::max(std::abs(std::log(s(0))), std::abs(std::log(s(d - 1)))) + 1;
      const double rule = 2 * size * size * ulp * condition * largest_log;
      const double squared = size * ulp * condition * condition;
      judge(got.exact(i, 0), h, squared, i, "exact above h");
      judge(h, got.exact(i, 0), squared, i, "exact below h");
      judge(got.smallest(i, 0), h, size * ulp * condition, i, "d log s_1 above h");
      judge(2 * h, got.above(i, 0), rule, i, "Gauss below log det");
      judge(got.below(i, 0), 2 * h, rule, i, "Gauss-Radau above log det");
      const double inverse = 4 * size * size * ulp * condition / s(0) / s(0);
      judge(got.inverse_below(i, 0), inverses, inverse, i, "Gauss above the trace of the inverse");
      judge(inverses, got.inverse_above(i, 0), inverse, i, "Gauss-Radau below the trace of the inverse");
      judge(s(0), got.mu(i, 0), value, i, "LOBPCG below s_1");
      judge(s(0), got.krylov(i, 0), value, i, "Golub-Kahan below s_1");
      judge(got.largest(i, 0), s(d - 1), value, i, "Golub-Kahan above s_d");
      judge((s.array() - got.mu(i, 0)).abs().minCoeff(), got.distance(i, 0), value, i, "distance too small");
    }
  }
  EXPECT_EQ(violations, 0);
  EXPECT_EQ(judged, 11 * kOperators);
  // The bounds are not met by being equal: most differ by more than rounding, and no slack was nearly used up.
  EXPECT_GT(distinct, judged / 2);
  EXPECT_LT(widest, 0.5);
  RecordProperty("largest_share_of_slack", std::to_string(widest));
}

}  // namespace
}  // namespace bracket::test
