#include "host/config/override.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "bracket/error.h"
#include "host/config/json_text.h"
#include "host/core/text.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

std::string trimmed(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") + 1 - first);
}

std::vector<std::string> split_path(const std::string& path) {
  std::vector<std::string> keys;
  std::size_t start = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', start)) {
    keys.push_back(path.substr(start, dot - start));
    start = dot + 1;
  }
  keys.push_back(path.substr(start));
  return keys;
}

// Paths of everything that can be set, single elements of number arrays excepted: there may be thousands.
void collect_paths(const Json& json, const std::string& path, std::vector<std::string>& paths) {
  for (const auto& [key, value] : json.items()) {
    const std::string member = member_path(path, key);
    if (json.is_object()) paths.push_back(member);
    if (value.is_structured()) collect_paths(value, member, paths);
  }
}

[[noreturn]] void reject_path(const Json& config, const std::string& path) {
  std::vector<std::string> paths;
  collect_paths(config, "", paths);
  throw InvalidArgument("unknown setting " + text_in_quotes(path) + "; did you mean '" + nearest_name(path, paths) +
                        "'?");
}

std::size_t array_index(const Json& array, const std::string& key, const std::string& path) {
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
  if (error == std::errc() && end == key.data() + key.size() && index < array.size()) return index;
  throw InvalidArgument("setting " + text_in_quotes(path) + ": " + text_in_quotes(key) +
                        " is no index of an array of " + std::to_string(array.size()) + " elements" +
                        (array.empty() ? std::string() : "; use 0 to " + std::to_string(array.size() - 1)));
}

Json& member_at(Json& config, const std::string& path) {
  Json* json = &config;
  for (const std::string& key : split_path(path)) {
    if (json->is_array()) {
      json = &(*json)[array_index(*json, key, path)];
    } else {
      if (!json->is_object() || !json->contains(key)) reject_path(config, path);
      json = &(*json)[key];
    }
  }
  return *json;
}

Json value_of(const std::string& text) { return Json::accept(text) ? parse_json(text) : Json(text); }

void merge(Json& target, const Json& overlay) {
  if (!target.is_object() || !overlay.is_object()) {
    target = overlay;
    return;
  }
  for (const auto& [key, value] : overlay.items()) merge(target[key], value);
}

}  // namespace

std::string with_override(const std::string& config_json, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  const std::string path = trimmed(assignment.substr(0, equals));
  const std::string value = equals == std::string::npos ? "" : trimmed(assignment.substr(equals + 1));
  if (path.empty() || value.empty()) {
    throw InvalidArgument("setting " + text_in_quotes(assignment) +
                          " needs a path and a value, for example energy.lr=1e-3");
  }
  Json config = parse_json(config_json);
  member_at(config, path) = value_of(value);
  return json_text(config);
}

std::string with_overlay(const std::string& config_json, const std::string& overlay_json) {
  Json config = parse_json(config_json);
  const Json overlay = parse_json(overlay_json);
  if (!overlay.is_object()) throw InvalidArgument("the configuration must be an object, got " + described(overlay));
  merge(config, overlay);
  return json_text(config);
}

}  // namespace bracket
