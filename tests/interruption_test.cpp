// Runs that are stopped, killed and damaged, and go on. BRACKET_KILLS and BRACKET_DAMAGES set the number of kills and
// of damaged files (default 5 and 20; tools/acceptance.sh: 50 and 200), BRACKET_TEST_SEED where and when they strike.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "host/run/manifest.h"
#include "tests/program_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

int number_from(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoi(text);
}

class InterruptionTest : public ProgramTest {
 protected:
  std::string path(const std::string& name) const { return at(name).string(); }

  std::string newest_tree_path(const std::string& name) const { return path(name + "/checkpoints/step_00000060"); }

  /// small_run with batches large enough that products and activations are shared among threads
  /// (kernels/cpu/linear.cpp, cpu_common.h).
  std::string arguments_with_threads(const std::string& name, const std::string& threads,
                                     const std::string& more = "") const {
    std::string arguments = small_run(name, "--set batch_size=512 " + more);
    return arguments.replace(arguments.find("--threads 1"), 11, "--threads " + threads);
  }

  /// A run that does not end by itself, and has begun to train.
  pid_t start_endless(const std::string& name, const std::string& more = "") {
    const pid_t child = start(small_run(name, "--set log_every=1 --steps 100000000 " + more), name);
    EXPECT_TRUE(eventually([&] { return fs::exists(at(name) / "metrics.jsonl"); })) << content(at(name + ".err"));
    return child;
  }

  /// Processor time of a process.
  static double busy_seconds(pid_t process) {
    const std::string text = content("/proc/" + std::to_string(process) + "/stat");
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;  // up to field 13 of proc(5); 14 and 15 are the times
    double user = 0, system = 0;
    fields >> user >> system;
    return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

  /// Whether every signal sent to a process has been handed to it.
  static bool signals_delivered(pid_t process) {
    const std::string text = content("/proc/" + std::to_string(process) + "/status");
    return text.find("ShdPnd:\t0000000000000000") != std::string::npos;
  }
};

TEST_F(InterruptionTest, ResumedRunsAreBitIdenticalAtOneAndTwoThreads) {
  expect_success(arguments_with_threads("straight", "1"));
  for (const std::string threads : {"1", "2"}) {
    for (const int stop : {1, 17, 40}) {
      const std::string name = "run_" + threads + "_" + std::to_string(stop);
      expect_success(arguments_with_threads(name, threads, "--stop-after " + std::to_string(stop)));
      expect_success("train --resume " + path(name) + " --threads " + threads);
      EXPECT_EQ(tree(newest_tree_path(name)), tree(newest_tree_path("straight"))) << name;
      EXPECT_EQ(metrics(name), metrics("straight")) << name;
    }
  }
}

TEST_F(InterruptionTest, TheDefaultRecipeResumesBitIdenticallyToo) {
  const auto arguments = [&](const std::string& name, const std::string& more) {
    return "train --data 25gaussians --device cpu --threads 2 --steps 12 --set log_every=2 --out " + path(name) +
           " --set batch_size=256" + more;
  };
  expect_success(arguments("straight", ""));
  expect_success(arguments("stopped", " --stop-after 5"));
  expect_success("train --resume " + path("stopped") + " --threads 1");
  EXPECT_EQ(tree(at("stopped/checkpoints/step_00000012")), tree(at("straight/checkpoints/step_00000012")));
  EXPECT_EQ(metrics("stopped"), metrics("straight"));
  EXPECT_EQ(content(at("stopped/density/step_00000012.png")), content(at("straight/density/step_00000012.png")));
}

TEST_F(InterruptionTest, AChangedTotalIsRecorded) {
  expect_success(small_run("run", "--stop-after 10"));
  expect_success("train --resume " + path("run") + " --steps 30");
  const RunDescription description = read_run_description(at("run"));
  EXPECT_EQ(description.settings.trainer.total_steps, 30);
  EXPECT_EQ(read_newest_checkpoint(at("run")).checkpoint->snapshot.step, 30);
  expect_failure("train --resume " + path("run") + " --steps 20", 2, {"30", "20"});
  expect_success("train --resume " + path("run"));  // complete: nothing left to do
}

TEST_F(InterruptionTest, SignalsLeaveACheckpointAndTheirCode) {
  const std::pair<int, int> cases[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGUSR1, 75}};
  for (const auto& [signal, code] : cases) {
    const std::string name = "run_" + std::to_string(signal);
    const pid_t child = start_endless(name);
    ::kill(child, signal);
    const ProgramResult result = wait(child, name);
    EXPECT_EQ(result.code, code) << result.err;
    EXPECT_EQ(result.err, "");
    EXPECT_NE(result.out.find("resume with: bracket train --resume"), std::string::npos) << result.out;
    const NewestCheckpoint newest = read_newest_checkpoint(at(name));
    ASSERT_TRUE(newest.checkpoint.has_value());
    EXPECT_TRUE(newest.refused.empty());
    EXPECT_NE(result.out.find("after step " + std::to_string(newest.checkpoint->snapshot.step)), std::string::npos);
  }
}

TEST_F(InterruptionTest, ASecondSignalEndsAtOnce) {
  // One step of a minute or more: the first signal waits for its end.
  const pid_t child = start(small_run("run", "--set batch_size=4096 --set energy_steps=1000"), "run");
  ASSERT_TRUE(eventually([&] { return fs::exists(at("run/metrics.jsonl")); })) << content(at("run.err"));
  // Opening the logs takes next to none of this time, so it is within the step.
  const double begin = busy_seconds(child);
  ASSERT_TRUE(eventually([&] { return busy_seconds(child) > begin + 0.5; }));
  ::kill(child, SIGTERM);
  ASSERT_TRUE(eventually([&] { return signals_delivered(child); }));
  ::kill(child, SIGUSR1);
  EXPECT_EQ(wait(child, "run").code, 75);
  EXPECT_TRUE(list_checkpoints(at("run/checkpoints")).empty());  // the first signal was not honoured yet
}

TEST_F(InterruptionTest, ASecondProcessIsRefused) {
  const pid_t child = start_endless("run");
  expect_failure("train --resume " + path("run"), 3, {"in use", std::to_string(child)});
  expect_failure(small_run("run", "--force"), 3, {"in use"});
  expect_success("inspect " + path("run"));  // looking is free
  ::kill(child, SIGTERM);
  EXPECT_EQ(wait(child, "run").code, 143);
}

TEST_F(InterruptionTest, KilledAnywhereItResumesAndEndsTheSame) {
  const int kills = number_from("BRACKET_KILLS", 5);
  std::mt19937 random(static_cast<unsigned>(number_from("BRACKET_TEST_SEED", 1)));
  // Checkpoints so frequent that many kills strike while one is written or rotated.
  const std::string settings = " --set checkpoint_every=1 --set log_every=1 --set keep_checkpoints=2 --steps 100";
  const auto begin = std::chrono::steady_clock::now();
  expect_success(small_run("straight", settings));
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
  // Short enough that a run outlives a few; anew whenever one is complete.
  std::uniform_int_distribution<int> delay(0, std::max(20, static_cast<int>(whole.count()) / 3));
  int round = 0, killed = 0;
  std::string name;
  for (bool complete = true; killed < kills || !complete;) {
    if (complete) name = "run_" + std::to_string(round++);
    // Before its config.json there is no run yet; whatever was left must not stand in the way of starting it.
    const bool begun = fs::exists(at(name) / "config.json");
    const pid_t child = start(begun ? "train --resume " + path(name) : small_run(name, settings), name);
    if (killed < kills) {
      std::this_thread::sleep_for(std::chrono::milliseconds(delay(random)));
      ::kill(child, SIGKILL);
      ++killed;
    }
    const ProgramResult result = wait(child, name);
    ASSERT_TRUE(result.code == 0 || result.code == 1000 + SIGKILL) << result.code << ' ' << result.err;
    ASSERT_EQ(result.err, "");  // no damaged checkpoint was ever met
    complete = result.code == 0;
    if (!complete) continue;
    EXPECT_EQ(tree(at(name) / "checkpoints/step_00000100"), tree(at("straight/checkpoints/step_00000100"))) << name;
    EXPECT_EQ(metrics(name), metrics("straight")) << name;
    for (const auto& entry : fs::recursive_directory_iterator(at(name))) {
      EXPECT_FALSE(entry.path().filename().string().starts_with(".bracket-")) << entry.path();
    }
    fs::remove_all(at(name));
  }
}

TEST_F(InterruptionTest, DamageOfAnyKindIsRefusedWithFileAndReason) {
  const int damages = number_from("BRACKET_DAMAGES", 20);
  const unsigned seed = static_cast<unsigned>(number_from("BRACKET_TEST_SEED", 1));
  std::mt19937 random(seed);
  const auto below = [&](std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
  };
  expect_success(small_run("run", "--stop-after 5"));
  const fs::path folder = at("run/checkpoints/step_00000005");
  std::vector<std::string> files(kCheckpointFiles.begin(), kCheckpointFiles.end());
  files.push_back(kManifestName);
  for (int i = 0; i < damages; ++i) {
    const std::string& name = files[static_cast<std::size_t>(i) % files.size()];
    const std::string text = content(folder / name);
    const std::size_t position = below(text.size());
    const bool cut = i / static_cast<int>(files.size()) % 2 == 1;
    SCOPED_TRACE(name + (cut ? " cut at " : " flipped at ") + std::to_string(position) + ", seed " +
                 std::to_string(seed));
    if (cut) {
      put(folder / name, text.substr(0, position));
    } else {
      flip(folder / name, position, static_cast<unsigned>(below(8)));
    }
    expect_failure("train --resume " + path("run"), 7, {name});
    put(folder / name, text);
  }
  expect_success("train --resume " + path("run"));
}

}  // namespace
}  // namespace bracket
