// The math mode of a network's passes: that of the context, unless the network has one of its own.
#include <gtest/gtest.h>

#include <optional>

#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

NetworkSpec spec() {
  return {40, {LinearSpec{64}, ActivationSpec{Activation::silu}, LinearSpec{48}, ActivationSpec{Activation::silu}}};
}

constexpr std::int64_t kRows = 20;
constexpr TangentLayout kLayout{0, kRows, 2};

/// What each of the calls computes; NetworkMath::jacobian counts for push, push_through and pull_through.
struct Passes {
  std::vector<double> forward, fused, push, evaluate, push_through, pull_through, reverse;
};

class NetworkMathTest : public OpsTest {
 protected:
  Passes run(MathMode context_mode, const NetworkMath& math) const {
    const MathScope scope(ops(), context_mode);
    NetworkOnDevice n(context(), spec(), DType::f32);
    n.network().set_math(math);
    const Network& network = n.network();
    const DeviceTensor x = upload(context(), random_matrix(2 * kRows, 40, 1), DType::f32);
    const DeviceTensor tangents = upload(context(), random_matrix(kLayout.rows(), 40, 2), DType::f32);
    const DeviceTensor cotangents = upload(context(), random_matrix(kLayout.rows(), 48, 3), DType::f32);
    const DeviceTensor y = empty_matrix(context(), DType::f32, 2 * kRows, 48);
    const DeviceTensor jv = empty_matrix(context(), DType::f32, kLayout.rows(), 48);
    const DeviceTensor jw = empty_matrix(context(), DType::f32, kLayout.rows(), 40);
    // Jacobians of a pass in the operands' precision, so that only their own mode shows.
    PrimalPass primal, pass, fused;
    TangentPass pushed, fused_tangents;
    {
      const MathScope plain(ops(), MathMode::fp32);
      n.network().set_math({});
      network.forward(ops(), n.arena(), primal, n.parameters(), x, PassMode::inference);
      n.network().set_math(math);
    }
    network.forward(ops(), n.arena(), pass, n.parameters(), x, PassMode::inference);
    network.forward(ops(), n.arena(), fused, fused_tangents, n.parameters(), x, tangents, kLayout, PassMode::inference);
    network.push(ops(), n.arena(), pushed, primal, tangents, kLayout);
    network.evaluate(ops(), n.arena(), y, n.parameters(), x, PassMode::inference);
    network.push_through(ops(), n.arena(), jv, primal, tangents, kLayout);
    network.pull_through(ops(), n.arena(), jw, primal, cotangents, kLayout);
    ReverseRequest request;
    request.grad_parameters = n.gradient();
    network.reverse(ops(), n.arena(), primal, nullptr, y, {}, request);
    EXPECT_EQ(ops().math_mode(), context_mode);
    const auto values = [&](const Tensor& tensor) { return to_host(ops(), tensor); };
    return {values(pass.output()),
            values(fused_tangents.output()),
            values(pushed.output()),
            values(y),
            values(jv),
            values(jw),
            values(n.gradient())};
  }
};

TEST_P(NetworkMathTest, APassTakesItsNetworksModeOrThatOfTheContext) {
  const bool tensor_cores = GetParam().name() != "cpu";
  const Passes plain = run(MathMode::fp32, {});
  const Passes quick = run(MathMode::tf32, {});
  const auto expect_passes = [](const Passes& a, const Passes& b, bool same) {
    EXPECT_EQ(a.forward == b.forward, same);
    EXPECT_EQ(a.fused == b.fused, same);
    EXPECT_EQ(a.evaluate == b.evaluate, same);
    EXPECT_EQ(a.reverse == b.reverse, same);
  };
  const auto expect_jacobian = [](const Passes& a, const Passes& b, bool same) {
    EXPECT_EQ(a.push == b.push, same);
    EXPECT_EQ(a.push_through == b.push_through, same);
    EXPECT_EQ(a.pull_through == b.pull_through, same);
  };
  expect_passes(quick, plain, !tensor_cores);
  expect_jacobian(quick, plain, !tensor_cores);
  const Passes jacobian = run(MathMode::fp32, {std::nullopt, MathMode::tf32});
  expect_passes(jacobian, plain, true);
  expect_jacobian(jacobian, quick, true);
  const Passes passes = run(MathMode::tf32, {std::nullopt, MathMode::fp32});
  expect_passes(passes, quick, true);
  expect_jacobian(passes, plain, true);
  const Passes both = run(MathMode::bf16, {MathMode::tf32, MathMode::fp32});
  expect_passes(both, quick, true);
  expect_jacobian(both, plain, true);
}

/// One layer with a non-linearity behind it, or none.
struct EpilogueCase {
  const char* name;
  NetworkSpec spec;
  ActivationKind kind;
  Convolution map = {};  ///< of a convolution; in_height 0: dense
  bool transposed = false;
};

std::vector<EpilogueCase> epilogue_cases() {
  const auto dense = [](std::vector<LayerSpec> behind) {
    NetworkSpec spec{40, {LinearSpec{45}}};
    spec.layers.insert(spec.layers.end(), behind.begin(), behind.end());
    return spec;
  };
  ActivationSpec leaky{Activation::leaky_relu};
  leaky.negative_slope = 0.3;
  NetworkSpec convolution{7 * 6 * 5, {Conv2dSpec{35, 3, 2, 1}, leaky}};
  convolution.image = ImageShape{5, 7, 6};
  NetworkSpec transposed{4 * 3 * 12, {ConvTranspose2dSpec{33, 3, 2, 1, 1}, ActivationSpec{Activation::relu}}};
  transposed.image = ImageShape{12, 4, 3};
  return {{"dense, relu", dense({ActivationSpec{Activation::relu}}), {Activation::relu}},
          {"dense, leaky_relu", dense({leaky}), {Activation::leaky_relu, 0.3}},
          {"dense, tanh", dense({ActivationSpec{Activation::tanh}}), {Activation::tanh}},
          {"dense", dense({}), {}},
          {"convolution, leaky_relu", convolution, {Activation::leaky_relu, 0.3}, {7, 6, 5, 35, 3, 2, 1}},
          {"transposed, relu", transposed, {Activation::relu}, {8, 6, 33, 12, 3, 2, 1}, true}};
}

TEST_P(NetworkMathTest, EpiloguesOfProductsAreTheOpsBehindThem) {
  for (const EpilogueCase& one : epilogue_cases()) {
    for (const MathMode mode : {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
      const MathScope scope(ops(), mode);
      NetworkOnDevice n(context(), one.spec, DType::f32);
      const Network& network = n.network();
      const std::int64_t in = network.input_size(), out = network.output_size();
      constexpr std::int64_t kPrimal = 40;
      const TangentLayout layout{4, 36, 1};
      const Rows rows{kPrimal, 4, 36, 1};
      const DeviceTensor x = upload(context(), random_matrix(kPrimal, in, 1), DType::f32);
      const DeviceTensor tangents = upload(context(), random_matrix(layout.rows(), in, 2), DType::f32);
      PrimalPass alone, both;
      TangentPass pushed, with;
      network.forward(ops(), n.arena(), alone, n.parameters(), x, PassMode::inference);
      network.push(ops(), n.arena(), pushed, alone, tangents, layout);
      network.forward(ops(), n.arena(), both, with, n.parameters(), x, tangents, layout, PassMode::inference);

      const std::vector<ParameterInfo> infos = network.parameters();
      const bool weight_first = infos[0].name.ends_with("weight");
      const ParameterInfo &weight = infos[weight_first ? 0 : 1], &bias = infos[weight_first ? 1 : 0];
      const std::int64_t biases = bias.size();
      const Tensor w = n.parameters().values.slice_rows(weight.offset, weight.size());
      const Tensor b = n.parameters().values.slice_rows(bias.offset, biases);
      const std::int64_t weight_rows = one.map.in_height == 0 ? biases : one.map.out_channels;
      const Tensor matrix = w.reshaped({weight_rows, weight.size() / weight_rows});
      const DeviceTensor y = empty_matrix(context(), DType::f32, kPrimal, out);
      const DeviceTensor tan_y = empty_matrix(context(), DType::f32, layout.rows(), out);
      const auto product = [&](const Tensor& result, const Tensor& operand) {
        if (one.map.in_height == 0)
          ops().linear_forward(result, operand, matrix);
        else if (one.transposed)
          ops().conv2d_reverse_data(result, operand, matrix, one.map, Update::overwrite);
        else
          ops().conv2d_forward(result, operand, matrix, one.map);
      };
      product(y, x);
      product(tan_y, tangents);
      // In place, with the tangents in the same call.
      ops().bias_activation_forward({y, tan_y}, {y, tan_y}, b, {}, one.kind, rows);
      const std::string what = std::string(one.name) + ", " + math_mode_name(mode);
      const HostMatrix expected = download(context(), y), expected_tangents = download(context(), tan_y);
      EXPECT_MATRICES_IDENTICAL(download(context(), alone.output()), expected) << what;
      EXPECT_MATRICES_IDENTICAL(download(context(), pushed.output()), expected_tangents) << what << ", pushed";
      EXPECT_MATRICES_IDENTICAL(download(context(), both.output()), expected) << what << ", with tangents";
      EXPECT_MATRICES_IDENTICAL(download(context(), with.output()), expected_tangents) << what << ", in one pass";
    }
  }
}

// Folded BatchNorm behind an unflatten has a channel for several columns: no epilogue of a product.
TEST_P(NetworkMathTest, FoldedChannelsOfSeveralColumnsPass) {
  const MathScope scope(ops(), MathMode::tf32x3);
  LinearSpec linear{40 * 2 * 3};
  linear.bias = false;
  const NetworkSpec spec{
      50, {linear, UnflattenSpec{40, 2, 3}, BatchNormSpec{}, ActivationSpec{Activation::relu}, FlattenSpec{}}};
  NetworkExecution apart;
  apart.fold_batch_norm = false;
  std::vector<std::vector<double>> outputs;
  for (const NetworkExecution& execution : {NetworkExecution{}, apart}) {
    NetworkOnDevice n(context(), spec, DType::f32, test_seed(), execution);
    n.randomize_statistics();
    const DeviceTensor x = upload(context(), random_matrix(40, 50, 1), DType::f32);
    PrimalPass pass;
    n.network().forward(ops(), n.arena(), pass, n.parameters(), x, PassMode::inference, {10000, 0});
    EXPECT_EQ(pass.form, execution.fold_batch_norm ? PassForm::norm_folded : PassForm::layers);
    outputs.push_back(to_host(ops(), pass.output()));
  }
  // 50 products of operands below 1 and weights below 1 / sqrt(50), each right to some 2^-21 of itself, then a scale of
  // at most sqrt 2: below 50 / sqrt(50) 2 2^-21. Factors of 1 / sqrt(variance) are rounded at other places.
  for (std::size_t k = 0; k < outputs[0].size(); ++k) EXPECT_NEAR(outputs[0][k], outputs[1][k], 0x1p-17) << k;
}

INSTANTIATE_TEST_SUITE_P(Devices, NetworkMathTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
