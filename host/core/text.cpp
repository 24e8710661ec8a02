#include "host/core/text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <limits>

namespace bracket {
namespace {

// Costs of turning the typed text into a name. People shorten names ("moons") more often than they lengthen them, so a
// missing character is the cheapest edit; a wrong one costs as much as removing it and typing another.
constexpr std::size_t kMissing = 1;
constexpr std::size_t kSuperfluous = 2;
constexpr std::size_t kWrong = kMissing + kSuperfluous;
constexpr std::size_t kSwapped = 2;

// Longer text than any name is not worth a quadratic comparison: its tail would only be counted as superfluous.
constexpr std::size_t kComparedLength = 128;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Edit distance with swaps of neighbours (optimal string alignment); three rows of the table suffice.
std::size_t edit_cost(const std::string& text, const std::string& name) {
  const std::size_t rows = std::min(text.size(), kComparedLength), cols = name.size();
  std::vector<std::size_t> before(cols + 1), last(cols + 1), row(cols + 1);
  for (std::size_t j = 0; j <= cols; ++j) last[j] = j * kMissing;
  for (std::size_t i = 1; i <= rows; ++i) {
    const char typed = lower(text[i - 1]);
    row[0] = i * kSuperfluous;
    for (std::size_t j = 1; j <= cols; ++j) {
      const char wanted = lower(name[j - 1]);
      row[j] = std::min({last[j - 1] + (typed == wanted ? 0 : kWrong), last[j] + kSuperfluous, row[j - 1] + kMissing});
      if (i > 1 && j > 1 && typed == lower(name[j - 2]) && lower(text[i - 2]) == wanted) {
        row[j] = std::min(row[j], before[j - 2] + kSwapped);
      }
    }
    before.swap(last);
    last.swap(row);
  }
  return last[cols];
}

}  // namespace

std::string nearest_name(const std::string& text, const std::vector<std::string>& names) {
  std::string nearest;
  std::size_t lowest = std::numeric_limits<std::size_t>::max();
  for (const std::string& name : names) {
    const std::size_t cost = edit_cost(text, name);
    if (cost < lowest || (cost == lowest && name.size() > nearest.size())) {
      lowest = cost;
      nearest = name;
    }
  }
  return nearest;
}

std::string format_number(double value) {
  if (std::isnan(value)) return "nan";
  std::array<char, 32> text;  // the longest is 24 characters: -2.2250738585072014e-308
  return std::string(text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr);
}

std::string formatted(const char* format, ...) {
  std::va_list values, again;
  va_start(values, format);
  va_copy(again, values);
  const int length = std::vsnprintf(nullptr, 0, format, values);
  std::string text(static_cast<std::size_t>(std::max(length, 0)), '\0');
  std::vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  va_end(values);
  return text;
}

std::string fixed_number(double value, int digits) {
  if (std::isnan(value)) return "NaN";
  std::array<char, 512> text;  // the longest has 309 digits before the point
  const auto [end, error] =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, digits);
  return std::string(text.data(), end);
}

std::string rounded_number(double value, int digits) {
  return std::isnan(value) ? "NaN" : formatted("%.*g", digits, value);
}

}  // namespace bracket
