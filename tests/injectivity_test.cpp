// Certificates of injective generators: what is known must be certified, what is not must not.
#include "host/evaluate/injectivity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

/// A network whose tensors are set by their names in files.
class Certified {
 public:
  explicit Certified(NetworkSpec spec, std::uint64_t seed = 1)
      : on_device_(context_, std::move(spec), DType::f64, seed) {}

  void set(const std::string& name, const std::vector<double>& values) {
    for (const ParameterInfo& info : on_device_.network().parameters()) {
      if (info.name != name) continue;
      ASSERT_EQ(info.size(), static_cast<std::int64_t>(values.size())) << name;
      std::vector<double> all = info.buffer ? on_device_.buffers() : on_device_.values();
      for (std::int64_t e = 0; e < info.size(); ++e) {
        const std::int64_t at = info.order.same() ? e : info.order.memory_element(e);
        all[static_cast<std::size_t>(info.offset + at)] = values[static_cast<std::size_t>(e)];
      }
      info.buffer ? on_device_.set_buffers(all) : on_device_.set_values(all);
      return;
    }
    FAIL() << "no tensor " << name;
  }

  InjectivityCertificate certificate() {
    return certify_injective(context_, on_device_.network(), on_device_.parameters());
  }

  HostMatrix outputs(const HostMatrix& x) {
    const DeviceTensor from = upload(context_, x, DType::f64);
    const DeviceTensor to = empty_matrix(context_, DType::f64, x.rows, on_device_.network().output_size());
    on_device_.network().evaluate(context_.ops(), on_device_.arena(), to, on_device_.parameters(), from,
                                  PassMode::inference);
    return download(context_, to);
  }

 private:
  Context context_;
  NetworkOnDevice on_device_;
};

LinearSpec linear(std::int64_t features, bool spectral_norm = false) {
  LinearSpec spec{features};
  spec.spectral_norm = spectral_norm;
  return spec;
}

ResidualSpec scaled_body(std::vector<LayerSpec> body, std::int64_t width, double factor) {
  const auto n = static_cast<std::size_t>(width);
  body.emplace_back(AffineSpec{std::vector<double>(n, factor), std::vector<double>(n, 0.3)});
  return {std::move(body), {}};
}

TEST(Injectivity, OfMatricesIsTheirRank) {
  Certified square({2, {linear(2)}});
  square.set("layers.0.weight", {3, 0, 0, 0.5});
  EXPECT_TRUE(square.certificate().certified);
  EXPECT_NEAR(*square.certificate().layers[0].margin, 1.0 / 6, 1e-6);
  square.set("layers.0.weight", {1, 2, 2, 4});
  EXPECT_FALSE(square.certificate().certified);
  EXPECT_NE(square.certificate().summary().find("layers.0 (linear): not of full column rank"), std::string::npos)
      << square.certificate().summary();
  square.set("layers.0.weight", {0, 0, 0, 0});
  EXPECT_FALSE(square.certificate().certified);
  square.set("layers.0.weight", {1, 0, 0, std::nan("")});
  EXPECT_FALSE(square.certificate().certified);

  EXPECT_TRUE(Certified({3, {linear(5)}}).certificate().certified) << "an embedding";
  EXPECT_FALSE(Certified({5, {linear(3)}}).certificate().certified) << "a projection";
  Certified embedding({2, {linear(3)}});
  embedding.set("layers.0.weight", {1, 1, 2, 2, 3, 3});
  EXPECT_FALSE(embedding.certificate().certified);
}

TEST(Injectivity, OfActivationsIsTheirSlope) {
  const auto with = [](Activation function, double slope) {
    ActivationSpec spec{function};
    spec.negative_slope = slope;
    return Certified({2, {spec}}).certificate();
  };
  for (const Activation f : {Activation::identity, Activation::tanh, Activation::sigmoid, Activation::softplus})
    EXPECT_TRUE(with(f, 0).certified);
  for (const Activation f : {Activation::relu, Activation::silu}) EXPECT_FALSE(with(f, 0.1).certified);
  EXPECT_TRUE(with(Activation::leaky_relu, 0.1).certified);
  EXPECT_EQ(with(Activation::leaky_relu, 0.1).layers[0].margin, 0.1);
  EXPECT_EQ(with(Activation::leaky_relu, 3).layers[0].margin, 1);
  EXPECT_FALSE(with(Activation::leaky_relu, 0).certified);
  EXPECT_FALSE(with(Activation::leaky_relu, -0.5).certified);

  Certified learnt({2, {ActivationSpec{Activation::prelu}}});
  EXPECT_TRUE(learnt.certificate().certified) << "a slope of 1/4";
  learnt.set("layers.0.weight", {-0.1});
  EXPECT_FALSE(learnt.certificate().certified);
}

TEST(Injectivity, OfScalesIsThatNoneIsZero) {
  Certified norm({2, {BatchNormSpec{}}});
  norm.set("layers.0.running_var", {3.99999, 0.24999});
  norm.set("layers.0.weight", {2, -0.25});
  const InjectivityCertificate certificate = norm.certificate();
  EXPECT_TRUE(certificate.certified);
  EXPECT_NEAR(*certificate.layers[0].margin, 0.5, 1e-12);  // epsilon makes the variances 4 and 1/4
  norm.set("layers.0.weight", {2, 0});
  EXPECT_FALSE(norm.certificate().certified);
}

TEST(Injectivity, OfResidualLayersIsALipschitzConstantBelowTheSkipPaths) {
  const auto block = [](double factor) {
    return scaled_body({linear(2), ActivationSpec{Activation::tanh}, linear(2)}, 2, factor);
  };
  for (const double factor : {0.1, 0.16, 0.17, 1.0}) {  // norms 2 and 3: L = 6 factor
    Certified residual({2, {block(factor)}});
    residual.set("layers.0.body.0.weight", {2, 0, 0, 1});
    residual.set("layers.0.body.2.weight", {0, 3, 1, 0});
    const InjectivityCertificate certificate = residual.certificate();
    EXPECT_EQ(certificate.certified, 6 * factor < 1) << factor;
    EXPECT_NEAR(*certificate.layers[0].lipschitz, 6 * factor, 1e-5);
    EXPECT_NEAR(*certificate.layers[0].margin, 1 - 6 * factor, 1e-5);
  }
  // A skip path that stretches by 2 at least bears a body of 1.5, one that is a projection none.
  ResidualSpec with_skip = block(0.25);
  with_skip.skip = {linear(2)};
  Certified wide({2, {with_skip}});
  wide.set("layers.0.body.0.weight", {2, 0, 0, 1});
  wide.set("layers.0.body.2.weight", {0, 3, 1, 0});
  wide.set("layers.0.skip.0.weight", {2, 0, 0, 5});
  EXPECT_TRUE(wide.certificate().certified);
  wide.set("layers.0.skip.0.weight", {1.4, 0, 0, 5});
  EXPECT_FALSE(wide.certificate().certified);
}

// Spectral normalisation divides by what its power iteration has found, which is less than the norm until it has
// settled: the certificate has to see that.
TEST(Injectivity, SeesAPowerIterationThatHasNotSettled) {
  Certified residual({2, {scaled_body({linear(2, true)}, 2, 0.9)}});
  residual.set("layers.0.body.0.parametrizations.weight.original", {4, 0, 0, 1});
  residual.set("layers.0.body.0.parametrizations.weight.0._u", {1, 0});
  residual.set("layers.0.body.0.parametrizations.weight.0._v", {1, 0});
  EXPECT_TRUE(residual.certificate().certified);
  EXPECT_NEAR(*residual.certificate().layers[0].lipschitz, 0.9, 1e-6);
  residual.set("layers.0.body.0.parametrizations.weight.0._u", {0, 1});
  residual.set("layers.0.body.0.parametrizations.weight.0._v", {0, 1});
  EXPECT_FALSE(residual.certificate().certified);
  EXPECT_NEAR(*residual.certificate().layers[0].lipschitz, 3.6, 1e-5);
}

// No two points may move apart, or together, by more than was certified.
TEST(Injectivity, BoundsHoldForDifferences) {
  const Activation functions[] = {Activation::silu, Activation::sigmoid, Activation::leaky_relu, Activation::softplus};
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    ActivationSpec activation{functions[seed % 4]};
    activation.negative_slope = 1.3;
    const NetworkSpec body{4, {linear(7), activation, linear(4), BatchNormSpec{}}};
    Certified network({4, {ResidualSpec{body.layers, {}}}}, seed);
    const LayerCertificate layer = network.certificate().layers[0];
    const std::int64_t pairs = 500;
    HostMatrix x = random_matrix(2 * pairs, 4, seed, -2, 2);
    for (std::int64_t i = 0; i < pairs; ++i)
      for (std::int64_t j = 0; j < 4; ++j) x(pairs + i, j) = x(i, j) + 0.1 * x(pairs + i, j);
    const HostMatrix y = network.outputs(x);
    double most = 0, least = 1e300;
    for (std::int64_t i = 0; i < pairs; ++i) {
      double of_x = 0, of_y = 0, of_body = 0;
      for (std::int64_t j = 0; j < 4; ++j) {
        const double dx = x(i, j) - x(pairs + i, j), dy = y(i, j) - y(pairs + i, j);
        of_x += dx * dx;
        of_y += dy * dy;
        of_body += (dy - dx) * (dy - dx);
      }
      most = std::max(most, std::sqrt(of_body / of_x));
      least = std::min(least, std::sqrt(of_y / of_x));
    }
    EXPECT_LE(most, *layer.lipschitz) << seed;
    EXPECT_GE(least, *layer.margin) << seed;
    EXPECT_GE(most, 0.02 * *layer.lipschitz) << "of another order than the map's, seed " << seed;
  }
}

// The sum over taps bounds the convolution: on an image of ones a kernel of ones reaches it but for the border.
TEST(Injectivity, BoundsConvolutionsByTheirTaps) {
  Conv2dSpec convolution{1, 3, 1, 1};
  Certified residual({64, {ResidualSpec{{convolution}, {}}}, ImageShape{1, 8, 8}});
  residual.set("layers.0.body.0.weight", std::vector<double>(9, 0.11));
  const InjectivityCertificate certificate = residual.certificate();
  EXPECT_NEAR(*certificate.layers[0].lipschitz, 0.99, 1e-6);
  EXPECT_TRUE(certificate.certified);
  residual.set("layers.0.body.0.weight", std::vector<double>(9, 0.112));
  EXPECT_FALSE(residual.certificate().certified);

  Conv2dSpec channels{2, 1};
  channels.bias = false;
  Certified mixing({8, {ResidualSpec{{channels}, {}}}, ImageShape{2, 2, 2}});
  mixing.set("layers.0.body.0.weight", {0, 0.5, -0.25, 0});  // 1 x 1: the matrix itself
  EXPECT_NEAR(*mixing.certificate().layers[0].lipschitz, 0.5, 1e-6);
}

TEST(Injectivity, IsNotClaimedWithoutProof) {
  EXPECT_FALSE(Certified({12, {Conv2dSpec{3, 1}}, ImageShape{3, 2, 2}}).certificate().certified);
  EXPECT_FALSE(Certified({16, {AveragePoolSpec{}}, ImageShape{1, 4, 4}}).certificate().certified);
  EXPECT_FALSE(Certified({2, {linear(1), ConfinementSpec{}}}).certificate().certified);
  Certified coupling({3, {linear(3), MonotoneCouplingSpec{.active_first = 0, .active_count = 2}}});
  EXPECT_TRUE(coupling.certificate().certified);
  coupling.set("layers.1.conditioner.0.bias", std::vector<double>(48, std::nan("")));
  EXPECT_FALSE(coupling.certificate().certified);
  EXPECT_NE(coupling.certificate().summary().find("layers.1 (monotone_coupling): a parameter is not finite"),
            std::string::npos);
  Certified fixed({3, {PermutationSpec{}, RotationSpec{}, RationalQuadraticCouplingSpec{}}});
  EXPECT_TRUE(fixed.certificate().certified);
  EXPECT_NEAR(*fixed.certificate().layers[2].margin, 1e-15, 1e-20);
  fixed.set("layers.1.matrix", std::vector<double>(9, 0));
  EXPECT_FALSE(fixed.certificate().certified);
  Certified turned({3, {ResidualSpec{{RotationSpec{}, AffineSpec{{0.9, 0.5, 0.9}, {0, 0, 0}}}, {}}}});
  EXPECT_TRUE(turned.certificate().certified);
  EXPECT_NEAR(*turned.certificate().layers[0].lipschitz, 0.9, 1e-6);
  Certified overflowing({2, {linear(2)}});
  overflowing.set("layers.0.weight", {1e308, 1e308, -1e308, 1e308});
  EXPECT_NO_THROW(overflowing.certificate());
  Certified inside({3, {ResidualSpec{{MonotoneCouplingSpec{.active_first = 0, .active_count = 1}}, {}}}});
  EXPECT_FALSE(inside.certificate().certified);
  EXPECT_FALSE(inside.certificate().layers[0].lipschitz);
}

}  // namespace
}  // namespace bracket::test
