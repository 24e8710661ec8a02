#include "host/config/json_text.h"

#include <set>
#include <vector>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

// Deeper than any configuration (6), shallow enough for code that recurses.
constexpr int kDeepestNesting = 64;

// "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without the part that is not for users.
std::string without_tag(const std::string& what) {
  const std::size_t end = what.find("] ");
  return end == std::string::npos ? what : what.substr(end + 2);
}

}  // namespace

Json parse_json(const std::string& text) {
  std::vector<std::set<std::string>> keys;  // of the objects around the current position
  const auto check_keys = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kDeepestNesting) {
      throw InvalidArgument("malformed configuration: JSON nested more than " + std::to_string(kDeepestNesting) +
                            " levels deep");
    }
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw InvalidArgument("key " + text_in_quotes(parsed.get<std::string>()) +
                            " occurs twice in one JSON object; remove one of the two");
    }
    return true;
  };
  if (const std::size_t at = text.find('\0'); at != std::string::npos)  // the parser would stop there
    throw InvalidArgument("malformed JSON: byte " + std::to_string(at) + " is NUL");
  try {
    return Json::parse(text, check_keys);
  } catch (const Json::exception& error) {
    throw InvalidArgument("malformed JSON: " + without_tag(error.what()));
  }
}

// Text that is no UTF-8 cannot come from JSON; replacing it keeps the output readable where a caller passed it.
std::string json_text(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

std::string described(const Json& json) {
  switch (json.type()) {
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string (" + text_in_quotes(json.get_ref<const std::string&>()) + ")";
    case Json::value_t::boolean:
      return json.get<bool>() ? "true" : "false";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return "a number (" + json.dump() + ")";
    case Json::value_t::number_float:
      return "a number (" + format_number(json.get<double>()) + ")";
    default:
      return "null";
  }
}

std::string member_path(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

std::string member_path(const std::string& path, std::size_t index) { return member_path(path, std::to_string(index)); }

std::string quoted_path(const std::string& path) {
  return path.empty() ? "the configuration" : text_in_quotes(path, path.size());
}

}  // namespace bracket
