// Deflated data as untrusted input: .gz files, and the members of .zip archives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace bracket {

/// Whether the bytes start as a .gz file does.
bool is_gzip(std::span<const std::byte> bytes) noexcept;

/// The most that `gunzip` makes of a file: 64 MiB + 100 times its size, and never above 16 GiB. Image sets shrink by a
/// factor below 20; deflate itself ends at 1,032.
std::int64_t largest_gunzipped_size(std::int64_t gzip_size) noexcept;

/// The content of all members of a .gz file. Memory grows with what was inflated so far, whatever the file claims.
/// Throws DataError with `file_name` and the reason: damaged, truncated, foreign bytes at the end, too large.
std::vector<std::byte> gunzip(std::span<const std::byte> bytes, const std::string& file_name);

/// Raw deflate data that must inflate to exactly `size` bytes; `size` was checked against something trustworthy or is
/// bounded by largest_gunzipped_size(bytes.size()). `where` opens error messages.
std::vector<std::byte> inflate_raw(std::span<const std::byte> bytes, std::int64_t size, const std::string& where);

/// The content of a regular file, inflated when it is a .gz file by its first bytes.
std::vector<std::byte> read_plain_or_gzip(const std::filesystem::path& path);

}  // namespace bracket
