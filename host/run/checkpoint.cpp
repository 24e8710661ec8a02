#include "bracket/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <span>
#include <string>
#include <system_error>

#include "bracket/error.h"
#include "bracket/preset.h"
#include "host/config/json_text.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "host/run/checkpoint_files.h"
#include "host/run/manifest.h"
#include "host/run/snapshot_files.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolderPrefix = "step_";
constexpr int kStepDigits = 8;
constexpr std::size_t kListedDifferences = 4;

// "a/b/" and "a/b/." as "a/b": they name the same folder, but only the last has a name to rename to.
fs::path named_by_last_part(fs::path folder) {
  while (folder.has_relative_path() && folder.has_parent_path() &&
         (!folder.has_filename() || folder.filename() == ".")) {
    folder = folder.parent_path();
  }
  return folder;
}

fs::path parent_of(const fs::path& folder) { return folder.has_parent_path() ? folder.parent_path() : fs::path("."); }

bool is_checkpoint_file(const std::string& name) {
  return name == kManifestName ||
         std::find(kCheckpointFiles.begin(), kCheckpointFiles.end(), name) != kCheckpointFiles.end();
}

void require_replaceable(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(folder, error);
  if (status.type() == fs::file_type::not_found) return;
  if (status.type() != fs::file_type::directory) {
    throw DataError("cannot write checkpoint " + path_in_quotes(folder) + ": it is not a folder; remove it");
  }
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (is_checkpoint_file(name)) continue;
    throw DataError("cannot write checkpoint " + path_in_quotes(folder) + ": it holds " + text_in_quotes(name) +
                    ", which is no part of a checkpoint; choose another folder");
  }
  if (error) throw_file_error("list", folder, error.value());
}

void write_new_file(const fs::path& path, std::span<const std::byte> bytes, FileCalls& calls) {
  OpenFile file = OpenFile::open(path, O_WRONLY | O_CREAT | O_EXCL, calls);
  file.write(bytes);
  file.sync();
  file.close();
}

void write_files(const fs::path& folder, const CheckpointBytes& files, FileCalls& calls) {
  for (const char* name : kCheckpointFiles) write_new_file(folder / name, files.at(name), calls);
  const std::string manifest = manifest_text(files);
  write_new_file(folder / kManifestName, std::as_bytes(std::span(manifest)), calls);
  sync_folder(folder, calls);
}

template <class CallT>
int repeat_while_interrupted(const CallT& call) {
  int result = 0;
  do {
    result = call();
  } while (result != 0 && errno == EINTR);
  return result;
}

void collect_differences(std::vector<std::string>& found, const Json& stored, const Json& present,
                         const std::string& path) {
  if (stored == present) return;
  if (stored.is_structured() && stored.type() == present.type()) {
    const Json stored_members = stored.flatten(), present_members = present.flatten();
    for (const auto& [key, value] : stored_members.items()) {
      const Json other = present_members.value(key, Json());
      if (value == other) continue;
      std::string member = key;
      std::replace(member.begin(), member.end(), '/', '.');
      found.push_back(path + member + " (" + value.dump() + ", here " + other.dump() + ")");
    }
    for (const auto& [key, value] : present_members.items()) {
      if (stored_members.contains(key)) continue;
      std::string member = key;
      std::replace(member.begin(), member.end(), '/', '.');
      found.push_back(path + member + " (absent, here " + value.dump() + ")");
    }
    return;
  }
  found.push_back(path + " (" + stored.dump() + ", here " + present.dump() + ")");
}

// Learning rates and the like may change between sessions; what shapes the tensors may not.
void require_same_networks(const TrainerConfig& stored, const TrainerConfig& present) {
  const auto networks = [](const TrainerConfig& config) {
    return std::pair(parse_json(to_json(config.energy.network)), parse_json(to_json(config.generator.network)));
  };
  const auto [stored_energy, stored_generator] = networks(stored);
  const auto [present_energy, present_generator] = networks(present);
  std::vector<std::string> found;
  collect_differences(found, dtype_name(stored.dtype), dtype_name(present.dtype), "precision");
  collect_differences(found, stored_energy, present_energy, "energy.network");
  collect_differences(found, stored_generator, present_generator, "generator.network");
  if (found.empty()) return;
  std::string text;
  for (std::size_t i = 0; i < std::min(found.size(), kListedDifferences); ++i) text += (i > 0 ? ", " : "") + found[i];
  if (found.size() > kListedDifferences) text += " and " + std::to_string(found.size() - kListedDifferences) + " more";
  throw CheckpointError("the checkpoint is of other networks: " + text + "; restore it with the saved configuration");
}

}  // namespace

void write_checkpoint(const fs::path& path, const TrainerSnapshot& snapshot, const TrainerConfig& config,
                      FileCalls& calls) {
  const fs::path folder = named_by_last_part(path);
  const CheckpointBytes files = checkpoint_bytes(snapshot, config);
  const fs::path parent = parent_of(folder);
  create_folders(parent, calls);
  require_replaceable(folder);
  // The form that remove_leftover_temporaries cleans up after a process that was killed.
  const fs::path temporary =
      parent / (".bracket-" + std::to_string(::getpid()) + "-" + folder.filename().string() + ".tmp");
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
  if (repeat_while_interrupted([&] { return calls.mkdir(temporary.c_str(), 0777); }) != 0) {
    throw_file_error("create checkpoint", folder, errno);
  }
  try {
    write_files(temporary, files, calls);
    remove_tree(folder, calls);
    if (repeat_while_interrupted([&] { return calls.rename(temporary.c_str(), folder.c_str()); }) != 0) {
      throw_file_error("create checkpoint", folder, errno);
    }
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  sync_folder(parent, calls);
}

void save_checkpoint(const fs::path& folder, Trainer& trainer) {
  write_checkpoint(folder, trainer.snapshot(), trainer.config());
}

Checkpoint read_checkpoint(const fs::path& folder) {
  std::error_code error;
  if (fs::status(folder, error).type() == fs::file_type::not_found) {
    throw CheckpointError("checkpoint " + path_in_quotes(folder) + " is absent; check the path");
  }
  return checkpoint_from_bytes(read_verified_files(folder), folder);
}

void restore_checkpoint(Trainer& trainer, const Checkpoint& checkpoint) {
  require_same_networks(checkpoint.config, trainer.config());
  trainer.restore(checkpoint.snapshot);
}

fs::path checkpoint_folder(const fs::path& parent, std::int64_t step) {
  std::string digits = std::to_string(step);
  if (digits.size() < kStepDigits) digits.insert(0, kStepDigits - digits.size(), '0');
  return parent / (std::string(kFolderPrefix) + digits);
}

std::vector<CheckpointEntry> list_checkpoints(const fs::path& parent) {
  std::vector<CheckpointEntry> entries;
  std::error_code error;
  if (fs::status(parent, error).type() == fs::file_type::not_found) return entries;
  fs::directory_iterator files(parent, error);
  for (; !error && files != fs::directory_iterator(); files.increment(error)) {
    const std::string name = files->path().filename().string();
    if (!name.starts_with(kFolderPrefix)) continue;
    const char* const end = name.data() + name.size();
    std::int64_t step = -1;
    const auto [stop, parse_error] = std::from_chars(name.data() + kFolderPrefix.size(), end, step);
    if (parse_error != std::errc() || stop != end || step < 0) continue;
    if (files->path() == checkpoint_folder(parent, step)) entries.push_back({files->path(), step});
  }
  if (error) throw_file_error("list", parent, error.value());
  std::sort(entries.begin(), entries.end(),
            [](const CheckpointEntry& a, const CheckpointEntry& b) { return a.step > b.step; });
  return entries;
}

void rotate_checkpoints(const fs::path& parent, std::int64_t step, std::int64_t keep, FileCalls& calls) {
  std::int64_t kept = 0;
  for (const CheckpointEntry& entry : list_checkpoints(parent)) {
    if (entry.step <= step && kept++ < keep) continue;
    remove_tree(entry.folder, calls);
  }
}

}  // namespace bracket
