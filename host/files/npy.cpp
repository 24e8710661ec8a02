#include "host/files/npy.h"

#include <bit>
#include <cmath>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"
#include "host/files/integer_bytes.h"
#include "host/files/npy_header.h"
#include "host/files/posix_file.h"

namespace bracket {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kVersionEnd = 8;
// The array starts at a multiple of this, as numpy.save has it.
constexpr std::size_t kDataAlignment = 64;

template <typename ElementT>
using BitsOf = std::conditional_t<sizeof(ElementT) == 4, std::uint32_t, std::uint64_t>;

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string dtype_name(std::string_view dtype) {
  struct Name {
    std::string_view code, name;
  };
  constexpr Name kNames[] = {{"f2", "float16"},     {"f16", "float128"},    {"i1", "int8"},  {"i2", "int16"},
                             {"i4", "int32"},       {"i8", "int64"},        {"u1", "uint8"}, {"u2", "uint16"},
                             {"u4", "uint32"},      {"u8", "uint64"},       {"b1", "bool"},  {"c8", "complex64"},
                             {"c16", "complex128"}, {"O", "Python objects"}};
  for (const Name& name : kNames) {
    if (!dtype.empty() && dtype.substr(1) == name.code)
      return text_in_quotes(dtype) + " (" + std::string(name.name) + ")";
  }
  return text_in_quotes(dtype);
}

struct NpyParts {
  NpyHeader header;
  std::span<const std::byte> data;
};

NpyParts split_file(std::span<const std::byte> bytes, const std::string& file_name) {
  const std::string where = path_in_quotes(file_name) + ": ";
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic)) {
    throw DataError(where + "it does not start with the .npy signature; write it with numpy.save");
  }
  if (bytes.size() < kVersionEnd) {
    throw DataError(where + "it has " + std::to_string(bytes.size()) + " bytes, a .npy file has more; it is truncated");
  }
  const int major = std::to_integer<int>(bytes[6]);
  const int minor = std::to_integer<int>(bytes[7]);
  if (major < 1 || major > 3 || minor != 0) {
    throw DataError(where + "it has .npy version " + std::to_string(major) + "." + std::to_string(minor) +
                    "; versions 1.0, 2.0 and 3.0 are read");
  }
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  const std::size_t header_begin = kVersionEnd + length_bytes;
  std::size_t header_bytes = 0;
  for (std::size_t i = 0; i < length_bytes && kVersionEnd + i < bytes.size(); ++i) {
    header_bytes |= std::to_integer<std::size_t>(bytes[kVersionEnd + i]) << (8 * i);
  }
  if (bytes.size() < header_begin || bytes.size() - header_begin < header_bytes) {
    throw DataError(where + "its header ends at byte " + std::to_string(header_begin + header_bytes) +
                    ", the file has " + std::to_string(bytes.size()) + " bytes; it is truncated");
  }
  return {parse_npy_header(text.substr(header_begin, header_bytes), file_name),
          bytes.subspan(header_begin + header_bytes)};
}

template <typename ElementT>
ElementT decode(const std::byte* bytes, bool big_endian) {
  BitsOf<ElementT> bits = 0;
  for (std::size_t i = 0; i < sizeof(ElementT); ++i) {
    const std::size_t shift = 8 * (big_endian ? sizeof(ElementT) - 1 - i : i);
    bits |= std::to_integer<BitsOf<ElementT>>(bytes[i]) << shift;
  }
  return std::bit_cast<ElementT>(bits);
}

template <typename ElementT>
void decode_all(Table& table, std::span<const std::byte> data, bool fortran_order, bool big_endian,
                const std::string& file_name) {
  table.values.reserve(static_cast<std::size_t>(table.rows * table.cols));
  for (std::int64_t row = 0; row < table.rows; ++row) {
    for (std::int64_t col = 0; col < table.cols; ++col) {
      const std::int64_t index = fortran_order ? col * table.rows + row : row * table.cols + col;
      const auto value = decode<ElementT>(data.data() + static_cast<std::size_t>(index) * sizeof(ElementT), big_endian);
      if (!std::isfinite(value)) {
        throw DataError(path_in_quotes(file_name) + ": row " + std::to_string(row) + ", column " + std::to_string(col) +
                        " (counted from 0) is " +
                        (std::isnan(value) ? "NaN"
                         : value > 0       ? "inf"
                                           : "-inf") +
                        "; remove or replace values that are not finite");
      }
      table.values.push_back(static_cast<double>(value));
    }
  }
}

// The bytes behind the header must be those of the shape, all of them.
void require_size(const NpyParts& parts, std::int64_t element_bytes, const std::string& where) {
  std::int64_t expected = element_bytes;
  const auto size = parts.data.size();
  for (const std::int64_t extent : parts.header.shape) {
    if (extent == 0) {
      throw DataError(where + "shape " + shape_text(parts.header.shape) +
                      " is empty; at least one row and one column are needed");
    }
  }
  for (const std::int64_t extent : parts.header.shape) {
    if (!__builtin_mul_overflow(expected, extent, &expected)) continue;
    throw DataError(where + "shape " + shape_text(parts.header.shape) + " needs more than 2^63 bytes, the file has " +
                    std::to_string(size) + " after its header; write it again with numpy.save");
  }
  if (std::cmp_not_equal(expected, size)) {
    throw DataError(where + "shape " + shape_text(parts.header.shape) + " needs " + std::to_string(expected) +
                    " bytes after the header, the file has " + std::to_string(size) +
                    (std::cmp_greater(expected, size) ? " (truncated)" : " (foreign bytes at the end)") +
                    "; write it again with numpy.save");
  }
}

bool is_byte_type(std::string_view dtype) { return dtype == "|u1" || dtype == "<u1" || dtype == ">u1"; }

// Signature, version and header of a file whose array follows.
std::vector<std::byte> serialize_header(std::string_view dtype, std::span<const std::int64_t> shape) {
  std::string header =
      "{'descr': '" + std::string(dtype) + "', 'fortran_order': False, 'shape': " + shape_text(shape) + ", }";
  const std::size_t unpadded = kVersionEnd + 2 + header.size() + 1;
  header.append((kDataAlignment - unpadded % kDataAlignment) % kDataAlignment, ' ');
  header += '\n';
  std::vector<std::byte> bytes;
  for (const char c : kMagic) bytes.push_back(static_cast<std::byte>(c));
  for (const std::size_t byte : {std::size_t{1}, std::size_t{0}, header.size() & 255, header.size() >> 8}) {
    bytes.push_back(static_cast<std::byte>(byte));
  }
  for (const char c : header) bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}

void require_shape(std::span<const std::int64_t> shape, std::size_t values, std::size_t highest_rank) {
  std::int64_t count = 1;
  bool fits = !shape.empty() && shape.size() <= highest_rank;
  for (const std::int64_t extent : shape) fits = fits && extent >= 0 && !__builtin_mul_overflow(count, extent, &count);
  if (fits && std::cmp_equal(count, values)) return;
  throw InvalidArgument("npy: shape " + shape_text(shape) + " with " + std::to_string(values) +
                        " values; give a shape of rank 1 " + (highest_rank == 2 ? "or " : "to ") +
                        std::to_string(highest_rank) + " that has as many elements");
}

template <typename ElementT>
std::vector<std::byte> serialize(std::span<const ElementT> values, std::span<const std::int64_t> shape) {
  require_shape(shape, values.size(), 2);
  std::vector<std::byte> bytes = serialize_header(sizeof(ElementT) == 4 ? "<f4" : "<f8", shape);
  bytes.reserve(bytes.size() + values.size() * sizeof(ElementT));
  for (const ElementT value : values) append_little_endian(bytes, std::bit_cast<BitsOf<ElementT>>(value));
  return bytes;
}

}  // namespace

Table parse_npy(std::span<const std::byte> bytes, const std::string& file_name) {
  const auto [header, data] = split_file(bytes, file_name);
  const std::string where = path_in_quotes(file_name) + ": ";
  const bool big_endian = header.dtype.starts_with('>');
  const bool is_float32 = header.dtype == "<f4" || header.dtype == ">f4";
  if (!is_float32 && header.dtype != "<f8" && header.dtype != ">f8") {
    throw DataError(where + "dtype " + dtype_name(header.dtype) +
                    " is not accepted; float32 and float64 are, convert with array.astype('float32')");
  }
  if (header.shape.size() != 1 && header.shape.size() != 2) {
    throw DataError(where + "shape " + shape_text(header.shape) + " has rank " + std::to_string(header.shape.size()) +
                    "; the array must have shape (N, D) or (N,), use array.reshape(N, D)");
  }
  Table table{.rows = header.shape[0], .cols = header.shape.size() == 2 ? header.shape[1] : 1, .values = {}};
  require_size({header, data}, is_float32 ? 4 : 8, where);
  if (is_float32) {
    decode_all<float>(table, data, header.fortran_order, big_endian, file_name);
  } else {
    decode_all<double>(table, data, header.fortran_order, big_endian, file_name);
  }
  return table;
}

Table read_npy(const std::filesystem::path& path) { return parse_npy(read_file(path), path.string()); }

bool is_npy_of_bytes(std::span<const std::byte> bytes, const std::string& file_name) {
  return is_byte_type(split_file(bytes, file_name).header.dtype);
}

NpyBytes parse_npy_bytes(std::span<const std::byte> bytes, const std::string& file_name) {
  NpyParts parts = split_file(bytes, file_name);
  const std::string where = path_in_quotes(file_name) + ": ";
  if (!is_byte_type(parts.header.dtype)) {
    throw DataError(where + "dtype " + dtype_name(parts.header.dtype) +
                    " is not accepted for images; uint8 is, with values from 0 to 255");
  }
  if (parts.header.fortran_order && parts.header.shape.size() > 1) {
    throw DataError(where + "its images are in Fortran order; write numpy.ascontiguousarray(array)");
  }
  require_size(parts, 1, where);
  return {std::move(parts.header.shape), parts.data};
}

std::vector<std::int64_t> parse_npy_integers(std::span<const std::byte> bytes, const std::string& file_name) {
  const NpyParts parts = split_file(bytes, file_name);
  const std::string where = path_in_quotes(file_name) + ": ";
  const std::string& dtype = parts.header.dtype;
  const bool is_integer = dtype.size() == 3 && std::string_view("<>|").find(dtype[0]) != std::string_view::npos &&
                          (dtype[1] == 'i' || dtype[1] == 'u') &&
                          std::string_view("1248").find(dtype[2]) != std::string_view::npos;
  if (!is_integer || parts.header.shape.size() != 1) {
    throw DataError(where + "labels of dtype " + dtype_name(dtype) + " and shape " + shape_text(parts.header.shape) +
                    "; integers of shape (N,) are needed");
  }
  const auto width = static_cast<std::size_t>(dtype[2] - '0');
  require_size(parts, static_cast<std::int64_t>(width), where);
  std::vector<std::int64_t> values(static_cast<std::size_t>(parts.header.shape[0]));
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint64_t bits = 0;
    for (std::size_t b = 0; b < width; ++b) {
      const std::size_t place = dtype[0] == '>' ? width - 1 - b : b;
      bits |= std::to_integer<std::uint64_t>(parts.data[i * width + b]) << (8 * place);
    }
    const unsigned unused = 64 - 8 * static_cast<unsigned>(width);
    if (dtype[1] == 'u' && bits >> 63 != 0) {
      throw DataError(where + "label " + std::to_string(i) + " (counted from 0) is " + std::to_string(bits) +
                      "; labels count classes from 0");
    }
    // Shifting up and down spreads the sign.
    values[i] = dtype[1] == 'u' ? static_cast<std::int64_t>(bits) : static_cast<std::int64_t>(bits << unused) >> unused;
  }
  return values;
}

std::vector<std::byte> serialize_npy(std::span<const float> values, std::span<const std::int64_t> shape) {
  return serialize(values, shape);
}

std::vector<std::byte> serialize_npy(std::span<const double> values, std::span<const std::int64_t> shape) {
  return serialize(values, shape);
}

std::vector<std::byte> serialize_npy(std::span<const std::uint8_t> values, std::span<const std::int64_t> shape) {
  require_shape(shape, values.size(), 4);
  std::vector<std::byte> bytes = serialize_header("|u1", shape);
  const auto content = std::as_bytes(values);
  bytes.insert(bytes.end(), content.begin(), content.end());
  return bytes;
}

}  // namespace bracket
