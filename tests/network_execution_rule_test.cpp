// When a pass merges neighbouring layers, and what stays as it is.
#include "bracket/jacobian.h"
#include "tests/network_execution_cases.h"

namespace bracket::test {
namespace {

// A pass composes where the rows it serves save more than the map and its gradient cost.
TEST(ExecutionRule, ComposesFromEnoughRowsOn) {
  const TestDevice device("cpu");
  NetworkOnDevice n = make(device.context(), composing(LinearSpec{48}, transposed(3, 4, 2, 1)), DType::f64, {});
  const Network& network = n.network();
  const std::int64_t d = 2, outputs = 4 * 6 * 3, image = 48, convolution = 2 * (6 * 8) * (16 * 3);
  EXPECT_EQ(network.flops_per_row(), 2 * d * image + convolution);
  EXPECT_EQ(network.composition_flops(), (d + 1) * convolution + 2 * d * d * image);
  const std::int64_t saved = 2 * d * image + convolution - 2 * d * outputs;
  const std::int64_t enough = 3 * network.composition_flops() / saved + 1;
  Ops& ops = device.context().ops();
  const DeviceTensor x = upload(device.context(), random_matrix(5, d, 1));
  const auto pass_of = [&](const FurtherUse& further, PassMode mode, std::int64_t rows = 5) {
    n.arena().rewind(0);
    PrimalPass pass;
    network.forward(ops, n.arena(), pass, n.parameters(), Tensor(x).slice_rows(0, rows), mode, further);
    return pass;
  };
  EXPECT_EQ(pass_of({}, PassMode::inference).form, PassForm::layers);
  EXPECT_EQ(pass_of({.rows = enough - 5 - 1}, PassMode::inference).form, PassForm::layers);
  const PrimalPass composed = pass_of({.rows = enough - 5}, PassMode::inference);
  EXPECT_EQ(composed.form, PassForm::linear_composed);
  EXPECT_EQ(network.slice(composed, 1, 2).form, PassForm::linear_composed);
  EXPECT_EQ(network.flops_per_row(composed), 2 * d * outputs);
  EXPECT_EQ(pass_of(kManyRows, PassMode::training).form, PassForm::layers);
  // Without parameter gradients a third of the rows suffices; every pass of them takes two thirds more.
  for (const std::int64_t passes : {0, 3}) {
    const std::int64_t rows = (1 + 2 * passes) * network.composition_flops() / saved + 1;
    EXPECT_EQ(pass_of({rows - 1 - 1, passes}, PassMode::inference, 1).form, PassForm::layers);
    EXPECT_EQ(pass_of({rows - 1, passes}, PassMode::inference, 1).form, PassForm::linear_composed);
  }
  EXPECT_THROW(pass_of({.rows = -1}, PassMode::inference), InvalidArgument);
  EXPECT_THROW(pass_of({.parameter_passes = -1}, PassMode::training), InvalidArgument);
}

// The average pool behind the convolution is part of it until composing takes the convolution: one group either way,
// and with BatchNorm behind the pool two against one.
TEST(ExecutionRule, ComposesWhereThatUndoesOtherMerging) {
  const TestDevice device("cpu");
  for (const Case& item : affine_cases()) {
    if (!item.name.starts_with("composed_conv_average_pool")) continue;
    SCOPED_TRACE(item.name);
    NetworkOnDevice n = make(device.context(), item.spec, DType::f64, {});
    const DeviceTensor x = upload(device.context(), random_matrix(2, 2, 1));
    const auto pass_of = [&](const FurtherUse& further) {
      n.arena().rewind(0);
      PrimalPass pass;
      n.network().forward(device.context().ops(), n.arena(), pass, n.parameters(), x, PassMode::inference, further);
      return pass;
    };
    const std::int64_t linear = 2 * 2 * 64, pixels = 4 * 4, small = 2 * 2, pairs = 4 * 4;
    EXPECT_EQ(Network(item.spec, DType::f64, kPlain).flops_per_row(), linear + 2 * pixels * 9 * pairs);
    EXPECT_EQ(n.network().flops_per_row(), linear + 2 * small * 16 * pairs);
    EXPECT_EQ(n.network().composition_flops(), 3 * 2 * pixels * 9 * pairs + 2 * 2 * 2 * 64);
    const PrimalPass few = pass_of({}), many = pass_of(kManyRows);
    EXPECT_EQ(few.form, PassForm::layers);
    EXPECT_EQ(many.form, PassForm::linear_composed);
    EXPECT_EQ(n.network().flops_per_row(many), 2 * 2 * 64);
  }
}

// An operator of a network counts on the products that its caller says.
TEST(ExecutionRule, JacobiansComposeForTheirProducts) {
  const TestDevice device("cpu");
  NetworkOnDevice n = make(device.context(), composing(LinearSpec{48}, transposed(3, 4, 2, 1)), DType::f64, {});
  Ops& ops = device.context().ops();
  const DeviceTensor x = upload(device.context(), random_matrix(5, 2, 1));
  const auto jacobian_of = [&](const FurtherUse& further) {
    return NetworkJacobian(ops, n.arena(), n.network(), n.parameters(), x, NetworkJacobian::kTangentBytes, further);
  };
  const NetworkJacobian none = jacobian_of({}), many = jacobian_of(kManyRows);
  EXPECT_EQ(none.primal().form, PassForm::layers);
  EXPECT_EQ(many.primal().form, PassForm::linear_composed);
  EXPECT_THROW(jacobian_of({.rows = -1}), InvalidArgument);
}

// A pass folds BatchNorm where the values it spares outnumber three times the weights.
TEST(ExecutionRule, FoldsBatchNormFromEnoughRowsOn) {
  const TestDevice device("cpu");
  NetworkOnDevice n = make(device.context(), {3, {LinearSpec{5}, BatchNormSpec{}}}, DType::f64, {});
  Ops& ops = device.context().ops();
  const auto form_of = [&](std::int64_t rows, std::int64_t further, PassMode mode) {
    n.arena().rewind(0);
    const DeviceTensor x = upload(device.context(), random_matrix(rows, 3, 1));
    PrimalPass pass;
    n.network().forward(ops, n.arena(), pass, n.parameters(), x, mode, {.rows = further});
    return pass.form;
  };
  const std::int64_t most = 3 * (5 * 3) / 5;  // rows of 5 values
  EXPECT_EQ(form_of(most, 0, PassMode::inference), PassForm::layers);
  EXPECT_EQ(form_of(most + 1, 0, PassMode::inference), PassForm::norm_folded);
  EXPECT_EQ(form_of(2, most - 1, PassMode::inference), PassForm::norm_folded);
  EXPECT_EQ(form_of(2, most - 2, PassMode::inference), PassForm::layers);
  EXPECT_EQ(form_of(most + 1, 0, PassMode::training), PassForm::layers);
}

// What a confinement reads must exist as a value of its own, and what does not pay stays as it is.
TEST(ExecutionRule, KeepsWhatIsReadOrDoesNotPay) {
  const auto flops = [](const NetworkSpec& spec, const NetworkExecution& execution) {
    return Network(spec, DType::f32, execution).flops_per_row();
  };
  const TestDevice device("cpu");
  const auto expect_same = [&](const NetworkSpec& spec) {
    EXPECT_EQ(flops(spec, {}), flops(spec, kPlain));
    NetworkOnDevice n = make(device.context(), spec, DType::f64, {});
    const DeviceTensor x = upload(device.context(), random_matrix(2, spec.input_size, 1));
    PrimalPass pass;
    n.network().forward(device.context().ops(), n.arena(), pass, n.parameters(), x, PassMode::inference, kManyRows);
    EXPECT_EQ(pass.form, PassForm::layers);
    EXPECT_EQ(pass.slots.size(), [&] {
      NetworkOnDevice plain = make(device.context(), spec, DType::f64, kPlain);
      PrimalPass unmerged;
      plain.network().forward(device.context().ops(), plain.arena(), unmerged, plain.parameters(), x,
                              PassMode::inference);
      return unmerged.slots.size();
    }());
  };
  expect_same(on_images(
      {2, 4, 4}, {UpsampleSpec{2}, conv(2, 3, 1, 1), FlattenSpec{}, LinearSpec{1}, ConfinementSpec{0, 1, 0, 0}}));
  expect_same(on_images(
      {2, 4, 4}, {conv(2, 3, 1, 1), AveragePoolSpec{2}, FlattenSpec{}, LinearSpec{1}, ConfinementSpec{0, 1, 0, 0}}));
  expect_same({3, {LinearSpec{4}, BatchNormSpec{}, LinearSpec{1}, ConfinementSpec{0, 1, 0, 0}}});
  expect_same({3, {LinearSpec{4}, activation(Activation::tanh), BatchNormSpec{}}});
  expect_same(on_images({2, 4, 4}, {UpsampleSpec{2}, conv(2, 3, 2, 1)}));  // strided
  expect_same(on_images({2, 4, 4}, {UpsampleSpec{2}, conv(2, 2, 1, 2)}));  // wider than its kernel
  expect_same(on_images({2, 4, 4}, {UpsampleSpec{1}, conv(2, 3, 1, 1)}));  // nothing to gain
  expect_same(on_images({2, 4, 4}, {conv(2, 3, 1, 1), activation(Activation::relu), AveragePoolSpec{2}}));
  expect_same(on_images({2, 4, 4}, {conv(2, 3, 1, 1), MaxPoolSpec{2}}));
  expect_same(
      on_images({2, 5, 2}, {UpsampleSpec{2}, conv(2, 3, 1, 0)}));  // most of the larger image's border is cut off
  // Nine taps in four places become sixteen in one: 40 operations for each pair of channels and pixel of the small
  // image, 8 rows of it must outweigh 25 elements of kernels at 40 each.
  expect_same(on_images({2, 1, 3}, {UpsampleSpec{2}, conv(2, 3, 1, 1)}));
  const NetworkSpec enough = on_images({2, 2, 2}, {UpsampleSpec{2}, conv(2, 3, 1, 1)});
  EXPECT_EQ(9 * flops(enough, {}), 4 * flops(enough, kPlain));
  // A composition that makes a row dearer: one output pixel's kernel against many latents.
  const NetworkSpec wide{64, {LinearSpec{4}, UnflattenSpec{1, 2, 2}, transposed(3, 2, 2, 0)}};
  EXPECT_EQ(Network(wide, DType::f32).composition_flops(), 0);
  // One that is cheaper than the convolution, and dearer than the convolution with its pool.
  const NetworkSpec pooled{48, {LinearSpec{64}, UnflattenSpec{4, 4, 4}, conv(8, 3, 1, 1), AveragePoolSpec{2}}};
  EXPECT_GT(Network(pooled, DType::f32, kCompose).composition_flops(), 0);
  EXPECT_EQ(Network(pooled, DType::f32).composition_flops(), 0);
}

}  // namespace
}  // namespace bracket::test
