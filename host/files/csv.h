// Comma-separated numbers.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "host/files/table.h"

namespace bracket {

/// One row per line, fields split at commas, spaces and tabs around a field ignored, lines ended by LF or CR LF, blank
/// lines ignored. Numbers as in C ("1", "+.5", "-2e-3") whatever the locale. The first line is a header of names when
/// none of its fields is a number; it must have as many fields as the rows.
/// Accepts any bytes; throws DataError that starts with file:line:column (both counted from 1, column in bytes).
Table parse_csv(std::string_view text, const std::string& file_name);
Table read_csv(const std::filesystem::path& path);

}  // namespace bracket
