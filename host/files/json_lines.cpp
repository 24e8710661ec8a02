#include "host/files/json_lines.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>

#include "bracket/error.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

std::string json_key(const std::string& name) {
  try {
    return nlohmann::json(name).dump();
  } catch (const nlohmann::json::type_error&) {
    throw InvalidArgument("metrics: the name " + text_in_quotes(name) + " is not UTF-8; give another name");
  }
}

void append_number(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  // The longest shortest form is that of -2.2250738585072014e-308: 24 characters.
  std::array<char, 32> digits;
  const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  const std::string_view text(digits.data(), result.ptr);
  out += text;
  // Keeps a whole number a double for readers that tell the two apart, and -0 negative.
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

// The step of a line, or nothing if the line is not an object with an integer "step".
std::optional<std::int64_t> step_of(std::string_view line) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
  if (!object.is_object()) return std::nullopt;
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_integer()) return std::nullopt;
  if (step->is_number_unsigned() && step->get<std::uint64_t>() > std::uint64_t{INT64_MAX}) return std::nullopt;
  return step->get<std::int64_t>();
}

bool is_absent(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found;
}

}  // namespace

std::string metrics_line(std::int64_t step, std::span<const NamedValue> values) {
  std::string line = "{\"step\":" + std::to_string(step);
  std::set<std::string_view> names = {"step"};
  for (const NamedValue& value : values) {
    if (!names.insert(value.name).second) {
      throw InvalidArgument("metrics: the name " + text_in_quotes(value.name) + " appears twice; rename one");
    }
    line += "," + json_key(value.name) + ":";
    append_number(line, value.value);
  }
  return line + "}";
}

JsonLinesFile::JsonLinesFile(const std::filesystem::path& path, FileCalls& calls)
    : file_(OpenFile::open(path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK, calls)) {
  const std::int64_t size = file_.regular_file_size();
  if (size == 0) return;
  std::array<std::byte, 1> last{};
  if (::lseek(file_.descriptor(), -1, SEEK_END) < 0) throw_file_error("read", path, errno);
  if (file_.read(last) != 1 || last[0] != std::byte{'\n'}) {
    throw DataError(path_in_quotes(path) + " ends in the middle of a line after " + std::to_string(size) +
                    " bytes; resume the run, which repairs it, or remove the last line");
  }
}

void JsonLinesFile::append(std::string_view line) {
  if (line.find('\n') != std::string_view::npos) {
    throw InvalidArgument("JSON lines: the line " + text_in_quotes(line) + " holds a newline; give one line");
  }
  const std::string bytes = std::string(line) + "\n";
  file_.append(std::as_bytes(std::span(bytes)));
}

void JsonLinesFile::sync() { file_.sync(); }

JsonLinesCut cut_json_lines(const std::filesystem::path& path, std::int64_t last_step, FileCalls& calls) {
  if (is_absent(path)) return {};
  const std::vector<std::byte> bytes = read_file(path, calls);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());

  JsonLinesCut cut;
  std::int64_t line_number = 0;
  std::int64_t unreadable_line = 0;
  std::size_t kept_end = 0;
  bool kept_newline = true;
  for (std::size_t begin = 0; begin < text.size();) {
    ++line_number;
    const std::size_t newline = text.find('\n', begin);
    const std::size_t end = newline == std::string_view::npos ? text.size() : newline;
    const std::optional<std::int64_t> step = step_of(text.substr(begin, end - begin));
    begin = end + 1;
    if (!step) {
      if (unreadable_line == 0) unreadable_line = line_number;
      continue;
    }
    if (*step > last_step) break;
    if (unreadable_line != 0) {
      throw DataError(printable_path(path) + ":" + std::to_string(unreadable_line) +
                      ": the line is not a JSON object with an integer \"step\", and line " +
                      std::to_string(line_number) + " after it is; repair or remove the line");
    }
    ++cut.kept_lines;
    kept_newline = newline != std::string_view::npos;
    kept_end = end + (kept_newline ? 1 : 0);
  }
  cut.dropped_bytes = static_cast<std::int64_t>(text.size() - kept_end);
  if (cut.dropped_bytes == 0 && kept_newline) return cut;
  std::string kept(text.substr(0, kept_end));
  if (!kept_newline) kept += '\n';
  write_file_atomically(path, std::as_bytes(std::span(kept)), calls);
  return cut;
}

}  // namespace bracket
