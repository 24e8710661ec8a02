// Networks of images: derivatives of every layer, on every device.

#include "tests/image_layer_specs.h"
#include "tests/network_checks.h"

namespace bracket::test {
namespace {

struct Case {
  std::string name;
  NetworkSpec spec;
  bool training = false;  ///< differenced in training mode, too (BatchNorm)
  friend std::ostream& operator<<(std::ostream& out, const Case& item) { return out << item.name; }
};

// DCGAN in small: every kind of layer its generator and energy hold.
NetworkSpec small_generator(Activation output) {
  return {3,
          {LinearSpec{3 * 2 * 2}, UnflattenSpec{3, 2, 2}, BatchNormSpec{}, activation(Activation::prelu),
           transposed(2, 4, 2, 1), BatchNormSpec{}, activation(Activation::relu), transposed(2, 3, 2, 1, 1),
           BatchNormSpec{}, activation(Activation::leaky_relu), conv(1, 3, 1, 1), activation(output)}};
}
NetworkSpec small_energy() {
  return on_images({2, 5, 6}, {conv(3, 3, 1, 1), activation(Activation::leaky_relu), conv(4, 4, 2, 1),
                               activation(Activation::leaky_relu), FlattenSpec{}, LinearSpec{1}});
}

NetworkSpec resnet_energy() {
  return on_images(
      {2, 4, 4}, {residual({conv(3, 3, 1, 1), activation(Activation::leaky_relu), conv(3, 3, 1, 1), AveragePoolSpec{2}},
                           {AveragePoolSpec{2}, conv(3, 1, 1, 0)}),
                  residual({activation(Activation::leaky_relu), conv(3, 3, 1, 1), activation(Activation::leaky_relu),
                            conv(4, 3, 1, 1)},
                           {conv(4, 1, 1, 0)}),
                  activation(Activation::leaky_relu), SumPoolSpec{2}, FlattenSpec{}, LinearSpec{1}});
}

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const auto& [kernel, stride, padding] : {std::tuple{1, 1, 0}, std::tuple{2, 3, 1}, std::tuple{3, 1, 1},
                                                std::tuple{3, 2, 2}, std::tuple{4, 2, 1}, std::tuple{5, 3, 2}}) {
    const std::string name =
        "_k" + std::to_string(kernel) + "_s" + std::to_string(stride) + "_p" + std::to_string(padding);
    list.push_back({"conv" + name, on_images({3, 5, 6}, {conv(2, kernel, stride, padding)})});
    list.push_back({"transposed" + name, on_images({2, 3, 4}, {transposed(3, kernel, stride, 0, stride - 1)})});
  }
  const std::pair<const char*, Activation> functions[] = {
      {"relu", Activation::relu},        {"leaky_relu", Activation::leaky_relu}, {"prelu", Activation::prelu},
      {"tanh", Activation::tanh},        {"sigmoid", Activation::sigmoid},       {"silu", Activation::silu},
      {"softplus", Activation::softplus}};
  for (const auto& [name, function] : functions)  // 9 channels: a mask of one byte and a bit
    list.push_back({std::string("conv_") + name,
                    on_images({1, 3, 3}, {conv(9, 2, 1, 0), activation(function), FlattenSpec{}, LinearSpec{2}})});
  Conv2dSpec plain = conv(3, 3, 1, 1);
  plain.bias = false;
  list.push_back({"conv_relu_without_bias", on_images({2, 3, 3}, {plain, activation(Activation::relu)})});
  Conv2dSpec normalised = conv(3, 3, 2, 1);
  normalised.spectral_norm = true;
  list.push_back({"conv_spectral_norm", on_images({2, 4, 4}, {normalised, activation(Activation::leaky_relu)})});
  ConvTranspose2dSpec normalised_transposed = transposed(3, 3, 2, 1, 1);
  normalised_transposed.spectral_norm = true;
  list.push_back({"transposed_spectral_norm", on_images({2, 2, 3}, {normalised_transposed})});
  list.push_back({"transposed_relu", on_images({2, 2, 3}, {transposed(9, 4, 2, 1), activation(Activation::relu)})});
  list.push_back({"batch_norm", on_images({3, 2, 4}, {BatchNormSpec{}, conv(2, 2, 1, 0)}), true});
  list.push_back({"batch_norm_relu", on_images({3, 2, 4}, {BatchNormSpec{}, activation(Activation::relu)}), true});
  list.push_back(
      {"batch_norm_leaky_relu_rows", {5, {BatchNormSpec{}, activation(Activation::leaky_relu), LinearSpec{2}}}, true});
  list.push_back({"batch_norm_tanh", on_images({2, 2, 2}, {BatchNormSpec{}, activation(Activation::tanh)}), true});
  list.push_back({"average_pool", on_images({3, 6, 3}, {AveragePoolSpec{3}})});
  list.push_back({"sum_pool", on_images({3, 4, 2}, {SumPoolSpec{2}})});
  list.push_back({"max_pool", on_images({9, 4, 6}, {MaxPoolSpec{2}, FlattenSpec{}, LinearSpec{2}})});
  list.push_back({"max_pool_of_a_convolution",
                  on_images({2, 6, 6}, {conv(3, 3, 1, 1), MaxPoolSpec{3}, activation(Activation::leaky_relu)})});
  list.push_back({"upsample", on_images({3, 2, 3}, {UpsampleSpec{3}, conv(1, 3, 1, 0)})});
  list.push_back({"flatten_first", on_images({3, 2, 2}, {FlattenSpec{}, LinearSpec{4}, ConfinementSpec{}})});
  list.back().spec.layers[2] = activation(Activation::tanh);
  list.push_back({"unflatten_behind_an_activation",
                  {3, {LinearSpec{12}, activation(Activation::tanh), UnflattenSpec{3, 2, 2}, conv(2, 2, 1, 0)}}});
  list.push_back(
      {"confinement_of_the_image", on_images({2, 3, 3}, {conv(2, 3, 1, 1), activation(Activation::tanh), FlattenSpec{},
                                                         LinearSpec{1}, ConfinementSpec{-1, 0.7, 0.3, 0.5}})});
  list.push_back({"two_confinements_of_one_flattened_image",
                  on_images({2, 3, 2}, {conv(2, 3, 1, 1), FlattenSpec{}, LinearSpec{1}, ConfinementSpec{1, 0.7, 0, 0},
                                        ConfinementSpec{1, 0.2, 0, 0}, ConfinementSpec{0, 0.1, 0, 0}})});
  list.push_back(
      {"residual_identity", on_images({2, 3, 3}, {residual({conv(2, 3, 1, 1), activation(Activation::relu)}, {})})});
  list.push_back(
      {"residual_of_consuming_paths",
       on_images({2, 3, 3}, {conv(2, 1, 1, 0), residual({conv(2, 3, 1, 1), activation(Activation::relu)},
                                                        {conv(2, 1, 1, 0), activation(Activation::relu)})})});
  list.push_back({"residual_of_rows",
                  {4,
                   {residual({LinearSpec{3}, activation(Activation::silu), LinearSpec{4}}, {}),
                    residual({LinearSpec{2}}, {LinearSpec{2}})}}});
  list.push_back(
      {"residual_in_residual", on_images({2, 2, 2}, {residual({conv(2, 3, 1, 1), residual({conv(2, 1, 1, 0)}, {}),
                                                               activation(Activation::tanh)},
                                                              {conv(2, 1, 1, 0)})})});
  list.push_back({"residual_down", on_images({2, 4, 4}, {residual({conv(3, 3, 1, 1), AveragePoolSpec{2}},
                                                                  {AveragePoolSpec{2}, conv(3, 1, 1, 0)})})});
  list.push_back({"small_generator", small_generator(Activation::tanh), true});
  list.push_back({"small_energy", small_energy()});
  list.push_back({"resnet_energy", resnet_energy()});
  list.push_back({"resnet_generator", resnet_generator(), true});
  return list;
}

class ImageNetworkGradients : public ::testing::TestWithParam<Case> {
 protected:
  NetworkOnDevice network() {
    NetworkOnDevice n(device_.context(), GetParam().spec, DType::f64);
    n.perturb(0.05);
    n.randomize_statistics();
    return n;
  }

 private:
  TestDevice device_{"cpu"};
};

TEST_P(ImageNetworkGradients, MatchCentralDifferences) {
  for (const bool tangents : {false, true}) {
    NetworkOnDevice n = network();
    expect_gradients_match(n, tangents, PassMode::inference);
  }
  if (!GetParam().training) return;
  NetworkOnDevice n = network();
  expect_gradients_match(n, false, PassMode::training);
}

TEST_P(ImageNetworkGradients, AdjointIdentity) {
  NetworkOnDevice n = network();
  expect_adjoint_identity(n);
}

TEST_P(ImageNetworkGradients, PushedTangentsEqualTheFusedCall) {
  NetworkOnDevice n = network();
  expect_push_equals_fused(n);
}

TEST_P(ImageNetworkGradients, OutputsAloneEqualThoseOfPasses) {
  NetworkOnDevice n = network();
  expect_outputs_alone_equal_those_of_passes(n);
}

TEST_P(ImageNetworkGradients, PulledCotangentsEqualAReversePass) {
  NetworkOnDevice n = network();
  expect_pull_equals_reverse(n, 1e-12);
}

TEST_P(ImageNetworkGradients, TangentsAloneEqualAReversePass) {
  NetworkOnDevice n = network();
  expect_tangents_alone_equal_a_reverse_pass(n);
}

TEST_P(ImageNetworkGradients, ParameterGradientsAccumulate) {
  NetworkOnDevice n = network();
  expect_gradients_accumulate(n);
}

// Every tap of every output pixel, padding included; a transposed convolution has the taps of its adjoint. A pool that
// a convolution takes in leaves it wider and strided.
TEST(ImageNetworkStructure, FlopsOfARowAreThoseOfItsProducts) {
  const auto flops = [](NetworkSpec spec, const NetworkExecution& execution = {}) {
    return Network(std::move(spec), DType::f32, execution).flops_per_row();
  };
  EXPECT_EQ(flops(on_images({3, 5, 6}, {conv(2, 3, 2, 1)})), 2 * (3 * 3 * 2) * (3 * 9));
  EXPECT_EQ(flops(on_images({2, 3, 4}, {transposed(3, 4, 2, 1)})), 2 * (3 * 4 * 2) * (3 * 16));
  EXPECT_EQ(flops(on_images({2, 3, 4}, {transposed(3, 3, 2, 1, 1)})), 2 * (3 * 4 * 2) * (3 * 9));
  const NetworkSpec down =
      on_images({2, 4, 4}, {residual({conv(3, 3, 1, 1), AveragePoolSpec{2}}, {AveragePoolSpec{2}, conv(3, 1, 1, 0)})});
  EXPECT_EQ(flops(down, {.merge_resampling = false}), 2 * (4 * 4 * 3) * (2 * 9) + 2 * (2 * 2 * 3) * 2);
  EXPECT_EQ(flops(down), 2 * (2 * 2 * 3) * (2 * 16) + 2 * (2 * 2 * 3) * 2);
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Layers, ImageNetworkGradients, ::testing::ValuesIn(cases()), case_name);

// The float kernels of every device against the double reference: chains of at most 8 contractions of length <= 64 with
// pointwise steps between, and up to 120 values of a batch norm's inverse deviation, as in network_test.cpp.
class ImageNetworkDevices : public OpsTest {};

TEST_P(ImageNetworkDevices, FloatPassesFollowTheDoubleReference) {
  if (IsSkipped() || HasFailure()) return;
  TestDevice reference("cpu");
  for (const Case& item : cases()) {
    NetworkOnDevice exact(reference.context(), item.spec, DType::f64), single(context(), item.spec, DType::f32);
    expect_pull_equals_reverse(single, 1e-4);
    exact.set_values(single.values());
    exact.set_buffers(single.buffers());
    StackedFunctional f = functional(item.spec, exact.network().output_size(), true);
    f.x = f.x.rounded(DType::f32);
    f.tangents = f.tangents.rounded(DType::f32);
    const StackedFunctional::Gradients want = f.gradients(exact, false), got = f.gradients(single, false);
    for (auto [a, b, name] :
         {std::tuple{&want.parameters, &got.parameters, "parameters"}, std::tuple{&want.x, &got.x, "x"},
          std::tuple{&want.tangents, &got.tangents, "tangents"}}) {
      for (std::size_t i = 0; i < a->size(); ++i)
        ASSERT_NEAR((*a)[i], (*b)[i], 1e-4 * largest_of(*a)) << item.name << ' ' << name << ' ' << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ImageNetworkDevices, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
