#include "host/files/posix_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

constexpr mode_t kNewFileMode = 0666;

template <typename Call>
auto repeat_while_interrupted(Call call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

std::string_view remedy(int error_number) {
  switch (error_number) {
    case ENOENT:
      return "correct the path or create the folder";
    case ENOTDIR:
      return "a part of the path is a file; correct the path";
    case EISDIR:
      return "give the name of a file, not of a folder";
    case EEXIST:
      return "choose another name or remove what is there";
    case EACCES:
    case EPERM:
      return "change the permissions or choose another folder";
    case EROFS:
      return "the file system is read-only; choose a writable folder";
    case ENOSPC:
    case EDQUOT:
      return "free disk space or choose another folder";
    case EFBIG:
      return "raise the file size limit (ulimit -f) or choose another file system";
    case EMFILE:
    case ENFILE:
      return "close files or raise the limit (ulimit -n)";
    case ENAMETOOLONG:
      return "choose a shorter name";
    case EIO:
      return "check the disk";
    default:
      return "check the path and the disk";
  }
}

}  // namespace

int FileCalls::open(const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); }
ssize_t FileCalls::read(int descriptor, void* bytes, std::size_t count) { return ::read(descriptor, bytes, count); }
ssize_t FileCalls::write(int descriptor, const void* bytes, std::size_t count) {
  return ::write(descriptor, bytes, count);
}
int FileCalls::fsync(int descriptor) { return ::fsync(descriptor); }
int FileCalls::ftruncate(int descriptor, off_t length) { return ::ftruncate(descriptor, length); }
int FileCalls::close(int descriptor) { return ::close(descriptor); }
int FileCalls::rename(const char* from, const char* to) { return ::rename(from, to); }
int FileCalls::unlink(const char* path) { return ::unlink(path); }
int FileCalls::mkdir(const char* path, mode_t mode) { return ::mkdir(path, mode); }
int FileCalls::flock(int descriptor, int operation) { return ::flock(descriptor, operation); }

FileCalls& FileCalls::kernel() {
  static FileCalls calls;
  return calls;
}

void throw_file_error(std::string_view action, const std::filesystem::path& path, int error_number) {
  throw DataError("cannot " + std::string(action) + " " + path_in_quotes(path) + ": " +
                  std::generic_category().message(error_number) + "; " + std::string(remedy(error_number)));
}

OpenFile::OpenFile(std::filesystem::path path, int descriptor, FileCalls& calls)
    : path_(std::move(path)), descriptor_(descriptor), calls_(&calls) {}

OpenFile OpenFile::open(const std::filesystem::path& path, int flags, FileCalls& calls) {
  const int descriptor =
      repeat_while_interrupted([&] { return calls.open(path.c_str(), flags | O_CLOEXEC, kNewFileMode); });
  if (descriptor < 0) throw_file_error("open", path, errno);
  return OpenFile(path, descriptor, calls);
}

std::optional<OpenFile> OpenFile::create_new(const std::filesystem::path& path, FileCalls& calls) {
  return create_temporary(path, path, calls);
}

std::optional<OpenFile> OpenFile::create_temporary(const std::filesystem::path& path,
                                                   const std::filesystem::path& destination, FileCalls& calls) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC;
  const int descriptor = repeat_while_interrupted([&] { return calls.open(path.c_str(), kFlags, kNewFileMode); });
  if (descriptor < 0 && errno == EEXIST) return std::nullopt;
  if (descriptor < 0) throw_file_error("create", destination, errno);
  return OpenFile(destination, descriptor, calls);
}

OpenFile::OpenFile(OpenFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), calls_(other.calls_) {}

OpenFile& OpenFile::operator=(OpenFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(calls_, other.calls_);
  return *this;
}

OpenFile::~OpenFile() {
  if (descriptor_ >= 0) calls_->close(descriptor_);
}

std::int64_t OpenFile::regular_file_size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) throw_file_error("examine", path_, errno);
  if (S_ISDIR(status.st_mode)) throw_file_error("read", path_, EISDIR);
  if (!S_ISREG(status.st_mode)) {
    throw DataError(path_in_quotes(path_) + " is not a regular file; give the name of a file on disk");
  }
  return status.st_size;
}

std::size_t OpenFile::read(std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count =
        repeat_while_interrupted([&] { return calls_->read(descriptor_, bytes.data() + done, bytes.size() - done); });
    if (count < 0) throw_file_error("read", path_, errno);
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

void OpenFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        repeat_while_interrupted([&] { return calls_->write(descriptor_, bytes.data(), bytes.size()); });
    if (count < 0) throw_file_error("write", path_, errno);
    // A device that accepts nothing without an error would otherwise be asked for ever.
    if (count == 0) throw_file_error("write", path_, ENOSPC);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void OpenFile::append(std::span<const std::byte> bytes) {
  const off_t length = ::lseek(descriptor_, 0, SEEK_END);
  if (length < 0) throw_file_error("append to", path_, errno);
  try {
    write(bytes);
  } catch (const DataError&) {
    // Best effort: the refusal of the write is what the caller has to hear of.
    repeat_while_interrupted([&] { return calls_->ftruncate(descriptor_, length); });
    throw;
  }
}

void OpenFile::sync() {
  if (repeat_while_interrupted([&] { return calls_->fsync(descriptor_); }) != 0) {
    throw_file_error("write to disk", path_, errno);
  }
}

void OpenFile::close() {
  // Linux frees the descriptor even when close() reports an error, EINTR included: it must not be repeated.
  const int result = calls_->close(std::exchange(descriptor_, -1));
  if (result != 0 && errno != EINTR) throw_file_error("finish writing", path_, errno);
}

std::vector<std::byte> read_file(const std::filesystem::path& path, FileCalls& calls) {
  // O_NONBLOCK: opening a FIFO must fail below as "not a regular file" instead of waiting for a writer.
  OpenFile file = OpenFile::open(path, O_RDONLY | O_NONBLOCK, calls);
  const std::int64_t size = file.regular_file_size();
  std::vector<std::byte> bytes;
  try {
    bytes.resize(static_cast<std::size_t>(size));
  } catch (const std::bad_alloc&) {
    throw OutOfMemory("cannot read " + path_in_quotes(path) + ": its " + std::to_string(size) +
                          " bytes do not fit in memory; use a machine with more memory or a smaller file",
                      size);
  }
  const std::size_t count = file.read(bytes);
  if (count != bytes.size()) {
    throw DataError(path_in_quotes(path) + " shrank from " + std::to_string(size) + " to " + std::to_string(count) +
                    " bytes while it was read; wait until its writer has finished");
  }
  return bytes;
}

}  // namespace bracket
