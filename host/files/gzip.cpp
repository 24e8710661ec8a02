#include "host/files/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"
#include "host/files/posix_file.h"

namespace bracket {
namespace {

constexpr std::int64_t kAlwaysAllowed = std::int64_t{64} << 20;
constexpr std::int64_t kLargestRatio = 100;
constexpr std::int64_t kLargestSize = std::int64_t{16} << 30;
constexpr std::size_t kFirstGrowth = std::size_t{64} << 10;
// zlib counts in 32 bits.
constexpr std::size_t kLargestPiece = std::size_t{1} << 30;
constexpr int kGzipWindow = MAX_WBITS + 16;
constexpr int kRawWindow = -MAX_WBITS;

class Inflater {
 public:
  Inflater(int window_bits, const std::string& where) : where_(where) {
    if (inflateInit2(&stream_, window_bits) != Z_OK) throw OutOfMemory(where + "zlib has no memory to inflate it", 0);
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Appends one deflate stream to `out` and returns how many of `bytes` it took. At most `limit` bytes may be in `out`.
  std::size_t append(std::vector<std::byte>& out, std::span<const std::byte> bytes, std::int64_t limit) {
    const auto most = static_cast<std::size_t>(limit);
    std::size_t taken = 0, produced = out.size();
    for (int status = Z_OK; status != Z_STREAM_END;) {
      // One byte more than the limit, to tell an end at the limit from data beyond it.
      if (produced == out.size()) out.resize(std::min(most + 1, std::max(kFirstGrowth, 2 * out.size())));
      const std::size_t in_piece = std::min(bytes.size() - taken, kLargestPiece);
      const std::size_t out_piece = std::min(out.size() - produced, kLargestPiece);
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data() + taken));
      stream_.avail_in = static_cast<uInt>(in_piece);
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + produced);
      stream_.avail_out = static_cast<uInt>(out_piece);
      status = inflate(&stream_, Z_NO_FLUSH);
      taken += in_piece - stream_.avail_in;
      produced += out_piece - stream_.avail_out;
      if (produced > most) {
        throw DataError(where_ + "it inflates to more than " + std::to_string(limit) + " bytes from " +
                        std::to_string(bytes.size()) + "; if that is right, unpack it and give the unpacked file");
      }
      check(status, taken == bytes.size());
    }
    out.resize(produced);
    return taken;
  }

 private:
  void check(int status, bool input_is_used_up) const {
    if (status == Z_OK || status == Z_STREAM_END) return;
    if (status == Z_BUF_ERROR && input_is_used_up) {
      throw DataError(where_ + "its compressed data ends too early; it is truncated, fetch it again");
    }
    if (status == Z_MEM_ERROR) throw OutOfMemory(where_ + "zlib has no memory to inflate it", 0);
    throw DataError(where_ + "its compressed data is damaged (" +
                    (stream_.msg != nullptr ? stream_.msg : "zlib code " + std::to_string(status)) +
                    "); fetch it again");
  }

  z_stream stream_{};
  std::string where_;
};

}  // namespace

bool is_gzip(std::span<const std::byte> bytes) noexcept {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

std::int64_t largest_gunzipped_size(std::int64_t gzip_size) noexcept {
  return gzip_size > (kLargestSize - kAlwaysAllowed) / kLargestRatio ? kLargestSize
                                                                     : kAlwaysAllowed + kLargestRatio * gzip_size;
}

std::vector<std::byte> gunzip(std::span<const std::byte> bytes, const std::string& file_name) {
  const std::string where = path_in_quotes(file_name) + ": ";
  if (!is_gzip(bytes)) throw DataError(where + "it does not start as a .gz file does; it is damaged or no .gz file");
  const std::int64_t limit = largest_gunzipped_size(static_cast<std::int64_t>(bytes.size()));
  std::vector<std::byte> out;
  std::size_t taken = 0;
  while (taken < bytes.size()) {
    if (!is_gzip(bytes.subspan(taken))) {
      throw DataError(where + std::to_string(bytes.size() - taken) +
                      " foreign bytes follow the compressed data at byte " + std::to_string(taken) +
                      "; fetch it again");
    }
    taken += Inflater(kGzipWindow, where).append(out, bytes.subspan(taken), limit);
  }
  return out;
}

std::vector<std::byte> inflate_raw(std::span<const std::byte> bytes, std::int64_t size, const std::string& where) {
  std::vector<std::byte> out;
  const std::size_t taken = Inflater(kRawWindow, where).append(out, bytes, size);
  if (taken != bytes.size() || std::cmp_not_equal(out.size(), size)) {
    throw DataError(where + std::to_string(taken) + " of " + std::to_string(bytes.size()) +
                    " compressed bytes inflate to " + std::to_string(out.size()) + " bytes, its header says " +
                    std::to_string(size) + "; it is damaged");
  }
  return out;
}

std::vector<std::byte> read_plain_or_gzip(const std::filesystem::path& path) {
  std::vector<std::byte> bytes = read_file(path);
  return is_gzip(bytes) ? gunzip(bytes, path.string()) : std::move(bytes);
}

}  // namespace bracket
