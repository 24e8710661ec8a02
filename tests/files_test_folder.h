// A folder of its own for each test of the file formats, and system calls that fail on demand.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/files/posix_file.h"

namespace bracket {

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

class FolderTest : public ::testing::Test {
 protected:
  FolderTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "bracket_files_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed for " + pattern);
    folder_ = pattern;
  }
  ~FolderTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::filesystem::path at(std::string_view name) const { return folder_ / name; }

  static std::string content(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  static void put(const std::filesystem::path& path, std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      result.push_back(entry.path().filename().string());
    }
    std::sort(result.begin(), result.end());
    return result;
  }

  std::filesystem::path folder_;
};

/// The kernel's calls, except that call number `fail_at` (from 1, reading and unlink not counted) fails with `error`.
class FailingCalls : public FileCalls {
 public:
  FailingCalls(int fail_at, int error) : fail_at_(fail_at), error_(error) {}

  int num_calls() const { return num_calls_; }

  int open(const char* path, int flags, mode_t mode) override {
    return fails() ? -1 : FileCalls::open(path, flags, mode);
  }
  ssize_t write(int descriptor, const void* bytes, std::size_t count) override {
    return fails() ? -1 : FileCalls::write(descriptor, bytes, count);
  }
  int fsync(int descriptor) override { return fails() ? -1 : FileCalls::fsync(descriptor); }
  // A failing close still frees the descriptor, as Linux does.
  int close(int descriptor) override {
    const int result = FileCalls::close(descriptor);
    return fails() ? -1 : result;
  }
  int rename(const char* from, const char* to) override { return fails() ? -1 : FileCalls::rename(from, to); }
  int mkdir(const char* path, mode_t mode) override { return fails() ? -1 : FileCalls::mkdir(path, mode); }
  int flock(int descriptor, int operation) override { return fails() ? -1 : FileCalls::flock(descriptor, operation); }

 private:
  bool fails() {
    if (++num_calls_ != fail_at_) return false;
    errno = error_;
    return true;
  }

  int fail_at_;
  int error_;
  int num_calls_ = 0;
};

/// Writes at most `limit` bytes a call and, once `capacity` bytes are written, reports a full disk.
class SmallDiskCalls : public FileCalls {
 public:
  SmallDiskCalls(std::size_t limit, std::size_t capacity) : limit_(limit), capacity_(capacity) {}

  ssize_t write(int descriptor, const void* bytes, std::size_t count) override {
    count = std::min({count, limit_, capacity_});
    if (count == 0) {
      errno = ENOSPC;
      return -1;
    }
    capacity_ -= count;
    return FileCalls::write(descriptor, bytes, count);
  }

 private:
  std::size_t limit_;
  std::size_t capacity_;
};

/// Runs `action`, which must throw ErrorT with a text of one line that holds every one of `parts`.
template <typename ErrorT, typename ActionT>
void expect_error(ActionT action, const std::vector<std::string>& parts) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown, expected: " << ::testing::PrintToString(parts);
  } catch (const ErrorT& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in: " << text;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another type was thrown: " << error.what();
  }
}

}  // namespace bracket
