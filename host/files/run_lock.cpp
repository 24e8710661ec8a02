#include "host/files/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

constexpr std::size_t kMaxHolderText = 300;

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return "process " + std::to_string(::getpid()) + " on " + (host[0] != '\0' ? host.data() : "an unnamed machine");
}

std::string holder_text(OpenFile& file) {
  std::array<std::byte, kMaxHolderText> bytes{};
  const std::size_t count = file.read(bytes);
  if (count == 0) return "another process";
  return text_in_quotes({reinterpret_cast<const char*>(bytes.data()), count}, kMaxHolderText);
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder, FileCalls& calls)
    : file_(OpenFile::open(folder / ".lock", O_RDWR | O_CREAT, calls)) {
  int result = 0;
  do {
    result = calls.flock(file_.descriptor(), LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno == EWOULDBLOCK) {
    throw DataError("run folder " + path_in_quotes(folder) + " is in use by " + holder_text(file_) +
                    "; wait for it to end or choose another folder");
  }
  if (result != 0) throw_file_error("lock", file_.path(), errno);
  if (calls.ftruncate(file_.descriptor(), 0) != 0) throw_file_error("write", file_.path(), errno);
  const std::string holder = this_process();
  file_.write(std::as_bytes(std::span(holder)));
}

}  // namespace bracket
