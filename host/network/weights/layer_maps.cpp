#include "host/network/weights/layer_maps.h"

#include <utility>
#include <vector>

#include "host/network/weights/normalised_map.h"

namespace bracket {
namespace {

// The order (channel, y, x) of a side of the matrix that belongs to an image, beside another side of any kind.
FileOrder matrix_order(std::int64_t rows, const ImageShape* row_image, std::int64_t cols, const ImageShape* col_image) {
  if (row_image == nullptr && col_image == nullptr) return {};
  std::vector<std::int64_t> extents;
  std::vector<std::size_t> axes;
  const auto add = [&](std::int64_t size, const ImageShape* image) {
    const std::size_t first = extents.size();
    if (image == nullptr) {
      extents.push_back(size);
      axes.push_back(first);
    } else {
      extents.insert(extents.end(), {image->height, image->width, image->channels});
      axes.insert(axes.end(), {first + 2, first, first + 1});
    }
  };
  if (rows > 0) add(rows, row_image);
  if (cols > 0) add(cols, col_image);
  return permuted_order(extents, axes);
}

// Both kinds hold the weight of the Convolution whose input is the larger image, [out_channels, (ky, kx, in_channels)],
// which PyTorch orders (out_channels, in_channels, ky, kx); a transposed layer reads the out_channels of that map.
template <class SpecT>
ConvolutionMap stored_convolution(const SpecT& spec, const Convolution& map, bool transposed, const std::string& prefix,
                                  BlockLayout& layout) {
  const std::int64_t k = map.kernel, rows = map.out_channels, inputs = map.in_channels;
  WeightShape shape{rows, k * k * inputs, {rows, inputs, k, k}, permuted_order({rows, k, k, inputs}, {0, 3, 1, 2})};
  shape.channels_last = transposed;
  if (!transposed) {  // PyTorch's matrix [out, (in, ky, kx)]
    shape.singular_rows = rows;
    shape.singular_cols = k * k * inputs;
    shape.singular_col_order = permuted_order({k, k, inputs}, {2, 0, 1});
  } else {  // PyTorch's matrix [out, (in, ky, kx)] is the transposed of [(in, ky, kx), out]
    shape.singular_rows = rows * k * k;
    shape.singular_cols = inputs;
    shape.transposed = true;
  }
  return {std::make_unique<StoredMap>(std::move(shape), spec.spectral_norm, spec.bias ? spec.channels : 0, FileOrder{},
                                      prefix, layout),
          {map, transposed}};
}

}  // namespace

std::unique_ptr<StoredMap> make_linear_map(const LinearSpec& spec, const UnflattenSpec* unflatten,
                                           const Features& input, const std::string& prefix, BlockLayout& layout) {
  ImageShape output_image;
  if (unflatten != nullptr) output_image = {unflatten->channels, unflatten->height, unflatten->width};
  const ImageShape* row_image = unflatten != nullptr ? &output_image : nullptr;
  const ImageShape* col_image = input.flattened ? &*input.image : nullptr;
  const std::int64_t rows = spec.features, cols = input.size;
  const FileOrder row_order = matrix_order(rows, row_image, 0, nullptr);
  WeightShape shape{rows, cols, {rows, cols}, matrix_order(rows, row_image, cols, col_image)};
  shape.singular_rows = rows;
  shape.singular_cols = cols;
  shape.singular_row_order = row_order;
  shape.singular_col_order = matrix_order(0, nullptr, cols, col_image);
  return std::make_unique<StoredMap>(std::move(shape), spec.spectral_norm, spec.bias ? rows : 0, row_order, prefix,
                                     layout);
}

// Upsampling by f in front: output pixel o reads kernel tap k at pixel o + k - p of the larger image, which is pixel i
// of the smaller one where o + k - p = f i + q, 0 <= q < f. With P = kernel - 1 - p and t = o - f i + P that is tap
// k = kernel - 1 - t + q, so pixel i meets output o with the sum over q of those taps: the transposed convolution of
// stride f and padding P with the kernel's boxes, reversed. Pixels outside of the larger image lie outside of the
// smaller one, both are 0, and every term is there.
// A sum over windows of f behind it: output o sums o f + q, 0 <= q < f, each of which reads tap k at o f + q + k - p;
// with t = q + k that is the convolution of stride f and the same padding with sums over q of taps t - q.
ConvolutionMap make_convolution_map(const Conv2dSpec& spec, const Around& around, const ImageShape& input,
                                    const std::string& prefix, BlockLayout& layout) {
  const Resampling& resampling = around.resampling;
  const Convolution map{input.height, input.width, input.channels, spec.channels,
                        spec.kernel,  spec.stride, spec.padding};
  ConvolutionMap made = stored_convolution(spec, map, false, prefix, layout);
  made.map->scale_bias(around.bias_factor);
  if (resampling.kind == Resampling::Kind::none) return made;
  const bool upsample = resampling.kind == Resampling::Kind::upsample;
  const KernelBox box{spec.channels, input.channels, spec.kernel, resampling.window, resampling.scale(), upsample};
  made.map->sum_boxes(box);
  if (upsample)
    made.product = {{map.out_height(), map.out_width(), spec.channels, input.channels, box.wide_kernel(), box.window,
                     spec.kernel - 1 - spec.padding},
                    true};
  else
    made.product.map = {input.height,      input.width, input.channels, spec.channels,
                        box.wide_kernel(), box.window,  spec.padding};
  return made;
}

ConvolutionMap make_convolution_map(const ConvTranspose2dSpec& spec, const ImageShape& input, const std::string& prefix,
                                    BlockLayout& layout) {
  const auto size = [&](std::int64_t pixels) {
    return (pixels - 1) * spec.stride - 2 * spec.padding + spec.kernel + spec.output_padding;
  };
  const Convolution map{size(input.height), size(input.width), spec.channels, input.channels,
                        spec.kernel,        spec.stride,       spec.padding};
  return stored_convolution(spec, map, true, prefix, layout);
}

std::unique_ptr<UsedMap> with_norm(std::unique_ptr<UsedMap> map, const Around& around, std::int64_t channels,
                                   BlockLayout& layout) {
  if (around.norm == nullptr) return map;
  return std::make_unique<NormalisedMap>(std::move(map), *around.norm, channels, around.norm_prefix, layout);
}

Epilogue make_epilogue(const UsedMap& map, std::int64_t cols, std::int64_t channels, const Around& around,
                       BlockLayout& layout) {
  Epilogue epilogue(cols, map.shape().biases > 0 ? map.shape().biases : channels, around.activation);
  epilogue.add_slope(around.activation_prefix + "weight", layout);
  return epilogue;
}

}  // namespace bracket
