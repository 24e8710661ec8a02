// metrics.jsonl: one JSON object per line, cut back when a run resumes from an earlier step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "host/files/named_value.h"
#include "host/files/posix_file.h"

namespace bracket {

/// {"step":12,"time_s":0.5,...}: `step` first, then the values in their order, in the shortest text that reads back to
/// the same double; NaN and infinities, which JSON does not have, as null. Equal values give equal bytes.
/// Throws InvalidArgument when a name appears twice, is "step" or is not UTF-8.
std::string metrics_line(std::int64_t step, std::span<const NamedValue> values);

/// A file that grows by whole lines. Every method throws DataError when the disk refuses.
class JsonLinesFile {
 public:
  /// Opens or creates the file. Refuses one that ends in the middle of a line: cut_json_lines repairs it.
  explicit JsonLinesFile(const std::filesystem::path& path, FileCalls& calls = FileCalls::kernel());

  /// Appends `line` and a newline; on failure nothing of it stays. Throws InvalidArgument if it holds a newline.
  void append(std::string_view line);
  /// Forces everything appended to the disk. Before a checkpoint is written, so that no step it covers is missing here.
  void sync();

 private:
  OpenFile file_;
};

struct JsonLinesCut {
  std::int64_t kept_lines = 0;
  std::int64_t dropped_bytes = 0;
};

/// Keeps the lines before the first whose "step" is above `last_step`, and drops what an interrupted write left at the
/// end. The file is replaced atomically, and only if it changes; an absent file counts as empty. Not while it is open
/// for appending. Throws DataError with file:line if a line before a kept line is not an object with an integer "step".
JsonLinesCut cut_json_lines(const std::filesystem::path& path, std::int64_t last_step,
                            FileCalls& calls = FileCalls::kernel());

}  // namespace bracket
