#include "host/network/layer_group.h"

namespace bracket {
namespace {

/// Summing kernels over boxes must pay in passes of this many rows, the least that training has.
constexpr std::int64_t kRows = 8;
/// An element of a kernel that is read or written costs as much as this many operations of a product: 4 bytes at the 8
/// (a core of an AMD EPYC: 80 Gflop/s, 10 GB/s) to 12 (H200: 60 Tflop/s, 4.8 TB/s) operations per byte of a machine.
constexpr std::int64_t kFlopsPerElement = 40;
/// What the ops take: kernels of 1024, weights of 2^31 elements.
constexpr std::int64_t kLargestKernel = 1024;
constexpr std::int64_t kMostWeights = 0x7fffffff;

/// For every pair of channels a convolution with `pixels` outputs has kernel^2 taps each, the strided one (kernel +
/// window - 1)^2 for each pixel of the small image; the sums over boxes touch every tap of both kernels once. A reverse
/// pass has twice the product and as many sums once more.
bool boxes_pay(std::int64_t kernel, std::int64_t window, std::int64_t pixels, std::int64_t small_pixels,
               std::int64_t channel_pairs) {
  if (window < 2 || kernel + window - 1 > kLargestKernel) return false;
  const std::int64_t wide = (kernel + window - 1) * (kernel + window - 1), taps = kernel * kernel;
  if (wide > kMostWeights / channel_pairs) return false;
  return 2 * (taps * pixels - wide * small_pixels) > kFlopsPerElement * (wide + taps) / kRows;
}

/// Pixels that a convolution of stride 1 makes along a side.
std::int64_t side_of(const Conv2dSpec& convolution, std::int64_t pixels) {
  return pixels + 2 * convolution.padding - convolution.kernel + 1;
}

class GroupFinder {
 public:
  GroupFinder(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input, const Merging& merging)
      : specs_(specs), index_(index), input_(input), merging_(merging) {}

  std::optional<LayerGroup> find() const {
    std::optional<LayerGroup> group = products();
    if (!group) return {};
    bool merged = group->resampling.kind != Resampling::Kind::none || group->composed;
    // Behind a linear layer BatchNorm may stand behind the unflatten, which moves no value.
    std::size_t next = group->end;
    if (!merged && spec<LinearSpec>(group->product) && spec<UnflattenSpec>(next) && free(next - 1)) ++next;
    if (merging_.norm && spec<BatchNormSpec>(next) && free(next - 1)) {
      group->norm = next;
      group->end = next + 1;
      merged = true;
    }
    if (!merged) return {};
    if (spec<ActivationSpec>(group->end) && free(group->end - 1)) {
      group->activation = group->end;
      ++group->end;
    }
    return group;
  }

 private:
  template <class SpecT>
  const SpecT* spec(std::size_t index) const {
    return index < specs_.size() ? std::get_if<SpecT>(&specs_[index]) : nullptr;
  }
  bool free(std::size_t index) const { return !is_side_input(specs_, index); }

  std::optional<LayerGroup> products() const {
    if (const auto* upsample = spec<UpsampleSpec>(index_)) return upsampled(*upsample);
    if (const auto* convolution = spec<Conv2dSpec>(index_)) return pooled(*convolution);
    if (spec<ConvTranspose2dSpec>(index_)) return LayerGroup{.product = index_, .end = index_ + 1};
    if (const auto* linear = spec<LinearSpec>(index_)) {
      if (composes(*linear)) return LayerGroup{.product = index_, .composed = index_ + 2, .end = index_ + 3};
      return LayerGroup{.product = index_, .end = index_ + 1};
    }
    return {};
  }

  std::optional<LayerGroup> upsampled(const UpsampleSpec& upsample) const {
    const auto* convolution = spec<Conv2dSpec>(index_ + 1);
    if (!merging_.resampling || convolution == nullptr || convolution->stride != 1 || !free(index_)) return {};
    LayerGroup group{.product = index_ + 1,
                     .resampling = {Resampling::Kind::upsample, upsample.factor},
                     .exchanged = exchanges(*convolution, upsample.factor),
                     .end = index_ + 2};
    const ImageShape& small = *input_.image;
    const std::int64_t pixels =
        side_of(*convolution, small.height * upsample.factor) * side_of(*convolution, small.width * upsample.factor);
    if (group.exchanged || (convolution->padding < convolution->kernel &&
                            boxes_pay(convolution->kernel, upsample.factor, pixels, small.pixels(),
                                      small.channels * convolution->channels)))
      return group;
    return {};
  }

  std::optional<LayerGroup> pooled(const Conv2dSpec& convolution) const {
    LayerGroup plain{.product = index_, .end = index_ + 1}, group{.product = index_, .end = index_ + 2};
    if (!merging_.resampling || convolution.stride != 1 || !free(index_)) return plain;
    if (const auto* average = spec<AveragePoolSpec>(index_ + 1))
      group.resampling = {Resampling::Kind::mean, average->window};
    else if (const auto* sum = spec<SumPoolSpec>(index_ + 1))
      group.resampling = {Resampling::Kind::sum, sum->window};
    else
      return plain;
    const ImageShape& image = *input_.image;
    const std::int64_t window = group.resampling.window;
    const std::int64_t pixels = side_of(convolution, image.height) * side_of(convolution, image.width);
    group.exchanged = exchanges(convolution, window);
    if (group.exchanged || boxes_pay(convolution.kernel, window, pixels, pixels / (window * window),
                                     image.channels * convolution.channels))
      return group;
    return plain;
  }

  // Resampling maps channels one by one, a 1 x 1 convolution pixels one by one.
  static bool exchanges(const Conv2dSpec& convolution, std::int64_t window) {
    return convolution.kernel == 1 && convolution.padding == 0 && window > 1;
  }

  bool composes(const LinearSpec& linear) const {
    const auto* unflatten = spec<UnflattenSpec>(index_ + 1);
    if (!merging_.compose || unflatten == nullptr || !free(index_) || !free(index_ + 1)) return false;
    const ImageShape image{unflatten->channels, unflatten->height, unflatten->width};
    std::int64_t outputs = 0, flops = 0;  // of a row
    const auto measure = [&](std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t products) {
      outputs = height * width * channels;
      flops = 2 * products * image.channels * channels;
    };
    if (const auto* conv = spec<Conv2dSpec>(index_ + 2)) {
      const auto size = [&](std::int64_t pixels) {
        return (pixels + 2 * conv->padding - conv->kernel) / conv->stride + 1;
      };
      const std::int64_t height = size(image.height), width = size(image.width);
      measure(height, width, conv->channels, height * width * conv->kernel * conv->kernel);
    } else if (const auto* up = spec<ConvTranspose2dSpec>(index_ + 2)) {
      const auto size = [&](std::int64_t pixels) {
        return (pixels - 1) * up->stride - 2 * up->padding + up->kernel + up->output_padding;
      };
      measure(size(image.height), size(image.width), up->channels, image.pixels() * up->kernel * up->kernel);
    } else {
      return false;
    }
    return 2 * input_.size * outputs < 2 * input_.size * linear.features + flops;
  }

  const std::vector<LayerSpec>& specs_;
  std::size_t index_;
  const Features& input_;
  const Merging& merging_;
};

}  // namespace

bool is_side_input(const std::vector<LayerSpec>& specs, std::size_t index) {
  for (const LayerSpec& layer : specs) {
    const auto* confinement = std::get_if<ConfinementSpec>(&layer);
    if (confinement && confinement->input_layer == static_cast<int>(index)) return true;
  }
  return false;
}

std::optional<LayerGroup> find_group(const std::vector<LayerSpec>& specs, std::size_t index, const Features& input,
                                     const Merging& merging) {
  return GroupFinder(specs, index, input, merging).find();
}

}  // namespace bracket
