// JSON text in and out, and the words that errors use for its parts.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

namespace bracket {

/// Keeps the order of keys, so that what is written reads in the order of the headers.
using Json = nlohmann::ordered_json;

/// Throws InvalidArgument for malformed JSON (line and column), more than 64 levels, and a key that occurs twice in one
/// object, which would silently lose the first value.
Json parse_json(const std::string& text);

/// Indented by two blanks; doubles with as many digits as they need to be read back exactly.
std::string json_text(const Json& json);

/// "a number (3)", "a string ('fast')", "an array", "null" and so on.
std::string described(const Json& json);

/// The path of a member: "energy" and "lr" give "energy.lr"; the root has the empty path.
std::string member_path(const std::string& path, const std::string& key);
std::string member_path(const std::string& path, std::size_t index);

/// "'energy.lr'", or "the configuration" for the root.
std::string quoted_path(const std::string& path);

}  // namespace bracket
