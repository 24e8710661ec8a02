// masked_activation_forward and _reverse: values and derivatives against bias_activation, which has its own references,
// and the bits of the mask against their definition.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <optional>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

struct MaskedCase {
  Activation function = Activation::relu;
  DType dtype = DType::f32;
  Rows rows;
  std::int64_t pixels = 1;
  std::int64_t channels = 1;
  bool with_bias = true;
  std::int64_t padding = 0;

  std::int64_t cols() const { return pixels * channels; }
  std::int64_t mask_cols() const { return pixels * ((channels + 7) / 8); }
  ActivationKind kind() const { return {function, 0.2}; }
  double slope() const {
    if (function == Activation::relu) return 0;
    return dtype == DType::f32 ? static_cast<double>(0.2F) : 0.2;
  }
  HostMatrix primal(std::uint64_t salt) const { return random_matrix(rows.primal, cols(), salt).rounded(dtype); }
  HostMatrix tangent(std::uint64_t salt) const {
    return random_matrix(rows.tangent_rows(), cols(), salt).rounded(dtype);
  }
  std::string text() const {
    return std::string(function == Activation::relu ? "relu " : "leaky_relu ") + dtype_name(dtype) + ", " +
           std::to_string(rows.primal) + " rows of " + std::to_string(pixels) + " pixels of " +
           std::to_string(channels) + " channels, rows [" + std::to_string(rows.first) + ", +" +
           std::to_string(rows.count) + ") with " + std::to_string(rows.tangents) + " tangents";
  }
};

double rounded(double value, DType dtype) {
  return dtype == DType::f32 ? static_cast<double>(static_cast<float>(value)) : value;
}

/// Everything in double, rounded as one operation of the dtype: the ops make a single rounding per element, so these
/// are the exact results.
struct Expected {
  HostMatrix y, tan_y, mask, grad_x, grad_tan_x;
  std::vector<double> bias_sum, bias_scale;  ///< and the sum of magnitudes
};

class MaskedActivationTest : public OpsTest {
 protected:
  struct Operands {
    HostMatrix x, tan_x, bias, grad_y, grad_tan_y;
  };
  static Operands operands(const MaskedCase& c) {
    return {c.primal(1), c.tangent(2), random_matrix(c.channels, 1, 3).rounded(c.dtype), c.primal(4), c.tangent(5)};
  }

  static Expected expected(const MaskedCase& c, const Operands& in) {
    Expected e{c.primal(0), c.tangent(0), HostMatrix(c.rows.primal, c.mask_cols()), c.primal(0), c.tangent(0), {}, {}};
    e.bias_sum.assign(static_cast<std::size_t>(c.channels), 0);
    e.bias_scale = e.bias_sum;
    HostMatrix first = c.primal(0);
    for (std::int64_t i = 0; i < c.rows.primal; ++i) {
      for (std::int64_t j = 0; j < c.cols(); ++j) {
        const std::int64_t channel = j % c.channels;
        const double v = rounded(in.x(i, j) + (c.with_bias ? in.bias(channel, 0) : 0), c.dtype);
        const bool positive = !(v <= 0);
        first(i, j) = positive ? 1 : c.slope();
        e.y(i, j) = positive ? v : c.function == Activation::relu ? 0 : rounded(c.slope() * v, c.dtype);
        e.grad_x(i, j) = rounded(first(i, j) * in.grad_y(i, j), c.dtype);
        e.bias_sum[static_cast<std::size_t>(channel)] += e.grad_x(i, j);
        e.bias_scale[static_cast<std::size_t>(channel)] += std::abs(e.grad_x(i, j));
        const std::int64_t byte = j / c.channels * ((c.channels + 7) / 8) + channel / 8;
        if (positive) e.mask(i, byte) += static_cast<double>(1 << (channel % 8));
      }
    }
    for (std::int64_t r = 0; r < c.rows.tangent_rows(); ++r) {
      const std::int64_t i = c.rows.first + r / c.rows.tangents;
      for (std::int64_t j = 0; j < c.cols(); ++j) {
        e.tan_y(r, j) = rounded(first(i, j) * in.tan_x(r, j), c.dtype);
        e.grad_tan_x(r, j) = rounded(first(i, j) * in.grad_tan_y(r, j), c.dtype);
      }
    }
    return e;
  }

  /// HostMatrix entries compare as numbers here: -0 of a product with slope 0 equals 0.
  static void expect_equal(const HostMatrix& actual, const HostMatrix& expected, const std::string& what) {
    EXPECT_MATRICES_CLOSE(actual, expected, absolute_limit(0)) << what;
  }

  void check(const MaskedCase& c) const {
    const Operands in = operands(c);
    const Expected e = expected(c, in);
    const DeviceTensor x = upload(context(), in.x, c.dtype, c.padding);
    const DeviceTensor tan_x = upload(context(), in.tan_x, c.dtype, c.padding);
    const DeviceTensor bias = c.with_bias ? upload_vector(context(), in.bias, c.dtype) : DeviceTensor();
    const DeviceTensor mask = empty_matrix(context(), DType::u8, c.rows.primal, c.mask_cols(), c.padding);
    const DeviceTensor y = empty_matrix(context(), c.dtype, c.rows.primal, c.cols(), c.padding);
    const DeviceTensor tan_y = empty_matrix(context(), c.dtype, c.rows.tangent_rows(), c.cols(), c.padding);
    ops().masked_activation_forward({y, tan_y}, mask, {x, tan_x}, bias, c.channels, c.kind(), c.rows);
    expect_equal(download(context(), y), e.y, "y, " + c.text());
    expect_equal(download(context(), tan_y), e.tan_y, "y', " + c.text());
    expect_equal(download(context(), mask), e.mask, "mask, " + c.text());

    const DeviceTensor later = empty_matrix(context(), c.dtype, c.rows.tangent_rows(), c.cols(), c.padding);
    ops().masked_activation_forward({{}, later}, mask, {{}, tan_x}, {}, c.channels, c.kind(), c.rows);
    expect_equal(download(context(), later), e.tan_y, "y' from the mask, " + c.text());
    expect_equal(download(context(), mask), e.mask, "mask after reading, " + c.text());

    for (const Update update : {Update::overwrite, Update::accumulate}) {
      const double start = update == Update::accumulate ? 0.5 : std::numeric_limits<double>::quiet_NaN();
      const DeviceTensor grad_y = upload(context(), in.grad_y, c.dtype, c.padding);
      const DeviceTensor grad_tan_y = upload(context(), in.grad_tan_y, c.dtype, c.padding);
      const DeviceTensor grad_x = empty_matrix(context(), c.dtype, c.rows.primal, c.cols(), c.padding);
      const DeviceTensor grad_tan_x = empty_matrix(context(), c.dtype, c.rows.tangent_rows(), c.cols(), c.padding);
      const DeviceTensor grad_bias = upload_vector(context(), HostMatrix(c.channels, 1, start), c.dtype);
      ops().masked_activation_reverse({grad_x, grad_tan_x}, grad_bias, {grad_y, grad_tan_y}, mask, c.channels, c.kind(),
                                      c.rows, update);
      expect_equal(download(context(), grad_x), e.grad_x, "grad_x, " + c.text());
      expect_equal(download(context(), grad_tan_x), e.grad_tan_x, "grad_x', " + c.text());
      const HostMatrix sums = download(context(), grad_bias);
      for (std::int64_t channel = 0; channel < c.channels; ++channel) {
        const auto k = static_cast<std::size_t>(channel);
        const double before = update == Update::accumulate ? 0.5 : 0;
        // A sum of n rounded terms: at most n roundings, each of at most u times the sum of magnitudes.
        const auto terms = static_cast<double>(c.rows.primal * c.pixels + 1);
        EXPECT_NEAR(sums(channel, 0), before + e.bias_sum[k],
                    terms * unit_roundoff(c.dtype) * (before + e.bias_scale[k]))
            << "grad_bias " << channel << ", " << c.text();
      }
    }
  }
};

/// Pixels that fill runs, leave them ragged, do not fit one; bytes that are full, partly used, several per pixel.
const std::array<MaskedCase, 15> kShapes{{{Activation::relu, DType::f32, {0, 0, 0, 0}, 4, 3},
                                          {Activation::relu, DType::f32, {3, 0, 3, 1}, 0, 3},
                                          {Activation::relu, DType::f32, {1, 0, 1, 1}, 1, 1},
                                          {Activation::relu, DType::f32, {3, 0, 3, 1}, 49, 1, false},
                                          {Activation::relu, DType::f32, {5, 1, 3, 2}, 100, 3},
                                          {Activation::relu, DType::f32, {4, 0, 4, 1}, 9, 17},
                                          {Activation::relu, DType::f32, {3, 0, 0, 0}, 64, 64},
                                          {Activation::relu, DType::f32, {2, 0, 2, 3}, 5, 100, false},
                                          {Activation::relu, DType::f32, {3, 1, 2, 1}, 3, 300},
                                          {Activation::relu, DType::f32, {9, 2, 5, 1}, 4, 8, true, 5},
                                          {Activation::relu, DType::f32, {70, 0, 70, 1}, 33, 2},
                                          {Activation::relu, DType::f32, {33, 0, 33, 1}, 1, 257},
                                          {Activation::relu, DType::f32, {31, 5, 20, 2}, 1, 33, true, 3},
                                          {Activation::relu, DType::f32, {129, 0, 129, 1}, 1, 16},
                                          {Activation::relu, DType::f32, {600, 0, 0, 0}, 4, 3}}};

TEST_P(MaskedActivationTest, MatchesReference) {
  for (const Activation function : {Activation::relu, Activation::leaky_relu}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (MaskedCase c : kShapes) {
        c.function = function;
        c.dtype = dtype;
        check(c);
      }
    }
  }
}

TEST_P(MaskedActivationTest, EqualsBiasActivationInPlaceAndOutOfPlace) {
  for (const Activation function : {Activation::relu, Activation::leaky_relu}) {
    const MaskedCase c{function, DType::f32, {37, 4, 20, 2}, 6, 24};
    const Operands in = operands(c);
    const DeviceTensor bias = upload_vector(context(), in.bias, c.dtype);
    const DeviceTensor mask = empty(context(), DType::u8, {c.rows.primal, c.mask_cols()});
    const DeviceTensor kept_x = upload(context(), in.x, c.dtype), kept_tan_x = upload(context(), in.tan_x, c.dtype);
    const DeviceTensor y = empty(context(), c.dtype, {c.rows.primal, c.cols()});
    const DeviceTensor tan_y = empty(context(), c.dtype, {c.rows.tangent_rows(), c.cols()});
    ops().bias_activation_forward({y, tan_y}, {kept_x, kept_tan_x}, bias, {}, c.kind(), c.rows);
    const DeviceTensor x = upload(context(), in.x, c.dtype), tan_x = upload(context(), in.tan_x, c.dtype);
    ops().masked_activation_forward({x, tan_x}, mask, {x, tan_x}, bias, c.channels, c.kind(), c.rows);
    EXPECT_MATRICES_IDENTICAL(download(context(), x), download(context(), y)) << c.text();
    EXPECT_MATRICES_IDENTICAL(download(context(), tan_x), download(context(), tan_y)) << c.text();

    const DeviceTensor grad_y = upload(context(), in.grad_y, c.dtype);
    const DeviceTensor grad_tan_y = upload(context(), in.grad_tan_y, c.dtype);
    const DeviceTensor grad_bias = empty(context(), c.dtype, {c.channels});
    const DeviceTensor masked_grad_bias = empty(context(), c.dtype, {c.channels});
    const DeviceTensor grad_x = empty(context(), c.dtype, {c.rows.primal, c.cols()});
    const DeviceTensor grad_tan_x = empty(context(), c.dtype, {c.rows.tangent_rows(), c.cols()});
    ops().bias_activation_reverse({grad_x, grad_tan_x}, grad_bias, {}, {grad_y, grad_tan_y}, {kept_x, kept_tan_x}, bias,
                                  {}, c.kind(), c.rows, Update::overwrite);
    ops().masked_activation_reverse({grad_y, grad_tan_y}, masked_grad_bias, {grad_y, grad_tan_y}, mask, c.channels,
                                    c.kind(), c.rows, Update::overwrite);
    EXPECT_MATRICES_IDENTICAL(download(context(), grad_y), download(context(), grad_x)) << c.text();
    EXPECT_MATRICES_IDENTICAL(download(context(), grad_tan_y), download(context(), grad_tan_x)) << c.text();
    // The two ops may cut rows into panels of different sizes.
    EXPECT_MATRICES_CLOSE(download(context(), masked_grad_bias), download(context(), grad_bias),
                          absolute_limit(37 * 6 * unit_roundoff(c.dtype) * 37 * 6));
  }
}

TEST_P(MaskedActivationTest, AbsentSeedIsZero) {
  const MaskedCase c{Activation::leaky_relu, DType::f64, {7, 2, 3, 2}, 5, 6};
  const Operands in = operands(c);
  const Expected e = expected(c, in);
  const DeviceTensor x = upload(context(), in.x, c.dtype);
  const DeviceTensor bias = upload_vector(context(), in.bias, c.dtype);
  const DeviceTensor mask = empty(context(), DType::u8, {c.rows.primal, c.mask_cols()});
  ops().masked_activation_forward({x, {}}, mask, {x, {}}, bias, c.channels, c.kind(), c.rows);
  const DeviceTensor grad_tan_y = upload(context(), in.grad_tan_y, c.dtype);
  const DeviceTensor grad_x = empty(context(), c.dtype, {c.rows.primal, c.cols()});
  const DeviceTensor grad_tan_x = empty(context(), c.dtype, {c.rows.tangent_rows(), c.cols()});
  const DeviceTensor grad_bias = upload_vector(context(), HostMatrix(c.channels, 1, 0.25), c.dtype);
  ops().masked_activation_reverse({grad_x, grad_tan_x}, grad_bias, {{}, grad_tan_y}, mask, c.channels, c.kind(), c.rows,
                                  Update::accumulate);
  expect_equal(download(context(), grad_x), HostMatrix(c.rows.primal, c.cols(), 0), "grad_x");
  expect_equal(download(context(), grad_tan_x), e.grad_tan_x, "grad_x'");
  expect_equal(download(context(), grad_bias), HostMatrix(c.channels, 1, 0.25), "grad_bias");
}

TEST_P(MaskedActivationTest, ZerosAreNegativeAndNotANumberIsKept) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Activation function : {Activation::relu, Activation::leaky_relu}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      HostMatrix values(1, 8);
      values.values = {0.0,
                       -0.0,
                       nan,
                       1e-40,
                       -1e-40,
                       std::numeric_limits<double>::infinity(),
                       -std::numeric_limits<double>::infinity(),
                       1};
      const DeviceTensor x = upload(context(), values, dtype);
      const DeviceTensor mask = empty(context(), DType::u8, {1, 1});
      ops().masked_activation_forward({x, {}}, mask, {x, {}}, {}, 8, {function, 0.5}, {1, 0, 0, 0});
      const HostMatrix y = download(context(), x);
      EXPECT_EQ(download(context(), mask)(0, 0), 0b10101100);
      EXPECT_TRUE(std::isnan(y(0, 2)));
      EXPECT_EQ(y(0, 0), 0);
      EXPECT_EQ(y(0, 6), function == Activation::relu ? 0 : -std::numeric_limits<double>::infinity());
      EXPECT_EQ(y(0, 7), 1);
    }
  }
}

TEST_P(MaskedActivationTest, AdjointIdentity) {
  const MaskedCase c{Activation::leaky_relu, DType::f64, {11, 1, 9, 3}, 7, 11};
  const Operands in = operands(c);
  const DeviceTensor x = upload(context(), in.x, c.dtype), tan_x = upload(context(), in.tan_x, c.dtype);
  const DeviceTensor bias = upload_vector(context(), in.bias, c.dtype);
  const DeviceTensor grad_tan_y = upload(context(), in.grad_tan_y, c.dtype);
  const DeviceTensor mask = empty(context(), DType::u8, {c.rows.primal, c.mask_cols()});
  const DeviceTensor tan_y = empty(context(), c.dtype, {c.rows.tangent_rows(), c.cols()});
  const DeviceTensor grad_tan_x = empty(context(), c.dtype, {c.rows.tangent_rows(), c.cols()});
  ops().masked_activation_forward({x, tan_y}, mask, {x, tan_x}, bias, c.channels, c.kind(), c.rows);
  ops().masked_activation_reverse({{}, grad_tan_x}, {}, {{}, grad_tan_y}, mask, c.channels, c.kind(), c.rows,
                                  Update::overwrite);
  const HostMatrix forward = download(context(), tan_y), back = download(context(), grad_tan_x);
  double left = 0, right = 0, scale = 0;
  for (std::size_t k = 0; k < forward.values.size(); ++k) {
    left += forward.values[k] * in.grad_tan_y.values[k];
    right += in.tan_x.values[k] * back.values[k];
    scale += std::abs(left);
  }
  // Two roundings per term and one per addition; `scale` bounds the sum of the partial sums.
  EXPECT_NEAR(left, right, 4 * unit_roundoff(DType::f64) * (scale + static_cast<double>(forward.size())));
}

INSTANTIATE_TEST_SUITE_P(Devices, MaskedActivationTest, ::testing::ValuesIn(test_devices()), device_name);

TEST(MaskedActivationThreadsTest, SameBitsForEveryNumberOfThreads) {
  for (const MaskedCase& c : {MaskedCase{Activation::leaky_relu, DType::f32, {65, 3, 50, 2}, 64, 24},
                              MaskedCase{Activation::relu, DType::f64, {1003, 0, 1003, 1}, 1, 97}}) {
    std::optional<std::array<HostMatrix, 4>> first;
    for (const int threads : {1, 2, 8}) {
      ContextOptions options;
      options.threads = threads;
      const std::unique_ptr<Context> context = TestDevice("cpu").make_context(options);
      const DeviceTensor x = upload(*context, c.primal(1), c.dtype), tan_x = upload(*context, c.tangent(2), c.dtype);
      const DeviceTensor mask = empty(*context, DType::u8, {c.rows.primal, c.mask_cols()});
      const DeviceTensor grad_bias = empty(*context, c.dtype, {c.channels});
      context->ops().masked_activation_forward({x, tan_x}, mask, {x, tan_x}, {}, c.channels, c.kind(), c.rows);
      const HostMatrix y = download(*context, x), tan_y = download(*context, tan_x);
      context->ops().masked_activation_reverse({x, tan_x}, grad_bias, {x, tan_x}, mask, c.channels, c.kind(), c.rows,
                                               Update::overwrite);
      const std::array<HostMatrix, 4> results{y, tan_y, download(*context, x), download(*context, grad_bias)};
      if (!first) first = results;
      for (std::size_t k = 0; k < results.size(); ++k) EXPECT_MATRICES_IDENTICAL(results[k], (*first)[k]) << c.text();
    }
  }
}

}  // namespace
}  // namespace bracket::test
