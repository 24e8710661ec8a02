#include "host/network/layer_factory.h"

#include "host/network/spec_check.h"

namespace bracket {
namespace {

const ActivationSpec* activation_behind(const std::vector<LayerSpec>& specs, std::size_t index) {
  return index + 1 < specs.size() && !is_side_input(specs, index) ? std::get_if<ActivationSpec>(&specs[index + 1])
                                                                  : nullptr;
}

// BatchNorm's layer computes those that need no value before them.
const ActivationSpec* in_place_activation_behind(const std::vector<LayerSpec>& specs, std::size_t index) {
  const ActivationSpec* behind = activation_behind(specs, index);
  if (behind == nullptr) return nullptr;
  return behind->function == Activation::relu || behind->function == Activation::leaky_relu ? behind : nullptr;
}

// The unflatten that turns a linear layer's output into an image, perhaps behind activations.
const UnflattenSpec* unflatten_behind(const std::vector<LayerSpec>& specs, std::size_t index) {
  for (std::size_t i = index + 1; i < specs.size(); ++i) {
    if (const auto* unflatten = std::get_if<UnflattenSpec>(&specs[i])) return unflatten;
    if (!std::holds_alternative<ActivationSpec>(specs[i])) break;
  }
  return nullptr;
}

class LayerMaker {
 public:
  LayerMaker(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input, const std::string& path,
             Merging& merging, BlockLayout& layout)
      : specs_(specs),
        index_(index),
        input_(input),
        path_(path),
        merging_(merging),
        layout_(layout),
        check_(path, index, input) {}

  MadeLayer make() const {
    if (const std::optional<LayerGroup> group = find_group(specs_, index_, input_, merging_)) return made_of(*group);
    return std::visit([&](const auto& spec) { return made_of(spec); },
                      static_cast<const AnyLayerSpec&>(specs_[index_]));
  }

 private:
  MadeLayer made_of(const LinearSpec& s) const {
    const UnflattenSpec* unflatten = unflatten_behind(specs_, index_);
    check_(s, unflatten);
    const ActivationSpec* activation = activation_behind(specs_, index_);
    Features output{s.features};
    if (unflatten != nullptr) output = {s.features, shape(*unflatten), true};
    return {make_linear_layer(s, behind(activation, unflatten), input_, prefix(), layout_), output, count(activation)};
  }
  MadeLayer made_of(const Conv2dSpec& s) const {
    const ImageShape output = check_(s);
    const ActivationSpec* activation = activation_behind(specs_, index_);
    return {make_convolution_layer(s, behind(activation), *input_.image, prefix(), layout_), features(output),
            count(activation)};
  }
  MadeLayer made_of(const ConvTranspose2dSpec& s) const {
    const ImageShape output = check_(s);
    const ActivationSpec* activation = activation_behind(specs_, index_);
    return {make_convolution_transpose_layer(s, behind(activation), *input_.image, prefix(), layout_), features(output),
            count(activation)};
  }
  MadeLayer made_of(const ActivationSpec& s) const {
    return {make_activation_layer(s, input_.size, prefix(), layout_), input_};
  }
  MadeLayer made_of(const BatchNormSpec& s) const {
    check_(s);
    const ActivationSpec* activation = in_place_activation_behind(specs_, index_);
    return {make_batch_norm_layer(s, activation, input_, prefix(), layout_), input_, count(activation)};
  }
  MadeLayer made_of(const AffineSpec& s) const {
    check_(s);
    return {make_affine_layer(s, input_.size, prefix(), layout_), input_};
  }
  MadeLayer made_of(const FourierFeaturesSpec& s) const {
    check_(s);
    return {make_fourier_features_layer(s, input_.size, prefix(), layout_), {input_.size + 2 * s.frequencies}};
  }
  MadeLayer made_of(const MonotoneCouplingSpec& s) const {
    check_(s);
    return {make_monotone_coupling_layer(s, input_.size, prefix(), layout_), input_};
  }
  MadeLayer made_of(const RationalQuadraticCouplingSpec& s) const {
    check_(s);
    return {make_rational_quadratic_coupling_layer(s, input_.size, prefix(), layout_), input_};
  }
  MadeLayer made_of(const PermutationSpec& s) const {
    check_.columns("permutation");
    return {make_permutation_layer(s, input_.size, prefix(), layout_), input_};
  }
  MadeLayer made_of(const RotationSpec& s) const {
    check_.columns("rotation");
    return {make_rotation_layer(s, input_.size, prefix(), layout_), input_};
  }
  MadeLayer made_of(const ConfinementSpec& s) const {
    check_(s);
    return {make_confinement_layer(s), input_};
  }
  MadeLayer made_of(const AveragePoolSpec& s) const {
    const ImageShape output = check_.pool("average_pool", s.window, SpecCheck::kLargestWindow);
    const auto window = static_cast<double>(s.window);
    return {make_pool_layer(*input_.image, s.window, 1 / (window * window)), features(output)};
  }
  MadeLayer made_of(const SumPoolSpec& s) const {
    const ImageShape output = check_.pool("sum_pool", s.window, SpecCheck::kLargestWindow);
    return {make_pool_layer(*input_.image, s.window, 1), features(output)};
  }
  MadeLayer made_of(const MaxPoolSpec& s) const {
    const ImageShape output = check_.pool("max_pool", s.window, SpecCheck::kLargestMaxWindow);
    return {make_max_pool_layer(*input_.image, s.window), features(output)};
  }
  MadeLayer made_of(const UpsampleSpec& s) const {
    const ImageShape output = check_(s);
    return {make_upsample_layer(output, s.factor), features(output)};
  }
  MadeLayer made_of(const FlattenSpec& s) const {
    check_(s);
    return {nullptr, {input_.size, input_.image, true}};
  }
  MadeLayer made_of(const UnflattenSpec& s) const {
    check_(s);
    return {nullptr, {input_.size, input_.image, false}};
  }
  MadeLayer made_of(const ResidualSpec& s) const {
    MadeLayer made;
    made.layer = make_residual_layer(s, input_, path_ + std::to_string(index_) + ".", merging_, layout_, made.output);
    return made;
  }
  MadeLayer made_of(const LayerGroup& group) const {
    merging_.groups.resampling += group.resampling.kind != Resampling::Kind::none;
    merging_.groups.norm += group.norm.has_value();
    merging_.groups.compose += group.composed.has_value();
    Around around;
    around.resampling = group.exchanged ? Resampling{} : group.resampling;
    if (group.norm) {
      around.norm = &std::get<BatchNormSpec>(specs_[*group.norm]);
      around.norm_prefix = prefix(*group.norm - index_);
    }
    if (group.activation) {
      around.activation = &std::get<ActivationSpec>(specs_[*group.activation]);
      around.activation_prefix = prefix(*group.activation - index_);
    }
    around.bias_factor = group.resampling.bias_factor();
    const LayerSpec& product = specs_[group.product];
    MadeLayer made;
    if (group.composed)
      made = composed_of(std::get<LinearSpec>(product), *group.composed, around);
    else if (const auto* linear = std::get_if<LinearSpec>(&product))
      made = product_of(*linear, around);
    else if (const auto* convolution = std::get_if<Conv2dSpec>(&product))
      made = product_of(*convolution, group, around);
    else
      made = product_of(std::get<ConvTranspose2dSpec>(product), around);
    made.specs = group.end - index_;
    return made;
  }
  // An unflatten behind it is part of the group: nothing but an activation may stand in between, and none does.
  MadeLayer product_of(const LinearSpec& s, Around& around) const {
    Features output{s.features};
    around.unflatten = unflatten_behind(specs_, index_);
    if (around.unflatten != nullptr) output.image = shape(*around.unflatten);
    return {make_linear_layer(s, around, input_, prefix(), layout_), output};
  }
  MadeLayer composed_of(const LinearSpec& s, std::size_t convolution, Around& around) const {
    around.unflatten = &std::get<UnflattenSpec>(specs_[index_ + 1]);
    const Features image = features(shape(*around.unflatten));
    const SpecCheck check(path_, convolution, image);
    const std::string name = prefix(convolution - index_);
    if (const auto* conv = std::get_if<Conv2dSpec>(&specs_[convolution]))
      return {make_composed_layer(s, *conv, around, input_, prefix(), name, layout_), features(check(*conv))};
    const auto& up = std::get<ConvTranspose2dSpec>(specs_[convolution]);
    return {make_composed_layer(s, up, around, input_, prefix(), name, layout_), features(check(up))};
  }
  MadeLayer product_of(const ConvTranspose2dSpec& s, const Around& around) const {
    return {make_convolution_transpose_layer(s, around, *input_.image, prefix(), layout_), features(check_(s))};
  }
  MadeLayer product_of(const Conv2dSpec& s, const LayerGroup& group, const Around& around) const {
    const ImageShape& image = *input_.image;
    const std::string name = prefix(group.product - index_);
    const Resampling& resampling = group.resampling;
    const bool upsample = resampling.kind == Resampling::Kind::upsample;
    ImageShape read = image;  // by the convolution as specified
    if (upsample) read = {image.channels, image.height * resampling.window, image.width * resampling.window};
    const Features read_by(features(read));
    ImageShape output = SpecCheck(path_, group.product, read_by)(s);
    if (!upsample) output = {output.channels, output.height / resampling.window, output.width / resampling.window};
    if (!group.exchanged) return {make_convolution_layer(s, around, read, name, layout_), features(output)};
    MadeLayer made;
    made.output = features(output);
    if (upsample) {
      made.layer = make_convolution_layer(s, around, image, name, layout_);
      made.second = make_upsample_layer(output, resampling.window);
    } else {
      made.layer = make_pool_layer(image, resampling.window, resampling.scale());
      made.second = make_convolution_layer(
          s, around, {image.channels, image.height / resampling.window, image.width / resampling.window}, name,
          layout_);
    }
    return made;
  }

  Around behind(const ActivationSpec* activation, const UnflattenSpec* unflatten = nullptr) const {
    Around around;
    around.unflatten = unflatten;
    around.activation = activation;
    around.activation_prefix = prefix(1);
    return around;
  }
  static ImageShape shape(const UnflattenSpec& s) { return {s.channels, s.height, s.width}; }
  static Features features(const ImageShape& image) { return {image.size(), image, false}; }
  static std::size_t count(const ActivationSpec* activation) { return activation != nullptr ? 2 : 1; }
  std::string prefix(std::size_t further = 0) const {
    return "layers." + path_ + std::to_string(index_ + further) + ".";
  }

  const std::vector<LayerSpec>& specs_;
  std::size_t index_;
  const Features& input_;
  const std::string& path_;
  Merging& merging_;
  BlockLayout& layout_;
  SpecCheck check_;
};

}  // namespace

MadeLayer make_layer(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input,
                     const std::string& path, Merging& merging, BlockLayout& layout) {
  return LayerMaker(specs, index, input, path, merging, layout).make();
}

}  // namespace bracket
