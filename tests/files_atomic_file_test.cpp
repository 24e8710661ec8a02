#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/atomic_file.h"
#include "host/files/run_lock.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

class AtomicFile : public FolderTest {};

TEST_F(AtomicFile, CreatesAndReplaces) {
  write_file_atomically(at("file"), bytes_of("one"));
  EXPECT_EQ(content(at("file")), "one");
  write_file_atomically(at("file"), bytes_of(""));
  EXPECT_EQ(content(at("file")), "");
  const std::string large(3'000'001, 'z');
  write_file_atomically(at("file"), bytes_of(large));
  EXPECT_EQ(content(at("file")), large);
  EXPECT_EQ(names(), std::vector<std::string>{"file"});
}

TEST_F(AtomicFile, AnyNameTheFileSystemAllows) {
  const std::string longest(255, 'n');
  write_file_atomically(at(longest), bytes_of("x"));
  EXPECT_EQ(content(at(longest)), "x");
  expect_error<DataError>([&] { write_file_atomically(at(longest + "n"), bytes_of("x")); }, {"shorter name"});
}

// Each call of the sequence open, write, fsync, close, rename, open folder, fsync folder, close folder fails once.
TEST_F(AtomicFile, EveryCallFailingLeavesTheOldOrTheNewContent) {
  for (const int error : {EIO, ENOSPC, EACCES, EROFS}) {
    int num_failures = 0;
    for (int fail_at = 1;; ++fail_at) {
      put(at("file"), "old");
      FailingCalls calls(fail_at, error);
      bool threw = false;
      try {
        write_file_atomically(at("file"), bytes_of("new"), calls);
      } catch (const DataError& failure) {
        threw = true;
        EXPECT_NE(std::string(failure.what()).find(folder_.string()), std::string::npos) << failure.what();
        EXPECT_NE(std::string(failure.what()).find("; "), std::string::npos) << failure.what();
      }
      constexpr int kRename = 5;
      EXPECT_EQ(content(at("file")), fail_at <= kRename ? "old" : "new") << "call " << fail_at << ", errno " << error;
      EXPECT_EQ(names(), std::vector<std::string>{"file"}) << "call " << fail_at << ", errno " << error;
      num_failures += threw ? 1 : 0;
      if (calls.num_calls() < fail_at) {
        EXPECT_FALSE(threw);
        break;
      }
    }
    // All eight calls but the close of the folder, which has nothing left to lose.
    EXPECT_EQ(num_failures, 7) << "errno " << error;
  }
}

TEST_F(AtomicFile, InterruptedCallsAreRepeated) {
  for (int fail_at = 1;; ++fail_at) {
    FailingCalls calls(fail_at, EINTR);
    const std::string text = "content " + std::to_string(fail_at);
    write_file_atomically(at("file"), bytes_of(text), calls);
    EXPECT_EQ(content(at("file")), text);
    if (calls.num_calls() < fail_at) break;
    EXPECT_LT(fail_at, 20);
  }
}

TEST_F(AtomicFile, ShortWritesAreContinued) {
  const std::string text(1000, 'y');
  for (const std::size_t limit : {1, 7, 999}) {
    SmallDiskCalls calls(limit, 1'000'000);
    write_file_atomically(at("file"), bytes_of(text), calls);
    EXPECT_EQ(content(at("file")), text);
    put(at("file"), "");
  }
}

TEST_F(AtomicFile, FullDiskKeepsTheOldContent) {
  put(at("file"), "old");
  SmallDiskCalls calls(16, 500);
  expect_error<DataError>([&] { write_file_atomically(at("file"), bytes_of(std::string(501, 'n')), calls); },
                          {"No space left", "free disk space"});
  EXPECT_EQ(content(at("file")), "old");
  EXPECT_EQ(names(), std::vector<std::string>{"file"});
}

TEST_F(AtomicFile, FollowsALinkAndKeepsIt) {
  put(at("target"), "old");
  fs::create_symlink("target", at("link"));
  write_file_atomically(at("link"), bytes_of("new"));
  EXPECT_TRUE(fs::is_symlink(at("link")));
  EXPECT_EQ(content(at("target")), "new");
}

TEST_F(AtomicFile, RefusesWhatIsNoFile) {
  expect_error<DataError>([&] { write_file_atomically("/dev/null", bytes_of("x")); }, {"/dev/null", "regular file"});
  struct stat status {};
  ASSERT_EQ(::stat("/dev/null", &status), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
  expect_error<DataError>([&] { write_file_atomically(folder_, bytes_of("x")); }, {"not of a folder"});
  expect_error<DataError>([&] { write_file_atomically("", bytes_of("x")); }, {"no file name"});
  expect_error<DataError>([&] { write_file_atomically(at("absent/file"), bytes_of("x")); },
                          {"absent", "No such file", "create the folder"});
  put(at("file"), "x");
  expect_error<DataError>([&] { write_file_atomically(at("file/below"), bytes_of("x")); },
                          {"file/below", "Not a directory"});
}

TEST_F(AtomicFile, TwoThreadsInOneFolder) {
  const auto write_many = [&](const std::string& name) {
    for (int i = 0; i < 50; ++i) write_file_atomically(at(name), bytes_of(name + std::to_string(i)));
  };
  std::thread other(write_many, "a");
  write_many("b");
  other.join();
  EXPECT_EQ(content(at("a")), "a49");
  EXPECT_EQ(content(at("b")), "b49");
  EXPECT_EQ(names().size(), 2u);
}

TEST_F(AtomicFile, LeftoversOfAKilledProcessDoNotBlock) {
  const std::string leftover = ".bracket-" + std::to_string(::getpid()) + "-0.tmp";
  put(at(leftover), "torn");
  fs::create_directories(at(".bracket-1-0.tmp/inner"));
  put(at("kept.tmp"), "");
  write_file_atomically(at("file"), bytes_of("x"));
  EXPECT_EQ(content(at("file")), "x");
  remove_leftover_temporaries(folder_);
  EXPECT_EQ(names(), (std::vector<std::string>{"file", "kept.tmp"}));
}

TEST_F(AtomicFile, CreateFolders) {
  create_folders(at("a/b/c/"));
  EXPECT_TRUE(fs::is_directory(at("a/b/c")));
  create_folders(at("a/b/c"));
  put(at("file"), "");
  expect_error<DataError>([&] { create_folders(at("file/below")); }, {"file", "Not a directory"});
  expect_error<DataError>([&] { create_folders(""); }, {"empty name"});
  FailingCalls read_only(1, EROFS);
  create_folders(folder_, read_only);
  for (int fail_at = 1; fail_at <= 3; ++fail_at) {
    // Parents that exist are visited first; only the calls for the last folder matter here.
    FailingCalls counting(0, 0);
    create_folders(folder_, counting);
    FailingCalls calls(counting.num_calls() + fail_at, ENOSPC);
    expect_error<DataError>([&] { create_folders(at("new"), calls); }, {"No space left"});
    fs::remove(at("new"));
  }
}

TEST_F(AtomicFile, RemoveTreeVanishesInOneStep) {
  fs::create_directories(at("step/inner"));
  put(at("step/inner/file"), "x");
  put(at("outside"), "kept");
  fs::create_symlink(at("outside"), at("step/link"));
  remove_tree(at("step"));
  EXPECT_EQ(names(), std::vector<std::string>{"outside"});
  EXPECT_EQ(content(at("outside")), "kept");
  remove_tree(at("step"));

  fs::create_directories(at("step"));
  FailingCalls calls(1, EACCES);
  expect_error<DataError>([&] { remove_tree(at("step"), calls); }, {"step", "permissions"});
  EXPECT_TRUE(fs::exists(at("step")));

  fs::create_symlink("step", at("alias"));
  for (const fs::path& path : {at("outside"), at("alias"), at("step/."), at("step/.."), fs::path("/"), fs::path(".")}) {
    expect_error<DataError>([&] { remove_tree(path); }, {"refusing to remove"});
  }
  EXPECT_TRUE(fs::exists(at("step")));
}

class ReadFile : public FolderTest {};

TEST_F(ReadFile, WholeContentOrAClearError) {
  put(at("file"), std::string("a\0b", 3));
  EXPECT_EQ(read_file(at("file")).size(), 3u);
  put(at("empty"), "");
  EXPECT_TRUE(read_file(at("empty")).empty());
  expect_error<DataError>([&] { read_file(at("absent")); }, {"absent", "No such file"});
  expect_error<DataError>([&] { read_file(folder_); }, {"not of a folder"});
  ASSERT_EQ(::mkfifo(at("fifo").c_str(), 0600), 0);
  expect_error<DataError>([&] { read_file(at("fifo")); }, {"fifo", "not a regular file"});
  expect_error<DataError>([&] { read_file(at("new\nline")); }, {"new\\x0aline"});
}

class ShrinkingCalls : public FileCalls {
 public:
  explicit ShrinkingCalls(int error) : error_(error) {}
  ssize_t read(int, void*, std::size_t) override {
    errno = error_;
    return error_ == 0 ? 0 : -1;
  }

 private:
  int error_;
};

TEST_F(ReadFile, ReadErrorsAndShrinkingFiles) {
  put(at("file"), "12345");
  ShrinkingCalls shrinking(0);
  expect_error<DataError>([&] { read_file(at("file"), shrinking); }, {"from 5 to 0 bytes"});
  ShrinkingCalls broken(EIO);
  expect_error<DataError>([&] { read_file(at("file"), broken); }, {"Input/output error", "check the disk"});
}

class Append : public FolderTest {};

TEST_F(Append, AllOrNothing) {
  auto created = OpenFile::create_new(at("log"));
  ASSERT_TRUE(created.has_value());
  created->append(bytes_of("first\n"));
  EXPECT_FALSE(OpenFile::create_new(at("log")).has_value());

  for (std::size_t capacity = 0; capacity < 7; ++capacity) {
    SmallDiskCalls calls(3, capacity);
    OpenFile file = OpenFile::open(at("log"), O_WRONLY | O_APPEND, calls);
    expect_error<DataError>([&] { file.append(bytes_of("second\n")); }, {"No space left"});
    EXPECT_EQ(content(at("log")), "first\n") << capacity;
  }
  SmallDiskCalls calls(3, 7);
  OpenFile::open(at("log"), O_WRONLY | O_APPEND, calls).append(bytes_of("second\n"));
  EXPECT_EQ(content(at("log")), "first\nsecond\n");
}

class Lock : public FolderTest {};

TEST_F(Lock, SecondHolderIsRefusedUntilTheFirstEnds) {
  std::optional<RunLock> first(folder_);
  const std::string holder = "process " + std::to_string(::getpid());
  expect_error<DataError>([&] { RunLock second(folder_); }, {folder_.string(), "in use by", holder, "another folder"});
  first.reset();
  RunLock second(folder_);
  RunLock moved(std::move(second));
  expect_error<DataError>([&] { RunLock third(folder_); }, {"in use"});
}

TEST_F(Lock, FreedByTheDeathOfTheHolder) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    RunLock lock(folder_);
    const char signal = '1';
    if (::write(ready[1], &signal, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char signal = 0;
  ASSERT_EQ(::read(ready[0], &signal, 1), 1);
  expect_error<DataError>([&] { RunLock lock(folder_); }, {"process " + std::to_string(child)});
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_NO_THROW(RunLock lock(folder_));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(Lock, UnusableFolderAndFailingCalls) {
  expect_error<DataError>([&] { RunLock lock(at("absent")); }, {"absent/.lock", "create the folder"});
  for (int fail_at = 1; fail_at <= 3; ++fail_at) {
    FailingCalls calls(fail_at, EROFS);
    expect_error<DataError>([&] { RunLock lock(folder_, calls); }, {".lock", "writable folder"});
    EXPECT_NO_THROW(RunLock lock(folder_)) << "the failed attempt must not keep the lock";
  }
  FailingCalls interrupted(2, EINTR);
  EXPECT_NO_THROW(RunLock lock(folder_, interrupted));
}

}  // namespace
}  // namespace bracket
