#include "host/files/in_quotes.h"

namespace bracket {

namespace {

std::string printable(std::string_view text) {
  constexpr std::string_view kHexDigits = "0123456789abcdef";
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      result += "\\x";
      result += kHexDigits[byte >> 4];
      result += kHexDigits[byte & 15];
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace

std::string text_in_quotes(std::string_view text, std::size_t limit) {
  return "'" + printable(text.substr(0, limit)) + (text.size() > limit ? "...'" : "'");
}

std::string path_in_quotes(const std::filesystem::path& path) { return "'" + printable_path(path) + "'"; }

std::string printable_path(const std::filesystem::path& path) { return printable(path.string()); }

}  // namespace bracket
