#include "host/run/manifest.h"

#include <cstdint>
#include <system_error>

#include "bracket/error.h"
#include "host/config/json_text.h"
#include "host/files/in_quotes.h"
#include "host/files/sha256.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "bracket-checkpoint";
constexpr std::int64_t kVersion = 1;
constexpr std::size_t kDigestDigits = 64;
// Six entries of about 160 bytes; more is no manifest, and is not worth reading.
constexpr std::int64_t kLargestManifest = 16384;

struct ManifestEntry {
  std::string name;
  std::int64_t bytes = 0;
  std::string sha256;
};

[[noreturn]] void refuse(const fs::path& file, const std::string& reason) {
  throw CheckpointError(path_in_quotes(file) + " " + reason);
}

std::string text_of(const std::vector<ManifestEntry>& entries) {
  Json files = Json::array();
  for (const ManifestEntry& entry : entries) {
    files.push_back(Json{{"name", entry.name}, {"bytes", entry.bytes}, {"sha256", entry.sha256}});
  }
  return json_text(Json{{"format", kFormat}, {"version", kVersion}, {"files", files}}) + "\n";
}

std::int64_t size_of(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) refuse(path, "is absent; the checkpoint is incomplete");
  if (status.type() == fs::file_type::none) throw_file_error("read", path, error.value());
  if (status.type() != fs::file_type::regular) refuse(path, "is not a regular file");
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) throw_file_error("read", path, error.value());
  return static_cast<std::int64_t>(size);
}

std::vector<ManifestEntry> parse_entries(const Json& manifest, const fs::path& path) {
  if (!manifest.is_object() || manifest.value("format", Json()) != Json(kFormat)) {
    refuse(path, "is not the manifest of a checkpoint: \"format\" must be \"" + std::string(kFormat) + "\"");
  }
  if (const Json version = manifest.value("version", Json()); version != Json(kVersion)) {
    refuse(path, "has format version " + version.dump() + ", this build reads version " + std::to_string(kVersion));
  }
  const Json files = manifest.value("files", Json());
  if (!files.is_array() || files.size() != kCheckpointFiles.size()) {
    refuse(path, "is damaged: \"files\" must list " + std::to_string(kCheckpointFiles.size()) + " files");
  }
  std::vector<ManifestEntry> entries;
  for (const char* name : kCheckpointFiles) {
    const Json& file = files[entries.size()];
    const bool complete = file.is_object() && file.value("name", Json()) == Json(name) &&
                          file.value("bytes", Json()).is_number_integer() && file.value("sha256", Json()).is_string();
    if (!complete) refuse(path, "is damaged: entry " + std::to_string(entries.size()) + " must describe " + name);
    entries.push_back({name, file["bytes"].get<std::int64_t>(), file["sha256"].get<std::string>()});
    if (entries.back().bytes < 0 || entries.back().sha256.size() != kDigestDigits) {
      refuse(path, "is damaged: size or digest of " + std::string(name) + " is out of range");
    }
  }
  return entries;
}

std::vector<ManifestEntry> read_manifest(const fs::path& folder, FileCalls& calls) {
  const fs::path path = folder / kManifestName;
  if (const std::int64_t size = size_of(path); size > kLargestManifest) {
    refuse(path, "has " + std::to_string(size) + " bytes, a manifest has at most " + std::to_string(kLargestManifest));
  }
  const std::vector<std::byte> bytes = read_file(path, calls);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Json manifest;
  try {
    manifest = parse_json(text);
  } catch (const InvalidArgument& error) {
    refuse(path, std::string("is damaged: ") + error.what());
  }
  std::vector<ManifestEntry> entries = parse_entries(manifest, path);
  if (text != text_of(entries)) refuse(path, "is damaged: it is not spelt the way Bracket writes it");
  return entries;
}

}  // namespace

std::string manifest_text(const CheckpointBytes& files) {
  std::vector<ManifestEntry> entries;
  for (const char* name : kCheckpointFiles) {
    const std::vector<std::byte>& bytes = files.at(name);
    entries.push_back({name, static_cast<std::int64_t>(bytes.size()), sha256_hex(bytes)});
  }
  return text_of(entries);
}

CheckpointBytes read_verified_files(const fs::path& folder, FileCalls& calls) {
  CheckpointBytes files;
  for (const ManifestEntry& entry : read_manifest(folder, calls)) {
    const fs::path path = folder / entry.name;
    const auto require_size = [&](std::int64_t size) {
      if (size == entry.bytes) return;
      refuse(path, "has " + std::to_string(size) + " bytes, manifest.json says " + std::to_string(entry.bytes));
    };
    require_size(size_of(path));
    std::vector<std::byte> bytes = read_file(path, calls);
    require_size(static_cast<std::int64_t>(bytes.size()));
    if (const std::string digest = sha256_hex(bytes); digest != entry.sha256) {
      refuse(path, "is damaged: its SHA-256 is " + digest + ", manifest.json says " + text_in_quotes(entry.sha256));
    }
    files.emplace(entry.name, std::move(bytes));
  }
  return files;
}

}  // namespace bracket
