// Files by descriptor: every system call checked, interrupted calls repeated, short writes continued, and errors turned
// into one line with path, reason and remedy.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace bracket {

/// The system calls that reading and writing go through. The base class calls the kernel; tests derive from it and make
/// each call fail in turn. Results and errno are those of the call of the same name.
class FileCalls {
 public:
  virtual ~FileCalls() = default;
  virtual int open(const char* path, int flags, mode_t mode);
  virtual ssize_t read(int descriptor, void* bytes, std::size_t count);
  virtual ssize_t write(int descriptor, const void* bytes, std::size_t count);
  virtual int fsync(int descriptor);
  virtual int ftruncate(int descriptor, off_t length);
  virtual int close(int descriptor);
  virtual int rename(const char* from, const char* to);
  virtual int unlink(const char* path);
  virtual int mkdir(const char* path, mode_t mode);
  virtual int flock(int descriptor, int operation);

  /// The kernel's calls. The object has no state and may be used by any number of threads.
  static FileCalls& kernel();
};

/// Throws DataError: "cannot <action> '<path>': <reason of error_number>; <remedy>".
[[noreturn]] void throw_file_error(std::string_view action, const std::filesystem::path& path, int error_number);

/// An open descriptor, closed on destruction. Every method throws DataError when the system refuses.
class OpenFile {
 public:
  /// Opens with open(2) flags; O_CLOEXEC is added and new files get mode 0666 less the umask.
  static OpenFile open(const std::filesystem::path& path, int flags, FileCalls& calls = FileCalls::kernel());
  /// Creates a file that must not exist yet, open for appending; nullopt if the name is taken.
  static std::optional<OpenFile> create_new(const std::filesystem::path& path, FileCalls& calls = FileCalls::kernel());
  /// The same for a temporary file: errors and path() name `destination`, the file that the user knows.
  static std::optional<OpenFile> create_temporary(const std::filesystem::path& path,
                                                  const std::filesystem::path& destination, FileCalls& calls);

  OpenFile(OpenFile&& other) noexcept;
  OpenFile& operator=(OpenFile&& other) noexcept;
  ~OpenFile();

  /// Size in bytes. Refuses anything but a regular file.
  std::int64_t regular_file_size() const;
  /// Reads up to bytes.size() bytes; fewer only at the end of the file.
  std::size_t read(std::span<std::byte> bytes);
  void write(std::span<const std::byte> bytes);
  /// Appends all bytes, or none: when the system refuses, the file is cut back to its former length before the throw.
  /// The file must have been opened for appending.
  void append(std::span<const std::byte> bytes);
  /// Forces content to the disk.
  void sync();
  /// Closes and reports what the destructor could not (NFS reports late write errors here).
  void close();

  int descriptor() const noexcept { return descriptor_; }
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  OpenFile(std::filesystem::path path, int descriptor, FileCalls& calls);

  std::filesystem::path path_;
  int descriptor_;
  FileCalls* calls_;
};

/// The whole content of a regular file. Throws DataError (absent, unreadable, not a regular file, changed while read)
/// or OutOfMemory.
std::vector<std::byte> read_file(const std::filesystem::path& path, FileCalls& calls = FileCalls::kernel());

}  // namespace bracket
