#include "host/files/idx.h"

#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"
#include "host/files/integer_bytes.h"

namespace bracket {
namespace {

constexpr std::size_t kMagicBytes = 4;
constexpr int kUnsignedByte = 0x08;

std::string type_name(int type) {
  struct Name {
    int code;
    const char* name;
  };
  constexpr Name kNames[] = {{0x08, "unsigned bytes"},  {0x09, "signed bytes"}, {0x0b, "16-bit integers"},
                             {0x0c, "32-bit integers"}, {0x0d, "float"},        {0x0e, "double"}};
  for (const Name& name : kNames) {
    if (name.code == type) return name.name;
  }
  return "unknown type " + std::to_string(type);
}

}  // namespace

bool is_idx(std::span<const std::byte> bytes, int rank) noexcept {
  return bytes.size() >= kMagicBytes &&
         big_endian_at<std::uint32_t>(bytes, 0) == (kUnsignedByte << 8 | static_cast<std::uint32_t>(rank));
}

IdxArray parse_idx(std::span<const std::byte> bytes, int rank, const std::string& file_name) {
  const std::string where = path_in_quotes(file_name) + ": ";
  if (bytes.size() < kMagicBytes || bytes[0] != std::byte{0} || bytes[1] != std::byte{0}) {
    throw DataError(where + "it does not start with the two zero bytes of an IDX file; fetch it again");
  }
  const int type = std::to_integer<int>(bytes[2]), found_rank = std::to_integer<int>(bytes[3]);
  if (type != kUnsignedByte || found_rank != rank) {
    throw DataError(where + "it is an IDX file of " + type_name(type) + " with " + std::to_string(found_rank) +
                    " dimensions; unsigned bytes with " + std::to_string(rank) + " are needed (" +
                    (rank == 1 ? "labels" : "images") + ")");
  }
  const std::size_t header_bytes = kMagicBytes + 4 * static_cast<std::size_t>(rank);
  if (bytes.size() < header_bytes) {
    throw DataError(where + "its header has " + std::to_string(header_bytes) + " bytes, the file " +
                    std::to_string(bytes.size()) + "; it is truncated, fetch it again");
  }
  IdxArray array{.shape = {}, .values = bytes.subspan(header_bytes)};
  std::int64_t size = 1;
  std::string extents;
  bool fits = true;
  for (int i = 0; i < rank; ++i) {
    const std::int64_t extent = big_endian_at<std::uint32_t>(bytes, kMagicBytes + 4 * static_cast<std::size_t>(i));
    array.shape.push_back(extent);
    extents += (i == 0 ? "" : " x ") + std::to_string(extent);
    fits = fits && !__builtin_mul_overflow(size, extent, &size);
  }
  if (size == 0) throw DataError(where + "it holds " + extents + " values, which is nothing; fetch it again");
  if (!fits || std::cmp_not_equal(size, array.values.size())) {
    throw DataError(where + "its header announces " + extents + " values, " + std::to_string(array.values.size()) +
                    " follow (" +
                    (!fits || std::cmp_greater(size, array.values.size()) ? "truncated" : "foreign bytes at the end") +
                    "); fetch it again");
  }
  return array;
}

}  // namespace bracket
