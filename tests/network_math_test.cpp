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

INSTANTIATE_TEST_SUITE_P(Devices, NetworkMathTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
