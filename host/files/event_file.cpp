#include "host/files/event_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <system_error>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNamePrefix = "events.out.tfevents.";
// Two sessions of one process may start within a second; more than this many names taken means something else is wrong.
constexpr int kMaxNames = 1000;

// Reflected Castagnoli polynomial.
constexpr std::array<std::uint32_t, 256> crc32c_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = crc32c_table();
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ (crc >> 8);
  return std::rotr(~crc, 15) + 0xa282ead8u;
}

template <typename UnsignedT>
void append_little_endian(std::string& out, UnsignedT value) {
  for (std::size_t i = 0; i < sizeof(UnsignedT); ++i) out += static_cast<char>((value >> (8 * i)) & 0xff);
}

// Protocol buffer wire format: a field is varint(number << 3 | wire type), then the value.
enum class Wire : std::uint32_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7f) | 0x80);
  out += static_cast<char>(value);
}

void append_key(std::string& out, std::uint32_t field, Wire wire) {
  append_varint(out, (field << 3) | static_cast<std::uint32_t>(wire));
}

void append_integer(std::string& out, std::uint32_t field, std::int64_t value) {
  append_key(out, field, Wire::varint);
  append_varint(out, static_cast<std::uint64_t>(value));
}

void append_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  append_key(out, field, Wire::bytes);
  append_varint(out, bytes.size());
  out += bytes;
}

// Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
std::string event_at(std::int64_t step) {
  const double wall_time = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string event;
  append_key(event, 1, Wire::fixed64);
  append_little_endian(event, std::bit_cast<std::uint64_t>(wall_time));
  append_integer(event, 2, step);
  return event;
}

std::int64_t seconds_in_name(std::string_view name) {
  if (!name.starts_with(kNamePrefix)) return -1;
  name.remove_prefix(kNamePrefix.size());
  std::int64_t seconds = -1;
  const auto result = std::from_chars(name.data(), name.data() + name.size(), seconds);
  return result.ec == std::errc() ? seconds : -1;
}

std::int64_t latest_seconds(const fs::path& folder) {
  std::int64_t latest = -1;
  std::error_code error;
  for (fs::directory_iterator entries(folder, error); !error && entries != fs::directory_iterator();
       entries.increment(error)) {
    latest = std::max(latest, seconds_in_name(entries->path().filename().string()));
  }
  if (error) throw_file_error("list", folder, error.value());
  return latest;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  std::string host = name.data();
  std::replace(host.begin(), host.end(), '/', '_');
  return host;
}

OpenFile create_file(const fs::path& folder, FileCalls& calls) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::int64_t now_seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  // Ten digits, so that names sort by time.
  std::string seconds = std::to_string(std::max({now_seconds, latest_seconds(folder) + 1, std::int64_t{0}}));
  seconds.insert(0, 10 - std::min<std::size_t>(10, seconds.size()), '0');
  const std::string stem = std::string(kNamePrefix) + seconds + "." + host_name() + "." + std::to_string(::getpid());
  for (int n = 0; n < kMaxNames; ++n) {
    if (auto file = OpenFile::create_new(folder / (stem + "." + std::to_string(n)), calls)) return std::move(*file);
  }
  throw_file_error("create an event file in", folder, EEXIST);
}

struct PngFormat {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::int64_t channels = 0;
};

PngFormat png_format(std::string_view name, std::span<const std::byte> png) {
  // Signature 8, IHDR length 4, "IHDR" 4, width 4, height 4, bit depth 1, colour type 1.
  constexpr std::string_view kStart("\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", 16);
  constexpr std::size_t kColourTypeAt = 25;
  const std::string_view text(reinterpret_cast<const char*>(png.data()), png.size());
  if (text.size() <= kColourTypeAt || !text.starts_with(kStart)) {
    throw InvalidArgument("event file: image " + text_in_quotes(name) + " of " + std::to_string(png.size()) +
                          " bytes is not a PNG; encode it first");
  }
  const auto big_endian = [&](std::size_t at) {
    std::int64_t value = 0;
    for (std::size_t i = at; i < at + 4; ++i) value = (value << 8) | std::to_integer<std::int64_t>(png[i]);
    return value;
  };
  const int colour_type = std::to_integer<int>(png[kColourTypeAt]);
  const bool colour = (colour_type & 2) != 0;
  const bool alpha = (colour_type & 4) != 0;
  return {.width = big_endian(16), .height = big_endian(20), .channels = (colour ? 3 : 1) + (alpha ? 1 : 0)};
}

}  // namespace

EventFile::EventFile(const fs::path& folder, std::int64_t first_step, FileCalls& calls)
    : file_(create_file(folder, calls)) {
  std::string version = event_at(0);
  append_bytes(version, 3, "brain.Event:2");
  write_event(version);

  // The START of the first session too: TensorBoard takes the first one it meets as the beginning and drops nothing.
  std::string session_log;
  append_integer(session_log, 1, 1);
  std::string start = event_at(first_step);
  append_bytes(start, 7, session_log);
  write_event(start);
}

void EventFile::add_scalars(std::int64_t step, std::span<const NamedValue> scalars) {
  if (scalars.empty()) return;
  std::string summary;
  for (const NamedValue& scalar : scalars) {
    std::string value;
    append_bytes(value, 1, scalar.name);
    append_key(value, 2, Wire::fixed32);
    append_little_endian(value, std::bit_cast<std::uint32_t>(static_cast<float>(scalar.value)));
    append_bytes(summary, 1, value);
  }
  std::string event = event_at(step);
  append_bytes(event, 5, summary);
  write_event(event);
}

void EventFile::add_png(std::int64_t step, std::string_view name, std::span<const std::byte> png) {
  const PngFormat format = png_format(name, png);
  std::string image;
  append_integer(image, 1, format.height);
  append_integer(image, 2, format.width);
  append_integer(image, 3, format.channels);
  append_bytes(image, 4, {reinterpret_cast<const char*>(png.data()), png.size()});
  std::string value;
  append_bytes(value, 1, name);
  append_bytes(value, 4, image);
  std::string summary;
  append_bytes(summary, 1, value);
  std::string event = event_at(step);
  append_bytes(event, 5, summary);
  write_event(event);
}

void EventFile::sync() { file_.sync(); }

void EventFile::write_event(std::string_view event) {
  std::string record;
  append_little_endian(record, std::uint64_t{event.size()});
  append_little_endian(record, masked_crc32c(record));
  record += event;
  append_little_endian(record, masked_crc32c(event));
  file_.append(std::as_bytes(std::span(record)));
}

}  // namespace bracket
