// Folding found where there is some, and none where there is none.
#include <gtest/gtest.h>

#include <cmath>

#include "bracket/error.h"
#include "host/evaluate/folding.h"
#include "tests/network_fixture.h"

namespace bracket {
namespace {

using test::NetworkOnDevice;

NetworkSpec network_of(std::int64_t inputs, std::vector<LayerSpec> layers) {
  NetworkSpec spec;
  spec.input_size = inputs;
  spec.layers = std::move(layers);
  return spec;
}

// (z_1, .., z_d) -> (f(z_1) + f(-z_1), z_2, ..) from 2 d units of a hidden layer with the non-linearity f, where
// f(t) - f(-t) = t for relu, silu and softplus alike.
NetworkSpec even_map(std::int64_t d, Activation f) {
  return network_of(
      d, {LinearSpec{.features = 2 * d, .bias = false}, ActivationSpec{f}, LinearSpec{.features = d, .bias = false}});
}

void set_even_map(NetworkOnDevice& n) {
  const std::int64_t d = n.network().input_size();
  std::vector<double> values(n.values().size());
  const ParameterInfo& first = n.network().parameters()[0];
  const ParameterInfo& second = n.network().parameters()[1];
  ASSERT_EQ(first.shape, (std::vector<std::int64_t>{2 * d, d}));
  ASSERT_EQ(second.shape, (std::vector<std::int64_t>{d, 2 * d}));
  for (std::int64_t k = 0; k < d; ++k) {
    values[static_cast<std::size_t>(first.offset + (2 * k) * d + k)] = 1;
    values[static_cast<std::size_t>(first.offset + (2 * k + 1) * d + k)] = -1;
    values[static_cast<std::size_t>(second.offset + k * 2 * d + 2 * k)] = 1;
    values[static_cast<std::size_t>(second.offset + k * 2 * d + 2 * k + 1)] = k == 0 ? 1 : -1;
  }
  n.set_values(values);
}

double fraction(NetworkOnDevice& n, const FoldOptions& options = {}) {
  return fold_fraction(n.context(), n.network(), n.parameters(), 5, options);
}

// Of |z| every point but those within half the separation of the crease has a second preimage.
TEST(Folding, TheAbsoluteValueFoldsNearlyEverywhere) {
  Context context;
  for (const std::int64_t d : {1, 2}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      NetworkOnDevice n(context, even_map(d, Activation::relu), dtype);
      set_even_map(n);
      const FoldOptions options;
      const double expected = std::erfc(options.separation / 2 / std::sqrt(2.0));
      // Three binomial deviations over 2,000 samples.
      EXPECT_NEAR(fraction(n), expected, 3 * std::sqrt(expected * (1 - expected) / 2000)) << "d = " << d;
    }
  }
}

// z tanh(z / 2) and z + 2 log(1 + e^-z): even and smooth, with derivative zero at the crease.
TEST(Folding, SmoothEvenMapsFold) {
  Context context;
  for (const Activation f : {Activation::silu, Activation::softplus}) {
    NetworkOnDevice n(context, even_map(2, f), DType::f32);
    set_even_map(n);
    const double share = fraction(n);
    EXPECT_GT(share, 0.9);
    EXPECT_LE(share, 1);
  }
}

// z - 3 relu(z) + 6 relu(z - 1) - 3 relu(z - 2) is z up to 0, falls to -2 at z = 1, climbs with slope 4 to 2 at z = 2
// and goes on as z. Images in [-2, 0] have three preimages: latents in [-2, 1.5], less those near the two creases.
TEST(Folding, APartialFoldIsCountedInShare) {
  Context context;
  NetworkOnDevice n(context,
                    network_of(1, {LinearSpec{.features = 5}, ActivationSpec{Activation::relu},
                                   LinearSpec{.features = 1, .bias = false}}),
                    DType::f64);
  std::vector<double> values(n.values().size());
  for (const ParameterInfo& info : n.network().parameters()) {
    const double weight[] = {1, -1, 1, 1, 1}, bias[] = {0, 0, 0, -1, -2}, out[] = {1, -1, -3, 6, -3};
    const double* source = info.name == "layers.0.weight" ? weight : info.name == "layers.0.bias" ? bias : out;
    for (std::int64_t i = 0; i < 5; ++i) values[static_cast<std::size_t>(info.offset + i)] = source[i];
  }
  n.set_values(values);
  const double folded = 0.5 * (std::erf(1.5 / std::sqrt(2.0)) + std::erf(2 / std::sqrt(2.0)));
  const double share = fraction(n);
  EXPECT_LE(share, folded + 3 * std::sqrt(folded * (1 - folded) / 2000));
  // Missed are latents within a separation of either crease: a length of 0.2 at a density below 0.4.
  EXPECT_GT(share, folded - 0.08);
}

TEST(Folding, InjectiveMapsDoNot) {
  Context context;
  // The coupling stack of the calibrated preset, at its start and far from it.
  const std::vector<LayerSpec> stack = {
      LinearSpec{.features = 2, .identity_start = true}, MonotoneCouplingSpec{.active_first = 0},
      MonotoneCouplingSpec{.active_first = 1},           MonotoneCouplingSpec{.active_first = 0},
      MonotoneCouplingSpec{.active_first = 1},           LinearSpec{.features = 2, .identity_start = true}};
  FoldOptions options;
  options.samples = 300;
  for (const double amount : {0.0, 0.3}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      NetworkOnDevice n(context, network_of(2, stack), dtype);
      n.perturb(amount);
      EXPECT_EQ(fraction(n, options), 0) << "moved by " << amount;
    }
  }
  NetworkOnDevice linear(context, network_of(2, {LinearSpec{.features = 2}, ActivationSpec{Activation::leaky_relu}}),
                         DType::f32);
  EXPECT_EQ(fraction(linear, options), 0);
  // Saturated: images of far latents agree to rounding, which is no fold.
  NetworkOnDevice saturated(context, network_of(1, {AffineSpec{{40}, {0}}, ActivationSpec{Activation::tanh}}),
                            DType::f32);
  EXPECT_EQ(fraction(saturated, options), 0);
}

// A constant map has no two images to tell apart, and a lower bound may be zero.
TEST(Folding, AConstantMapIsNoError) {
  Context context;
  NetworkOnDevice n(context, network_of(2, {LinearSpec{.features = 2}}), DType::f32);
  n.set_values(std::vector<double>(n.values().size(), 0));
  FoldOptions options;
  options.samples = 50;
  EXPECT_EQ(fraction(n, options), 0);
}

TEST(Folding, IsAFunctionOfTheSeed) {
  Context context;
  NetworkOnDevice n(context, even_map(2, Activation::silu), DType::f32);
  set_even_map(n);
  FoldOptions options;
  options.samples = 200;
  EXPECT_EQ(fraction(n, options), fraction(n, options));
}

TEST(Folding, RefusesOtherShapes) {
  Context context;
  NetworkOnDevice manifold(context, network_of(1, {LinearSpec{.features = 2}}), DType::f32);
  EXPECT_THROW(fraction(manifold), InvalidArgument);
  NetworkOnDevice solid(context, network_of(3, {LinearSpec{.features = 3}}), DType::f32);
  EXPECT_THROW(fraction(solid), InvalidArgument);
  NetworkOnDevice plane(context, network_of(2, {LinearSpec{.features = 2}}), DType::f32);
  FoldOptions options;
  options.samples = 0;
  EXPECT_THROW(fraction(plane, options), InvalidArgument);
  plane.set_values(std::vector<double>(plane.values().size(), std::nan("")));
  EXPECT_THROW(fraction(plane), Diverged);
}

}  // namespace
}  // namespace bracket
