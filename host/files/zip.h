// ZIP archives as NumPy writes them (.npz): members stored or deflated, Zip64 where an archive is large.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bracket {

struct ZipMember {
  std::string name;
  std::span<const std::byte> data;  ///< as it lies in the archive
  std::int64_t size = 0;            ///< when unpacked, as the archive says
  int method = 0;                   ///< 0: stored, 8: deflated
  bool encrypted = false;
  std::uint32_t crc32 = 0;
};

/// Every member by the central directory, each checked to lie inside `bytes`. Folders and names with an absolute path
/// or ".." in it are left out; nothing here ever writes a member to disk. Throws DataError with `file_name` for
/// anything else than a whole archive.
std::vector<ZipMember> zip_members(std::span<const std::byte> bytes, const std::string& file_name);

/// The content of a member, its CRC-32 checked. Throws DataError: encrypted, another method, damaged, larger than
/// largest_gunzipped_size of its packed size.
std::vector<std::byte> unpack(const ZipMember& member, const std::string& file_name);

struct NamedBytes {
  std::string name;
  std::span<const std::byte> bytes;
};

/// An archive of stored members, dated 1980-01-01, so that equal content gives equal bytes. Throws InvalidArgument for
/// 4 GiB or more in all.
std::vector<std::byte> serialize_zip(std::span<const NamedBytes> members);

}  // namespace bracket
