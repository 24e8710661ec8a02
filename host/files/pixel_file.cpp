#include "host/files/pixel_file.h"

#include <png.h>

#include <cstring>

#include "bracket/error.h"
#include "host/files/in_quotes.h"
#include "host/files/jpeg_file.h"

namespace bracket {
namespace {

constexpr std::int64_t kLargestPicture = std::int64_t{1} << 26;

// Owns the state of libpng's simplified interface, which reports errors by value instead of longjmp.
class PngState {
 public:
  PngState() { image.version = PNG_IMAGE_VERSION; }
  ~PngState() { png_image_free(&image); }
  PngState(const PngState&) = delete;
  PngState& operator=(const PngState&) = delete;

  png_image image{};
};

void require_acceptable(const ImageShape& shape, const std::string& where, const std::optional<ImageShape>& wanted) {
  if (wanted && shape != *wanted) {
    throw DataError(where + "it has " + shape_text(shape) + ", the others " + shape_text(*wanted) +
                    "; all pictures of a set must be alike, resize or convert it");
  }
  if (shape.size() > kLargestPicture) {
    throw DataError(where + "it claims " + shape_text(shape) + ", more than " + std::to_string(kLargestPicture) +
                    " values; it is damaged or too large to train on");
  }
}

PixelArray parse_png(std::span<const std::byte> file, const std::string& where,
                     const std::optional<ImageShape>& wanted) {
  PngState state;
  png_image& image = state.image;
  if (png_image_begin_read_from_memory(&image, file.data(), file.size()) == 0)
    throw DataError(where + "no readable PNG (" + image.message + "); fetch or write it again");
  if ((image.format & (PNG_FORMAT_FLAG_ALPHA | PNG_FORMAT_FLAG_LINEAR)) != 0) {
    throw DataError(where + "the PNG has " +
                    ((image.format & PNG_FORMAT_FLAG_ALPHA) != 0 ? "transparency" : "16 bits a channel") +
                    "; convert it to 8-bit gray or RGB");
  }
  const bool colour = (image.format & PNG_FORMAT_FLAG_COLOR) != 0;
  PixelArray picture{{colour ? 3 : 1, image.height, image.width}, {}};
  require_acceptable(picture.shape, where, wanted);
  picture.values.resize(static_cast<std::size_t>(picture.shape.size()));
  image.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  if (png_image_finish_read(&image, nullptr, picture.values.data(), 0, nullptr) == 0)
    throw DataError(where + "the PNG is damaged or truncated (" + image.message + "); fetch or write it again");
  return picture;
}

}  // namespace

bool has_picture_ending(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return ending == ".png" || ending == ".jpg" || ending == ".jpeg";
}

std::string shape_text(const ImageShape& shape) {
  const std::string pixels = std::to_string(shape.width) + " x " + std::to_string(shape.height) + " pixels, ";
  if (shape.channels == 1) return pixels + "gray";
  return pixels + (shape.channels == 3 ? "colour" : std::to_string(shape.channels) + " channels");
}

PixelArray parse_picture(std::span<const std::byte> file, const std::string& file_name,
                         const std::optional<ImageShape>& wanted) {
  const std::string where = path_in_quotes(file_name) + ": ";
  if (is_jpeg(file)) {
    return parse_jpeg(file, file_name, [&](const ImageShape& shape) { require_acceptable(shape, where, wanted); });
  }
  return parse_png(file, where, wanted);
}

std::vector<std::byte> serialize_png(std::span<const std::uint8_t> values, const ImageShape& shape) {
  if ((shape.channels != 1 && shape.channels != 3) || shape.size() < 1 || shape.width > PNG_UINT_31_MAX ||
      shape.height > PNG_UINT_31_MAX || static_cast<std::int64_t>(values.size()) != shape.size()) {
    throw InvalidArgument("a PNG holds at least one pixel of 1 or 3 channels, got " + shape_text(shape) + " and " +
                          std::to_string(values.size()) + " values");
  }
  PngState state;
  png_image& image = state.image;
  image.width = static_cast<png_uint_32>(shape.width);
  image.height = static_cast<png_uint_32>(shape.height);
  image.format = shape.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::vector<std::byte> file(size);
  if (png_image_write_to_memory(&image, file.data(), &size, 0, values.data(), 0, nullptr) == 0)
    throw DataError("libpng cannot encode " + shape_text(shape) + ": " + image.message);
  file.resize(size);
  file.shrink_to_fit();
  return file;
}

}  // namespace bracket
