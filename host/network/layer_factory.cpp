#include "host/network/layer_factory.h"

#include "host/network/spec_check.h"

namespace bracket {
namespace {

// Whether a later confinement reads the output of layer `index`, which must then exist as a value of its own.
bool is_side_input(const std::vector<LayerSpec>& specs, std::size_t index) {
  for (const LayerSpec& layer : specs) {
    const auto* confinement = std::get_if<ConfinementSpec>(&layer);
    if (confinement && confinement->input_layer == static_cast<int>(index)) return true;
  }
  return false;
}

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
             BlockLayout& layout)
      : specs_(specs), index_(index), input_(input), path_(path), layout_(layout), check_(path, index, input) {}

  MadeLayer make() const {
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
    return {make_linear_layer(s, {activation, prefix(1), unflatten}, input_, prefix(), layout_), output,
            count(activation)};
  }
  MadeLayer made_of(const Conv2dSpec& s) const {
    const ImageShape output = check_(s);
    const ActivationSpec* activation = activation_behind(specs_, index_);
    return {make_convolution_layer(s, {activation, prefix(1)}, *input_.image, prefix(), layout_), features(output),
            count(activation)};
  }
  MadeLayer made_of(const ConvTranspose2dSpec& s) const {
    const ImageShape output = check_(s);
    const ActivationSpec* activation = activation_behind(specs_, index_);
    return {make_convolution_transpose_layer(s, {activation, prefix(1)}, *input_.image, prefix(), layout_),
            features(output), count(activation)};
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
    made.layer = make_residual_layer(s, input_, path_ + std::to_string(index_) + ".", layout_, made.output);
    return made;
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
  BlockLayout& layout_;
  SpecCheck check_;
};

}  // namespace

MadeLayer make_layer(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input,
                     const std::string& path, BlockLayout& layout) {
  return LayerMaker(specs, index, input, path, layout).make();
}

}  // namespace bracket
