// Changes on disk that survive a crash: a file or folder is there completely or not at all.
// Every function throws DataError with path, reason and remedy.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "host/files/posix_file.h"

namespace bracket {

/// Replaces or creates `path` so that a reader, even after a power cut, sees the old content or the new one:
/// temporary file in the same folder, write, fsync, close, rename, fsync of the folder.
/// On failure the temporary file is removed and the old content stays; only when the last step (fsync of the folder)
/// fails is the complete new content already visible. A symbolic link is followed; devices and folders are refused.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                           FileCalls& calls = FileCalls::kernel());

/// Creates `path` and its missing parents durably. An existing folder is fine.
void create_folders(const std::filesystem::path& path, FileCalls& calls = FileCalls::kernel());

/// Forces the names in a folder to the disk.
void sync_folder(const std::filesystem::path& folder, FileCalls& calls = FileCalls::kernel());

/// Removes a folder so that it vanishes in one step: renamed to a temporary name beside it, then deleted.
/// Symbolic links inside are removed, not followed. An absent folder is fine; a file or a link is refused.
void remove_tree(const std::filesystem::path& folder, FileCalls& calls = FileCalls::kernel());

/// Deletes the temporary files and folders that a killed process left in `folder` (not in its subfolders).
/// Only for a folder that no other process writes to, e.g. under a RunLock.
void remove_leftover_temporaries(const std::filesystem::path& folder);

}  // namespace bracket
