#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/event_file.h"

namespace bracket {
namespace {

// CRC32C bit by bit, from the reflected polynomial alone.
std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

std::uint32_t unmasked(std::uint32_t masked) {
  const std::uint32_t rotated = masked - 0xa282ead8u;
  return (rotated >> 17) | (rotated << 15);
}

// The check values of RFC 3720, B.4, and of the CRC catalogue.
TEST(EventFileCheckers, Crc32cOfPublishedVectors) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

// A cursor over protocol buffer bytes; running past the end throws std::out_of_range.
class Message {
 public:
  struct Field {
    std::uint64_t number = 0;
    std::uint64_t integer = 0;  // varint, fixed32 or fixed64
    std::string bytes;
  };

  explicit Message(std::string text) : text_(std::move(text)) {}

  std::vector<Field> fields() {
    std::vector<Field> result;
    while (at_ < text_.size()) {
      const std::uint64_t key = varint();
      Field field{.number = key >> 3, .integer = 0, .bytes = {}};
      switch (key & 7) {
        case 0:
          field.integer = varint();
          break;
        case 1:
          field.integer = fixed(8);
          break;
        case 2:
          field.bytes = take(varint());
          break;
        case 5:
          field.integer = fixed(4);
          break;
        default:
          ADD_FAILURE() << "wire type " << (key & 7);
      }
      result.push_back(field);
    }
    return result;
  }

  std::uint64_t fixed(std::size_t size) {
    std::uint64_t value = 0;
    const std::string bytes = take(size);
    for (std::size_t i = 0; i < size; ++i) value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return value;
  }

  std::string take(std::uint64_t count) {
    if (count > text_.size() - at_) throw std::out_of_range("message ends early");
    at_ += count;
    return text_.substr(at_ - count, count);
  }

  bool at_end() const { return at_ == text_.size(); }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
  }

  std::string text_;
  std::size_t at_ = 0;
};

struct Image {
  std::uint64_t height = 0, width = 0, channels = 0;
  std::string png;
};

struct Event {
  double wall_time = 0.0;
  std::int64_t step = 0;
  std::string version;
  std::uint64_t session_status = 0;
  std::map<std::string, float> scalars;
  std::map<std::string, Image> images;
};

Image parse_image(const std::string& text) {
  Image image;
  for (const auto& field : Message(text).fields()) {
    if (field.number == 1) image.height = field.integer;
    if (field.number == 2) image.width = field.integer;
    if (field.number == 3) image.channels = field.integer;
    if (field.number == 4) image.png = field.bytes;
  }
  return image;
}

void parse_value(const std::string& text, Event& event) {
  std::string tag;
  for (const auto& field : Message(text).fields()) {
    if (field.number == 1) tag = field.bytes;
    if (field.number == 2) event.scalars[tag] = std::bit_cast<float>(static_cast<std::uint32_t>(field.integer));
    if (field.number == 4) event.images[tag] = parse_image(field.bytes);
  }
}

std::vector<Event> parse_events(const std::string& text) {
  std::vector<Event> events;
  for (Message file(text); !file.at_end();) {
    const std::string length = file.take(8);
    EXPECT_EQ(crc32c(length), unmasked(static_cast<std::uint32_t>(file.fixed(4))));
    const std::string record = file.take(Message(length).fixed(8));
    EXPECT_EQ(crc32c(record), unmasked(static_cast<std::uint32_t>(file.fixed(4))));
    Event& event = events.emplace_back();
    for (const auto& field : Message(record).fields()) {
      if (field.number == 1) event.wall_time = std::bit_cast<double>(field.integer);
      if (field.number == 2) event.step = static_cast<std::int64_t>(field.integer);
      if (field.number == 3) event.version = field.bytes;
      if (field.number == 5) {
        for (const auto& value : Message(field.bytes).fields()) parse_value(value.bytes, event);
      }
      if (field.number == 7) event.session_status = Message(field.bytes).fields().at(0).integer;
    }
  }
  return events;
}

// Signature, IHDR with the given size and colour type; what follows does not matter to an event.
std::string png_start(int width, int height, char colour_type) {
  const auto big_endian = [](int value) {
    return std::string{static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
                       static_cast<char>(value)};
  };
  return std::string("\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", 16) + big_endian(width) + big_endian(height) + '\x08' +
         colour_type + std::string(30, 'p');
}

class EventFileTest : public FolderTest {};

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

TEST_F(EventFileTest, RecordByRecord) {
  const double before = now();
  EventFile file(folder_, 0);
  file.add_scalars(0, std::vector<NamedValue>{{"bounds/lower", -1.85}, {"bounds/upper", 1e300}});
  file.add_scalars(300, std::vector<NamedValue>{{"loss", std::numeric_limits<double>::quiet_NaN()}});
  file.add_scalars(5, {});
  const std::string png = png_start(640, 300, 2);
  file.add_png(1'000'000'000'000, "density", bytes_of(png));
  file.sync();

  const std::vector<Event> events = parse_events(content(file.path()));
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_EQ(events[1].session_status, 1u);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_EQ(events[2].scalars,
            (std::map<std::string, float>{{"bounds/lower", -1.85f},
                                          {"bounds/upper", std::numeric_limits<float>::infinity()}}));
  EXPECT_EQ(events[3].step, 300);
  EXPECT_TRUE(std::isnan(events[3].scalars.at("loss")));
  EXPECT_EQ(events[4].step, 1'000'000'000'000);
  const Image& image = events[4].images.at("density");
  EXPECT_EQ(image.width, 640u);
  EXPECT_EQ(image.height, 300u);
  EXPECT_EQ(image.channels, 3u);
  EXPECT_EQ(image.png, png);
  for (const Event& event : events) {
    EXPECT_GE(event.wall_time, before);
    EXPECT_LE(event.wall_time, now());
  }
}

TEST_F(EventFileTest, ColourTypesOfPng) {
  EventFile file(folder_, 0);
  const std::map<char, std::uint64_t> channels = {{0, 1}, {2, 3}, {4, 2}, {6, 4}};
  for (const auto& [type, count] : channels) {
    file.add_png(0, "image", bytes_of(png_start(1, 1, type)));
    EXPECT_EQ(parse_events(content(file.path())).back().images.at("image").channels, count);
  }
  const std::string before = content(file.path());
  for (const std::string& bad : {std::string(), png_start(1, 1, 2).substr(0, 25), "GIF89a" + std::string(40, 'x')}) {
    expect_error<InvalidArgument>([&] { file.add_png(0, "image", bytes_of(bad)); }, {"'image'", "not a PNG"});
  }
  EXPECT_EQ(content(file.path()), before);
}

TEST_F(EventFileTest, AResumedSessionStartsANewLaterFile) {
  std::vector<std::string> created;
  for (const int first_step : {0, 101, 201}) {
    EventFile file(folder_, first_step);
    created.push_back(file.path().filename().string());
    EXPECT_NE(created.back().find("tfevents"), std::string::npos);
    const std::vector<Event> events = parse_events(content(file.path()));
    EXPECT_EQ(events.at(1).session_status, 1u);
    EXPECT_EQ(events.at(1).step, first_step);
  }
  EXPECT_EQ(created, names()) << "the names must sort in the order of the sessions";

  // A file from the future, as after the clock was set back, and one whose name overflows.
  put(at("events.out.tfevents.9000000000.host.1.0"), "");
  put(at("events.out.tfevents.99999999999999999999.host.1.0"), "");
  EventFile file(folder_, 0);
  EXPECT_TRUE(file.path().filename().string().starts_with("events.out.tfevents.9000000001.")) << file.path();
}

TEST_F(EventFileTest, FullDiskLeavesWholeRecords) {
  for (std::size_t capacity = 0; capacity < 400; capacity += 7) {
    SmallDiskCalls calls(50, capacity);
    std::filesystem::path path;
    try {
      EventFile file(folder_, 0, calls);
      path = file.path();
      for (int step = 0; step < 100; ++step) file.add_scalars(step, std::vector<NamedValue>{{"loss", 1.0}});
      ADD_FAILURE() << "no error at capacity " << capacity;
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find("free disk space"), std::string::npos) << error.what();
    }
    for (const std::string& name : names()) {
      EXPECT_NO_THROW(parse_events(content(at(name)))) << capacity;
      std::filesystem::remove(at(name));
    }
  }
}

TEST_F(EventFileTest, UnusableFolder) {
  expect_error<DataError>([&] { EventFile file(at("absent"), 0); }, {"absent", "No such file"});
  FailingCalls calls(1, EROFS);
  expect_error<DataError>([&] { EventFile file(folder_, 0, calls); }, {folder_.string(), "writable folder"});
}

}  // namespace
}  // namespace bracket
