#include "host/config/json_writer.h"

#include "bracket/error.h"
#include "host/core/text.h"

namespace bracket {
namespace {

void require(const NumberRange& range, double value, const std::string& path) {
  if (range.contains(value)) return;
  throw InvalidArgument(quoted_path(path) + " must " + range.requirement() + ", got " + format_number(value));
}

template <class ValueT>
Json array_of(const std::vector<ValueT>& values, const NumberRange& range, const std::string& path) {
  Json array = Json::array();
  for (const ValueT value : values) {
    require(range, static_cast<double>(value), member_path(path, array.size()));
    array.push_back(value);
  }
  return array;
}

}  // namespace

void JsonWriter::number(const char* key, double value, const NumberRange& range, Presence) {
  require(range, value, member_path(path_, key));
  object_[key] = value;
}

void JsonWriter::number(const char* key, std::int64_t value, const NumberRange& range, Presence) {
  require(range, static_cast<double>(value), member_path(path_, key));
  object_[key] = value;
}

void JsonWriter::numbers(const char* key, const std::vector<double>& values, const NumberRange& range, Presence) {
  object_[key] = array_of(values, range, member_path(path_, key));
}

void JsonWriter::numbers(const char* key, const std::vector<std::int64_t>& values, const NumberRange& range, Presence) {
  object_[key] = array_of(values, range, member_path(path_, key));
}

void JsonWriter::word_index(const char* key, std::size_t index, std::span<const char* const> words) {
  if (index >= words.size()) {
    throw InvalidArgument(quoted_path(member_path(path_, key)) + " holds " + std::to_string(index) +
                          ", which is none of its " + std::to_string(words.size()) + " choices");
  }
  object_[key] = words[index];
}

}  // namespace bracket
