#include "host/files/jpeg_file.h"

#include "bracket/error.h"
#include "host/files/in_quotes.h"

#ifdef BRACKET_WITH_JPEG
// jpeglib.h uses FILE and size_t without declaring them.
#include <jpeglib.h>

#include <csetjmp>
#include <cstdio>
#endif

namespace bracket {

bool is_jpeg(std::span<const std::byte> file) noexcept {
  return file.size() >= 3 && file[0] == std::byte{0xff} && file[1] == std::byte{0xd8} && file[2] == std::byte{0xff};
}

#ifdef BRACKET_WITH_JPEG
namespace {

// libjpeg reports errors by a function that must not return.
struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

void leave(j_common_ptr info) {
  auto* errors = reinterpret_cast<ErrorManager*>(info->err);
  errors->base.format_message(info, errors->message);
  std::longjmp(errors->back, 1);
}

// Damaged data is a warning to libjpeg, which paints over it; a data set must not hold such pictures.
void leave_at_warning(j_common_ptr info, int level) {
  if (level < 0) leave(info);
}

// The steps of decoding. Each sets its own place to return to, and no object with a destructor lives in them.
bool create(jpeg_decompress_struct& info, ErrorManager& errors) {
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = leave;
  errors.base.emit_message = leave_at_warning;
  if (setjmp(errors.back) != 0) return false;
  jpeg_create_decompress(&info);
  return true;
}

bool read_header(jpeg_decompress_struct& info, ErrorManager& errors, std::span<const std::byte> file) {
  if (setjmp(errors.back) != 0) return false;
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&info, TRUE);
  info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  return true;
}

bool read_pixels(jpeg_decompress_struct& info, ErrorManager& errors, std::uint8_t* values, std::size_t row_bytes) {
  if (setjmp(errors.back) != 0) return false;
  jpeg_start_decompress(&info);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = values + info.output_scanline * row_bytes;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

struct Decoder {
  Decoder() = default;
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  jpeg_decompress_struct info{};
  ErrorManager errors{};
};

}  // namespace

PixelArray parse_jpeg(std::span<const std::byte> file, const std::string& file_name,
                      const std::function<void(const ImageShape&)>& accept) {
  Decoder decoder;
  const auto require = [&](bool read) {
    if (!read) {
      throw DataError(path_in_quotes(file_name) + ": the JPEG is damaged or truncated (" +
                      std::string(decoder.errors.message) + "); fetch or write it again");
    }
  };
  require(create(decoder.info, decoder.errors));
  require(read_header(decoder.info, decoder.errors, file));
  const int channels = decoder.info.num_components;
  if (channels != 1 && channels != 3) {
    throw DataError(path_in_quotes(file_name) + ": the JPEG has " + std::to_string(channels) +
                    " colour components; gray (1) and colour (3) are read, convert it");
  }
  PixelArray picture{{channels, decoder.info.image_height, decoder.info.image_width}, {}};
  accept(picture.shape);
  picture.values.resize(static_cast<std::size_t>(picture.shape.size()));
  require(read_pixels(decoder.info, decoder.errors, picture.values.data(),
                      static_cast<std::size_t>(picture.shape.width * picture.shape.channels)));
  return picture;
}

#else

PixelArray parse_jpeg(std::span<const std::byte> /*file*/, const std::string& file_name,
                      const std::function<void(const ImageShape&)>& /*accept*/) {
  throw DataError(path_in_quotes(file_name) +
                  " is a JPEG, which this build does not read; install libjpeg62-turbo-dev and build again, or convert "
                  "it to PNG");
}

#endif

}  // namespace bracket
