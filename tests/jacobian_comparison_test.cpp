// The comparison of all Jacobian estimators: what is exact, what is left out, how it is written.
#include "host/evaluate/jacobian_comparison.h"

#include <nlohmann/json.hpp>

#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

JacobianComparison compare(std::vector<MatrixXd> matrices, std::uint64_t seed = 1, int threads = 1) {
  const TestDevice device("cpu");
  ContextOptions options;
  options.threads = threads;
  const std::unique_ptr<Context> context = device.make_context(options);
  const CallbackJacobian jacobian = matrix_jacobian(std::move(matrices));
  return compare_jacobian_estimators(
      *context, [&](Ops&, Arena&) { return std::make_unique<CallbackJacobian>(jacobian); },
      2 * jacobian.inputs() * jacobian.outputs(), seed);
}

std::vector<MatrixXd> well_conditioned(std::int64_t n, std::int64_t d) {
  auto engine = test_engine(1);
  std::vector<MatrixXd> matrices;
  for (std::int64_t i = 0; i < n; ++i)
    matrices.push_back(with_singular_values(d + 3, geometric_spectrum(d, 0.5, 4), engine));
  return matrices;
}

// d = 6: from 6 steps on every rule and iteration that takes them is exact, or has the noise of its probes alone.
TEST(JacobianComparisons, KnowWhatIsExact) {
  const std::int64_t d = 6;
  const JacobianComparison c = compare(well_conditioned(20, d));
  EXPECT_EQ(c.inputs, d);
  EXPECT_EQ(c.outputs, d + 3);
  EXPECT_EQ(c.samples, 20);
  EXPECT_EQ(c.by_qr, 20);
  EXPECT_EQ(c.deficient + c.not_finite, 0);
  EXPECT_EQ(c.singular_values.size(), 120u);
  EXPECT_NEAR(c.median_condition, 4, 1e-12);
  const double h = 6 * std::log(0.5) + 3 * std::log(4.0);
  std::int64_t exact = 0, lobpcg = 0;
  for (const JacobianMethod& m : c.methods) {
    SCOPED_TRACE(m.family + ", " + m.setting);
    EXPECT_TRUE(std::isfinite(m.value) && std::isfinite(m.bias) && m.deviation >= 0 && m.milliseconds > 0);
    EXPECT_GT(m.passes.apply, 0);
    const bool complete = m.setting == "6 orthogonal probes";
    EXPECT_EQ(m.standard_error > 0, m.quantity != "d log s_1" && m.family != "exact" && !complete);
    // Three times the block spans all 6 dimensions in the first step or two.
    const bool spanned = m.family == "LOBPCG block";
    if (m.family.starts_with("exact") || m.setting == "6 steps" || complete || m.setting == "block of 4, 5 steps") {
      ++exact;
      EXPECT_LE(m.root_mean_square, 1e-11);
      EXPECT_EQ(m.certificate == Certificate::exact, m.family == "exact" || complete);
    } else if (!spanned) {
      EXPECT_GT(m.root_mean_square, 1e-12);
      if (m.certificate == Certificate::unbiased) {
        EXPECT_LE(std::abs(m.bias), 4 * m.deviation / std::sqrt(20.0));
      }
    }
    if (m.quantity == "log-volume") {
      EXPECT_NEAR(m.value, h + m.bias, 1e-11);
    }
    if (m.quantity == "d log s_1") {
      EXPECT_NEAR(m.value, 6 * std::log(0.5) + m.bias, 1e-11);
    }
    if (m.family.starts_with("LOBPCG")) {
      ++lobpcg;
      EXPECT_GE(m.bias, -1e-11);
    }
    if (m.family == "LOBPCG preconditioned") {
      EXPECT_EQ(m.passes.apply, 5 + 2 + d);
    }
    if (m.setting == "block of 2, 5 steps") {
      EXPECT_EQ(m.passes.apply, 2 * (5 + 2));
    }
  }
  EXPECT_EQ(lobpcg, 5);  // 20 steps are left out where there are 6 directions
  EXPECT_EQ(exact, 5);   // of Golub-Kahan those of 6 steps
}

TEST(JacobianComparisons, LeaveOutWhatHasNoLogVolume) {
  std::vector<MatrixXd> matrices = well_conditioned(4, 3);
  matrices[1].setZero();
  matrices[2](0, 0) = kNaN;
  const JacobianComparison c = compare(matrices);
  EXPECT_EQ(c.deficient, 1);
  EXPECT_EQ(c.not_finite, 1);
  EXPECT_EQ(c.singular_values.size(), 6u);
  for (const JacobianMethod& m : c.methods) EXPECT_TRUE(std::isfinite(m.value)) << m.family;
  EXPECT_NE(summary(c).find("left out: 1 rank-deficient, 1 not finite"), std::string::npos);
  EXPECT_THROW(compare({MatrixXd::Zero(3, 2)}), Diverged);
  EXPECT_THROW(compare({MatrixXd::Ones(2, 3)}), InvalidArgument);
  EXPECT_THROW(compare({}), InvalidArgument);
}

TEST(JacobianComparisons, AreWrittenAndDrawn) {
  for (const std::int64_t n : {1, 3}) {
    const JacobianComparison c = compare(well_conditioned(n, 2));
    const std::string text = summary(c);
    for (const char* part : {"J [5, 2]", "LOBPCG block", "LOBPCG preconditioned", "SLQ Gauss-Radau", "certified lower",
                             "unbiased", "XTrace"})
      EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
    const nlohmann::json json = nlohmann::json::parse(to_json(c));
    EXPECT_EQ(json["methods"].size(), c.methods.size());
    EXPECT_EQ(json["samples"], n);
    EXPECT_EQ(json["product_flops"], 2 * 2 * 5);
    EXPECT_EQ(json["methods"][0]["flops"], 2 * 20);                // two columns
    EXPECT_EQ(json["methods"][0]["deviation"].is_null(), n == 1);  // of one sample there is none
    EXPECT_GT(spectrum_picture(c).width(), 0);
  }
}

JacobianMethod method(const char* quantity, std::int64_t products, double error, double milliseconds) {
  JacobianMethod m{"family", "setting", quantity};
  m.passes = {products, 0};
  m.bias = error;
  m.root_mean_square = std::abs(error);
  m.milliseconds = milliseconds;
  return m;
}

// A quantity has a front of its own; so has each kind of cost.
TEST(JacobianComparisons, HaveAFrontPerQuantityAndCost) {
  JacobianComparison c;
  c.methods = {method(kLogVolume, 10, 1, 5),       method(kSmallestVolume, 9, 0.5, 1), method(kLogVolume, 10, -2, 1),
               method(kSmallestVolume, 10, -1, 2), method(kTrace, 20, kInfinity, 1),   method(kLogVolume, 11, -1, 4),
               method(kSmallestVolume, 20, 0, 3)};
  EXPECT_EQ(jacobian_fronts(c).by_products, (std::vector<bool>{true, true, false, false, false, false, true}));
  EXPECT_EQ(jacobian_fronts(c).by_time, (std::vector<bool>{false, true, true, false, false, true, true}));
  const nlohmann::json json = nlohmann::json::parse(to_json(c));
  for (std::size_t i = 0; i < c.methods.size(); ++i) {
    EXPECT_EQ(json["methods"][i]["on_front"], jacobian_fronts(c).by_products[i]) << i;
    EXPECT_EQ(json["methods"][i]["on_front_by_time"], jacobian_fronts(c).by_time[i]) << i;
  }
  const std::string text = summary(c);
  EXPECT_EQ(std::count(text.begin(), text.end(), '*'), 3) << text;
}

// What rounding explains makes no method better than a cheaper one.
TEST(JacobianComparisons, RoundingIsNoError) {
  JacobianComparison c;
  c.methods = {method(kLogVolume, 10, 1e-7, 1), method(kLogVolume, 20, 0, 1), method(kLogVolume, 5, 2e-4, 1),
               method(kLogVolume, 1, kNaN, 1)};
  for (JacobianMethod& m : c.methods) m.rounding = 1e-4;
  EXPECT_EQ(jacobian_fronts(c).by_products, (std::vector<bool>{true, false, true, false}));
  c.methods[0].root_mean_square = 1.1e-4;
  EXPECT_TRUE(jacobian_fronts(c).by_products[1]);
  for (const JacobianMethod& m : compare(well_conditioned(3, 2)).methods)
    EXPECT_NEAR(m.rounding, 2 * 0x1p-53 * (m.quantity == kTrace ? 0.25 + 4 : 4), 1e-25) << m.family;
}

// A picture shows the errors of one quantity, and which of them are on its front.
TEST(JacobianComparisons, HaveAPicturePerQuantity) {
  JacobianComparison c;
  c.methods = {method(kLogVolume, 10, 1, 5), method(kLogVolume, 20, 0.1, 5), method(kLogVolume, 40, 0.5, 5),
               method(kSmallestVolume, 10, 1, 5)};
  const auto changes = [&](std::size_t index, double error) {
    JacobianComparison changed = c;
    changed.methods[index].root_mean_square = error;
    const Image before = accuracy_picture(c, kLogVolume), after = accuracy_picture(changed, kLogVolume);
    return !std::equal(before.bytes().begin(), before.bytes().end(), after.bytes().begin(), after.bytes().end());
  };
  EXPECT_TRUE(changes(0, 0.9));
  EXPECT_TRUE(changes(2, 0.05)) << "a new member of the front";
  EXPECT_FALSE(changes(3, 0.5)) << "of another quantity";
}

// The same seed gives the same figures to the last bit, whatever the clock says and for any number of threads.
TEST(JacobianComparisons, AreReproducible) {
  const auto figures = [](std::uint64_t seed, int threads = 1) {
    JacobianComparison c = compare(well_conditioned(40, 17), seed, threads);
    for (JacobianMethod& m : c.methods) m.milliseconds = m.processor_milliseconds = 0;
    return to_json(c);
  };
  EXPECT_EQ(figures(1), figures(1));
  EXPECT_EQ(figures(1), figures(1, 3));
  EXPECT_NE(figures(1), figures(2));
}

}  // namespace
}  // namespace bracket::test
