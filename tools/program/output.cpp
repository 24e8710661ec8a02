#include "tools/program/output.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <system_error>

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

// errno of the first failed write of printed text; stdio itself only remembers that there was one.
int output_error = 0;
bool printed = false;

}  // namespace

void print(const std::string& text) {
  printed = true;
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written && output_error == 0) output_error = errno != 0 ? errno : EIO;
}

void announce(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void warn(const std::string& text) { std::fprintf(stderr, "bracket: warning: %s\n", text.c_str()); }

int finish_output() {
  errno = 0;
  if (std::fflush(stdout) != 0 && output_error == 0) output_error = errno != 0 ? errno : EIO;
  if (!printed || output_error == 0 || output_error == EPIPE) return 0;
  std::fprintf(stderr, "bracket: error: cannot write to standard output: %s\n",
               std::generic_category().message(output_error).c_str());
  return static_cast<int>(ExitCode::data);
}

std::string shell_word(const std::string& text) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("_-./+:@%,").find(static_cast<char>(c)) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

std::string require_ending(const std::filesystem::path& path, std::span<const char* const> endings) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (std::find(endings.begin(), endings.end(), ending) != endings.end()) return ending;
  std::string accepted;
  for (const char* const e : endings) accepted += (accepted.empty() ? "" : " or ") + std::string(e);
  throw InvalidArgument("output " + path_in_quotes(path) + " must end in " + accepted);
}

}  // namespace bracket
