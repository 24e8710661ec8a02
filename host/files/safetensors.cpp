#include "host/files/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"
#include "host/files/safetensors_header.h"

namespace bracket {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kBufferAlignment = 8;

// False when the size does not fit: the product runs from left to right, so a later zero does not excuse an overflow.
bool tensor_bytes(StoredType type, const std::vector<std::int64_t>& shape, std::int64_t& bytes) {
  bytes = stored_type_bytes(type);
  for (const std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return false;
  }
  return true;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

std::string json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    throw InvalidArgument("safetensors: " + text_in_quotes(text) + " is not UTF-8; give another name or text");
  }
}

void check_tensor(const StoredTensor& tensor) {
  if (tensor.name == kSafetensorsMetadataKey) {
    throw InvalidArgument("safetensors: a tensor is named '__metadata__', which the format reserves; rename it");
  }
  std::int64_t expected = 0;
  if (!tensor_bytes(tensor.type, tensor.shape, expected) || std::cmp_not_equal(expected, tensor.bytes.size())) {
    throw InvalidArgument("safetensors: tensor " + text_in_quotes(tensor.name) + " of shape " +
                          shape_text(tensor.shape) + " and type " + std::string(stored_type_name(tensor.type)) +
                          " holds " + std::to_string(tensor.bytes.size()) + " bytes; make shape and bytes agree");
  }
}

std::vector<const StoredTensor*> in_file_order(const std::vector<StoredTensor>& tensors) {
  std::vector<const StoredTensor*> order;
  order.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) {
    check_tensor(tensor);
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    const std::int64_t a_bytes = stored_type_bytes(a->type);
    const std::int64_t b_bytes = stored_type_bytes(b->type);
    return std::tie(b_bytes, a->name) < std::tie(a_bytes, b->name);
  });
  std::vector<std::string_view> names;
  for (const StoredTensor* tensor : order) names.push_back(tensor->name);
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) {
    throw InvalidArgument("safetensors: two tensors are named " + text_in_quotes(*twin) + "; rename one");
  }
  return order;
}

std::string header_json(const std::vector<const StoredTensor*>& order,
                        const std::map<std::string, std::string>& metadata) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += json_string(std::string(kSafetensorsMetadataKey)) + ":{";
    for (const auto& [key, value] : metadata) {
      if (json.back() != '{') json += ',';
      json += json_string(key) + ":" + json_string(value);
    }
    json += '}';
  }
  std::int64_t begin = 0;
  for (const StoredTensor* tensor : order) {
    if (json.size() > 1) json += ',';
    const std::int64_t end = begin + static_cast<std::int64_t>(tensor->bytes.size());
    json +=
        json_string(tensor->name) + R"(:{"dtype":")" + std::string(stored_type_name(tensor->type)) + R"(","shape":[)";
    for (std::size_t i = 0; i < tensor->shape.size(); ++i) {
      json += (i == 0 ? "" : ",") + std::to_string(tensor->shape[i]);
    }
    json += R"(],"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(end) + "]}";
    begin = end;
  }
  json += '}';
  json.append((kBufferAlignment - json.size() % kBufferAlignment) % kBufferAlignment, ' ');
  return json;
}

struct FileParts {
  std::string_view header;  // without its padding
  std::span<const std::byte> buffer;
};

// The length is judged against the file before it is used for anything.
FileParts split_file(std::span<const std::byte> bytes, const std::string& file_name) {
  if (bytes.size() < kLengthBytes) {
    throw_bad_safetensors(
        file_name, "the file has " + std::to_string(bytes.size()) + " bytes, a safetensors file has at least 10");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  if (length > kSafetensorsMaxHeaderBytes) {
    throw_bad_safetensors(file_name, "it is no safetensors file, or damaged: the header claims " +
                                         std::to_string(length) + " bytes, the format allows " +
                                         std::to_string(kSafetensorsMaxHeaderBytes) +
                                         "; the file is damaged or of another format");
  }
  if (length > bytes.size() - kLengthBytes) {
    throw_bad_safetensors(file_name, "the header claims " + std::to_string(length) + " bytes, the file has " +
                                         std::to_string(bytes.size() - kLengthBytes) + " after the length");
  }
  std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (!text.starts_with('{'))
    throw_bad_safetensors(file_name, "the header does not start with '{'; it is no safetensors file");
  const std::size_t last = text.find_last_not_of(' ');
  if (text[last] != '}') throw_bad_safetensors(file_name, "the header does not end with '}' and spaces; it is damaged");
  return {text.substr(0, last + 1), bytes.subspan(kLengthBytes + length)};
}

void check_cover(const SafetensorsHeader& header, std::uint64_t buffer_bytes, const std::string& file_name) {
  std::uint64_t covered = 0;
  for (const SafetensorsHeader::Entry& entry : header.entries) {
    const std::string range = "tensor " + text_in_quotes(entry.name) + " at bytes [" + std::to_string(entry.begin) +
                              ", " + std::to_string(entry.end) + ")";
    if (entry.end < entry.begin) throw_bad_safetensors(file_name, range + " ends before it begins");
    if (entry.end > buffer_bytes) {
      throw_bad_safetensors(file_name, range + " lies outside the buffer of " + std::to_string(buffer_bytes) +
                                           " bytes; the file is truncated or damaged");
    }
    std::int64_t expected = 0;
    if (!tensor_bytes(entry.type, entry.shape, expected)) {
      throw_bad_safetensors(file_name,
                            range + " has shape " + shape_text(entry.shape) + ", whose size overflows 64 bits");
    }
    if (std::cmp_not_equal(expected, entry.end - entry.begin)) {
      throw_bad_safetensors(file_name, range + " should have " + std::to_string(expected) + " bytes for shape " +
                                           shape_text(entry.shape) + " and dtype " +
                                           std::string(stored_type_name(entry.type)));
    }
    if (entry.begin != covered) {
      throw_bad_safetensors(file_name, range +
                                           (entry.begin < covered ? " overlaps the one before it" : " follows a hole") +
                                           "; it must begin at byte " + std::to_string(covered));
    }
    covered = entry.end;
  }
  if (covered != buffer_bytes) {
    throw_bad_safetensors(file_name, "the tensors cover " + std::to_string(covered) + " bytes of a buffer of " +
                                         std::to_string(buffer_bytes) + "; the file has foreign bytes at its end");
  }
}

}  // namespace

std::string_view stored_type_name(StoredType type) {
  switch (type) {
    case StoredType::f32:
      return "F32";
    case StoredType::f64:
      return "F64";
    case StoredType::i64:
      return "I64";
    case StoredType::u64:
      return "U64";
    case StoredType::u8:
      return "U8";
  }
  throw InvalidArgument("stored type " + std::to_string(static_cast<int>(type)) + " does not exist");
}

std::int64_t stored_type_bytes(StoredType type) {
  switch (type) {
    case StoredType::f64:
    case StoredType::i64:
    case StoredType::u64:
      return 8;
    case StoredType::f32:
      return 4;
    case StoredType::u8:
      return 1;
  }
  throw InvalidArgument("stored type " + std::to_string(static_cast<int>(type)) + " does not exist");
}

std::vector<std::byte> serialize_safetensors(const SafetensorsFile& file) {
  const std::vector<const StoredTensor*> order = in_file_order(file.tensors);
  const std::string json = header_json(order, file.metadata);
  if (json.size() > kSafetensorsMaxHeaderBytes) {
    throw InvalidArgument("safetensors: the header needs " + std::to_string(json.size()) +
                          " bytes, the format allows " + std::to_string(kSafetensorsMaxHeaderBytes) +
                          "; store fewer tensors or less metadata");
  }
  std::size_t total = kLengthBytes + json.size();
  for (const StoredTensor* tensor : order) total += tensor->bytes.size();
  std::vector<std::byte> bytes;
  bytes.reserve(total);
  for (std::size_t i = 0; i < kLengthBytes; ++i) bytes.push_back(static_cast<std::byte>(json.size() >> (8 * i)));
  const auto header = std::as_bytes(std::span(json));
  bytes.insert(bytes.end(), header.begin(), header.end());
  for (const StoredTensor* tensor : order) bytes.insert(bytes.end(), tensor->bytes.begin(), tensor->bytes.end());
  return bytes;
}

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& file_name) {
  const auto [text, buffer] = split_file(bytes, file_name);
  SafetensorsHeader header = parse_safetensors_header(text, file_name);
  std::sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_cover(header, buffer.size(), file_name);

  SafetensorsFile file;
  file.metadata = std::move(header.metadata);
  file.tensors.reserve(header.entries.size());
  for (SafetensorsHeader::Entry& entry : header.entries) {
    const auto content = buffer.subspan(entry.begin, entry.end - entry.begin);
    file.tensors.push_back({.name = std::move(entry.name),
                            .type = entry.type,
                            .shape = std::move(entry.shape),
                            .bytes = {content.begin(), content.end()}});
  }
  return file;
}

SafetensorsFile read_safetensors(const std::filesystem::path& path, FileCalls& calls) {
  return parse_safetensors(read_file(path, calls), path.string());
}

}  // namespace bracket
