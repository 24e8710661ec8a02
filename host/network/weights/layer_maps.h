// The maps of linear and convolution layers, from their specifications.
#pragma once

#include <memory>
#include <string>

#include "host/network/convolution_product.h"
#include "host/network/epilogue.h"
#include "host/network/weights/stored_map.h"

namespace bracket {

std::unique_ptr<StoredMap> make_linear_map(const LinearSpec& spec, const UnflattenSpec* unflatten,
                                           const Features& input, const std::string& prefix, BlockLayout& layout);

struct ConvolutionMap {
  std::unique_ptr<StoredMap> map;
  ConvolutionProduct product;
};
/// `input` is what the convolution itself reads.
ConvolutionMap make_convolution_map(const Conv2dSpec& spec, const Around& around, const ImageShape& input,
                                    const std::string& prefix, BlockLayout& layout);
ConvolutionMap make_convolution_map(const ConvTranspose2dSpec& spec, const ImageShape& input, const std::string& prefix,
                                    BlockLayout& layout);

/// `map`, with the norm of `around` folded in where there is one.
std::unique_ptr<UsedMap> with_norm(std::unique_ptr<UsedMap> map, const Around& around, std::int64_t channels,
                                   BlockLayout& layout);

/// What stands behind a product of `cols` columns of `channels` channels.
Epilogue make_epilogue(const UsedMap& map, std::int64_t cols, std::int64_t channels, const Around& around,
                       BlockLayout& layout);

}  // namespace bracket
