// TensorBoard event files.
//
// A file is a sequence of records: u64 length, u32 masked CRC32C of the length, bytes, u32 masked CRC32C of the bytes,
// all little-endian, mask(c) = rotate_right(c, 15) + 0xa282ead8. The bytes are a tensorflow.Event protocol buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "host/files/named_value.h"
#include "host/files/posix_file.h"

namespace bracket {

/// Writes one new file FOLDER/events.out.tfevents.<seconds>.<host>.<process>.<n> per session. Its name sorts after
/// those already there, even when the clock was set back, because TensorBoard reads the files of a run in that order.
/// Every method throws DataError when the disk refuses; a record is then absent, never torn.
class EventFile {
 public:
  /// `first_step` is the first step this file will report: 0 for a new run, the checkpoint's step plus 1 after a
  /// resume. TensorBoard drops what earlier files reported from that step on. The folder must exist.
  EventFile(const std::filesystem::path& folder, std::int64_t first_step, FileCalls& calls = FileCalls::kernel());

  /// One point per metric. TensorBoard stores single precision; NaN and infinities are kept.
  void add_scalars(std::int64_t step, std::span<const NamedValue> scalars);
  /// An encoded PNG image. Throws InvalidArgument if the bytes do not begin with a PNG header.
  void add_png(std::int64_t step, std::string_view name, std::span<const std::byte> png);
  /// Forces everything written so far to the disk.
  void sync();

  const std::filesystem::path& path() const noexcept { return file_.path(); }

 private:
  void write_event(std::string_view event);

  OpenFile file_;
};

}  // namespace bracket
