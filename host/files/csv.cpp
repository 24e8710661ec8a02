#include "host/files/csv.h"

#include <charconv>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "bracket/error.h"
#include "host/files/in_quotes.h"
#include "host/files/posix_file.h"

namespace bracket {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

struct Field {
  std::string_view text;   // without surrounding blanks
  std::size_t column = 0;  // byte position in the line, counted from 0
};

enum class NumberState { number, not_a_number, out_of_range };

struct Number {
  NumberState state = NumberState::not_a_number;
  double value = 0.0;
};

bool is_blank(char c) { return c == ' ' || c == '\t'; }

Field trimmed(std::string_view text, std::size_t column) {
  while (!text.empty() && is_blank(text.front())) {
    text.remove_prefix(1);
    ++column;
  }
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return {text, column};
}

// A comma inside double quotes belongs to the field; only names are ever quoted.
void split_fields(std::string_view line, std::vector<Field>& fields) {
  fields.clear();
  std::size_t begin = 0;
  bool in_name = false;
  for (std::size_t i = 0; i <= line.size(); ++i) {
    if (i < line.size() && line[i] == '"') in_name = !in_name;
    if (i < line.size() && (line[i] != ',' || in_name)) continue;
    fields.push_back(trimmed(line.substr(begin, i - begin), begin));
    begin = i + 1;
  }
}

Number to_number(std::string_view text) {
  // std::from_chars takes no plus sign, but many programs write one.
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error == std::errc::invalid_argument || end != text.data() + text.size()) return {};
  if (error == std::errc::result_out_of_range) return {NumberState::out_of_range, 0.0};
  return {NumberState::number, value};
}

class TableReader {
 public:
  explicit TableReader(const std::string& file_name) : file_name_(file_name) {}

  Table read(std::string_view text) {
    if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    while (!text.empty()) {
      ++line_number_;
      const std::size_t end = text.find('\n');
      std::string_view line = text.substr(0, end);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (trimmed(line, 0).text.empty()) continue;
      split_fields(line, fields_);
      if (num_fields_ == 0) {
        num_fields_ = fields_.size();
        first_line_number_ = line_number_;
        if (is_header()) continue;
      }
      add_row();
    }
    if (table_.rows == 0) {
      throw DataError(path_in_quotes(file_name_) + " holds no row of numbers; give at least one row");
    }
    return std::move(table_);
  }

 private:
  [[noreturn]] void fail(std::size_t column, const std::string& reason) const {
    throw DataError(printable_path(file_name_) + ":" + std::to_string(line_number_) + ":" + std::to_string(column + 1) +
                    ": " + reason);
  }

  [[noreturn]] void fail_field(std::size_t index, const std::string& reason) const {
    fail(fields_[index].column,
         "field " + std::to_string(index + 1) + " is " + text_in_quotes(fields_[index].text) + reason);
  }

  bool is_header() const {
    for (const Field& field : fields_) {
      if (to_number(field.text).state != NumberState::not_a_number) return false;
    }
    return true;
  }

  void add_row() {
    if (fields_.size() != num_fields_) {
      fail(fields_.back().column, "this line has " + std::to_string(fields_.size()) + " fields, line " +
                                      std::to_string(first_line_number_) + " has " + std::to_string(num_fields_) +
                                      "; give every line the same number");
    }
    for (std::size_t i = 0; i < fields_.size(); ++i) {
      const Number number = to_number(fields_[i].text);
      if (number.state == NumberState::not_a_number) {
        fail_field(i, ", not a number; fields are decimal numbers separated by commas");
      }
      if (number.state == NumberState::out_of_range) {
        fail_field(i, ", outside the range of a double; rescale the data");
      }
      if (!std::isfinite(number.value)) fail_field(i, "; remove or replace values that are not finite");
      table_.values.push_back(number.value);
    }
    ++table_.rows;
    table_.cols = static_cast<std::int64_t>(num_fields_);
  }

  const std::string& file_name_;
  Table table_;
  std::vector<Field> fields_;
  std::size_t num_fields_ = 0;
  std::int64_t line_number_ = 0;
  std::int64_t first_line_number_ = 0;
};

}  // namespace

Table parse_csv(std::string_view text, const std::string& file_name) { return TableReader(file_name).read(text); }

Table read_csv(const std::filesystem::path& path) {
  const std::vector<std::byte> bytes = read_file(path);
  return parse_csv({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace bracket
