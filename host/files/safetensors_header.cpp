#include "host/files/safetensors_header.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

// NumPy's own limit up to 1.x was 32 and is 64 now; a shape beyond it cannot be loaded elsewhere either.
constexpr std::size_t kMaxRank = 64;

// Events of a streaming parser, so that no tree of untrusted depth or size is ever built.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& file_name) : file_name_(file_name) {}

  SafetensorsHeader take() && { return std::move(header_); }

  bool start_object(std::size_t) override {
    if (place_ == Place::start) return enter(Place::root);
    if (place_ != Place::root) fail_value("an object");
    if (key_ == kSafetensorsMetadataKey) return enter(Place::metadata);
    header_.entries.emplace_back().name = key_;
    seen_type_ = seen_shape_ = seen_offsets_ = false;
    return enter(Place::tensor);
  }

  bool end_object() override {
    if (place_ != Place::tensor) return enter(place_ == Place::metadata ? Place::root : Place::finished);
    if (!seen_type_) fail("tensor " + text_in_quotes(tensor().name) + " has no \"dtype\"");
    if (!seen_shape_) fail("tensor " + text_in_quotes(tensor().name) + " has no \"shape\"");
    if (!seen_offsets_) fail("tensor " + text_in_quotes(tensor().name) + " has no \"data_offsets\"");
    return enter(Place::root);
  }

  bool key(std::string& text) override {
    key_ = text;
    if (place_ == Place::root) {
      if (!names_.insert(key_).second) fail("name " + text_in_quotes(key_) + " appears twice in the header");
    } else if (place_ == Place::metadata) {
      if (header_.metadata.contains(key_)) fail("metadata key " + text_in_quotes(key_) + " appears twice");
    } else {
      bool& seen = key_ == "dtype" ? seen_type_ : key_ == "shape" ? seen_shape_ : seen_offsets_;
      if (key_ != "dtype" && key_ != "shape" && key_ != "data_offsets") {
        fail("tensor " + text_in_quotes(tensor().name) + " has the unknown key " + text_in_quotes(key_));
      }
      if (std::exchange(seen, true))
        fail("tensor " + text_in_quotes(tensor().name) + " has " + text_in_quotes(key_) + " twice");
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") fail_value("an array");
    num_offsets_ = 0;
    return enter(key_ == "shape" ? Place::shape : Place::offsets);
  }

  bool end_array() override {
    if (place_ == Place::offsets && num_offsets_ != 2) fail_value("an array of " + std::to_string(num_offsets_));
    return enter(Place::tensor);
  }

  bool number_unsigned(std::uint64_t value) override {
    if (place_ == Place::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) fail_number(value);
      if (tensor().shape.size() == kMaxRank) {
        fail("tensor " + text_in_quotes(tensor().name) + " has more than " + std::to_string(kMaxRank) + " dimensions");
      }
      tensor().shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (place_ != Place::offsets) fail_value("a number");
    if (num_offsets_ == 0) tensor().begin = value;
    if (num_offsets_ == 1) tensor().end = value;
    ++num_offsets_;
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(key_, text);
      return true;
    }
    if (place_ != Place::tensor || key_ != "dtype") fail_value("a string");
    constexpr std::array kTypes = {StoredType::f32, StoredType::f64, StoredType::i64, StoredType::u64, StoredType::u8};
    for (const StoredType type : kTypes) {
      if (text == stored_type_name(type)) {
        tensor().type = type;
        return true;
      }
    }
    fail("tensor " + text_in_quotes(tensor().name) + " has dtype " + text_in_quotes(text) +
         "; this version reads F32, F64, I64, U64 and U8");
  }

  bool number_integer(std::int64_t value) override { fail_number(value); }
  bool number_float(double, const std::string& text) override {
    fail_value("the number " + text_in_quotes(text, 40) + ", not an integer of 64 bits,");
  }
  bool boolean(bool) override { fail_value("a boolean"); }
  bool null() override { fail_value("null"); }
  bool binary(nlohmann::json::binary_t&) override { fail_value("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail("the header is not valid JSON at byte " + std::to_string(position));
  }

 private:
  enum class Place { start, root, metadata, tensor, shape, offsets, finished };

  bool enter(Place place) {
    place_ = place;
    return true;
  }

  SafetensorsHeader::Entry& tensor() { return header_.entries.back(); }

  [[noreturn]] void fail(const std::string& reason) const { throw_bad_safetensors(file_name_, reason); }

  template <typename Integer>
  [[noreturn]] void fail_number(Integer value) const {
    fail_value("the number " + std::to_string(value) + ", outside its range,");
  }

  [[noreturn]] void fail_value(const std::string& found) const {
    switch (place_) {
      case Place::root:
        fail("the header has " + found + " where the entry of " + text_in_quotes(key_) + " must be an object");
      case Place::metadata:
        fail("metadata key " + text_in_quotes(key_) + " has " + found + " where a string must be");
      case Place::tensor:
      case Place::shape:
      case Place::offsets:
        fail("tensor " + text_in_quotes(header_.entries.back().name) + " has " + found + " in " + text_in_quotes(key_) +
             "; \"dtype\" must be a string, \"shape\" an array of sizes, \"data_offsets\" an array [begin, end]");
      case Place::start:
      case Place::finished:
        break;
    }
    fail("the header has " + found + " where an object must be");
  }

  const std::string& file_name_;
  SafetensorsHeader header_;
  std::unordered_set<std::string> names_;
  Place place_ = Place::start;
  std::string key_;
  bool seen_type_ = false;
  bool seen_shape_ = false;
  bool seen_offsets_ = false;
  int num_offsets_ = 0;
};

}  // namespace

void throw_bad_safetensors(const std::string& file_name, const std::string& reason) {
  throw CheckpointError(path_in_quotes(file_name) + ": " + reason + "; restore the file or use another checkpoint");
}

SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file_name) {
  HeaderReader reader(file_name);
  nlohmann::json::sax_parse(json, &reader);
  return std::move(reader).take();
}

}  // namespace bracket
