// The choice of an estimator on generators whose singular values are known: affine maps x = s z.
#include "bracket/entropy_choice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "tests/files_test_folder.h"

namespace bracket {
namespace {

AffineSpec scaling(const std::vector<double>& scale) { return {scale, std::vector<double>(scale.size(), 0)}; }

// The identity behind it hides that log |det J| is known.
NetworkSpec diagonal(const std::vector<double>& scale) {
  return {static_cast<std::int64_t>(scale.size()), {scaling(scale), ActivationSpec{Activation::identity}}};
}

EntropyChoice choose(const std::vector<double>& scale, double target) {
  Context context;
  return choose_entropy(context, diagonal(scale), {.target = target, .seed = 3});
}

const EntropyCandidate& candidate(const EntropyChoice& choice, EntropyEstimator estimator, DType dtype) {
  for (const EntropyCandidate& c : choice.candidates)
    if (c.config.estimator == estimator && c.dtype == dtype) return c;
  throw std::out_of_range("no such candidate");
}

// Where all singular values are equal d log s_1 is h, and one step finds it.
TEST(EntropyChoice, EqualSingularValuesNeedOneStep) {
  const EntropyChoice choice = choose(std::vector<double>(16, 0.75), 1e-3);
  EXPECT_TRUE(choice.meets_target);
  EXPECT_EQ(choice.chosen.config.estimator, EntropyEstimator::lobpcg);
  EXPECT_EQ(choice.chosen.config.iterations, 1);
  EXPECT_EQ(choice.chosen.dtype, DType::f32);
  EXPECT_EQ(choice.chosen.passes, 5);
  EXPECT_EQ(choice.candidates.size(), 12);  // exact, min_singular and 1, 2, 4, 8 steps, which cost less than exact does
  EXPECT_DOUBLE_EQ(choice.median_condition, 1);
  for (std::size_t i = 1; i < choice.candidates.size(); ++i)
    EXPECT_LE(choice.candidates[i - 1].cost(), choice.candidates[i].cost());
}

// h - d log s_1 = sum log(s_k / s_1) is what min_singular misses, and no number of steps brings lobpcg nearer than
// that.
TEST(EntropyChoice, UnequalSingularValuesNeedAllOfThem) {
  const std::vector<double> scale = {0.5, 0.7, 1, 1.5, 2, 3, 4, 6};
  double missed = 0;
  for (const double s : scale) missed += std::log(s / 0.5);
  const EntropyChoice choice = choose(scale, 1e-3);
  EXPECT_TRUE(choice.meets_target);
  EXPECT_EQ(choice.chosen.config.estimator, EntropyEstimator::exact);
  EXPECT_EQ(choice.chosen.dtype, DType::f32);
  EXPECT_NEAR(choice.median_condition, 12, 1e-12);
  EXPECT_NEAR(candidate(choice, EntropyEstimator::min_singular, DType::f64).error, missed, 1e-9);
  // With room for that, the cheapest that keeps it; every estimate lies between d log s_1 and d log s_d.
  const EntropyChoice roomy = choose(scale, missed);
  EXPECT_LT(roomy.chosen.cost(), choice.chosen.cost());
  EXPECT_LE(roomy.chosen.error, missed);
}

// A generator whose layers know their log-volumes needs no Jacobian, whatever the condition of that.
TEST(EntropyChoice, LayersThatKnowTheirLogVolumeCostNothing) {
  Context context;
  const NetworkSpec spec{
      4, {RotationSpec{1}, scaling({1e-4, 1, 2, 50}), RotationSpec{2}, RationalQuadraticCouplingSpec{0, 2, 4, {6}}}};
  const EntropyChoice choice = choose_entropy(context, spec, {.target = 1e-4});
  EXPECT_TRUE(choice.meets_target) << summary(choice);
  EXPECT_EQ(choice.chosen.config.estimator, EntropyEstimator::triangular);
  EXPECT_EQ(choice.chosen.dtype, DType::f32);
  EXPECT_EQ(choice.chosen.passes, 0);
  // In single precision columns of J lose that condition.
  EXPECT_GT(candidate(choice, EntropyEstimator::exact, DType::f32).error, choice.chosen.error);
}

// The Gram matrix squares the condition: in single precision J is as good as its elements, in double h is.
TEST(EntropyChoice, PrecisionFollowsTheCondition) {
  const std::vector<double> scale = {1.0 / 3e5, 1, 1, 1};
  const double single = candidate(choose(scale, 1), EntropyEstimator::exact, DType::f32).error;
  EXPECT_GT(single, 0);
  const EntropyChoice choice = choose(scale, single / 2);
  EXPECT_EQ(choice.chosen.config.estimator, EntropyEstimator::exact);
  EXPECT_EQ(choice.chosen.dtype, DType::f64);
  EXPECT_NEAR(choice.median_condition, 3e5, 1e-6);
}

// At condition 1e7 the exact value comes from a QR factorisation, which the training step does without.
TEST(EntropyChoice, TheNearestWhereNoneKeepsTheTarget) {
  Context context;
  const NetworkSpec spec{3, {LinearSpec{3}, AffineSpec{{1e-7, 1, 2}, {0, 0, 0}}, LinearSpec{5}}};
  const EntropyChoice choice = choose_entropy(context, spec, {.target = 1e-300});
  EXPECT_FALSE(choice.meets_target) << summary(choice);
  EXPECT_EQ(choice.chosen.config.estimator, EntropyEstimator::exact);
  EXPECT_EQ(choice.chosen.dtype, DType::f64);
  EXPECT_NE(summary(choice).find("no estimator keeps the target"), std::string::npos);
}

// Signs of z decide: all three singular values are equal at a quarter of the latents.
TEST(EntropyChoice, TheConditionIsThatOfTheMedianLatent) {
  Context context;
  const NetworkSpec spec{3, {ActivationSpec{Activation::leaky_relu, 0.125}}};
  EXPECT_EQ(choose_entropy(context, spec, {.samples = 64}).median_condition, 8);
}

// 1e39 is a number in double only.
TEST(EntropyChoice, AnEstimateThatIsNotFiniteIsInfinitelyWrong) {
  const EntropyChoice choice = choose({1e39, 1e39, 1e39}, 1e-3);
  EXPECT_EQ(choice.chosen.dtype, DType::f64);
  EXPECT_TRUE(std::isinf(candidate(choice, EntropyEstimator::exact, DType::f32).error));
}

TEST(EntropyChoice, DoubleIsNotLeftForSingle) {
  Context context;
  const EntropyChoice choice =
      choose_entropy(context, diagonal({1, 2, 3}), {.target = 1, .least = DType::f64, .samples = 1});
  EXPECT_EQ(choice.chosen.dtype, DType::f64);
  for (const EntropyCandidate& c : choice.candidates) EXPECT_EQ(c.dtype, DType::f64);
}

TEST(EntropyChoice, BadRequestsAreRefused) {
  Context context;
  const auto refused = [&](const NetworkSpec& spec, const EntropyRequest& request, const std::string& part) {
    expect_error<InvalidArgument>([&] { choose_entropy(context, spec, request); }, {part});
  };
  refused(diagonal({1, 2}), {.target = 0}, "target 0");
  refused(diagonal({1, 2}), {.target = std::nan("")}, "target nan");
  refused(diagonal({1, 2}), {.samples = 0}, "at 0 latents");
  refused({3, {LinearSpec{1}, LinearSpec{4}}}, {}, "no full rank");
  refused({3, {LinearSpec{2}}}, {}, "singular");
  EXPECT_EQ(context.pool().statistics().bytes_in_use, 0);
}

}  // namespace
}  // namespace bracket
