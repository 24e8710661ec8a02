#include "host/config/json_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

// Every integer up to here is a double and the other way round.
constexpr double kExactIntegers = 9007199254740992.0;  // 2^53

[[noreturn]] void reject(const std::string& path, const std::string& requirement, const Json& json) {
  throw InvalidArgument(quoted_path(path) + " must " + requirement + ", got " + described(json));
}

double real(const Json& json, const std::string& path, const NumberRange& range) {
  if (!json.is_number()) reject(path, "be a number", json);
  const auto value = json.get<double>();
  if (!range.contains(value)) reject(path, range.requirement(), json);
  return value;
}

// Integers may be written like 2e4.
std::int64_t integer(const Json& json, const std::string& path, const NumberRange& range) {
  const double value = real(json, path, range);
  if (json.is_number_float()) {
    if (value != std::floor(value)) reject(path, "be an integer", json);
    if (std::abs(value) > kExactIntegers) reject(path, "be written in digits above 2^53", json);
    return static_cast<std::int64_t>(value);
  }
  return json.get<std::int64_t>();
}

const Json& checked_array(const Json& json, const std::string& path, const char* elements) {
  if (!json.is_array()) reject(path, std::string("be an array of ") + elements, json);
  return json;
}

std::string alternatives(std::span<const char* const> words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 < words.size() ? ", " : " or ";
    text += "\"" + std::string(words[i]) + "\"";
  }
  return text;
}

}  // namespace

JsonReader::JsonReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) reject(path_, "be an object", object);
}

const Json* JsonReader::find(const char* key, Presence presence) {
  keys_.emplace_back(key);
  const auto member = object_.find(key);
  if (member != object_.end()) return &*member;
  if (presence == Presence::required) {
    throw InvalidArgument("key " + text_in_quotes(key) + " is missing in " + quoted_path(path_));
  }
  return nullptr;
}

const Json& JsonReader::array(const char* key) {
  return checked_array(*find(key, Presence::required), member_path(path_, key), "objects");
}

void JsonReader::number(const char* key, double& value, const NumberRange& range, Presence presence) {
  if (const Json* member = find(key, presence)) value = real(*member, member_path(path_, key), range);
}

void JsonReader::number(const char* key, std::int64_t& value, const NumberRange& range, Presence presence) {
  if (const Json* member = find(key, presence)) value = integer(*member, member_path(path_, key), range);
}

void JsonReader::number(const char* key, int& value, const NumberRange& range, Presence presence) {
  std::int64_t wide = value;
  number(key, wide, range, presence);
  value = static_cast<int>(wide);
}

void JsonReader::number(const char* key, std::uint64_t& value, Presence presence) {
  const Json* member = find(key, presence);
  if (member == nullptr) return;
  if (member->is_number_unsigned()) {
    value = member->get<std::uint64_t>();
  } else {  // a signed or floating number: only those that int64 holds
    value = static_cast<std::uint64_t>(integer(*member, member_path(path_, key), NumberRange::at_least(0)));
  }
}

void JsonReader::numbers(const char* key, std::vector<double>& values, const NumberRange& range, Presence presence) {
  const Json* member = find(key, presence);
  if (member == nullptr) return;
  const std::string path = member_path(path_, key);
  values.clear();
  for (const Json& element : checked_array(*member, path, "numbers")) {
    values.push_back(real(element, member_path(path, values.size()), range));
  }
}

void JsonReader::numbers(const char* key, std::vector<std::int64_t>& values, const NumberRange& range,
                         Presence presence) {
  const Json* member = find(key, presence);
  if (member == nullptr) return;
  const std::string path = member_path(path_, key);
  values.clear();
  for (const Json& element : checked_array(*member, path, "integers")) {
    values.push_back(integer(element, member_path(path, values.size()), range));
  }
}

void JsonReader::flag(const char* key, bool& value) {
  const Json* member = find(key, Presence::optional);
  if (member == nullptr) return;
  if (!member->is_boolean()) reject(member_path(path_, key), "be true or false", *member);
  value = member->get<bool>();
}

void JsonReader::word_index(const char* key, std::size_t& index, std::span<const char* const> words,
                            Presence presence) {
  const Json* member = find(key, presence);
  if (member == nullptr) return;
  const std::string path = member_path(path_, key);
  if (!member->is_string()) reject(path, "be " + alternatives(words), *member);
  const auto& text = member->get_ref<const std::string&>();
  const auto found = std::find(words.begin(), words.end(), text);
  if (found == words.end()) {
    throw InvalidArgument(quoted_path(path) + " has no choice " + text_in_quotes(text) + "; did you mean '" +
                          nearest_name(text, {words.begin(), words.end()}) + "'?");
  }
  index = static_cast<std::size_t>(found - words.begin());
}

void JsonReader::finish() const {
  for (const auto& [key, value] : object_.items()) {
    if (std::find(keys_.begin(), keys_.end(), key) != keys_.end()) continue;
    throw InvalidArgument("unknown key " + text_in_quotes(key) + " in " + quoted_path(path_) + "; did you mean '" +
                          nearest_name(key, keys_) + "'?");
  }
}

}  // namespace bracket
