#include "host/files/cifar.h"

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

struct Layout {
  const char* name;
  std::size_t label_bytes;
  int classes[2];  // of each label byte
};
constexpr Layout kLayouts[] = {{"CIFAR-10", 1, {10, 0}}, {"CIFAR-100", 2, {20, 100}}};
constexpr std::size_t kPixels = 32 * 32, kChannels = 3;

const Layout& layout_of(CifarKind kind) { return kLayouts[static_cast<std::size_t>(kind)]; }

std::size_t record_bytes(const Layout& layout) { return layout.label_bytes + kPixels * kChannels; }

// Of the first label that does not exist; the number of records when all do.
std::size_t first_bad_record(std::span<const std::byte> bytes, const Layout& layout) {
  const std::size_t records = bytes.size() / record_bytes(layout);
  for (std::size_t i = 0; i < records; ++i) {
    for (std::size_t j = 0; j < layout.label_bytes; ++j) {
      if (std::to_integer<int>(bytes[i * record_bytes(layout) + j]) >= layout.classes[j]) return i;
    }
  }
  return records;
}

}  // namespace

CifarKind cifar_kind(std::span<const std::byte> bytes, const std::string& file_name) {
  if (bytes.empty()) throw DataError(path_in_quotes(file_name) + " is empty; fetch it again");
  bool divides[2];
  for (const CifarKind kind : {CifarKind::cifar10, CifarKind::cifar100}) {
    const Layout& layout = layout_of(kind);
    divides[static_cast<std::size_t>(kind)] = bytes.size() % record_bytes(layout) == 0;
    if (divides[static_cast<std::size_t>(kind)] &&
        first_bad_record(bytes, layout) == bytes.size() / record_bytes(layout))
      return kind;
  }
  // append_cifar names the label.
  if (divides[0]) return CifarKind::cifar10;
  if (divides[1]) return CifarKind::cifar100;
  throw DataError(path_in_quotes(file_name) + " has " + std::to_string(bytes.size()) +
                  " bytes, which is no multiple of 3073 (records of CIFAR-10) nor of 3074 (CIFAR-100); it is truncated "
                  "or no CIFAR file, fetch it again");
}

void append_cifar(std::vector<std::uint8_t>& pixels, std::vector<std::int32_t>& labels,
                  std::span<const std::byte> bytes, CifarKind kind, const std::string& file_name) {
  const Layout& layout = layout_of(kind);
  const std::size_t stride = record_bytes(layout), records = bytes.size() / stride;
  if (records == 0 || bytes.size() % stride != 0) {
    throw DataError(path_in_quotes(file_name) + " has " + std::to_string(bytes.size()) + " bytes, not one or more " +
                    layout.name + " records of " + std::to_string(stride) + "; it is truncated, fetch it again");
  }
  if (const std::size_t bad = first_bad_record(bytes, layout); bad != records) {
    std::string found;
    for (std::size_t j = 0; j < layout.label_bytes; ++j) {
      found += (j == 0 ? "" : ", ") + std::to_string(std::to_integer<int>(bytes[bad * stride + j])) + " of 0.." +
               std::to_string(layout.classes[j] - 1);
    }
    throw DataError(path_in_quotes(file_name) + ": record " + std::to_string(bad) + " (counted from 0) has label " +
                    found + ", which " + layout.name + " does not have; it is damaged or of another layout");
  }
  pixels.reserve(pixels.size() + records * kPixels * kChannels);
  for (std::size_t i = 0; i < records; ++i) {
    const auto record = bytes.subspan(i * stride, stride);
    labels.push_back(std::to_integer<std::int32_t>(record[layout.label_bytes - 1]));
    const auto planes = record.subspan(layout.label_bytes);
    for (std::size_t p = 0; p < kPixels; ++p) {
      for (std::size_t c = 0; c < kChannels; ++c)
        pixels.push_back(std::to_integer<std::uint8_t>(planes[c * kPixels + p]));
    }
  }
}

}  // namespace bracket
