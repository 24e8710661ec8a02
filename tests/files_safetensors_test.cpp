#include <bit>
#include <cstdint>
#include <limits>
#include <set>
#include <string>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/safetensors.h"

namespace bracket {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

template <typename ElementT>
std::vector<std::byte> little_endian(const std::vector<ElementT>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}
static_assert(std::endian::native == std::endian::little);

std::string le64(std::uint64_t value) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>((value >> (8 * i)) & 255);
  return text;
}

// A file from a header and a number of buffer bytes, the length field as it must be.
std::string file_of(const std::string& json, std::size_t buffer_bytes = 0) {
  return le64(json.size()) + json + std::string(buffer_bytes, '\x2a');
}

SafetensorsFile parse(const std::string& text) { return parse_safetensors(bytes_of(text), "some.safetensors"); }

void expect_refused(const std::string& text, const std::vector<std::string>& parts) {
  std::vector<std::string> all = parts;
  all.push_back("'some.safetensors': ");
  all.push_back("use another checkpoint");
  expect_error<CheckpointError>([&] { parse(text); }, all);
}

SafetensorsFile example() {
  SafetensorsFile file;
  file.tensors = {
      {"layers.0.weight", StoredType::f32, {2, 3}, little_endian<float>({1, 2, 3, 4, 5, -0.0f})},
      {"step", StoredType::i64, {}, little_endian<std::int64_t>({-7})},
      {"rng", StoredType::u64, {2}, little_endian<std::uint64_t>({~std::uint64_t{0}, 1})},
      {"mean", StoredType::f64, {1}, little_endian<double>({0.1})},
      {"flags", StoredType::u8, {3}, little_endian<std::uint8_t>({1, 0, 255})},
      {"empty", StoredType::f32, {0, 5}, {}},
  };
  file.metadata = {{"format", "pt"}, {"note \"quoted\"", "line\nbreak \xc3\xa9"}};
  return file;
}

void expect_equal(const StoredTensor& a, const StoredTensor& b) {
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.type, b.type);
  EXPECT_EQ(a.shape, b.shape);
  EXPECT_EQ(a.bytes, b.bytes);
}

TEST(Safetensors, ExactBytes) {
  SafetensorsFile file;
  file.tensors = {{"b", StoredType::u8, {2}, little_endian<std::uint8_t>({7, 9})},
                  {"a", StoredType::f32, {1}, little_endian<float>({1.0f})}};
  file.metadata = {{"k", "v"}};
  std::string json = R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                     R"("b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}})";
  json.append((8 - json.size() % 8) % 8, ' ');
  const std::string expected = le64(json.size()) + json + std::string("\x00\x00\x80\x3f\x07\x09", 6);
  const std::vector<std::byte> bytes = serialize_safetensors(file);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), expected);
}

TEST(Safetensors, RoundTripInOrderOfElementSizeThenName) {
  const SafetensorsFile file = example();
  const SafetensorsFile back = parse_safetensors(serialize_safetensors(file), "f");
  EXPECT_EQ(back.metadata, file.metadata);
  const std::vector<std::string> order = {"mean", "rng", "step", "empty", "layers.0.weight", "flags"};
  ASSERT_EQ(back.tensors.size(), order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto original = std::find_if(file.tensors.begin(), file.tensors.end(),
                                       [&](const StoredTensor& tensor) { return tensor.name == order[i]; });
    expect_equal(back.tensors[i], *original);
  }
  EXPECT_EQ(serialize_safetensors(back), serialize_safetensors(file));
}

TEST(Safetensors, EveryTensorIsAlignedInTheFile) {
  SafetensorsFile file;
  for (int i = 0; i < 9; ++i) {
    const auto odd = static_cast<std::size_t>(2 * i + 1);
    file.tensors.push_back(
        {std::string(odd, 'n') + "u", StoredType::u8, {static_cast<std::int64_t>(odd)}, std::vector<std::byte>(odd)});
    file.tensors.push_back({std::string(odd, 'n') + "f", StoredType::f32, {1}, std::vector<std::byte>(4)});
    file.tensors.push_back({std::string(odd, 'n') + "d", StoredType::f64, {1}, std::vector<std::byte>(8)});
    const std::vector<std::byte> bytes = serialize_safetensors(file);
    EXPECT_EQ(std::to_integer<int>(bytes[0]) % 8, 0) << "the buffer must begin at a multiple of 8";
    std::int64_t offset = 0;
    for (const StoredTensor& tensor : parse_safetensors(bytes, "f").tensors) {
      EXPECT_EQ(offset % stored_type_bytes(tensor.type), 0);
      offset += static_cast<std::int64_t>(tensor.bytes.size());
    }
  }
}

TEST(Safetensors, EmptyFilesAndScalars) {
  EXPECT_TRUE(parse_safetensors(serialize_safetensors({}), "f").tensors.empty());
  EXPECT_TRUE(parse(file_of("{}")).tensors.empty());
  EXPECT_TRUE(parse(file_of("{}    ")).tensors.empty());
  EXPECT_TRUE(parse(file_of(R"({"__metadata__":{}})")).metadata.empty());
  const SafetensorsFile scalar = parse(file_of(R"({"":{"shape":[],"data_offsets":[0,8],"dtype":"F64"}})", 8));
  EXPECT_EQ(scalar.tensors.at(0).bytes.size(), 8u);
}

// The order of the JSON text is free; the buffer decides.
TEST(Safetensors, HeaderInAnyOrder) {
  const SafetensorsFile file = parse(file_of(
      R"({"z":{"dtype":"U8","shape":[1],"data_offsets":[3,4]},"y":{"dtype":"U8","shape":[0],"data_offsets":[3,3]},)"
      R"("x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
      4));
  ASSERT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors[0].name + file.tensors[1].name + file.tensors[2].name, "xyz");
}

TEST(Safetensors, WriterRefusesWhatItCannotStore) {
  SafetensorsFile twice;
  twice.tensors = {{"a", StoredType::u8, {1}, std::vector<std::byte>(1)},
                   {"a", StoredType::f32, {1}, std::vector<std::byte>(4)}};
  expect_error<InvalidArgument>([&] { serialize_safetensors(twice); }, {"'a'", "rename"});
  const auto one = [](std::string name, std::vector<std::int64_t> shape, std::size_t num_bytes) {
    SafetensorsFile file;
    file.tensors = {{std::move(name), StoredType::f32, std::move(shape), std::vector<std::byte>(num_bytes)}};
    return file;
  };
  expect_error<InvalidArgument>([&] { serialize_safetensors(one("__metadata__", {1}, 4)); }, {"reserves"});
  expect_error<InvalidArgument>([&] { serialize_safetensors(one("\xff", {1}, 4)); }, {"UTF-8"});
  expect_error<InvalidArgument>([&] { serialize_safetensors(one("a", {2, 3}, 23)); }, {"[2, 3]", "F32", "23 bytes"});
  expect_error<InvalidArgument>([&] { serialize_safetensors(one("a", {-1}, 4)); }, {"[-1]"});
  expect_error<InvalidArgument>([&] { serialize_safetensors(one("a", {INT64_MAX, INT64_MAX}, 4)); }, {"agree"});
  SafetensorsFile wordy;
  wordy.metadata = {{"k", std::string(kMaxHeaderBytes, 'v')}};
  expect_error<InvalidArgument>([&] { serialize_safetensors(wordy); }, {"100000000", "less metadata"});
}

TEST(SafetensorsHostile, LengthField) {
  expect_refused("", {"0 bytes"});
  expect_refused("1234567", {"7 bytes"});
  expect_refused(le64(0) + "{}", {"does not start with '{'"});
  expect_refused(le64(~std::uint64_t{0}) + "{}", {"18446744073709551615", "100000000"});
  expect_refused(le64(kMaxHeaderBytes + 1) + "{}", {"100000001"});
  expect_refused(le64(kMaxHeaderBytes) + "{}", {"claims 100000000 bytes", "has 2"});
  expect_refused(le64(3) + "{}", {"claims 3 bytes", "has 2"});
}

TEST(SafetensorsHostile, Json) {
  expect_refused(file_of(" {}"), {"does not start with '{'"});
  expect_refused(file_of("[]"), {"does not start with '{'"});
  expect_refused(file_of("{}\n"), {"does not end with '}'"});
  expect_refused(file_of(std::string("{}\0", 3)), {"does not end with '}'"});
  expect_refused(file_of("{"), {"does not end with '}'"});
  expect_refused(file_of("{}{}"), {"not valid JSON"});
  expect_refused(file_of("{,}"), {"not valid JSON"});
  expect_refused(file_of("{\"\xff\":{}}"), {"not valid JSON"});
  expect_refused(file_of(R"({"a":1})"), {"'a'", "a number", "must be an object"});
  expect_refused(file_of(R"({"a":[{}]})"), {"an array"});
  expect_refused(file_of(R"({"a":null})"), {"null"});
  expect_refused(file_of(R"({"a":{}})"), {"'a' has no \"dtype\""});
  expect_refused(file_of(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})"), {"no \"shape\""});
  expect_refused(file_of(R"({"a":{"dtype":"U8","shape":[0]}})"), {"no \"data_offsets\""});
  expect_refused(file_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"more":1}})"), {"unknown key 'more'"});
  expect_refused(file_of(R"({"__metadata__":{"k":1}})"), {"'k'", "a number", "string"});
  expect_refused(file_of(R"({"__metadata__":{"k":{}}})"), {"'k'", "an object"});
  expect_refused(file_of(R"({"__metadata__":"text"})"), {"a string"});
}

TEST(SafetensorsHostile, DeepNestingIsRefusedAtOnce) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep = "{\"a\":";
    for (int i = 0; i < 1'000'000; ++i) deep += open;
    expect_refused(file_of(deep + "}"), {"'a'"});
  }
  expect_refused(file_of(R"({"a":{"dtype":"U8","shape":[[0]],"data_offsets":[0,0]}})"), {"an array in 'shape'"});
}

TEST(SafetensorsHostile, DuplicateKeys) {
  const std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_refused(file_of(R"({"a":)" + entry + R"(,"a":)" + entry + "}", 1), {"'a' appears twice"});
  expect_refused(file_of(R"({"__metadata__":{},"__metadata__":{}})"), {"'__metadata__' appears twice"});
  expect_refused(file_of(R"({"__metadata__":{"k":"1","k":"2"}})"), {"'k' appears twice"});
  expect_refused(file_of(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
                 {"'dtype' twice"});
  expect_refused(file_of(R"({"a":{"dtype":"U8","shape":[1],"\u0073hape":[1],"data_offsets":[0,1]}})", 1),
                 {"'shape' twice"});
}

TEST(SafetensorsHostile, TypesShapesAndOffsets) {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return file_of(R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}", 8);
  };
  EXPECT_EQ(parse(entry("\"F32\"", "[2]", "[0,8]")).tensors.size(), 1u);
  for (const std::string type : {"BF16", "F16", "BOOL", "I32", "F8_E4M3", "f32", ""}) {
    expect_refused(entry("\"" + type + "\"", "[2]", "[0,8]"), {"'" + type + "'", "F32, F64, I64, U64 and U8"});
  }
  expect_refused(entry("32", "[2]", "[0,8]"), {"a number in 'dtype'"});
  expect_refused(entry("\"F32\"", "2", "[0,8]"), {"a number in 'shape'"});
  expect_refused(entry("\"F32\"", "[-2]", "[0,8]"), {"-2"});
  expect_refused(entry("\"F32\"", "[2.0]", "[0,8]"), {"'2.0'"});
  expect_refused(entry("\"F32\"", "[\"2\"]", "[0,8]"), {"a string in 'shape'"});
  expect_refused(entry("\"F32\"", "[true]", "[0,8]"), {"a boolean"});
  expect_refused(entry("\"F32\"", "[9223372036854775808]", "[0,8]"), {"9223372036854775808"});
  expect_refused(entry("\"F32\"", "[99999999999999999999999]", "[0,8]"), {"'99999999999999999999999'"});
  expect_refused(entry("\"F32\"", "[4611686018427387904]", "[0,8]"), {"overflows"});
  expect_refused(entry("\"F32\"", "[4294967296,4294967296]", "[0,8]"), {"overflows"});
  expect_refused(entry("\"U8\"", "[4294967296,4294967296,0]", "[0,0]"), {"overflows"});
  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  expect_refused(entry("\"F64\"", ones + "]", "[0,8]"), {"more than 64 dimensions"});
  expect_refused(entry("\"F32\"", "[3]", "[0,8]"), {"should have 12 bytes", "[3]", "[0, 8)"});
  expect_refused(entry("\"F32\"", "[2]", "[-8,0]"), {"-8"});
  expect_refused(entry("\"F32\"", "[2]", "[8,0]"), {"ends before it begins"});
  expect_refused(entry("\"F32\"", "[4]", "[0,16]"), {"[0, 16)", "outside the buffer of 8 bytes"});
  expect_refused(entry("\"F32\"", "[2]", "[18446744073709551608,18446744073709551615]"), {"outside the buffer"});
  expect_refused(entry("\"F32\"", "[2]", "[18446744073709551608,0]"), {"ends before it begins"});
  expect_refused(entry("\"F32\"", "[2]", "[0]"), {"an array of 1"});
  expect_refused(entry("\"F32\"", "[2]", "[0,8,8]"), {"an array of 3"});
  expect_refused(entry("\"F32\"", "[1]", "[0,4]"), {"cover 4 bytes of a buffer of 8"});
  expect_refused(entry("\"F32\"", "[1]", "[4,8]"), {"hole", "must begin at byte 0"});
}

TEST(SafetensorsHostile, OverlapsAndHoles) {
  const auto two = [](const std::string& first, const std::string& second) {
    return file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
                       R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}",
                   8);
  };
  EXPECT_EQ(parse(two("[4,8]", "[0,4]")).tensors.size(), 2u);
  expect_refused(two("[0,4]", "[0,4]"), {"'b'", "overlaps"});
  expect_refused(two("[0,4]", "[3,7]"), {"'b'", "overlaps", "byte 4"});
  expect_refused(file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                         3),
                 {"'b'", "hole", "byte 1"});
}

TEST(SafetensorsHostile, TruncatedAtEveryByte) {
  const std::vector<std::byte> bytes = serialize_safetensors(example());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    // A heap copy of the exact size, so that AddressSanitizer sees any read beyond it.
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_THROW(parse_safetensors(cut, "f"), CheckpointError) << length;
  }
  std::vector<std::byte> longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THROW(parse_safetensors(longer, "f"), CheckpointError);
}

// The format has no checksum (the manifest has): a changed byte is refused, or shows up in what is decoded. The
// padding is not content, so there only spaces are accepted.
TEST(SafetensorsHostile, EveryFlippedByteIsRefusedOrSeen) {
  SafetensorsFile small;
  small.tensors = {{"ab", StoredType::f32, {2}, little_endian<float>({1.5f, -2.0f})},
                   {"c", StoredType::u8, {1}, little_endian<std::uint8_t>({3})}};
  small.metadata = {{"k", "v"}};
  const std::vector<std::byte> bytes = serialize_safetensors(small);
  const SafetensorsFile original = parse_safetensors(bytes, "f");
  int num_refused = 0;
  int num_different = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::vector<std::byte> flipped = bytes;
      flipped[i] = static_cast<std::byte>(value);
      if (flipped == bytes) continue;
      try {
        const SafetensorsFile file = parse_safetensors(flipped, "f");
        EXPECT_NE(serialize_safetensors(file), bytes) << "byte " << i << " as " << value << " changed nothing";
        ++num_different;
      } catch (const CheckpointError&) {
        ++num_refused;
      }
    }
  }
  EXPECT_EQ(num_refused + num_different, static_cast<int>(255 * bytes.size()));
  // The 9 buffer bytes can never be refused; the 8 length bytes and nearly all of the header always are.
  EXPECT_GE(num_different, 9 * 255);
  EXPECT_GT(num_refused, static_cast<int>(255 * (bytes.size() - 9)) * 9 / 10);
}

TEST(SafetensorsHostile, HundredThousandTensors) {
  SafetensorsFile file;
  for (int i = 0; i < 100'000; ++i)
    file.tensors.push_back({std::to_string(i), StoredType::u8, {1}, {static_cast<std::byte>(i)}});
  const SafetensorsFile back = parse_safetensors(serialize_safetensors(file), "f");
  ASSERT_EQ(back.tensors.size(), 100'000u);
  std::set<std::string> names;
  for (const StoredTensor& tensor : back.tensors) {
    names.insert(tensor.name);
    EXPECT_EQ(tensor.bytes[0], static_cast<std::byte>(std::stoi(tensor.name)));
  }
  EXPECT_EQ(names.size(), 100'000u);
}

class SafetensorsOnDisk : public FolderTest {};

TEST_F(SafetensorsOnDisk, ReadNamesTheFile) {
  const std::vector<std::byte> bytes = serialize_safetensors(example());
  put(at("good"), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  EXPECT_EQ(read_safetensors(at("good")).tensors.size(), 6u);
  put(at("bad"), "{}");
  expect_error<CheckpointError>([&] { read_safetensors(at("bad")); }, {at("bad").string(), "2 bytes"});
  expect_error<DataError>([&] { read_safetensors(at("absent")); }, {"absent", "No such file"});
}

}  // namespace
}  // namespace bracket
