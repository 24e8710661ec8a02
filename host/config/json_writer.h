// Writes fields into one JSON object: the mirror image of JsonReader.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "host/config/json_reader.h"
#include "host/config/json_text.h"
#include "host/config/number_range.h"

namespace bracket {

/// The methods of JsonReader in the other direction. Every key is written but those of absent optional objects. Throws
/// InvalidArgument (path, value, requirement) for a value that could not be read back.
class JsonWriter {
 public:
  explicit JsonWriter(std::string path) : path_(std::move(path)) {}

  void number(const char* key, double value, const NumberRange& range, Presence = Presence::optional);
  void number(const char* key, std::int64_t value, const NumberRange& range, Presence = Presence::optional);
  void number(const char* key, std::uint64_t value, Presence = Presence::optional) { object_[key] = value; }
  void number(const char* key, int value, const NumberRange& range, Presence presence = Presence::optional) {
    number(key, std::int64_t{value}, range, presence);
  }
  void numbers(const char* key, const std::vector<double>& values, const NumberRange& range,
               Presence = Presence::optional);
  void numbers(const char* key, const std::vector<std::int64_t>& values, const NumberRange& range,
               Presence = Presence::optional);
  void flag(const char* key, bool value) { object_[key] = value; }

  template <class EnumT>
  void word(const char* key, EnumT value, std::span<const char* const> words, Presence = Presence::optional) {
    word_index(key, static_cast<std::size_t>(value), words);
  }

  template <class VisitT>
  void object(const char* key, const VisitT& visit, Presence = Presence::optional) {
    object_[key] = child_object(member_path(path_, key), visit);
  }

  /// No key where `value` is absent.
  template <class ValueT, class VisitT>
  void optional_object(const char* key, std::optional<ValueT>& value, const VisitT& visit) {
    if (value) object_[key] = child_object(member_path(path_, key), [&](JsonWriter& child) { visit(child, *value); });
  }

  template <class ElementT, class VisitT>
  void objects(const char* key, std::vector<ElementT>& elements, const VisitT& visit) {
    Json& members = object_[key] = Json::array();
    for (ElementT& element : elements) {
      members.push_back(child_object(member_path(member_path(path_, key), members.size()),
                                     [&](JsonWriter& child) { visit(child, element); }));
    }
  }

  const Json& object() const noexcept { return object_; }

 private:
  template <class VisitT>
  static Json child_object(const std::string& path, const VisitT& visit) {
    JsonWriter child(path);
    visit(child);
    return std::move(child.object_);
  }

  void word_index(const char* key, std::size_t index, std::span<const char* const> words);

  Json object_ = Json::object();
  std::string path_;
};

}  // namespace bracket
