// How benchmarks judge results, on the CPU: each judge passes what is right and catches what is not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "bench/judge.h"
#include "bench/libraries/bf16.h"
#include "bench/libraries/element_formulas.h"
#include "bench/operands.h"
#include "bracket/device.h"
#include "kernels/ops.h"

namespace bracket::bench {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<double> normals(std::size_t count) {
  std::mt19937_64 engine(11);
  std::normal_distribution<double> distribution;
  std::vector<double> values(count);
  for (double& value : values) value = static_cast<double>(static_cast<float>(distribution(engine)));
  return values;
}

/// A tensor of floats in memory of its own.
struct Floats {
  Floats(Context& context, const std::vector<double>& values)
      : buffer(context.pool().allocate(static_cast<std::int64_t>(4 * values.size()), "test")),
        tensor(buffer.data(), DType::f32, {static_cast<std::int64_t>(values.size())}) {
    const std::vector<float> elements(values.begin(), values.end());
    context.ops().upload(tensor, elements.data());
  }
  std::vector<double> values(Context& context) const {
    std::vector<float> elements(static_cast<std::size_t>(tensor.size()));
    context.ops().download(elements.data(), tensor);
    return {elements.begin(), elements.end()};
  }
  Buffer buffer;
  Tensor tensor;
};

TEST(BenchJudge, WorstErrorIsAShareOfTheLargest) {
  EXPECT_DOUBLE_EQ(worst_error({1, -4, 2.5}, {1, -4, 2}), 0.125);
  EXPECT_EQ(worst_error({0, 0}, {0, 0}), kInfinity);
  EXPECT_EQ(worst_error({1, kNan}, {1, 2}), kInfinity);
  EXPECT_EQ(worst_error({1, 2}, {1, kNan}), kInfinity);
  EXPECT_EQ(worst_error({1}, {1, 2}), kInfinity);
}

TEST(BenchJudge, GatesFollowTheLengthOfSums) {
  EXPECT_DOUBLE_EQ(product_gate(DType::f32, MathMode::fp32, 100), 36 * 0x1p-24);
  EXPECT_DOUBLE_EQ(product_gate(DType::f32, MathMode::tf32x3, 100), 36 * 0x1p-24);
  EXPECT_DOUBLE_EQ(product_gate(DType::f64, MathMode::fp32, 100), 36 * 0x1p-53);
  EXPECT_DOUBLE_EQ(product_gate(DType::f32, MathMode::fp32, 1 << 22), 1e-5);
  EXPECT_DOUBLE_EQ(product_gate(DType::f32, MathMode::tf32, 1 << 22), 0x1p-9);
  EXPECT_DOUBLE_EQ(product_gate(DType::f32, MathMode::bf16, 1), 0x1p-6);
}

/// The share by which sums of products of operands that `round` has rounded are off.
template <class F>
double share_of(std::size_t depth, F round) {
  constexpr std::size_t kSums = 200;
  const std::vector<double> a = normals(2 * kSums * depth);
  std::vector<double> exact(kSums), rounded(kSums);
  for (std::size_t i = 0; i < kSums * depth; ++i) {
    exact[i / depth] += a[2 * i] * a[2 * i + 1];
    rounded[i / depth] += round(a[2 * i]) * round(a[2 * i + 1]);
  }
  return worst_error(rounded, exact);
}

// The gate of bf16 holds for every length, and would not for operands of one bit less than are cut off, 6.
TEST(BenchJudge, GateOfRoundedOperands) {
  const auto cut = [](int bits) {
    return [bits](double x) {
      int exponent = 0;
      const double mantissa = std::frexp(x, &exponent);
      return std::ldexp(std::trunc(std::ldexp(mantissa, bits)), exponent - bits);
    };
  };
  const double gate = product_gate(DType::f32, MathMode::bf16, 1);
  for (const std::size_t depth : {std::size_t{1}, std::size_t{27}, std::size_t{4096}}) {
    const auto nearest = [](double x) { return static_cast<double>(from_bf16(to_bf16(static_cast<float>(x)))); };
    EXPECT_LT(share_of(depth, nearest), gate / 2) << depth;
    EXPECT_LT(share_of(depth, cut(8)), gate) << depth;
    EXPECT_GT(share_of(depth, cut(6)), gate) << depth;
  }
}

TEST(BenchJudge, Bf16RoundsToNearestEven) {
  EXPECT_EQ(from_bf16(to_bf16(1.0F)), 1.0F);
  EXPECT_EQ(from_bf16(to_bf16(1.0F + 0x1p-8F)), 1.0F);                // half way: even
  EXPECT_EQ(from_bf16(to_bf16(1.0F + 3 * 0x1p-8F)), 1.0F + 0x1p-6F);  // half way: even
  EXPECT_EQ(from_bf16(to_bf16(-1.0F - 0x1.02p-8F)), -1.0F - 0x1p-7F);
}

TEST(BenchJudge, DeviationOfMomentsInStandardErrors) {
  const std::vector<double> values = normals(1 << 16);
  EXPECT_LT(deviation(values, 0, 1, 3), 4);
  std::vector<double> shifted = values, wide = values;
  for (double& value : shifted) value += 0.03;
  for (double& value : wide) value *= 1.02;
  EXPECT_GT(deviation(shifted, 0, 1, 3), 5);               // 0.03 sqrt(65,536) = 7.7
  EXPECT_GT(deviation(wide, 0, 1, 3), 5);                  // 0.0404 sqrt(65,536 / 2) = 7.3
  EXPECT_DOUBLE_EQ(deviation({3, 3, 3, 3}, 1, 4, 48), 2);  // of the mean: 8 / sqrt(4 4); of the variance: 0
  EXPECT_EQ(deviation({0, kNan}, 0, 1, 3), kInfinity);
}

TEST(BenchJudge, EigenvectorsMustSolveAndBeOrthonormal) {
  const double c = 0.6, s = 0.8;  // rows of V; A = V^T diag(1, 3) V, and a second sample that is diagonal
  const std::vector<double> values{1, 3, 2, 5};
  const std::vector<double> vectors{c, s, -s, c, 1, 0, 0, 1};
  const std::vector<double> matrices{c * c + 3 * s * s, -2 * c * s, -2 * c * s, s * s + 3 * c * c, 2, 0, 0, 5};
  EXPECT_LT(eigen_error(matrices, values, vectors, 2), 1e-15);
  std::vector<double> wrong = vectors;
  wrong[4] = 1.001;
  EXPECT_NEAR(eigen_error(matrices, values, wrong, 2), 2.001e-3, 1e-9);  // orthonormality; the residual is still zero
  wrong = vectors;
  wrong[4] = wrong[7] = std::cos(0.01), wrong[5] = std::sin(0.01), wrong[6] = -wrong[5];
  EXPECT_NEAR(eigen_error(matrices, values, wrong, 2), 3 * std::sin(0.01) / 5, 1e-4);  // residual alone
  EXPECT_GT(eigen_error(matrices, {1, 3, 5, 2}, vectors, 2), 0.5);                     // values in another order
  wrong[0] = kNan;
  EXPECT_EQ(eigen_error(matrices, values, wrong, 2), kInfinity);
}

// The op keeps the gate of its case, and two vectors that have changed places do not.
TEST(BenchJudge, EigenvectorsOfTheOpKeepTheGate) {
  constexpr std::int64_t kSize = 32, kSamples = 8;
  Context context;
  std::vector<double> factors = normals(kSamples * kSize * 4 * kSize), matrices, values(kSamples * kSize);
  std::vector<double> vectors(kSamples * kSize * kSize);
  const Tensor t(factors.data(), DType::f64, {kSamples * kSize, 4 * kSize});
  std::vector<double> work(kSamples * kSize * kSize);
  const Tensor a(work.data(), DType::f64, {kSamples, kSize, kSize});
  context.ops().gram(a, t);
  matrices = work;
  context.ops().symmetric_eigen(Tensor(values.data(), DType::f64, {kSamples, kSize}),
                                Tensor(vectors.data(), DType::f64, {kSamples, kSize, kSize}), a);
  const double gate = product_gate(DType::f64, MathMode::fp32, eigen_depth(kSize));
  EXPECT_LE(eigen_error(matrices, values, vectors, kSize), gate);
  std::swap_ranges(vectors.begin(), vectors.begin() + kSize, vectors.begin() + kSize);
  EXPECT_GT(eigen_error(matrices, values, vectors, kSize), 1e9 * gate);
}

TEST(BenchJudge, ColdCopiesReachThreeCachesOrAreNone) {
  constexpr std::int64_t kCache = std::int64_t{126} << 20;
  for (const double bytes : {1e6, 3e6, 1e9}) {
    const auto copies = cold_copies(bytes, kCache);
    ASSERT_TRUE(copies.has_value()) << bytes;
    EXPECT_GE(static_cast<double>(*copies) * bytes, 3.0 * static_cast<double>(kCache));
    EXPECT_GE(*copies, 2);
  }
  EXPECT_FALSE(cold_copies(3e5, kCache).has_value());
  EXPECT_FALSE(cold_copies(0, kCache).has_value());
  EXPECT_TRUE(cold_copies(3e5, kCache / 4).has_value());
}

// A library's second way makes its copies anew; a replica takes those of the way that it begins, however many others
// there are, and the operands behind them.
TEST(BenchJudge, ReplicasCopyWhatTheirWayConverted) {
  Context context;
  Operands original(context, DType::f32);
  const Tensor x = original.normal({3});
  const auto convert = [](Operands& operands, std::byte value, std::int64_t bytes) {
    void* const data = operands.converted(bytes, [=](std::vector<std::byte>& all) { std::ranges::fill(all, value); });
    return *static_cast<std::byte*>(data);
  };
  original.begin_library("a", MathMode::fp32);
  convert(original, std::byte{1}, 8);
  original.begin_library("a", MathMode::fp32);  // the first way missed the gate
  convert(original, std::byte{2}, 4);
  convert(original, std::byte{3}, 4);
  original.begin_library("b", MathMode::fp32);
  convert(original, std::byte{4}, 4);
  original.begin_library("a", MathMode::bf16);
  convert(original, std::byte{5}, 4);
  const std::unique_ptr<Operands> replica = original.replica();
  EXPECT_EQ(replica->values(replica->normal({3})), original.values(x));
  replica->begin_library("a", MathMode::fp32);
  EXPECT_EQ(convert(*replica, std::byte{9}, 4), std::byte{2});
  EXPECT_EQ(convert(*replica, std::byte{9}, 4), std::byte{3});
  const std::unique_ptr<Operands> other = original.replica();
  other->normal({3});
  other->begin_library("b", MathMode::fp32);
  EXPECT_EQ(convert(*other, std::byte{9}, 4), std::byte{4});
  other->begin_library("a", MathMode::bf16);
  EXPECT_EQ(other->math(), MathMode::bf16);
  EXPECT_EQ(convert(*other, std::byte{9}, 4), std::byte{5});
}

// The library's formulas with the settings of the cases, beside the ops.
TEST(BenchJudge, LibraryFormulasAreThoseOfTheOps) {
  Context context;
  const std::vector<double> before = normals(2000);
  const std::vector<double> x(before.rbegin(), before.rend());
  const double gate = product_gate(DType::f32, MathMode::fp32, 1);
  const auto library = [&](const auto& formula) {
    std::vector<double> y;
    for (std::size_t i = 0; i < x.size(); ++i)
      y.push_back(static_cast<double>(formula(static_cast<float>(before[i]), static_cast<float>(x[i]))));
    return y;
  };
  const Floats input(context, x), sum(context, before), average(context, before);
  context.ops().axpy(sum.tensor, 0.75, input.tensor);
  EXPECT_LE(worst_error(library(Axpy{0.75F}), sum.values(context)), gate);
  const MovingAverage formula{static_cast<float>(1 - kEmaDecay)};
  StepState state;
  state.step = kEmaStep;
  context.ops().ema(average.tensor, input.tensor, kEmaDecay, &state);
  EXPECT_LE(worst_error(library(formula), average.values(context)), gate);
  // At step 0 the op's gain is 9 / 10.
  state.step = 0;
  const Floats first(context, before);
  context.ops().ema(first.tensor, input.tensor, kEmaDecay, &state);
  EXPECT_GT(worst_error(library(formula), first.values(context)), 0.1);
}

}  // namespace
}  // namespace bracket::bench
