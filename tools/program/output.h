// Standard output as a product of a command, and files that a command writes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace bracket {

/// Text that a command is there to give, buffered. Losing it is an error.
void print(const std::string& text);

/// Text that only keeps a person informed, shown at once. It may get lost.
void announce(const std::string& text);

/// "bracket: warning: ..." on standard error, in one line.
void warn(const std::string& text);

/// Writes out what was printed and returns the exit code: 0, also when a pipe's reader has seen enough; 3 with a
/// message when printed text is lost.
int finish_output();

/// `text` as one word of a shell's command line: as it is, or in single quotes.
std::string shell_word(const std::string& text);

/// Throws InvalidArgument unless the name of `path` ends in one of `endings` (lower case, with the dot).
/// Returns the ending.
std::string require_ending(const std::filesystem::path& path, std::span<const char* const> endings);

}  // namespace bracket
