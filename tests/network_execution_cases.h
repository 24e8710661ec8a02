// Networks whose neighbouring layers merge, and everything that the calls of one return.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/image_layer_specs.h"
#include "tests/network_checks.h"

namespace bracket::test {

inline constexpr NetworkExecution kPlain{false, false, false};
inline constexpr FurtherUse kManyRows{.rows = 1000};  // for which every form pays

struct Case {
  std::string name;
  NetworkSpec spec;
  NetworkExecution only = {};  ///< what is at work here; the default merges it too
  friend std::ostream& operator<<(std::ostream& out, const Case& item) { return out << item.name; }
};

inline constexpr NetworkExecution kResampling{true, false, false};
inline constexpr NetworkExecution kNorm{false, true, false};
inline constexpr NetworkExecution kCompose{false, false, true};

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
inline NetworkSpec composing(const LinearSpec& linear, const LayerSpec& convolution,
                             std::vector<LayerSpec> behind = {}) {
  NetworkSpec spec{2, {linear, UnflattenSpec{linear.features / 6, 2, 3}, convolution}};
  spec.layers.insert(spec.layers.end(), behind.begin(), behind.end());
  return spec;
}

/// Affine networks without spectral normalisation: what rounding may do is known for each number they compute.
inline std::vector<Case> affine_cases() {
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
  // Composing takes the convolution from the pool behind it, and BatchNorm is no longer behind a product.
  const auto pooled = [](std::vector<LayerSpec> behind) {
    NetworkSpec spec{2, {LinearSpec{64}, UnflattenSpec{4, 4, 4}, conv(4, 3, 1, 1), AveragePoolSpec{2}}};
    spec.layers.insert(spec.layers.end(), behind.begin(), behind.end());
    return spec;
  };
  list.push_back({"composed_conv_average_pool", pooled({}), {true, false, true}});
  list.push_back({"composed_conv_average_pool_norm", pooled({BatchNormSpec{}}), {true, true, true}});
  return list;
}

/// With non-linearities and spectral normalisation.
inline std::vector<Case> other_cases() {
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
  list.push_back({"linear_norm_silu", {3, {normalised(LinearSpec{6}), BatchNormSpec{}, silu, LinearSpec{4}, silu}}});
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

inline std::vector<Case> all_cases() {
  std::vector<Case> list = affine_cases();
  for (Case& item : other_cases()) list.push_back(std::move(item));
  return list;
}

inline NetworkOnDevice make(Context& context, const NetworkSpec& spec, DType dtype, const NetworkExecution& execution) {
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

inline Outcome outcome_of(NetworkOnDevice& n, const StackedFunctional& f) {
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
                  kManyRows);
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

  network.forward(ops, n.arena(), pass, n.parameters(), x, PassMode::inference, kManyRows);
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

inline std::string case_name(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

}  // namespace bracket::test
