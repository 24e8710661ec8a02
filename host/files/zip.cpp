#include "host/files/zip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "bracket/error.h"
#include "host/files/gzip.h"
#include "host/files/in_quotes.h"
#include "host/files/integer_bytes.h"

namespace bracket {
namespace {

// Sizes and signatures of the records (APPNOTE.TXT 4.3).
constexpr std::uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50,
                        kEnd64Signature = 0x06064b50, kLocatorSignature = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr std::size_t kLongestComment = 65535;
constexpr std::uint32_t kInZip64 = 0xffffffff;       // the value stands in a Zip64 record
constexpr std::uint16_t kStored = 0, kDeflated = 8;  // methods
constexpr std::uint16_t kVersion = 20, kNoFlags = 0, kMidnight = 0, kFirstOfJanuary1980 = 0x21;
constexpr std::size_t kLargestCrcPiece = std::size_t{1} << 30;  // zlib counts in 32 bits

std::uint32_t crc32_of(std::span<const std::byte> bytes) {
  uLong crc = ::crc32(0, nullptr, 0);
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kLargestCrcPiece));
    crc = ::crc32(crc, reinterpret_cast<const Bytef*>(piece.data()), static_cast<uInt>(piece.size()));
    bytes = bytes.subspan(piece.size());
  }
  return static_cast<std::uint32_t>(crc);
}

class ZipReader {
 public:
  ZipReader(std::span<const std::byte> bytes, const std::string& file_name)
      : bytes_(bytes), where_(path_in_quotes(file_name) + ": ") {}

  std::vector<ZipMember> read() {
    auto [at, count] = directory();
    std::vector<ZipMember> members;
    for (; count > 0; --count) {
      require(at, kCentralBytes, kCentralSignature, "entry of the central directory");
      const std::size_t name_bytes = u16(at + 28), extra_bytes = u16(at + 30), comment_bytes = u16(at + 32);
      require(at, kCentralBytes + name_bytes + extra_bytes + comment_bytes, kCentralSignature,
              "entry of the central directory");
      ZipMember member;
      member.name.assign(reinterpret_cast<const char*>(bytes_.data()) + at + kCentralBytes, name_bytes);
      member.method = u16(at + 10);
      member.encrypted = (u16(at + 8) & 1) != 0;
      member.crc32 = u32(at + 16);
      std::uint64_t size = u32(at + 24), packed = u32(at + 20), local = u32(at + 42);
      read_zip64_field(bytes_.subspan(at + kCentralBytes + name_bytes, extra_bytes), size, packed, local);
      if (std::cmp_greater(size, std::numeric_limits<std::int64_t>::max())) fail("a member claims 2^63 bytes or more");
      member.size = static_cast<std::int64_t>(size);
      member.data = member_data(local, packed, member.name);
      at += kCentralBytes + name_bytes + extra_bytes + comment_bytes;
      if (is_safe(member.name)) members.push_back(std::move(member));
    }
    return members;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError(where_ + reason + "; it is truncated, damaged or no .npz archive, fetch or write it again");
  }

  bool has(std::uint64_t at, std::uint64_t count) const { return at <= bytes_.size() && count <= bytes_.size() - at; }
  std::uint16_t u16(std::size_t at) const { return little_endian_at<std::uint16_t>(bytes_, at); }
  std::uint32_t u32(std::size_t at) const { return little_endian_at<std::uint32_t>(bytes_, at); }
  std::uint64_t u64(std::size_t at) const { return little_endian_at<std::uint64_t>(bytes_, at); }

  void require(std::uint64_t at, std::uint64_t count, std::uint32_t signature, const char* what) const {
    if (!has(at, count) || u32(static_cast<std::size_t>(at)) != signature)
      fail("byte " + std::to_string(at) + " should start an " + what);
  }

  struct Directory {
    std::size_t at;
    std::uint64_t count;
  };

  Directory directory() const {
    // The end record is followed by a comment of unknown length.
    std::optional<std::size_t> end;
    for (std::size_t back = kEndBytes; back <= std::min(bytes_.size(), kEndBytes + kLongestComment); ++back) {
      const std::size_t at = bytes_.size() - back;
      if (u32(at) != kEndSignature || u16(at + 20) != back - kEndBytes) continue;
      end = at;
      break;
    }
    if (!end) fail("it has no end-of-archive record");
    std::uint64_t count = u16(*end + 10), at = u32(*end + 16);
    if (count == 0xffff || at == kInZip64) {
      if (*end < kLocatorBytes || u32(*end - kLocatorBytes) != kLocatorSignature) fail("its Zip64 locator is absent");
      const std::uint64_t end64 = u64(*end - kLocatorBytes + 8);
      require(end64, kEnd64Bytes, kEnd64Signature, "end-of-archive record of Zip64");
      count = u64(static_cast<std::size_t>(end64) + 32);
      at = u64(static_cast<std::size_t>(end64) + 48);
    }
    if (!has(at, 0) || count > bytes_.size() / kCentralBytes) fail("its central directory lies outside the file");
    return {static_cast<std::size_t>(at), count};
  }

  // Extra field 1 holds, in this order, those of the values that did not fit 32 bits.
  void read_zip64_field(std::span<const std::byte> extra, std::uint64_t& size, std::uint64_t& packed,
                        std::uint64_t& local) const {
    while (extra.size() >= 4) {
      const std::size_t id = little_endian_at<std::uint16_t>(extra, 0),
                        count = little_endian_at<std::uint16_t>(extra, 2);
      if (count > extra.size() - 4) fail("an extra field is longer than its room");
      if (id == 1) {
        std::size_t at = 4;
        for (std::uint64_t* value : {&size, &packed, &local}) {
          if (*value != kInZip64) continue;
          if (at + 8 > 4 + count) fail("a Zip64 field is too short");
          *value = little_endian_at<std::uint64_t>(extra, at);
          at += 8;
        }
      }
      extra = extra.subspan(4 + count);
    }
  }

  std::span<const std::byte> member_data(std::uint64_t local, std::uint64_t packed, const std::string& name) const {
    require(local, kLocalBytes, kLocalSignature, "entry of a member");
    // Name and extra field are repeated here, the extra field not always with the same length.
    const std::size_t at = static_cast<std::size_t>(local);
    const std::uint64_t begin = local + kLocalBytes + u16(at + 26) + u16(at + 28);
    if (!has(begin, packed)) fail("member " + text_in_quotes(name) + " reaches beyond the end of the file");
    return bytes_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(packed));
  }

  static bool is_safe(const std::string& name) {
    if (name.empty() || name.front() == '/' || name.back() == '/' || name.find('\\') != std::string::npos) return false;
    const std::string framed = "/" + name + "/";
    return framed.find("/../") == std::string::npos;
  }

  std::span<const std::byte> bytes_;
  std::string where_;
};

void append_text(std::vector<std::byte>& bytes, const std::string& text) {
  for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
}

// What the entry of a member and that of the central directory share: version to dates, CRC, sizes, name length.
void append_common(std::vector<std::byte>& out, const NamedBytes& member, std::uint32_t crc) {
  const auto size = static_cast<std::uint32_t>(member.bytes.size());
  for (const std::uint16_t field : {kVersion, kNoFlags, kStored, kMidnight, kFirstOfJanuary1980})
    append_little_endian(out, field);
  for (const std::uint32_t field : {crc, size, size}) append_little_endian(out, field);
  append_little_endian(out, static_cast<std::uint16_t>(member.name.size()));
}

}  // namespace

std::vector<ZipMember> zip_members(std::span<const std::byte> bytes, const std::string& file_name) {
  return ZipReader(bytes, file_name).read();
}

std::vector<std::byte> unpack(const ZipMember& member, const std::string& file_name) {
  const std::string where = path_in_quotes(file_name) + ", member " + text_in_quotes(member.name) + ": ";
  if (member.encrypted) throw DataError(where + "it is encrypted; write the archive without a password");
  if (member.method != kStored && member.method != kDeflated) {
    throw DataError(where + "compression method " + std::to_string(member.method) +
                    " is not read; stored and deflated are, write it with numpy.savez_compressed");
  }
  const auto packed = static_cast<std::int64_t>(member.data.size());
  std::vector<std::byte> content;
  if (member.method == kDeflated) {
    if (const std::int64_t limit = largest_gunzipped_size(packed); member.size > limit) {
      throw DataError(where + std::to_string(packed) + " bytes claim to inflate to " + std::to_string(member.size) +
                      ", more than the " + std::to_string(limit) +
                      " accepted; if that is right, write it with numpy.savez");
    }
    content = inflate_raw(member.data, member.size, where);
  } else {
    if (member.size != packed) {
      throw DataError(where + "it is stored in " + std::to_string(packed) + " bytes and claims " +
                      std::to_string(member.size) + "; it is damaged");
    }
    content.assign(member.data.begin(), member.data.end());
  }
  if (crc32_of(content) != member.crc32) throw DataError(where + "its CRC-32 is wrong; it is damaged, fetch it again");
  return content;
}

std::vector<std::byte> serialize_zip(std::span<const NamedBytes> members) {
  std::uint64_t total = 0;
  for (const NamedBytes& member : members)
    total += member.bytes.size() + 2 * member.name.size() + kLocalBytes + kCentralBytes;
  if (total >= kInZip64 - kEndBytes) {
    throw InvalidArgument("an archive of " + std::to_string(total) +
                          " bytes exceeds the 4 GiB of the ZIP format; write fewer samples or a .npy file");
  }
  constexpr std::size_t kMost = 0xffff;  // of members, and of bytes in a name
  if (members.size() > kMost ||
      std::any_of(members.begin(), members.end(), [&](const auto& member) { return member.name.size() > kMost; }))
    throw InvalidArgument("an archive of " + std::to_string(members.size()) +
                          " members: the ZIP format takes 65,535, with names of as many bytes");
  std::vector<std::byte> out, directory;
  out.reserve(static_cast<std::size_t>(total) + kEndBytes);
  for (const NamedBytes& member : members) {
    const auto local = static_cast<std::uint32_t>(out.size());
    const std::uint32_t crc = crc32_of(member.bytes);
    append_little_endian(out, kLocalSignature);
    append_common(out, member, crc);
    append_little_endian(out, std::uint16_t{0});  // extra field
    append_text(out, member.name);
    out.insert(out.end(), member.bytes.begin(), member.bytes.end());

    append_little_endian(directory, kCentralSignature);
    append_little_endian(directory, kVersion);
    append_common(directory, member, crc);
    for (int i = 0; i < 4; ++i) append_little_endian(directory, std::uint16_t{0});  // extra, comment, disk, attributes
    append_little_endian(directory, std::uint32_t{0});
    append_little_endian(directory, local);
    append_text(directory, member.name);
  }
  const auto directory_at = static_cast<std::uint32_t>(out.size());
  out.insert(out.end(), directory.begin(), directory.end());
  append_little_endian(out, kEndSignature);
  append_little_endian(out, std::uint32_t{0});  // numbers of disks
  for (int i = 0; i < 2; ++i) append_little_endian(out, static_cast<std::uint16_t>(members.size()));
  append_little_endian(out, static_cast<std::uint32_t>(directory.size()));
  append_little_endian(out, directory_at);
  append_little_endian(out, std::uint16_t{0});  // comment
  return out;
}

}  // namespace bracket
