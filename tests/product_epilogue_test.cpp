// Epilogues of products: the same bits as the product and then masked_activation_forward or bias_activation_forward, in
// every math mode, on primal and on tangent rows.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "convolution_fixture.h"

namespace bracket::test {
namespace {

using Part = ProductEpilogue::Part;

/// One of the three products as an op on (y, x, w).
struct Product {
  enum class Kind { linear, convolution, transposed };
  Kind kind = Kind::linear;
  std::int64_t inputs = 0, channels = 0;  ///< of linear
  Convolution map = {};                   ///< of the others

  std::int64_t in_columns() const {
    return kind == Kind::linear ? inputs : kind == Kind::convolution ? map.in_columns() : map.out_columns();
  }
  std::int64_t out_columns() const {
    return kind == Kind::linear ? channels : kind == Kind::convolution ? map.out_columns() : map.in_columns();
  }
  std::int64_t out_channels() const {
    return kind == Kind::linear ? channels : kind == Kind::convolution ? map.out_channels : map.in_channels;
  }
  std::int64_t mask_columns() const { return out_columns() / out_channels() * ((out_channels() + 7) / 8); }
  std::int64_t weight_rows() const { return kind == Kind::linear ? channels : map.out_channels; }
  std::int64_t weight_columns() const { return kind == Kind::linear ? inputs : map.weight_columns(); }
  ProductSize size(std::int64_t rows) const {
    return kind == Kind::linear        ? ProductSize{rows, channels, inputs}
           : kind == Kind::convolution ? map.forward_size(rows)
                                       : map.reverse_data_size(rows);
  }
  void run(Ops& ops, const Tensor& y, const Tensor& x, const Tensor& w, const ProductEpilogue& epilogue = {}) const {
    switch (kind) {
      case Kind::linear:
        return ops.linear_forward(y, x, w, epilogue);
      case Kind::convolution:
        return ops.conv2d_forward(y, x, w, map, epilogue);
      case Kind::transposed:
        return ops.conv2d_reverse_data(y, x, w, map, Update::overwrite, epilogue);
    }
  }
  std::string text() const {
    if (kind == Kind::linear) return "dense " + std::to_string(inputs) + " -> " + std::to_string(channels);
    return (kind == Kind::convolution ? "convolution, " : "transposed, ") + bracket::test::text({0, map});
  }
};

Product dense(std::int64_t inputs, std::int64_t channels) { return {Product::Kind::linear, inputs, channels}; }
Product convolution(const Convolution& map) { return {Product::Kind::convolution, 0, 0, map}; }
Product transposed(const Convolution& map) { return {Product::Kind::transposed, 0, 0, map}; }

constexpr Activation kMasked[] = {Activation::relu, Activation::leaky_relu};
constexpr Activation kCurves[] = {Activation::tanh, Activation::sigmoid, Activation::silu, Activation::softplus};
constexpr MathMode kModes[] = {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16};

ActivationKind kind_of(Activation function) { return {function, 0.3}; }
bool masked(Activation function) { return function == Activation::relu || function == Activation::leaky_relu; }

struct Case {
  Product product;
  Rows rows;
  DType dtype = DType::f32;
  std::int64_t padding = 0;
  bool with_bias = true;
  std::string text() const {
    return product.text() + ", " + std::to_string(rows.primal) + " rows, [" + std::to_string(rows.first) + ", +" +
           std::to_string(rows.count) + ") with " + std::to_string(rows.tangents) + " tangents, " + dtype_name(dtype) +
           ", padding " + std::to_string(padding) + (with_bias ? "" : ", no bias");
  }
};

class ProductEpilogueTest : public OpsTest {
 protected:
  /// Operands on the device, and results of either way.
  struct Layer {
    DeviceTensor x, tan_x, w, bias;
  };
  struct Results {
    HostMatrix y, mask, before, tan_y;
  };

  Layer layer(const Case& c, bool with_nan = false) const {
    HostMatrix x = random_matrix(c.rows.primal, c.product.in_columns(), 1);
    if (with_nan && x.size() > 0) x.values[x.values.size() / 2] = std::numeric_limits<double>::quiet_NaN();
    return {
        upload(context(), x, c.dtype, c.padding),
        upload(context(), random_matrix(c.rows.tangent_rows(), c.product.in_columns(), 2), c.dtype, c.padding),
        upload(context(), random_matrix(c.product.weight_rows(), c.product.weight_columns(), 3), c.dtype, c.padding),
        c.with_bias ? upload_vector(context(), random_matrix(c.product.out_channels(), 1, 4), c.dtype)
                    : DeviceTensor()};
  }
  DeviceTensor result(const Case& c, std::int64_t rows) const {
    return empty_matrix(context(), c.dtype, rows, c.product.out_columns(), c.padding);
  }
  DeviceTensor mask_of(const Case& c) const {
    return empty_matrix(context(), DType::u8, c.rows.primal, c.product.mask_columns(), c.padding);
  }

  /// By a product and an op behind it.
  Results apart(const Case& c, const Layer& in, Activation function) const {
    const DeviceTensor y = result(c, c.rows.primal), tan_y = result(c, c.rows.tangent_rows()), mask = mask_of(c);
    c.product.run(ops(), y, in.x, in.w);
    Results out;
    out.before = download(context(), y);
    if (masked(function)) {
      c.product.run(ops(), tan_y, in.tan_x, in.w);
      ops().masked_activation_forward({y, tan_y}, mask, {y, tan_y}, in.bias, c.product.out_channels(),
                                      kind_of(function), c.rows);
      out.tan_y = download(context(), tan_y);
      out.mask = download(context(), mask);
    } else {
      ops().bias_activation_forward({y, {}}, {y, {}}, in.bias, {}, kind_of(function), {c.rows.primal, 0, 0, 0});
    }
    out.y = download(context(), y);
    return out;
  }

  /// By epilogues; `in_place`: before is y.
  Results fused(const Case& c, const Layer& in, Activation function, bool in_place = false) const {
    const DeviceTensor y = result(c, c.rows.primal), mask = masked(function) ? mask_of(c) : DeviceTensor();
    const bool curve = !masked(function) && function != Activation::identity;
    const DeviceTensor own = curve && !in_place ? result(c, c.rows.primal) : DeviceTensor();
    const Tensor before = curve ? (in_place ? y.tensor() : own.tensor()) : Tensor();
    c.product.run(ops(), y, in.x, in.w, {Part::primal, kind_of(function), in.bias, mask, before, {}});
    Results out;
    out.y = download(context(), y);
    if (curve && !in_place) out.before = download(context(), before);
    if (!masked(function)) return out;
    out.mask = download(context(), mask);
    const DeviceTensor tan_y = result(c, c.rows.tangent_rows());
    c.product.run(ops(), tan_y, in.tan_x, in.w, {Part::tangent, kind_of(function), {}, mask, {}, c.rows});
    out.tan_y = download(context(), tan_y);
    EXPECT_MATRICES_IDENTICAL(download(context(), mask), out.mask) << "read by tangents";
    return out;
  }

  void expect_same_bits(const Case& c, Activation function, bool with_nan = false) const {
    const Layer in = layer(c, with_nan);
    const Results expected = apart(c, in, function), actual = fused(c, in, function);
    const std::string what =
        c.text() + ", " + std::to_string(static_cast<int>(function)) + ", " + math_mode_name(ops().math_mode());
    EXPECT_MATRICES_IDENTICAL(actual.y, expected.y) << "y, " << what;
    if (masked(function)) {
      EXPECT_MATRICES_IDENTICAL(actual.mask, expected.mask) << "mask, " << what;
      EXPECT_MATRICES_IDENTICAL(actual.tan_y, expected.tan_y) << "y', " << what;
    } else if (function != Activation::identity) {
      EXPECT_MATRICES_IDENTICAL(actual.before, expected.before) << "before, " << what;
      EXPECT_MATRICES_IDENTICAL(fused(c, in, function, true).y, expected.y) << "in place, " << what;
    }
  }

  /// Every function with a mask, with and without a bias, and the curves in turn.
  void expect_same_bits(Case c, std::size_t turn) const {
    for (const Activation function : kMasked) expect_same_bits(c, function);
    expect_same_bits(c, Activation::identity);
    expect_same_bits(c, kCurves[turn % 4]);
    c.with_bias = false;
    expect_same_bits(c, kMasked[turn % 2]);
    expect_same_bits(c, turn % 5 == 0 ? Activation::identity : kCurves[turn % 4]);
  }

  bool on_cpu() const { return GetParam().name() == "cpu"; }
};

/// Channels that fill bytes of a mask and leave them ragged, whole words of a quad and parts; small and large tiles,
/// rows that end inside one; the last, a contraction in chunks.
const std::vector<Case>& shapes() {
  const Rows few{37, 3, 17, 2}, many{33, 0, 33, 1};
  static const std::vector<Case> cases = {
      {dense(40, 1), few},
      {dense(40, 3), few},
      {dense(33, 8), few},
      {dense(50, 13), few},
      {dense(36, 64), many},
      {dense(35, 100), few},
      {dense(70, 33), {40, 7, 33, 1}},
      {dense(18, 36), {300, 100, 150, 2}},
      {dense(1057, 52), {40, 0, 40, 1}},
      {dense(20, 257), {33, 1, 32, 3}},
      {convolution({7, 6, 5, 1, 3, 1, 1}), {5, 1, 3, 2}},
      {convolution({7, 6, 5, 3, 3, 2, 1}), {5, 1, 3, 2}},
      {convolution({7, 6, 6, 8, 3, 1, 1}), {5, 1, 3, 2}},
      {convolution({6, 5, 7, 13, 3, 1, 1}), {5, 1, 3, 2}},
      {convolution({7, 6, 12, 64, 3, 1, 1}), {5, 1, 3, 2}},
      {convolution({9, 8, 10, 100, 4, 2, 1}), {5, 2, 3, 3}},
      {convolution({7, 7, 33, 35, 2, 3, 0}), {11, 0, 11, 1}},
      {transposed({9, 8, 3, 40, 4, 2, 1}), {5, 1, 3, 2}},
      {transposed({10, 9, 64, 12, 3, 2, 1}), {6, 2, 3, 2}},
      {transposed({9, 10, 100, 20, 2, 2, 0}), {7, 1, 6, 1}},  // output padding: no kernel reaches the last row
      {transposed({7, 8, 36, 33, 3, 1, 1}), {5, 1, 4, 2}},
      {transposed({11, 9, 45, 36, 2, 3, 0}), {9, 2, 6, 2}}};  // classes of pixels that no tap reaches
  return cases;
}

TEST_P(ProductEpilogueTest, EqualsTheOpsItReplacesInEveryMode) {
  std::size_t turn = 0;
  for (const MathMode mode : kModes) {
    const MathScope scope(ops(), mode);
    for (Case c : shapes()) {
      c.padding = static_cast<std::int64_t>(turn % 3);
      expect_same_bits(c, turn++);
    }
  }
}

TEST_P(ProductEpilogueTest, EqualsTheOpsItReplacesInDouble) {
  std::size_t turn = 0;
  for (Case c : shapes()) {
    c.dtype = DType::f64;
    expect_same_bits(c, turn++);
  }
}

// Which of the shapes take tensor cores, so that the tests above see them, and that some do not.
TEST_P(ProductEpilogueTest, IsFusedOnTensorCoresAlone) {
  std::int64_t fused = 0;
  for (const MathMode mode : kModes) {
    const MathScope scope(ops(), mode);
    for (const Case& c : shapes()) {
      const ProductSize size = c.product.size(c.rows.primal);
      EXPECT_FALSE(ops().fuses_epilogue(DType::f64, size));
      const bool fuses = ops().fuses_epilogue(DType::f32, size);
      EXPECT_EQ(fuses, !on_cpu() && mode != MathMode::fp32 && size.m >= 32 && size.n >= 32 && size.p >= 16) << c.text();
      fused += fuses ? 1 : 0;
    }
  }
  EXPECT_EQ(fused, on_cpu() ? 0 : 3 * 13);
}

TEST_P(ProductEpilogueTest, NotANumberCountsAsPositiveAndFillsNoUnusedBits) {
  for (const MathMode mode : {MathMode::fp32, MathMode::tf32}) {
    const MathScope scope(ops(), mode);
    for (const Product& product :
         {dense(40, 43), dense(1057, 52), convolution({5, 6, 12, 37, 3, 1, 1}), transposed({7, 6, 45, 33, 3, 2, 1})}) {
      const Case c{product, {40, 0, 40, 1}};
      for (const Activation function : kMasked) expect_same_bits(c, function, true);
      const Layer in = layer(c, true);
      const Results out = fused(c, in, Activation::relu);
      std::int64_t nans = 0;
      const std::int64_t channels = product.out_channels(), bytes = (channels + 7) / 8;
      for (std::int64_t i = 0; i < out.y.rows; ++i) {
        for (std::int64_t j = 0; j < out.mask.cols; ++j) {
          const auto byte = static_cast<unsigned>(out.mask(i, j));
          for (std::int64_t k = 0; k < 8; ++k) {
            const std::int64_t channel = j % bytes * 8 + k;
            const bool set = (byte >> k & 1) != 0;
            if (channel >= channels) {
              EXPECT_FALSE(set) << c.text();
              continue;
            }
            const double y = out.y(i, j / bytes * channels + channel);
            nans += std::isnan(y) ? 1 : 0;
            EXPECT_EQ(set, std::isnan(y) || y > 0) << c.text() << ", " << y;
          }
        }
      }
      EXPECT_GE(nans, channels) << c.text();
    }
  }
}

// The definition, apart from the ops that the other tests compare with: small whole numbers are exact in every mode.
TEST_P(ProductEpilogueTest, IsWhatItsDefinitionSays) {
  const std::int64_t in = 34, out = 45;
  const Rows rows{39, 2, 19, 2};
  const auto whole = [](std::int64_t r, std::int64_t c, std::uint64_t salt) {
    HostMatrix m = random_matrix(r, c, salt);
    for (double& value : m.values) value = std::round(3 * value);
    return m;
  };
  const HostMatrix x = whole(rows.primal, in, 1), tan_x = whole(rows.tangent_rows(), in, 2), w = whole(out, in, 3);
  const HostMatrix bias = whole(out, 1, 4);
  const auto dot = [&](const HostMatrix& a, std::int64_t i, std::int64_t o) {
    double sum = 0;
    for (std::int64_t k = 0; k < in; ++k) sum += a(i, k) * w(o, k);
    return sum;
  };
  const DeviceTensor dx = upload(context(), x, DType::f32), dw = upload(context(), w, DType::f32);
  const DeviceTensor dtan = upload(context(), tan_x, DType::f32), db = upload_vector(context(), bias, DType::f32);
  for (const MathMode mode : kModes) {
    const MathScope scope(ops(), mode);
    const DeviceTensor y = empty_matrix(context(), DType::f32, rows.primal, out);
    const DeviceTensor tan_y = empty_matrix(context(), DType::f32, rows.tangent_rows(), out);
    const DeviceTensor mask = empty_matrix(context(), DType::u8, rows.primal, (out + 7) / 8);
    const ActivationKind kind{Activation::leaky_relu, 0.5};
    ops().linear_forward(y, dx, dw, {Part::primal, kind, db, mask, {}, {}});
    ops().linear_forward(tan_y, dtan, dw, {Part::tangent, kind, {}, mask, {}, rows});
    const HostMatrix actual = download(context(), y), tangent = download(context(), tan_y);
    for (std::int64_t i = 0; i < rows.primal; ++i) {
      for (std::int64_t o = 0; o < out; ++o) {
        const double v = dot(x, i, o) + bias(o, 0);
        EXPECT_EQ(actual(i, o), v > 0 ? v : 0.5 * v);
        if (i < rows.first || i >= rows.first + rows.count) continue;
        for (std::int64_t k = 0; k < rows.tangents; ++k) {
          const std::int64_t r = (i - rows.first) * rows.tangents + k;
          EXPECT_EQ(tangent(r, o), (v > 0 ? 1 : 0.5) * dot(tan_x, r, o)) << "tangent " << k << " of row " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ProductEpilogueTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
