// Runs the program `bracket` as a user would: arguments in, exit code and two streams out.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "host/files/npy.h"
#include "tests/run_fixture.h"

namespace bracket {

struct ProgramResult {
  int code = -1;  ///< exit code, or 1000 + the signal that ended the process
  std::string out;
  std::string err;
};

class ProgramTest : public RunFolderTest {
 protected:
  void TearDown() override {
    for (const pid_t child : children_) ::kill(child, SIGKILL);
    for (const pid_t child : children_) ::waitpid(child, nullptr, 0);
  }

  /// Blanks separate arguments. `prepare` runs in the child between fork and exec. Standard streams go to `stem`.out
  /// and `stem`.err in the test's folder.
  pid_t start(const std::string& arguments, const std::string& stem, const std::function<void()>& prepare = {}) {
    std::vector<std::string> words = {BRACKET_PROGRAM_PATH};
    std::istringstream stream(arguments);
    for (std::string word; stream >> word;) words.push_back(word);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string out = at(stem + ".out"), err = at(stem + ".err");
    const pid_t child = ::fork();
    if (child == 0) {
      const int out_descriptor = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      const int err_descriptor = ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      ::dup2(out_descriptor, STDOUT_FILENO);
      ::dup2(err_descriptor, STDERR_FILENO);
      ::close(out_descriptor);
      ::close(err_descriptor);
      // A sanitizer would end the process where the system's allocator returns null.
      const char* sanitizer = std::getenv("ASAN_OPTIONS");
      const std::string options = std::string(sanitizer != nullptr ? sanitizer : "") + ":allocator_may_return_null=1";
      ::setenv("ASAN_OPTIONS", options.c_str(), 1);
      if (prepare) prepare();
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    children_.push_back(child);
    return child;
  }

  ProgramResult wait(pid_t child, const std::string& stem) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    std::erase(children_, child);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), content(at(stem + ".out")),
            content(at(stem + ".err"))};
  }

  ProgramResult run(const std::string& arguments, const std::function<void()>& prepare = {}) {
    return wait(start(arguments, "run", prepare), "run");
  }

  /// The code, and exactly one line on standard error, "bracket: error: ..." with every part in it.
  void expect_failure(const std::string& arguments, int code, const std::vector<std::string>& parts,
                      const std::function<void()>& prepare = {}) {
    SCOPED_TRACE(arguments);
    const ProgramResult result = run(arguments, prepare);
    EXPECT_EQ(result.code, code) << result.err;
    EXPECT_TRUE(result.err.starts_with("bracket: error: ")) << result.err;
    EXPECT_EQ(result.err.find('\n') + 1, result.err.size()) << result.err;
    for (const std::string& part : parts) {
      EXPECT_NE(result.err.find(part), std::string::npos) << "no '" << part << "' in: " << result.err;
    }
  }

  ProgramResult expect_success(const std::string& arguments, const std::function<void()>& prepare = {}) {
    SCOPED_TRACE(arguments);
    const ProgramResult result = run(arguments, prepare);
    EXPECT_EQ(result.code, 0) << result.err;
    return result;
  }

  /// Until `condition` holds; false after a minute.
  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 6000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  /// Writes rows.npy, a table of three columns that small runs train on in milliseconds, and returns the arguments.
  std::string small_run(const std::string& name, const std::string& more = "") const {
    const Dataset table = small_table();
    const std::vector<std::int64_t> shape = {table.rows(), table.cols()};
    const std::vector<std::byte> bytes = serialize_npy(table.values(), shape);
    put(at("rows.npy"), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    return "train --preset vectors --data " + at("rows.npy").string() + " --out " + at(name).string() +
           " --device cpu --threads 1 --steps 60 --seed 3 --set batch_size=8 --set log_every=10" +
           " --set checkpoint_every=20 " + more;
  }

  /// metrics.jsonl without what depends on the clock.
  std::string metrics(const std::string& name) const {
    std::string text = content(at(name) / "metrics.jsonl");
    for (const std::string key : {"\"time_s\":", "\"step_ms\":"}) {
      for (std::size_t i = text.find(key); i != std::string::npos; i = text.find(key, i)) {
        text.erase(i, text.find_first_of(",}", i) - i);
      }
    }
    return text;
  }

 private:
  std::vector<pid_t> children_;
};

}  // namespace bracket
