// Passes that merge neighbouring layers against passes that carry out one layer after the other: the same outputs,
// tangents, adjoints and parameter gradients to rounding, parameters and files untouched.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/image_layer_specs.h"
#include "tests/network_checks.h"

namespace bracket::test {
namespace {

constexpr NetworkExecution kPlain{false, false, false};
constexpr std::int64_t kManyRows = 1000;  // for which every form pays

struct Case {
  std::string name;
  NetworkSpec spec;
  NetworkExecution only = {};  ///< what is at work here; the default merges it too
  friend std::ostream& operator<<(std::ostream& out, const Case& item) { return out << item.name; }
};

constexpr NetworkExecution kResampling{true, false, false};
constexpr NetworkExecution kNorm{false, true, false};
constexpr NetworkExecution kCompose{false, false, true};

template <class SpecT>
SpecT without_bias(SpecT spec) {
  spec.bias = false;
  return spec;
}
template <class SpecT>
SpecT normalised(SpecT spec) {
  spec.spectral_norm = true;
  return spec;
}

/// Two latents into a convolution of their image, for which composing pays from a dozen rows on.
NetworkSpec composing(const LinearSpec& linear, const LayerSpec& convolution, std::vector<LayerSpec> behind = {}) {
  NetworkSpec spec{2, {linear, UnflattenSpec{linear.features / 6, 2, 3}, convolution}};
  spec.layers.insert(spec.layers.end(), behind.begin(), behind.end());
  return spec;
}

/// Affine networks without spectral normalisation: what rounding may do is known for each number they compute.
std::vector<Case> affine_cases() {
  std::vector<Case> list;
  const auto images = [&](const char* name, const ImageShape& shape, std::vector<LayerSpec> layers,
                          const NetworkExecution& only) {
    list.push_back({name, on_images(shape, std::move(layers)), only});
  };
  images("upsample_conv", {2, 3, 5}, {UpsampleSpec{2}, conv(3, 3, 1, 1)}, kResampling);
  images("upsample_conv_without_bias", {3, 5, 4}, {UpsampleSpec{2}, without_bias(conv(2, 3, 1, 0))}, kResampling);
  images("upsample_3_conv_5", {2, 3, 2}, {UpsampleSpec{3}, conv(3, 5, 1, 2)}, kResampling);
  images("upsample_4_conv_2", {1, 3, 2}, {conv(2, 1, 1, 0), UpsampleSpec{4}, conv(3, 2, 1, 1)}, kResampling);
  images("conv_average_pool", {2, 6, 10}, {conv(3, 3, 1, 1), AveragePoolSpec{2}}, kResampling);
  images("conv_average_pool_3", {2, 7, 10}, {conv(3, 2, 1, 0), AveragePoolSpec{3}}, kResampling);
  images("conv_sum_pool", {2, 6, 8}, {conv(3, 3, 1, 1), SumPoolSpec{2}}, kResampling);
  images("conv_sum_pool_without_bias", {2, 9, 6}, {without_bias(conv(1, 5, 1, 2)), SumPoolSpec{3}}, kResampling);
  images("upsample_1x1", {2, 3, 5}, {UpsampleSpec{2}, conv(3, 1, 1, 0)}, kResampling);
  images("average_pool_of_1x1", {2, 4, 6}, {conv(3, 1, 1, 0), AveragePoolSpec{2}}, kResampling);
  images("sum_pool_of_1x1", {2, 6, 3}, {conv(3, 1, 1, 0), SumPoolSpec{3}}, kResampling);
  images("residual", {2, 4, 6},
         {residual({conv(2, 3, 1, 1), conv(3, 3, 1, 1), AveragePoolSpec{2}}, {conv(3, 1, 1, 0), AveragePoolSpec{2}}),
          residual({UpsampleSpec{2}, conv(2, 3, 1, 1)}, {UpsampleSpec{2}, conv(2, 1, 1, 0)})},
         kResampling);
  list.push_back({"linear_norm", {3, {LinearSpec{5}, BatchNormSpec{}, LinearSpec{4}, BatchNormSpec{}}}, kNorm});
  list.push_back({"linear_without_bias_norm", {3, {LinearSpec{5, false}, BatchNormSpec{}}}, kNorm});
  list.push_back(
      {"linear_image_norm", {3, {LinearSpec{12}, UnflattenSpec{2, 3, 2}, BatchNormSpec{}, conv(2, 2, 1, 0)}}, kNorm});
  list.push_back(
      {"linear_image_without_bias_norm", {3, {LinearSpec{12, false}, UnflattenSpec{2, 3, 2}, BatchNormSpec{}}}, kNorm});
  images("conv_norm", {2, 5, 4}, {conv(3, 3, 2, 1), BatchNormSpec{}}, kNorm);
  images("conv_without_bias_norm", {2, 5, 4}, {without_bias(conv(3, 3, 2, 1)), BatchNormSpec{}}, kNorm);
  images("transposed_norm", {2, 3, 4}, {transposed(3, 4, 2, 1), BatchNormSpec{}}, kNorm);
  images("transposed_without_bias_norm", {2, 3, 4}, {without_bias(transposed(3, 3, 2, 1, 1)), BatchNormSpec{}}, kNorm);
  images("upsample_conv_norm", {2, 3, 3}, {UpsampleSpec{2}, conv(3, 3, 1, 1), BatchNormSpec{}}, {true, true, false});
  images("conv_sum_pool_norm", {2, 4, 6}, {conv(3, 3, 1, 1), SumPoolSpec{2}, BatchNormSpec{}}, {true, true, false});
  images("upsample_1x1_norm", {2, 3, 3}, {UpsampleSpec{2}, conv(3, 1, 1, 0), BatchNormSpec{}}, {true, true, false});
  images("sum_pool_of_1x1_norm", {2, 4, 2}, {conv(3, 1, 1, 0), SumPoolSpec{2}, BatchNormSpec{}}, {true, true, false});
  list.push_back({"composed_transposed", composing(LinearSpec{48}, transposed(3, 4, 2, 1)), kCompose});
  list.push_back({"composed_without_image_bias", composing(LinearSpec{48, false}, transposed(3, 4, 2, 1)), kCompose});
  list.push_back(
      {"composed_without_biases", composing(LinearSpec{48, false}, without_bias(transposed(3, 4, 2, 1))), kCompose});
  list.push_back({"composed_conv", composing(LinearSpec{60}, without_bias(conv(3, 3, 1, 1))), kCompose});
  list.push_back({"composed_transposed_norm",
                  composing(LinearSpec{48}, transposed(3, 4, 2, 1), {BatchNormSpec{}}),
                  {false, true, true}});
  list.push_back({"composed_without_image_bias_norm",
                  composing(LinearSpec{48, false}, transposed(3, 4, 2, 1), {BatchNormSpec{}}),
                  {false, true, true}});
  return list;
}

/// With non-linearities and spectral normalisation.
std::vector<Case> other_cases() {
  std::vector<Case> list;
  const auto images = [&](const char* name, const ImageShape& shape, std::vector<LayerSpec> layers) {
    list.push_back({name, on_images(shape, std::move(layers))});
  };
  const ActivationSpec leaky = activation(Activation::leaky_relu), prelu = activation(Activation::prelu),
                       silu = activation(Activation::silu);
  images("upsample_conv_leaky", {2, 3, 4}, {UpsampleSpec{2}, conv(9, 3, 1, 1), leaky});
  images("upsample_spectral_conv_silu", {2, 3, 3}, {UpsampleSpec{2}, normalised(conv(3, 3, 1, 1)), silu});
  images("conv_sum_pool_prelu", {2, 4, 4}, {conv(3, 3, 1, 1), SumPoolSpec{2}, prelu});
  images("spectral_conv_average_pool_leaky", {2, 4, 4}, {normalised(conv(3, 3, 1, 1)), AveragePoolSpec{2}, leaky});
  images("upsample_1x1_norm_prelu", {2, 3, 3}, {UpsampleSpec{2}, conv(3, 1, 1, 0), BatchNormSpec{}, prelu});
  images("sum_pool_of_1x1_silu", {2, 4, 6}, {conv(3, 1, 1, 0), SumPoolSpec{2}, silu, conv(2, 2, 1, 0)});
  images("conv_norm_relu", {2, 4, 3}, {conv(9, 3, 1, 1), BatchNormSpec{}, activation(Activation::relu)});
  images("spectral_transposed_norm_prelu", {2, 3, 3}, {normalised(transposed(3, 4, 2, 1)), BatchNormSpec{}, prelu});
  list.push_back({"linear_image_norm_prelu",
                  {3, {LinearSpec{12}, UnflattenSpec{3, 2, 2}, BatchNormSpec{}, prelu, transposed(2, 4, 2, 1)}}});
  list.push_back({"linear_image_norm_leaky",
                  {3, {LinearSpec{20}, UnflattenSpec{5, 2, 2}, BatchNormSpec{}, leaky, conv(2, 2, 1, 0)}}});
  list.push_back({"linear_norm_silu",
                  {3, {normalised(LinearSpec{6}), BatchNormSpec{}, silu, LinearSpec{4}, BatchNormSpec{}, silu}}});
  list.push_back({"composed_norm_leaky",
                  composing(LinearSpec{48}, transposed(3, 4, 2, 1), {BatchNormSpec{}, leaky, conv(2, 3, 1, 1)})});
  list.push_back({"composed_spectral_silu",
                  composing(normalised(LinearSpec{48}), normalised(transposed(3, 4, 2, 1)), {silu, conv(2, 3, 1, 1)})});
  list.push_back({"resnet_generator", resnet_generator()});
  images("resnet_energy", {2, 4, 4},
         {residual({conv(3, 3, 1, 1), leaky, conv(3, 3, 1, 1), AveragePoolSpec{2}},
                   {AveragePoolSpec{2}, conv(3, 1, 1, 0)}),
          leaky, SumPoolSpec{2}, FlattenSpec{}, LinearSpec{1}});
  return list;
}

std::vector<Case> all_cases() {
  std::vector<Case> list = affine_cases();
  for (Case& item : other_cases()) list.push_back(std::move(item));
  return list;
}

NetworkOnDevice make(Context& context, const NetworkSpec& spec, DType dtype, const NetworkExecution& execution) {
  NetworkOnDevice n(context, spec, dtype, test_seed(), execution);
  n.perturb(0.05);
  n.randomize_statistics();
  return n;
}

/// Everything that the calls of a network return, by name.
struct Outcome {
  std::vector<std::pair<std::string, std::vector<double>>> parts;
  PassForm form = PassForm::layers;
};

Outcome outcome_of(NetworkOnDevice& n, const StackedFunctional& f, std::int64_t further_rows = kManyRows) {
  Outcome outcome;
  Context& context = n.context();
  Ops& ops = context.ops();
  const Network& network = n.network();
  const DType dtype = network.dtype();
  const auto keep = [&](const char* name, const Tensor& x) { outcome.parts.emplace_back(name, to_host(ops, x)); };
  const DeviceTensor x = upload(context, f.x, dtype), t = upload(context, f.tangents, dtype);
  const DeviceTensor c = upload(context, f.cotangent, dtype), ct = upload(context, f.tangent_cotangent, dtype);
  const DeviceTensor grad_x = empty_matrix(context, dtype, f.x.rows, f.x.cols);
  const DeviceTensor grad_t = empty_matrix(context, dtype, f.tangents.rows, f.tangents.cols);
  n.arena().rewind(0);
  PrimalPass fused, pass;
  TangentPass fused_tangents, tangents;
  network.forward(ops, n.arena(), fused, fused_tangents, n.parameters(), x, t, f.layout, PassMode::inference,
                  further_rows);
  outcome.form = fused.form;
  keep("output", fused.output());
  keep("output tangents", fused_tangents.output());
  ReverseRequest request{grad_x, grad_t, n.gradient(), false};
  network.reverse(ops, n.arena(), fused, &fused_tangents, c, ct, request);
  keep("grad x", grad_x);
  keep("grad tangents", grad_t);
  keep("grad parameters", n.gradient());
  request.accumulate_parameters = true;
  network.reverse(ops, n.arena(), fused, &fused_tangents, c, ct, request);
  keep("accumulated grad parameters", n.gradient());

  network.forward(ops, n.arena(), pass, n.parameters(), x, PassMode::inference, further_rows);
  network.push(ops, n.arena(), tangents, pass, t, f.layout);
  keep("pushed tangents", tangents.output());
  request.accumulate_parameters = false;
  network.reverse(ops, n.arena(), pass, &tangents, {}, ct, request);
  keep("grad x of the tangents", grad_x);
  keep("grad parameters of the tangents", n.gradient());
  network.reverse(ops, n.arena(), pass, nullptr, c, {}, {.grad_input = grad_x, .grad_parameters = n.gradient()});
  keep("grad x of the outputs", grad_x);
  keep("grad parameters of the outputs", n.gradient());
  const PrimalPass part = network.slice(pass, 1, 3);
  network.reverse(ops, n.arena(), part, nullptr, c.tensor().slice_rows(1, 3), {}, {.grad_parameters = n.gradient()});
  keep("grad parameters of some outputs", n.gradient());
  network.pull_through(ops, n.arena(), grad_t, pass, ct, f.layout);
  keep("pulled cotangents", grad_t);
  const DeviceTensor y = empty_matrix(context, dtype, f.x.rows, network.output_size());
  const DeviceTensor ty = empty_matrix(context, dtype, f.tangents.rows, network.output_size());
  network.evaluate(ops, n.arena(), y, n.parameters(), x, PassMode::inference);
  keep("evaluated", y);
  network.push_through(ops, n.arena(), ty, pass, t, f.layout);
  keep("pushed through", ty);
  if (network.piecewise_linear()) {
    network.reverse_tangents(ops, n.arena(), pass, tangents, ct, n.gradient(), false);
    keep("grad parameters of tangents alone", n.gradient());
  }
  return outcome;
}

void expect_close(const Outcome& got, const Outcome& want, const Outcome& sizes, double limit) {
  ASSERT_EQ(got.parts.size(), want.parts.size());
  for (std::size_t k = 0; k < want.parts.size(); ++k) {
    const auto& [name, values] = want.parts[k];
    ASSERT_EQ(got.parts[k].first, name);
    ASSERT_EQ(got.parts[k].second.size(), values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_NEAR(got.parts[k].second[i], values[i], limit * sizes.parts[k].second[i]) << name << ' ' << i;
  }
}

StackedFunctional rounded(StackedFunctional f) {
  for (HostMatrix* m : {&f.x, &f.tangents, &f.cotangent, &f.tangent_cotangent}) *m = m->rounded(DType::f32);
  return f;
}

/// An affine network computes sums of products of parameters, statistics and arguments. With every number replaced by
/// its size, and each running mean, which is subtracted, by minus its size, it computes the sums of the sizes of those
/// products.
Outcome sizes_of(const NetworkOnDevice& n, Context& context, StackedFunctional f) {
  NetworkOnDevice absolute = make(context, n.network().spec(), DType::f64, kPlain);
  std::vector<double> values = n.values(), buffers = n.buffers();
  for (double& v : values) v = std::abs(v);
  for (const ParameterInfo& info : n.network().parameters())
    if (info.name.ends_with("running_mean"))
      for (std::int64_t i = info.offset; i < info.offset + info.size(); ++i)
        buffers[static_cast<std::size_t>(i)] = -std::abs(buffers[static_cast<std::size_t>(i)]);
  absolute.set_values(values);
  absolute.set_buffers(buffers);
  for (HostMatrix* m : {&f.x, &f.tangents, &f.cotangent, &f.tangent_cotangent})
    for (double& v : m->values) v = std::abs(v);
  return outcome_of(absolute, f);
}

/// Roundings on the way to any number: a product with a weight sums as many terms as a row or a column of it has, a
/// weight's gradient one per row and pixel, a box or a window 25 at most; a few more per layer.
double roundings(const NetworkOnDevice& n, const StackedFunctional& f) {
  std::int64_t count = (f.x.rows + f.tangents.rows) * std::max(n.network().input_size(), n.network().values_per_row());
  for (const ParameterInfo& info : n.network().parameters())
    if (info.shape.size() >= 2) count += 2 * (info.size() / info.shape[0] + info.size() / info.shape[1] + 2 * 25 + 16);
  return static_cast<double>(count);
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

class AffineExecution : public ::testing::TestWithParam<Case> {
 protected:
  Context& context() { return device_.context(); }

 private:
  TestDevice device_{"cpu"};
};

TEST_P(AffineExecution, IsAtWork) {
  const Network plain(GetParam().spec, DType::f64, kPlain), merged(GetParam().spec, DType::f64, GetParam().only);
  if (GetParam().only.merge_resampling) {
    EXPECT_LT(merged.flops_per_row(), plain.flops_per_row());
  } else {
    EXPECT_EQ(merged.flops_per_row(), plain.flops_per_row());
  }
  EXPECT_EQ(merged.composition_flops() > 0, GetParam().only.compose_linear);
}

INSTANTIATE_TEST_SUITE_P(Layers, AffineExecution, ::testing::ValuesIn(affine_cases()), case_name);

class Execution : public ::testing::TestWithParam<Case> {
 protected:
  NetworkOnDevice network(const NetworkExecution& execution = {}) {
    NetworkOnDevice n = make(device_.context(), GetParam().spec, DType::f64, execution);
    n.further_rows = kManyRows;
    return n;
  }

 private:
  TestDevice device_{"cpu"};
};

TEST_P(Execution, MatchesCentralDifferences) {
  for (const bool tangents : {false, true}) {
    NetworkOnDevice n = network();
    expect_gradients_match(n, tangents, PassMode::inference);
  }
}

TEST_P(Execution, ItsPassesAgree) {
  NetworkOnDevice n = network();
  expect_adjoint_identity(n);
  expect_outputs_alone_equal_those_of_passes(n);
  expect_pull_equals_reverse(n, 1e-12);
  expect_tangents_alone_equal_a_reverse_pass(n);
  expect_gradients_accumulate(n);
}

// Starting values, names, places and orders are those of the layers.
TEST_P(Execution, LeavesParametersAlone) {
  const NetworkOnDevice merged = network(), plain = network(kPlain);
  EXPECT_EQ(merged.values(), plain.values());
  EXPECT_EQ(merged.buffers(), plain.buffers());
  const Network &a = merged.network(), &b = plain.network();
  EXPECT_EQ(a.value_elements(), b.value_elements());
  EXPECT_EQ(a.buffer_elements(), b.buffer_elements());
  ASSERT_EQ(a.parameters().size(), b.parameters().size());
  for (std::size_t i = 0; i < a.parameters().size(); ++i) {
    EXPECT_EQ(a.parameters()[i].name, b.parameters()[i].name);
    EXPECT_EQ(a.parameters()[i].offset, b.parameters()[i].offset);
  }
  EXPECT_EQ(a.has_batch_norm(), b.has_batch_norm());
  EXPECT_EQ(a.has_training_state(), b.has_training_state());
  EXPECT_EQ(a.piecewise_linear(), b.piecewise_linear());
  EXPECT_EQ(a.injective_by_construction(), b.injective_by_construction());
  EXPECT_EQ(a.output_image(), b.output_image());
}

// A training pass folds no BatchNorm; what resampling it merges moves statistics and power iterations alike. Sums of
// the same terms in another order through at most 8 layers: 1e-12 of the largest is the limit the project sets.
TEST_P(Execution, TrainingPassesAgree) {
  NetworkOnDevice merged = network(), plain = network(kPlain);
  StackedFunctional f = functional(GetParam().spec, plain.network().output_size(), false);
  f.mode = PassMode::training;
  const StackedFunctional::Gradients got = f.gradients(merged, false), want = f.gradients(plain, false);
  for (auto [a, b] : {std::pair{got.parameters, want.parameters}, std::pair{got.x, want.x},
                      std::pair{merged.buffers(), plain.buffers()}})
    for (std::size_t i = 0; i < b.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-12 * largest_of(b)) << i;
}

INSTANTIATE_TEST_SUITE_P(Layers, Execution, ::testing::ValuesIn(all_cases()), case_name);

class ExecutionDevices : public OpsTest {};

// Every number of an affine network: both executions are off by `roundings` times the sum of the sizes of its terms.
TEST_P(ExecutionDevices, AffineNetworksAgreeToRounding) {
  if (IsSkipped() || HasFailure()) return;
  const TestDevice reference("cpu");
  for (const Case& item : affine_cases()) {
    SCOPED_TRACE(item.name);
    for (const DType dtype : {DType::f32, DType::f64}) {
      NetworkOnDevice exact = make(reference.context(), item.spec, DType::f64, kPlain);
      NetworkOnDevice merged = make(context(), item.spec, dtype, item.only);
      NetworkOnDevice plain = make(context(), item.spec, dtype, kPlain);
      exact.set_values(merged.values());
      exact.set_buffers(merged.buffers());
      const StackedFunctional f = rounded(functional(item.spec, exact.network().output_size(), true));
      const Outcome want = outcome_of(exact, f), sizes = sizes_of(exact, reference.context(), f);
      const double limit = 2 * roundings(exact, f) * unit_roundoff(dtype);
      const Outcome got = outcome_of(merged, f);
      EXPECT_EQ(got.form, item.only.compose_linear    ? PassForm::linear_composed
                          : item.only.fold_batch_norm ? PassForm::norm_folded
                                                      : PassForm::layers);
      expect_close(got, want, sizes, limit);
      expect_close(outcome_of(plain, f), want, sizes, limit);
      NetworkOnDevice all = make(context(), item.spec, dtype, {});
      expect_close(outcome_of(all, f), want, sizes, limit);
    }
  }
}

// The limits of image_network_test.cpp: 1e-12 of the largest in double, 1e-4 in float, on one side of every kink.
TEST_P(ExecutionDevices, OtherNetworksAgree) {
  if (IsSkipped() || HasFailure()) return;
  const TestDevice reference("cpu");
  for (const Case& item : other_cases()) {
    SCOPED_TRACE(item.name);
    for (const DType dtype : {DType::f32, DType::f64}) {
      NetworkOnDevice exact = make(reference.context(), item.spec, DType::f64, kPlain);
      NetworkOnDevice merged = make(context(), item.spec, dtype, {});
      exact.set_values(merged.values());
      exact.set_buffers(merged.buffers());
      const StackedFunctional f = rounded(functional(item.spec, exact.network().output_size(), true));
      const Outcome want = outcome_of(exact, f);
      Outcome sizes = want;
      for (auto& [name, values] : sizes.parts) std::fill(values.begin(), values.end(), largest_of(values));
      expect_close(outcome_of(merged, f), want, sizes, dtype == DType::f64 ? 1e-12 : 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ExecutionDevices, ::testing::ValuesIn(test_devices()), device_name);

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
  const auto pass_of = [&](std::int64_t further, PassMode mode) {
    n.arena().rewind(0);
    PrimalPass pass;
    network.forward(ops, n.arena(), pass, n.parameters(), x, mode, further);
    return pass;
  };
  EXPECT_EQ(pass_of(0, PassMode::inference).form, PassForm::layers);
  EXPECT_EQ(pass_of(enough - 5 - 1, PassMode::inference).form, PassForm::layers);
  const PrimalPass composed = pass_of(enough - 5, PassMode::inference);
  EXPECT_EQ(composed.form, PassForm::linear_composed);
  EXPECT_EQ(network.slice(composed, 1, 2).form, PassForm::linear_composed);
  EXPECT_EQ(network.flops_per_row(composed), 2 * d * outputs);
  EXPECT_EQ(pass_of(kManyRows, PassMode::training).form, PassForm::layers);
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
    n.network().forward(ops, n.arena(), pass, n.parameters(), x, mode, further);
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
}

}  // namespace
}  // namespace bracket::test
