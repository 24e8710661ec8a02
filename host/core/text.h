// Names and numbers for messages.
#pragma once

#include <string>
#include <vector>

namespace bracket {

/// The entry of `names` that a person who typed `text` most likely meant: the least edits, dropped characters being the
/// cheapest; of equally near ones the longest, then the first. Upper and lower case count as equal. Empty only when
/// `names` is.
std::string nearest_name(const std::string& text, const std::vector<std::string>& names);

/// Shortest decimal text that reads back as the same double: "0.1", "1e-06", "25", "inf", "nan" (of either sign).
std::string format_number(double value);

/// What printf prints, of any length.
[[gnu::format(printf, 1, 2)]] std::string formatted(const char* format, ...);

/// printf's %.*f with at most 200 digits, and "NaN" for a NaN of either sign.
std::string fixed_number(double value, int digits);

/// printf's %.*g, and "NaN" for a NaN of either sign.
std::string rounded_number(double value, int digits);

}  // namespace bracket
