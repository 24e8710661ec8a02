// Pictures as rows of bytes: PNG read and written, JPEG read where the build found libjpeg.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bracket/image_shape.h"

namespace bracket {

/// Values (y, x, channel); channels is 1 (gray) or 3 (red, green, blue).
struct PixelArray {
  ImageShape shape;
  std::vector<std::uint8_t> values;
};

/// Whether a name ends as that of a PNG or JPEG file does (.png, .jpg, .jpeg, in any case).
bool has_picture_ending(const std::filesystem::path& path);

/// "32 x 32 pixels, gray" or "... colour".
std::string shape_text(const ImageShape& shape);

/// Decodes a PNG of up to 8 bits a channel without transparency, gray or colour, or a gray or colour JPEG, told apart
/// by their first bytes. With `wanted`, a picture of another shape is refused before it is decoded. No picture above
/// 2^26 values is decoded, whatever a file claims. Throws DataError with `file_name` and the reason.
PixelArray parse_picture(std::span<const std::byte> file, const std::string& file_name,
                         const std::optional<ImageShape>& wanted = {});

/// A PNG file of a gray (1 channel) or colour (3 channels) picture. Throws InvalidArgument for other shapes.
std::vector<std::byte> serialize_png(std::span<const std::uint8_t> values, const ImageShape& shape);

}  // namespace bracket
