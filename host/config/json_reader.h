// Reads one JSON object into fields and accounts for every key of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/config/json_text.h"
#include "host/config/number_range.h"

namespace bracket {

enum class Presence : std::uint8_t { optional, required };

/// Each method reads one key into its target, leaves the target alone where an optional key is absent, and throws
/// InvalidArgument (path, value, requirement) for a missing key, another type or a value out of range. `finish` throws
/// for keys that nothing read. JsonWriter has the same methods, so that one list of fields serves both directions.
class JsonReader {
 public:
  JsonReader(const Json& object, std::string path);

  void number(const char* key, double& value, const NumberRange& range, Presence presence = Presence::optional);
  void number(const char* key, std::int64_t& value, const NumberRange& range, Presence presence = Presence::optional);
  void number(const char* key, std::uint64_t& value, Presence presence = Presence::optional);
  void number(const char* key, int& value, const NumberRange& range, Presence presence = Presence::optional);
  void numbers(const char* key, std::vector<double>& values, const NumberRange& range,
               Presence presence = Presence::optional);
  void numbers(const char* key, std::vector<std::int64_t>& values, const NumberRange& range,
               Presence presence = Presence::optional);
  void flag(const char* key, bool& value);

  /// One of `words`, in the order of the enumeration's values.
  template <class EnumT>
  void word(const char* key, EnumT& value, std::span<const char* const> words, Presence presence = Presence::optional) {
    std::size_t index = static_cast<std::size_t>(value);
    word_index(key, index, words, presence);
    value = static_cast<EnumT>(index);
  }

  /// Calls visit(child) for the object under `key`.
  template <class VisitT>
  void object(const char* key, const VisitT& visit, Presence presence = Presence::optional) {
    if (const Json* member = find(key, presence)) visit_child(*member, member_path(path_, key), visit);
  }

  /// Calls visit(child, value) for the object under `key`; `value` is absent where that is.
  template <class ValueT, class VisitT>
  void optional_object(const char* key, std::optional<ValueT>& value, const VisitT& visit) {
    value.reset();
    if (const Json* member = find(key, Presence::optional))
      visit_child(*member, member_path(path_, key), [&](JsonReader& child) { visit(child, value.emplace()); });
  }

  /// Calls visit(child, element) for each object of the array under `key`, a required one.
  template <class ElementT, class VisitT>
  void objects(const char* key, std::vector<ElementT>& elements, const VisitT& visit) {
    const Json& members = array(key);
    elements.assign(members.size(), ElementT());
    for (std::size_t i = 0; i < members.size(); ++i) {
      visit_child(members[i], member_path(member_path(path_, key), i),
                  [&](JsonReader& child) { visit(child, elements[i]); });
    }
  }

  void finish() const;

 private:
  template <class VisitT>
  static void visit_child(const Json& member, const std::string& path, const VisitT& visit) {
    JsonReader child(member, path);
    visit(child);
    child.finish();
  }

  const Json* find(const char* key, Presence presence);
  const Json& array(const char* key);
  void word_index(const char* key, std::size_t& index, std::span<const char* const> words, Presence presence);

  const Json& object_;
  std::string path_;
  std::vector<std::string> keys_;  // that fields asked for
};

}  // namespace bracket
