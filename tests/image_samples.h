// Small image files of every format, made from a seed.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bracket/image_shape.h"
#include "bracket/random.h"

namespace bracket {

inline std::vector<std::uint8_t> random_pixels(std::int64_t count, std::uint64_t seed) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < pixels.size(); ++i)
    pixels[i] = static_cast<std::uint8_t>(random_word({seed, RandomStream::test, 0}, i) >> 24);
  return pixels;
}

inline std::string text_of(const std::vector<std::uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

inline std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// `window_bits`: 15 + 16 for gzip, -15 for raw deflate.
inline std::string deflated(std::string_view text, int window_bits) {
  z_stream stream{};
  if (deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::runtime_error("deflateInit2");
  std::string out(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  if (status != Z_STREAM_END) throw std::runtime_error("deflate");
  return out;
}

inline std::string gzipped(std::string_view text) { return deflated(text, 15 + 16); }

inline std::string idx_file(const std::vector<std::uint32_t>& shape, std::string_view values, int type = 8) {
  std::string text = {'\0', '\0', static_cast<char>(type), static_cast<char>(shape.size())};
  for (const std::uint32_t extent : shape)
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(extent >> shift);
  return text.append(values);
}

/// Records of the binary CIFAR layout around pixels given as (y, x, channel); `labels` holds those of each record.
inline std::string cifar_file(const std::vector<std::uint8_t>& pixels, const std::vector<std::string>& labels) {
  std::string text;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    text += labels[i];
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t p = 0; p < 1024; ++p) text += static_cast<char>(pixels[i * 3072 + p * 3 + c]);
  }
  return text;
}

inline std::string npy_file(const std::string& dtype, const std::string& shape, std::string_view values,
                            const std::string& fortran = "False") {
  const std::string header = "{'descr': '" + dtype + "', 'fortran_order': " + fortran + ", 'shape': " + shape + "}\n";
  std::string text = std::string("\x93NUMPY\x01", 7) + '\0' + static_cast<char>(header.size() & 255) +
                     static_cast<char>(header.size() >> 8) + header;
  return text.append(values);
}

}  // namespace bracket
