#include "host/network/spec_check.h"

#include "bracket/error.h"

namespace bracket {
namespace {

// What the kernels take: an image's values and a weight's are indexed with 32 bits.
constexpr std::int64_t kLargestRow = 2147483647;  // 2^31 - 1
constexpr std::int64_t kLargestExtent = 65536;
constexpr std::int64_t kLargestChannels = 1048576;
constexpr std::int64_t kLargestKernel = 1024;

std::string number(std::int64_t value) { return std::to_string(value); }

}  // namespace

void SpecCheck::require(bool holds, const std::string& what) const {
  if (!holds) throw InvalidArgument(label_ + ": " + what);
}

void SpecCheck::plain_rows(const char* type) const {
  require(!input_.image || input_.flattened,
          std::string(type) + " reads rows, here come " + described(input_) + "; put flatten before it");
}

void SpecCheck::image(const char* type) const {
  require(input_.image && !input_.flattened, std::string(type) + " reads images, here come " + described(input_) +
                                                 "; give the network an image shape or put unflatten before it");
}

ImageShape SpecCheck::sized(const char* type, std::int64_t channels, std::int64_t height, std::int64_t width) const {
  require(height <= kLargestExtent && width <= kLargestExtent,
          std::string(type) + " would make images of " + described({channels, height, width}) + ", more than " +
              number(kLargestExtent) + " pixels a side");
  const double size = static_cast<double>(channels) * static_cast<double>(height) * static_cast<double>(width);
  require(size <= static_cast<double>(kLargestRow), std::string(type) + " would make images of " +
                                                        described({channels, height, width}) + ", more than " +
                                                        number(kLargestRow) + " values");
  return {channels, height, width};
}

void SpecCheck::operator()(const LinearSpec& s, const UnflattenSpec* behind) const {
  plain_rows("linear");
  require(s.features > 0, "linear features is " + number(s.features) + ", must be at least 1");
  require(s.weight_gain >= 0, "linear weight_gain must not be negative");
  require(!s.identity_start || s.features == input_.size,
          "identity_start needs features = inputs, got " + number(s.features) + " and " + number(input_.size));
  if (behind == nullptr) return;
  require(behind->channels > 0 && behind->height > 0 && behind->width > 0,
          "unflatten behind linear needs positive extents, got " +
              described({behind->channels, behind->height, behind->width}));
  sized("unflatten behind linear", behind->channels, behind->height, behind->width);
  require(behind->channels * behind->height * behind->width == s.features,
          "linear has " + number(s.features) + " features, unflatten behind it wants " +
              described({behind->channels, behind->height, behind->width}) + " = " +
              number(behind->channels * behind->height * behind->width));
}

void SpecCheck::operator()(const BatchNormSpec& s) const {
  require(!input_.flattened,
          "batch_norm on a flattened image is not supported; put it before flatten, behind unflatten or behind a "
          "linear layer");
  require(s.epsilon > 0, "batch_norm epsilon must be positive");
  require(s.momentum >= 0 && s.momentum <= 1, "batch_norm momentum must lie in [0, 1]");
  require(s.deviation >= 0, "batch_norm deviation must not be negative");
}

void SpecCheck::operator()(const AffineSpec& s) const {
  require(!input_.image, "affine reads rows, here come images; leave it out");
  const auto n = static_cast<std::size_t>(input_.size);
  require(s.scale.size() == n && s.shift.size() == n,
          "affine needs one scale and one shift per column (" + number(input_.size) + "), got " +
              std::to_string(s.scale.size()) + " and " + std::to_string(s.shift.size()));
  for (const double scale : s.scale) require(scale != 0, "affine scale must not be zero");
}

void SpecCheck::operator()(const FourierFeaturesSpec& s) const {
  require(!input_.image, "fourier_features reads rows, here come images; put flatten and linear before it");
  require(s.frequencies >= 1, "fourier_features frequencies must be at least 1");
}

void SpecCheck::coupling(const std::string& type, std::int64_t active_first, std::int64_t active_count,
                         const std::vector<std::int64_t>& hidden) const {
  require(!input_.image, type + " reads rows, here come images; put flatten and linear before it");
  require(active_count >= 1 && active_count < input_.size,
          type + " needs 1 <= active_count < inputs (" + number(input_.size) + "), got " + number(active_count));
  require(active_first == 0 || active_first + active_count == input_.size,
          type + "'s active columns must be the first or the last ones");
  for (const std::int64_t width : hidden) require(width > 0, type + " hidden widths must be positive");
}

void SpecCheck::operator()(const MonotoneCouplingSpec& s) const {
  coupling("monotone_coupling", s.active_first, s.active_count, s.hidden);
  require(s.knots >= 1, "monotone_coupling knots must be at least 1");
  require(s.max_slope > 0 && s.max_height > 0, "monotone_coupling max_slope and max_height must be positive");
}

void SpecCheck::operator()(const RationalQuadraticCouplingSpec& s) const {
  const std::string type = "rational_quadratic_coupling";
  coupling(type, s.active_first, s.active_count, s.hidden);
  require(s.bins >= 1, type + " bins must be at least 1");
  require(s.bound > 0, type + " bound must be positive");
  const auto shares = [&](const char* field, double least) {
    require(least > 0 && static_cast<double>(s.bins) * least < 1,
            type + " " + field + " must be positive and bins " + field + " below 1, got " + number(s.bins) + " bins");
  };
  shares("min_width", s.min_width);
  shares("min_height", s.min_height);
  require(s.min_derivative > 0 && s.min_derivative < 1, type + " min_derivative must lie between 0 and 1");
}

void SpecCheck::columns(const char* type) const {
  require(!input_.image, std::string(type) + " reads rows, here come images; put flatten and linear before it");
}

void SpecCheck::operator()(const ConfinementSpec& s) const {
  require(input_.size == 1, "confinement needs a scalar output before it, got " + number(input_.size) + " columns");
  require(s.input_layer >= -1 && s.input_layer < static_cast<int>(index_),
          "confinement input_layer is " + std::to_string(s.input_layer) + ", must name an earlier layer or be -1");
}

void SpecCheck::operator()(const FlattenSpec&) const { image("flatten"); }

void SpecCheck::operator()(const UnflattenSpec& s) const {
  const ImageShape wanted{s.channels, s.height, s.width};
  require(input_.flattened,
          "unflatten must stand behind flatten or a linear layer and its activation, whose rows a file can reorder");
  require(*input_.image == wanted,
          "unflatten wants " + described(wanted) + ", here comes a flattened image of " + described(*input_.image));
}

void SpecCheck::convolution(const char* type, std::int64_t channels, std::int64_t kernel, std::int64_t stride,
                            std::int64_t padding, double deviation) const {
  image(type);
  const std::string name(type);
  const auto within = [&](const char* field, std::int64_t value, std::int64_t low, std::int64_t high) {
    require(value >= low && value <= high,
            name + " " + field + " is " + number(value) + ", must lie in [" + number(low) + ", " + number(high) + "]");
  };
  within("channels", channels, 1, kLargestChannels);
  within("kernel", kernel, 1, kLargestKernel);
  within("stride", stride, 1, kLargestExtent);
  within("padding", padding, 0, kLargestExtent);
  require(deviation >= 0, name + " deviation must not be negative");
  const double size = static_cast<double>(channels) * static_cast<double>(input_.image->channels) *
                      static_cast<double>(kernel) * static_cast<double>(kernel);
  require(size <= static_cast<double>(kLargestRow),
          name + " has a weight of " + number(channels) + " x " + number(input_.image->channels) + " x " +
              number(kernel) + " x " + number(kernel) + " values, more than " + number(kLargestRow));
}

ImageShape SpecCheck::operator()(const Conv2dSpec& s) const {
  convolution("conv2d", s.channels, s.kernel, s.stride, s.padding, s.deviation);
  const auto pixels = [&](const char* side, std::int64_t size) {
    require(size + 2 * s.padding >= s.kernel, std::string("conv2d kernel ") + number(s.kernel) + " exceeds the " +
                                                  side + " of " + number(size) + " pixels with padding " +
                                                  number(s.padding));
    return (size + 2 * s.padding - s.kernel) / s.stride + 1;
  };
  const std::int64_t height = pixels("height", input_.image->height), width = pixels("width", input_.image->width);
  return sized("conv2d", s.channels, height, width);
}

ImageShape SpecCheck::operator()(const ConvTranspose2dSpec& s) const {
  convolution("conv_transpose2d", s.channels, s.kernel, s.stride, s.padding, s.deviation);
  require(s.output_padding >= 0 && s.output_padding < s.stride,
          "conv_transpose2d output_padding is " + number(s.output_padding) +
              ", must lie in [0, stride = " + number(s.stride) + ")");
  const auto pixels = [&](const char* side, std::int64_t size) {
    const std::int64_t out = (size - 1) * s.stride - 2 * s.padding + s.kernel + s.output_padding;
    require(out >= 1, std::string("conv_transpose2d makes a ") + side + " of " + number(out) + " pixels from " +
                          number(size) + "; lower padding or raise kernel");
    return out;
  };
  const std::int64_t height = pixels("height", input_.image->height), width = pixels("width", input_.image->width);
  return sized("conv_transpose2d", s.channels, height, width);
}

ImageShape SpecCheck::operator()(const UpsampleSpec& s) const {
  image("upsample");
  require(s.factor >= 1 && s.factor <= kLargestExtent,
          "upsample factor is " + number(s.factor) + ", must lie in [1, " + number(kLargestExtent) + "]");
  return sized("upsample", input_.image->channels, input_.image->height * s.factor, input_.image->width * s.factor);
}

ImageShape SpecCheck::pool(const char* type, std::int64_t window, std::int64_t largest) const {
  image(type);
  const ImageShape& from = *input_.image;
  require(window >= 1 && window <= largest,
          std::string(type) + " window is " + number(window) + ", must lie in [1, " + number(largest) + "]");
  require(from.height % window == 0 && from.width % window == 0,
          std::string(type) + " window " + number(window) + " must divide height and width, here come images of " +
              described(from));
  return {from.channels, from.height / window, from.width / window};
}

}  // namespace bracket
