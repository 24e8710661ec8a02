// Dense layers in every math mode: the derived limits, ragged shapes, strides, and what a mode must leave alone.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <optional>

#include "kernels/cuda/common/tensor_plan.h"
#include "math_mode_fixture.h"
#ifdef BRACKET_TEST_SIMT
#include "simt/scoped_options.h"
#endif

namespace bracket::test {
namespace {

struct Shape {
  std::int64_t rows, in, out;
};

std::string text(const Shape& s) {
  return std::to_string(s.rows) + " x " + std::to_string(s.in) + " -> " + std::to_string(s.out);
}

/// Around half a tile, tiles and slices in every direction; sums of several chunks, one of them ragged.
constexpr std::array<Shape, 14> kTensorShapes{{{32, 32, 32},
                                               {33, 37, 35},
                                               {63, 65, 64},
                                               {65, 63, 66},
                                               {64, 96, 128},
                                               {97, 34, 129},
                                               {127, 130, 36},
                                               {129, 40, 127},
                                               {131, 128, 132},
                                               {193, 60, 33},
                                               {260, 100, 257},
                                               {800, 36, 40},
                                               {1031, 34, 33},
                                               {40, 1057, 52}}};

/// Too small for tensor cores in one direction at least, or empty.
constexpr std::array<Shape, 8> kSmallShapes{
    {{0, 40, 50}, {40, 0, 50}, {40, 50, 0}, {1, 1, 1}, {70, 1, 90}, {800, 2, 100}, {100, 100, 1}, {31, 70, 15}}};

struct Layer {
  HostMatrix x, w, grad_y, start_x, start_w;
  explicit Layer(const Shape& s)
      : x(random_matrix(s.rows, s.in, 1).rounded(DType::f32)),
        w(random_matrix(s.out, s.in, 2).rounded(DType::f32)),
        grad_y(random_matrix(s.rows, s.out, 3).rounded(DType::f32)),
        start_x(random_matrix(s.rows, s.in, 4).rounded(DType::f32)),
        start_w(random_matrix(s.out, s.in, 5).rounded(DType::f32)) {}
};

/// y, grad_x, grad_w.
using Results = std::array<HostMatrix, 3>;

class MathModeTest : public OpsTest {
 protected:
  Results run(const Layer& layer, MathMode mode, std::int64_t padding, bool accumulate,
              DType dtype = DType::f32) const {
    const MathScope scope(ops(), mode);
    const Update update = accumulate ? Update::accumulate : Update::overwrite;
    const DeviceTensor x = upload(context(), layer.x, dtype, padding);
    const DeviceTensor w = upload(context(), layer.w, dtype, padding);
    const DeviceTensor grad_y = upload(context(), layer.grad_y, dtype, padding);
    const DeviceTensor y = empty_matrix(context(), dtype, layer.x.rows, layer.w.rows, padding);
    const auto start = [&](const HostMatrix& values) {
      return accumulate ? upload(context(), values, dtype, padding)
                        : empty_matrix(context(), dtype, values.rows, values.cols, padding);
    };
    const DeviceTensor grad_x = start(layer.start_x);
    const DeviceTensor grad_w = start(layer.start_w);
    ops().linear_forward(y, x, w);
    ops().linear_reverse_data(grad_x, grad_y, w, update);
    ops().linear_reverse_weights(grad_w, grad_y, x, update);
    return {download(context(), y), download(context(), grad_x), download(context(), grad_w)};
  }

  static std::array<ProductReference, 3> references(const Shape& s, const Layer& layer, bool accumulate) {
    const auto x = [&](std::int64_t i, std::int64_t k) { return layer.x(i, k); };
    const auto w = [&](std::int64_t o, std::int64_t k) { return layer.w(o, k); };
    const auto w_transposed = [&](std::int64_t k, std::int64_t o) { return layer.w(o, k); };
    const auto grad_y = [&](std::int64_t i, std::int64_t o) { return layer.grad_y(i, o); };
    const auto grad_y_transposed = [&](std::int64_t o, std::int64_t i) { return layer.grad_y(i, o); };
    return {reference_product(s.rows, s.out, s.in, x, w_transposed, nullptr),
            reference_product(s.rows, s.in, s.out, grad_y, w, accumulate ? &layer.start_x : nullptr),
            reference_product(s.out, s.in, s.rows, grad_y_transposed, x, accumulate ? &layer.start_w : nullptr)};
  }

  void expect_limits(const Shape& s, std::int64_t padding, bool accumulate) const {
    const Layer layer(s);
    const auto expected = references(s, layer, accumulate);
    for (const MathMode mode : kTensorModes) {
      const Results actual = run(layer, mode, padding, accumulate);
      for (std::size_t k = 0; k < 3; ++k) {
        EXPECT_TRUE(within_limits(actual[k], expected[k], on_tensor_cores(s)[k] ? mode : MathMode::fp32))
            << text(s) << ", " << math_mode_name(mode) << ", padding " << padding << (accumulate ? ", accumulate" : "")
            << ", result " << k;
      }
    }
  }

  bool on_cpu() const { return GetParam().name() == "cpu"; }
  std::array<bool, 3> on_tensor_cores(const Shape& s) const {
    if (on_cpu()) return {};
    return {tensor_cores_pay(s.rows, s.out, s.in), tensor_cores_pay(s.rows, s.in, s.out),
            tensor_cores_pay(s.out, s.in, s.rows)};
  }
};

TEST_P(MathModeTest, RaggedShapesMatchReference) {
  // Row strides for copies of 16, 8 and 4 bytes, as far as the columns allow.
  for (std::size_t n = 0; n < kTensorShapes.size(); ++n) {
    expect_limits(kTensorShapes[n], 0, n % 2 == 0);
    expect_limits(kTensorShapes[n], static_cast<std::int64_t>(1 + n % 3), n % 2 == 1);
  }
}

TEST_P(MathModeTest, OddStartsOfRowsMatchReference) {
  const Shape s{70, 46, 39};
  const Layer layer(s);
  const auto embedded = [&](const HostMatrix& m, std::int64_t left) {
    HostMatrix wide(m.rows, m.cols + 2 * left, std::numeric_limits<double>::quiet_NaN());
    for (std::int64_t i = 0; i < m.rows; ++i) {
      for (std::int64_t j = 0; j < m.cols; ++j) wide(i, j + left) = m(i, j);
    }
    return upload(context(), wide, DType::f32);
  };
  for (const std::int64_t left : {1, 2}) {
    const DeviceTensor x = embedded(layer.x, left), w = embedded(layer.w, left), y = embedded(layer.grad_y, left);
    for (const MathMode mode : kTensorModes) {
      const MathScope scope(ops(), mode);
      ops().linear_forward(y.tensor().slice_cols(left, s.out), x.tensor().slice_cols(left, s.in),
                           w.tensor().slice_cols(left, s.in));
      const HostMatrix wide = download(context(), y);
      const HostMatrix plain = run(layer, mode, 0, false)[0];
      for (std::int64_t i = 0; i < s.rows; ++i) {
        for (std::int64_t j = 0; j < wide.cols; ++j) {
          const bool inside = j >= left && j < left + s.out;
          EXPECT_TRUE(inside ? wide(i, j) == plain(i, j - left) : std::isnan(wide(i, j))) << i << ", " << j;
        }
      }
    }
  }
}

TEST_P(MathModeTest, SmallShapesAreTheFp32Ones) {
  for (const Shape& s : kSmallShapes) {
    const Layer layer(s);
    const Results plain = run(layer, MathMode::fp32, 1, true);
    for (const MathMode mode : kTensorModes) {
      const Results actual = run(layer, mode, 1, true);
      for (std::size_t k = 0; k < 3; ++k) {
        if (on_tensor_cores(s)[k]) continue;
        EXPECT_MATRICES_IDENTICAL(actual[k], plain[k]) << text(s);
      }
    }
  }
}

TEST_P(MathModeTest, CpuAndDoubleIgnoreTheMode) {
  const Layer layer({70, 66, 65});
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Results plain = run(layer, MathMode::fp32, 0, false, dtype);
    for (const MathMode mode : kTensorModes) {
      const Results actual = run(layer, mode, 0, false, dtype);
      for (std::size_t k = 0; k < 3; ++k) {
        const bool same = static_cast<bool>(matrices_identical(actual[k], plain[k]));
        EXPECT_EQ(same, on_cpu() || dtype == DType::f64) << math_mode_name(mode) << ", result " << k;
      }
    }
  }
}

TEST_P(MathModeTest, OperandsAreRoundedToNearestAndLandWhereTheyBelong) {
  if (on_cpu()) return;
  // Times the identity, every result is one operand, rounded; 4 in the first rows, ties among them.
  const std::int64_t n = 72;
  Layer layer({n, n, n});
  for (std::int64_t j = 0; j < n; ++j) {
    layer.x(0, j) = 1 + 0x1p-11 * static_cast<double>(j);
    layer.x(1, j) = -1 - 0x1p-8 * static_cast<double>(j);
    for (std::int64_t i = 0; i < n; ++i) layer.w(i, j) = i == j ? 1 : 0;
  }
  const HostMatrix& x = layer.x;
  const std::array<HostMatrix, 3> y = {run(layer, MathMode::tf32x3, 0, false)[0],
                                       run(layer, MathMode::tf32, 0, false)[0],
                                       run(layer, MathMode::bf16, 0, false)[0]};
  for (std::size_t k = 0; k < x.values.size(); ++k) {
    const double value = x.values[k];
    ASSERT_LE(std::abs(y[0].values[k] - value), 0x1p-22 * std::abs(value)) << k;
    ASSERT_EQ(y[1].values[k], to_significant_bits(value, 11, false)) << k;
    ASSERT_EQ(y[2].values[k], to_significant_bits(value, 8, true)) << k;
  }
}

TEST_P(MathModeTest, NotANumberSpreadsToWhatDependsOnItAndNoFurther) {
  const Shape s{70, 40, 50};
  Layer layer(s);
  layer.x(2, 1) = std::numeric_limits<double>::quiet_NaN();
  for (const MathMode mode : kTensorModes) {
    const Results actual = run(layer, mode, 3, false);
    for (std::int64_t i = 0; i < s.rows; ++i) {
      for (std::int64_t o = 0; o < s.out; ++o) EXPECT_EQ(std::isnan(actual[0](i, o)), i == 2) << i << ", " << o;
    }
    for (std::int64_t o = 0; o < s.out; ++o) {
      for (std::int64_t k = 0; k < s.in; ++k) EXPECT_EQ(std::isnan(actual[2](o, k)), k == 1) << o << ", " << k;
    }
  }
}

TEST_P(MathModeTest, SameBitsOnEveryRunAndInEveryOrder) {
  for (const Shape& s : {Shape{129, 70, 66}, Shape{800, 33, 40}}) {
    const Layer layer(s);
    for (const MathMode mode : kTensorModes) {
      const Results first = run(layer, mode, 1, true);
      const auto expect_same = [&] {
        const Results again = run(layer, mode, 1, true);
        for (std::size_t k = 0; k < 3; ++k) EXPECT_MATRICES_IDENTICAL(again[k], first[k]) << math_mode_name(mode);
      };
      expect_same();
#ifdef BRACKET_TEST_SIMT
      if (GetParam().name() != "simt") continue;
      for (const int seed : {0, 2, 3}) {
        const ::simt::ScopedOptions options(seed == 0 ? ::simt::Order::reverse : ::simt::Order::random,
                                            static_cast<std::uint64_t>(seed), 2);
        expect_same();
      }
#endif
    }
  }
}

TEST_P(MathModeTest, RecordingsKeepTheirPartialSums) {
  if (on_cpu()) return;  // it records nothing
  const std::unique_ptr<Context> own = GetParam().make_context({});
  Ops& device = own->ops();
  const MathScope scope(device, MathMode::tf32);
  struct Product {
    DeviceTensor grad_x, grad_y, w;
    void run(Ops& ops) const { ops.linear_reverse_data(grad_x, grad_y, w, Update::overwrite); }
    HostMatrix result(Context& context) const { return download(context, grad_x); }
  };
  // Whole numbers: their sums are exact in every mode.
  const auto whole = [](std::int64_t rows, std::int64_t cols, unsigned seed) {
    HostMatrix m = random_matrix(rows, cols, seed);
    for (double& value : m.values) value = std::round(2 * value);
    return m;
  };
  const auto product = [&](std::int64_t rows, std::int64_t in, std::int64_t out) {
    return Product{empty_matrix(*own, DType::f32, rows, in, 0), upload(*own, whole(rows, out, 1), DType::f32),
                   upload(*own, whole(out, in, 2), DType::f32)};
  };
  const Product small = product(64, 64, 1024), large = product(90, 97, 8200);
  ASSERT_GT(tensor_plan(90, 97, 8200, MathMode::tf32, 132).partial_sums, 1 << 18) << "more than the usual 1 MiB";
  const auto record = [&](const Product& p) { return device.record([&] { p.run(device); }); };
  small.run(device);
  const HostMatrix small_result = small.result(*own);
  const std::unique_ptr<Recording> recorded = record(small);
  ASSERT_NE(recorded, nullptr);
  try {
    record(large);
    FAIL() << "took memory while it recorded";
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("run the work once"), std::string::npos) << error.what();
  }
  large.run(device);
  const HostMatrix large_result = large.result(*own);
  {
    const MathScope plain(device, MathMode::fp32);
    large.run(device);
    EXPECT_MATRICES_IDENTICAL(large.result(*own), large_result);
  }
  const std::unique_ptr<Recording> recorded_large = record(large);
  ASSERT_NE(recorded_large, nullptr);
  for (int round = 0; round < 2; ++round) {
    device.fill(small.grad_x, 0);
    device.fill(large.grad_x, 0);
    recorded->replay();  // its partial sums lie where they lay, though there is more room now
    recorded_large->replay();
    EXPECT_MATRICES_IDENTICAL(small.result(*own), small_result);
    EXPECT_MATRICES_IDENTICAL(large.result(*own), large_result);
  }
}

TEST_P(MathModeTest, ContextsStartInTheModeOfTheirOptions) {
  ContextOptions options;
  EXPECT_EQ(GetParam().make_context(options)->math_mode(), MathMode::fp32);
  options.math = MathMode::tf32;
  const std::unique_ptr<Context> own = GetParam().make_context(options);
  EXPECT_EQ(own->math_mode(), MathMode::tf32);
  own->set_math_mode(MathMode::tf32x3);
  {
    const MathScope scope(own->ops(), MathMode::bf16);
    EXPECT_EQ(own->math_mode(), MathMode::bf16);
  }
  EXPECT_EQ(own->math_mode(), MathMode::tf32x3);
}

TEST_P(MathModeTest, ErrorTable) {
  // Worst and root-mean-square error of y as a share of sum |x w|, in units of 2^-24, over 64 x 64 elements.
  std::printf("%6s %6s %12s %12s %12s\n", "K", "mode", "worst", "rms", "limit");
  for (const std::int64_t depth : {32, 128, 512, 2048}) {
    const Shape s{64, depth, 64};
    const Layer layer(s);
    const ProductReference expected = references(s, layer, false)[0];
    for (const MathMode mode : {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
      const HostMatrix y = run(layer, mode, 0, false)[0];
      double worst = 0, squares = 0, limit = 0;
      for (std::size_t k = 0; k < y.values.size(); ++k) {
        const double magnitude = expected.magnitude.values[k] * 0x1p-24;
        const double error = std::abs(y.values[k] - expected.value.values[k]) / magnitude;
        worst = std::max(worst, error);
        squares += error * error;
        limit = std::max(limit, product_limit(on_cpu() ? MathMode::fp32 : mode, static_cast<double>(depth),
                                              expected.magnitude.values[k], expected.square.values[k]) /
                                    magnitude);
      }
      EXPECT_LE(worst, limit) << math_mode_name(mode) << ", K = " << depth;
      const double rms = std::sqrt(squares / static_cast<double>(y.values.size()));
      std::printf("%6lld %6s %12.4g %12.4g %12.4g\n", static_cast<long long>(depth), math_mode_name(mode), worst, rms,
                  limit);
      RecordProperty(std::string(math_mode_name(mode)) + "_" + std::to_string(depth), std::to_string(worst));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, MathModeTest, ::testing::ValuesIn(test_devices()), device_name);

TEST(TensorPlanTest, TheTileIsTheOneThatIsDoneFirst) {
  // One wave of small tiles beats one of large ones; with more tiles than multiprocessors the large ones read less.
  EXPECT_FALSE(tensor_plan(800, 100, 100, MathMode::tf32, 132).large_tile);
  EXPECT_TRUE(tensor_plan(8192, 1024, 1024, MathMode::tf32, 132).large_tile);
  EXPECT_TRUE(tensor_plan(8192, 1024, 1024, MathMode::tf32x3, 132).large_tile);
}

TEST(TensorPlanTest, ChunksAreWholeSlicesThatCoverTheSum) {
  for (const MathMode mode : kTensorModes) {
    for (const std::int64_t p : {16, 255, 256, 511, 1031, 65536}) {
      for (const auto& [m, n] : {std::pair{32, 32}, {100, 100}, {33, 8192}, {1500, 1500}, {8192, 8192}}) {
        const TensorPlan plan = tensor_plan(m, n, p, mode, 132);
        EXPECT_EQ(plan.chunk % kTensorDepth, 0) << p;
        EXPECT_GE(plan.splits * plan.chunk, p);
        EXPECT_LT((plan.splits - 1) * plan.chunk, p);
        EXPECT_EQ(plan.partial_sums, plan.splits == 1 ? 0 : plan.splits * m * n);
        EXPECT_LE(plan.partial_sums, kMostPartialSums);
        EXPECT_TRUE(plan.splits == 1 || plan.chunk >= kMinChunk) << plan.chunk;
        EXPECT_LE(plan.splits, kMostSplits);
      }
    }
  }
}

TEST(TensorPlanTest, NoOtherNumberOfSplitsIsDoneSooner) {
  for (const MathMode mode : kTensorModes) {
    for (const auto& [m, n, p] : {std::array<std::int64_t, 3>{64, 128, 8192},
                                  {8192, 128, 8192},
                                  {100, 100, 800},
                                  {1024, 1024, 1024},
                                  {1500, 1500, 8192},
                                  {4096, 4096, 4096},
                                  {8192, 128, 128}}) {
      const TensorPlan plan = tensor_plan(m, n, p, mode, kNominalMultiprocessors);
      const auto time = [&](std::int64_t splits, std::int64_t chunk) {
        return std::min(tensor_time(kLargeTensorTile, m, n, chunk, splits, mode, kNominalMultiprocessors),
                        tensor_time(kSmallTensorTile, m, n, chunk, splits, mode, kNominalMultiprocessors));
      };
      for (std::int64_t splits = 1; splits <= kMostSplits; ++splits) {
        const std::int64_t chunk = ceil_divide(p, splits * kTensorDepth) * kTensorDepth;
        if (splits > 1 && (splits * kMinChunk > p || splits * m * n > kMostPartialSums)) break;
        EXPECT_LE(time(plan.splits, plan.chunk), time(ceil_divide(p, chunk), chunk)) << m << ", " << n << ", " << p;
      }
    }
  }
}

TEST(TensorPlanTest, TakesTheRoomThatItsSplitsNeed) {
  // By hand, in tf32: 64 large tiles for 132 multiprocessors take 8,192 x 32 + 2,048 cycles, in two chunks half of it
  // and 2,000 + 2 (40 + 2^20 / 1056) more.
  const TensorPlan plan = tensor_plan(8192, 128, 8192, MathMode::tf32, 132);
  EXPECT_EQ(plan.splits, 2);
  EXPECT_TRUE(plan.large_tile);
  EXPECT_EQ(plan.partial_sums, 2 * 8192 * 128);  // 8 MiB
  EXPECT_NEAR(tensor_time(kLargeTensorTile, 8192, 128, 8192, 1, MathMode::tf32, 132), 264192, 0.5);
  EXPECT_NEAR(tensor_time(kLargeTensorTile, 8192, 128, 4096, 2, MathMode::tf32, 132), 137186, 0.5);
  // A full wave of tiles has nothing to win.
  EXPECT_EQ(tensor_plan(4096, 4096, 4096, MathMode::tf32, 132).splits, 1);
}

TEST(TensorPlanTest, SplitsDependOnShapeAndModeAlone) {
  for (const int multiprocessors : {1, 20, 108, 144, 1000}) {
    const TensorPlan plan = tensor_plan(64, 64, 8192, MathMode::bf16, multiprocessors);
    EXPECT_EQ(plan.chunk, tensor_plan(64, 64, 8192, MathMode::bf16, 132).chunk) << multiprocessors;
  }
}

}  // namespace
}  // namespace bracket::test
