// Untrusted text made safe to print inside a one-line error message.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace bracket {

/// `text` in single quotes, control characters as \xNN, cut with "..." after `limit` bytes.
std::string text_in_quotes(std::string_view text, std::size_t limit = 80);

/// A path in single quotes, control characters as \xNN, never cut.
std::string path_in_quotes(const std::filesystem::path& path);

/// A path without quotes, control characters as \xNN, for the file:line:column form that editors open.
std::string printable_path(const std::filesystem::path& path);

}  // namespace bracket
