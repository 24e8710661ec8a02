#include "host/files/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporaryPrefix = ".bracket-";
constexpr std::string_view kTemporarySuffix = ".tmp";
// Leftovers of killed processes with our process number are skipped; more than this many means something else is wrong.
constexpr int kMaxTemporaryNames = 1000;

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

// Independent of the final name, so that any name the file system allows can be written.
fs::path temporary_name(const fs::path& folder, int attempt) {
  return folder / (std::string(kTemporaryPrefix) + std::to_string(::getpid()) + "-" + std::to_string(attempt) +
                   std::string(kTemporarySuffix));
}

[[noreturn]] void throw_no_temporary_name(const fs::path& folder) {
  throw DataError("folder " + path_in_quotes(folder) + " holds " + std::to_string(kMaxTemporaryNames) +
                  " leftover temporary files '.bracket-*.tmp'; remove them");
}

struct TemporaryFile {
  OpenFile file;
  fs::path path;
};

TemporaryFile create_temporary(const fs::path& folder, const fs::path& destination, FileCalls& calls) {
  for (int attempt = 0; attempt < kMaxTemporaryNames; ++attempt) {
    fs::path path = temporary_name(folder, attempt);
    if (auto file = OpenFile::create_temporary(path, destination, calls)) return {std::move(*file), std::move(path)};
  }
  throw_no_temporary_name(folder);
}

// Where a rename must land: the file behind a symbolic link. Renaming onto a device node would replace the device.
fs::path rename_target(const fs::path& path) {
  if (path.empty() || !path.has_filename()) {
    throw DataError("cannot write " + path_in_quotes(path) + ": it has no file name; give the name of a file");
  }
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::none) throw_file_error("write", path, error.value());
  if (status.type() == fs::file_type::not_found) return path;
  if (status.type() == fs::file_type::directory) throw_file_error("write", path, EISDIR);
  if (status.type() != fs::file_type::regular) {
    throw DataError("cannot write " + path_in_quotes(path) + ": it is not a regular file; give another name");
  }
  const fs::path target = fs::canonical(path, error);
  if (error) throw_file_error("write", path, error.value());
  return target;
}

int repeated_rename(const fs::path& from, const fs::path& to, FileCalls& calls) {
  int result = 0;
  do {
    result = calls.rename(from.c_str(), to.c_str());
  } while (result != 0 && errno == EINTR);
  return result;
}

void remove_all_or_throw(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw_file_error("remove", path, error.value());
}

}  // namespace

void write_file_atomically(const fs::path& path, std::span<const std::byte> bytes, FileCalls& calls) {
  const fs::path target = rename_target(path);
  const fs::path folder = folder_of(target);
  auto [file, temporary] = create_temporary(folder, target, calls);
  try {
    file.write(bytes);
    file.sync();
    file.close();
    if (repeated_rename(temporary, target, calls) != 0) throw_file_error("replace", target, errno);
  } catch (...) {
    calls.unlink(temporary.c_str());
    throw;
  }
  sync_folder(folder, calls);
}

void create_folders(const fs::path& path, FileCalls& calls) {
  if (path.empty()) throw DataError("cannot create a folder with an empty name; give a path");
  fs::path folder;
  for (const fs::path& part : path) {
    folder /= part;
    if (part.empty() || part == "/" || part == "." || part == "..") continue;
    int result = 0;
    do {
      result = calls.mkdir(folder.c_str(), 0777);
    } while (result != 0 && errno == EINTR);
    if (result == 0) {
      sync_folder(folder_of(folder), calls);
      continue;
    }
    // mkdir on an existing folder reports EEXIST, or on a read-only or protected parent EROFS or EACCES.
    const int reason = errno;
    std::error_code error;
    if (fs::is_directory(folder, error)) continue;
    throw_file_error("create folder", folder, reason == EEXIST ? ENOTDIR : reason);
  }
}

void sync_folder(const fs::path& folder, FileCalls& calls) {
  OpenFile file = OpenFile::open(folder, O_RDONLY | O_DIRECTORY, calls);
  int result = 0;
  do {
    result = calls.fsync(file.descriptor());
  } while (result != 0 && errno == EINTR);
  // EINVAL: the file system cannot sync folders (some FUSE and network mounts); there is nothing better to do there.
  if (result != 0 && errno != EINVAL) throw_file_error("write to disk", folder, errno);
}

void remove_tree(const fs::path& folder, FileCalls& calls) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(folder, error);
  if (status.type() == fs::file_type::not_found) return;
  if (status.type() == fs::file_type::none) throw_file_error("remove", folder, error.value());
  const fs::path name = folder.filename();
  if (status.type() != fs::file_type::directory || name.empty() || name == "." || name == "..") {
    throw DataError("refusing to remove " + path_in_quotes(folder) +
                    " as a folder: it is a file, a link or has no name of its own; give the folder's own path");
  }
  const fs::path parent = folder_of(folder);
  for (int attempt = 0; attempt < kMaxTemporaryNames; ++attempt) {
    const fs::path doomed = temporary_name(parent, attempt);
    if (fs::symlink_status(doomed, error).type() != fs::file_type::not_found) continue;
    if (repeated_rename(folder, doomed, calls) != 0) throw_file_error("remove", folder, errno);
    sync_folder(parent, calls);
    remove_all_or_throw(doomed);
    return;
  }
  throw_no_temporary_name(parent);
}

void remove_leftover_temporaries(const fs::path& folder) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error) throw_file_error("list", folder, error.value());
  for (; entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (name.starts_with(kTemporaryPrefix) && name.ends_with(kTemporarySuffix)) remove_all_or_throw(entries->path());
  }
  if (error) throw_file_error("list", folder, error.value());
}

}  // namespace bracket
