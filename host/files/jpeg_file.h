// JPEG through libjpeg, where the build found it.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "host/files/pixel_file.h"

namespace bracket {

bool is_jpeg(std::span<const std::byte> file) noexcept;

/// `accept` is called with the shape before any pixel is decoded and throws to refuse it. Throws DataError with
/// `file_name`: damaged, truncated, of another colour model, or JPEG is not built in.
PixelArray parse_jpeg(std::span<const std::byte> file, const std::string& file_name,
                      const std::function<void(const ImageShape&)>& accept);

}  // namespace bracket
