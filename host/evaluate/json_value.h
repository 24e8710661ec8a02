// What the reports of evaluations share: JSON where a value may be absent.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

namespace bracket {

using Json = nlohmann::ordered_json;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace bracket
