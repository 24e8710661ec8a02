// One writer per run folder.
#pragma once

#include <filesystem>

#include "host/files/posix_file.h"

namespace bracket {

/// Holds FOLDER/.lock exclusively (flock) until destroyed; the kernel frees it when the process dies, however it dies.
/// The file itself stays: removing it would let two processes hold two different locks of the same name.
class RunLock {
 public:
  /// Throws DataError when another holder has the folder (naming its process and machine) or the folder is unusable.
  explicit RunLock(const std::filesystem::path& folder, FileCalls& calls = FileCalls::kernel());

 private:
  OpenFile file_;
};

}  // namespace bracket
