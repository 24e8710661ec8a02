// Networks: forward tangents, reverse passes with second-order terms, and both ways of making them, layer by layer.
#include "bracket/network.h"

#include "bracket/entropy.h"
#include "tests/network_checks.h"

namespace bracket::test {
namespace {

struct Case {
  std::string name;
  NetworkSpec spec;
  friend std::ostream& operator<<(std::ostream& out, const Case& item) { return out << item.name; }
};

ActivationSpec activation(Activation function) { return {function, 0.1, 0.25}; }

NetworkSpec mlp(std::int64_t in, std::int64_t width, std::int64_t out, Activation function, bool spectral = false) {
  NetworkSpec spec{in, {}};
  LinearSpec hidden{width}, last{out};
  hidden.spectral_norm = last.spectral_norm = spectral;
  hidden.bias_bound = last.bias_bound = 0.5;
  spec.layers = {hidden, activation(function), hidden, activation(function), last};
  return spec;
}

NetworkSpec calibrated_energy() {
  LinearSpec wide{9}, scalar{1};
  wide.bias_bound = 0.5;
  return {2,
          {AffineSpec{{0.7, 1.3}, {0.2, -0.1}}, FourierFeaturesSpec{5, 1.5}, wide, activation(Activation::silu), wide,
           activation(Activation::silu), scalar, ConfinementSpec{0, 1.0, 25.0, 0.4}}};
}

NetworkSpec calibrated_generator() {
  LinearSpec square{2};
  square.identity_start = true;
  MonotoneCouplingSpec first{1, 1, 4, {6, 5}, 3, 2}, second{0, 1, 4, {6, 5}, 3, 2};
  return {2, {square, first, second, square, AffineSpec{{1.5, 0.5}, {0.1, 0.3}}}};
}

// Every layer that knows its log-volume.
NetworkSpec triangular_stack() {
  LinearSpec square{4};
  square.identity_start = true;
  return {4,
          {AffineSpec{{0.7, -1.3, 2.0, 1.1}, {0.2, -0.1, 0, 0.3}}, RotationSpec{5},
           RationalQuadraticCouplingSpec{0, 2, 4, {6}, 2.5, 0.02, 0.02, 0.05}, PermutationSpec{true, 3}, square,
           MonotoneCouplingSpec{1, 3, 3, {5}, 3, 2}, PermutationSpec{}}};
}

std::vector<Case> cases() {
  std::vector<Case> list;
  const std::pair<const char*, Activation> functions[] = {
      {"identity", Activation::identity}, {"relu", Activation::relu},        {"leaky_relu", Activation::leaky_relu},
      {"prelu", Activation::prelu},       {"tanh", Activation::tanh},        {"sigmoid", Activation::sigmoid},
      {"silu", Activation::silu},         {"softplus", Activation::softplus}};
  for (const auto& [name, function] : functions) list.push_back({std::string("mlp_") + name, mlp(3, 7, 2, function)});
  list.push_back({"spectral_norm", mlp(3, 7, 2, Activation::silu, true)});
  list.push_back({"stand_alone_activation",
                  {3, {activation(Activation::tanh), activation(Activation::prelu), LinearSpec{2, false}}}});
  list.push_back({"batch_norm",
                  {3,
                   {LinearSpec{6}, activation(Activation::prelu), BatchNormSpec{}, LinearSpec{6},
                    activation(Activation::silu), BatchNormSpec{}, LinearSpec{2}}}});
  list.push_back({"affine", {2, {AffineSpec{{2.0, -0.5}, {1.0, 3.0}}, LinearSpec{2}}}});
  list.push_back({"fourier_features", {3, {FourierFeaturesSpec{4, 2.0}, LinearSpec{2}}}});
  list.push_back({"monotone_coupling", {2, {MonotoneCouplingSpec{1, 1, 3, {5}, 3, 2}}}});
  list.push_back({"monotone_coupling_one_passive", {4, {MonotoneCouplingSpec{1, 3, 3, {6}, 2, 1}, LinearSpec{3}}}});
  list.push_back({"monotone_coupling_wide", {5, {MonotoneCouplingSpec{0, 2, 3, {6, 4}, 2, 1}, LinearSpec{3}}}});
  const RationalQuadraticCouplingSpec spline{1, 1, 3, {5}, 1.5, 0.05, 0.05, 0.1};
  list.push_back({"rational_quadratic_coupling", {2, {spline}}});
  list.push_back({"rational_quadratic_coupling_one_passive",
                  {4, {RationalQuadraticCouplingSpec{1, 3, 4, {6}, 2.0, 0.05, 0.05, 0.1}, LinearSpec{3}}}});
  list.push_back({"rational_quadratic_coupling_wide",
                  {5, {RationalQuadraticCouplingSpec{0, 2, 3, {6, 4}, 2.0, 0.05, 0.05, 0.1}, LinearSpec{3}}}});
  list.push_back({"permutation", {3, {PermutationSpec{}, LinearSpec{2}}}});
  list.push_back({"rotation", {3, {RotationSpec{1}, LinearSpec{2}}}});
  list.push_back({"triangular_stack", triangular_stack()});
  list.push_back({"confinement_of_input", {3, {LinearSpec{1}, ConfinementSpec{-1, 0.7, 3.0, 0.5}}}});
  list.push_back(
      {"confinement_of_a_layer_before_its_activation",
       {2, {LinearSpec{2}, activation(Activation::tanh), LinearSpec{1}, ConfinementSpec{0, 0.7, 3.0, 0.5}}}});
  list.push_back(
      {"confinement_of_an_activation",
       {2, {LinearSpec{2}, activation(Activation::tanh), LinearSpec{1}, ConfinementSpec{1, 0.7, 3.0, 0.5}}}});
  list.push_back({"calibrated_energy", calibrated_energy()});
  list.push_back({"calibrated_generator", calibrated_generator()});
  return list;
}

class NetworkGradients : public ::testing::TestWithParam<Case> {
 protected:
  static Context& context() {
    static TestDevice device("cpu");
    return device.context();
  }
};

TEST_P(NetworkGradients, MatchCentralDifferences) {
  for (const bool tangents : {false, true}) {
    NetworkOnDevice n(context(), GetParam().spec, DType::f64);
    n.perturb(0.05);
    expect_gradients_match(n, tangents, PassMode::inference);
  }
}

TEST_P(NetworkGradients, AdjointIdentity) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  n.perturb(0.05);
  expect_adjoint_identity(n);
}

TEST_P(NetworkGradients, PushedTangentsEqualTheFusedCall) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  n.perturb(0.05);
  expect_push_equals_fused(n);
}

TEST_P(NetworkGradients, OutputsAloneEqualThoseOfPasses) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  n.perturb(0.05);
  expect_outputs_alone_equal_those_of_passes(n);
}

TEST_P(NetworkGradients, PulledCotangentsEqualAReversePass) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  n.perturb(0.05);
  expect_pull_equals_reverse(n, 1e-12);
}

TEST_P(NetworkGradients, TangentsAloneEqualAReversePass) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  n.perturb(0.05);
  expect_tangents_alone_equal_a_reverse_pass(n);
}

TEST_P(NetworkGradients, ParameterGradientsAccumulate) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  expect_gradients_accumulate(n);
}

// log |det J| and its tangents by Jacobians that are formed: the sums of d logarithms of size 1 and of their
// derivatives agree to some hundred roundings, which a condition number of J below 1e3 multiplies.
TEST_P(NetworkGradients, LogVolumeIsThatOfTheJacobian) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  const Network& network = n.network();
  Ops& ops = context().ops();
  PrimalPass pass;
  const DeviceTensor x = upload(context(), random_matrix(5, network.input_size(), 101));
  const auto forward = [&] {
    n.arena().rewind(0);
    network.forward(ops, n.arena(), pass, n.parameters(), x, PassMode::inference, {.log_volume = true});
  };
  if (!network.has_log_volume()) {
    EXPECT_THROW(forward(), InvalidArgument);
    return;
  }
  n.perturb(0.3);
  forward();
  const auto volume_at = [&](const HostMatrix& points) {
    EntropyPass exact;
    entropy_forward(ops, n.arena(), exact, network, n.parameters(), upload(context(), points), {});
    return to_host(ops, exact.value);
  };
  const HostMatrix points = download(context(), x);
  const std::vector<double> value = to_host(ops, pass.log_volume), want = volume_at(points);
  for (std::size_t i = 0; i < value.size(); ++i) EXPECT_NEAR(value[i], want[i], 1e-12 * (1 + std::abs(want[i])));
  const PrimalPass part = network.slice(pass, 1, 3);
  EXPECT_EQ(to_host(ops, part.log_volume), std::vector<double>(value.begin() + 1, value.begin() + 4));
}

TEST_P(NetworkGradients, LogVolumesMatchCentralDifferences) {
  NetworkOnDevice n(context(), GetParam().spec, DType::f64);
  if (!n.network().has_log_volume()) return;
  n.further.log_volume = true;
  n.perturb(0.05);
  for (const bool tangents : {false, true}) expect_gradients_match(n, tangents, PassMode::inference);
  expect_push_equals_fused(n);
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Layers, NetworkGradients, ::testing::ValuesIn(cases()), case_name);

TEST(NetworkTraining, BatchNormGradientsMatchCentralDifferences) {
  TestDevice device("cpu");
  const NetworkSpec spec{3,
                         {LinearSpec{6}, activation(Activation::prelu), BatchNormSpec{}, LinearSpec{6},
                          activation(Activation::tanh), BatchNormSpec{}, LinearSpec{2}}};
  NetworkOnDevice n(device.context(), spec, DType::f64);
  n.perturb(0.1);
  expect_gradients_match(n, false, PassMode::training);
}

TEST(NetworkTraining, TangentsThroughBatchStatisticsAreRefused) {
  TestDevice device("cpu");
  NetworkOnDevice n(device.context(), {2, {LinearSpec{2}, BatchNormSpec{}}}, DType::f64);
  StackedFunctional f = functional(n.network().spec(), 2, true);
  f.mode = PassMode::training;
  EXPECT_THROW(f.value(n), InvalidArgument);
}

TEST(NetworkStructure, ParameterNamesAndShapesArePyTorchs) {
  LinearSpec normalised{4};
  normalised.spectral_norm = true;
  const Network n({3, {normalised, activation(Activation::prelu), BatchNormSpec{}, LinearSpec{1, false}}}, DType::f32);
  std::vector<std::string> names;
  for (const ParameterInfo& info : n.parameters()) names.push_back(info.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"layers.0.bias", "layers.0.parametrizations.weight.original",
                                      "layers.0.parametrizations.weight.0._u", "layers.0.parametrizations.weight.0._v",
                                      "layers.1.weight", "layers.2.weight", "layers.2.bias", "layers.2.running_mean",
                                      "layers.2.running_var", "layers.3.weight"}));
  EXPECT_EQ(n.parameter_count(), 12 + 4 + 1 + 8 + 4);
}

TEST(NetworkStructure, FlopsOfARowAreThoseOfItsProducts) {
  const auto flops = [](NetworkSpec spec) { return Network(std::move(spec), DType::f32).flops_per_row(); };
  EXPECT_EQ(flops({3, {LinearSpec{5}, activation(Activation::silu), BatchNormSpec{}, LinearSpec{2}}}),
            2 * (3 * 5 + 5 * 2));
  FourierFeaturesSpec waves;
  waves.frequencies = 4;
  EXPECT_EQ(flops({3, {waves, LinearSpec{1}}}), 2 * (3 * 4 + 11 * 1));
  MonotoneCouplingSpec coupling;  // one passive column, 3 hidden units, 2 + 3 * 2 parameters of one active column
  coupling.knots = 2;
  coupling.hidden = {3};
  EXPECT_EQ(flops({2, {coupling}}), 2 * (1 * 3 + 3 * 8));
}

// The value itself: gradients of a wrong function can be consistent.
TEST(NetworkStructure, AConfinementReadsTheLayerItNames) {
  TestDevice device("cpu");
  for (const int layer : {0, 1}) {
    NetworkOnDevice n(
        device.context(),
        {1,
         {LinearSpec{1, false}, activation(Activation::tanh), LinearSpec{1, false}, ConfinementSpec{layer, 2.0, 0, 0}}},
        DType::f64);
    const double a = n.values()[0], b = n.values()[static_cast<std::size_t>(n.network().parameters()[1].offset)];
    const double u = a * 0.7, f = std::tanh(u);
    const std::vector<double> x = {0.7};
    const double e = network_outputs(device.context(), n.network(), n.parameters(), x, 1)[0];
    const double side = layer == 0 ? u : f;
    EXPECT_NEAR(e, b * f + side * side, 1e-15) << "layer " << layer;
  }
}

TEST(NetworkStructure, InjectivityIsDecidedLayerByLayer) {
  EXPECT_TRUE(Network(calibrated_generator(), DType::f32).injective_by_construction());
  EXPECT_TRUE(Network(triangular_stack(), DType::f32).injective_by_construction());
  EXPECT_FALSE(Network(mlp(2, 8, 2, Activation::silu), DType::f32).injective_by_construction());
  EXPECT_FALSE(Network({2, {LinearSpec{2}, activation(Activation::relu)}}, DType::f32).injective_by_construction());
}

TEST(NetworkStructure, LogVolumesAreKnownLayerByLayer) {
  const auto known = [](NetworkSpec spec) { return Network(std::move(spec), DType::f32).has_log_volume(); };
  EXPECT_TRUE(known(calibrated_generator()));
  EXPECT_TRUE(known(triangular_stack()));
  EXPECT_FALSE(known({2, {LinearSpec{3}}}));
  EXPECT_FALSE(known({2, {LinearSpec{2}, activation(Activation::tanh)}}));
  LinearSpec normalised{2};
  normalised.spectral_norm = true;
  EXPECT_FALSE(known({2, {normalised}}));
  EXPECT_FALSE(known({2, {LinearSpec{2}, BatchNormSpec{}}}));
  EXPECT_FALSE(known({2, {ResidualSpec{{LinearSpec{2}}, {}}}}));
}

// Of what the blocks hold, not of the specification; and of matrices whose Gram matrix has no rank in double.
TEST(NetworkStructure, LogVolumesAreThoseOfTheParameters) {
  TestDevice device("cpu");
  Ops& ops = device.context().ops();
  const DeviceTensor x = upload(device.context(), random_matrix(3, 2, 1));
  const auto volume = [&](NetworkOnDevice& n, PrimalPass& pass) {
    n.network().forward(ops, n.arena(), pass, n.parameters(), x, PassMode::inference, {.log_volume = true});
    const std::vector<double> values = to_host(ops, pass.log_volume);
    EXPECT_EQ(values, std::vector<double>(3, values[0]));
    return values[0];
  };
  const auto offset = [](const NetworkOnDevice& n, const std::string& name) {
    for (const ParameterInfo& info : n.network().parameters())
      if (info.name == name) return static_cast<std::size_t>(info.offset);
    throw InvalidArgument("no parameter " + name);
  };
  PrimalPass pass;
  NetworkOnDevice affine(device.context(), {2, {AffineSpec{{2, -3}, {0, 1}}}}, DType::f64);
  EXPECT_NEAR(volume(affine, pass), std::log(6), 1e-14);
  std::vector<double> buffers = affine.buffers();
  buffers[offset(affine, "layers.0.scale")] = 5;
  affine.set_buffers(buffers);
  EXPECT_NEAR(volume(affine, pass), std::log(15), 1e-14);

  NetworkOnDevice linear(device.context(), {2, {LinearSpec{2}}}, DType::f64);
  std::vector<double> values = linear.values();
  const std::size_t w = offset(linear, "layers.0.weight");
  constexpr double kDeterminant = 0x1p-30;  // of [[1, 1], [1, 1 + 2^-30]], condition 4 2^30
  values[w] = values[w + 1] = values[w + 2] = 1;
  values[w + 3] = 1 + kDeterminant;
  linear.set_values(values);
  const double allowed = 64 * 4 / kDeterminant * 0x1p-53;  // of a backward error of 64 roundings
  EXPECT_NEAR(volume(linear, pass), std::log(kDeterminant), allowed);
  ReverseRequest request;
  request.grad_parameters = linear.gradient();
  const DeviceTensor ones = upload(device.context(), HostMatrix(3, 1, 1.0 / 3));
  linear.network().reverse(ops, linear.arena(), pass, nullptr, {}, {}, request, {ones, {}});
  const std::vector<double> gradient = to_host(ops, linear.gradient());
  const double inverse[] = {(1 + kDeterminant) / kDeterminant, -1 / kDeterminant, -1 / kDeterminant, 1 / kDeterminant};
  for (std::size_t e = 0; e < 4; ++e) EXPECT_NEAR(gradient[w + e] / inverse[e], 1, allowed) << e;
}

TEST(NetworkStructure, CotangentsOfALogVolumeNeedAPassThatHasIt) {
  TestDevice device("cpu");
  NetworkOnDevice n(device.context(), triangular_stack(), DType::f64);
  const DeviceTensor x = upload(device.context(), random_matrix(3, 4, 1)),
                     c = upload(device.context(), HostMatrix(3, 1));
  Ops& ops = device.context().ops();
  PrimalPass without, with;
  n.network().forward(ops, n.arena(), without, n.parameters(), x, PassMode::inference);
  n.network().forward(ops, n.arena(), with, n.parameters(), x, PassMode::inference, {.log_volume = true});
  EXPECT_TRUE(without.log_volume.absent());
  EXPECT_THROW(n.network().reverse(ops, n.arena(), without, nullptr, {}, {}, {}, {c, {}}), InvalidArgument);
  EXPECT_THROW(n.network().reverse(ops, n.arena(), with, nullptr, {}, {}, {}, {{}, c}), InvalidArgument);
}

// Rows and columns of the fixed maps are orthonormal to rounding, and functions of the seeds of their specifications.
TEST(NetworkStructure, FixedMapsAreOrthogonal) {
  TestDevice device("cpu");
  const auto matrix = [&](const LayerSpec& layer, std::int64_t size, std::uint64_t seed) {
    return NetworkOnDevice(device.context(), {size, {layer}}, DType::f64, seed).buffers();
  };
  for (const std::int64_t n : {1, 2, 7, 33}) {
    for (const LayerSpec& layer :
         {LayerSpec(RotationSpec{4}), LayerSpec(PermutationSpec{}), LayerSpec(PermutationSpec{true, 4})}) {
      const std::vector<double> q = matrix(layer, n, 1);
      EXPECT_EQ(q, matrix(layer, n, 2));
      for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (std::int64_t k = 0; k < n; ++k)
            sum += q[static_cast<std::size_t>(i * n + k)] * q[static_cast<std::size_t>(j * n + k)];
          EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-14);
        }
      }
    }
  }
  EXPECT_NE(matrix(RotationSpec{1}, 7, 1), matrix(RotationSpec{2}, 7, 1));
  EXPECT_NE(matrix(PermutationSpec{true, 1}, 33, 1), matrix(PermutationSpec{true, 2}, 33, 1));
  NetworkOnDevice reversed(device.context(), {3, {PermutationSpec{}}}, DType::f64);
  const std::vector<double> x = {1, 2, 3};
  EXPECT_EQ(network_outputs(device.context(), reversed.network(), reversed.parameters(), x, 1),
            (std::vector<double>{3, 2, 1}));
}

TEST(NetworkStructure, BadSpecificationsAreRefusedWithTheLayer) {
  const auto message = [](NetworkSpec spec) -> std::string {
    try {
      Network n(std::move(spec), DType::f32);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_NE(message({0, {LinearSpec{1}}}).find("input_size is 0"), std::string::npos);
  EXPECT_NE(message({2, {}}).find("at least one layer"), std::string::npos);
  EXPECT_NE(message({2, {LinearSpec{0}}}).find("layer 0"), std::string::npos);
  EXPECT_NE(message({2, {LinearSpec{2}, AffineSpec{{1}, {1}}}}).find("layer 1"), std::string::npos);
  EXPECT_NE(message({2, {MonotoneCouplingSpec{0, 2}}}).find("active_count"), std::string::npos);
  EXPECT_NE(message({3, {MonotoneCouplingSpec{1, 1}}}).find("first or the last"), std::string::npos);
  const auto spline = [&](const RationalQuadraticCouplingSpec& spec) { return message({3, {spec}}); };
  EXPECT_NE(spline({0, 3}).find("active_count"), std::string::npos);
  EXPECT_NE(spline({1, 1}).find("first or the last"), std::string::npos);
  EXPECT_NE(spline({0, 1, 0}).find("bins"), std::string::npos);
  EXPECT_NE(spline({0, 1, 8, {4}, 0}).find("bound"), std::string::npos);
  EXPECT_NE(spline({0, 1, 8, {4}, 2, 0.125}).find("min_width"), std::string::npos);
  EXPECT_NE(spline({0, 1, 8, {4}, 2, 0.01, 0}).find("min_height"), std::string::npos);
  EXPECT_NE(spline({0, 1, 8, {4}, 2, 0.01, 0.01, 1}).find("min_derivative"), std::string::npos);
  EXPECT_NE(message({2, {LinearSpec{2}, ConfinementSpec{}}}).find("scalar"), std::string::npos);
  EXPECT_NE(message({2, {LinearSpec{1}, ConfinementSpec{5, 1, 0, 0}}}).find("input_layer is 5"), std::string::npos);
}

TEST(NetworkStart, IsAFunctionOfTheSeedAlone) {
  TestDevice device("cpu");
  NetworkOnDevice a(device.context(), calibrated_energy(), DType::f64, 1),
      b(device.context(), calibrated_energy(), DType::f64, 1), c(device.context(), calibrated_energy(), DType::f64, 2);
  EXPECT_EQ(a.buffers(), b.buffers());
  EXPECT_NE(a.buffers(), c.buffers());
  EXPECT_EQ(HostMatrix(1, 1, a.values()[0]).values, HostMatrix(1, 1, b.values()[0]).values);
}

// The float kernels against the double reference of the same start: every pass is a chain of at most 8 contractions of
// length <= 16 and pointwise steps with condition below 30, so 1e-4 of the largest entry is a loose bound on
// 8 * 30 * sqrt(16) * 2^-24 = 6e-5.
class NetworkDevices : public OpsTest {};

TEST_P(NetworkDevices, FloatPassesFollowTheDoubleReference) {
  if (IsSkipped() || HasFailure()) return;
  TestDevice reference("cpu");
  for (const Case& item : cases()) {
    NetworkOnDevice exact(reference.context(), item.spec, DType::f64), single(context(), item.spec, DType::f32);
    exact.further.log_volume = single.further.log_volume = exact.network().has_log_volume();
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
      double largest = 0;
      for (const double v : *a) largest = std::max(largest, std::abs(v));
      for (std::size_t i = 0; i < a->size(); ++i) {
        ASSERT_NEAR((*a)[i], (*b)[i], 1e-4 * largest) << item.name << ' ' << name << ' ' << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, NetworkDevices, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
